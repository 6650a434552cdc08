//! Who answers for the system calls that a seccomp profile leaves to an agent? Hands the listener of
//! the process that has loaded the profile to the agent, with what
//! runtime-spec config-linux.md#containerprocessstate wants it to know.
//!
//! For a container's first process and for any other that loads its profile.

use crate::runtime::plan::seccomp::Notify;
use crate::runtime::state::State;
use crate::sys;
use anyhow::{Context, Result};
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

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

/// What is still to come before a process may be started: its readiness, and where it has a seccomp
/// agent, the listener that its courier brings. In either order.
#[derive(Default)]
pub struct Due {
    pub ready: bool,
    /// A pidfd of the courier.
    pub courier: Option<OwnedFd>,
}

impl Due {
    pub fn is_over(&self) -> bool {
        self.ready && self.courier.is_none()
    }

    /// The courier has done its work: it shall be gone when the program begins, which would see it.
    pub fn courier_is_done(&mut self) -> Result<()> {
        if let Some(courier) = self.courier.take() {
            // Whoever stops it is in the container, and has but that to look at.
            sys::pidfd::wait(courier.as_fd(), Duration::from_secs(1))?;
        }
        Ok(())
    }
}

/// Sends the agent of `notify` the `listener` of the process `pid`.
///
/// The process may already wait for an answer of the agent's: nothing here waits for the process.
pub fn hand_over(notify: &Notify, listener: OwnedFd, pid: i32, state: &State) -> Result<()> {
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
