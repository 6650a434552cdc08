//! What does a registry want before it answers? `WWW-Authenticate`, RFC 9110 section 11.6.1, read.

/// One challenge of a header: a scheme and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token, to be had at `realm` (distribution-spec's token authentication).
    Bearer {
        realm: String,
        service: Option<String>,
    },
    /// A scheme we do not speak, kept to name it in an error.
    Other(String),
}

/// The challenges of one header, in its order. Lenient: what cannot be read ends the list.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while let Some((scheme, after)) = token(rest) {
        let (parameters, after) = parameters(after);
        found.push(challenge(scheme, parameters));
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    found
}

fn challenge(scheme: &str, mut parameters: Vec<(String, String)>) -> Challenge {
    let mut take = |name: &str| {
        let at = parameters.iter().position(|(key, _)| key == name)?;
        Some(parameters.swap_remove(at).1).filter(|value| !value.is_empty())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Challenge::Basic;
    }
    match take("realm") {
        Some(realm) if scheme.eq_ignore_ascii_case("bearer") => Challenge::Bearer {
            realm,
            service: take("service"),
        },
        _ => Challenge::Other(scheme.to_owned()),
    }
}

/// `key=value` pairs up to the next scheme: a token that no `=` follows.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let Some((key, after)) = token(start) else {
            return (found, start);
        };
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return (found, start);
        };
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, after) = token(after).unwrap_or(("", after));
                (value.to_owned(), after)
            }
        };
        found.push((key.to_ascii_lowercase(), value));
        rest = after;
    }
}

/// Up to the closing quote, with `\x` read as `x`. A quote that is missing ends with the header.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// A word up to white space, `,`, `=` or `"`; `None` if there is none. Wider than RFC 9110's token, since unquoted URLs
/// occur.
fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.find([' ', '\t', ',', '=', '"']).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        let auth = "https://auth.example/token";
        let cases: &[(&str, Vec<Challenge>)] = &[
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"r.example\",scope=\"repository:a:pull,push\"",
                vec![bearer(auth, Some("r.example"))],
            ),
            (
                "bearer REALM=https://auth.example/token",
                vec![bearer(auth, None)],
            ),
            (
                "Bearer  realm = \"https://auth.example/token\" , service=\"\"",
                vec![bearer(auth, None)],
            ),
            (
                "Negotiate, Basic realm=\"a, b\", Bearer realm=\"https://auth.example/token\"",
                vec![
                    Challenge::Other("Negotiate".to_owned()),
                    Challenge::Basic,
                    bearer(auth, None),
                ],
            ),
            (
                r#"Bearer realm="https://auth.example/a\"b""#,
                vec![bearer("https://auth.example/a\"b", None)],
            ),
            (
                "Bearer realm=\"https://auth.example/token",
                vec![bearer(auth, None)],
            ),
            (
                "Bearer service=\"no realm\"",
                vec![Challenge::Other("Bearer".to_owned())],
            ),
            ("", vec![]),
            (" , ,", vec![]),
            ("=\"\"=,", vec![]),
        ];
        for (header, expected) in cases {
            assert_eq!(parse(header), *expected, "{header}");
        }
    }
}
