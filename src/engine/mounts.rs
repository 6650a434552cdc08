//! What do `-v`, `--mount` and `--tmpfs` ask for? docker's words for it, as values; pure.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: Source,
    /// In the container: absolute, without `.` and `..`.
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
    /// More options of the runtime's mount.
    #[serde(default)]
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Host {
        path: String,
        /// What is not there becomes a directory: `-v`'s way, not `--mount`'s.
        #[serde(skip)]
        make: bool,
        recursive: bool,
    },
    Volume {
        /// Empty: one of its own is made, which goes when the container goes.
        name: String,
        #[serde(default)]
        anonymous: bool,
        /// It begins with what the image has at the place.
        copy: bool,
        #[serde(skip)]
        labels: BTreeMap<String, String>,
    },
    Tmpfs,
}

/// What `-v` asks for, and a note of what is ignored.
pub fn of_volume(text: &str) -> Result<(Mount, Option<String>)> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => bail!("--volume {text:?}: too many colons: write SOURCE:CONTAINER[:OPTIONS]"),
    };
    ensure!(
        !source.is_empty() || parts.len() == 1,
        "--volume {text:?}: what is before the first colon? A path of the host, or the name of a volume"
    );
    let mut mount = Mount {
        source: match source {
            _ if source.starts_with(['/', '.']) => Source::Host {
                path: source.to_owned(),
                make: true,
                recursive: true,
            },
            _ => volume(source).with_context(|| format!("--volume {text:?}"))?,
        },
        target: target_of(target).with_context(|| format!("--volume {text:?}"))?,
        read_only: false,
        options: Vec::new(),
    };
    let mut note = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "z" | "Z" => {
                note = Some(format!(
                    "--volume {text:?}: {option} is ignored: no relabelling"
                ))
            }
            "nocopy" => match &mut mount.source {
                Source::Volume { copy, .. } => *copy = false,
                _ => bail!("--volume {text:?}: nocopy is for volumes, not for paths of the host"),
            },
            // What only docker's virtual machine on other systems makes something of.
            "consistent" | "cached" | "delegated" => {}
            "rbind" => {}
            "bind" => recurse(&mut mount, false),
            _ if PROPAGATIONS.contains(&option) => propagate(&mut mount, option)?,
            _ => bail!(
                "--volume {text:?}: unknown option {option:?}; known are ro, rw, nocopy, z, Z, bind, rbind, {}",
                PROPAGATIONS.join(", ")
            ),
        }
    }
    Ok((mount, note))
}

const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "slave", "rslave", "shared", "rshared",
];

fn propagate(mount: &mut Mount, how: &str) -> Result<()> {
    ensure!(
        PROPAGATIONS.contains(&how),
        "propagation {how:?} is none of {}",
        PROPAGATIONS.join(", ")
    );
    ensure!(
        matches!(mount.source, Source::Host { .. }),
        "propagation ({how}) is for paths of the host"
    );
    mount
        .options
        .retain(|option| !PROPAGATIONS.contains(&option.as_str()));
    mount.options.push(how.to_owned());
    Ok(())
}

fn recurse(mount: &mut Mount, wanted: bool) {
    if let Source::Host { recursive, .. } = &mut mount.source {
        *recursive = wanted;
    }
}

/// What `--mount` asks for: `type=bind,source=…,target=…`.
pub fn of_mount(text: &str) -> Result<Mount> {
    read_mount(text).with_context(|| format!("--mount {text:?}"))
}

fn read_mount(text: &str) -> Result<Mount> {
    let mut kind = "volume";
    let mut given: Vec<(&str, &str)> = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key {
            "type" => kind = value,
            _ => given.push((key, value)),
        }
    }
    let of = |names: &[&str]| {
        let found = given.iter().rev().find(|(key, _)| names.contains(key));
        found
            .map(|(_, value)| *value)
            .filter(|value| !value.is_empty())
    };
    let source = of(&["source", "src"]);
    let target = of(&["target", "destination", "dst"]).context("target is required")?;
    let mut mount = Mount {
        source: match (kind, source) {
            ("bind", Some(path)) => Source::Host {
                path: path.to_owned(),
                make: false,
                recursive: true,
            },
            ("bind", None) => bail!("source is required"),
            ("volume", name) => volume(name.unwrap_or_default())?,
            ("tmpfs", None) => Source::Tmpfs,
            ("tmpfs", Some(_)) => bail!("a tmpfs has no source"),
            _ => bail!("type {kind:?} is none of bind, volume, tmpfs"),
        },
        target: target_of(target)?,
        read_only: false,
        options: match kind {
            "tmpfs" => tmpfs_options("")?,
            _ => Vec::new(),
        },
    };
    for (key, value) in &given {
        field(&mut mount, key, value)?;
    }
    Ok(mount)
}

