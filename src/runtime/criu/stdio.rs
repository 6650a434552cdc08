//! What a container's first three descriptors were when it was written to disk, so that pipes to the outside can
//! be others when it comes back: `descriptors.json` beside CRIU's images, as runc has it.

use crate::sys;
use anyhow::{Context, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

const FILE: &str = "descriptors.json";

/// Notes what descriptors 0 to 2 of process `pid` are: `pipe:[4711]`, or a path; empty where it has closed one.
pub fn of(pid: i32) -> Vec<String> {
    let shown = |fd| std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
    let text = |target: std::path::PathBuf| target.to_string_lossy().into_owned();
    (0..3)
        .map(|fd| shown(fd).map(text).unwrap_or_default())
        .collect()
}

pub fn save(images: &Path, names: &[String]) -> Result<()> {
    let path = images.join(FILE);
    std::fs::write(&path, serde_json::to_vec(names)?)
        .with_context(|| format!("write {}", path.display()))
}

/// Which of this process's descriptors take the place of pipes that are not there any more: CRIU's name for
/// each, and a copy of the descriptor.
pub fn to_give(images: &Path) -> Result<Vec<(String, OwnedFd)>> {
    let path = images.join(FILE);
    let read = || format!("read {}", path.display());
    let names: Vec<String> =
        serde_json::from_slice(&std::fs::read(&path).with_context(read)?).with_context(read)?;
    let both = names.into_iter().zip(sys::process::stdio());
    both.filter(|(name, _)| name.starts_with("pipe:"))
        .map(|(name, fd)| Ok((name, sys::process::copy_descriptor(fd.as_raw_fd())?)))
        .collect()
}
