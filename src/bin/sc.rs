//! argv in, exit status out; all else is the library's.

use simplecontainer::engine::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os().collect())
}
