//! SimpleContainer: containers on Linux, open at every layer.
//!
//! # Layout
//! - [`sys`]: the tool shed. Bare system calls, and the only `unsafe`.
//! - [`clock`], [`duration`], [`signal`]: times, spans and signals as text; [`pid`]: whether a process is still the same;
//!   [`users`]: names in /etc/passwd; [`idmap`]: the user namespace of who is not root; [`show`]: tables and sizes for
//!   people.
//! - [`runtime`]: `sc-runtime`, the OCI runtime: config.json → plan → container.
//! - [`image`]: `sc-image`, images: from a registry or a file into a store, from there into bundles.
//! - [`engine`]: `sc`, the command over both: containers by name, their output, their end.
//!
//! ARCHITECTURE.md is the map: who may import whom, and how a config.json travels.

pub mod clock;
pub mod duration;
pub mod engine;
pub mod idmap;
pub mod image;
pub mod pid;
pub mod runtime;
pub mod show;
pub mod signal;
pub mod sys;
pub mod users;
