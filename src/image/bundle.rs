//! How does an image's config become a config.json? image-spec conversion.md, and for all that an image
//! does not say, the choices of podman and docker, the tighter one where they differ.
//!
//! Pure: what is read of the rootfs (passwd, group) and of the user (id maps) comes in [`Ask`].

use super::config::ImageConfig;
use super::layer;
use super::seccomp;
use crate::users::{self, User};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the image does not say.
#[derive(Debug, Default)]
pub struct Ask {
    pub passwd: String,
    pub group: String,
    /// Without root: ids of the container, of the user namespace it is in now, and how many.
    pub uid_map: Vec<(u32, u32, u32)>,
    pub gid_map: Vec<(u32, u32, u32)>,
    pub terminal: bool,
    /// The caller mounts the image's volumes; else each is a tmpfs.
    pub without_volumes: bool,
    /// More groups of the user, by name or number.
    pub groups: Vec<String>,
    /// What is added to and taken from the capabilities afterwards: the seccomp profile goes by them.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
}

/// A config.json, what was left out of it and why, and the directory that the process starts in.
#[derive(Debug)]
pub struct Made {
    pub config: Value,
    pub warnings: Vec<String>,
    pub cwd: String,
    /// Where the image wants volumes.
    pub volumes: Vec<String>,
}

/// podman's: docker's less MKNOD, NET_RAW and AUDIT_WRITE. ping works through the sysctl below.
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Annotations that runtimes and managers act on: not an image's to set (CVE-2026-53488).
const ACTED_ON: [&str; 5] = [
    "run.oci.",
    "org.criu",
    "io.sc.",
    "org.systemd.property.",
    "io.kubernetes.",
];

pub fn make(image: &ImageConfig, ask: &Ask) -> Result<Made> {
    let mut warnings = Vec::new();
    let wish = &image.config;
    let mut user = users::resolve(&wish.user, &ask.passwd, &ask.group)
        .with_context(|| format!("User {:?}", wish.user))?;
    for group in &ask.groups {
        let gid = users::gid(group, &ask.group).with_context(|| format!("--group-add {group}"))?;
        user.additional_gids.push(gid);
    }
    let args: Vec<&String> = wish.entrypoint.iter().chain(&wish.cmd).collect();
    ensure!(
        !args.is_empty(),
        "no command: the image has neither Entrypoint nor Cmd"
    );
    let cwd = absolute(&wish.working_dir).context("WorkingDir")?;
    let volumes = wish.volumes.keys().map(|volume| {
        let at = absolute(volume).with_context(|| format!("Volumes {volume:?}"))?;
        ensure!(at != "/", "Volumes {volume:?}: is the root");
        Ok(at)
    });
    let mut volumes = volumes.collect::<Result<Vec<String>>>()?;
    let all_volumes = volumes.clone();
    if ask.without_volumes {
        volumes.clear();
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": ask.terminal,
            "user": {
                "uid": user.uid,
                "gid": user.gid,
                "umask": 0o022,
                "additionalGids": additional_gids(&user, ask, &mut warnings),
            },
            "args": args,
            "env": environment(&wish.env, &user, ask.terminal),
            "cwd": cwd,
            "capabilities": capabilities(&user),
            // As docker's: su and sudo of an image work, and limits are the caller's.
            "noNewPrivileges": false,
        },
        "root": { "path": "rootfs" },
        "hostname": "container",
        "mounts": mounts(volumes, ask),
        "annotations": annotations(image, &mut warnings),
        "linux": {
            "namespaces": namespaces(ask),
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
            "seccomp": seccomp::profile(&reckoned_with(ask)),
            "sysctl": { "net.ipv4.ping_group_range": "0 0" },
            "resources": resources(ask),
        },
    });
    if !ask.uid_map.is_empty() {
        config["linux"]["uidMappings"] = maps(&ask.uid_map);
        config["linux"]["gidMappings"] = maps(&ask.gid_map);
    }
    Ok(Made {
        config,
        warnings,
        cwd,
        volumes: all_volumes,
    })
}

/// A path of the container from its root; what is relative or leads out of it is refused.
fn absolute(path: &str) -> Result<String> {
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    ensure!(path.starts_with('/'), "{path:?} is not absolute");
    let inside = layer::inside(path.as_bytes()).with_context(|| format!("{path:?}"))?;
    Ok(format!("/{}", String::from_utf8(inside)?))
}

/// The image's, and what every program expects. An entry without `=` says nothing.
fn environment(image: &[String], user: &User, terminal: bool) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let named = |env: &[String], name: &str| {
        env.iter()
            .any(|entry| entry.split('=').next() == Some(name))
    };
    for entry in image
        .iter()
        .filter(|entry| entry.contains('=') && !entry.starts_with('='))
    {
        let name = entry.split('=').next().unwrap_or_default();
        // The last one counts.
        env.retain(|other| other.split('=').next() != Some(name));
        env.push(entry.clone());
    }
    if !named(&env, "PATH") {
        env.insert(0, PATH.to_owned());
    }
    if !named(&env, "HOME") {
        env.push(format!("HOME={}", user.home.as_deref().unwrap_or("/")));
    }
    if terminal && !named(&env, "TERM") {
        env.push("TERM=xterm".to_owned());
    }
    env
}

