//! Which typed value does a text stand for?
//!
//! systemd's unit properties are typed (D-Bus specification, "Type System"), annotations are text.
//! The text is in GVariant's notation (docs.gtk.org/glib/gvariant-text-format.html), as runc reads
//! it: `true`, `'text'`, `uint64 5`, `['a', 'b']`, `@as []`. Beyond runc, tuples are understood,
//! because `DeviceAllow` and the like are lists of them. Dictionaries are not: no property has one.
//!
//! Pure. How a value goes over the wire is `runtime::dbus`'s matter.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// A value of one of D-Bus's types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    /// Never NaN.
    F64(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// The signature of each element, and the elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

// Lawful: NaN has no notation here, and none comes over the wire where values are compared.
impl Eq for Value {}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl Value {
    /// The type as D-Bus writes it: `s`, `a(ss)`.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::F64(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => {
                let inner: String = fields.iter().map(Value::signature).collect();
                format!("({inner})")
            }
            Value::Variant(_) => "v".into(),
        }
    }
}

/// The first complete type of `signature`, and what follows it; `None` where there is none.
pub fn first_type(signature: &str) -> Option<(&str, &str)> {
    let length = type_length(signature.as_bytes(), 0)?;
    Some(signature.split_at(length))
}

/// D-Bus allows 32 levels; nothing here has more than three.
const DEEPEST: usize = 8;

fn type_length(signature: &[u8], depth: usize) -> Option<usize> {
    if depth > DEEPEST {
        return None;
    }
    match signature.first()? {
        b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g'
        | b'v' => Some(1),
        b'a' => Some(1 + type_length(&signature[1..], depth + 1)?),
        b'(' => {
            let mut at = 1;
            while *signature.get(at)? != b')' {
                at += type_length(&signature[at..], depth + 1)?;
            }
            // `()` is no type.
            (at > 1).then_some(at + 1)
        }
        _ => None,
    }
}

/// The value that `text` stands for. Errors say what is not understood, not where it was read.
pub fn parse(text: &str) -> Result<Value> {
    let mut reader = Reader { rest: text };
    let value = reader.value(None, 0)?;
    reader.space();
    ensure!(
        reader.rest.is_empty(),
        "{:?} follows the value",
        reader.rest
    );
    Ok(value)
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    rest: &'a str,
}

