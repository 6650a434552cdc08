//! `commit`: what was changed in a container as a new layer of its image.

use crate::idmap::{self, Kept};
use crate::image::cli::Global;
use crate::image::compression::Compression;
use crate::image::create::{self, Wishes};
use crate::image::diff::How;
use crate::image::layer::inside;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::show;
use crate::image::store::Store;
use crate::image::store::layers::open_dir;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Make an image from another and the upper directory of an overlay on it
#[derive(Debug, Args)]
pub struct Commit {
    /// The image below
    #[arg(value_name = "IMAGE")]
    image: String,
    /// overlayfs's upper directory
    #[arg(value_name = "DIR")]
    upper: PathBuf,
    /// The new image's name
    #[arg(value_name = "NAME")]
    name: Option<Reference>,
    /// A path of DIR that is no part of the image; may be repeated
    #[arg(long, value_name = "PATH")]
    without: Vec<PathBuf>,
    /// DIR is fuse-overlayfs's: names in it that begin with .wh. are whiteouts
    #[arg(long)]
    fuse: bool,
    /// The ids in the container of the user who has made DIR
    #[arg(long, value_name = "UID:GID", hide = true)]
    kept: Option<Kept>,
    /// How the layer is stored
    #[arg(long, value_enum, default_value_t = Stored::Gzip)]
    compression: Stored,
    #[command(flatten)]
    wishes: Wishes,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stored {
    Gzip,
    Zstd,
    None,
}

impl Commit {
    pub fn run(&self, global: &Global) -> Result<()> {
        let root = global.root()?;
        idmap::enter()?;
        let store = Store::open(&root)?;
        let base = store.find(&self.image, &Platform::host())?;
        let compression = match self.compression {
            Stored::Gzip => Compression::Gzip,
            Stored::Zstd => Compression::Zstd,
            Stored::None => Compression::None,
        };
        let without = self
            .without
            .iter()
            .map(|path| inside(path.as_os_str().as_bytes()));
        let without = without.collect::<Result<Vec<_>>>().context("--without")?;
        let upper = open_dir(&self.upper)?;
        let how = How {
            left_out: without,
            marked_by_name: self.fuse,
            kept: self.kept,
        };
        let layer = create::make_layer(&store, upper, how, compression)
            .with_context(|| format!("commit {}", self.upper.display()))?;
        let descriptor =
            create::image(&store, Some(&base), layer, "sc-image commit", &self.wishes)?;
        match &self.name {
            Some(name) => store.tag(&name.to_string(), &descriptor)?,
            None => store.keep(&descriptor)?,
        }
        show::print(&format!("{}\n", store.image(&descriptor)?.id()))
    }
}
