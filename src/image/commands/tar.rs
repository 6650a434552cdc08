//! `tar`: files as they are, as a tar stream: `sc cp` and `sc export`.

use crate::idmap::{self, Kept};
use crate::image::diff::{self, How};
use crate::image::store::layers::open_dir;
use anyhow::{Context, Result};
use clap::Args;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Write what is in a directory to stdout, as a tar
#[derive(Debug, Args)]
pub struct Tar {
    /// The directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only what has this name in it [everything]
    #[arg(long)]
    name: Option<OsString>,
    /// The name it has in the tar [its own]
    #[arg(long, requires = "name")]
    under: Option<OsString>,
    /// The ids in the container of the user who is root here
    #[arg(long, value_name = "UID:GID")]
    kept: Option<Kept>,
    /// As root of the user namespace at this path
    #[arg(long, value_name = "PATH")]
    users: Option<PathBuf>,
}

impl Tar {
    pub fn run(&self) -> Result<()> {
        let dir = open_dir(&self.dir)?;
        if let Some(users) = &self.users {
            idmap::join(users)?;
        }
        let to = std::io::BufWriter::with_capacity(256 << 10, std::io::stdout());
        let how = How {
            kept: self.kept,
            ..How::default()
        };
        let Some(name) = &self.name else {
            return diff::write_plain(dir, how, to).context("tar");
        };
        let under = self.under.as_ref().unwrap_or(name);
        diff::write_one(dir, name.as_bytes(), under.as_bytes(), how, to).context("tar")
    }
}
