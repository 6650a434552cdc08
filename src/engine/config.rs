//! How do options change a config.json? Pure; an error names the option.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::Path;

/// What `sc run` may change.
#[derive(Debug, Default)]
pub struct Wishes {
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub hostname: Option<String>,
    pub host_network: bool,
    pub memory: Option<i64>,
    pub cpus: Option<f64>,
    pub pids_limit: Option<i64>,
    pub read_only: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub volumes: Vec<Volume>,
    /// All capabilities of this kernel.
    pub all_caps: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub source: String,
    pub target: String,
    pub read_only: bool,
}

impl Volume {
    /// docker's `HOST:CONTAINER[:OPTIONS]`; what is ignored comes back as a note.
    pub fn parse(text: &str) -> Result<(Volume, Option<String>)> {
        let context = || format!("--volume {text:?}");
        let parts: Vec<&str> = text.split(':').collect();
        let [source, target, options @ ..] = parts.as_slice() else {
            bail!("{}: write HOST:CONTAINER[:ro]", context());
        };
        ensure!(
            source.starts_with('/'),
            "{}: {source:?} is not an absolute path of the host; volumes by name are not offered",
            context()
        );
        ensure!(
            target.starts_with('/') && *target != "/",
            "{}: {target:?} is not an absolute path below /",
            context()
        );
        ensure!(options.len() < 2, "{}: too many colons", context());
        let mut volume = Volume {
            source: (*source).to_owned(),
            target: (*target).to_owned(),
            read_only: false,
        };
        let mut note = None;
        for option in options.iter().flat_map(|options| options.split(',')) {
            match option {
                "ro" => volume.read_only = true,
                "rw" => volume.read_only = false,
                "z" | "Z" => {
                    note = Some(format!(
                        "{}: {option} is ignored: no relabelling",
                        context()
                    ))
                }
                _ => bail!(
                    "{}: unknown option {option:?}; known are ro, rw, z, Z",
                    context()
                ),
            }
        }
        Ok((volume, note))
    }
}

/// Bytes of `512m`: docker's binary units.
pub fn bytes(text: &str) -> Result<i64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.char_indices().last() {
        Some((at, 'k')) => (&lower[..at], 10),
        Some((at, 'm')) => (&lower[..at], 20),
        Some((at, 'g')) => (&lower[..at], 30),
        Some((at, 't')) => (&lower[..at], 40),
        _ => (lower, 0),
    };
    let number: i64 = digits
        .parse()
        .with_context(|| format!("{text:?} is not a size like 512m"))?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .with_context(|| format!("{text:?} is out of range"))
}

pub fn apply(config: &mut Value, wishes: &Wishes) -> Result<()> {
    ensure!(
        config["process"].is_object() && config["linux"].is_object(),
        "config.json: process and linux are missing"
    );
    environment(config, &wishes.env);
    if let Some(cwd) = &wishes.cwd {
        ensure!(cwd.starts_with('/'), "--workdir {cwd:?} is not absolute");
        config["process"]["cwd"] = json!(cwd);
    }
    if let Some(hostname) = &wishes.hostname {
        config["hostname"] = json!(hostname);
    }
    if wishes.host_network {
        share_network(config);
    }
    limits(config, wishes)?;
    if wishes.read_only {
        config["root"]["readonly"] = json!(true);
        for at in ["/run", "/tmp", "/var/tmp"] {
            add_mount(
                config,
                json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] }),
            );
        }
    }
    for volume in &wishes.volumes {
        let access = if volume.read_only { "ro" } else { "rw" };
        add_mount(
            config,
            json!({ "destination": volume.target, "type": "bind", "source": volume.source, "options": ["rbind", "rprivate", access] }),
        );
    }
    match wishes.privileged {
        true => unconfine(config, &wishes.all_caps),
        false => capabilities(config, wishes)?,
    }
    Ok(())
}

pub fn add_mount(config: &mut Value, mount: Value) {
    match &mut config["mounts"] {
        Value::Array(mounts) => mounts.push(mount),
        other => *other = json!([mount]),
    }
}

/// The last one of a name counts.
fn environment(config: &mut Value, added: &[String]) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = strings(&config["process"]["env"]);
    for entry in added {
        env.retain(|other| name(other) != name(entry));
        env.push(entry.clone());
    }
    config["process"]["env"] = json!(env);
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// In a network namespace that is there before the container: sysctls of it only if it is the container's own.
pub fn join_network(config: &mut Value, path: &Path, own: bool) {
    share_network_sysctls(config, own);
    let namespaces = config["linux"]["namespaces"].as_array_mut();
    if let Some(namespaces) = namespaces {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "network", "path": path }));
    }
    if own {
        // docker's: ports below 1024 are nothing special in a network that has no other users.
        config["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] = json!("0");
    }
}

/// Without a network namespace, sysctls of the network would be the host's.
fn share_network(config: &mut Value) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
    }
    share_network_sysctls(config, false);
}

fn share_network_sysctls(config: &mut Value, own: bool) {
    if let Some(sysctl) = config["linux"]["sysctl"].as_object_mut() {
        sysctl.retain(|name, _| own || !name.starts_with("net."));
    }
}

fn limits(config: &mut Value, wishes: &Wishes) -> Result<()> {
    let resources = &mut config["linux"]["resources"];
    if let Some(memory) = wishes.memory {
        ensure!(memory >= 6 << 20, "--memory: at least 6m");
        // docker's: as much swap as memory.
        resources["memory"] = json!({ "limit": memory, "swap": memory.saturating_mul(2) });
    }
    if let Some(cpus) = wishes.cpus {
        ensure!((0.01..=100_000.0).contains(&cpus), "--cpus: from 0.01 on");
        resources["cpu"] = json!({ "quota": (cpus * 100_000.0).round() as i64, "period": 100_000 });
    }
    if let Some(limit) = wishes.pids_limit {
        resources["pids"] = json!({ "limit": limit });
    }
    Ok(())
}