/// Those that exist in the user namespace.
fn additional_gids(user: &User, ask: &Ask, warnings: &mut Vec<String>) -> Vec<u32> {
    let mapped = |gid: u32| {
        ask.gid_map.is_empty()
            || ask
                .gid_map
                .iter()
                .any(|(first, _, count)| gid.checked_sub(*first).is_some_and(|over| over < *count))
    };
    let (there, not): (Vec<u32>, Vec<u32>) =
        user.additional_gids.iter().partition(|gid| mapped(**gid));
    if !not.is_empty() {
        warnings.push(format!(
            "groups {not:?} of the image's user are not mapped and are left out"
        ));
    }
    // A single mapping forbids setgroups(2).
    if ask.gid_map.iter().map(|(.., count)| count).sum::<u32>() == 1 {
        return Vec::new();
    }
    there
}

/// The capabilities that calls are allowed for.
fn reckoned_with(ask: &Ask) -> Vec<&'static str> {
    let full = |typed: &String| {
        let upper = typed.to_ascii_uppercase();
        match upper.strip_prefix("CAP_") {
            Some(_) => upper,
            None => format!("CAP_{upper}"),
        }
    };
    let dropped: Vec<String> = ask.cap_drop.iter().map(full).collect();
    let added: Vec<String> = ask.cap_add.iter().map(full).collect();
    let has = |list: &[String], cap: &str| list.iter().any(|one| one == cap || one == "CAP_ALL");
    let mut caps: Vec<&str> = CAPABILITIES
        .into_iter()
        .filter(|cap| !has(&dropped, cap))
        .collect();
    caps.extend(seccomp::conditional().filter(|cap| has(&added, cap)));
    caps
}

/// Inheritable and ambient are empty (CVE-2022-24769); who is not root has none but what a
/// set-user-id program may regain.
fn capabilities(user: &User) -> Value {
    let mut sets = json!({ "bounding": CAPABILITIES });
    if user.uid == 0 {
        sets["effective"] = json!(CAPABILITIES);
        sets["permitted"] = json!(CAPABILITIES);
    }
    sets
}

fn mounts(volumes: Vec<String>, ask: &Ask) -> Vec<Value> {
    let has_tty_group = ask.gid_map.is_empty()
        || ask
            .gid_map
            .iter()
            .any(|(first, _, count)| (*first..first.saturating_add(*count)).contains(&5));
    let mut pts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    pts.extend(has_tty_group.then_some("gid=5"));
    let mount = |kind: &str, at: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount("devpts", "/dev/pts", &pts),
        mount(
            "tmpfs",
            "/dev/shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ];
    for at in volumes {
        // What the image has there is copied; it is gone with the container.
        mounts.push(mount(
            "tmpfs",
            &at,
            &["nosuid", "nodev", "mode=0755", "tmpcopyup"],
        ));
    }
    mounts
}

/// image-spec conversion.md: labels win over what is made of other fields.
fn annotations(image: &ImageConfig, warnings: &mut Vec<String>) -> BTreeMap<String, String> {
    let wish = &image.config;
    let ports = wish
        .exposed_ports
        .keys()
        .cloned()
        .collect::<Vec<_>>()
        .join(",");
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    let features = image.os_features.clone().unwrap_or_default().join(",");
    let mut annotations = BTreeMap::new();
    for (key, value) in [
        ("os", image.os.clone()),
        ("architecture", image.architecture.clone()),
        ("variant", text(&image.variant)),
        ("os.version", text(&image.os_version)),
        ("os.features", features),
        ("author", text(&image.author)),
        ("created", text(&image.created)),
        ("stopSignal", wish.stop_signal.clone()),
        ("exposedPorts", ports),
    ] {
        if !value.is_empty() {
            annotations.insert(format!("org.opencontainers.image.{key}"), value);
        }
    }
    for (key, value) in &wish.labels {
        if ACTED_ON.iter().any(|prefix| key.starts_with(prefix)) {
            warnings.push(format!(
                "label {key:?} is left out: programs act on annotations of that name"
            ));
        } else if !key.is_empty() {
            annotations.insert(key.clone(), value.clone());
        }
    }
    annotations
}

fn namespaces(ask: &Ask) -> Vec<Value> {
    let mut kinds = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
    kinds.extend((!ask.uid_map.is_empty()).then_some("user"));
    kinds.iter().map(|kind| json!({ "type": kind })).collect()
}

/// Devices need a cgroup, which a user alone may not have. No limits: which controllers there are, an
/// image does not know.
fn resources(ask: &Ask) -> Value {
    let mut resources = Map::new();
    if ask.uid_map.is_empty() {
        resources.insert(
            "devices".into(),
            json!([{ "allow": false, "access": "rwm" }]),
        );
    }
    Value::Object(resources)
}

fn maps(maps: &[(u32, u32, u32)]) -> Value {
    let one = |(container, host, size): &(u32, u32, u32)| json!({ "containerID": container, "hostID": host, "size": size });
    maps.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
