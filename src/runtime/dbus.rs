//! How is a D-Bus message sent and its answer had?
//!
//! As much of the D-Bus specification (dbus.freedesktop.org/doc/dbus-specification.html) as
//! systemd's manager takes: a stream socket, EXTERNAL authentication, method calls, replies and
//! signals, synchronous, under one deadline. The peer is either a message bus or systemd itself
//! (its private socket speaks the same without a bus between). What is said to systemd is
//! `runtime::systemd`'s matter.
//!
//! Why not a crate: zbus brings an async executor, dbus links libdbus (no static program), and
//! rustbus a second nix, bitflags and syn; a container started without systemd pays for none of it.

use crate::runtime::plan::variant::{Value, first_type};
use crate::sys::Call as _;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use std::fmt;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Messages are in this machine's byte order, as those of a local peer are.
const ENDIAN: u8 = if cfg!(target_endian = "big") {
    b'B'
} else {
    b'l'
};

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// The specification allows 128 MiB; systemd's messages have some kilobytes.
const LONGEST: usize = 16 << 20;

const LATE: &str = "it did not answer in time";

/// A connection to a bus or a peer.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    /// Not yet sent: calls are gathered, so that several go in one packet.
    outgoing: Vec<u8>,
    /// Received, not yet looked at.
    incoming: Vec<u8>,
    serial: u32,
    deadline: Instant,
}

/// A method call.
#[derive(Debug, Clone, Copy)]
pub struct MethodCall<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub arguments: &'a [Value],
}

/// A message that came in.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
    kind: u8,
    /// Where the body begins in `bytes`.
    body: usize,
    signature: String,
    pub reply_to: Option<u32>,
    pub interface: String,
    pub member: String,
    pub sender: String,
    error: String,
}

/// A peer's refusal of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `org.freedesktop.systemd1.UnitExists`
    pub name: String,
    /// For people.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some senders end their text with a full stop; ours have none.
        match self.text.trim_end_matches('.') {
            "" => f.write_str(&self.name),
            text => f.write_str(text),
        }
    }
}

impl std::error::Error for Refusal {}

impl Bus {
    /// Connects to the socket at `address`, for a conversation that ends within `patience`.
    ///
    /// Authenticates as EXTERNAL without a name: the socket itself tells the peer who we are,
    /// which also holds in a user namespace, where our idea of our uid is not the peer's.
    ///
    /// The first call must wait for the OK. systemd 257 reads up to 256 bytes while it
    /// authenticates, and looks at what follows BEGIN in them only when more arrives: a short
    /// call sent along is never answered.
    pub fn connect(address: &SocketAddr, patience: Duration) -> Result<Bus> {
        let stream = UnixStream::connect_addr(address)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut bus = Bus {
            stream,
            outgoing: b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_vec(),
            incoming: vec![],
            serial: 0,
            deadline: Instant::now() + patience,
        };
        bus.flush()?;
        loop {
            match take_line(&mut bus.incoming) {
                // The question for a name; the empty answer has been sent.
                Some(line) if line == "DATA" => {}
                Some(line) if line.starts_with("OK ") => return Ok(bus),
                Some(line) => bail!("it refused our authentication: {line:?}"),
                None => bus.receive()?,
            }
        }
    }

    /// Puts a call down to be sent with the next wait for an answer. Gives its serial number.
    pub fn put(&mut self, call: &MethodCall) -> Result<u32> {
        self.serial += 1;
        let message = encode(call, self.serial)?;
        self.outgoing.extend(message);
        Ok(self.serial)
    }

    /// Calls and waits for the answer. What else comes in meanwhile is dropped.
    pub fn call(&mut self, call: &MethodCall) -> Result<Result<Message, Refusal>> {
        let serial = self.put(call)?;
        loop {
            let message = self.wait()?;
            if message.reply_to == Some(serial) {
                return message.answer();
            }
        }
    }

    /// Waits for the next message: an answer to a call put down before, or a signal.
    pub fn wait(&mut self) -> Result<Message> {
        self.flush()?;
        loop {
            if let Some(message) = take(&mut self.incoming)? {
                return Ok(message);
            }
            self.receive()?;
        }
    }

    fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            // No SIGPIPE, whatever this program does about it.
            let fd = self.stream.as_raw_fd();
            match nix::sys::socket::send(fd, &self.outgoing[sent..], MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => sent += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => bail!(LATE),
                Err(errno) => {
                    return Err(errno)
                        .call("send", || fd.to_string())
                        .map_err(Into::into);
                }
            }
        }
        self.outgoing.clear();
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        ensure!(Instant::now() < self.deadline, LATE);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("it closed the connection"),
                Ok(n) => {
                    self.incoming.extend_from_slice(&buffer[..n]);
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    std::io::ErrorKind::Interrupted => {}
                    std::io::ErrorKind::WouldBlock => bail!(LATE),
                    _ => return Err(error).context("reading its answer"),
                },
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Where a bus is

/// The socket at `path`.
pub fn socket_at(path: &Path) -> Result<SocketAddr> {
    SocketAddr::from_pathname(path).with_context(|| format!("{path:?} cannot name a socket"))
}

/// The Unix sockets among `addresses`, as in `$DBUS_SESSION_BUS_ADDRESS` (specification, "Server
/// Addresses"): `unix:path=/run/user/1000/bus;unix:abstract=x,guid=…`. Other transports have no
/// place on one machine, and are left out.
pub fn sockets(addresses: &str) -> Vec<SocketAddr> {
    let keys = addresses
        .split(';')
        .filter_map(|a| a.strip_prefix("unix:"))
        .flat_map(|keys| keys.split(','))
        .filter_map(|pair| pair.split_once('='));
    keys.filter_map(|(key, value)| {
        let value = unescape(value)?;
        match key {
            "path" => SocketAddr::from_pathname(std::ffi::OsString::from_vec(value)).ok(),
            "abstract" => SocketAddr::from_abstract_name(value).ok(),
            _ => None,
        }
    })
    .collect()
}

/// `%2f` and the like.
fn unescape(value: &str) -> Option<Vec<u8>> {
    let mut out = vec![];
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push((high * 16 + low) as u8);
    }
    Some(out)
}

// ---------------------------------------------------------------------------------------------
// Writing (specification, "Marshaling"): every value at a multiple of its own size

fn encode(call: &MethodCall, serial: u32) -> Result<Vec<u8>> {
    let mut body = vec![];
    for argument in call.arguments {
        write(&mut body, argument)?;
    }
    let signature: String = call.arguments.iter().map(Value::signature).collect();
    let mut fields = vec![
        field(1, Value::Path(call.path.into())),
        field(2, call.interface.into()),
        field(3, call.member.into()),
        field(6, call.destination.into()),
    ];
    if !signature.is_empty() {
        fields.push(field(8, Value::Signature(signature)));
    }
    let mut out = vec![ENDIAN, METHOD_CALL, 0, 1];
    write(&mut out, &Value::U32(length(&body)?))?;
    write(&mut out, &Value::U32(serial))?;
    write(&mut out, &Value::Array("(yv)".into(), fields))?;
    pad(&mut out, 8);
    out.extend(body);
    Ok(out)
}

fn field(code: u8, value: Value) -> Value {
    Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
}

fn write(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    pad(out, alignment(&value.signature()));
    match value {
        Value::Byte(n) => out.push(*n),
        Value::Bool(b) => out.extend(u32::from(*b).to_ne_bytes()),
        Value::I16(n) => out.extend(n.to_ne_bytes()),
        Value::U16(n) => out.extend(n.to_ne_bytes()),
        Value::I32(n) => out.extend(n.to_ne_bytes()),
        Value::U32(n) => out.extend(n.to_ne_bytes()),
        Value::I64(n) => out.extend(n.to_ne_bytes()),
        Value::U64(n) => out.extend(n.to_ne_bytes()),
        Value::F64(n) => out.extend(n.to_ne_bytes()),
        Value::Text(text) | Value::Path(text) => {
            ensure!(!text.contains('\0'), "{text:?} holds a NUL byte");
            out.extend(length(text.as_bytes())?.to_ne_bytes());
            out.extend(text.as_bytes());
            out.push(0);
        }
        Value::Signature(text) => {
            out.push(u8::try_from(text.len()).context("a signature is too long")?);
            out.extend(text.as_bytes());
            out.push(0);
        }
        Value::Array(element, items) => {
            let at = out.len();
            out.extend([0; 4]);
            // The padding before the first element is not counted, and is there without one.
            pad(out, alignment(element));
            let start = out.len();
            for item in items {
                write(out, item)?;
            }
            let size = length(&out[start..])?.to_ne_bytes();
            out[at..at + 4].copy_from_slice(&size);
        }
        Value::Struct(fields) => {
            for field in fields {
                write(out, field)?;
            }
        }
        Value::Variant(inner) => {
            write(out, &Value::Signature(inner.signature()))?;
            write(out, inner)?;
        }
    }
    Ok(())
}