/// The words that name a basic type before a value.
const TYPE_NAMES: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl<'a> Reader<'a> {
    /// The next value; `wanted` is its type where something before it has told.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value> {
        ensure!(depth <= DEEPEST, "too many brackets inside one another");
        self.space();
        let first = self.rest.chars().next().context("a value is missing")?;
        match first {
            '@' => {
                let (word, _) = self.cut_word();
                let kind = &word[1..];
                ensure!(
                    first_type(kind).is_some_and(|(_, rest)| rest.is_empty()),
                    "unrecognized type {kind:?}"
                );
                self.value(Some(kind), depth + 1)
            }
            '[' => self.array(wanted, depth),
            '(' => self.tuple(wanted, depth),
            '<' => {
                self.expect('<')?;
                let inner = self.value(None, depth + 1)?;
                self.expect('>')?;
                fits(Value::Variant(Box::new(inner)), wanted)
            }
            '\'' | '"' => text_of(self.quoted()?, wanted),
            'b' if self.rest[1..].starts_with(['\'', '"']) => {
                self.rest = &self.rest[1..];
                let mut bytes = self.quoted()?.into_bytes();
                // GVariant's byte strings carry their NUL.
                bytes.push(0);
                let bytes = bytes.into_iter().map(Value::Byte).collect();
                fits(Value::Array("y".into(), bytes), wanted)
            }
            '+' | '-' | '.' | '0'..='9' => {
                let (word, _) = self.cut_word();
                number(word, wanted)
            }
            _ => {
                let (word, before) = self.cut_word();
                if let Some((_, kind)) = TYPE_NAMES.iter().find(|(name, _)| *name == word) {
                    return self.value(Some(kind), depth + 1);
                }
                match word {
                    "true" | "false" => fits(Value::Bool(word == "true"), wanted),
                    _ => bail!("unrecognized type {:?}", before.rest),
                }
            }
        }
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value> {
        let told = match wanted {
            Some(kind) => Some(kind.strip_prefix('a').with_context(|| mismatch(kind))?),
            None => None,
        };
        let before = *self;
        let items = self.items('[', ']', depth, |_| Ok(told))?;
        let mut kinds: Vec<String> = items.iter().map(Value::signature).collect();
        kinds.dedup();
        match (told, kinds.as_slice()) {
            (Some(kind), _) => Ok(Value::Array(kind.into(), items)),
            (None, []) => bail!("an empty list needs its type before it, like @as []"),
            (None, [kind]) => Ok(Value::Array(kind.clone(), items)),
            // One element's own type, or its fraction, speaks for those that are bare numbers.
            (None, kinds) => {
                let kind = kinds.iter().find(|k| *k != "i");
                let kind = kind.context("the elements of a list differ in type")?;
                *self = before;
                let items = self.items('[', ']', depth, |_| Ok(Some(kind.as_str())))?;
                Ok(Value::Array(kind.clone(), items))
            }
        }
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value> {
        let mut left = match wanted {
            Some(kind) => Some(
                kind.strip_prefix('(')
                    .and_then(|k| k.strip_suffix(')'))
                    .with_context(|| mismatch(kind))?,
            ),
            None => None,
        };
        let fields = self.items('(', ')', depth, |_| match left {
            None => Ok(None),
            Some(types) => {
                let (first, rest) = first_type(types).context("a tuple has too many fields")?;
                left = Some(rest);
                Ok(Some(first))
            }
        })?;
        ensure!(left.unwrap_or("").is_empty(), "a tuple lacks fields");
        ensure!(!fields.is_empty(), "a tuple without fields is no value");
        Ok(Value::Struct(fields))
    }

    /// The values between two brackets, a comma after each but (if wished) the last.
    fn items<'w>(
        &mut self,
        open: char,
        close: char,
        depth: usize,
        mut wanted: impl FnMut(usize) -> Result<Option<&'w str>>,
    ) -> Result<Vec<Value>> {
        self.expect(open)?;
        let mut items = vec![];
        loop {
            self.space();
            if let Some(rest) = self.rest.strip_prefix(close) {
                self.rest = rest;
                return Ok(items);
            }
            let kind = wanted(items.len())?;
            items.push(self.value(kind, depth + 1)?);
            self.space();
            if !self.rest.starts_with(close) {
                self.expect(',')?;
            }
        }
    }

    fn expect(&mut self, sign: char) -> Result<()> {
        self.space();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.with_context(|| format!("{sign:?} is missing at {:?}", self.rest))?;
        Ok(())
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Everything up to white space or a bracket or comma that cannot be part of a word; and the
    /// reader as it was, for messages.
    fn cut_word(&mut self) -> (&'a str, Reader<'a>) {
        let before = *self;
        // A type after `@` may hold parentheses.
        let ends: &[char] = if self.rest.starts_with('@') {
            &[' ', '\t', '\n', '[', '\'', '"', '<', ',', ']']
        } else {
            &[
                ' ', '\t', '\n', '[', '\'', '"', '<', ',', ']', '(', ')', '>',
            ]
        };
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (word, before)
    }

    /// A string in single or double quotes, which `self` is at.
    fn quoted(&mut self) -> Result<String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut out = String::new();
        loop {
            let c = chars.next().context("a string has no closing quote")?;
            if Some(c) == quote {
                self.rest = chars.as_str();
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next().context("a string has no closing quote")? {
                'a' => out.push('\x07'),
                'b' => out.push('\x08'),
                'f' => out.push('\x0c'),
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'v' => out.push('\x0b'),
                '\n' => {}
                u @ ('u' | 'U') => {
                    let digits = if u == 'u' { 4 } else { 8 };
                    let hex: String = chars.by_ref().take(digits).collect();
                    let code = u32::from_str_radix(&hex, 16).ok();
                    let code = code.filter(|_| hex.len() == digits);
                    out.push(
                        code.and_then(char::from_u32)
                            .with_context(|| format!("\\{u}{hex} is no character"))?,
                    );
                }
                other => out.push(other),
            }
        }
    }
}

fn mismatch(wanted: &str) -> String {
    format!("the value is not of the type {wanted:?} told before it")
}

fn fits(value: Value, wanted: Option<&str>) -> Result<Value> {
    ensure!(
        wanted.is_none_or(|kind| kind == value.signature()),
        mismatch(wanted.unwrap_or(""))
    );
    Ok(value)
}

fn text_of(text: String, wanted: Option<&str>) -> Result<Value> {
    ensure!(
        !text.contains('\0'),
        "a string cannot hold a NUL byte on D-Bus"
    );
    Ok(match wanted {
        None | Some("s") => Value::Text(text),
        Some("o") => Value::Path(text),
        Some("g") => Value::Signature(text),
        Some(kind) => bail!(mismatch(kind)),
    })
}

/// A number in decimal, or in hexadecimal (0x) or octal (0) notation. One without a type is an
/// int32, or a double where it has a fraction or an exponent.
fn number(word: &str, wanted: Option<&str>) -> Result<Value> {
    let bare = word.trim_start_matches(['+', '-']);
    let hex = bare.starts_with("0x") || bare.starts_with("0X");
    let fraction = !hex && bare.contains(['.', 'e', 'E']);
    let kind = wanted.unwrap_or(if fraction { "d" } else { "i" });
    if kind == "d" {
        let parsed = word.parse::<f64>().ok().filter(|f| f.is_finite());
        return Ok(Value::F64(
            parsed.with_context(|| format!("{word:?} is no number"))?,
        ));
    }
    let whole = whole(word).with_context(|| format!("{word:?} is no whole number"))?;
    let value = match kind {
        "y" => u8::try_from(whole).ok().map(Value::Byte),
        "n" => i16::try_from(whole).ok().map(Value::I16),
        "q" => u16::try_from(whole).ok().map(Value::U16),
        "i" => i32::try_from(whole).ok().map(Value::I32),
        "u" => u32::try_from(whole).ok().map(Value::U32),
        "x" => i64::try_from(whole).ok().map(Value::I64),
        "t" => u64::try_from(whole).ok().map(Value::U64),
        _ => bail!(mismatch(kind)),
    };
    value.with_context(|| match wanted {
        Some(_) => format!("{word} does not fit its type {kind:?}"),
        None => format!("{word} does not fit an int32: name its type, like uint64 {word}"),
    })
}

fn whole(word: &str) -> Option<i128> {
    let (sign, digits) = match word.as_bytes().first()? {
        b'-' => (-1, &word[1..]),
        b'+' => (1, &word[1..]),
        _ => (1, word),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None if lower.len() > 1 && lower.starts_with('0') => (&lower[1..], 8),
        None => (lower.as_str(), 10),
    };
    // from_str_radix would take a second sign.
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u64::from_str_radix(digits, radix).ok().filter(|_| plain)?;
    Some(sign * i128::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Value {
        Value::Array("s".into(), list.iter().map(|&s| s.into()).collect())
    }

    #[test]
    fn text_becomes_the_value_that_gvariant_says() {
        for (text, value) in [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x10", Value::I32(16)),
            ("010", Value::I32(8)),
            ("0", Value::I32(0)),
            ("1.5", Value::F64(1.5)),
            ("1e3", Value::F64(1000.0)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("int64 -1", Value::I64(-1)),
            ("byte 0xff", Value::Byte(255)),
            ("@t 7", Value::U64(7)),
            ("double 2", Value::F64(2.0)),
            ("'it'", "it".into()),
            ("\"it's\\n\\u00e9\\\\\"", "it's\né\\".into()),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', \"b\"]", strings(&["a", "b"])),
            ("['a',]", strings(&["a"])),
            ("@as []", strings(&[])),
            (
                "[1, uint64 2]",
                Value::Array("t".into(), vec![Value::U64(1), Value::U64(2)]),
            ),
            (
                "[1, 2.5]",
                Value::Array("d".into(), vec![Value::F64(1.0), Value::F64(2.5)]),
            ),
            (
                "@ay [1, 2]",
                Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]),
            ),
            (
                "b'a'",
                Value::Array("y".into(), vec![Value::Byte(97), Value::Byte(0)]),
            ),
            (
                "[('/dev/null', 'rw')]",
                Value::Array(
                    "(ss)".into(),
                    vec![Value::Struct(vec!["/dev/null".into(), "rw".into()])],
                ),
            ),
            (
                "@a(st) [('x', 1)]",
                Value::Array(
                    "(st)".into(),
                    vec![Value::Struct(vec!["x".into(), Value::U64(1)])],
                ),
            ),
            ("<'x'>", Value::Variant(Box::new("x".into()))),
        ] {
            assert_eq!(parse(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_value_is_refused_with_the_reason() {
        for (text, message) in [
            ("", "a value is missing"),
            ("hello", "unrecognized type \"hello\""),
            ("uint64", "a value is missing"),
            ("uint64 x", "unrecognized type \"x\""),
            (
                "uint64 'x'",
                "the value is not of the type \"t\" told before it",
            ),
            ("uint64 -1", "-1 does not fit its type \"t\""),
            ("byte 256", "256 does not fit its type \"y\""),
            (
                "4294967296",
                "4294967296 does not fit an int32: name its type, like uint64 4294967296",
            ),
            ("5x", "\"5x\" is no whole number"),
            ("--5", "\"--5\" is no whole number"),
            ("0x", "\"0x\" is no whole number"),
            ("1.5.5", "\"1.5.5\" is no number"),
            ("1e999", "\"1e999\" is no number"),
            ("'a", "a string has no closing quote"),
            ("'\\ud800'", "\\ud800 is no character"),
            ("'\\u0000'", "a string cannot hold a NUL byte on D-Bus"),
            ("[]", "an empty list needs its type before it, like @as []"),
            (
                "[1, 'a']",
                "the value is not of the type \"s\" told before it",
            ),
            ("[1 2]", "',' is missing at \"2]\""),
            ("[1", "',' is missing at \"\""),
            ("@aq", "a value is missing"),
            ("@z 5", "unrecognized type \"z\""),
            ("@() ()", "unrecognized type \"()\""),
            ("()", "a tuple without fields is no value"),
            ("@(ss) ('a',)", "a tuple lacks fields"),
            ("@(s) ('a','b')", "a tuple has too many fields"),
            ("{'a': 1}", "unrecognized type \"{'a': 1}\""),
            ("true false", "\"false\" follows the value"),
            (
                "[[[[[[[[[[[[1]]]]]]]]]]]]",
                "too many brackets inside one another",
            ),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert_eq!(error, message, "{text}");
        }
    }

    #[test]
    fn a_signature_is_cut_after_its_first_type() {
        for (signature, cut) in [
            ("s", Some(("s", ""))),
            ("ssa(sv)", Some(("s", "sa(sv)"))),
            ("a(sa(sv))u", Some(("a(sa(sv))", "u"))),
            ("", None),
            ("a", None),
            ("(", None),
            ("()", None),
            ("aaaaaaaaaaaaaaaas", None),
            ("a{sv}", None),
        ] {
            assert_eq!(first_type(signature), cut, "{signature}");
        }
    }
}
