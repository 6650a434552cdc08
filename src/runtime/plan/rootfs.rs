//! Which tree will the container see?
//!
//! `root`, the devices and links that every container has (runtime-spec
//! config-linux.md#default-devices, #dev-symbolic-links), and the paths that are hidden from it.
//! runc also links /dev/core to /proc/kcore where the host has one. To know that would cost each
//! create a system call, for a file that is masked by default: it is left out.

use super::paths::{clean, clean_all};
use super::{Ask, Device, Mount, MountKind, RootfsPlan, namespaces};
use anyhow::{Result, anyhow, bail, ensure};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, Root};
use std::path::Path;

/// (name in /dev, major, minor): character devices.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// The tree, with `mounts` in it.
pub fn draw(root: &Root, linux: &Linux, mounts: Vec<Mount>, ask: &Ask) -> Result<RootfsPlan> {
    let (initial_propagation, final_propagation) =
        propagation(linux.rootfs_propagation().as_deref(), ask.no_pivot)?;
    // runc: the host's /dev is taken as it is.
    let skip_dev = mounts
        .iter()
        .any(|m| m.destination == Path::new("/dev") && matches!(m.kind, MountKind::Bind { .. }));
    Ok(RootfsPlan {
        path: clean(&ask.bundle.join(root.path())),
        readonly: root.readonly().unwrap_or(false),
        initial_propagation,
        final_propagation,
        skip_dev,
        devices: match skip_dev {
            true => Vec::new(),
            false => devices(linux.devices().as_deref().unwrap_or_default())?,
        },
        symlinks: match skip_dev {
            true => Vec::new(),
            false => LINKS.map(|(link, to)| (link.into(), to.into())).to_vec(),
        },
        mounts,
        readonly_paths: clean_all(linux.readonly_paths().as_deref().unwrap_or_default()),
        masked_paths: clean_all(linux.masked_paths().as_deref().unwrap_or_default()),
        mount_label: linux.mount_label().clone().filter(|l| !l.is_empty()),
        no_pivot: ask.no_pivot,
        shares_mount_namespace: !namespaces::has_mount_namespace(linux),
    })
}

