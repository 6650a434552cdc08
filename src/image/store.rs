//! Where are the images? An OCI image layout on disk, with the layers unpacked from it.
//!
//! ```text
//! ROOT (0700)                      /var/lib/sc, or $XDG_DATA_HOME/sc without root
//! ├── image/                       a valid OCI image layout: skopeo and umoci can read it
//! │   ├── oci-layout  index.json   names are in the annotation org.opencontainers.image.ref.name
//! │   ├── blobs/sha256/HEX         a blob has its name only when digest and size are verified
//! │   └── ingest/                  blobs on their way: sha256-HEX.part, kept for a resumed download
//! ├── layers/HEX/                  an unpacked layer, by chain id: diff/, complete.json; HEX.N.replaced was
//! │                                one that is mounted still
//! ├── leases/HEX.json              which bundles use which layers; PID-N.pledge: what a pull will name
//! └── lock/{store,index}            and reserve: room for index.json when the disk is full
//! ```
//!
//! # What a caller does
//! ```text
//! let store = Store::open(&root)?;               // shared lock: nothing is collected meanwhile
//! match store.blob_writer(&digest, size)? {      // waits while another process fetches the same blob
//!     Ingest::Here => {}                         // nothing to fetch
//!     Ingest::Missing(mut blob) => {
//!         let have = blob.len();                 // from an earlier attempt: ask for `bytes=have-`,
//!         blob.restart()?;                       //   or throw it away when the server cannot
//!         blob.write_all(&bytes)?;               // impl Write; never more than `size`
//!         blob.commit()?;                        // verified, then named. Dropped instead: kept for later
//!     }
//! }
//! let descriptor = store.put_manifest(&bytes, media_type)?;   // after all it names is there
//! store.tag("docker.io/library/busybox:latest", &descriptor)?;
//! ```
//!
//! # Locks
//! All are flock(2) on files under `lock/`, or on the `.part` itself: the kernel frees them at death.
//! The store's is shared by whoever adds or reads, and exclusive for the collection of garbage, so
//! what is fetched but not yet named is safe. A pull gives it back while it fetches, and pledges what it
//! will need ([`pledge`]). The index's is held for one rewrite of index.json.
//! Order: store, blob, index. Who waits says so, and for whom ([`lock`]).

pub mod blob;
pub mod check;
pub mod garbage;
pub mod layers;
pub mod lease;
pub mod lock;
pub mod names;
pub mod pledge;

pub use blob::{BlobWriter, Ingest};
pub use names::Listed;

use super::config::ImageConfig;
use super::digest::Digest;
use super::manifest::{
    DOCUMENT_LIMIT, Descriptor, Document, Index, Manifest, REF_NAME, media_type,
};
use anyhow::{Context, Result, bail, ensure};
use lock::Lock;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A store in use. Keeps the store's lock, shared, until it is dropped.
pub struct Store {
    root: PathBuf,
    lock: Lock,
}

/// An image of the store, its documents read and checked.
#[derive(Debug, Clone)]
pub struct Image {
    /// All its names, of index.json; none when it lost its name to another.
    pub names: Vec<String>,
    /// Of the manifest; as index.json has it when it is there.
    pub descriptor: Descriptor,
    pub manifest: Manifest,
    pub config: ImageConfig,
}

impl Image {
    /// What lists show as image ID: the config's digest, the same however layers are compressed.
    pub fn id(&self) -> Digest {
        self.manifest.config.digest
    }

    /// Of the config and the layers as they are stored.
    pub fn size(&self) -> u64 {
        let layers = self.manifest.layers.iter().map(|layer| layer.size);
        layers.fold(self.manifest.config.size, u64::saturating_add)
    }
}

impl Store {
    /// Opens the store, making it where it is not yet there. Waits while garbage is collected.
    pub fn open(root: &Path) -> Result<Store> {
        Store::with(root, |path| Lock::shared(path, "the store"))
    }

    /// Opens the store for the collection of garbage: waits until nobody else uses it.
    pub fn open_alone(root: &Path) -> Result<Store> {
        Store::with(root, |path| Lock::exclusive(path, "the store"))
    }

    fn with(root: &Path, lock: impl Fn(&Path) -> Result<Lock>) -> Result<Store> {
        let root = std::path::absolute(root)?;
        let context = || format!("the store {}", root.display());
        make(&root).with_context(context)?;
        let lock = lock(&root.join("lock/store")).with_context(context)?;
        Ok(Store { root, lock })
    }

    /// `/var/lib/sc`, or the user's own data directory without root.
    pub fn default_root() -> Result<PathBuf> {
        if nix::unistd::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/sc"));
        }
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let data =
            absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
        Ok(data
            .context("neither XDG_DATA_HOME nor HOME says where images are kept: use --root")?
            .join("sc"))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the shared lock exclusive if nobody else uses the store now; tells whether it is.
    pub fn try_alone(&mut self) -> Result<bool> {
        self.lock.try_exclusive()
    }

