//! A bundle to try: the default config.json, changed by a line or two, and a root file system.

use super::machine::{ANN, Need, RANGE, machine};
use super::{Place, Result, Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub const SYS_RESOURCE: Need = Need::Capability(24, "CAP_SYS_RESOURCE");

#[derive(Clone)]
pub struct Bundle {
    pub dir: PathBuf,
    pub config: Value,
    /// Written instead of `config`, where the text itself is the matter.
    pub text: Option<String>,
}

impl Bundle {
    pub fn new(dir: &Path) -> Result<Bundle> {
        let rootfs = dir.join("rootfs");
        fs::create_dir(dir)?;
        fs::create_dir(&rootfs)?;
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            fs::create_dir(rootfs.join(name))?;
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::hard_link(machine().base.join("busybox"), rootfs.join("bin/busybox"))?;
        fs::hard_link(machine().base.join("probe"), rootfs.join("probe"))?;
        for entry in fs::read_dir(machine().base.join("bin"))? {
            symlink("busybox", rootfs.join("bin").join(entry?.file_name()))?;
        }
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n",
        )?;
        fs::write(rootfs.join("etc/group"), "root:x:0:\nann:x:1000:\n")?;
        Ok(Bundle {
            dir: dir.to_path_buf(),
            config: default_config(),
            text: None,
        })
    }

    /// Another config for a bundle that `new` has made.
    pub fn with_rootfs_made(dir: &Path) -> Bundle {
        Bundle {
            dir: dir.to_path_buf(),
            config: default_config(),
            text: None,
        }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub fn inside(&self, path: &str) -> PathBuf {
        self.rootfs().join(path.trim_start_matches('/'))
    }

    /// Sets the value at a JSON pointer, making the objects on the way.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Bundle {
        *at(&mut self.config, pointer) = value.into();
        self
    }

    pub fn push(mut self, pointer: &str, value: impl Into<Value>) -> Bundle {
        let list = at(&mut self.config, pointer);
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().expect("a list").push(value.into());
        self
    }

    pub fn remove(mut self, pointer: &str) -> Bundle {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        at(&mut self.config, parent)
            .as_object_mut()
            .expect("an object")
            .remove(key);
        self
    }

    /// Changes whatever `edit` wants.
    pub fn edit(mut self, edit: impl FnOnce(&mut Value)) -> Bundle {
        edit(&mut self.config);
        self
    }

    pub fn args(self, args: &[&str]) -> Bundle {
        self.set("/process/args", json!(args))
    }

    pub fn sh(self, script: &str) -> Bundle {
        self.args(&["sh", "-c", script])
    }

    pub fn env(self, entry: &str) -> Bundle {
        self.push("/process/env", entry)
    }

    pub fn mount(self, mount: Value) -> Bundle {
        self.push("/mounts", mount)
    }

    pub fn bind(self, source: &Path, destination: &str, options: &[&str]) -> Bundle {
        self.mount(json!({ "destination": destination, "source": source, "type": "bind", "options": options }))
    }

    /// These capabilities in the sets that make them work for root.
    pub fn caps(self, names: &[&str]) -> Bundle {
        let mut bundle = self;
        for set in ["bounding", "effective", "permitted"] {
            bundle = bundle.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        bundle
    }

    pub fn without_namespace(mut self, kind: &str) -> Bundle {
        at(&mut self.config, "/linux/namespaces")
            .as_array_mut()
            .expect("a list")
            .retain(|ns| ns["type"] != kind);
        self
    }

    pub fn namespace(self, kind: &str) -> Bundle {
        self.without_namespace(kind)
            .push("/linux/namespaces", json!({ "type": kind }))
    }

    pub fn join(self, kind: &str, path: &Path) -> Bundle {
        self.without_namespace(kind)
            .push("/linux/namespaces", json!({ "type": kind, "path": path }))
    }

    /// For an ordinary user without any help: her own id is 0, all else is not there; the network is
    /// the host's, and so /sys; no cgroup is named.
    pub fn rootless(self) -> Result<Bundle> {
        for path in walk(&self.dir)? {
            if !path.symlink_metadata()?.file_type().is_file() {
                std::os::unix::fs::lchown(&path, Some(ANN), Some(ANN))?;
            }
        }
        let map = json!([{ "containerID": 0, "hostID": ANN, "size": 1 }]);
        let sys = json!({ "destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        let bundle = self
            .without_namespace("network")
            .namespace("user")
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
            .set("/linux/cgroupsPath", Value::Null)
            .remove("/linux/resources");
        Ok(bundle.edit(|config| {
            for mount in config["mounts"].as_array_mut().expect("a list") {
                match mount["destination"].as_str() {
                    Some("/sys") => *mount = sys.clone(),
                    Some("/dev/pts") => {
                        let options = mount["options"].as_array_mut().expect("a list");
                        options.retain(|option| option != "gid=5");
                    }
                    _ => {}
                }
            }
        }))
    }

    /// [`rootless`](Bundle::rootless), with ids from 1 on by newuidmap(1) and newgidmap(1).
    pub fn with_range(self) -> Result<Bundle> {
        let more = json!({ "containerID": 1, "hostID": RANGE, "size": 65536 });
        Ok(self
            .rootless()?
            .push("/linux/uidMappings", more.clone())
            .push("/linux/gidMappings", more))
    }

    /// Container ids 0.. are host ids 100000.., and the rootfs is theirs.
    pub fn user_namespace(self) -> Result<Bundle> {
        for path in walk(&self.rootfs())? {
            if path.symlink_metadata()?.file_type().is_file() {
                continue; // hard links of files that all tests share, and readable by all
            }
            std::os::unix::fs::lchown(&path, Some(100_000), Some(100_000))?;
        }
        let map = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
        Ok(self
            .namespace("user")
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map))
    }

    pub fn hook(self, kind: &str, name: &str, file: &Path, status: i32) -> Bundle {
        let program = machine().base.join("probe");
        let args = json!(["probe", "hook", name, file, status.to_string()]);
        self.push(
            &format!("/hooks/{kind}"),
            json!({ "path": program, "args": args, "env": [format!("HOOK={name}")] }),
        )
    }

    pub fn raw(mut self, text: &str) -> Bundle {
        self.text = Some(text.to_string());
        self
    }

    /// Writes config.json for the container `id`, with a cgroup in the test's own place unless the
    /// test chose one (a cgroupsPath of null: none).
    pub fn write(&self, place: &Place, id: &str) -> Result<()> {
        let mut config = self.config.clone();
        if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
            match linux.get("cgroupsPath") {
                None => drop(linux.insert(
                    "cgroupsPath".into(),
                    format!("{}/{id}", place.cgroup).into(),
                )),
                Some(Value::Null) => drop(linux.remove("cgroupsPath")),
                Some(_) => {}
            }
        }
        // crun 1.8 raises RLIMIT_MEMLOCK before it loads a device program, and fails where it may not.
        if machine().is("crun") && machine().lacks(SYS_RESOURCE).is_some() {
            config
                .pointer_mut("/linux/resources")
                .and_then(Value::as_object_mut)
                .map(|r| r.remove("devices"));
        }
        let text = self.text.clone().unwrap_or_else(|| format!("{config:#}\n"));
        Ok(fs::write(self.dir.join("config.json"), text)?)
    }
}

fn walk(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![top.to_path_buf()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        if dir.symlink_metadata()?.is_dir() {
            for entry in fs::read_dir(dir)? {
                found.push(entry?.path());
            }
        }
        next += 1;
    }
    Ok(found)
}

/// The value at a pointer; what is missing on the way becomes an object.
fn at<'v>(value: &'v mut Value, pointer: &str) -> &'v mut Value {
    let mut here = value;
    for key in pointer.split('/').skip(1) {
        here = match key.parse::<usize>() {
            Ok(index) if here.is_array() => &mut here[index],
            _ => &mut here[key],
        };
    }
    here
}

/// runc's `spec`, but for a writable rootfs, no terminal, and a cgroup namespace.
fn default_config() -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