/// First what is dropped, then what is added, as docker: `--cap-drop ALL --cap-add CHOWN`.
fn capabilities(config: &mut Value, wishes: &Wishes) -> Result<()> {
    let name = |option: &str, typed: &String| -> Result<String> {
        let upper = typed.to_ascii_uppercase();
        let full = match upper.starts_with("CAP_") || upper == "ALL" {
            true => upper,
            false => format!("CAP_{upper}"),
        };
        let known = full == "ALL" || wishes.all_caps.contains(&full);
        ensure!(known, "{option} {typed}: no capability of this kernel");
        Ok(full)
    };
    for typed in &wishes.cap_drop {
        let dropped = name("--cap-drop", typed)?;
        for set in [
            "bounding",
            "effective",
            "permitted",
            "inheritable",
            "ambient",
        ] {
            let mut caps = strings(&config["process"]["capabilities"][set]);
            caps.retain(|cap| dropped != "ALL" && *cap != dropped);
            config["process"]["capabilities"][set] = json!(caps);
        }
    }
    for typed in &wishes.cap_add {
        let added = name("--cap-add", typed)?;
        // Who is not root has what was asked for by name only if all five sets have it.
        let sets: &[&str] = match config["process"]["user"]["uid"].as_u64() {
            Some(0) | None => &["bounding", "effective", "permitted"],
            Some(_) => &[
                "bounding",
                "effective",
                "permitted",
                "inheritable",
                "ambient",
            ],
        };
        for set in sets {
            let mut caps = strings(&config["process"]["capabilities"][*set]);
            let new = match added.as_str() {
                "ALL" => wishes.all_caps.clone(),
                _ => vec![added.clone()],
            };
            let new: Vec<String> = new.into_iter().filter(|cap| !caps.contains(cap)).collect();
            caps.extend(new);
            config["process"]["capabilities"][*set] = json!(caps);
        }
    }
    Ok(())
}

/// `--privileged`: all capabilities, all devices, nothing hidden or filtered.
fn unconfine(config: &mut Value, all_caps: &[String]) {
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(all_caps);
    }
    config["process"]["noNewPrivileges"] = json!(false);
    if let Some(linux) = config["linux"].as_object_mut() {
        for gone in ["seccomp", "maskedPaths", "readonlyPaths"] {
            linux.remove(gone);
        }
    }
    config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(wishes: &Wishes) -> Value {
        let mut config = json!({
            "process": { "env": ["A=1", "B=2"], "user": { "uid": 0 }, "capabilities": { "bounding": ["CAP_CHOWN"] } },
            "linux": { "namespaces": [{ "type": "pid" }, { "type": "network" }], "sysctl": { "net.x": "1", "kernel.y": "2" } },
        });
        apply(&mut config, wishes).unwrap();
        config
    }

    #[test]
    fn the_last_variable_of_a_name_counts() {
        let wishes = Wishes {
            env: vec!["A=3".into()],
            ..Wishes::default()
        };
        assert_eq!(applied(&wishes)["process"]["env"], json!(["B=2", "A=3"]));
    }

    #[test]
    fn the_hosts_network_brings_no_sysctl_of_it() {
        let linux = &applied(&Wishes {
            host_network: true,
            ..Wishes::default()
        })["linux"];
        assert_eq!(linux["namespaces"], json!([{ "type": "pid" }]));
        assert_eq!(linux["sysctl"], json!({ "kernel.y": "2" }));
    }

    #[test]
    fn limits_are_dockers() {
        let wishes = Wishes {
            memory: Some(64 << 20),
            cpus: Some(1.5),
            ..Wishes::default()
        };
        assert_eq!(
            applied(&wishes)["linux"]["resources"],
            json!({ "memory": { "limit": 67108864, "swap": 134217728 }, "cpu": { "quota": 150000, "period": 100000 } })
        );
    }

    #[test]
    fn capabilities_are_dropped_before_they_are_added() {
        let wishes = Wishes {
            cap_drop: vec!["ALL".into()],
            cap_add: vec!["kill".into()],
            all_caps: vec!["CAP_KILL".into()],
            ..Wishes::default()
        };
        assert_eq!(
            applied(&wishes)["process"]["capabilities"]["bounding"],
            json!(["CAP_KILL"])
        );
    }

    #[test]
    fn sizes_are_binary() {
        for (text, expected) in [
            ("512", Some(512)),
            ("64m", Some(64 << 20)),
            ("1GB", Some(1 << 30)),
            ("m", None),
            ("-1", None),
            ("0", None),
            ("99999999t", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_volume_is_two_absolute_paths() {
        let volume = |read_only| Volume {
            source: "/a".into(),
            target: "/b".into(),
            read_only,
        };
        assert_eq!(Volume::parse("/a:/b").unwrap(), (volume(false), None));
        assert_eq!(Volume::parse("/a:/b:ro").unwrap(), (volume(true), None));
        assert!(Volume::parse("/a:/b:z").unwrap().1.is_some());
        for bad in ["/a", "a:/b", "/a:b", "/a:/", "/a:/b:x", "/a:/b:ro:rw"] {
            assert!(Volume::parse(bad).is_err(), "{bad}");
        }
    }
}
