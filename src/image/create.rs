//! How does a stored layer become an image? A config and a manifest around it, and a name.

use super::changes;
use super::compression::{Compression, Encoder};
use super::config::{History, ImageConfig};
use super::digest::{Digest, Hasher};
use super::layer;
use super::manifest::{Descriptor, Manifest, media_type};
use super::store::{Image, Store};
use super::tape::Tape;
use super::unpack::feed::feed;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// What is said of an image beside its layers.
#[derive(Debug, Default, clap::Args)]
pub struct Wishes {
    /// An instruction of a Dockerfile, such as 'CMD ["sh"]' or 'ENV A=1'; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A word about it, for its history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
}

/// A layer that is in the store.
pub struct Layer {
    pub blob: Descriptor,
    pub diff_id: Digest,
}

/// Stores a tar stream, compressed or not, as it comes, and reads it as a layer would be: what could not
/// be unpacked is no layer.
pub fn take_layer(store: &Store, mut from: impl io::Read) -> Result<Layer> {
    let mut spool = store.spool()?;
    io::copy(&mut from, &mut spool)?;
    let (digest, size) = spool.commit()?;
    let mut blob = Descriptor::new(media_type::LAYER_TAR, digest, size);
    let mut first = [0; 8];
    let n = io::Read::read(&mut store.open_blob(&blob)?, &mut first)?;
    blob.media_type = layer_type(Compression::of(&first[..n])?).to_owned();
    let diff_id = judge(store.open_blob(&blob)?)?;
    Ok(Layer { blob, diff_id })
}

fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => media_type::LAYER_TAR,
        Compression::Gzip => media_type::LAYER_GZIP,
        Compression::Zstd => media_type::LAYER_ZSTD,
    }
}

/// Reads a layer from end to end; gives its diff id.
fn judge(blob: File) -> Result<Digest> {
    let (pump, source) = feed();
    let (pumped, read) = std::thread::scope(|scope| {
        let pump = scope.spawn(move || pump.run(blob, u64::MAX));
        let read = (|| {
            let mut tape = Tape::new(source);
            while let Some(entry) = tape.next_entry()? {
                let context = || format!("entry {:?}", String::from_utf8_lossy(&entry.path));
                layer::act(&entry.path).with_context(context)?;
            }
            Ok(tape.finish()?.digest())
        })();
        (pump.join(), read)
    });
    pumped.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    read
}

/// Stores a directory as a layer.
pub fn make_layer(
    store: &Store,
    dir: OwnedFd,
    how: super::diff::How,
    compression: Compression,
) -> Result<Layer> {
    let mut inner = Hashed {
        to: Encoder::new(compression, store.spool()?)?,
        hasher: Hasher::new(),
    };
    let to = io::BufWriter::with_capacity(256 << 10, &mut inner);
    super::diff::write(dir, how, to)?;
    let (digest, size) = inner.to.finish()?.commit()?;
    Ok(Layer {
        blob: Descriptor::new(layer_type(compression), digest, size),
        diff_id: inner.hasher.finish(),
    })
}

struct Hashed<W> {
    to: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let n = self.to.write(content)?;
        self.hasher.update(&content[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A new image: `layer` on top of `base`, or alone. `by` is what its history says of the layer.
pub fn image(
    store: &Store,
    base: Option<&Image>,
    layer: Layer,
    by: &str,
    wishes: &Wishes,
) -> Result<Descriptor> {
    let mut config = match base {
        Some(base) => base.config.clone(),
        None => {
            let platform = super::platform::Platform::host();
            let mut config = ImageConfig {
                os: platform.os,
                architecture: platform.architecture,
                variant: platform.variant,
                ..ImageConfig::default()
            };
            config.rootfs.kind = "layers".to_owned();
            config
        }
    };
    let now = crate::clock::now_nanos();
    config.created = Some(now.clone());
    config.author = wishes.author.clone().or(config.author);
    for instruction in &wishes.change {
        changes::apply(&mut config.config, instruction)?;
    }
    config.rootfs.diff_ids.push(layer.diff_id);
    config.history.push(History {
        created: Some(now),
        created_by: by.to_owned(),
        author: wishes.author.clone().unwrap_or_default(),
        comment: wishes.message.clone().unwrap_or_default(),
        empty_layer: false,
    });
    let mut layers = base
        .map(|base| base.manifest.layers.clone())
        .unwrap_or_default();
    layers.push(layer.blob);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: store.put_blob(&serde_json::to_vec(&config)?, media_type::CONFIG)?,
        layers: layers.into_iter().map(as_oci).collect::<Result<_>>()?,
        annotations: None,
    };
    config.check(&manifest)?;
    store.put_manifest(&serde_json::to_vec(&manifest)?, media_type::MANIFEST)
}

/// A layer of Docker's under image-spec's name for the same thing: one manifest is of one family.
fn as_oci(mut layer: Descriptor) -> Result<Descriptor> {
    layer.media_type = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER => media_type::LAYER_GZIP.to_owned(),
        media_type::DOCKER_LAYER_TAR => media_type::LAYER_TAR.to_owned(),
        other if other.starts_with("application/vnd.docker.") => {
            bail!("layer {}: media type {other:?} is not known", layer.digest)
        }
        other => other.to_owned(),
    };
    layer.urls = None;
    Ok(layer)
}
