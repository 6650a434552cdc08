//! Options that say what a container's processes may do.

use super::limits::{allow, check_access, device_rule};
use crate::engine::config::{add_mount, strings};
use crate::engine::seccomp;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::stat::{SFlag, major, minor, stat};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

#[derive(Debug, Default, Args)]
pub struct Security {
    /// One more capability, or ALL
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// One capability less, or ALL
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// All capabilities and devices, no seccomp, nothing of /proc hidden
    #[arg(long)]
    privileged: bool,
    /// seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, no-new-privileges[=false], label=disable,
    /// systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// A device of the host, or all in a directory of /dev
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]")]
    device: Vec<String>,
    /// A rule more of the devices cgroup, like 'c 1:3 rwm'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// A setting of the container's own part of the kernel
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
}

impl Security {
    /// Reads what is named: devices and a seccomp profile.
    pub fn apply(&self, config: &mut Value) -> Result<()> {
        // More than sc itself may have it cannot give.
        let own = caps::read(None, caps::CapSet::Bounding).context("capabilities")?;
        let all = caps::runtime::thread_all_supported();
        let has = |cap: &&caps::Capability| has_user_namespace(config) || own.contains(*cap);
        let mut all: Vec<String> = all.iter().filter(has).map(ToString::to_string).collect();
        all.sort();
        match self.privileged {
            true => unconfine(config, &all),
            false => self.capabilities(config, &all)?,
        }
        for option in &self.security_opt {
            security_opt(config, option).with_context(|| format!("--security-opt {option:?}"))?;
        }
        for typed in &self.sysctl {
            let (name, value) = typed
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .with_context(|| format!("--sysctl {typed:?}: write NAME=VALUE"))?;
            config["linux"]["sysctl"][name] = json!(value);
        }
        for typed in &self.device {
            device(config, typed).with_context(|| format!("--device {typed:?}"))?;
        }
        for typed in &self.device_cgroup_rule {
            ensure!(
                geteuid().is_root(),
                "--device-cgroup-rule: without root there is no cgroup for devices, only the permissions of their files"
            );
            let rule =
                device_rule(typed).with_context(|| format!("--device-cgroup-rule {typed:?}"))?;
            allow(config, rule);
        }
        Ok(())
    }

    /// First what is dropped, then what is added, as docker: `--cap-drop ALL --cap-add CHOWN`.
    fn capabilities(&self, config: &mut Value, all: &[String]) -> Result<()> {
        let name = |option: &str, typed: &String| -> Result<String> {
            let upper = typed.to_ascii_uppercase();
            let full = match upper.starts_with("CAP_") || upper == "ALL" {
                true => upper,
                false => format!("CAP_{upper}"),
            };
            let known = full == "ALL" || all.contains(&full);
            ensure!(
                known,
                "{option} {typed}: no capability of this kernel, or one that sc itself may not have"
            );
            Ok(full)
        };
        const SETS: [&str; 5] = [
            "bounding",
            "effective",
            "permitted",
            "inheritable",
            "ambient",
        ];
        for typed in &self.cap_drop {
            let dropped = name("--cap-drop", typed)?;
            for set in SETS {
                let mut caps = strings(&config["process"]["capabilities"][set]);
                caps.retain(|cap| dropped != "ALL" && *cap != dropped);
                config["process"]["capabilities"][set] = json!(caps);
            }
        }
        for typed in &self.cap_add {
            let added = name("--cap-add", typed)?;
            // Who is not root has what was asked for by name only if all five sets have it.
            let sets: &[&str] = match config["process"]["user"]["uid"].as_u64() {
                Some(0) | None => &SETS[..3],
                Some(_) => &SETS,
            };
            for set in sets {
                let mut caps = strings(&config["process"]["capabilities"][*set]);
                let new = match added.as_str() {
                    "ALL" => all.to_vec(),
                    _ => vec![added.clone()],
                };
                let new: Vec<String> = new.into_iter().filter(|cap| !caps.contains(cap)).collect();
                caps.extend(new);
                config["process"]["capabilities"][*set] = json!(caps);
            }
        }
        Ok(())
    }
}

