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
    /// How readily it is killed when memory is short, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    oom_score_adj: Option<i32>,
    /// A limit of each process: NAME=SOFT[:HARD], -1 for none
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Print help
    // -h is the host's name, as with docker.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Process {
    pub fn wish(&self, wishes: &mut Wishes) -> Result<()> {
        wishes.env = environment(&self.env_file, &self.env)?;
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
        if let Some(score) = self.oom_score_adj {
            ensure!(
                (-1000..=1000).contains(&score),
                "--oom-score-adj {score}: from -1000 to 1000"
            );
            config["process"]["oomScoreAdj"] = json!(score);
        }
        for typed in &self.ulimit {
            ulimit(config, typed).with_context(|| format!("--ulimit {typed:?}"))?;
        }
        Ok(())
    }
}

/// What is in `files`, then what was typed, which wins.
pub fn environment(files: &[PathBuf], typed: &[String]) -> Result<Vec<String>> {
    let mut env = Vec::new();
    for path in files {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("--env-file {}", path.display()))?;
        let lines = text.lines().map(str::trim_start);
        env.extend(
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    env.extend(typed.iter().cloned());
    Ok(env.into_iter().filter_map(valued).collect())
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

/// setrlimit(2)'s names, in docker's spelling.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn ulimit(config: &mut Value, typed: &str) -> Result<()> {
    let (name, limits) = typed.split_once('=').context("write NAME=SOFT[:HARD]")?;
    ensure!(
        ULIMITS.contains(&name),
        "invalid ulimit type: {name}; known are {}",
        ULIMITS.join(", ")
    );
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text {
        // RLIM_INFINITY
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text
            .parse::<u64>()
            .with_context(|| format!("{text:?} is not a number")),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    ensure!(
        soft <= hard,
        "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
    );
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
    let mut rlimits = config["process"]["rlimits"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    rlimits.retain(|other| other["type"] != kind);
    rlimits.push(json!({ "type": kind, "soft": soft, "hard": hard }));
    config["process"]["rlimits"] = json!(rlimits);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(typed: &[&str]) -> Result<Value> {
        let mut config = json!({ "process": {} });
        typed
            .iter()
            .try_for_each(|typed| ulimit(&mut config, typed))?;
        Ok(config["process"]["rlimits"].clone())
    }

    #[test]
    fn a_ulimit_replaces_what_the_image_had() {
        assert_eq!(
            limited(&["nofile=10:20", "nofile=30", "core=-1"]).unwrap(),
            json!([
                { "type": "RLIMIT_NOFILE", "soft": 30, "hard": 30 },
                { "type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX },
            ])
        );
        for bad in ["x=1", "core=2:1", "core", "core=x"] {
            assert!(limited(&[bad]).is_err(), "{bad}");
        }
    }
}
