//! What does a question to a name server say, and how is it answered? RFC 1035, as far as it is needed; pure.

use std::net::IpAddr;

/// Length of a message's header.
const HEADER: usize = 12;
/// Seconds that an answer of ours is good for: a container's address may be another's soon.
const TTL: u32 = 5;

pub const NAME_ERROR: u8 = 3;
pub const SERVER_FAILURE: u8 = 2;

/// The one question of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without the dot at the end.
    pub name: String,
    pub kind: Kind,
    /// Where it ends in the message.
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    Pointer,
    Other,
}

/// `None`: nothing that we understand, for others to answer.
pub fn question(message: &[u8]) -> Option<Question> {
    let header = message.get(..HEADER)?;
    // A query (QR 0, OPCODE 0) with one question.
    if header[2] & 0xf8 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let (mut name, mut at) = (String::new(), HEADER);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            // A question comes first: there is nothing yet that it could point to.
            64.. => return None,
            _ => {
                let label = std::str::from_utf8(message.get(at..at + length)?).ok()?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(&label.to_ascii_lowercase());
                at += length;
            }
        }
        if name.len() > 255 {
            return None;
        }
    }
    let rest = message.get(at..at + 4)?;
    let kind = match (rest[0], rest[1], rest[2], rest[3]) {
        (0, 1, 0, 1) => Kind::A,
        (0, 28, 0, 1) => Kind::Aaaa,
        (0, 12, 0, 1) => Kind::Pointer,
        _ => Kind::Other,
    };
    Some(Question {
        name,
        kind,
        end: at + 4,
    })
}

/// The address that the question for a pointer is about.
pub fn pointed(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let reversed: Vec<&str> = rest.rsplit('.').collect();
        return reversed.join(".").parse().ok();
    }
    let digits: Vec<u8> = name
        .strip_suffix(".ip6.arpa")?
        .rsplit('.')
        .map(|digit| {
            u8::from_str_radix(digit, 16)
                .ok()
                .filter(|value| *value < 16)
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0))
        .collect();
    <[u8; 16]>::try_from(bytes)
        .ok()
        .filter(|_| digits.len() == 32)
        .map(IpAddr::from)
}

/// The addresses of the kind that was asked for; it may be none.
pub fn addresses(message: &[u8], question: &Question, addresses: &[IpAddr]) -> Vec<u8> {
    let data = addresses
        .iter()
        .filter_map(|address| match (question.kind, address) {
            (Kind::A, IpAddr::V4(v4)) => Some((1, v4.octets().to_vec())),
            (Kind::Aaaa, IpAddr::V6(v6)) => Some((28, v6.octets().to_vec())),
            _ => None,
        });
    answer(message, question, 0, &data.collect::<Vec<_>>())
}

pub fn pointer(message: &[u8], question: &Question, name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for label in name
        .split('.')
        .filter(|label| (1..64).contains(&label.len()))
    {
        data.push(label.len() as u8);
        data.extend(label.as_bytes());
    }
    data.push(0);
    answer(message, question, 0, &[(12, data)])
}

/// No answer, and why.
pub fn failure(message: &[u8], question: &Question, code: u8) -> Vec<u8> {
    answer(message, question, code, &[])
}

fn answer(message: &[u8], question: &Question, code: u8, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut text = message[..2].to_vec();
    // QR, AA and the RD that was asked for; RA.
    text.extend([0x84 | message[2] & 1, 0x80 | code]);
    text.extend([0, 1]);
    text.extend((records.len() as u16).to_be_bytes());
    text.extend([0; 4]);
    text.extend(&message[HEADER..question.end]);
    for (kind, data) in records {
        // The name is where the question has it.
        text.extend([0xc0, HEADER as u8]);
        text.extend(kind.to_be_bytes());
        text.extend([0, 1]);
        text.extend(TTL.to_be_bytes());
        text.extend((data.len() as u16).to_be_bytes());
        text.extend(data);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(labels: &[&str], kind: u8) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.extend([0, 0, kind, 0, 1]);
        message
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let message = asked(&["WEB", "example"], 1);
        let question = question(&message).unwrap();
        assert_eq!(
            (question.name.as_str(), question.kind),
            ("web.example", Kind::A)
        );
        let both = [[10, 89, 0, 2].into(), "fd00::2".parse().unwrap()];
        let answer = addresses(&message, &question, &both);
        let mut expected = message.clone();
        expected[2..4].copy_from_slice(&[0x85, 0x80]);
        expected[7] = 1;
        expected.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 89, 0, 2]);
        assert_eq!(answer, expected);
        assert_eq!(failure(&message, &question, NAME_ERROR)[3], 0x83);
    }

    #[test]
    fn what_is_no_question_is_left_to_others() {
        let whole = asked(&["web"], 28);
        for end in 0..whole.len() {
            assert_eq!(question(&whole[..end]), None, "{end}");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(question(&answer), None);
        let mut pointing = whole;
        pointing[HEADER] = 0xc0;
        assert_eq!(question(&pointing), None);
    }

    #[test]
    fn pointers_name_addresses_backwards() {
        let v6 = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        for (name, expected) in [
            ("2.0.89.10.in-addr.arpa", Some("10.89.0.2")),
            (v6.as_str(), Some("fd00::2")),
            ("0.89.10.in-addr.arpa", None),
            ("x.ip6.arpa", None),
            ("web", None),
        ] {
            assert_eq!(
                pointed(name),
                expected.map(|text| text.parse().unwrap()),
                "{name}"
            );
        }
    }
}