/// `--privileged`: all capabilities, all devices, nothing hidden or filtered.
fn unconfine(config: &mut Value, all_caps: &[String]) {
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(all_caps);
    }
    config["process"]["noNewPrivileges"] = json!(false);
    remove(config, &["seccomp", "maskedPaths", "readonlyPaths"]);
    if !geteuid().is_root() {
        // Devices of the host are not an ordinary user's to give.
        remove_device_rules(config);
    } else {
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    }
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if ["sysfs", "cgroup"].contains(&mount["type"].as_str().unwrap_or_default()) {
            let options = strings(&mount["options"]);
            mount["options"] = options
                .into_iter()
                .filter(|option| option != "ro")
                .collect();
        }
    }
}

fn remove_device_rules(config: &mut Value) {
    if let Some(resources) = config["linux"]["resources"].as_object_mut() {
        resources.remove("devices");
    }
}

fn remove(config: &mut Value, keys: &[&str]) {
    if let Some(linux) = config["linux"].as_object_mut() {
        keys.iter().for_each(|key| drop(linux.remove(*key)));
    }
}

fn has_user_namespace(config: &Value) -> bool {
    let mut namespaces = config["linux"]["namespaces"]
        .as_array()
        .into_iter()
        .flatten();
    namespaces.any(|namespace| namespace["type"] == "user")
}

fn security_opt(config: &mut Value, option: &str) -> Result<()> {
    // docker's older spelling has a colon.
    let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match (key, value) {
        ("seccomp", "unconfined") => remove(config, &["seccomp"]),
        ("seccomp", "") => bail!("write seccomp=FILE, or seccomp=unconfined"),
        ("seccomp", file) => {
            let text = fs::read(file).with_context(|| file.to_owned())?;
            let profile = serde_json::from_slice(&text).with_context(|| file.to_owned())?;
            let caps = strings(&config["process"]["capabilities"]["bounding"]);
            config["linux"]["seccomp"] =
                seccomp::resolve(profile, &caps, &kernel()?).with_context(|| file.to_owned())?;
        }
        ("apparmor", "") => bail!("write apparmor=PROFILE, or apparmor=unconfined"),
        ("apparmor", profile) => config["process"]["apparmorProfile"] = json!(profile),
        ("no-new-privileges", "" | "true" | "false") => {
            config["process"]["noNewPrivileges"] = json!(value != "false");
        }
        ("label", "disable") => {}
        ("label", _) => bail!("only label=disable: SELinux labels are not given to containers"),
        ("systempaths", "unconfined") => remove(config, &["maskedPaths", "readonlyPaths"]),
        _ => bail!(
            "known are seccomp=, apparmor=, no-new-privileges, label=disable, systempaths=unconfined"
        ),
    }
    Ok(())
}

/// As in `6.1.0-13-amd64`.
fn kernel() -> Result<String> {
    let text =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("/proc/sys/kernel/osrelease")?;
    Ok(text.trim().to_owned())
}

/// `HOST[:CONTAINER][:ACCESS]`; what is no path in the second place is an access.
fn device(config: &mut Value, typed: &str) -> Result<()> {
    let parts: Vec<&str> = typed.split(':').collect();
    let (from, to, access) = match parts.as_slice() {
        [from] => (*from, *from, "rwm"),
        [from, second] if second.starts_with('/') => (*from, *second, "rwm"),
        [from, second] => (*from, *from, *second),
        [from, to, access] => (*from, *to, *access),
        _ => bail!("write HOST[:CONTAINER][:rwm]"),
    };
    check_access(access)?;
    ensure!(
        from.starts_with('/') && to.starts_with('/'),
        "a path begins with /"
    );
    let meta = fs::metadata(from).with_context(|| from.to_owned())?;
    if !meta.is_dir() {
        return one_device(config, from, to, access);
    }
    let mut found = 0;
    for entry in fs::read_dir(from).with_context(|| from.to_owned())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let path = format!("{from}/{name}");
        // Links and directories of directories are not what is meant.
        if device_type(&path)?.is_some() {
            one_device(config, &path, &format!("{to}/{name}"), access)?;
            found += 1;
        }
    }
    ensure!(
        found > 0,
        "error gathering device information: no devices found in {from}"
    );
    Ok(())
}

