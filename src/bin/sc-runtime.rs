//! argv in, exit status out; all else is the library's.
//!
//! `main` is the C library's, not Rust's: what Rust's runtime prepares (a stack for overflow handlers,
//! a look at /proc/self/maps) is 19 system calls that every verb would pay.
#![no_main]

use simplecontainer::runtime::cli;

#[unsafe(no_mangle)]
pub extern "C" fn main() -> std::ffi::c_int {
    cli::main(std::env::args_os()).into()
}