    /// Gives the store's lock back: garbage may be collected meanwhile. Nothing but what is pledged stays.
    pub fn step_aside(&self) -> Result<()> {
        self.lock.release()
    }

    /// Takes the shared lock again. Waits while garbage is collected.
    pub fn step_in(&self) -> Result<()> {
        self.lock.share_again("the store")
    }

    // -----------------------------------------------------------------------------------------
    // Blobs

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("image/blobs/sha256").join(digest.hex())
    }

    /// Whether a blob is there; its content was verified when it got its name.
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Begins, or goes on with, the fetch of a blob. Waits while another process fetches it.
    /// `size`: the descriptor's; more is never written.
    pub fn blob_writer(&self, digest: &Digest, size: u64) -> Result<Ingest> {
        blob::begin(self, digest, size).with_context(|| format!("blob {digest}"))
    }

    /// A blob whose digest is not known before its end.
    pub fn spool(&self) -> Result<BlobWriter> {
        blob::spool(self).context("a new blob")
    }

    /// Opens a blob of at least the descriptor's size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<File> {
        let digest = &descriptor.digest;
        let context = || format!("blob {digest}");
        let file = match File::open(self.blob_path(digest)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                bail!("blob {digest} is not in the store: pull or load the image again")
            }
            other => other.with_context(context)?,
        };
        let size = file.metadata().with_context(context)?.size();
        ensure!(
            size == descriptor.size,
            "blob {digest} has {size} bytes and should have {}: sc-image fsck --repair",
            descriptor.size
        );
        Ok(file)
    }

    /// A small blob whole, verified again: a manifest, an index or a config.
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let Descriptor { digest, size, .. } = descriptor;
        ensure!(
            *size <= DOCUMENT_LIMIT,
            "blob {digest}: {size} bytes (at most {DOCUMENT_LIMIT})"
        );
        let mut content = Vec::with_capacity(*size as usize);
        self.open_blob(descriptor)?
            .take(DOCUMENT_LIMIT)
            .read_to_end(&mut content)?;
        ensure!(
            Digest::of(&content) == *digest,
            "blob {digest} is damaged: sc-image fsck --repair"
        );
        Ok(content)
    }

    /// Stores a small blob that is at hand, such as a config.
    pub fn put_blob(&self, content: &[u8], media_type: &str) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, content);
        if let Ingest::Missing(blob) = self.blob_writer(&descriptor.digest, descriptor.size)? {
            let mut blob = blob.afresh()?;
            blob.write_all(content)?;
            blob.commit()?;
        }
        Ok(descriptor)
    }

    /// Stores a manifest or an index, byte for byte. Everything it names must be there already:
    /// of an index, at least one manifest.
    pub fn put_manifest(&self, content: &[u8], media_type: &str) -> Result<Descriptor> {
        match Document::parse(content, Some(media_type))? {
            Document::Manifest(manifest) => {
                for part in manifest.layers.iter().chain([&manifest.config]) {
                    ensure!(
                        self.has(&part.digest),
                        "blob {} is not in the store",
                        part.digest
                    );
                }
            }
            Document::Index(index) => {
                let mut parts = index.manifests.iter();
                ensure!(
                    parts.any(|part| self.has(&part.digest)),
                    "no manifest of the index is in the store"
                );
            }
        }
        self.put_blob(content, media_type)
    }

    // -----------------------------------------------------------------------------------------
    // Names

    /// index.json as it is now.
    pub fn index(&self) -> Result<Index> {
        let path = self.root.join("image/index.json");
        let content = fs::read(&path).with_context(|| path.display().to_string())?;
        match Document::parse(&content, None).with_context(|| path.display().to_string())? {
            Document::Index(index) => Ok(index),
            Document::Manifest(_) => bail!("{}: not an index", path.display()),
        }
    }

    /// Gives `name` to what `descriptor` tells of, taking it from what had it: that stays, without
    /// a name, unless it has another one. A name is a whole reference with registry and tag, or
    /// with a digest (`docker.io/library/busybox@sha256:…`).
    pub fn tag(&self, name: &str, descriptor: &Descriptor) -> Result<()> {
        self.change_index(|index| {
            let others = index
                .manifests
                .iter()
                .filter(|d| d.annotation(REF_NAME) != Some(name));
            let others: Vec<Descriptor> = others.cloned().collect();
            let lost = index.manifests.iter().filter(|d| {
                d.annotation(REF_NAME) == Some(name)
                    && d.digest != descriptor.digest
                    && others.iter().all(|other| other.digest != d.digest)
            });
            let lost: Vec<Descriptor> = lost.map(|d| d.clone().with_name(None)).collect();
            index.manifests = others;
            index.manifests.extend(lost);
            // What had no name has one now.
            index
                .manifests
                .retain(|d| d.digest != descriptor.digest || d.annotation(REF_NAME).is_some());
            index
                .manifests
                .push(descriptor.clone().with_name(Some(name)));
            Ok(())
        })
    }

    /// Puts an image that has no name into the index, so that it is not collected.
    pub fn keep(&self, descriptor: &Descriptor) -> Result<()> {
        self.change_index(|index| {
            if index
                .manifests
                .iter()
                .all(|d| d.digest != descriptor.digest)
            {
                index.manifests.push(descriptor.clone().with_name(None));
            }
            Ok(())
        })
    }

    /// Rewrites index.json under its lock, atomically.
    pub fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let _lock = Lock::exclusive(&self.root.join("lock/index"), "the index of images")?;
        let mut index = self.index()?;
        let before = index.clone();
        let result = change(&mut index)?;
        if index != before {
            let text = serde_json::to_vec(&index)?;
            let path = self.root.join("image/index.json");
            let smaller = index.manifests.len() < before.manifests.len();
            match replace(&path, &text) {
                // On a full disk something can be removed still: that makes room.
                Err(e) if smaller && is_full(&e) && self.give_reserve() => replace(&path, &text)?,
                other => other?,
            }
            self.make_reserve();
        }
        Ok(result)
    }

    fn give_reserve(&self) -> bool {
        fs::remove_file(self.root.join(RESERVE)).is_ok()
    }

    /// Sees to it that there is room for an index; where there is none, the next one tries again.
    fn make_reserve(&self) {
        let path = self.root.join(RESERVE);
        let size = fs::metadata(&path).map_or(0, |meta| meta.size());
        if size != RESERVE_SIZE && fs::write(&path, vec![0; RESERVE_SIZE as usize]).is_err() {
            // Half of it is of no use.
            let _ = fs::remove_file(&path);
        }
    }

    /// Reads what a descriptor of an image's manifest leads to.
    pub fn image(&self, descriptor: &Descriptor) -> Result<Image> {
        let context = || format!("manifest {}", descriptor.digest);
        let content = self.read_blob(descriptor).with_context(context)?;
        let document = Document::parse(&content, Some(&descriptor.media_type));
        let Document::Manifest(manifest) = document.with_context(context)? else {
            bail!("{} is an index of several images", descriptor.digest);
        };
        ensure!(
            media_type::is_config(&manifest.config.media_type),
            "manifest {}: an artifact of type {:?}, not an image",
            descriptor.digest,
            manifest.config.media_type
        );
        let config = ImageConfig::parse(&self.read_blob(&manifest.config)?)
            .and_then(|config| config.check(&manifest).map(|()| config))
            .with_context(|| format!("config {}", manifest.config.digest))?;
        Ok(Image {
            names: Vec::new(),
            descriptor: descriptor.clone(),
            manifest,
            config,
        })
    }
}