fn device_type(path: &str) -> Result<Option<(&'static str, u64, u64)>> {
    let stat = stat(path).with_context(|| path.to_owned())?;
    let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFCHR => "c",
        SFlag::S_IFBLK => "b",
        _ => return Ok(None),
    };
    Ok(Some((kind, major(stat.st_rdev), minor(stat.st_rdev))))
}

fn one_device(config: &mut Value, from: &str, to: &str, access: &str) -> Result<()> {
    let (kind, major, minor) =
        device_type(from)?.with_context(|| format!("{from} is not a device node"))?;
    let rule =
        json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access });
    if has_user_namespace(config) {
        // No device can be made there: the host's is shown, and opened by who may.
        ensure!(Path::new(from).is_absolute(), "a path begins with /");
        let options = ["bind", "rprivate", "nosuid", "noexec"];
        add_mount(
            config,
            json!({ "destination": to, "type": "bind", "source": from, "options": options }),
        );
        if geteuid().is_root() {
            allow(config, rule);
        }
        return Ok(());
    }
    let mode = stat(from)?;
    let mut devices = config["linux"]["devices"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    devices.retain(|device| device["path"] != to);
    devices.push(json!({
        "path": to,
        "type": kind,
        "major": major,
        "minor": minor,
        "fileMode": mode.st_mode & 0o7777,
        "uid": mode.st_uid,
        "gid": mode.st_gid,
    }));
    config["linux"]["devices"] = json!(devices);
    allow(config, rule);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        security: Security,
    }

    fn applied(args: &[&str]) -> Result<Value> {
        let mut config = json!({
            "process": { "user": { "uid": 0 }, "capabilities": { "bounding": ["CAP_CHOWN"] } },
            "linux": { "seccomp": {}, "maskedPaths": [], "readonlyPaths": [], "resources": { "devices": [] } },
        });
        let typed = Typed::try_parse_from([&["x"], args].concat())?;
        typed.security.apply(&mut config)?;
        Ok(config)
    }

    #[test]
    fn capabilities_are_dropped_before_they_are_added() {
        let config = applied(&["--cap-drop", "ALL", "--cap-add", "kill"]).unwrap();
        assert_eq!(
            config["process"]["capabilities"]["bounding"],
            json!(["CAP_KILL"])
        );
        let refused = applied(&["--cap-add", "nosuch"]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "--cap-add nosuch: no capability of this kernel, or one that sc itself may not have"
        );
    }

    #[test]
    fn a_device_is_made_and_allowed() {
        let config = applied(&["--device", "/dev/null:/dev/zilch:r"]).unwrap();
        assert_eq!(config["linux"]["devices"][0]["path"], "/dev/zilch");
        assert_eq!(
            config["linux"]["resources"]["devices"],
            json!([{ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "r" }])
        );
        for bad in [
            "/dev/null:x",
            "null",
            "/nosuch",
            "/etc/passwd",
            "/dev/null:/a:r:r",
        ] {
            assert!(applied(&["--device", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn security_options_take_away_what_they_name() {
        for (option, gone) in [
            ("seccomp=unconfined", &["seccomp"][..]),
            ("seccomp:unconfined", &["seccomp"]),
            ("systempaths=unconfined", &["maskedPaths", "readonlyPaths"]),
            ("label=disable", &[]),
        ] {
            let config = applied(&["--security-opt", option]).unwrap();
            for key in ["seccomp", "maskedPaths", "readonlyPaths"] {
                assert_eq!(
                    config["linux"].get(key).is_none(),
                    gone.contains(&key),
                    "{option}: {key}"
                );
            }
        }
        let config = applied(&["--security-opt", "no-new-privileges=false"]).unwrap();
        assert_eq!(config["process"]["noNewPrivileges"], false);
        assert!(applied(&["--security-opt", "x"]).is_err());
    }
}
