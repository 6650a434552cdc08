//! One verb, one file: its options as typed, and what it does.

pub mod list;
