//! `sc-runtime`: an OCI runtime. The document becomes a plan, the plan becomes a container.

pub mod cgroup;
pub mod dbus;
pub mod handshake;
pub mod hooks;
pub mod init;
pub mod plan;
pub mod systemd;
