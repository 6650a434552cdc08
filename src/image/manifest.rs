//! What does a manifest or an index say? Descriptors, and the documents made of them.
//!
//! image-spec descriptor.md, manifest.md, image-index.md, and Docker's schema 2, which has the same
//! shape under other media types. The types are ours because oci-spec's (0.10) accept a document that
//! is index and manifest at once (CVE-2021-41190) and forget keys they do not know.
//!
//! The bytes that were fetched are what is kept: a digest is over bytes, so nothing that was read is
//! ever written again from these types.

use super::digest::Digest;
use super::platform::Platform;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most that a manifest, an index or an image's config may have: 4 MiB, as registries allow.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Layers of one image: overlayfs takes 500, and no builder makes as many.
pub const LAYER_LIMIT: usize = 500;

pub mod media_type {
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

    pub fn is_index(of: &str) -> bool {
        matches!(of, INDEX | DOCKER_INDEX)
    }

    pub fn is_manifest(of: &str) -> bool {
        matches!(of, MANIFEST | DOCKER_MANIFEST)
    }

    pub fn is_config(of: &str) -> bool {
        matches!(of, CONFIG | DOCKER_CONFIG)
    }
}

/// Names an image in an index (image-spec annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What is told of a blob without having it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Where else the blob could be had. Read, so that it can be refused: never fetched (CVE-2020-15157).
    #[serde(default, skip_serializing_if = "nothing")]
    pub urls: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// Absent, null and empty are the same to us.
fn nothing<T: IntoIterator>(of: &Option<T>) -> bool
where
    for<'a> &'a T: IntoIterator,
{
    of.as_ref()
        .is_none_or(|some| some.into_iter().next().is_none())
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: None,
            annotations: None,
            platform: None,
        }
    }

    /// Of content at hand.
    pub fn of(media_type: &str, content: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::of(content), content.len() as u64)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        Some(self.annotations.as_ref()?.get(key)?.as_str())
    }

    pub fn with_name(mut self, name: Option<&str>) -> Descriptor {
        let annotations = self.annotations.get_or_insert_default();
        match name {
            Some(name) => annotations.insert(REF_NAME.to_owned(), name.to_owned()),
            None => annotations.remove(REF_NAME),
        };
        self
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "nothing")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Either document.
// Taken apart where it is read: never one of many.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// What tells the two apart, and schema 1 from both.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<serde_json::Value>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
    signatures: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or an index. `media_type` is what the descriptor or the Content-Type said;
    /// what the document says of itself must be the same.
    pub fn parse(content: &[u8], media_type: Option<&str>) -> Result<Document> {
        let size = content.len() as u64;
        ensure!(
            size <= DOCUMENT_LIMIT,
            "a manifest of {size} bytes (at most {DOCUMENT_LIMIT} are read)"
        );
        let shape: Shape = serde_json::from_slice(content).context("not a manifest")?;
        let index = judge(&shape, media_type)?;
        if index {
            let index: Index = serde_json::from_slice(content).context("not an index")?;
            return Ok(Document::Index(index));
        }
        let manifest: Manifest = serde_json::from_slice(content).context("not a manifest")?;
        let layers = manifest.layers.len();
        ensure!(
            layers <= LAYER_LIMIT,
            "{layers} layers (at most {LAYER_LIMIT})"
        );
        Ok(Document::Manifest(manifest))
    }
}

