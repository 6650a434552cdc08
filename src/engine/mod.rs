//! `sc`: containers by name, without a daemon, from images of `sc-image`, run by `sc-runtime`.
//!
//! Neither is linked in: both are run as the programs they are, so any OCI runtime will do.
//!
//! # Layout
//! - [`cli`]: what was typed; [`commands`]: one verb, one file.
//! - [`record`]: a container on disk: its directory, its locks, its names.
//! - [`programs`]: sc-runtime and sc-image, and what they answer.
//! - [`options`]: what `create` and `run` may be asked for; [`make`]: a container of that.
//! - [`config`]: how options change a config.json; pure.
//! - [`network`]: networks, addresses, ports, names.
//! - [`monitor`]: the process beside a running container; [`log`], [`terminal`]: where output goes.
//!
//! The overlay of a container is mounted in a mount namespace of its monitor's own, which the container's
//! was copied from: when both are gone, however they went, the kernel has unmounted it.

pub mod cli;
pub mod commands;
pub mod config;
pub mod log;
pub mod make;
pub mod monitor;
pub mod network;
pub mod options;
pub mod programs;
pub mod record;
pub mod terminal;