/// Of the host's tree at first, and of the container's `/` at the end.
///
/// At first it is set on all mounts, even where linux.rootfsPropagation names one alone: else what
/// is mounted for the container reaches the host wherever a mount below `/` is shared. Unbindable
/// comes only at the end: the rootfs must still be bound.
fn propagation(asked: Option<&str>, no_pivot: bool) -> Result<(u64, Option<u64>)> {
    use libc::{MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
    let Some(word) = asked.filter(|word| !word.is_empty()) else {
        return Ok((MS_SLAVE | MS_REC, None));
    };
    let (all, kind) = match word.strip_prefix('r') {
        Some(kind) => (MS_REC, kind),
        None => (0, word),
    };
    let (initial, kind) = match kind {
        "shared" => (MS_SHARED | all, MS_SHARED),
        "slave" => (MS_SLAVE | MS_REC, MS_SLAVE),
        "private" => (MS_PRIVATE | MS_REC, MS_PRIVATE),
        "unbindable" => (MS_PRIVATE | MS_REC, MS_UNBINDABLE),
        _ => bail!(
            "linux.rootfsPropagation: {word:?} is not one of shared, slave, private, unbindable \
             (or with an r before it, for the whole tree)"
        ),
    };
    ensure!(
        !(no_pivot && kind == MS_PRIVATE),
        "linux.rootfsPropagation: {word:?} is not safe with --no-pivot: the host's mounts would \
         stay, where the container could reach them"
    );
    Ok((initial, Some(kind | all)))
}

/// The default ones, but for those that config.json has itself; then config.json's.
fn devices(asked: &[LinuxDevice]) -> Result<Vec<Device>> {
    let mut own = Vec::with_capacity(asked.len());
    for (i, device) in asked.iter().enumerate() {
        let device = one(format!("linux.devices[{i}]"), device)?;
        // Always the link to the container's own devpts, as in runc: of the host's there is a
        // config.json of every privileged container.
        if device.path != Path::new("/dev/ptmx") {
            own.push(device);
        }
    }
    let mut all: Vec<Device> = DEVICES
        .iter()
        .map(|(name, major, minor)| Device {
            field: "default device".to_owned(),
            path: Path::new("/dev").join(name),
            kind: libc::S_IFCHR,
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .filter(|default| own.iter().all(|d| d.path != default.path))
        .collect();
    all.append(&mut own);
    Ok(all)
}

fn one(field: String, asked: &LinuxDevice) -> Result<Device> {
    let kind = match asked.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            bail!("{field}.type: \"a\" is for rules only; a device is of type c, b, u or p")
        }
    };
    let number = |name: &str, value: i64| match kind {
        libc::S_IFIFO => Ok(0),
        _ => u32::try_from(value)
            .map_err(|_| anyhow!("{field}.{name}: {value} is not the number of a device")),
    };
    let (major, minor) = (
        number("major", asked.major())?,
        number("minor", asked.minor())?,
    );
    Ok(Device {
        path: clean(asked.path()),
        kind,
        major,
        minor,
        // Engines copy st_mode, with the type in it.
        mode: asked.file_mode().unwrap_or(0o666) & 0o7777,
        uid: asked.uid().unwrap_or(0),
        gid: asked.gid().unwrap_or(0),
        field,
    })
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::ask;
    use super::*;
    use serde_json::{Value, json};
    use std::path::PathBuf;

    fn plan(linux: Value, mounts: Vec<Mount>) -> Result<RootfsPlan> {
        let linux: Linux = serde_json::from_value(linux)?;
        let root: Root = serde_json::from_value(json!({"path": "rootfs"}))?;
        draw(&root, &linux, mounts, &ask())
    }

    #[test]
    fn the_path_is_relative_to_the_bundle() {
        for (path, expected) in [
            ("rootfs", "/bundle/rootfs"),
            ("./x/../rootfs/", "/bundle/rootfs"),
            ("../other", "/other"),
            ("/abs/./rootfs", "/abs/rootfs"),
        ] {
            for readonly in [true, false] {
                let asked = json!({"path": path, "readonly": readonly});
                let root: Root = serde_json::from_value(asked).unwrap();
                let plan = draw(&root, &Linux::default(), vec![], &ask()).unwrap();
                assert_eq!(
                    (plan.path.as_path(), plan.readonly),
                    (Path::new(expected), readonly)
                );
            }
        }
    }

    #[test]
    fn propagation_never_reaches_the_host_unasked() {
        let (private, slave, shared, unbindable) = (1 << 18, 1 << 19, 1 << 20, 1 << 17);
        let rec = 1 << 14;
        for (word, initial, last) in [
            (None, slave | rec, None),
            (Some(""), slave | rec, None),
            (Some("slave"), slave | rec, Some(slave)),
            (Some("rslave"), slave | rec, Some(slave | rec)),
            (Some("private"), private | rec, Some(private)),
            (Some("rprivate"), private | rec, Some(private | rec)),
            (Some("shared"), shared, Some(shared)),
            (Some("rshared"), shared | rec, Some(shared | rec)),
            (Some("unbindable"), private | rec, Some(unbindable)),
            (Some("runbindable"), private | rec, Some(unbindable | rec)),
        ] {
            assert_eq!(
                propagation(word, false).unwrap(),
                (initial, last),
                "{word:?}"
            );
        }
        for (word, no_pivot, message) in [
            (
                "sideways",
                false,
                "linux.rootfsPropagation: \"sideways\" is not one of shared, slave, private, \
                 unbindable (or with an r before it, for the whole tree)",
            ),
            (
                "rprivate",
                true,
                "linux.rootfsPropagation: \"rprivate\" is not safe with --no-pivot: the host's \
                 mounts would stay, where the container could reach them",
            ),
        ] {
            let error = propagation(Some(word), no_pivot).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    /// `path kind major:minor mode uid:gid field`
    fn lines(devices: &[Device]) -> Vec<String> {
        let line = |d: &Device| {
            let (path, kind) = (d.path.display(), d.kind);
            let (major, minor, mode) = (d.major, d.minor, d.mode);
            let (uid, gid, field) = (d.uid, d.gid, &d.field);
            format!("{path} {kind:o} {major}:{minor} {mode:o} {uid}:{gid} {field}")
        };
        devices.iter().map(line).collect()
    }

    #[test]
    fn a_device_of_config_json_replaces_the_default_of_its_path() {
        let asked = json!([
            {"path": "/dev/./tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o20640, "uid": 1, "gid": 2},
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
            {"path": "/dev/loop", "type": "b", "major": 7, "minor": 1},
            {"path": "/dev/raw", "type": "u", "major": 1, "minor": 3},
            {"path": "/dev/pipe", "type": "p", "major": -1, "minor": 9},
        ]);
        assert_eq!(
            lines(&plan(json!({ "devices": asked }), vec![]).unwrap().devices),
            [
                "/dev/null 20000 1:3 666 0:0 default device",
                "/dev/zero 20000 1:5 666 0:0 default device",
                "/dev/full 20000 1:7 666 0:0 default device",
                "/dev/random 20000 1:8 666 0:0 default device",
                "/dev/urandom 20000 1:9 666 0:0 default device",
                "/dev/tty 20000 5:0 640 1:2 linux.devices[0]",
                "/dev/loop 60000 7:1 666 0:0 linux.devices[2]",
                "/dev/raw 20000 1:3 666 0:0 linux.devices[3]",
                "/dev/pipe 10000 0:0 666 0:0 linux.devices[4]",
            ]
        );
    }

    #[test]
    fn a_device_that_cannot_be_is_named() {
        for (device, message) in [
            (
                json!({"path": "/dev/x", "type": "a"}),
                "linux.devices[0].type: \"a\" is for rules only; a device is of type c, b, u or p",
            ),
            (
                json!({"path": "/dev/x", "type": "c", "major": -1}),
                "linux.devices[0].major: -1 is not the number of a device",
            ),
            (
                json!({"path": "/dev/x", "type": "b", "minor": 1_i64 << 32}),
                "linux.devices[0].minor: 4294967296 is not the number of a device",
            ),
        ] {
            let error = plan(json!({ "devices": [device] }), vec![]).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn nothing_is_made_in_a_dev_of_the_host() {
        let dev = |kind| Mount {
            field: "mounts[0]".to_owned(),
            destination: "/dev".into(),
            kind,
            attr: Default::default(),
            recursive_attr: Default::default(),
            propagation: vec![],
        };
        let bind = MountKind::Bind {
            source: "/dev".into(),
            recursive: true,
            id_map: None,
        };
        let plan = |kind| plan(json!({}), vec![dev(kind)]).unwrap();
        let bound = plan(bind);
        assert_eq!(
            (bound.skip_dev, bound.devices, bound.symlinks),
            (true, vec![], vec![])
        );
        let own = plan(MountKind::Remount { options: vec![] });
        assert_eq!(
            (own.skip_dev, own.devices.len(), own.symlinks.len()),
            (false, 6, 5)
        );
    }

    #[test]
    fn paths_are_hidden_once_and_namespaces_decide_the_way_in() {
        let tree = plan(
            json!({"maskedPaths": ["/a", "/b/../a", "/c"], "readonlyPaths": ["/x/"], "namespaces": [{"type": "mount"}]}),
            vec![],
        )
        .unwrap();
        assert_eq!(
            tree.masked_paths,
            [PathBuf::from("/a"), PathBuf::from("/c")]
        );
        assert_eq!(tree.readonly_paths, [PathBuf::from("/x")]);
        assert!(!tree.shares_mount_namespace);
        assert!(plan(json!({}), vec![]).unwrap().shares_mount_namespace);
    }
}
