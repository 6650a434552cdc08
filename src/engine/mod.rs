//! `sc`: containers by name, without a daemon, from images of `sc-image`, run by `sc-runtime`.
//!
//! Neither is linked in: both are run as the programs they are, so any OCI runtime will do.
//!
//! # Layout
//! - [`cli`]: what was typed; [`commands`]: one verb, one file.
//! - [`record`]: a container on disk: its directory, its locks, its names; [`now`]: what the kernel says of it.
//! - [`control`]: how a command ends or removes a container, whoever else works on it.
//! - [`events`]: what has happened, in a file; [`usage`]: what a container uses.
//! - [`table`], [`template`], [`filter`], [`times`]: how lists are asked for and shown.
//! - [`programs`]: sc-runtime and sc-image, and what they answer.
//! - [`options`]: what `create` and `run` may be asked for; [`make`]: a container of that.
//! - [`config`]: how options change a config.json; [`seccomp`]: docker's profiles; pure.
//! - [`network`]: networks, addresses, published ports, names.
//! - [`mounts`]: what `-v` and its like ask for; [`volumes`]: which there are; [`inside`]: paths of a container.
//! - [`rootfs`]: a container's root, mounted; [`rootless`]: what is different for an ordinary user;
//!   [`userns`]: which ids has a container of root's that has ids of its own.
//! - [`monitor`]: the process beside a running container; [`attach`]: who is connected to it; [`wire`]: what they
//!   say to each other; [`log`], [`journal`], [`terminal`], [`keys`]: where output goes, and what is typed.
//!
//! The overlay of a container is mounted in a mount namespace of its monitor's own, which the container's
//! was copied from: when both are gone, however they went, the kernel has unmounted it.

pub mod attach;
pub mod carry;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod events;
pub mod filter;
pub mod inside;
pub mod journal;
pub mod keys;
pub mod log;
pub mod make;
pub mod monitor;
pub mod mounts;
pub mod network;
pub mod now;
pub mod options;
pub mod programs;
pub mod record;
pub mod rootfs;
pub mod rootless;
pub mod seccomp;
pub mod table;
pub mod template;
pub mod terminal;
pub mod times;
pub mod usage;
pub mod userns;
pub mod volumes;
pub mod wire;
