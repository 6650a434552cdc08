//! `exec`: one more process in a running container, by its runtime.

use crate::engine::cli::Global;
use crate::engine::options::process::valued;
use crate::engine::programs::{self, Now};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

/// Run one more command in a running container
#[derive(Debug, Args)]
pub struct Exec {
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// An environment variable; KEY alone takes the value it has here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Working directory [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it, in numbers [default: as the container]
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Name, id or beginning of the id
    container: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

impl Exec {
    pub fn run(&self, global: &Global) -> Result<u8> {
        ensure!(
            !self.tty || std::io::stdin().is_terminal(),
            "--tty: stdin is not a terminal; without -t none is needed"
        );
        let home = global.home()?;
        let record = home.find(&self.container)?;
        match programs::now(&home, &record)? {
            Now::Running => {}
            Now::Paused => bail!("container {} is paused", self.container),
            _ => bail!(
                "container {} is not running: `sc start {0}`",
                self.container
            ),
        }
        // A runtime has one status for all that fails: its log tells what did.
        let log = home
            .dir(&record.id)
            .join(format!("exec.{}", std::process::id()));
        let mut runtime = programs::runtime(&home, &record);
        runtime.args(["--log-format", "json", "--log"]).arg(&log);
        runtime.arg("exec").args(self.tty.then_some("--tty"));
        for entry in self.env.iter().cloned().filter_map(valued) {
            runtime.arg("--env").arg(entry);
        }
        for (option, value) in [("--cwd", &self.workdir), ("--user", &self.user)] {
            if let Some(value) = value {
                runtime.arg(option).arg(value);
            }
        }
        if !self.interactive && !self.tty {
            runtime.stdin(Stdio::null());
        }
        let status = runtime.arg(&record.id).args(&self.command).status();
        let said = programs::error_in(&log);
        // There is none where nothing was said.
        let _ = fs::remove_file(&log);
        let status = status.with_context(|| format!("execute {}", record.runtime.display()))?;
        Ok(match (said, status.code(), status.signal()) {
            // The runtime has told it on stderr.
            (Some(said), ..) => programs::refused_status(&said),
            (None, Some(code), _) => code as u8,
            (None, None, signal) => 128 + signal.unwrap_or(0) as u8,
        })
    }
}
