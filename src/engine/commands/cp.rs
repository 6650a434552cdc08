//! `cp`: files into a container and out of it, by docker's rules for where they go.
//!
//! Both ends are open directories before anything is copied: what a container does to its links meanwhile leads
//! nowhere.

use crate::engine::cli::Global;
use crate::engine::inside;
use crate::engine::programs;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Copy files between a container and the host
#[derive(Debug, Args)]
#[command(
    after_help = "One of the two is CONTAINER:PATH, the other a path of the host, or - for a tar. PATH/. is what is in PATH."
)]
pub struct Cp {
    /// With the owners that the files have [what is copied out is yours, what is copied in root's]
    #[arg(short, long)]
    archive: bool,
    /// What a symbolic link SOURCE leads to, not the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SOURCE")]
    source: String,
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// One end of a copy.
struct End {
    side: Side,
    path: PathBuf,
    /// As it was typed, for words.
    typed: String,
}

enum Side {
    Host,
    Container { root: inside::Root, name: String },
}

/// What is copied.
struct From {
    itself: OwnedFd,
    /// The directory it is in, and its name there; the root has none.
    above: Option<(OwnedFd, OsString)>,
    /// What is in it, not itself.
    contents: bool,
    is_dir: bool,
}

impl Cp {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let (from, to) = (
            container_path(&self.source),
            container_path(&self.destination),
        );
        let (name, path) = match (from, to) {
            (Some(found), None) | (None, Some(found)) => found,
            (Some(_), Some(_)) => bail!("copying between containers is not supported"),
            (None, None) => bail!("must specify at least one container source: CONTAINER:PATH"),
        };
        let home = global.home()?;
        let record = home.find(name)?;
        let host = match from.is_some() {
            true => &self.destination,
            false => &self.source,
        };
        // Before the working directory changes.
        let host = End {
            side: Side::Host,
            path: absolute(host)?,
            typed: host.clone(),
        };
        let inside = End {
            side: Side::Container {
                root: inside::root(&home, &record)?,
                name: name.to_owned(),
            },
            path: Path::new("/").join(path),
            typed: path.to_owned(),
        };
        match from.is_some() {
            true => self.copy(&inside, &host)?,
            false => {
                refuse_read_only(&home.dir(&record.id), &inside)?;
                self.copy(&host, &inside)?
            }
        }
        Ok(0)
    }

    fn copy(&self, from: &End, to: &End) -> Result<()> {
        let (reads_as, written_as) = (from.options(), to.options());
        let mut how: Vec<&str> = written_as.iter().map(String::as_str).collect();
        if from.is_stream() {
            let into = to
                .directory(&to.path)
                .with_context(|| format!("destination {:?} must be a directory", to.typed))?;
            let output = programs::untar(into, &how)
                .stdin(std::process::Stdio::inherit())
                .output();
            return programs::said(&output.context("execute sc-image")?);
        }
        let source = from.source(self.follow_link)?;
        if to.is_stream() {
            let (dir, name) = source.split(false);
            let output = programs::tar(dir, &names(name.as_deref(), None, &reads_as))
                .stdout(std::process::Stdio::inherit())
                .output();
            return programs::said(&output.context("execute sc-image")?);
        }
        let (into, under) = to.place(&source)?;
        how.extend((!self.archive).then_some("--own"));
        let (dir, name) = source.split(under.is_some());
        let args = names(name.as_deref(), under.as_deref(), &reads_as);
        programs::copy(dir, &args, into, &how)
    }
}

/// `CONTAINER:PATH`; a path of the host that has a colon begins with / or `.`.
fn container_path(typed: &str) -> Option<(&str, &str)> {
    match typed.starts_with(['/', '.']) {
        true => None,
        false => typed.split_once(':').filter(|(name, _)| !name.is_empty()),
    }
}

/// Keeps a `/` or `/.` at the end, which mean something.
fn absolute(typed: &str) -> Result<PathBuf> {
    ensure!(!typed.is_empty(), "an empty path");
    let mut whole = std::env::current_dir()?.into_os_string();
    whole.push("/");
    match typed.starts_with('/') {
        true => Ok(typed.into()),
        false => {
            whole.push(typed);
            Ok(whole.into())
        }
    }
}

fn names<'a>(
    name: Option<&'a OsStr>,
    under: Option<&'a OsStr>,
    reads_as: &'a [String],
) -> Vec<&'a OsStr> {
    let mut args: Vec<&OsStr> = reads_as.iter().map(OsStr::new).collect();
    for (option, value) in [("--name", name), ("--under", under)] {
        if let Some(value) = value {
            args.extend([OsStr::new(option), value]);
        }
    }
    args
}

/// A container that does not run has no read-only mount that would refuse.
fn refuse_read_only(dir: &Path, to: &End) -> Result<()> {
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("bundle/config.json"))?)?;
    if config["root"]["readonly"] == true {
        // docker's words. What is mounted below may be written, where it runs.
        let file = to
            .open(&to.path, OFlag::O_PATH)
            .or_else(|_| to.directory(&parent(&to.path)));
        let writable = file.is_ok_and(|file| is_writable(&file));
        ensure!(writable, "container rootfs is marked read-only");
    }
    Ok(())
}

