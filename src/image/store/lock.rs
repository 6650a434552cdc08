//! Who may change this now? flock(2) on a file, and words for who waits.
//!
//! The kernel frees a lock when its holder dies, and /proc/locks tells who holds it, so nothing is
//! written into the file.

use crate::sys::file;
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Held until dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Together with other sharers; waits for an exclusive holder. `what` is for the message.
    pub fn shared(path: &Path, what: &str) -> Result<Lock> {
        let lock = Lock(open(path)?);
        lock.share_again(what)?;
        Ok(lock)
    }

    /// Alone; waits for every other holder.
    pub fn exclusive(path: &Path, what: &str) -> Result<Lock> {
        let file = open(path)?;
        exclusive(&file, what)?;
        Ok(Lock(file))
    }

    /// Alone, or not at all: nor when the file lost its name meanwhile.
    pub fn try_new(path: &Path) -> Result<Option<Lock>> {
        let file = open(path)?;
        let taken = file::try_lock(file.as_fd())?;
        let opened = file.metadata()?;
        let named = fs::metadata(path)
            .is_ok_and(|named| (named.ino(), named.dev()) == (opened.ino(), opened.dev()));
        Ok((taken && named).then_some(Lock(file)))
    }

    /// Makes a shared lock exclusive if there is no other sharer; it stays shared otherwise.
    pub fn try_exclusive(&mut self) -> Result<bool> {
        let taken = file::try_lock(self.0.as_fd())?;
        if !taken {
            // flock(2): a failed conversion may have lost the lock that was there.
            file::lock_shared(self.0.as_fd())?;
        }
        Ok(taken)
    }

    /// Gives it back; the file stays open for [`share_again`](Lock::share_again).
    pub fn release(&self) -> Result<()> {
        Ok(file::unlock(self.0.as_fd())?)
    }

    /// Takes a lock that was given back, shared; waits for an exclusive holder.
    pub fn share_again(&self, what: &str) -> Result<()> {
        if !file::try_lock_shared(self.0.as_fd())? {
            tell(&self.0, what);
            file::lock_shared(self.0.as_fd())?;
        }
        Ok(())
    }
}

/// Waits for the exclusive lock of an open file.
pub fn exclusive(file: &File, what: &str) -> Result<()> {
    if !file::try_lock(file.as_fd())? {
        tell(file, what);
        file::lock(file.as_fd())?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// Says that, and for whom, this process waits.
fn tell(file: &File, what: &str) {
    let who = match holders(file) {
        holders if holders.is_empty() => "another process".to_owned(),
        holders => holders.join(", "),
    };
    eprintln!(
        "sc-image: waiting: {what} is in use by {}",
        crate::image::show::printable(&who)
    );
}

/// `sc-image pull (process 123)`, of everyone who has a lock of the file: /proc/locks names them by
/// device and inode, proc_locks(5).
fn holders(file: &File) -> Vec<String> {
    let (Ok(meta), Ok(locks)) = (file.metadata(), fs::read_to_string("/proc/locks")) else {
        return Vec::new();
    };
    let inode = meta.ino().to_string();
    let mut found: Vec<String> = Vec::new();
    for line in locks.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words[..] else {
            continue;
        };
        // Devices are not compared: btrfs shows another there than in stat(2).
        if place.rsplit(':').next() != Some(&inode) || pid == "0" {
            continue;
        }
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy)
            .filter(|word| !word.is_empty());
        let path = words.next().unwrap_or("?".into());
        let name = path.rsplit('/').next().unwrap_or_default();
        let mut words = words.skip_while(|word| word == "--root" || word.starts_with('/'));
        let verb = words.next().map(|verb| format!(" {verb}"));
        let verb = verb.unwrap_or_default();
        found.push(format!("{name}{verb} (process {pid})"));
    }
    found.dedup();
    found
}