/// Whether it is an index; an error when it is neither, or both.
fn judge(shape: &Shape, announced: Option<&str>) -> Result<bool> {
    if shape.fs_layers.is_some() || shape.signatures.is_some() {
        bail!("a manifest of Docker's schema 1, which is no longer in use: push the image anew");
    }
    match &shape.schema_version {
        Some(version) if version == 2 => {}
        Some(other) => bail!("schemaVersion: {other} (2 is known)"),
        None => bail!("schemaVersion: is missing"),
    }
    let manifest = shape.layers.is_some() || shape.config.is_some();
    let index = match (shape.manifests.is_some(), manifest) {
        (true, true) => {
            bail!("both an index and a manifest (it has manifests, and layers or config)")
        }
        (true, false) => true,
        (false, true) => false,
        (false, false) => bail!("neither an index nor a manifest (no manifests, no layers)"),
    };
    if let (Some(inside), Some(outside)) = (&shape.media_type, announced) {
        ensure!(
            inside == outside,
            "mediaType: {inside:?}, but it was announced as {outside:?}"
        );
    }
    if let Some(kind) = shape.media_type.as_deref().or(announced) {
        let fits = if index {
            media_type::is_index(kind)
        } else {
            media_type::is_manifest(kind)
        };
        let what = if index { "index" } else { "manifest" };
        ensure!(fits, "media type {kind:?} for what is an {what}");
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn blob(kind: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{HEX}","size":7}}"#)
    }

    fn why(text: &str, announced: Option<&str>) -> String {
        format!(
            "{:#}",
            Document::parse(text.as_bytes(), announced).unwrap_err()
        )
    }

    #[test]
    fn a_manifest_of_either_family_is_read() {
        for kind in [media_type::MANIFEST, media_type::DOCKER_MANIFEST] {
            let text = format!(
                r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{},"layers":[{}],"annotations":null}}"#,
                blob(media_type::CONFIG),
                blob(media_type::LAYER_GZIP)
            );
            let Document::Manifest(manifest) =
                Document::parse(text.as_bytes(), Some(kind)).unwrap()
            else {
                panic!("an index");
            };
            assert_eq!(manifest.layers[0].size, 7);
        }
    }

    #[test]
    fn an_index_is_told_from_a_manifest_without_a_media_type() {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            blob(media_type::MANIFEST)
        );
        assert!(matches!(
            Document::parse(text.as_bytes(), None).unwrap(),
            Document::Index(_)
        ));
    }

    #[test]
    fn what_is_ambiguous_or_of_another_kind_is_refused() {
        let config = blob(media_type::CONFIG);
        for (text, announced, expected) in [
            (
                format!(r#"{{"schemaVersion":2,"layers":[],"config":{config},"manifests":[]}}"#),
                None,
                "both an index and a manifest (it has manifests, and layers or config)",
            ),
            (
                r#"{"schemaVersion":1,"fsLayers":[],"signatures":[]}"#.into(),
                None,
                "a manifest of Docker's schema 1, which is no longer in use: push the image anew",
            ),
            (r#"{"layers":[]}"#.into(), None, "schemaVersion: is missing"),
            (
                r#"{"schemaVersion":3,"layers":[]}"#.into(),
                None,
                "schemaVersion: 3 (2 is known)",
            ),
            (
                r#"{"schemaVersion":2}"#.into(),
                None,
                "neither an index nor a manifest (no manifests, no layers)",
            ),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#.into(),
                Some(media_type::MANIFEST),
                "media type \"application/vnd.oci.image.manifest.v1+json\" for what is an index",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#,
                    media_type::INDEX
                ),
                Some(media_type::DOCKER_INDEX),
                "mediaType: \"application/vnd.oci.image.index.v1+json\", but it was announced as \"application/vnd.docker.distribution.manifest.list.v2+json\"",
            ),
        ] {
            assert_eq!(why(&text, announced), expected);
        }
        let negative = config.replace(":7", ":-7");
        let text = format!(r#"{{"schemaVersion":2,"layers":[],"config":{negative}}}"#);
        assert!(why(&text, None).contains("invalid value: integer `-7`"));
        let twice = format!(r#"{{"schemaVersion":2,"layers":[],"layers":[],"config":{config}}}"#);
        assert!(why(&twice, None).contains("duplicate field `layers`"));
        let big = " ".repeat(DOCUMENT_LIMIT as usize + 1);
        assert_eq!(
            why(&big, None),
            "a manifest of 4194305 bytes (at most 4194304 are read)"
        );
    }

    #[test]
    fn a_digest_that_is_a_path_is_refused() {
        let text = r#"{"schemaVersion":2,"layers":[],"config":{"mediaType":"x","digest":"sha256:../../x","size":1}}"#;
        assert!(why(text, None).contains("is not 64 hexadecimal digits"));
    }
}
