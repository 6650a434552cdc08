//! Hands libFuzzer's inputs to the target that `SC_FUZZ` names. scripts/fuzz builds and runs it.

#![no_main]

mod targets;

use std::sync::LazyLock;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let name = std::env::var("SC_FUZZ").unwrap_or_default();
    let found = targets::ALL.iter().find(|target| target.name == name);
    *found.unwrap_or_else(|| {
        let all: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
        panic!("SC_FUZZ is {name:?}; the targets are {}", all.join(", "))
    })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
