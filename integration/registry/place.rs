//! One test's own corner of the machine, removed afterwards.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub struct Place {
    pub dir: PathBuf,
}

/// What a program said, and how it ended.
pub struct Said {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new(name: &str) -> Result<Place> {
        let name: String = name.replace("::", "-").chars().take(40).collect();
        let dir = std::env::temp_dir().join(format!("sc-registry-{}-{name}", std::process::id()));
        for sub in ["home", "bin"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        Ok(Place { dir })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs::write(&path, text)?;
        Ok(path)
    }

    /// registries.conf of this test's user.
    pub fn registries_conf(&self, text: &str) -> Result<()> {
        self.write("home/.config/containers/registries.conf", text)
            .map(drop)
    }

    /// `sc-image ARGS` with this test's store, home and `bin`, and no configuration of the machine's user.
    pub fn command(&self, args: &[&str]) -> Command {
        let program =
            std::env::var_os("SC_IMAGE").unwrap_or_else(|| env!("CARGO_BIN_EXE_sc-image").into());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(self.path("store"))
            .args(args)
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Result<Said> {
        said(self.command(args).output()?)
    }

    /// Succeeds, or is an error with all that was said.
    pub fn good(&self, args: &[&str]) -> Result<Said> {
        let said = self.run(args)?;
        ensure!(said.ok, "sc-image {}: {}", args.join(" "), said.stderr);
        Ok(said)
    }

    /// Fails, in one line that says all of this.
    pub fn bad(&self, args: &[&str], words: &[&str]) -> Result<Said> {
        let said = self.run(args)?;
        let line = said.stderr.lines().last().unwrap_or_default();
        ensure!(!said.ok, "sc-image {} should have failed", args.join(" "));
        ensure!(
            line.starts_with("sc-image: "),
            "no error at the end of {:?}",
            said.stderr
        );
        for word in words {
            ensure!(line.contains(word), "not said: {word:?}, but {line:?}");
        }
        Ok(said)
    }

    pub fn blob(&self, digest: &str) -> PathBuf {
        self.path("store/image/blobs")
            .join(digest.replace(':', "/"))
    }

    /// Names of the store, with the digest each leads to.
    pub fn names(&self) -> Result<Vec<(String, String)>> {
        let index: Value = serde_json::from_slice(&fs::read(self.path("store/image/index.json"))?)?;
        let entries = index["manifests"].as_array().context("manifests")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = "org.opencontainers.image.ref.name";
        Ok(entries
            .iter()
            .map(|entry| (text(&entry["annotations"][name]), text(&entry["digest"])))
            .collect())
    }

    /// Every blob is what its name says, and nothing is being fetched any more.
    pub fn check_store(&self) -> Result<()> {
        for entry in fs::read_dir(self.path("store/image/blobs/sha256"))? {
            let path = entry?.path();
            let digest = super::oci::digest(&fs::read(&path)?);
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            ensure!(
                digest == format!("sha256:{name}"),
                "{name} has digest {digest}"
            );
        }
        Ok(())
    }

    /// Bytes of broken-off fetches.
    pub fn partial(&self) -> u64 {
        let Ok(entries) = fs::read_dir(self.path("store/image/ingest")) else {
            return 0;
        };
        entries
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|meta| meta.len())
            .sum()
    }

    pub fn forget_store(&self) -> Result<()> {
        fs::remove_dir_all(self.path("store")).context("the store")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn said(output: Output) -> Result<Said> {
    Ok(Said {
        ok: output.status.success(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Another program, which is to succeed.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context(program.to_owned())?;
    let said = said(output)?;
    ensure!(said.ok, "{program} {}: {}", args.join(" "), said.stderr);
    Ok(said.stdout)
}

/// `skopeo copy` from one place to another, with no certificate checked.
pub fn skopeo(more: &[&str], from: &str, to: &str) -> Result<()> {
    let own = [
        "copy",
        "--quiet",
        "--insecure-policy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ];
    run("skopeo", &[&own, more, &[from, to]].concat()).map(drop)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
