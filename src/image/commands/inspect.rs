//! `inspect`: all that is known of images, as JSON.

use crate::image::cli::Global;
use crate::image::config::chain_ids;
use crate::image::platform::Platform;
use crate::image::show;
use crate::image::store::{Image, Store};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

/// Show what is known of images, as a JSON array
#[derive(Debug, Args)]
pub struct Inspect {
    /// Names or IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Of an image for several, os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// `manifest`, `config` or `index`: the document as it was fetched, byte for byte
    #[arg(long, value_name = "DOCUMENT", value_parser = ["manifest", "config", "index"])]
    raw: Option<String>,
}

impl Inspect {
    pub fn run(&self, global: &Global) -> Result<()> {
        let store = global.store()?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let mut all = Vec::new();
        for text in &self.images {
            let image = store.find(text, &platform)?;
            if let Some(document) = &self.raw {
                show::print(&self.document(&store, text, &image, document)?)?;
                continue;
            }
            all.push(describe(&store, &image).with_context(|| text.clone())?);
        }
        match self.raw {
            Some(_) => Ok(()),
            None => show::print(&(serde_json::to_string_pretty(&all)? + "\n")),
        }
    }

    fn document(&self, store: &Store, text: &str, image: &Image, which: &str) -> Result<String> {
        let content = match which {
            "manifest" => store.read_blob(&image.descriptor)?,
            "config" => store.read_blob(&image.manifest.config)?,
            _ => store.read_blob(&store.find_entry(text)?.1)?,
        };
        String::from_utf8(content).context("not UTF-8")
    }
}

/// docker's keys where docker has them.
fn describe(store: &Store, image: &Image) -> Result<Value> {
    let raw: Value = serde_json::from_slice(&store.read_blob(&image.manifest.config)?)?;
    let chain = chain_ids(&image.config.rootfs.diff_ids);
    let (digests, tags): (Vec<&String>, Vec<&String>) =
        image.names.iter().partition(|name| name.contains('@'));
    let layers = image
        .manifest
        .layers
        .iter()
        .zip(&image.config.rootfs.diff_ids)
        .zip(&chain);
    let layers = layers.map(|((blob, diff_id), chain_id)| {
        json!({
            "MediaType": blob.media_type,
            "Digest": blob.digest,
            "Size": blob.size,
            "DiffID": diff_id,
            "ChainID": chain_id,
            "Unpacked": store.layer_path(chain_id).exists(),
        })
    });
    Ok(json!({
        "Id": image.id(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Digest": image.descriptor.digest,
        "MediaType": image.descriptor.media_type,
        "Created": image.config.created,
        "Author": image.config.author.clone().unwrap_or_default(),
        "Os": image.config.os,
        "Architecture": image.config.architecture,
        "Variant": image.config.variant.clone().unwrap_or_default(),
        "Size": image.size(),
        "Config": raw["config"],
        "RootFS": { "Type": "layers", "Layers": image.config.rootfs.diff_ids },
        "Layers": layers.collect::<Vec<Value>>(),
        "Annotations": image.manifest.annotations,
    }))
}
