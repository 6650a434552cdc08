//! How is an image written for others? Blobs as they are, nothing compressed again.
//!
//! A docker-archive is an OCI layout with a manifest.json that names the same blobs, as docker itself
//! writes since version 25; older dockers, podman and containerd read one half or the other.

use super::{BLOBS, CONTAINERD_NAME, DOCKER_MANIFEST, DockerImage, OCI_INDEX, OCI_LAYOUT};
use crate::image::digest::Digest;
use crate::image::manifest::{Descriptor, Document, Index, REF_NAME, media_type};
use crate::image::platform::Platform;
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::store::Store;
use crate::image::store::names::spellings;
use crate::image::tape::{Entry, Kind, Writer};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    DockerArchive,
    OciArchive,
    OciDir,
}

/// What is to be written: names of index.json's entries, and the blobs below them.
struct Wanted {
    index: Vec<Descriptor>,
    images: Vec<DockerImage>,
    blobs: Vec<Descriptor>,
}

/// Where an archive goes.
pub enum Target<'a> {
    Stream(&'a mut dyn Write),
    Directory(&'a Path),
}

pub fn save(
    store: &Store,
    images: &[String],
    format: Format,
    to: Target,
    progress: &Progress,
) -> Result<()> {
    let wanted = gather(store, images)?;
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests: wanted.index,
        annotations: None,
    };
    let mut documents = vec![
        (
            OCI_LAYOUT,
            r#"{"imageLayoutVersion":"1.0.0"}"#.as_bytes().to_vec(),
        ),
        (OCI_INDEX, serde_json::to_vec(&index)?),
    ];
    if format == Format::DockerArchive {
        documents.push((DOCKER_MANIFEST, serde_json::to_vec(&wanted.images)?));
    }
    let total = wanted.blobs.iter().map(|blob| blob.size).sum();
    let bar = progress.bar("saving", Some(total));
    match to {
        Target::Stream(stream) => {
            let mut tar = Writer::new(stream);
            for dir in ["blobs/", BLOBS] {
                let entry = Entry {
                    kind: Kind::Directory,
                    mode: 0o755,
                    ..Entry::file(dir, 0)
                };
                tar.put(&entry, std::io::empty())?;
            }
            for blob in &wanted.blobs {
                let entry = Entry::file(&format!("{BLOBS}{}", blob.digest.hex()), blob.size);
                tar.put(&entry, store.open_blob(blob)?)?;
                bar.add(blob.size);
            }
            for (name, content) in &documents {
                tar.put_file(name, content)?;
            }
            tar.finish()?.flush()?;
        }
        Target::Directory(path) => {
            fs::create_dir_all(path.join(BLOBS))?;
            for blob in &wanted.blobs {
                let to = path.join(BLOBS).join(blob.digest.hex());
                let context = || format!("write {}", to.display());
                std::io::copy(
                    &mut store.open_blob(blob)?,
                    &mut fs::File::create(&to).with_context(context)?,
                )
                .with_context(context)?;
                bar.add(blob.size);
            }
            for (name, content) in &documents {
                fs::write(path.join(name), content)?;
            }
        }
    }
    bar.done("saved");
    Ok(())
}

fn gather(store: &Store, images: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted {
        index: Vec::new(),
        images: Vec::new(),
        blobs: Vec::new(),
    };
    let mut seen = HashSet::new();
    let mut by_digest: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for text in images {
        let (names, descriptor) = store.find_entry(text)?;
        // By ID: without a name, as docker does. By name: that one.
        let spelled = spellings(text);
        let name = names.into_iter().find(|name| spelled.contains(name));
        blobs_below(store, &descriptor, &mut seen, &mut wanted.blobs)
            .with_context(|| text.clone())?;
        let bare = Descriptor {
            annotations: None,
            ..descriptor
        };
        wanted.index.push(match &name {
            Some(name) => with_names(bare.clone(), name)?,
            None => bare.clone(),
        });
        by_digest.entry(bare.digest).or_default().extend(name);
        // What docker-archives cannot say: an index. Its image for this machine stands for it.
        let manifest = store
            .choose(&bare, &Platform::host())
            .with_context(|| text.clone())?;
        let image = store.image(&manifest)?;
        let path = |digest: &Digest| format!("{BLOBS}{}", digest.hex());
        wanted.images.push(DockerImage {
            config: path(&image.id()),
            repo_tags: by_digest.get(&bare.digest).cloned(),
            layers: image
                .manifest
                .layers
                .iter()
                .map(|layer| path(&layer.digest))
                .collect(),
        });
    }
    // One entry an image: the last one has all its names.
    let mut configs = HashSet::new();
    wanted.images.reverse();
    wanted
        .images
        .retain(|image| configs.insert(image.config.clone()));
    wanted.images.reverse();
    Ok(wanted)
}

fn with_names(descriptor: Descriptor, name: &str) -> Result<Descriptor> {
    let reference: Reference = name.parse()?;
    let mut annotations = BTreeMap::from([(CONTAINERD_NAME.to_owned(), name.to_owned())]);
    // The whole name, as podman and skopeo write and read it.
    annotations.insert(REF_NAME.to_owned(), reference.to_string());
    Ok(Descriptor {
        annotations: Some(annotations),
        ..descriptor
    })
}

/// The blobs below a descriptor, each once, layers before what names them. Of an index, what is here.
fn blobs_below(
    store: &Store,
    descriptor: &Descriptor,
    seen: &mut HashSet<Digest>,
    into: &mut Vec<Descriptor>,
) -> Result<()> {
    if !seen.insert(descriptor.digest) {
        return Ok(());
    }
    let content = store.read_blob(descriptor)?;
    match Document::parse(&content, Some(&descriptor.media_type))? {
        Document::Manifest(manifest) => {
            for part in manifest.layers.iter().chain([&manifest.config]) {
                if seen.insert(part.digest) {
                    store.open_blob(part)?;
                    into.push(part.clone());
                }
            }
        }
        Document::Index(index) => {
            let here: Vec<&Descriptor> = index
                .manifests
                .iter()
                .filter(|d| store.has(&d.digest))
                .collect();
            ensure!(!here.is_empty(), "no manifest of the index is here");
            for part in here {
                blobs_below(store, part, seen, into)?;
            }
        }
    }
    into.push(descriptor.clone());
    Ok(())
}
