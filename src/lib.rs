//! SimpleContainer: containers on Linux, open at every layer.
//!
//! # Layout
//! - [`sys`]: the tool shed. Bare system calls, and the only `unsafe`.
//! - [`runtime`]: `sc-runtime`, the OCI runtime: config.json → plan → container.
//!
//! ARCHITECTURE.md is the map: who may import whom, and how a config.json travels.

pub mod runtime;
pub mod sys;
