//! How do options change a config.json? Pure; an error names the option.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;

/// What `sc run` may change.
#[derive(Debug, Default)]
pub struct Wishes {
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub hostname: Option<String>,
    pub host_network: bool,
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
    Ok(())
}

/// To index for a change is to leave null where nothing was: what says nothing is left out.
pub fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
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

pub fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// The namespaces but those of a kind; each is then the host's.
pub fn share(config: &mut Value, kind: &str) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != kind);
    }
}

/// A network namespace that is there before the container: sysctls are for it only if it is the container's own.
pub fn join_network(config: &mut Value, path: &Path, own: bool) {
    match own {
        true => {
            share(config, "network");
            open_all_ports(config);
        }
        false => share_network(config),
    }
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "network", "path": path }));
    }
}

/// docker's: ports below 1024 are nothing special in a network that has no other users.
pub fn open_all_ports(config: &mut Value) {
    config["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] = json!("0");
}

/// A user namespace that is there before the container; the maps, which are the same, tell the runtime of its ids.
pub fn join_users(config: &mut Value, path: &Path) {
    share(config, "user");
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "user", "path": path }));
    }
}

/// Without a network namespace, sysctls of the network would be the host's.
fn share_network(config: &mut Value) {
    share(config, "network");
    if let Some(sysctl) = config["linux"]["sysctl"].as_object_mut() {
        sysctl.retain(|name, _| !name.starts_with("net."));
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
    fn what_says_nothing_is_left_out() {
        let mut value = json!({ "a": null, "b": [{ "c": null, "d": 1 }] });
        without_nulls(&mut value);
        assert_eq!(value, json!({ "b": [{ "d": 1 }] }));
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
}
