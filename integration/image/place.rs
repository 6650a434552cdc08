//! One test's own directory and store, and calls of programs there.

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A test: a sentence, what it cannot do without ([`missing`]), and what it does.
pub struct Test {
    pub name: &'static str,
    pub needs: &'static [&'static str],
    pub body: fn(&Place) -> Result<()>,
}

/// An error of a test that found out that it cannot run here: counted as ignored.
#[derive(Debug)]
pub struct CannotRun(pub String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// `tests! { a_sentence, another_one ["umoci"] }` makes the table of a file.
#[macro_export]
macro_rules! tests {
    ($($name:ident $([$($need:expr),+ $(,)?])?),+ $(,)?) => {
        pub const TESTS: &[$crate::place::Test] = &[$(
            $crate::place::Test { name: stringify!($name), needs: &[$($($need),+)?], body: $name }
        ),+];
    };
}

static BASE: OnceLock<PathBuf> = OnceLock::new();
static PLACES: AtomicU32 = AtomicU32::new(1);

/// A tmpfs of our own, gone with us. Called before there is a second thread.
pub fn enter() -> Result<()> {
    // Containers have networks: this machine's own is left alone.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("namespaces")?;
    simplecontainer::sys::tty::loopback_up()?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let base = std::env::temp_dir().join(format!("sc-image-test-{}", std::process::id()));
    fs::create_dir(&base)?;
    mount(
        Some("sc-image-test"),
        &base,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    BASE.set(base).ok().context("entered twice")?;
    Ok(())
}

pub fn leave() {
    if let Some(base) = BASE.get() {
        // The mount namespace ends with us anyway.
        let _ = umount2(base, nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(base);
    }
}

pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Why a test cannot run here that needs this: a program, a file (`/dev/fuse`), or a controller of cgroup v2 (`+memory`).
pub fn missing(need: &str) -> Option<String> {
    if need.starts_with('/') {
        return (!Path::new(need).exists()).then(|| format!("no {need}"));
    }
    let Some(controller) = need.strip_prefix('+') else {
        return program(need)
            .is_none()
            .then(|| format!("no program {need}"));
    };
    let mount = simplecontainer::engine::now::cgroup_mount();
    let text = mount.and_then(|mount| fs::read_to_string(mount.join("cgroup.controllers")).ok());
    let there = text.is_some_and(|text| text.split_whitespace().any(|name| name == controller));
    (!there).then(|| format!("cgroup v2 has no controller {controller} here"))
}

pub fn sc_image() -> PathBuf {
    let given = std::env::var_os("SC_IMAGE").map(PathBuf::from);
    given.unwrap_or_else(|| env!("CARGO_BIN_EXE_sc-image").into())
}

pub fn sc_runtime() -> PathBuf {
    let given = std::env::var_os("SC_RUNTIME").map(PathBuf::from);
    given.unwrap_or_else(|| env!("CARGO_BIN_EXE_sc-runtime").into())
}

pub struct Place {
    pub dir: PathBuf,
    pub store: PathBuf,
}

impl Place {
    pub fn new() -> Result<Place> {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let dir = BASE.get().context("not entered")?.join(number.to_string());
        fs::create_dir(&dir)?;
        let store = dir.join("store");
        Ok(Place { dir, store })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `sc-image --root STORE ARGS...`
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(sc_image());
        command
            .arg("--root")
            .arg(&self.store)
            .args(args)
            .current_dir(&self.dir);
        command.stdin(Stdio::null());
        command
    }

    /// sc-image, expected to succeed; its stdout.
    pub fn call<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        text(self.command(args).output()?)
    }

    /// sc-image, expected to fail; its one line, without the program's name.
    pub fn refusal<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let output = self.command(args).output()?;
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(
            output.status.code() == Some(1),
            "status {}: {error}",
            output.status
        );
        let last = error.lines().last().unwrap_or_default();
        Ok(last.strip_prefix("sc-image: ").unwrap_or(last).to_owned())
    }

    /// A program of the host, expected to succeed; its stdout.
    pub fn host<S: AsRef<OsStr>>(
        &self,
        name: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let output = Command::new(name)
            .args(args)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output();
        text(output.with_context(|| name.to_owned())?).with_context(|| name.to_owned())
    }

    pub fn sh(&self, script: &str) -> Result<String> {
        self.host("sh", ["-ec", script])
    }

    /// The store is whole, says sc-image itself.
    pub fn assert_whole(&self) -> Result<()> {
        let said = self.call(["fsck"])?;
        ensure!(said.trim_end().ends_with("whole"), "{said}");
        Ok(())
    }
}

pub fn text(output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "status {:?}, signal {:?}: {}",
            output.status.code(),
            output.status.signal(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Everything that can be told of a tree, a line for each name: type, mode, owner, size, times, device,
/// names of the same file, attributes, content.
pub fn picture(root: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut first = std::collections::HashMap::new();
    look(root, Path::new("."), &mut lines, &mut first)?;
    Ok(lines)
}

fn look(
    root: &Path,
    path: &Path,
    lines: &mut Vec<String>,
    first: &mut std::collections::HashMap<u64, PathBuf>,
) -> Result<()> {
    use simplecontainer::image::digest::Digest;
    use simplecontainer::sys::xattr;
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let full = root.join(path);
    let meta = full
        .symlink_metadata()
        .with_context(|| full.display().to_string())?;
    let parent = fs::File::open(full.parent().context("no parent")?)?;
    let name = full.file_name().unwrap_or_default().as_bytes();
    let name = if path == Path::new(".") {
        root.file_name().unwrap_or_default().as_bytes()
    } else {
        name
    };
    let parent = if path == Path::new(".") {
        fs::File::open(root.parent().context("no parent")?)?
    } else {
        parent
    };
    let mut attributes = Vec::new();
    for attribute in xattr::list_at(parent.as_fd(), name)? {
        let value = xattr::get_at(parent.as_fd(), name, &attribute)?;
        attributes.push(format!("{}={value:?}", String::from_utf8_lossy(&attribute)));
    }
    attributes.sort();
    let content = match meta.file_type() {
        kind if kind.is_symlink() => format!("-> {}", fs::read_link(&full)?.display()),
        kind if kind.is_file() => Digest::of(&fs::read(&full)?).short(),
        _ => String::new(),
    };
    let same = match meta.is_dir() {
        true => String::new(),
        false => first
            .entry(meta.ino())
            .or_insert_with(|| path.to_owned())
            .display()
            .to_string(),
    };
    lines.push(format!(
        "{} {:o} {}:{} size {} time {}.{:09} device {} same {same} {attributes:?} {content}",
        path.display(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        if meta.is_dir() { 0 } else { meta.len() },
        meta.mtime(),
        meta.mtime_nsec(),
        meta.rdev(),
    ));
    if meta.is_dir() {
        let names = fs::read_dir(&full)?.map(|entry| Ok(entry?.file_name()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            look(root, &path.join(name), lines, first)?;
        }
    }
    Ok(())
}

/// The first differences of two pictures; none is success.
pub fn assert_same(what: &str, a: &[String], b: &[String]) -> Result<()> {
    let differ = |from: &[String], to: &[String], sign: char| {
        let only = from.iter().filter(|line| !to.contains(line)).take(5);
        only.map(|line| format!("\n{sign} {line}"))
            .collect::<String>()
    };
    ensure!(a == b, "{what}:{}{}", differ(a, b, '-'), differ(b, a, '+'));
    Ok(())
}
