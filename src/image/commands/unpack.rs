//! `unpack`: an image as a bundle that a runtime starts.
//!
//! The bundle is whole or it is not there: rootfs and config.json are made in `DIR/.unpack`, locked by
//! who makes them, and get their names at the end, config.json last. What a killed one left, the next
//! one removes.

use crate::idmap::{self, Ids, Kept};
use crate::image::bundle::{self, Ask};
use crate::image::cli::Global;
use crate::image::platform::Platform;
use crate::image::progress::Progress;
use crate::image::show;
use crate::image::store::layers::{open_dir, remove_tree};
use crate::image::store::{Image, Store};
use crate::image::unpack::below::Below;
use crate::image::unpack::{self, Options, Unpacker, tree};
use crate::sys::file;
use crate::users;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Unpack an image into a bundle: config.json and rootfs
#[derive(Debug, Args)]
pub struct Unpack {
    /// Name or ID of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where the bundle is made
    #[arg(short, long, value_name = "DIR")]
    bundle: PathBuf,
    /// Of an image for several, os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Unpack into layers that all containers share; rootfs stays empty, and the lower directories of an
    /// overlay for it are printed, with the places of the image's volumes, which are not in config.json
    #[arg(long)]
    overlay: bool,
    /// With the user's own ids; always so without root
    #[arg(long)]
    rootless: bool,
    /// The ids in the container of the user who is root in the namespace of the layers
    #[arg(long, value_name = "UID:GID", hide = true, requires = "overlay")]
    kept: Option<Kept>,
    /// Everything belongs to the user, whatever the image says
    #[arg(long)]
    ignore_chown_errors: bool,
    /// Bytes a layer may have when unpacked
    #[arg(long, value_name = "BYTES", default_value_t = unpack::MAX_SIZE)]
    max_size: u64,
    /// The process has a terminal
    #[arg(short, long)]
    tty: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Who runs it, a name of the image or a number [what the image says]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// One more group of its user, a name of the image or a number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// A capability that the seccomp profile reckons with; the caller gives it
    #[arg(long, value_name = "CAP", hide = true)]
    cap_add: Vec<String>,
    /// A capability, or ALL, that it does not reckon with
    #[arg(long, value_name = "CAP", hide = true)]
    cap_drop: Vec<String>,
    /// Instead of the image's Entrypoint and Cmd; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Instead of the image's Cmd
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Unpack {
    pub fn run(&self, global: &Global) -> Result<()> {
        idmap::refuse_as_root(self.rootless)?;
        let root = global.root()?;
        let ids = idmap::enter()?;
        if ids.squash && !self.quiet {
            show::warn("no subordinate ids (/etc/subuid, /etc/subgid): everything belongs to you");
        }
        ensure!(
            self.kept.is_none() || !ids.squash && !ids.privileged,
            "to keep an id needs subordinate ids (/etc/subuid, /etc/subgid) and a user who is not root"
        );
        let store = Store::open(&root)?;
        let image = store.find(
            &self.image,
            &self.platform.clone().unwrap_or_else(Platform::host),
        )?;
        self.check_platform(&image)?;
        self.bundle(&store, &image, &ids)
            .with_context(|| format!("unpack {} into {}", self.image, self.bundle.display()))
    }

    /// An image for one platform is found whatever is asked for.
    fn check_platform(&self, image: &Image) -> Result<()> {
        let Some(wanted) = &self.platform else {
            return Ok(());
        };
        let config = &image.config;
        let has = Platform::new(&config.os, &config.architecture, config.variant.as_deref());
        ensure!(
            wanted.rank(&has).is_some(),
            "image with reference {} was found but its platform ({has}) does not match the specified platform ({wanted})",
            self.image
        );
        Ok(())
    }

    fn bundle(&self, store: &Store, image: &Image, ids: &Ids) -> Result<()> {
        let options = Options {
            max_size: self.max_size,
            squash: ids.squash || self.ignore_chown_errors,
            privileged: ids.privileged,
            kept: self.kept,
        };
        let progress = Progress::new(self.quiet);
        let place = Place::take(&self.bundle)?;
        let made = match self.overlay {
            false => self.flat(store, image, ids, &options, &progress, &place),
            true => self.shared(store, image, ids, &options, &progress, &place),
        };
        match made {
            Ok(result) => {
                place.finish()?;
                show::print(&result)
            }
            Err(e) => {
                place.undo();
                Err(e)
            }
        }
    }

    /// All layers into rootfs.
    fn flat(
        &self,
        store: &Store,
        image: &Image,
        ids: &Ids,
        options: &Options,
        progress: &Progress,
        place: &Place,
    ) -> Result<String> {
        let rootfs = open_dir(&place.rootfs())?;
        let mut unpacker = Unpacker::flat(rootfs.try_clone()?, options)?;
        for (blob, diff_id) in image
            .manifest
            .layers
            .iter()
            .zip(&image.config.rootfs.diff_ids)
        {
            let context = || format!("layer {}", blob.digest);
            let bar = progress.bar(&format!("layer {}", blob.digest.short()), Some(blob.size));
            let file = store.open_blob(blob)?;
            unpacker.apply(file, diff_id).with_context(context)?;
            bar.done("unpacked");
        }
        unpacker.finish()?.tell();
        let view = Below::new(vec![rootfs.try_clone()?]);
        let made = self.config(image, ids, &view, place)?;
        make_cwd(&rootfs, &made.cwd)?;
        Ok(String::new())
    }

    /// Layers of the store; the caller mounts them.
    fn shared(
        &self,
        store: &Store,
        image: &Image,
        ids: &Ids,
        options: &Options,
        progress: &Progress,
        place: &Place,
    ) -> Result<String> {
        store.lease(&place.bundle, image)?;
        let lower = store.layers(image, options, progress)?;
        let view = Below::new(
            lower
                .iter()
                .map(|dir| open_dir(dir))
                .collect::<Result<_>>()?,
        );
        let made = self.config(image, ids, &view, place)?;
        let result = json!({
            "id": image.id(),
            "lowerdirs": lower,
            "cwd": made.cwd,
            "volumes": made.volumes,
            "rootless": !ids.privileged,
            "healthcheck": image.config.config.healthcheck,
        });
        Ok(format!("{result}\n"))
    }

    /// What was typed instead of what the image says, by docker's rules.
    fn replace(&self, wish: &mut crate::image::config::Execution) {
        if let Some(user) = &self.user {
            wish.user = user.clone();
        }
        if let Some(entrypoint) = &self.entrypoint {
            wish.entrypoint = vec![entrypoint.clone()];
            wish.entrypoint.retain(|program| !program.is_empty());
            wish.cmd.clear();
        }
        if !self.command.is_empty() {
            wish.cmd = self.command.clone();
        }
    }

    fn config(
        &self,
        image: &Image,
        ids: &Ids,
        view: &Below,
        place: &Place,
    ) -> Result<bundle::Made> {
        let read = |path: &str| {
            view.text(path.as_bytes(), users::FILE_LIMIT)
                .context(path.to_owned())
        };
        let ask = Ask {
            passwd: read("etc/passwd")?,
            group: read("etc/group")?,
            uid_map: ids.uids.clone(),
            gid_map: ids.gids.clone(),
            terminal: self.tty,
            without_volumes: self.overlay,
            groups: self.group_add.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
        };
        let mut asked = image.config.clone();
        self.replace(&mut asked.config);
        let made = bundle::make(&asked, &ask)?;
        made.warnings.iter().for_each(show::warn);
        let text = serde_json::to_string_pretty(&made.config)? + "\n";
        fs::write(place.config(), text).with_context(|| place.config().display().to_string())?;
        Ok(made)
    }
}

/// The directory that the process starts in, where the image has none: as docker makes it.
fn make_cwd(rootfs: &OwnedFd, cwd: &str) -> Result<()> {
    let mut path = Vec::new();
    for part in unpack::below::parts(cwd.as_bytes()) {
        path = crate::image::layer::join(&path, &part);
        tree::make_dir(rootfs.as_fd(), &path).with_context(|| format!("WorkingDir {cwd:?}"))?;
    }
    Ok(())
}

/// A bundle in the making.
struct Place {
    bundle: PathBuf,
    /// Made by us, so removed after a failure.
    fresh: bool,
    /// `.unpack`, open for its lock.
    lock: File,
}

impl Place {
    fn take(bundle: &Path) -> Result<Place> {
        let bundle = std::path::absolute(bundle)?;
        let fresh = !bundle.exists();
        fs::create_dir_all(&bundle)?;
        let inside = bundle.join(".unpack");
        loop {
            let before = inside.exists();
            let made = DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(&inside);
            made.with_context(|| format!("mkdir {}", inside.display()))?;
            let lock = File::open(&inside)?;
            ensure!(
                file::try_lock(lock.as_fd())?,
                "another sc-image unpacks into it"
            );
            // The one before may have finished and removed it meanwhile.
            if fs::metadata(&inside).ok().map(|meta| meta.ino()) != Some(lock.metadata()?.ino()) {
                continue;
            }
            let place = Place {
                bundle,
                fresh,
                lock,
            };
            match place.prepare(before) {
                Ok(()) => return Ok(place),
                Err(e) => {
                    // The first error is the one to report.
                    let _ = remove_tree(&inside);
                    return Err(e);
                }
            }
        }
    }

