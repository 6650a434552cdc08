//! Options that say which image, and from where.

use crate::engine::programs;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::path::Path;
use std::process::Stdio;

#[derive(Debug, Args)]
pub struct Image {
    /// When the image is fetched from its registry
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub pull: When,
    /// Of an image for several, os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// No progress of a pull
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum When {
    #[default]
    Missing,
    Always,
    Never,
}

/// The image is not in the store: it could be fetched.
#[derive(Debug)]
pub struct Missing;

impl std::fmt::Display for Missing {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        to.write_str("no such image")
    }
}

impl std::error::Error for Missing {}

impl Image {
    /// With progress on stderr: stdout is the container's.
    pub fn pull(&self, root: &Path, image: &str) -> Result<()> {
        let mut command = programs::image(root);
        command.arg("pull").args(self.quiet.then_some("--quiet"));
        if let Some(platform) = &self.platform {
            command.arg("--platform").arg(platform);
        }
        let mut command = command
            .arg("--")
            .arg(image)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // What went wrong is said once, by us.
        let quiet = self.quiet || !std::io::IsTerminal::is_terminal(&std::io::stderr());
        if quiet {
            command = command.stderr(Stdio::piped());
        }
        let output = command
            .spawn()
            .context("execute sc-image")?
            .wait_with_output()?;
        match quiet || output.status.success() {
            true => programs::said(&output),
            false => anyhow::bail!("{image} could not be pulled"),
        }
    }
}