fn is_writable(file: &OwnedFd) -> bool {
    let stat = nix::sys::statvfs::fstatvfs(file);
    let overlay = nix::sys::statfs::fstatfs(file)
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC);
    !overlay && stat.is_ok_and(|stat| !stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

impl End {
    fn is_stream(&self) -> bool {
        matches!(self.side, Side::Host) && self.typed == "-"
    }

    fn options(&self) -> Vec<String> {
        match &self.side {
            Side::Host => Vec::new(),
            Side::Container { root, .. } => root.options(),
        }
    }

    fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        match &self.side {
            Side::Host => open(path, flags | OFlag::O_CLOEXEC, Mode::empty()),
            Side::Container { root, .. } => {
                use std::os::fd::AsFd;
                inside::open(root.as_fd(), path, flags)
            }
        }
    }

    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        Ok(self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?)
    }

    fn missing(&self, errno: Errno) -> anyhow::Error {
        match (&self.side, errno) {
            // docker's words.
            (Side::Container { name, .. }, Errno::ENOENT) => {
                anyhow::anyhow!("Could not find the file {} in container {name}", self.typed)
            }
            (Side::Container { name, .. }, _) => {
                anyhow::anyhow!("{} in container {name}: {errno}", self.typed)
            }
            (Side::Host, _) => anyhow::anyhow!("{}: {errno}", self.typed),
        }
    }

    /// Where links at the end of a path lead.
    fn followed(&self) -> Result<PathBuf> {
        // Without a slash at the end, which would lead over them.
        let mut path: PathBuf = self.path.components().collect();
        for _ in 0..40 {
            let Ok(file) = self.open(&path, OFlag::O_PATH | OFlag::O_NOFOLLOW) else {
                return Ok(path);
            };
            if kind(&file)? != SFlag::S_IFLNK {
                return Ok(path);
            }
            path = parent(&path).join(readlinkat(&file, "")?);
        }
        bail!("{}: too many symbolic links", self.typed)
    }

    fn source(&self, follow: bool) -> Result<From> {
        let text = self.path.as_os_str().as_bytes();
        // They lead over a link, and demand a directory.
        let contents = text.ends_with(b"/.") || text == b".";
        let demanded = contents || text.ends_with(b"/");
        let path = match follow || demanded {
            true => self.followed()?,
            false => self.path.clone(),
        };
        let flags = match demanded {
            true => OFlag::O_PATH | OFlag::O_DIRECTORY,
            false => OFlag::O_PATH | OFlag::O_NOFOLLOW,
        };
        let itself = self
            .open(&path, flags)
            .map_err(|errno| self.missing(errno))?;
        let above = match path.file_name() {
            Some(name) => Some((self.directory(&parent(&path))?, name.to_owned())),
            None => None,
        };
        Ok(From {
            is_dir: kind(&itself)? == SFlag::S_IFDIR,
            contents: contents || above.is_none(),
            itself,
            above,
        })
    }

    /// The directory that the copy goes into, and its name there, if it has another one.
    fn place(&self, source: &From) -> Result<(OwnedFd, Option<OsString>)> {
        let demanded = self.path.as_os_str().as_bytes().ends_with(b"/");
        match self.open(&self.path, OFlag::O_PATH) {
            Ok(there) if kind(&there)? == SFlag::S_IFDIR => Ok((there, None)),
            Ok(_) if source.is_dir => {
                bail!("cannot copy directory: {} is no directory", self.typed)
            }
            Ok(_) => self.beside(),
            Err(Errno::ENOENT) if demanded && !source.is_dir => {
                bail!("no such directory: {}", self.typed)
            }
            Err(Errno::ENOENT) if source.above.is_none() => {
                bail!("no such directory: {}: make it first", self.typed)
            }
            Err(Errno::ENOENT) => self.beside(),
            Err(errno) => Err(self.missing(errno)),
        }
    }

    fn beside(&self) -> Result<(OwnedFd, Option<OsString>)> {
        let path = self.followed()?;
        let name = path.file_name().context("a path without a name")?;
        let above = self.directory(&parent(&path));
        let above = above.with_context(|| {
            format!(
                "no such directory: {}",
                parent(Path::new(&self.typed)).display()
            )
        })?;
        Ok((above, Some(name.to_owned())))
    }
}

impl From {
    /// The directory that is read, and the name in it that is wanted; none for all. `renamed`: it gets a name of
    /// its own where it goes, also when only its content was asked for.
    fn split(self, renamed: bool) -> (OwnedFd, Option<OsString>) {
        match self.above {
            Some((dir, name)) if renamed || !self.contents => (dir, Some(name)),
            _ => (self.itself, None),
        }
    }
}

fn kind(file: &OwnedFd) -> Result<SFlag> {
    Ok(SFlag::from_bits_truncate(
        fstat(file)?.st_mode & SFlag::S_IFMT.bits(),
    ))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_before_a_colon() {
        for (typed, expected) in [
            ("web:/etc", Some(("web", "/etc"))),
            ("web:etc", Some(("web", "etc"))),
            ("./web:x", None),
            ("/web:x", None),
            ("web", None),
            (":x", None),
            ("-", None),
        ] {
            assert_eq!(container_path(typed), expected, "{typed}");
        }
    }
}
