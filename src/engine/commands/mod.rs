//! One verb, one file: what may be typed, and what it does.

pub mod create;
pub mod exec;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod network;
pub mod port;
pub mod ps;
pub mod rm;
pub mod run;
pub mod start;
pub mod stop;
pub mod wait;

use anyhow::{Result, ensure};

/// Does `each` for every name; what fails is told, and the others are still done.
pub fn every(names: &[String], mut each: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    ensure!(!names.is_empty(), "which container? `sc ps -a` lists them");
    let mut status = 0;
    for name in names {
        match each(name) {
            // What was typed, as scripts expect it.
            Ok(()) => println!("{name}"),
            Err(e) => {
                super::cli::tell(&e);
                status = 1;
            }
        }
    }
    Ok(status)
}
