//! Runs hooks of config.json (runtime-spec config.md#posix-platform-hooks): the container's state
//! on stdin, an environment of its own or the runtime's (as runc: hooks look for PATH), a time limit.

use crate::runtime::log;
use crate::runtime::plan::Hook;
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs each of `hooks` in order, `state` (JSON) on its stdin. `kind` is its name in config.json.
/// The first that fails ends it: `error running createRuntime hook #0: exit status 1, …`.
pub fn run(hooks: &[Hook], kind: &str, state: &[u8]) -> Result<()> {
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, state).with_context(|| format!("error running {kind} hook #{number}"))?;
    }
    Ok(())
}

/// Runs each of `hooks`, whatever becomes of the others: a failure is only told (runtime-spec
/// runtime.md#lifecycle, step 13).
pub fn run_all(hooks: &[Hook], kind: &str, state: &[u8]) {
    for hook in hooks {
        if let Err(failed) = run(std::slice::from_ref(hook), kind, state) {
            log::warn(format!("{}: {failed:#}", hook.path.display()));
        }
    }
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<()> {
    // Files in memory instead of pipes: a hook that does not read, or writes much, cannot block us,
    // and one that leaves a child behind with our pipe open cannot hold us.
    let input = memory_file("hook-stdin", state)?;
    let (stdout, stderr) = (
        memory_file("hook-stdout", b"")?,
        memory_file("hook-stderr", b"")?,
    );
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    if !hook.env.is_empty() {
        let entries = hook.env.iter();
        let pairs = entries.map(|kv| kv.split_once('=').unwrap_or((kv, "")));
        command.env_clear().envs(pairs);
    }
    command
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(stdout.try_clone()?))
        .stderr(Stdio::from(stderr.try_clone()?));
    let mut child = command
        .spawn()
        .with_context(|| format!("fork/exec {}", hook.path.display()))?;
    let limit = hook.timeout.map(Duration::from_secs);
    let ended = wait(&mut child, limit).inspect_err(|_| {
        // Not left to run without anyone who waits; the error is the one to report.
        let _ = child.kill();
        let _ = child.wait();
    })?;
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!(
            "{}, stdout: {}, stderr: {}",
            in_words(status),
            text_of(stdout),
            text_of(stderr)
        ),
        None => {
            // It may have ended just now: then there is nobody to kill, and wait still reaps it.
            let _ = child.kill();
            let _ = child.wait();
            let seconds = limit.unwrap_or_default().as_secs_f64();
            bail!("hook ran past specified timeout of {seconds:.1}s")
        }
    }
}

/// The child's exit status, or `None` when `limit` has passed.
fn wait(child: &mut std::process::Child, limit: Option<Duration>) -> Result<Option<ExitStatus>> {
    if let Some(limit) = limit {
        let ended = crate::sys::pidfd::open(child.id() as i32)?;
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.as_millis().min(i32::MAX as u128) as i32)?;
            let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Err(nix::errno::Errno::EINTR) => {}
                Ok(0) => return Ok(None),
                other => {
                    other.context("wait for a hook")?;
                    break;
                }
            }
        }
    }
    Ok(Some(child.wait()?))
}

fn memory_file(name: &str, content: &[u8]) -> Result<File> {
    let fd = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .with_context(|| format!("memfd_create({name})"))?;
    let mut file = File::from(fd);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// What the hook wrote, at most 4 KiB of it.
fn text_of(mut file: File) -> String {
    let mut text = Vec::new();
    // Only to explain a failure: what cannot be read is left out.
    let _ = file.rewind();
    let _ = file.take(4096).read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// `exit status 1`, `signal: killed`-like words as Go's, which users of runc know.
fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["WHO=hook".into()],
            timeout,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_only_its_own_environment() {
        let script = r#"[ "$(cat)" = '{"id":"x"}' ] && [ "$WHO" = hook ] && [ -z "$HOME" ]"#;
        run(&[sh(script, None)], "prestart", br#"{"id":"x"}"#).unwrap();
    }

    #[test]
    fn a_hook_without_an_environment_has_the_runtimes() {
        let hook = Hook {
            env: vec![],
            ..sh(r#"[ -n "$PATH" ]"#, None)
        };
        run(&[hook], "prestart", b"").unwrap();
    }

    #[test]
    fn a_failing_hook_is_named_with_what_it_said() {
        let hooks = [
            sh("true", None),
            sh("echo out; echo err >&2; exit 3", Some(60)),
        ];
        assert_eq!(
            format!("{:#}", run(&hooks, "createRuntime", b"{}").unwrap_err()),
            "error running createRuntime hook #1: exit status 3, stdout: out, stderr: err"
        );
    }

    #[test]
    fn a_hook_past_its_time_is_killed() {
        assert_eq!(
            format!(
                "{:#}",
                run(&[sh("sleep 600", Some(1))], "poststart", b"").unwrap_err()
            ),
            "error running poststart hook #0: hook ran past specified timeout of 1.0s"
        );
    }
}
