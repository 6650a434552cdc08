//! Registries: where images come from and go to, over distribution-spec's HTTP API.
//!
//! # Layout
//! - [`registries`]: which places a name leads to (registries.conf); [`credentials`]: what each is shown.
//! - [`client`]: one request: authorization ([`challenge`], [`token`]), redirects, and who may learn what;
//!   [`trust`] and [`proxy`]: the connection; [`url`]; [`failure`]: what may be tried again.
//! - [`pull`]: a manifest and its blobs into the store; [`push`]: out of it.

pub mod challenge;
pub mod client;
pub mod credentials;
pub mod failure;
pub mod proxy;
pub mod pull;
pub mod push;
pub mod registries;
pub mod token;
pub mod trust;
pub mod url;

pub use client::{Access, Client, Hosts};
