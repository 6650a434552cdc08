//! sc-runtime and sc-image: where are they, and what do they answer?

use super::cli::{Global, WithStatus};
use super::record::{Home, Record};
use crate::sys::process;
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Beside this program, else in $PATH.
pub fn find(name: &str) -> PathBuf {
    let beside = std::env::current_exe()
        .map(|own| own.with_file_name(name))
        .ok();
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

/// sc-image with this root.
pub fn image(root: &Path) -> Command {
    let mut command = Command::new(find("sc-image"));
    command.arg("--root").arg(root);
    command
}

/// sc-image writing what is in an open directory as a tar. The directory is its stdin: no path leads to what a
/// container can move away.
pub fn tar(dir: OwnedFd, args: &[&OsStr]) -> Command {
    let mut command = Command::new(find("sc-image"));
    command
        .args(["tar", "/proc/self/fd/0"])
        .args(args)
        .stdin(dir);
    command
}

/// sc-image making files of a tar in an open directory, which is its stdout.
pub fn untar(dir: OwnedFd, args: &[&str]) -> Command {
    let mut command = Command::new(find("sc-image"));
    command
        .args(["untar", "/proc/self/fd/1"])
        .args(args)
        .stdout(dir);
    command
}

/// From one open directory into another.
pub fn copy(from: OwnedFd, what: &[&OsStr], into: OwnedFd, how: &[&str]) -> Result<()> {
    let mut reader = tar(from, what)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("execute sc-image")?;
    let stream = reader.stdout.take().context("no pipe")?;
    let written = untar(into, how)
        .stdin(stream)
        .stderr(Stdio::piped())
        .output();
    let read = reader.wait_with_output()?;
    // Who writes may have stopped because of who reads, and the other way round: the writer is asked first,
    // because a reader whose listener has gone says only that.
    said(&written.context("execute sc-image")?)?;
    said(&read)
}

/// What a program that has failed said last.
pub fn said(output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    // clap's reason stands first, and its last line says nothing.
    let reason = text.lines().find_map(|line| line.strip_prefix("error: "));
    let last = reason.or(text.trim().lines().last());
    let last = last.unwrap_or("it died").to_owned();
    let words = ["sc-image: ", "untar: ", "tar: "];
    let last = words
        .iter()
        .fold(&*last, |text, word| text.strip_prefix(word).unwrap_or(text));
    bail!("{last}")
}

/// Goes on as sc-image.
pub fn become_image(global: &Global, verb: Option<&str>, args: &[OsString]) -> Result<u8> {
    let mut command = Command::new(find("sc-image"));
    if let Some(root) = &global.root {
        command.arg("--root").arg(root);
    }
    let e = command.args(verb).args(args).exec();
    Err(e).with_context(|| format!("execute {:?}", command.get_program()))
}

pub fn versions() -> Result<u8> {
    crate::show::line(format!("sc {}", env!("CARGO_PKG_VERSION")))?;
    for name in ["sc-image", "sc-runtime"] {
        let output = Command::new(find(name)).arg("--version").output();
        let output = output.with_context(|| format!("execute {:?}", find(name)))?;
        crate::show::print(&format!("{}", String::from_utf8_lossy(&output.stdout)))?;
    }
    Ok(0)
}

/// The container's runtime with the global options that all runtimes have.
pub fn runtime(home: &Home, record: &Record) -> Command {
    let mut command = Command::new(&record.runtime);
    command.arg("--root").arg(&home.state);
    command.args(record.systemd_cgroup.then_some("--systemd-cgroup"));
    // A monitor has some blocked.
    process::unblock_signals_in(&mut command);
    command
}

/// A runtime's call that is expected to succeed.
pub fn call(home: &Home, record: &Record, args: &[&str]) -> Result<()> {
    let output = runtime(home, record)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("execute {}", record.runtime.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}", args[0], said.lines().last().unwrap_or("failed"))
}

/// The last error in a runtime's log of JSON lines.
pub fn error_in(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_error = line["level"] == "error";
        Some(line["msg"].as_str().filter(|_| is_error)?.to_owned())
    })
}

/// docker's status for what a runtime refuses: it is told in words only.
pub fn refused_status(said: &str) -> u8 {
    let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
    match said {
        _ if has(&["executable file not found", "executable file `"]) => 127,
        _ if has(&["exec"]) && has(&["no such file or directory"]) => 127,
        _ if has(&["exec"]) && has(&["ermission denied", "is a directory", "xec format error"]) => {
            126
        }
        _ => 125,
    }
}

/// Why a container could not be made, with its status.
pub fn refusal(said: &str) -> anyhow::Error {
    let message = said.trim_start_matches("sc-runtime: ").to_owned();
    let status = refused_status(said);
    WithStatus { status, message }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runtimes_say_has_dockers_status() {
        for (said, expected) in [
            (r#"exec: "x": executable file not found in $PATH"#, 127),
            (r#"exec: "/x": stat /x: no such file or directory"#, 127),
            (r#"exec: "/etc": is a directory"#, 126),
            (r#"exec: "/x": permission denied"#, 126),
            ("mounts[3].source: no such file or directory", 125),
        ] {
            assert_eq!(refused_status(said), expected, "{said}");
        }
    }
}
