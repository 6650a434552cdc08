//! What is in this archive or directory? Into the store with it, and a name for it.

use super::{BLOBS, CONTAINERD_NAME, DOCKER_MANIFEST, DockerImage, OCI_INDEX, OCI_LAYOUT};
use crate::image::compression::{Compression, decode};
use crate::image::config::ImageConfig;
use crate::image::digest::Digest;
use crate::image::layer;
use crate::image::manifest::{
    DOCUMENT_LIMIT, Descriptor, Document, Manifest, REF_NAME, media_type,
};
use crate::image::progress::{Bar, Progress};
use crate::image::reference::Reference;
use crate::image::store::{Ingest, Store};
use crate::image::tape::{Kind, Tape};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// An image that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// As it is in the index now; none when the archive had none.
    pub name: Option<String>,
    pub descriptor: Descriptor,
}

/// All documents of an archive together; none has more than a few hundred bytes for an image.
const DOCUMENTS_LIMIT: u64 = 16 << 20;

/// Loads all images of a file, a directory, or (`None`) stdin.
pub fn load(store: &Store, from: Option<&Path>, progress: &Progress) -> Result<Vec<Loaded>> {
    let Some(path) = from else {
        let source = BufReader::with_capacity(128 << 10, std::io::stdin().lock());
        return load_tar(store, source, "image", progress.bar("stdin", None));
    };
    let stem = stem(path);
    if path.is_dir() {
        let layout = Layout::Directory(path.to_owned());
        return load_layout(
            store,
            &layout,
            &read_document(&path.join(OCI_INDEX))?,
            &stem,
            progress,
        );
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let bar = progress.bar(&path.display().to_string(), Some(size));
    load_tar(store, BufReader::with_capacity(128 << 10, file), &stem, bar)
}

/// `dir/busybox.tar` is `busybox`, for images that bring a tag only.
fn stem(path: &Path) -> String {
    let name = path.canonicalize().unwrap_or(path.to_owned());
    let name = name
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    name.split('.').next().unwrap_or("image").to_owned()
}

fn read_document(path: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let file =
        File::open(path).with_context(|| format!("{}: not an OCI layout", path.display()))?;
    file.take(DOCUMENT_LIMIT + 1).read_to_end(&mut content)?;
    Ok(content)
}

// ---------------------------------------------------------------------------------------------
// An archive

/// What the archive has, by path in it.
#[derive(Default)]
struct Contents {
    documents: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
}

fn load_tar(store: &Store, source: impl BufRead, stem: &str, bar: Bar) -> Result<Vec<Loaded>> {
    let plain = BufReader::with_capacity(256 << 10, decode(source)?);
    let contents = Contents::read(store, plain, &bar)?;
    bar.done("read");
    // docker writes both since version 25; the index says more.
    if let (Some(index), true) = (
        contents.documents.get(OCI_INDEX),
        contents.documents.contains_key(OCI_LAYOUT),
    ) {
        let quiet = Progress::new(true);
        return load_layout(store, &Layout::Stored, index, stem, &quiet);
    }
    let Some(manifest) = contents.documents.get(DOCKER_MANIFEST) else {
        bail!(
            "neither an OCI archive (oci-layout, index.json) nor a docker archive (manifest.json)"
        );
    };
    let images: Vec<DockerImage> = serde_json::from_slice(manifest).context(DOCKER_MANIFEST)?;
    let mut loaded = Vec::new();
    for (at, image) in images.iter().enumerate() {
        let context = || format!("{DOCKER_MANIFEST}[{at}]");
        loaded.extend(contents.docker_image(store, image).with_context(context)?);
    }
    Ok(loaded)
}

impl Contents {
    fn read(store: &Store, source: impl BufRead, bar: &Bar) -> Result<Contents> {
        let mut tape = Tape::new(source);
        let (mut contents, mut documents) = (Contents::default(), 0);
        while let Some(entry) = tape.next_entry()? {
            let context = || format!("entry {:?}", String::from_utf8_lossy(&entry.path));
            let Ok(path) = String::from_utf8(layer::inside(&entry.path).with_context(context)?)
            else {
                continue;
            };
            match entry.kind {
                Kind::Symlink | Kind::Link => {
                    let target = target(&path, &entry.link, entry.kind);
                    contents.links.extend(target.map(|target| (path, target)));
                }
                Kind::File if path.starts_with(BLOBS) || path.ends_with(".tar") => {
                    let blob =
                        blob(store, &mut tape, &path, entry.size, bar).with_context(context)?;
                    contents.blobs.insert(path, blob);
                }
                Kind::File if path.ends_with(".json") || path == OCI_LAYOUT => {
                    documents += entry.size;
                    ensure!(
                        entry.size <= DOCUMENT_LIMIT && documents <= DOCUMENTS_LIMIT,
                        "{}: a document of {} bytes",
                        context(),
                        entry.size
                    );
                    let mut content = Vec::new();
                    copy(&mut tape, &mut content, bar)?;
                    contents.documents.insert(path, content);
                }
                _ => {}
            }
        }
        tape.finish()?;
        Ok(contents)
    }

    /// podman and old dockers write a layer that occurs twice as a link to the first.
    fn blob(&self, path: &str) -> Result<(Digest, u64)> {
        let mut path = layer_path(path)?;
        for _ in 0..8 {
            if let Some(blob) = self.blobs.get(&path) {
                return Ok(*blob);
            }
            match self.links.get(&path) {
                Some(target) => path = target.clone(),
                None => break,
            }
        }
        bail!("{path:?} is not in the archive")
    }

    fn docker_image(&self, store: &Store, image: &DockerImage) -> Result<Vec<Loaded>> {
        let path = layer_path(&image.config)?;
        let content = match self.documents.get(&path) {
            Some(content) => content.clone(),
            None => {
                let (digest, size) = self.blob(&path)?;
                store.read_blob(&Descriptor::new(media_type::CONFIG, digest, size))?
            }
        };
        let config = ImageConfig::parse(&content).with_context(|| path.clone())?;
        let mut layers = Vec::new();
        for (at, path) in image.layers.iter().enumerate() {
            let (digest, size) = self.blob(path).with_context(|| format!("Layers[{at}]"))?;
            let layer = describe_layer(store, digest, size)?;
            let said = config.rootfs.diff_ids.get(at);
            let plain = layer.media_type == media_type::LAYER_TAR;
            ensure!(
                !plain || said == Some(&digest),
                "Layers[{at}] ({path}): the content has diff id {digest}, the config says {}",
                said.map_or("nothing".to_owned(), Digest::to_string)
            );
            layers.push(layer);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: store.put_blob(&content, media_type::CONFIG)?,
            layers,
            annotations: None,
        };
        config.check(&manifest)?;
        let content = serde_json::to_vec(&manifest)?;
        let descriptor = store.put_manifest(&content, media_type::MANIFEST)?;
        let tags = image.repo_tags.iter().flatten();
        let names = tags.map(|tag| Ok(tag.parse::<Reference>()?.to_string()));
        named(store, descriptor, names.collect::<Result<_>>()?)
    }
}

fn layer_path(path: &str) -> Result<String> {
    String::from_utf8(layer::inside(path.as_bytes())?).context("not UTF-8")
}

/// Where a link in the archive leads; a hard link's target is a path from the root.
fn target(path: &str, link: &[u8], kind: Kind) -> Option<String> {
    let (dir, _) = layer::split(path.as_bytes());
    let whole = match kind {
        Kind::Link => link.to_vec(),
        _ => layer::join(dir, link),
    };
    String::from_utf8(layer::inside(&whole).ok()?).ok()
}

/// A stored layer by its first bytes.
fn describe_layer(store: &Store, digest: Digest, size: u64) -> Result<Descriptor> {
    let mut descriptor = Descriptor::new(media_type::LAYER_TAR, digest, size);
    let mut first = [0; 8];
    let n = store.open_blob(&descriptor)?.read(&mut first)?;
    descriptor.media_type = match Compression::of(&first[..n])? {
        Compression::None => media_type::LAYER_TAR,
        Compression::Gzip => media_type::LAYER_GZIP,
        Compression::Zstd => media_type::LAYER_ZSTD,
    }
    .to_owned();
    Ok(descriptor)
}

/// A member of the archive into the store: under the digest in its name, or, named otherwise, under
/// the one it turns out to have.
fn blob<R: BufRead>(
    store: &Store,
    tape: &mut Tape<R>,
    path: &str,
    size: u64,
    bar: &Bar,
) -> Result<(Digest, u64)> {
    let Some(hex) = path.strip_prefix(BLOBS) else {
        let mut spool = store.spool()?;
        copy(tape, &mut spool, bar)?;
        return spool.commit();
    };
    let digest = Digest::from_hex(hex)?;
    if let Ingest::Missing(writer) = store.blob_writer(&digest, size)? {
        let mut writer = writer.afresh()?;
        copy(tape, &mut writer, bar)?;
        writer.commit()?;
    } else {
        bar.add(size);
    }
    Ok((digest, size))
}

fn copy<R: BufRead>(tape: &mut Tape<R>, to: &mut impl Write, bar: &Bar) -> Result<()> {
    loop {
        let content = tape.content()?;
        let n = content.len();
        if n == 0 {
            return Ok(());
        }
        to.write_all(content)?;
        tape.consume(n);
        bar.add(n as u64);
    }
}

// ---------------------------------------------------------------------------------------------
// An OCI layout

/// Where its blobs are.
enum Layout {
    Directory(PathBuf),
    /// Already in the store.
    Stored,
}

fn load_layout(
    store: &Store,
    layout: &Layout,
    index: &[u8],
    stem: &str,
    progress: &Progress,
) -> Result<Vec<Loaded>> {
    let Document::Index(index) = Document::parse(index, None).context(OCI_INDEX)? else {
        bail!("{OCI_INDEX}: not an index");
    };
    ensure!(!index.manifests.is_empty(), "{OCI_INDEX}: has no images");
    // The names of one image come together.
    let mut names: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for descriptor in &index.manifests {
        let name = name_of(descriptor, stem)?;
        names.entry(descriptor.digest).or_default().extend(name);
    }
    let mut loaded = Vec::new();
    for descriptor in index.manifests {
        let Some(names) = names.remove(&descriptor.digest) else {
            continue;
        };
        take(store, layout, &descriptor, progress)
            .with_context(|| descriptor.digest.to_string())?;
        let descriptor = Descriptor {
            annotations: None,
            urls: None,
            ..descriptor
        };
        loaded.extend(named(store, descriptor, names)?);
    }
    Ok(loaded)
}

/// Everything below a descriptor into the store. Of an index, what is there.
fn take(
    store: &Store,
    layout: &Layout,
    descriptor: &Descriptor,
    progress: &Progress,
) -> Result<()> {
    fetch(store, layout, descriptor, progress)?;
    let content = store.read_blob(descriptor)?;
    match Document::parse(&content, Some(&descriptor.media_type))? {
        Document::Manifest(manifest) => {
            for part in manifest.layers.iter().chain([&manifest.config]) {
                fetch(store, layout, part, progress)?;
            }
        }
        Document::Index(index) => {
            let mut some = false;
            for part in index
                .manifests
                .iter()
                .filter(|part| layout.has(store, part))
            {
                take(store, layout, part, progress)?;
                some = true;
            }
            ensure!(some, "no manifest of the index is there");
        }
    }
    Ok(())
}

impl Layout {
    fn blob(&self, digest: &Digest) -> Option<PathBuf> {
        match self {
            Layout::Directory(path) => Some(path.join(BLOBS).join(digest.hex())),
            Layout::Stored => None,
        }
    }

    fn has(&self, store: &Store, part: &Descriptor) -> bool {
        store.has(&part.digest) || self.blob(&part.digest).is_some_and(|path| path.exists())
    }
}

fn fetch(store: &Store, layout: &Layout, part: &Descriptor, progress: &Progress) -> Result<()> {
    let Some(path) = layout.blob(&part.digest) else {
        // Verified as it was read; its size is checked here.
        return store.open_blob(part).map(drop);
    };
    let Ingest::Missing(writer) = store.blob_writer(&part.digest, part.size)? else {
        return Ok(());
    };
    let context = || path.display().to_string();
    let mut from = File::open(&path).with_context(context)?;
    let bar = progress.bar(&part.digest.short(), Some(part.size));
    let mut writer = writer.afresh()?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = from.read(&mut buffer).with_context(context)?;
        if n == 0 {
            break;
        }
        writer.write_all(&buffer[..n]).with_context(context)?;
        bar.add(n as u64);
    }
    writer.commit().with_context(context)?;
    bar.done("copied");
    Ok(())
}

/// A whole name from an index: containerd's key, else image-spec's, which may be a tag only.
fn name_of(descriptor: &Descriptor, stem: &str) -> Result<Option<String>> {
    if let Some(name) = descriptor.annotation(CONTAINERD_NAME) {
        return Ok(Some(name.parse::<Reference>()?.to_string()));
    }
    let Some(name) = descriptor.annotation(REF_NAME) else {
        return Ok(None);
    };
    let whole = match name.contains(['/', ':']) {
        true => name.to_owned(),
        false => format!("localhost/{stem}:{name}"),
    };
    Ok(Some(whole.parse::<Reference>()?.to_string()))
}

fn named(store: &Store, descriptor: Descriptor, names: Vec<String>) -> Result<Vec<Loaded>> {
    if names.is_empty() {
        store.keep(&descriptor)?;
        return Ok(vec![Loaded {
            name: None,
            descriptor,
        }]);
    }
    let mut loaded = Vec::new();
    for name in names {
        store.tag(&name, &descriptor)?;
        loaded.push(Loaded {
            name: Some(name),
            descriptor: descriptor.clone(),
        });
    }
    Ok(loaded)
}
