//! # Layout
//!
//! - [`machine`]  what this machine has, and the private corner of it that the tests run in
//! - [`place`]    one test's own place: directory, state root, cgroup, ids; and what is left there
//! - [`bundle`]   a bundle to try: the default config.json, changed by a line or two, and a rootfs
//! - [`command`]  one call of the runtime, with a deadline
//! - [`container`] a created container, followed to its end
//! - [`probe`]    what a process inside sees; the program the tests put into containers
//! - [`tracer`]   a runtime stopped, killed or lied to at its n-th system call
//! - [`kernel`]   bare system calls

pub mod bundle;
pub mod command;
pub mod container;
pub mod kernel;
pub mod machine;
pub mod place;
pub mod probe;
pub mod tracer;

pub use anyhow::{Context, Result, bail, ensure};
pub use bundle::Bundle;
pub use command::Outcome;
pub use container::Container;
pub use machine::{Need, machine};
pub use place::Place;
pub use serde_json::{Value, json};

/// A test: a sentence, what it needs of the machine, and what it does.
pub struct Test {
    pub name: &'static str,
    pub needs: &'static [Need],
    pub body: fn(&Place) -> Result<()>,
}

/// `tests! { a_sentence, another_one [Controller("memory")] }` makes the table of a file.
macro_rules! tests {
    ($($name:ident $([$($need:expr),+ $(,)?])?),+ $(,)?) => {
        pub const TESTS: &[$crate::harness::Test] = &[$(
            $crate::harness::Test { name: stringify!($name), needs: &[$($($need),+)?], body: $name }
        ),+];
    };
}
