//! `wait`: until containers have ended; their exit status.

use super::stop;
use crate::engine::cli::{Global, tell};
use crate::engine::programs::{self, Now};
use crate::engine::record::Home;
use crate::sys::pidfd;
use anyhow::{Result, bail};
use clap::Args;
use std::os::fd::AsFd;
use std::time::Duration;

/// Wait until containers have ended, and print their exit status
#[derive(Debug, Args)]
pub struct Wait {
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Wait {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let mut status = 0;
        for name in &self.containers {
            match ended(&home, name) {
                Ok(exit) => println!("{exit}"),
                Err(e) => {
                    tell(&e);
                    status = 1;
                }
            }
        }
        Ok(status)
    }
}

fn ended(home: &Home, name: &str) -> Result<u8> {
    let record = home.find(name)?;
    if let Some(init) = stop::init(home, &record)? {
        while !pidfd::wait(init.as_fd(), Duration::from_secs(3600))? {}
    }
    home.await_monitor(&record.id)?;
    let Some(record) = home.load(&record.id)? else {
        bail!("container {name} was removed when it ended");
    };
    match programs::now(home, &record)? {
        Now::Exited(Some(exit)) => Ok(exit),
        Now::Exited(None) => {
            bail!("container {name} has ended; its monitor was killed, so nobody knows how")
        }
        _ => bail!("container {name} was never started"),
    }
}
