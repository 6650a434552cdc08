//! The user's terminal, raw for as long as a container has it.

use anyhow::{Context, Result};
use nix::sys::termios::{self, SetArg, Termios};
use std::io::Stdin;

pub struct Raw {
    before: Termios,
    stdin: Stdin,
}

impl Raw {
    pub fn enter() -> Result<Raw> {
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin).context("tcgetattr of stdin")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).context("tcsetattr of stdin")?;
        Ok(Raw { before, stdin })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no mode.
        let _ = termios::tcsetattr(&self.stdin, SetArg::TCSANOW, &self.before);
    }
}
