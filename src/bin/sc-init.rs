//! Process 1 of a container made with `--init`: it starts the program, hands signals on, waits for orphans, and ends
//! as the program does. `sc-init -- PROGRAM ARGS...`
//!
//! Process 1 is not killed by signals that it does not handle, and is the parent of every orphan: a program that
//! expects neither leaves zombies and does not stop. This is a program of its own because `sc` is four times as large.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, tcsetpgrp};
use simplecontainer::sys::process::unblock_signals_in;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    words.next_if(|word| word == "--");
    let words: Vec<OsString> = words.collect();
    let Some((program, args)) = words.split_first() else {
        eprintln!("sc-init: which program? sc-init -- PROGRAM ARGS...");
        return ExitCode::from(127);
    };
    // Before there is a child: none of its signals may be missed.
    let handed = signals();
    if let Err(e) = handed.thread_block() {
        eprintln!("sc-init: sigprocmask: {e}");
        return ExitCode::from(125);
    }
    let mut command = Command::new(program);
    command.args(args).process_group(0);
    unblock_signals_in(&mut command);
    let child = match command.spawn() {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(e) => {
            eprintln!("sc-init: exec {program:?}: {e}");
            return match e.kind() {
                ErrorKind::NotFound => ExitCode::from(127),
                _ => ExitCode::from(126),
            };
        }
    };
    // What is typed is for the program alone; where there is no terminal, there is nothing to give away.
    let _ = tcsetpgrp(std::io::stdin(), child);
    loop {
        match handed.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(status) = reap(child) {
                    return status;
                }
            }
            // To the program; it may have ended just now.
            Ok(signal) => drop(kill(child, signal)),
            // A real-time signal, which nix does not name: not one that asks for an end.
            Err(_) => {}
        }
    }
}

/// All but those of a fault of our own, and those of a terminal that is no longer ours.
fn signals() -> SigSet {
    let mut set = SigSet::all();
    for own in [
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
    ] {
        set.remove(own);
    }
    set
}

/// Waits for all that have ended; the status when the program is among them.
fn reap(child: Pid) -> Option<ExitCode> {
    let mut end = None;
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                end = Some(ExitCode::from(code as u8));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                end = Some(ExitCode::from(128 + signal as u8));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return end,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return end,
        }
    }
}
