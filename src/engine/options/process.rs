//! Options that say what runs in a container, as whom, with which environment and stdio.

use crate::engine::config::Wishes;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Process {
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// An environment variable; KEY alone takes the value it has here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// A file of such lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it, a name of the image or a number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Instead of the image's Entrypoint and Cmd
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// [default: the beginning of the id]
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// The NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// One more group, a name of the image or a number
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// For the runtime and its hooks
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Print help
    // -h is the host's name, as with docker.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Process {
    pub fn wish(&self, wishes: &mut Wishes) -> Result<()> {
        wishes.env = self.environment()?;
        wishes.cwd = self.workdir.clone();
        wishes.hostname = self.hostname.clone();
        Ok(())
    }

    pub fn apply(&self, config: &mut Value) -> Result<()> {
        if let Some(name) = &self.domainname {
            config["domainname"] = json!(name);
        }
        for typed in &self.annotation {
            let (key, value) = typed.split_once('=').unwrap_or((typed, ""));
            ensure!(!key.is_empty(), "--annotation {typed:?}: a key is missing");
            config["annotations"][key] = json!(value);
        }
        Ok(())
    }

    /// Files first: what is typed wins.
    fn environment(&self) -> Result<Vec<String>> {
        let mut env = Vec::new();
        for path in &self.env_file {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("--env-file {}", path.display()))?;
            let lines = text.lines().map(str::trim_start);
            env.extend(
                lines
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .map(str::to_owned),
            );
        }
        env.extend(self.env.iter().cloned());
        Ok(env.into_iter().filter_map(valued).collect())
    }
}

/// `KEY` takes the value of here; unset, it says nothing.
pub fn valued(entry: String) -> Option<String> {
    match entry.contains('=') {
        true => Some(entry),
        false => std::env::var(&entry)
            .ok()
            .map(|value| format!("{entry}={value}")),
    }
}
