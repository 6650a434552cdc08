//! `sc-image`: images from a registry or a file into a store, and from the store into bundles.
//!
//! # Layout
//! - [`cli`]: what was typed; [`commands`]: one verb, one file; [`show`], [`progress`]: what is said.
//! - [`digest`], [`manifest`], [`config`], [`platform`]: the documents of image-spec, judged as they
//!   are read. Nothing in them is believed: every blob is checked against its digest and size.
//! - [`store`]: an OCI image layout on disk, with the layers unpacked from it; locks, crash safety.
//! - [`reference`]: what a name refers to; [`registry`]: fetched from there, and sent there.

pub mod archive;
pub mod bundle;
pub mod changes;
pub mod cli;
pub mod commands;
pub mod compression;
pub mod config;
pub mod create;
pub mod diff;
pub mod digest;
pub mod layer;
pub mod manifest;
pub mod platform;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod seccomp;
pub mod show;
pub mod store;
pub mod tape;
pub mod unpack;
