//! `commit`: what a container changed, as a layer on top of its image.

use super::diff;
use crate::engine::cli::Global;
use crate::engine::now::{self, Now};
use crate::engine::programs;
use crate::engine::record::{Home, Record};
use crate::show::printable;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::process::Stdio;

/// Make an image of a container's changes
#[derive(Debug, Args)]
pub struct Commit {
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// A word about it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// An instruction of a Dockerfile, such as 'CMD ["sh"]' or 'ENV A=1'
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Pause the container meanwhile [true, where it can be paused]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: Option<bool>,
    /// Name, id or beginning of the id
    container: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Commit {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let record = home.find(&self.container)?;
        ensure!(
            !record.lower.is_empty(),
            "{}: it was made from a bundle, which has no layers",
            record.name
        );
        let running = now::now(&home, &record)? == Now::Running;
        let mut paused = false;
        if running && self.pause != Some(false) {
            match programs::call(&home, &record, &["pause", &record.id]) {
                Ok(()) => paused = true,
                Err(e) if self.pause.is_some() => return Err(e),
                // Without root it may have no cgroup.
                Err(e) => eprintln!(
                    "sc: the container goes on meanwhile: {}",
                    printable(&format!("{e:#}"))
                ),
            }
        }
        let made = self.make(&home, &record);
        if paused {
            // It may have been killed meanwhile.
            let _ = programs::call(&home, &record, &["resume", &record.id]);
        }
        made.map(|()| 0)
    }

    fn make(&self, home: &Home, record: &Record) -> Result<()> {
        let dir = home.dir(&record.id);
        let mut command = programs::image(&home.root);
        command.arg("commit");
        for (option, value) in [("--author", &self.author), ("--message", &self.message)] {
            if let Some(value) = value {
                command.arg(format!("{option}={value}"));
            }
        }
        for instruction in &self.change {
            command.arg(format!("--change={instruction}"));
        }
        // The runtime made places for mounts there.
        for path in diff::mounted(&dir)? {
            command.arg("--without").arg(path);
        }
        command
            .arg("--")
            .arg(&record.image_id)
            .arg(dir.join("upper"))
            .args(&self.name);
        let output = command
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped());
        let output = output.output().context("execute sc-image")?;
        programs::said(&output)
    }
}
