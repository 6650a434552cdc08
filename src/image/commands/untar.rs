//! `untar`: a tar stream as files, none of which is outside the directory: `sc cp` and volumes.

use crate::idmap::{self, Kept};
use crate::image::store::layers::open_dir;
use crate::image::unpack::{MAX_SIZE, Options, Unpacker};
use anyhow::{Context, Result};
use clap::Args;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Make files in a directory of a tar on stdin
#[derive(Debug, Args)]
pub struct Untar {
    /// The directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Everything belongs to the caller, whatever the tar says
    #[arg(long)]
    own: bool,
    /// The directory itself becomes as `.` of the tar
    #[arg(long)]
    with_root: bool,
    /// The ids in the container of the user who is root here
    #[arg(long, value_name = "UID:GID")]
    kept: Option<Kept>,
    /// As root of the user namespace at this path
    #[arg(long, value_name = "PATH")]
    users: Option<PathBuf>,
}

impl Untar {
    pub fn run(&self) -> Result<()> {
        let dir = open_dir(&self.dir)?;
        if let Some(users) = &self.users {
            idmap::join(users)?;
        }
        let ids = idmap::here()?;
        let options = Options {
            max_size: MAX_SIZE,
            squash: self.own,
            privileged: ids.privileged,
            kept: self.kept,
        };
        let mut unpacker = Unpacker::plain(dir, self.with_root, &options)?;
        let stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        unpacker.take(stdin).context("untar")?;
        unpacker.finish()?.tell();
        Ok(())
    }
}
