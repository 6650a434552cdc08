//! `save`: images into an archive or a directory that others load.

use crate::image::archive::{self, Format, Target};
use crate::image::cli::Global;
use crate::image::progress::Progress;
use crate::image::store::layers::remove_tree;
use crate::sys::file;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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

    /// Whole, or not at all: without a name where the file system can, otherwise under another one beside it that
    /// the next `save` to the same place takes over from a killed one; then renamed.
    fn put_in_place(&self, path: &Path, save: &dyn Fn(Target) -> Result<()>) -> Result<()> {
        let path = std::path::absolute(path)?;
        let mut name = OsString::from(".");
        name.push(path.file_name().context("is not a file name")?);
        name.push(".sc-save");
        let temporary = path.with_file_name(name);
        match self.format {
            Format::OciDir => {
                let empty = fs::read_dir(&path).map(|mut entries| entries.next().is_none());
                ensure!(
                    empty.unwrap_or(!path.exists()),
                    "it is there and not an empty directory"
                );
                let claim = Claim::new(&temporary, |path| DirBuilder::new().create(path))?;
                save(Target::Directory(&temporary))?;
                claim.rename(&path)
            }
            // A device, a pipe: written to as it is.
            _ if path.metadata().is_ok_and(|meta| !meta.is_file()) => {
                let file = OpenOptions::new().write(true).open(&path)?;
                write(&file, save)
            }
            _ => match nameless(&path)? {
                Some(file) => {
                    write(&file, save)?;
                    name_it(&file, &temporary, &path)
                }
                None => {
                    let claim = Claim::new(&temporary, |path| File::create_new(path).map(drop))?;
                    write(&OpenOptions::new().write(true).open(&temporary)?, save)?;
                    claim.rename(&path)
                }
            },
        }
    }
}

fn write(file: &File, save: &dyn Fn(Target) -> Result<()>) -> Result<()> {
    let mut buffered = BufWriter::with_capacity(256 << 10, file);
    save(Target::Stream(&mut buffered))?;
    Ok(buffered.flush()?)
}

/// A file in the same directory that has no name, and is gone when it never gets one. None where the file system
/// knows no such files.
fn nameless(path: &Path) -> Result<Option<File>> {
    let dir = path.parent().context("is not a file name")?;
    let open = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o666)
        .open(dir);
    match open {
        Ok(file) => Ok(Some(file)),
        // open(2): EISDIR before Linux 3.11.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// linkat(2) replaces nothing, so there is another name for a moment.
fn name_it(file: &File, temporary: &Path, path: &Path) -> Result<()> {
    let fd = format!("/proc/self/fd/{}", file.as_raw_fd());
    loop {
        match linkat(
            AT_FDCWD,
            fd.as_str(),
            AT_FDCWD,
            temporary,
            AtFlags::AT_SYMLINK_FOLLOW,
        ) {
            Ok(()) => {}
            // Of one who was killed in this moment, or is in it now, and then links once more.
            Err(Errno::EEXIST) => {
                let _ = fs::remove_file(temporary);
                continue;
            }
            Err(errno) => return Err(errno).context(format!("link {}", temporary.display())),
        }
        match fs::rename(temporary, path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => return Ok(other?),
        }
    }
}

/// A file or directory in the making, locked; removed when it does not get its place.
struct Claim<'a> {
    path: &'a Path,
    placed: bool,
    _lock: File,
}

impl<'a> Claim<'a> {
    /// Made empty, also where a killed one left it.
    fn new(path: &'a Path, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<Claim<'a>> {
        loop {
            match make(path) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e.into()),
                _ => {}
            }
            let lock = File::open(path)?;
            ensure!(
                file::try_lock(lock.as_fd())?,
                "another sc-image saves to it"
            );
            let named = fs::metadata(path).ok().map(|meta| meta.ino());
            if named != Some(lock.metadata()?.ino()) {
                continue;
            }
            if lock.metadata()?.is_dir() {
                for entry in fs::read_dir(path)? {
                    discard(&entry?.path())?;
                }
            } else {
                OpenOptions::new().write(true).open(path)?.set_len(0)?;
            }
            return Ok(Claim {
                path,
                placed: false,
                _lock: lock,
            });
        }
    }

    fn rename(mut self, to: &Path) -> Result<()> {
        fs::rename(self.path, to)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // There is an error to report already.
            let _ = discard(self.path);
        }
    }
}

fn discard(path: &Path) -> Result<()> {
    match path.symlink_metadata()?.is_dir() {
        true => remove_tree(path),
        false => Ok(fs::remove_file(path)?),
    }
}
