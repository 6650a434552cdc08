//! `import`: a root file system as an image.

use crate::image::cli::Global;
use crate::image::create::{self, Wishes};
use crate::image::reference::Reference;
use crate::image::show;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Make an image of one layer from a tar of a root file system
#[derive(Debug, Args)]
pub struct Import {
    /// A tar, also compressed; `-` for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The image's name
    #[arg(value_name = "NAME")]
    name: Option<Reference>,
    #[command(flatten)]
    wishes: Wishes,
}

impl Import {
    pub fn run(&self, global: &Global) -> Result<()> {
        let store = global.store()?;
        let from_stdin = self.file.as_os_str() == "-";
        let context = || format!("import {}", self.file.display());
        let layer = if from_stdin {
            ensure!(
                !std::io::stdin().is_terminal(),
                "import: stdin is a terminal"
            );
            create::take_layer(&store, std::io::stdin().lock())
        } else {
            File::open(&self.file)
                .map_err(Into::into)
                .and_then(|file| create::take_layer(&store, file))
        };
        let by = format!("sc-image import {}", self.file.display());
        let descriptor = create::image(
            &store,
            None,
            layer.with_context(context)?,
            &by,
            &self.wishes,
        )?;
        match &self.name {
            Some(name) => store.tag(&name.to_string(), &descriptor)?,
            None => store.keep(&descriptor)?,
        }
        show::print(&format!("{}\n", store.image(&descriptor)?.id()))
    }
}
