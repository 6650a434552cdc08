//! DRAFT
use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use std::path::Path;
pub struct Loaded {
    pub spec: Spec,
    pub warnings: Vec<String>,
    pub raw: Vec<u8>,
}
pub fn load(bundle: &Path) -> Result<Loaded> {
    let raw = std::fs::read(bundle.join("config.json"))
        .context("JSON specification file config.json not found")?;
    Ok(Loaded {
        spec: serde_json::from_slice(&raw).context("config.json")?,
        warnings: vec![],
        raw,
    })
}
