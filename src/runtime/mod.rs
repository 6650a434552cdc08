//! `sc-runtime`: an OCI runtime. The document becomes a plan, the plan becomes a container.
//!
//! # Layout
//! - [`cli`]: runc's options, as typed; [`commands`]: one verb, one file.
//! - [`log`], [`clock`]: what is said, and when.
//! - [`container`]: the record on disk; [`status`]: the state machine; [`state`]: what is shown of it;
//!   [`pid`]: whether a recorded process is still the same; [`signal`]: signals by name.
//! - [`config`]: config.json to runtime-spec's types; [`validate`]: whether its values make sense.
//! - [`lsm`]: whether the security modules are in force that it names.
//! - [`host`]: what a plan must know of this machine; [`plan`]: everything a container will be made
//!   of, as plain data.
//! - [`cgroup`], [`hooks`]: the container's cgroup; programs that run beside it.
//! - [`stats`]: how much of its limits it uses; [`size`], [`duration`]: `512m`, `1m30s`.
//! - [`systemd`], [`dbus`]: the cgroup as a systemd unit (`--systemd-cgroup`); the wire to systemd.

pub mod cgroup;
pub mod cli;
pub use crate::{clock, duration, pid, signal};
pub mod commands;
pub mod config;
pub mod container;
pub mod criu;
pub mod dbus;
pub mod handshake;
pub mod hooks;
pub mod host;
pub mod init;
pub mod log;
pub mod lsm;
pub mod notify;
pub mod parent;
pub mod plan;
pub mod size;
pub mod state;
pub mod stats;
pub mod status;
pub mod systemd;
pub mod validate;
