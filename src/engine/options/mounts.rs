//! Options that say which files a container has besides its image's.

use crate::engine::config::{self, add_mount};
use crate::engine::mounts::{self, Mount, Source};
use crate::engine::record::Home;
use crate::engine::volumes::{self, Hold};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[derive(Debug, Args)]
pub struct Mounts {
    /// A path of the host, or a volume by name, in the container; without SOURCE a volume of its own
    #[arg(short, long, value_name = "[SOURCE:]CONTAINER[:ro]")]
    volume: Vec<String>,
    /// The same in fields: type=bind|volume|tmpfs,source=…,target=…,readonly
    #[arg(long, value_name = "FIELDS")]
    mount: Vec<String>,
    /// Memory as a file system
    #[arg(long, value_name = "CONTAINER[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// All volumes and paths of the host that another container has
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Size of /dev/shm, like 64m
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Nothing can be written but below /run, /tmp, /var/tmp and volumes
    #[arg(long)]
    read_only: bool,
}

impl Mounts {
    /// All that was typed, and volumes at the places `of_image`; those that others have are looked up.
    pub fn wanted(&self, home: &Home, of_image: &[String]) -> Result<Vec<Mount>> {
        let mut wanted = Vec::new();
        for text in &self.volume {
            let (mount, note) = mounts::of_volume(text)?;
            if let Some(note) = note {
                eprintln!("sc: {note}");
            }
            wanted.push(mount);
        }
        for text in &self.mount {
            wanted.push(mounts::of_mount(text)?);
        }
        for text in &self.tmpfs {
            wanted.push(mounts::of_tmpfs(text)?);
        }
        mounts::check_all(&wanted)?;
        // What was typed goes before what another has, and that before the image's.
        for text in &self.volumes_from {
            for mount in others(home, text)? {
                add(&mut wanted, mount);
            }
        }
        for target in of_image {
            add(&mut wanted, mounts::of_volume(target)?.0);
        }
        Ok(wanted)
    }

    /// Puts them into config.json. Volumes and directories of the host are made here, so this comes last.
    pub fn apply(
        &self,
        config: &mut Value,
        wanted: &mut [Mount],
        home: &Home,
        hold: &mut Option<Hold>,
        is_image: bool,
        has_own_ids: bool,
    ) -> Result<()> {
        if let Some(size) = &self.shm_size {
            resize_shm(config, config::bytes(size).context("--shm-size")?)?;
        }
        if self.read_only {
            config["root"]["readonly"] = json!(true);
            for at in ["/run", "/tmp", "/var/tmp"] {
                if !wanted.iter().any(|mount| mount.target == at) {
                    let options = ["nosuid", "nodev", "mode=1777"];
                    add_mount(
                        config,
                        json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": options }),
                    );
                }
            }
        }
        for mount in wanted {
            let source = ready(mount, home, hold)?;
            if let Some(mounts) = config["mounts"].as_array_mut().filter(|_| is_image) {
                mounts.retain(|other| other["destination"] != mount.target);
            }
            let mut entry = mount.as_config(&source);
            if let (Some(_), true, Some(options)) =
                (mount.volume(), has_own_ids, entry["options"].as_array_mut())
            {
                // On the disk a volume has the ids that every container sees.
                options.push(json!("idmap"));
            }
            add_mount(config, entry);
        }
        // What is mounted below another comes after it; a bundle's order is its own.
        if let Some(mounts) = config["mounts"].as_array_mut().filter(|_| is_image) {
            mounts.sort_by_key(|mount| {
                let at = mount["destination"].as_str().unwrap_or_default();
                at.split('/').filter(|part| !part.is_empty()).count()
            });
        }
        Ok(())
    }
}

fn add(wanted: &mut Vec<Mount>, mount: Mount) {
    if !wanted.iter().any(|other| other.target == mount.target) {
        wanted.push(mount);
    }
}

/// What `--volumes-from` names.
fn others(home: &Home, text: &str) -> Result<Vec<Mount>> {
    let (name, mode) = text.rsplit_once(':').unwrap_or((text, ""));
    ensure!(
        ["", "ro", "rw", "z", "Z"].contains(&mode),
        "--volumes-from {text:?}: {mode:?} is neither ro nor rw"
    );
    let other = home.find(name).context("--volumes-from")?;
    let shared = other
        .mounts
        .into_iter()
        .filter(|mount| mount.source != Source::Tmpfs);
    Ok(shared
        .map(|mut mount| {
            mount.read_only |= mode == "ro";
            mount
        })
        .collect())
}

/// Makes what is asked for where it is not there; gives the path to mount.
fn ready(mount: &mut Mount, home: &Home, hold: &mut Option<Hold>) -> Result<String> {
    match &mut mount.source {
        Source::Tmpfs => Ok("tmpfs".to_owned()),
        Source::Host { path, make, .. } => {
            let whole = std::path::absolute(&*path)?;
            let whole = whole
                .to_str()
                .context("a path of the host that is not UTF-8")?;
            *path = whole.to_owned();
            match Path::new(path).exists() {
                true => {}
                false if *make => {
                    fs::create_dir_all(&*path).with_context(|| format!("--volume: mkdir {path}"))?
                }
                false => bail!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {path}"
                ),
            }
            Ok(path.clone())
        }
        Source::Volume { name, labels, .. } => {
            let Some(hold) = hold else {
                bail!("a volume without the lock of volumes");
            };
            *name = hold.make(name, labels)?;
            let data = volumes::data(home, name);
            Ok(data
                .to_str()
                .context("a root that is not UTF-8")?
                .to_owned())
        }
    }
}

fn resize_shm(config: &mut Value, size: i64) -> Result<()> {
    let mounts = config["mounts"].as_array_mut();
    let shm = mounts
        .into_iter()
        .flatten()
        .find(|mount| mount["destination"] == "/dev/shm");
    let shm = shm.context("--shm-size: nothing is mounted at /dev/shm")?;
    ensure!(
        shm["type"] == "tmpfs",
        "--shm-size: what is mounted at /dev/shm is another's"
    );
    if let Some(options) = shm["options"].as_array_mut() {
        options.retain(|option| {
            !option
                .as_str()
                .is_some_and(|option| option.starts_with("size="))
        });
        options.push(json!(format!("size={size}")));
    }
    Ok(())
}

impl Mounts {
    /// Whether volumes are named, so that their lock is needed.
    pub fn names_volumes(wanted: &[Mount]) -> bool {
        wanted.iter().any(|mount| mount.volume().is_some())
    }
}

/// As `inspect` shows them, in docker's keys.
pub fn described(home: &Home, mounts: &[Mount]) -> Vec<Value> {
    let one = |mount: &Mount| {
        let (kind, source) = match &mount.source {
            Source::Tmpfs => ("tmpfs", String::new()),
            Source::Host { path, .. } => ("bind", path.clone()),
            Source::Volume { name, .. } => {
                ("volume", volumes::data(home, name).display().to_string())
            }
        };
        let mut shown = BTreeMap::from([
            ("Type", json!(kind)),
            ("Source", json!(source)),
            ("Destination", json!(mount.target)),
            ("Mode", json!(mount.options.join(","))),
            ("RW", json!(!mount.read_only)),
        ]);
        if let Some(name) = mount.volume() {
            shown.insert("Name", json!(name));
            shown.insert("Driver", json!("local"));
        }
        json!(shown)
    };
    mounts.iter().map(one).collect()
}
