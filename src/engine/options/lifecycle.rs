//! Options that say how a container is called, made and removed.

use anyhow::{Result, ensure};
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Lifecycle {
    /// [default: one is made up]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Remove the container when it has ended
    #[arg(long)]
    pub rm: bool,
    /// KEY or KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// Another OCI runtime: crun, runc [default: sc-runtime]
    #[arg(long, value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
}

impl Lifecycle {
    pub fn labels(&self) -> Result<BTreeMap<String, String>> {
        let split = |label: &String| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            ensure!(!key.is_empty(), "--label {label:?}: a key is missing");
            Ok((key.to_owned(), value.to_owned()))
        };
        self.label.iter().map(split).collect()
    }
}