fn length(bytes: &[u8]) -> Result<u32> {
    let fits = u32::try_from(bytes.len()).ok();
    fits.filter(|&n| n as usize <= LONGEST)
        .context("a message for D-Bus is too long")
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

// ---------------------------------------------------------------------------------------------
// Reading: the peer is trusted with what it says, not with how long it is

/// Takes a line of the authentication off `bytes`; `None` while it is not whole.
fn take_line(bytes: &mut Vec<u8>) -> Option<String> {
    let end = bytes.windows(2).position(|w| w == b"\r\n")?;
    let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
    bytes.drain(..end + 2);
    Some(line)
}

/// Takes a message off `bytes`; `None` while it is not whole.
pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Message>> {
    // The fixed part: order, type, flags, version, length of the body, serial, length of the
    // array of fields.
    if bytes.len() < 16 {
        return Ok(None);
    }
    ensure!(
        bytes[0] == ENDIAN && bytes[3] == 1,
        "it does not speak D-Bus in this machine's byte order"
    );
    let number =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (body_length, fields_length) = (number(4) as usize, number(12) as usize);
    ensure!(
        body_length <= LONGEST && fields_length <= LONGEST,
        "it sends a message that is too long"
    );
    let body = (16 + fields_length).next_multiple_of(8);
    let whole = body + body_length;
    if bytes.len() < whole {
        return Ok(None);
    }
    let rest = bytes.split_off(whole);
    let message = std::mem::replace(bytes, rest);
    Message::decode(message, body).map(Some)
}

impl Message {
    fn decode(bytes: Vec<u8>, body: usize) -> Result<Message> {
        let mut message = Message {
            kind: bytes[1],
            body,
            signature: String::new(),
            reply_to: None,
            interface: String::new(),
            member: String::new(),
            sender: String::new(),
            error: String::new(),
            bytes: vec![],
        };
        let mut cursor = Cursor {
            bytes: &bytes[..body],
            at: 12,
        };
        let Value::Array(_, fields) = cursor.read("a(yv)")? else {
            bail!(GARBLED);
        };
        for field in fields {
            let Value::Struct(pair) = field else {
                bail!(GARBLED);
            };
            let [Value::Byte(code), Value::Variant(value)] = &pair[..] else {
                bail!(GARBLED);
            };
            match (code, value.as_ref()) {
                (2, Value::Text(text)) => message.interface = text.clone(),
                (3, Value::Text(text)) => message.member = text.clone(),
                (4, Value::Text(text)) => message.error = text.clone(),
                (5, Value::U32(serial)) => message.reply_to = Some(*serial),
                (7, Value::Text(text)) => message.sender = text.clone(),
                (8, Value::Signature(text)) => message.signature = text.clone(),
                _ => {}
            }
        }
        message.bytes = bytes;
        Ok(message)
    }

    pub fn is_signal(&self, interface: &str, member: &str) -> bool {
        self.kind == SIGNAL && self.interface == interface && self.member == member
    }

    /// An answer, parted into itself and a refusal.
    pub fn answer(self) -> Result<Result<Message, Refusal>> {
        match self.kind {
            METHOD_RETURN => Ok(Ok(self)),
            ERROR => {
                let text = match self.arguments() {
                    Ok(arguments) => match arguments.into_iter().next() {
                        Some(Value::Text(text)) => text,
                        _ => String::new(),
                    },
                    Err(_) => String::new(),
                };
                Ok(Err(Refusal {
                    name: self.error,
                    text,
                }))
            }
            _ => bail!(GARBLED),
        }
    }

    /// What the message carries.
    pub fn arguments(&self) -> Result<Vec<Value>> {
        // Alignment counts from the start of the message.
        let mut cursor = Cursor {
            bytes: &self.bytes,
            at: self.body,
        };
        let mut out = vec![];
        let mut left = self.signature.as_str();
        while !left.is_empty() {
            let (kind, rest) = first_type(left).context(GARBLED)?;
            out.push(cursor.read(kind)?);
            left = rest;
        }
        Ok(out)
    }
}

const GARBLED: &str = "it sends a message that is not D-Bus";

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn read(&mut self, kind: &str) -> Result<Value> {
        self.at = self.at.next_multiple_of(alignment(kind));
        Ok(match kind.as_bytes().first().context(GARBLED)? {
            b'y' => Value::Byte(self.number::<1>()?[0]),
            b'b' => Value::Bool(u32::from_ne_bytes(self.number()?) != 0),
            b'n' => Value::I16(i16::from_ne_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_ne_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_ne_bytes(self.number()?)),
            b'u' => Value::U32(u32::from_ne_bytes(self.number()?)),
            b'x' => Value::I64(i64::from_ne_bytes(self.number()?)),
            b't' => Value::U64(u64::from_ne_bytes(self.number()?)),
            b'd' => Value::F64(f64::from_ne_bytes(self.number()?)),
            b's' => Value::Text(self.long_text()?),
            b'o' => Value::Path(self.long_text()?),
            b'g' => {
                let length = self.number::<1>()?[0];
                Value::Signature(self.text(length.into())?)
            }
            b'a' => self.array(&kind[1..])?,
            b'(' => {
                let mut fields = vec![];
                let mut left = kind
                    .strip_prefix('(')
                    .and_then(|k| k.strip_suffix(')'))
                    .context(GARBLED)?;
                while !left.is_empty() {
                    let (field, rest) = first_type(left).context(GARBLED)?;
                    fields.push(self.read(field)?);
                    left = rest;
                }
                Value::Struct(fields)
            }
            b'v' => {
                let Value::Signature(inner) = self.read("g")? else {
                    bail!(GARBLED);
                };
                let (inner, rest) = first_type(&inner).context(GARBLED)?;
                // A variant in a variant could go on for ever; ours hold plain values.
                ensure!(rest.is_empty() && !inner.contains('v'), GARBLED);
                Value::Variant(Box::new(self.read(inner)?))
            }
            _ => bail!(GARBLED),
        })
    }

    fn array(&mut self, element: &str) -> Result<Value> {
        let length = u32::from_ne_bytes(self.number()?) as usize;
        self.at = self.at.next_multiple_of(alignment(element));
        let end = self.at + length;
        ensure!(end <= self.bytes.len(), GARBLED);
        let mut items = vec![];
        while self.at < end {
            items.push(self.read(element)?);
        }
        ensure!(self.at == end, GARBLED);
        Ok(Value::Array(element.into(), items))
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.cut(N)?.try_into().context(GARBLED)
    }

    fn long_text(&mut self) -> Result<String> {
        let length = u32::from_ne_bytes(self.number()?);
        self.text(length as usize)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = self.cut(length)?.to_vec();
        self.cut(1)?;
        String::from_utf8(text).context(GARBLED)
    }

    fn cut(&mut self, length: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(length).context(GARBLED)?;
        let bytes = self.bytes.get(self.at..end).context(GARBLED)?;
        self.at = end;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the peer would read of `value`, and from where: as an argument of a message.
    fn round_trip(values: &[Value]) -> Vec<Value> {
        let call = MethodCall {
            destination: "org.example",
            path: "/org/example",
            interface: "org.example.I",
            member: "Do",
            arguments: values,
        };
        let mut bytes = encode(&call, 7).unwrap();
        let message = take(&mut bytes).unwrap().unwrap();
        assert!(bytes.is_empty());
        assert_eq!(
            (
                message.kind,
                message.interface.as_str(),
                message.member.as_str()
            ),
            (METHOD_CALL, "org.example.I", "Do")
        );
        message.arguments().unwrap()
    }

    #[test]
    fn a_message_reads_as_it_was_written() {
        let list = |element: &str, items| Value::Array(element.into(), items);
        let values = vec![
            Value::Byte(1),
            Value::U64(u64::MAX),
            Value::Byte(2),
            Value::Bool(true),
            Value::I16(-2),
            Value::U16(3),
            Value::I32(-4),
            Value::U32(5),
            Value::I64(-6),
            Value::F64(0.5),
            "text é".into(),
            Value::Path("/a/b".into()),
            Value::Signature("a(sv)".into()),
            list("(st)", vec![]),
            list("y", vec![Value::Byte(1), Value::Byte(2), Value::Byte(3)]),
            list(
                "(sv)",
                vec![
                    Value::Struct(vec!["A".into(), Value::Variant(Box::new(Value::U64(1)))]),
                    Value::Struct(vec![
                        "Bcd".into(),
                        Value::Variant(Box::new(list("s", vec!["x".into()]))),
                    ]),
                ],
            ),
            list("(sa(sv))", vec![]),
        ];
        assert_eq!(round_trip(&values), values);
        assert_eq!(round_trip(&[]), []);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_call_is_written_byte_by_byte_as_the_specification_says() {
        let call = MethodCall {
            destination: "d",
            path: "/",
            interface: "i.j",
            member: "M",
            arguments: &["a".into(), Value::U64(258)],
        };
        let expected: &[u8] = b"l\x01\0\x01\x10\0\0\0\x09\0\0\0\x48\0\0\0\
            \x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0\
            \x02\x01s\0\x03\0\0\0i.j\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
            \x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\
            \x08\x01g\0\x02st\0\
            \x01\0\0\0a\0\0\0\x02\x01\0\0\0\0\0\0";
        assert_eq!(encode(&call, 9).unwrap(), expected);
    }

    #[test]
    fn a_message_is_waited_for_until_it_is_whole() {
        let call = MethodCall {
            destination: "d",
            path: "/",
            interface: "i",
            member: "M",
            arguments: &["text".into()],
        };
        let bytes = encode(&call, 1).unwrap();
        for cut in 0..bytes.len() {
            let mut part = bytes[..cut].to_vec();
            assert_eq!(take(&mut part).unwrap(), None, "{cut}");
            assert_eq!(part.len(), cut);
        }
        let mut two = [bytes.clone(), bytes.clone()].concat();
        assert!(take(&mut two).unwrap().is_some());
        assert_eq!(two, bytes);
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let call = MethodCall {
            destination: "d",
            path: "/",
            interface: "i",
            member: "M",
            arguments: &[
                Value::Array("(sv)".into(), vec![]),
                "text".into(),
                Value::Variant(Box::new("x".into())),
            ],
        };
        let bytes = encode(&call, 1).unwrap();
        for at in 0..bytes.len() {
            for value in [0, 1, 4, 0x28, 0x61, 0x76, 0x7f, 0x80, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                if let Ok(Some(message)) = take(&mut broken) {
                    let _ = message.arguments();
                    let _ = message.answer();
                }
            }
        }
    }

    #[test]
    fn only_unix_sockets_are_taken_from_an_address() {
        let shown = |addresses: &str| -> Vec<String> {
            sockets(addresses)
                .iter()
                .map(|a| match (a.as_pathname(), a.as_abstract_name()) {
                    (Some(path), _) => path.display().to_string(),
                    (_, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
                    _ => String::new(),
                })
                .collect()
        };
        for (addresses, expected) in [
            ("", vec![]),
            ("unix:path=/run/user/1000/bus", vec!["/run/user/1000/bus"]),
            ("unix:path=/a%20b,guid=12", vec!["/a b"]),
            ("unix:abstract=x;unix:path=/y", vec!["@x", "/y"]),
            ("tcp:host=localhost,port=1;unix:path=/y", vec!["/y"]),
            ("autolaunch:", vec![]),
            ("unix:path=/a%2", vec![]),
            ("unix:path=/a%zz", vec![]),
        ] {
            assert_eq!(shown(addresses), expected, "{addresses}");
        }
    }

    /// A peer that answers what it reads first with `answer`, and hangs up.
    fn peer(answer: &'static [u8]) -> Result<Bus> {
        use std::io::Write;
        use std::os::unix::net::UnixListener;
        let name = format!("sc-dbus-test-{}-{:p}", std::process::id(), answer.as_ptr());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).unwrap();
            stream.write_all(answer).unwrap();
            // Until the other end has gone: hanging up early is another thing to test.
            while !answer.is_empty() && stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
        });
        Bus::connect(&address, Duration::from_millis(200))
    }

    #[test]
    fn a_peer_that_does_not_answer_is_told_from_one_that_refuses() {
        let ping = MethodCall {
            destination: "d",
            path: "/",
            interface: "org.freedesktop.DBus.Peer",
            member: "Ping",
            arguments: &[],
        };
        for (answer, message) in [
            (
                &b"REJECTED EXTERNAL\r\n"[..],
                "it refused our authentication: \"REJECTED EXTERNAL\"",
            ),
            (b"", "it closed the connection"),
            (b"DATA\r\n", "it did not answer in time"),
            (b"DATA\r\nOK 12\r\n", "it did not answer in time"),
            (
                b"OK 12\r\nHTTP/1.1 400 Bad Request\r\n",
                "it does not speak D-Bus in this machine's byte order",
            ),
        ] {
            let error = peer(answer)
                .and_then(|mut bus| bus.call(&ping))
                .unwrap_err();
            assert_eq!(format!("{error:#}"), message);
        }
    }
}
