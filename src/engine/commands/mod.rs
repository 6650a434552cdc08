//! One verb, one file: what may be typed, and what it does.

pub mod attach;
pub mod commit;
pub mod cp;
pub mod create;
pub mod df;
pub mod diff;
pub mod events;
pub mod exec;
pub mod export;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod network;
pub mod pause;
pub mod port;
pub mod prune;
pub mod ps;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod run;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;
pub mod update;
pub mod volume;
pub mod wait;

use anyhow::{Result, ensure};

/// Does `each` for every name; what fails is told, and the others are still done.
pub fn every(names: &[String], mut each: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    ensure!(!names.is_empty(), "which container? `sc ps -a` lists them");
    let mut status = 0;
    for name in names {
        // What was typed, as scripts expect it.
        if let Err(e) = each(name).and_then(|()| crate::show::line(name)) {
            super::cli::tell(&e);
            status = 1;
        }
    }
    Ok(status)
}