    fn prepare(&self, before: bool) -> Result<()> {
        let (rootfs, config) = (self.bundle.join("rootfs"), self.bundle.join("config.json"));
        if config.exists() {
            bail!("there is a bundle already (config.json)");
        }
        if before {
            // Killed between its two renames.
            if self.config().exists() && !self.rootfs().exists() {
                remove_tree(&rootfs)?;
            }
            for entry in fs::read_dir(self.inside())? {
                let path = entry?.path();
                if path.is_dir() {
                    remove_tree(&path)?
                } else {
                    fs::remove_file(&path)?
                }
            }
        }
        ensure!(!rootfs.exists(), "there is a rootfs already");
        DirBuilder::new().mode(0o755).create(self.rootfs())?;
        Ok(())
    }

    fn inside(&self) -> PathBuf {
        self.bundle.join(".unpack")
    }

    fn rootfs(&self) -> PathBuf {
        self.inside().join("rootfs")
    }

    fn config(&self) -> PathBuf {
        self.inside().join("config.json")
    }

    fn finish(&self) -> Result<()> {
        // Both are there before the first gets its name: see prepare().
        for name in ["rootfs", "config.json"] {
            let from = self.inside().join(name);
            fs::rename(&from, self.bundle.join(name))
                .with_context(|| format!("rename {}", from.display()))?;
        }
        fs::remove_dir(self.inside())?;
        Ok(())
    }

    /// As if nothing was tried; the error that led here is the one to report.
    fn undo(&self) {
        let _ = remove_tree(&self.inside());
        if self.fresh {
            let _ = fs::remove_dir(&self.bundle);
        }
        // Held until nothing is left.
        let _ = file::unlock(self.lock.as_fd());
    }
}