fn field(mount: &mut Mount, key: &str, value: &str) -> Result<()> {
    let yes = || match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => bail!("{key}={value}: true or false"),
    };
    match (key, &mut mount.source) {
        ("source" | "src" | "target" | "destination" | "dst" | "consistency", _) => {}
        ("readonly" | "ro", _) => mount.read_only = yes()?,
        ("bind-propagation", Source::Host { .. }) => propagate(mount, value)?,
        ("bind-nonrecursive", Source::Host { recursive, .. }) => *recursive = !yes()?,
        ("bind-recursive", Source::Host { recursive, .. }) => match value {
            "enabled" | "writable" | "readonly" => *recursive = true,
            "disabled" => *recursive = false,
            _ => bail!("{key}={value}: enabled, disabled, writable or readonly"),
        },
        ("volume-nocopy", Source::Volume { copy, .. }) => *copy = !yes()?,
        ("volume-driver", Source::Volume { .. }) => ensure!(
            ["", "local"].contains(&value),
            "{key}={value}: the only driver is local"
        ),
        ("volume-label", Source::Volume { labels, .. }) => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            labels.insert(name.to_owned(), value.to_owned());
        }
        ("tmpfs-size", Source::Tmpfs) => {
            let size = super::config::bytes(value).context("tmpfs-size")?;
            mount.options.push(format!("size={size}"));
        }
        ("tmpfs-mode", Source::Tmpfs) => {
            u32::from_str_radix(value, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .with_context(|| format!("{key}={value}: an octal number like 1777"))?;
            mount.options.retain(|option| !option.starts_with("mode="));
            mount.options.push(format!("mode={value}"));
        }
        _ => bail!("unknown key {key:?} for this type"),
    }
    Ok(())
}

/// What `--tmpfs` asks for: `/x[:OPTIONS]`, options of mount(8).
pub fn of_tmpfs(text: &str) -> Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let context = || format!("--tmpfs {text:?}");
    Ok(Mount {
        source: Source::Tmpfs,
        target: target_of(target).with_context(context)?,
        read_only: false,
        options: tmpfs_options(options).with_context(context)?,
    })
}

/// docker's, unless the opposite was typed.
fn tmpfs_options(typed: &str) -> Result<Vec<String>> {
    let typed: Vec<&str> = typed
        .split(',')
        .filter(|option| !option.is_empty())
        .collect();
    let mut options: Vec<String> = Vec::new();
    for (default, opposite) in [("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")] {
        if !typed.contains(&opposite) && !typed.contains(&default) {
            options.push(default.to_owned());
        }
    }
    if !typed.iter().any(|option| option.starts_with("mode=")) {
        options.push("mode=1777".to_owned());
    }
    for option in typed {
        let key = option.split('=').next().unwrap_or_default();
        ensure!(
            TMPFS.contains(&key),
            "unknown option {option:?}; known are {}",
            TMPFS.join(", ")
        );
        options.push(option.to_owned());
    }
    Ok(options)
}

const TMPFS: [&str; 22] = [
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "huge",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "atime",
    "noatime",
    "relatime",
    "strictatime",
    "norelatime",
];

fn volume(name: &str) -> Result<Source> {
    if !name.is_empty() {
        check_name(name)?;
    }
    Ok(Source::Volume {
        name: name.to_owned(),
        anonymous: name.is_empty(),
        copy: true,
        labels: BTreeMap::new(),
    })
}

/// docker's rule for names of volumes.
pub fn check_name(name: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    let good = name.len() > 1
        && name.len() < 256
        && name.bytes().all(fine)
        && name.as_bytes()[0].is_ascii_alphanumeric();
    ensure!(
        good,
        "{name:?} includes invalid characters for a volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed; a path of the \
         host begins with / or ."
    );
    Ok(())
}

/// A path of the container without `.` and `..`.
pub fn target_of(path: &str) -> Result<String> {
    ensure!(path.starts_with('/'), "{path:?} is not an absolute path");
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    ensure!(!parts.is_empty(), "destination can't be '/'");
    Ok(format!("/{}", parts.join("/")))
}

impl Mount {
    pub fn is_anonymous(&self) -> bool {
        matches!(
            self.source,
            Source::Volume {
                anonymous: true,
                ..
            }
        )
    }

    /// Does it get what the image has there?
    pub fn is_filled(&self) -> bool {
        matches!(self.source, Source::Volume { copy: true, .. })
    }

    /// The volume's name, if it is one.
    pub fn volume(&self) -> Option<&str> {
        match &self.source {
            Source::Volume { name, .. } => Some(name),
            _ => None,
        }
    }

    /// As config.json wants it; `source` is where the volume or the path of the host is.
    pub fn as_config(&self, source: &str) -> Value {
        let mut options: Vec<&str> = Vec::new();
        let mut kind = "bind";
        let has_propagation = || {
            self.options
                .iter()
                .any(|option| PROPAGATIONS.contains(&option.as_str()))
        };
        match &self.source {
            Source::Tmpfs => kind = "tmpfs",
            Source::Volume { .. } => options.extend(["rbind", "rprivate", "nosuid", "nodev"]),
            Source::Host { recursive, .. } => {
                options.push(if *recursive { "rbind" } else { "bind" });
                options.extend((!has_propagation()).then_some("rprivate"));
            }
        }
        options.extend(self.options.iter().map(String::as_str));
        match (self.read_only, kind) {
            (false, "tmpfs") => {}
            (false, _) => options.push("rw"),
            (true, "tmpfs") => options.push("ro"),
            // What is mounted below too.
            (true, _) => options.extend(["ro", "rro"]),
        }
        json!({ "destination": self.target, "type": kind, "source": source, "options": options })
    }
}

