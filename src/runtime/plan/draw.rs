//! DRAFT, replaced by the drafting room when it lands.
use super::*;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use std::path::{Component, Path, PathBuf};

pub fn draw(spec: &Spec, ask: &Ask) -> Result<Plan> {
    let mut plan = Plan::default();
    let process = spec.process().as_ref().context("process is missing")?;
    let linux = spec.linux().clone().unwrap_or_default();
    plan.parent.cgroup = resources::draw(spec, ask)?;
    plan.parent.oom_score_adj = process.oom_score_adj();
    for r in process.rlimits().iter().flatten() {
        let names = [
            "CPU",
            "FSIZE",
            "DATA",
            "STACK",
            "CORE",
            "RSS",
            "NPROC",
            "NOFILE",
            "MEMLOCK",
            "AS",
            "LOCKS",
            "SIGPENDING",
            "MSGQUEUE",
            "NICE",
            "RTPRIO",
            "RTTIME",
        ];
        let name = r.typ().to_string();
        let n = names.iter().position(|n| name.ends_with(n)).unwrap_or(7) as u32;
        plan.parent.rlimits.push(Rlimit {
            name,
            resource: n,
            soft: r.soft(),
            hard: r.hard(),
        });
    }
    let p = &mut plan.init.process;
    p.args = process.args().clone().unwrap_or_default();
    p.env = process.env().clone().unwrap_or_default();
    p.cwd = process.cwd().clone();
    p.uid = process.user().uid();
    p.gid = process.user().gid();
    p.groups = Some(process.user().additional_gids().clone().unwrap_or_default());
    p.umask = process.user().umask().unwrap_or(0o022);
    let mask = |set: &Option<oci_spec::runtime::Capabilities>| -> u64 {
        set.iter()
            .flatten()
            .filter_map(|c| format!("CAP_{c}").parse::<caps::Capability>().ok())
            .map(|c| c.bitmask())
            .sum()
    };
    p.caps = Some(
        process
            .capabilities()
            .as_ref()
            .map_or(Caps::default(), |c| Caps {
                bounding: mask(c.bounding()),
                effective: mask(c.effective()),
                permitted: mask(c.permitted()),
                inheritable: mask(c.inheritable()),
                ambient: mask(c.ambient()) & mask(c.inheritable()) & mask(c.permitted()),
            }),
    );
    p.no_new_privileges = process.no_new_privileges().unwrap_or(false);
    p.terminal = process.terminal().unwrap_or(false);
    p.preserve_fds = ask.preserve_fds;
    for ns in linux.namespaces().iter().flatten() {
        let kind = ns.typ() as u64;
        match ns.path() {
            None => plan.parent.clone.new |= kind,
            Some(path) if ns.typ() == LinuxNamespaceType::Pid => {
                plan.parent.clone.pid_namespace = Some(path.clone())
            }
            Some(path) => plan.init.join.push(Join {
                kind,
                name: ns.typ().to_string(),
                path: path.clone(),
            }),
        }
        if ns.typ() == LinuxNamespaceType::User {
            plan.init.in_user_namespace = true;
            plan.init.new_user_namespace = ns.path().is_none();
        }
    }
    plan.init.loopback_up = plan.parent.clone.new & libc::CLONE_NEWNET as u64 != 0;
    let idmap = |m: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| {
        m.iter()
            .flatten()
            .map(|m| IdMap {
                container: m.container_id(),
                host: m.host_id(),
                size: m.size(),
            })
            .collect()
    };
    plan.parent.uid_map = idmap(linux.uid_mappings());
    plan.parent.gid_map = idmap(linux.gid_mappings());
    if !ask.no_new_keyring {
        plan.init.keyring = Some(format!("_ses.{}", ask.id));
    }
    plan.init.hostname = spec.hostname().clone();
    plan.init.domainname = spec.domainname().clone();
    for (k, v) in linux.sysctl().iter().flatten() {
        plan.init.sysctls.push((k.replace('.', "/"), v.clone()));
    }
    let hooks = |h: &Option<Vec<oci_spec::runtime::Hook>>| -> Vec<Hook> {
        h.iter()
            .flatten()
            .map(|h| Hook {
                path: h.path().clone(),
                args: h
                    .args()
                    .clone()
                    .unwrap_or_else(|| vec![h.path().display().to_string()]),
                env: h.env().clone().unwrap_or_default(),
                timeout: h.timeout().map(|t| t as u64),
            })
            .collect()
    };
    if let Some(h) = spec.hooks() {
        #[allow(deprecated)]
        {
            plan.parent.prestart = hooks(h.prestart());
        }
        plan.parent.create_runtime = hooks(h.create_runtime());
        plan.parent.poststart = hooks(h.poststart());
        plan.parent.poststop = hooks(h.poststop());
        plan.init.create_container = hooks(h.create_container());
        plan.init.start_container = hooks(h.start_container());
    }
    let root = spec.root().as_ref().context("root is missing")?;
    let mut tree = RootfsPlan {
        path: ask.bundle.join(root.path()),
        readonly: root.readonly().unwrap_or(false),
        initial_propagation: libc::MS_SLAVE | libc::MS_REC,
        no_pivot: ask.no_pivot,
        ..Default::default()
    };
    for (i, m) in spec.mounts().iter().flatten().enumerate() {
        tree.mounts.push(mount(i, m, ask)?);
    }
    tree.skip_dev = tree
        .mounts
        .iter()
        .any(|m| m.destination == Path::new("/dev") && matches!(m.kind, MountKind::Bind { .. }));
    for (n, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        tree.devices.push(Device {
            field: "default device".into(),
            path: Path::new("/dev").join(n),
            kind: libc::S_IFCHR,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        });
    }
    for (l, t) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        tree.symlinks.push((Path::new("/dev").join(l), t.into()));
    }
    tree.masked_paths = linux
        .masked_paths()
        .iter()
        .flatten()
        .map(PathBuf::from)
        .collect();
    tree.readonly_paths = linux
        .readonly_paths()
        .iter()
        .flatten()
        .map(PathBuf::from)
        .collect();
    tree.shares_mount_namespace = !linux
        .namespaces()
        .iter()
        .flatten()
        .any(|n| n.typ() == LinuxNamespaceType::Mount);
    plan.init.rootfs = Some(tree);
    Ok(plan)
}

