//! `list`: which images are here?

use crate::image::cli::Global;
use crate::image::manifest::REF_NAME;
use crate::image::show;
use anyhow::Result;
use clap::Args;

/// List images
#[derive(Debug, Args)]
#[command(visible_aliases = ["ls", "images"])]
pub struct List {}

impl List {
    pub fn run(&self, global: &Global) -> Result<()> {
        let store = global.store()?;
        let rows = store.index()?.manifests.into_iter().map(|descriptor| {
            let name = descriptor.annotation(REF_NAME).unwrap_or("<none>");
            vec![name.to_owned(), descriptor.digest.short()]
        });
        show::print(&show::table(&["NAME", "DIGEST"], &rows.collect::<Vec<_>>()))
    }
}