/// What a list of mounts may not hold: two at one place.
pub fn check_all(mounts: &[Mount]) -> Result<()> {
    for (at, mount) in mounts.iter().enumerate() {
        let twice = mounts[..at]
            .iter()
            .any(|other| other.target == mount.target);
        ensure!(!twice, "Duplicate mount point: {}", mount.target);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &str) -> Source {
        Source::Host {
            path: path.into(),
            make: true,
            recursive: true,
        }
    }

    fn shown(mount: &Mount) -> String {
        let config = mount.as_config("S");
        let options = config["options"].as_array().unwrap();
        let options: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
        format!(
            "{} {} {}",
            config["type"].as_str().unwrap(),
            config["destination"].as_str().unwrap(),
            options.join(",")
        )
    }

    #[test]
    fn a_volume_is_a_path_a_name_or_nothing() {
        for (text, expected) in [
            ("/a:/b", Some("bind /b rbind,rprivate,rw")),
            ("/a:/b:ro", Some("bind /b rbind,rprivate,ro,rro")),
            ("./a:/b:rslave", Some("bind /b rbind,rslave,rw")),
            ("/a:/b:bind,ro", Some("bind /b bind,rprivate,ro,rro")),
            (
                "data:/b/../c/",
                Some("bind /c rbind,rprivate,nosuid,nodev,rw"),
            ),
            ("/b", Some("bind /b rbind,rprivate,nosuid,nodev,rw")),
            ("a:/b", None),
            ("/a:b", None),
            ("/a:/", None),
            ("/a:/..", None),
            (":/b", None),
            ("/a:/b:x", None),
            ("/a:/b:nocopy", None),
            ("data:/b:shared", None),
            ("/a:/b:ro:rw", None),
            ("../up:/b", Some("bind /b rbind,rprivate,rw")),
        ] {
            let parsed = of_volume(text).ok().map(|(mount, _)| shown(&mount));
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
        assert_eq!(of_volume("/a:/b").unwrap().0.source, host("/a"));
        assert!(of_volume("/a:/b:z").unwrap().1.is_some());
        assert!(of_volume("/b").unwrap().0.is_anonymous());
    }

    #[test]
    fn a_mount_is_typed_in_fields() {
        for (text, expected) in [
            ("type=bind,src=/a,dst=/b", Ok("bind /b rbind,rprivate,rw")),
            (
                "type=bind,source=/a,target=/b,readonly,bind-propagation=shared",
                Ok("bind /b rbind,shared,ro,rro"),
            ),
            (
                "type=bind,source=/a,target=/b,bind-recursive=disabled",
                Ok("bind /b bind,rprivate,rw"),
            ),
            (
                "src=data,target=/b,volume-nocopy",
                Ok("bind /b rbind,rprivate,nosuid,nodev,rw"),
            ),
            (
                "type=tmpfs,target=/b,tmpfs-size=1m,tmpfs-mode=700",
                Ok("tmpfs /b nosuid,nodev,noexec,size=1048576,mode=700"),
            ),
            ("type=bind,target=/b", Err("source is required")),
            ("type=volume", Err("target is required")),
            (
                "type=x,target=/b",
                Err("type \"x\" is none of bind, volume, tmpfs"),
            ),
            (
                "type=tmpfs,target=/b,bind-propagation=shared",
                Err("unknown key \"bind-propagation\" for this type"),
            ),
            ("target=/b,ro=perhaps", Err("ro=perhaps: true or false")),
        ] {
            let parsed = read_mount(text)
                .map(|mount| shown(&mount))
                .map_err(|e| e.to_string());
            assert_eq!(
                parsed,
                expected.map(str::to_owned).map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn a_tmpfs_is_dockers_unless_the_opposite_is_typed() {
        for (text, expected) in [
            ("/b", Some("tmpfs /b nosuid,nodev,noexec,mode=1777")),
            (
                "/b:exec,size=64m,mode=700",
                Some("tmpfs /b nosuid,nodev,exec,size=64m,mode=700"),
            ),
            ("/b:upperdir=/x", None),
            ("b", None),
        ] {
            assert_eq!(
                of_tmpfs(text).ok().map(|mount| shown(&mount)).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn two_mounts_at_one_place_are_refused() {
        let mount = |text| of_tmpfs(text).unwrap();
        assert!(check_all(&[mount("/a"), mount("/a/b")]).is_ok());
        let refused = check_all(&[mount("/a"), mount("/a/./")]).unwrap_err();
        assert_eq!(refused.to_string(), "Duplicate mount point: /a");
    }
}
