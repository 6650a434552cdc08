//! Where in the document is the value that was refused?
//!
//! serde names no place, and takes a list where a struct is meant (`"hooks": []`, fields by
//! position), which no other runtime does and the specification does not know. This wraps a
//! deserializer: same values, but a struct is an object, and an error comes with its JSON path.
//! What it costs when nothing is wrong: one copy of each key.

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::fmt::{self, Write};

/// A value that was refused, and where it stands (`mounts[3].options[1]`; "" is the whole).
#[derive(Debug)]
pub struct Refused<E> {
    pub path: String,
    pub error: E,
}

/// Reads a `T`, strictly.
pub fn read<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<T, Refused<D::Error>> {
    let trail = Trail::default();
    T::deserialize(Strict {
        inner: from,
        trail: &trail,
    })
    .map_err(|error| Refused {
        path: trail.path(),
        error,
    })
}

/// The steps from the refused value outwards, noted while the error travels up.
#[derive(Default)]
struct Trail(RefCell<Vec<Step>>);

enum Step {
    Key(String),
    Index(usize),
}

impl Trail {
    fn note(&self, step: Step) {
        self.0.borrow_mut().push(step);
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in self.0.borrow().iter().rev() {
            match step {
                Step::Key(key) => push_key(&mut path, key),
                Step::Index(i) => push_index(&mut path, *i),
            }
        }
        path
    }
}

/// `.key`, or `["odd.key"]`.
pub fn push_key(path: &mut String, key: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if key.is_empty() || !key.chars().all(plain) {
        // Writing to a String cannot fail.
        let _ = write!(path, "[{key:?}]");
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

pub fn push_index(path: &mut String, index: usize) {
    // Writing to a String cannot fail.
    let _ = write!(path, "[{index}]");
}

/// Any part of serde's protocol, watched.
struct Strict<'t, T> {
    inner: T,
    trail: &'t Trail,
}

macro_rules! forward {
    ($($method:ident($($arg:ident: $type:ty),*) => $to:ident($($pass:ident),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            $(let _ = $arg;)*
            self.inner.$to($($pass,)* Strict { inner: visitor, trail: self.trail })
        }
    )*};
}

type Names = &'static [&'static str];

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    forward! {
        // The point of it all: what the caller calls a struct must be an object.
        deserialize_struct(name: &'static str, fields: Names) => deserialize_map();
        deserialize_map() => deserialize_map();
        deserialize_seq() => deserialize_seq();
        deserialize_option() => deserialize_option();
        deserialize_newtype_struct(name: &'static str) => deserialize_newtype_struct(name);
        deserialize_enum(name: &'static str, variants: Names) => deserialize_enum(name, variants);
        deserialize_tuple(len: usize) => deserialize_tuple(len);
        deserialize_tuple_struct(name: &'static str, len: usize) => deserialize_tuple_struct(name, len);
        deserialize_unit_struct(name: &'static str) => deserialize_unit_struct(name);
        deserialize_identifier() => deserialize_identifier();
        deserialize_ignored_any() => deserialize_ignored_any();
        deserialize_any() => deserialize_any();
        deserialize_unit() => deserialize_unit();
        deserialize_bool() => deserialize_bool();
        deserialize_i8() => deserialize_i8();
        deserialize_i16() => deserialize_i16();
        deserialize_i32() => deserialize_i32();
        deserialize_i64() => deserialize_i64();
        deserialize_u8() => deserialize_u8();
        deserialize_u16() => deserialize_u16();
        deserialize_u32() => deserialize_u32();
        deserialize_u64() => deserialize_u64();
        deserialize_f32() => deserialize_f32();
        deserialize_f64() => deserialize_f64();
        deserialize_char() => deserialize_char();
        deserialize_str() => deserialize_str();
        deserialize_string() => deserialize_string();
        deserialize_bytes() => deserialize_bytes();
        deserialize_byte_buf() => deserialize_byte_buf();
    }
}

macro_rules! visit {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool);
        visit_i64(i64);
        visit_u64(u64);
        visit_f64(f64);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict {
            inner: from,
            trail: self.trail,
        })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Strict {
            inner: from,
            trail: self.trail,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Elements {
            inner: list,
            trail: self.trail,
            next: 0,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Entries {
            inner: object,
            trail: self.trail,
            key: String::new(),
        })
    }

    // runtime-spec has no variants that hold values: below one there is nothing to watch.
    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(variant)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Strict {
            inner: from,
            trail: self.trail,
        })
    }
}

struct Elements<'t, A> {
    inner: A,
    trail: &'t Trail,
    next: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let index = self.next;
        self.next += 1;
        let seed = Strict {
            inner: seed,
            trail: self.trail,
        };
        self.inner
            .next_element_seed(seed)
            .inspect_err(|_| self.trail.note(Step::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Entries<'t, A> {
    inner: A,
    trail: &'t Trail,
    /// Of the entry at hand; one buffer for all of an object.
    key: String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        match self.inner.next_key_seed(Into(&mut self.key))? {
            None => Ok(None),
            Some(()) => seed.deserialize(StrDeserializer::new(&self.key)).map(Some),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = Strict {
            inner: seed,
            trail: self.trail,
        };
        self.inner
            .next_value_seed(seed)
            .inspect_err(|_| self.trail.note(Step::Key(self.key.clone())))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// Reads a key into a buffer.
struct Into<'b>(&'b mut String);

impl<'de> DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(key);
        Ok(())
    }
}
