//! Images written by hand, entry by entry, as OCI layouts.

use crate::place::Place;
use anyhow::Result;
use serde_json::{Value, json};
use simplecontainer::image::digest::Digest;
use simplecontainer::image::tape::{Entry, Kind, Time, Writer};
use std::fs;
use std::path::PathBuf;

/// What is in a layer: an entry and its content.
pub type Content = (Entry, &'static [u8]);

pub fn file(path: &str, content: &'static [u8]) -> Content {
    (dated(Entry::file(path, content.len() as u64)), content)
}

pub fn dir(path: &str) -> Content {
    (
        dated(Entry {
            kind: Kind::Directory,
            mode: 0o755,
            ..Entry::file(path, 0)
        }),
        b"",
    )
}

pub fn symlink(path: &str, to: &str) -> Content {
    (
        dated(Entry {
            kind: Kind::Symlink,
            mode: 0o777,
            link: to.into(),
            ..Entry::file(path, 0)
        }),
        b"",
    )
}

pub fn link(path: &str, to: &str) -> Content {
    (
        dated(Entry {
            kind: Kind::Link,
            link: to.into(),
            ..Entry::file(path, 0)
        }),
        b"",
    )
}

pub fn node(path: &str, kind: Kind, major: u64, minor: u64) -> Content {
    (
        dated(Entry {
            kind,
            major,
            minor,
            ..Entry::file(path, 0)
        }),
        b"",
    )
}

pub fn with(mut content: Content, change: impl FnOnce(&mut Entry)) -> Content {
    change(&mut content.0);
    content
}

/// All of one day, so that trees of different programs can be compared.
fn dated(entry: Entry) -> Entry {
    Entry {
        mtime: Time {
            seconds: 1_700_000_000,
            nanos: 0,
        },
        ..entry
    }
}

pub fn tar(contents: &[Content]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in contents {
        writer.put(entry, *content).unwrap();
    }
    writer.finish().unwrap()
}

/// A layer as it is stored: its bytes and its media type, and the diff id that the config shall say.
pub struct Layer {
    pub bytes: Vec<u8>,
    pub kind: &'static str,
    pub diff_id: String,
}

pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub fn plain(bytes: Vec<u8>) -> Layer {
    let diff_id = Digest::of(&bytes).to_string();
    Layer {
        bytes,
        kind: TAR,
        diff_id,
    }
}

/// Writes an OCI layout with one image named `localhost/NAME:latest`; gives its directory.
pub fn write(place: &Place, name: &str, layers: &[Layer], execution: Value) -> Result<PathBuf> {
    let root = place.path(&format!("{name}.layout"));
    fs::create_dir_all(root.join("blobs/sha256"))?;
    let blob = |kind: &str, bytes: &[u8]| -> Result<Value> {
        let digest = Digest::of(bytes);
        fs::write(root.join("blobs/sha256").join(digest.hex()), bytes)?;
        Ok(json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }))
    };
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": execution,
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>() },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?,
        "layers": layers.iter().map(|l| blob(l.kind, &l.bytes)).collect::<Result<Vec<_>>>()?,
    });
    let mut descriptor = blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    )?;
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(root.join("index.json"), index.to_string())?;
    Ok(root)
}

/// Layers of plain tar, loaded as `NAME`.
pub fn load(place: &Place, name: &str, layers: &[&[Content]]) -> Result<()> {
    let layers: Vec<Layer> = layers.iter().map(|layer| plain(tar(layer))).collect();
    let root = write(place, name, &layers, json!({ "Cmd": ["/bin/sh"] }))?;
    place
        .call(["load", "-q", "-i", &root.display().to_string()])
        .map(drop)
}
