//! Images to try: an OCI layout with layers that do not compress.

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub struct Layout {
    pub dir: PathBuf,
    entries: Vec<Value>,
}

pub fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Layout {
    pub fn new(dir: &Path) -> Result<Layout> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Layout {
            dir: dir.to_owned(),
            entries: Vec::new(),
        })
    }

    pub fn blob(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let descriptor = descriptor(media_type, content);
        let name = digest(content).replace(':', "/");
        fs::write(self.dir.join("blobs").join(name), content)?;
        Ok(descriptor)
    }

    /// An image with a layer for each size; `seed` makes it differ from others. Gives the manifest's descriptor.
    pub fn manifest(&self, architecture: &str, sizes: &[usize], seed: u64) -> Result<Value> {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (number, size) in sizes.iter().enumerate() {
            let (layer, diff_id) = layer(*size, seed * 100 + number as u64)?;
            layers.push(self.blob(LAYER, &layer)?);
            diff_ids.push(diff_id);
        }
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [],
        });
        let config = self.blob(CONFIG, config.to_string().as_bytes())?;
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    pub fn tag(&mut self, tag: &str, mut descriptor: Value) -> Result<()> {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.entries.push(descriptor);
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        Ok(fs::write(self.dir.join("index.json"), index.to_string())?)
    }

    /// As skopeo names it.
    pub fn at(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.dir.display())
    }
}

/// A gzipped tar with one file of so many random bytes, and its diff id.
pub fn layer(size: usize, seed: u64) -> Result<(Vec<u8>, String)> {
    let mut plain = header(&format!("file-{seed}"), size).to_vec();
    plain.extend(noise(size, seed));
    // Up to a whole block, and the two empty ones of the end.
    plain.resize(plain.len().next_multiple_of(512) + 1024, 0);
    let diff_id = digest(&plain);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain)?;
    Ok((encoder.finish()?, diff_id))
}

/// A plain file's, POSIX ustar.
fn header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// Bytes without order, the same for the same seed (xorshift).
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