fn clean(p: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for c in p.components() {
        match c {
            Component::Normal(n) => out.push(n),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

fn mount(i: usize, m: &oci_spec::runtime::Mount, ask: &Ask) -> Result<Mount> {
    let mut out = Mount {
        field: format!("mounts[{i}]"),
        destination: clean(m.destination()),
        kind: MountKind::Remount { options: vec![] },
        attr: Attr::default(),
        recursive_attr: Attr::default(),
        propagation: vec![],
    };
    let (mut bind, mut rec, mut copy_up, mut data) = (false, false, false, vec![]);
    for o in m.options().iter().flatten() {
        match o.as_str() {
            "bind" => bind = true,
            "rbind" => {
                bind = true;
                rec = true
            }
            "ro" => out.attr.set |= 1,
            "nosuid" => out.attr.set |= 2,
            "nodev" => out.attr.set |= 4,
            "noexec" => out.attr.set |= 8,
            "rw" => {}
            "suid" => {}
            "dev" => {}
            "exec" => {}
            "relatime" => out.attr.clear |= 0x70,
            "strictatime" => {
                out.attr.set |= 0x20;
                out.attr.clear |= 0x70
            }
            "noatime" => {
                out.attr.set |= 0x10;
                out.attr.clear |= 0x70
            }
            "private" => out.propagation.push(libc::MS_PRIVATE),
            "rprivate" => out.propagation.push(libc::MS_PRIVATE | libc::MS_REC),
            "slave" => out.propagation.push(libc::MS_SLAVE),
            "rslave" => out.propagation.push(libc::MS_SLAVE | libc::MS_REC),
            "tmpcopyup" => copy_up = true,
            o => data.push(match o.split_once('=') {
                Some((k, v)) => (k.to_owned(), Some(v.to_owned())),
                None => (o.to_owned(), None),
            }),
        }
    }
    let typ = m.typ().clone().unwrap_or_default();
    let source = m.source().clone().unwrap_or_default();
    out.kind = if bind || typ == "bind" {
        if !data.is_empty() {
            bail!("bind mounts cannot have any filesystem-specific options applied")
        }
        MountKind::Bind {
            source: ask.bundle.join(source),
            recursive: rec,
        }
    } else if typ.starts_with("cgroup") {
        MountKind::Cgroup { namespace: true }
    } else {
        if out.attr.set & 1 != 0 {
            data.insert(0, ("ro".into(), None));
        }
        MountKind::Filesystem {
            fstype: typ,
            source: source.display().to_string(),
            options: data,
            copy_up,
        }
    };
    Ok(out)
}
