//! `load`: images from an archive, an OCI layout or stdin into the store.

use crate::image::archive;
use crate::image::cli::Global;
use crate::image::progress::Progress;
use crate::image::show;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Load images from a docker-archive, an OCI archive or an OCI layout
#[derive(Debug, Args)]
pub struct Load {
    /// A tar, also compressed, or a directory [stdin]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Say nothing but the names
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub fn run(&self, global: &Global) -> Result<()> {
        let input = self.input.as_deref().filter(|path| path.as_os_str() != "-");
        if input.is_none() && std::io::stdin().is_terminal() {
            bail!("load: stdin is a terminal: use --input FILE");
        }
        let what = input.map_or("stdin".to_owned(), |path| path.display().to_string());
        let loaded = archive::load(&global.store()?, input, &Progress::new(self.quiet));
        for image in loaded.with_context(|| format!("load {what}"))? {
            let line = match (&image.name, self.quiet) {
                (Some(name), false) => format!("Loaded image: {name}\n"),
                (None, false) => format!("Loaded image ID: {}\n", image.descriptor.digest),
                (Some(name), true) => format!("{name}\n"),
                (None, true) => format!("{}\n", image.descriptor.digest),
            };
            show::print(&line)?;
        }
        Ok(())
    }
}
