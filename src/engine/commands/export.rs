//! `export`: all files of a container as a tar, without volumes and other mounts.

use crate::engine::cli::Global;
use crate::engine::inside::root_of_bundle;
use crate::engine::programs;
use crate::engine::rootfs::{Rootfs, View};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Stdio;

/// Write a container's files as a tar
#[derive(Debug, Args)]
pub struct Export {
    /// Into this file [stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name, id or beginning of the id
    container: String,
}

impl Export {
    pub fn run(&self, global: &Global) -> Result<u8> {
        ensure!(
            self.output.is_some() || !std::io::stdout().is_terminal(),
            "cowardly refusing to save to a terminal. Use the -o flag or redirect"
        );
        let home = global.home()?;
        let record = home.find(&self.container)?;
        // Before the working directory changes; half of a tar never has its name.
        let target = self.output.as_ref().map(std::path::absolute).transpose()?;
        let part = target.as_ref().map(|target| {
            let mut name = target.clone().into_os_string();
            name.push(".part");
            PathBuf::from(name)
        });
        let to: Stdio = match &part {
            Some(part) => File::create(part)
                .with_context(|| part.display().to_string())?
                .into(),
            None => Stdio::inherit(),
        };
        let written = (|| {
            let dir = home.dir(&record.id);
            let rootfs = match record.lower.is_empty() {
                true => None,
                false => Some(Rootfs::look(&dir, &record, View::Container)?),
            };
            let root = match &rootfs {
                Some(rootfs) => File::open(rootfs.path())?,
                None => File::open(root_of_bundle(&dir)?)?,
            };
            let kept = record.kept.map(|kept| format!("--kept={kept}"));
            let args: Vec<&OsStr> = kept.iter().map(OsStr::new).collect();
            let mut command = programs::tar(root.into(), &args);
            let output = command.stdout(to).stderr(Stdio::piped()).spawn();
            programs::said(&output.context("execute sc-image")?.wait_with_output()?)
        })();
        if let (Some(part), Some(target)) = (part, target) {
            match written {
                Ok(()) => fs::rename(&part, target)?,
                // The first error is the one to report.
                Err(_) => drop(fs::remove_file(&part)),
            }
        }
        written.map(|()| 0)
    }
}
