//! `save`: images into an archive or a directory that others load.

use crate::image::archive::{self, Format, Target};
use crate::image::cli::Global;
use crate::image::progress::Progress;
use crate::image::store::layers::remove_tree;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::fs::{self, File};
use std::io::{BufWriter, IsTerminal};
use std::path::{Path, PathBuf};

/// Save images into an archive or a directory
#[derive(Debug, Args)]
pub struct Save {
    /// Names or IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Where to [stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What docker, podman and containerd load; an OCI layout in a tar; one in a directory
    #[arg(long, value_enum, default_value = "docker-archive")]
    format: Format,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
}

impl Save {
    pub fn run(&self, global: &Global) -> Result<()> {
        let store = global.store()?;
        let progress = Progress::new(self.quiet);
        let save = |to: Target| archive::save(&store, &self.images, self.format, to, &progress);
        let Some(path) = self
            .output
            .as_deref()
            .filter(|path| path.as_os_str() != "-")
        else {
            ensure!(
                self.format != Format::OciDir,
                "--format oci-dir: needs --output DIR"
            );
            if std::io::stdout().is_terminal() {
                bail!("save: stdout is a terminal: use --output FILE");
            }
            return save(Target::Stream(&mut std::io::stdout().lock()));
        };
        self.put_in_place(path, &save)
            .with_context(|| format!("save to {}", path.display()))
    }

    /// Whole, or not at all: under another name beside it, then renamed.
    fn put_in_place(&self, path: &Path, save: &dyn Fn(Target) -> Result<()>) -> Result<()> {
        let path = std::path::absolute(path)?;
        let name = path
            .file_name()
            .context("is not a file name")?
            .to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let saved = match self.format {
            Format::OciDir => {
                let empty = fs::read_dir(&path).map(|mut entries| entries.next().is_none());
                ensure!(
                    empty.unwrap_or(!path.exists()),
                    "it is there and not an empty directory"
                );
                remove_tree(&temporary).and_then(|()| save(Target::Directory(&temporary)))
            }
            // A device, a pipe: written to as it is.
            _ if path.metadata().is_ok_and(|meta| !meta.is_file()) => {
                let file = fs::OpenOptions::new().write(true).open(&path)?;
                return save(Target::Stream(&mut BufWriter::with_capacity(
                    256 << 10,
                    file,
                )));
            }
            _ => File::create(&temporary)
                .map_err(Into::into)
                .and_then(|file| {
                    save(Target::Stream(&mut BufWriter::with_capacity(
                        256 << 10,
                        file,
                    )))
                }),
        };
        let named = saved.and_then(|()| Ok(fs::rename(&temporary, &path)?));
        if named.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
            let _ = remove_tree(&temporary);
        }
        named
    }
}
