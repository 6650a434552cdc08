//! `spec`: writes a config.json that runs as it is.

use crate::runtime::plan::default_spec;
use anyhow::{Context, Result, bail};
use nix::unistd::{getegid, geteuid};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Into `bundle`; a file that is there is somebody's work, and stays.
pub fn spec(bundle: &Path, rootless: bool) -> Result<()> {
    let text = match rootless {
        true => default_spec::rootless_text(geteuid().as_raw(), getegid().as_raw()),
        false => default_spec::text(),
    };
    let path = bundle.join("config.json");
    let mut file = match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&path)
    {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            bail!("File config.json exists. Remove it first")
        }
        other => other.with_context(|| format!("make {}", path.display()))?,
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_that_is_there_stays() {
        let dir = std::env::temp_dir().join(format!("sc-spec-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        spec(&dir, false).unwrap();
        let written = std::fs::read_to_string(dir.join("config.json")).unwrap();
        assert_eq!(written, default_spec::text());
        let refused = spec(&dir, true).unwrap_err().to_string();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(refused, "File config.json exists. Remove it first");
    }
}
