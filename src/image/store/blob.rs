//! How does a blob get into the store? Written under another name, verified, then named.
//!
//! A blob whose digest is known before goes through `ingest/sha256-HEX.part`, locked by who writes
//! it. A fetch that is broken off leaves the file, and the next one goes on where it ended, after
//! hashing what is there. A blob whose digest is not known goes through `ingest/PID-N.spool`, which
//! is gone when its writer is.

use super::{Store, lock};
use crate::image::digest::{Digest, Hasher};
use crate::sys::file;
use anyhow::{Context, Result, bail};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What [`Store::blob_writer`] found.
// Taken apart where it is got: never one of many.
#[allow(clippy::large_enum_variant)]
pub enum Ingest {
    /// The blob is in the store.
    Here,
    /// It is to be written, by this process alone.
    Missing(BlobWriter),
}

/// A blob on its way into the store. Dropped without [`commit`](BlobWriter::commit), what is
/// written stays for a later attempt.
pub struct BlobWriter {
    file: File,
    path: PathBuf,
    /// `blobs/sha256/`
    blobs: PathBuf,
    expected: Option<(Digest, u64)>,
    hasher: Hasher,
    len: u64,
    /// Nobody goes on with it: removed when dropped.
    temporary: bool,
}

pub(super) fn begin(store: &Store, digest: &Digest, size: u64) -> Result<Ingest> {
    let path = store
        .root
        .join("image/ingest")
        .join(format!("sha256-{}.part", digest.hex()));
    loop {
        if store.has(digest) {
            return Ok(Ingest::Here);
        }
        let file = open(&path)?;
        lock::exclusive(&file, &format!("blob {digest}"))?;
        // While we waited, the other one may have finished: then the name leads elsewhere.
        if !leads_to(&path, &file)? {
            continue;
        }
        let mut writer = BlobWriter {
            file,
            path,
            blobs: store.root.join("image/blobs/sha256"),
            expected: Some((*digest, size)),
            hasher: Hasher::new(),
            len: 0,
            temporary: false,
        };
        writer.take_up(size)?;
        return Ok(Ingest::Missing(writer));
    }
}

pub(super) fn spool(store: &Store) -> Result<BlobWriter> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}.spool", std::process::id());
        let path = store.root.join("image/ingest").join(name);
        let file = open(&path)?;
        // Another's, of the same number in another pid namespace; or a dead one's, which is ours now.
        if !file::try_lock(file.as_fd())? || !leads_to(&path, &file)? {
            continue;
        }
        file.set_len(0)?;
        return Ok(BlobWriter {
            file,
            path,
            blobs: store.root.join("image/blobs/sha256"),
            expected: None,
            hasher: Hasher::new(),
            len: 0,
            temporary: true,
        });
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

fn leads_to(path: &Path, file: &File) -> Result<bool> {
    let opened = file.metadata()?;
    Ok(fs::metadata(path)
        .is_ok_and(|named| (named.ino(), named.dev()) == (opened.ino(), opened.dev())))
}

impl BlobWriter {
    /// How many bytes are there, from earlier attempts too.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Starts at the beginning, and leaves nothing when it is dropped: for what is at hand and can be read again
    /// at no cost.
    pub fn afresh(mut self) -> Result<BlobWriter> {
        self.restart()?;
        self.temporary = true;
        Ok(self)
    }

    /// Throws away what is there.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hasher = Hasher::new();
        self.len = 0;
        Ok(())
    }

    /// Hashes what an earlier attempt left. More than the whole is not a beginning of it.
    fn take_up(&mut self, size: u64) -> Result<()> {
        if self.file.metadata()?.len() > size {
            return self.restart();
        }
        let mut buffer = vec![0; 128 << 10];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                n => {
                    self.hasher.update(&buffer[..n]);
                    self.len += n as u64;
                }
            }
        }
    }

    /// Verifies size and digest, and gives the blob its name. When they are wrong, what was written
    /// is thrown away. Gives the digest and the size.
    pub fn commit(mut self) -> Result<(Digest, u64)> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Err(wrong) = self.judge(&digest) {
            self.temporary = true;
            return Err(wrong);
        }
        // The content is on disk before its name is.
        self.file
            .sync_data()
            .with_context(|| format!("write {}", self.path.display()))?;
        let named = self.blobs.join(digest.hex());
        fs::rename(&self.path, &named)
            .with_context(|| format!("rename {} to {}", self.path.display(), named.display()))?;
        self.temporary = false;
        Ok((digest, self.len))
    }

    fn judge(&self, digest: &Digest) -> Result<()> {
        match self.expected {
            Some((_, size)) if self.len != size => {
                bail!("{} bytes came, {size} were announced", self.len)
            }
            Some((expected, _)) if *digest != expected => {
                bail!("the content has digest {digest}, {expected} was announced")
            }
            _ => Ok(()),
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, content: &[u8]) -> std::io::Result<usize> {
        if let Some((_, size)) = self.expected
            && self.len + content.len() as u64 > size
        {
            return Err(std::io::Error::other(format!(
                "more than the announced {size} bytes"
            )));
        }
        let written = self.file.write(content)?;
        self.hasher.update(&content[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.temporary {
            // Collected later when it cannot be now.
            let _ = fs::remove_file(&self.path);
        }
    }
}