/// Given up when the disk is full and the index shall become smaller: 500 images, and the directory's own growth.
const RESERVE: &str = "lock/reserve";
const RESERVE_SIZE: u64 = 256 << 10;

/// Whether an error comes from a disk, or a quota, without room.
fn is_full(error: &anyhow::Error) -> bool {
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| kinds.contains(&cause.kind()))
}

/// The directories and first files of a store; those that are there stay.
fn make(root: &Path) -> Result<()> {
    if root.join("image/index.json").exists() && root.join("lock").exists() {
        return Ok(());
    }
    for dir in [
        "image/blobs/sha256",
        "image/ingest",
        "layers",
        "leases",
        "lock",
    ] {
        let path = root.join(dir);
        // Nobody else's: unpacked layers hold set-user-id programs (CVE-2021-41091).
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("mkdir {}", path.display()))?;
    }
    let _lock = Lock::exclusive(&root.join("lock/index"), "the index of images")?;
    for (file, text) in [
        ("image/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        (
            "image/index.json",
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
        ),
    ] {
        let path = root.join(file);
        if !path.exists() {
            replace(&path, text.as_bytes())?;
        }
    }
    Ok(())
}

/// A file's new content in one step, on disk before its name. The caller has the file's lock: the
/// temporary name is always the same one, so that a killed writer leaves at most one.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let context = || format!("write {}", path.display());
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).with_context(context)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(e) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(e).with_context(context);
    }
    sync_dir(path.parent().unwrap_or(Path::new("/"))).with_context(context)
}

/// Makes renames in a directory last.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    Ok(File::open(dir)?.sync_all()?)
}
