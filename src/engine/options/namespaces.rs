//! Options that say what a container shares with the host or with another container.

use crate::engine::config::share;
use crate::engine::record::{Home, Join};
use crate::engine::userns;
use crate::idmap::Kept;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};
use std::path::Path;

#[derive(Debug, Default, Args)]
pub struct Namespaces {
    /// host, or container:CONTAINER: whose processes it sees
    #[arg(long, value_name = "WHOSE")]
    pid: Option<String>,
    /// private, none (no /dev/shm), shareable, host, or container:CONTAINER: whose shared memory it has
    #[arg(long, value_name = "WHOSE")]
    ipc: Option<String>,
    /// host: its name is the host's
    #[arg(long, value_name = "WHOSE")]
    uts: Option<String>,
    /// private, or host: it sees all cgroups
    #[arg(long, value_name = "WHOSE")]
    cgroupns: Option<String>,
    /// host: ids as they are without this; auto: ids that no other container has, from those of `containers` in
    /// /etc/subuid, 65536 or size=COUNT; keep-id: an ordinary user is in the container who she is outside, and runs
    /// it, or is who uid=UID,gid=GID says
    #[arg(long, value_name = "host|auto|keep-id[:OPTIONS]")]
    userns: Option<String>,
}

impl Namespaces {
    /// The namespaces of other containers are found when this one starts: those come back.
    pub fn apply(&self, config: &mut Value, home: &Home) -> Result<Vec<Join>> {
        let mut joins = Vec::new();
        for (option, kind, whose) in [("--pid", "pid", &self.pid), ("--ipc", "ipc", &self.ipc)] {
            let Some(whose) = whose else { continue };
            match (whose.as_str(), kind) {
                ("", _) | ("private" | "shareable", _) => {}
                ("none", "ipc") => without_shm(config),
                ("host", "pid") => share(config, kind),
                ("host", _) => {
                    share(config, kind);
                    show_host(config, "/dev/shm");
                    show_host(config, "/dev/mqueue");
                }
                (other, _) => {
                    let name = other.strip_prefix("container:");
                    let name = name.with_context(|| {
                        format!("{option} {other:?}: neither host nor container:CONTAINER")
                    })?;
                    ensure!(
                        !has_user_namespace(config),
                        "{option} {other}: containers with a user namespace of their own, as an ordinary user's are, cannot share others"
                    );
                    let id = home.find(name).context(option)?.id;
                    joins.push(Join {
                        kind: kind.to_owned(),
                        id,
                    });
                }
            }
        }
        match self.uts.as_deref() {
            None | Some("" | "private") => {}
            Some("host") => {
                share(config, "uts");
                // It would be the host's that is changed.
                if let Some(config) = config.as_object_mut() {
                    config.remove("hostname");
                    config.remove("domainname");
                }
            }
            Some(other) => bail!("--uts {other:?}: only host"),
        }
        match self.cgroupns.as_deref() {
            None | Some("" | "private") => {}
            Some("host") => share(config, "cgroup"),
            Some(other) => bail!("--cgroupns {other:?}: neither private nor host"),
        }
        Ok(joins)
    }

    /// Which ids it is to have.
    pub fn users(&self, is_image: bool) -> Result<Users> {
        let typed = self.userns.as_deref().unwrap_or_default();
        let (mode, options) = typed.split_once(':').unwrap_or((typed, ""));
        let users = match (mode, options) {
            ("" | "host", "") => return Ok(Users::AsEver),
            ("auto", "") => Users::Own(userns::SIZE),
            ("auto", options) => {
                let size = options
                    .strip_prefix("size=")
                    .and_then(|size| size.parse().ok())
                    .filter(|size| *size > 0);
                Users::Own(
                    size.with_context(|| format!("--userns {typed:?}: write auto:size=COUNT"))?,
                )
            }
            ("keep-id", options) => {
                Users::Kept(kept(options).with_context(|| format!("--userns {typed:?}"))?)
            }
            _ => bail!(
                "--userns {typed:?}: neither host nor auto[:size=COUNT] nor keep-id[:uid=UID,gid=GID]"
            ),
        };
        match users {
            Users::Kept(_) => ensure!(
                !geteuid().is_root(),
                "--userns {typed}: is for ordinary users, whose id in the container would be root's; root has auto"
            ),
            _ => ensure!(
                geteuid().is_root(),
                "--userns {typed}: without root a container has your own ids and your subordinate ones; keep-id gives you your own \
                 id inside"
            ),
        }
        ensure!(
            is_image,
            "--userns {typed}: a bundle's config.json says itself which ids it has"
        );
        Ok(users)
    }
}

/// `--userns`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// As root the host's; else the user's own as root's, and the subordinate ones.
    AsEver,
    /// So many that no other container has.
    Own(u32),
    /// The user's own id is no other in the container.
    Kept(Kept),
}

/// `uid=UID,gid=GID`; the user's own where nothing is said.
fn kept(options: &str) -> Result<Kept> {
    let mut kept = Kept {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let number = |text: &str| text.parse().with_context(|| format!("{option:?}"));
        match option.split_once('=') {
            Some(("uid", uid)) => kept.uid = number(uid)?,
            Some(("gid", gid)) => kept.gid = number(gid)?,
            _ => bail!("{option:?}: neither uid=UID nor gid=GID"),
        }
    }
    Ok(kept)
}

fn has_user_namespace(config: &Value) -> bool {
    let mut namespaces = config["linux"]["namespaces"]
        .as_array()
        .into_iter()
        .flatten();
    namespaces.any(|namespace| namespace["type"] == "user")
}

fn without_shm(config: &mut Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/dev/shm");
    }
}

/// The host's file system instead of the container's own; not every host has each.
fn show_host(config: &mut Value, at: &str) {
    let Some(mounts) = config["mounts"].as_array_mut() else {
        return;
    };
    if !Path::new(at).exists() {
        mounts.retain(|mount| mount["destination"] != at);
    }
    for mount in mounts {
        if mount["destination"] == at {
            *mount = shared_memory(at, at);
        }
    }
}

fn shared_memory(at: &str, source: &str) -> Value {
    let options = ["rbind", "rprivate", "nosuid", "noexec", "nodev"];
    json!({ "destination": at, "type": "bind", "source": source, "options": options })
}

/// At the start: the namespace of the process `pid` of another container, which runs. With the shared memory goes
/// what is mounted for it, which is at `shm` of the host.
pub fn join(config: &mut Value, kind: &str, pid: i32, shm: Option<&str>) {
    let path = format!("/proc/{pid}/ns/{kind}");
    share(config, kind);
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": kind, "path": path }));
    }
    if let Some(shm) = shm {
        for mount in config["mounts"].as_array_mut().into_iter().flatten() {
            if mount["destination"] == "/dev/shm" {
                *mount = shared_memory("/dev/shm", shm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_has_is_joined_by_its_process() {
        let mut config = json!({
            "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc" }] },
            "mounts": [{ "destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1"] }],
        });
        join(&mut config, "ipc", 7, Some("/x"));
        assert_eq!(
            config,
            json!({
                "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc", "path": "/proc/7/ns/ipc" }] },
                "mounts": [shared_memory("/dev/shm", "/x")],
            })
        );
    }
}
