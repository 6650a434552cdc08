//! What does an image's config say? image-spec config.md, and what Docker adds to it.
//!
//! Read tolerantly (Docker writes `null` for what is empty) except where a wrong value would be
//! dangerous: diff ids are digests.

use super::digest::{Digest, Hasher};
use super::manifest::{DOCUMENT_LIMIT, Manifest};
use super::platform::Platform;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    #[serde(
        rename = "os.features",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_features: Option<Vec<String>>,
    #[serde(default, deserialize_with = "or_default")]
    pub config: Execution,
    pub rootfs: RootFs,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
}

/// How the image wants to be run. Key by key as image-spec has them, Docker's own at the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "or_default", default)]
    pub diff_ids: Vec<Digest>,
}

/// One step of how the image was built, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    #[serde(skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// `null` is the same as nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

impl ImageConfig {
    pub fn parse(content: &[u8]) -> Result<ImageConfig> {
        let size = content.len() as u64;
        ensure!(
            size <= DOCUMENT_LIMIT,
            "an image config of {size} bytes (at most {DOCUMENT_LIMIT} are read)"
        );
        serde_json::from_slice(content).context("not an image config")
    }

    /// That the config goes with the manifest: a diff id for each layer.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let (ids, layers) = (self.rootfs.diff_ids.len(), manifest.layers.len());
        ensure!(
            ids == layers,
            "the config has {ids} diff ids, the manifest {layers} layers"
        );
        Ok(())
    }

    pub fn platform(&self) -> Platform {
        Platform {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Platform::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }
}

/// What names a layer together with all below it (image-spec config.md#layer-chainid), one for each
/// diff id, lowest first.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        chain.push(match chain.last() {
            None => *id,
            Some(below) => {
                let mut hasher = Hasher::new();
                hasher.update(format!("{below} {id}").as_bytes());
                hasher.finish()
            }
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_may_write_null_for_what_is_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","created":null,"history":null,
            "config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,"Labels":null,"Volumes":null,
                      "Healthcheck":{"Test":["NONE"]}},
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!(config.config.healthcheck.unwrap()["Test"][0], "NONE");
    }

    #[test]
    fn a_diff_id_is_a_whole_digest() {
        let text = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:aa"]}}"#;
        let why = format!("{:#}", ImageConfig::parse(text.as_bytes()).unwrap_err());
        assert_eq!(
            why,
            "not an image config: \"aa\" is not 64 hexadecimal digits at line 1 column 51"
        );
    }

    #[test]
    fn a_chain_id_depends_on_every_layer_below() {
        let ids = [Digest::of(b"a"), Digest::of(b"b")];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(
            chain[1],
            Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes())
        );
    }
}
