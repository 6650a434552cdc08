//! The options that `create` and `run` share, a group a file. Each says what it wishes of config.json.

pub mod attach;
pub mod image;
pub mod lifecycle;
pub mod limits;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod process;
pub mod security;
