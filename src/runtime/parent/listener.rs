//! Who answers for the system calls that a seccomp profile leaves to an agent? Fetches the listener
//! from the process that has loaded the profile, and hands it to the agent, with what
//! runtime-spec config-linux.md#containerprocessstate wants it to know.
//!
//! For a container's first process and for any other that loads its profile.

use crate::runtime::plan::seccomp::Notify;
use crate::runtime::state::State;
use crate::sys;
use anyhow::{Context, Result};
use nix::errno::Errno;
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd};

/// runtime-spec config-linux.md#containerprocessstate.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    /// What each descriptor of the message is.
    fds: [&'a str; 1],
    /// The process that has loaded the profile.
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    /// The container it belongs to.
    state: &'a State<'a>,
}

/// Sends the agent of `notify` the listener that is descriptor `number` of `process`, which is
/// `pid`.
///
/// The process may already wait for an answer of the agent's: nothing here waits for the process.
pub fn hand_over(
    notify: &Notify,
    process: BorrowedFd,
    number: i32,
    pid: i32,
    state: &State,
) -> Result<()> {
    let listener = sys::pidfd::take_descriptor(process, number)
        .map_err(|e| match e.errno {
            Errno::EPERM => anyhow::anyhow!("{e} (this takes CAP_SYS_PTRACE)"),
            _ => e.into(),
        })
        .context("linux.seccomp: fetch the listener of the container's process")?;
    let words = ProcessState {
        oci_version: state.oci_version,
        fds: ["seccompFd"],
        pid,
        metadata: &notify.metadata,
        state,
    };
    let words = serde_json::to_vec(&words).context("the state as JSON")?;
    let path = &notify.listener_path;
    let why = || format!("linux.seccomp.listenerPath {path:?}: hand over to the seccomp agent");
    let agent = sys::socket::connect(path).with_context(why)?;
    sys::socket::send(agent.as_fd(), &words, Some(listener.as_fd())).with_context(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::container::Record;

    #[test]
    fn the_agent_reads_what_the_spec_promises() {
        let record = Record::example();
        let state = State::new(&record, 42, "creating");
        let words = |metadata| {
            let words = ProcessState {
                oci_version: state.oci_version,
                fds: ["seccompFd"],
                pid: 43,
                metadata,
                state: &state,
            };
            serde_json::to_string(&words).unwrap()
        };
        let expected = concat!(
            r#"{"ociVersion":"1.3.0","fds":["seccompFd"],"pid":43,"metadata":"m","state":{"#,
            r#""ociVersion":"1.3.0","id":"web","pid":42,"status":"creating","bundle":"/b","#,
            r#""rootfs":"/b/rootfs","created":"2026-11-22T17:11:01.601975232Z","#,
            r#""annotations":{"a":"b"},"owner":""}}"#
        );
        assert_eq!(words("m"), expected);
        assert_eq!(words(""), expected.replace(r#""metadata":"m","#, ""));
    }
}
