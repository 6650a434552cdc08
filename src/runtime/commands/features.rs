//! `features`: what can this runtime do? runtime-spec features.md and features-linux.md, for engines.
//!
//! The lists are those that config.json is read by. Which of it this machine's kernel has is not
//! asked, but for the flags of seccomp(2), where the spec wants it.

use crate::runtime::plan::{hooks, mounts, namespaces, process, scheduling, seccomp, unit};
use crate::runtime::state::OCI_VERSION;
use crate::sys;
use anyhow::Result;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};

pub fn features() -> Result<()> {
    super::say(&text(sys::seccomp::supported_flags())?)
}

/// `seccomp_flags`: SECCOMP_FILTER_FLAG_* that the kernel knows.
fn text(seccomp_flags: u64) -> Result<String> {
    let mut text = Vec::new();
    let indented = PrettyFormatter::with_indent(b"    ");
    document(seccomp_flags).serialize(&mut Serializer::with_formatter(&mut text, indented))?;
    Ok(String::from_utf8(text)? + "\n")
}

fn document(seccomp_flags: u64) -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": hooks::KINDS,
        "mountOptions": mounts::words(),
        "linux": {
            "namespaces": namespaces::KINDS,
            "capabilities": process::names(u64::MAX),
            "cgroup": { "v1": false, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": seccomp(seccomp_flags),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            "memoryPolicy": {
                "modes": scheduling::MEMORY_MODES,
                "flags": scheduling::MEMORY_FLAGS,
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "sc-runtime.version": env!("CARGO_PKG_VERSION"),
            "sc-runtime.commit": env!("SC_COMMIT"),
            // runc's name: engines know no other.
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": [unit::ANNOTATION],
    })
}

fn seccomp(supported: u64) -> Value {
    let flags = seccomp::FLAGS.iter().copied();
    let supported: Vec<_> = flags
        .filter(|flag| supported & seccomp::bit(*flag) != 0)
        .collect();
    json!({
        "enabled": true,
        "actions": seccomp::ACTIONS,
        "operators": seccomp::OPERATORS,
        "archs": seccomp::ARCHS,
        "knownFlags": seccomp::FLAGS,
        "supportedFlags": supported,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Features;

    #[test]
    fn it_is_what_the_spec_describes() {
        let text = text(libc::SECCOMP_FILTER_FLAG_LOG).unwrap();
        let read: Features = serde_json::from_str(&text).unwrap();
        let linux = read.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 8);
        assert_eq!(linux.capabilities().as_ref().unwrap().len(), 41);
        let seccomp = linux.seccomp().as_ref().unwrap();
        let flags = seccomp.supported_flags().as_ref().unwrap();
        assert_eq!(flags, &["SECCOMP_FILTER_FLAG_LOG"]);
        assert_eq!(seccomp.known_flags().as_ref().unwrap().len(), 4);
    }

    #[test]
    fn every_list_is_sorted_and_says_nothing_twice() {
        let all = document(0);
        let lists = [
            "/mountOptions",
            "/linux/namespaces",
            "/linux/seccomp/actions",
            "/linux/seccomp/operators",
            "/linux/seccomp/knownFlags",
        ];
        for pointer in lists {
            let list = all.pointer(pointer).and_then(Value::as_array).unwrap();
            let names: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            assert!(names.is_sorted_by(|a, b| a < b), "{pointer}: {names:?}");
            assert_eq!(names.len(), list.len(), "{pointer}");
        }
    }
}
