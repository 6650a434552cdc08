//! How do images come out of a file, and go into one?
//!
//! Three formats: what `docker save` writes, an OCI image layout in a tar, and one in a directory. Which
//! one it is, its content says. A tar is read once from front to end, so that it may come through a pipe:
//! blobs go into the store as they come, documents are kept until all is there.
//!
//! What docker-archives name (layers as plain tar, a config) has no digest in them: they are hashed as
//! they are stored, and a plain layer must then have the diff id that the config says.

mod read;
mod write;

pub use read::{Loaded, load};
pub use write::{Format, Target, save};

use serde::{Deserialize, Serialize};

/// An entry of a docker-archive's manifest.json.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Documents in the root of an archive.
const DOCKER_MANIFEST: &str = "manifest.json";
const OCI_INDEX: &str = "index.json";
const OCI_LAYOUT: &str = "oci-layout";
const BLOBS: &str = "blobs/sha256/";
/// containerd's key for a whole name in an index, where image-spec's has often only the tag.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
