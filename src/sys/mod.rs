//! The tool shed: bare system calls, and the only `unsafe` of the project.
//!
//! nix is used where it has a call; this room holds those it has not, one file a subject.
//! Wrappers are thin: typed flags in, [`OwnedFd`](std::os::fd::OwnedFd) out, close-on-exec always,
//! EINTR retried here and only here. An [`Error`] prints like a line of strace.

pub mod bpf;
pub mod entry;
pub mod error;
pub mod file;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod pidfd;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod tty;
pub mod xattr;

pub use error::{Call, Error, Result};
