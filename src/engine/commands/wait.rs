//! `wait`: until containers have ended; their exit status.

use crate::engine::attach;
use crate::engine::cli::{Global, tell};
use crate::engine::now::{self, Now};
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
                Ok(exit) => crate::show::line(exit)?,
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
    // Its last word comes even where the record goes with it (--rm).
    if let Some(client) = attach::connect(home, &record.id)?
        && let Some(exit) = client.ended()?
    {
        return Ok(exit);
    }
    home.end(&record.id).wait()?;
    if let Some(process) = now::alive(&record)? {
        while !pidfd::wait(process.as_fd(), Duration::from_secs(3600))? {}
    }
    let Some(record) = home.load(&record.id)? else {
        bail!("container {name} was removed when it ended");
    };
    match now::now(home, &record)? {
        Now::Exited(Some(exit)) => Ok(exit),
        Now::Exited(None) => {
            bail!("container {name} has ended; its monitor was killed, so nobody knows how")
        }
        // As docker: it does not run.
        Now::Created => Ok(0),
        _ => bail!("container {name} was started again"),
    }
}
