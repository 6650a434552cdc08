//! What does a config.json mean where oci-spec's types are stricter than runc and the
//! specification? Works on the tree, and only on documents the types refused.
//!
//! | in the document | becomes | why |
//! |---|---|---|
//! | `null` as a property | absent | Go engines write it for an empty list; runc reads it so |
//! | no `process.user` | `{}` (root) | runc |
//! | unknown capability names | dropped, with a warning | runc; config.md#linux-process asks for a warning |
//! | `SCHED_FLAG_RESET_ON_FORK` … | oci-spec's own spelling | the names of config.md#linux-process are refused by it |
//! | spaces, empty elements, "" in `execCPUAffinity` | cleaned | runc |
//! | "" as type of a `linux.resources.devices` rule | absent (all) | runc |
//! | hugepage limits above i64 | the largest i64 | the specification says uint64 |
//! | `windows`, `solaris`, `vm`, `zos`, `freebsd`; `uidMappings` at the top | absent | other platforms' business: runc does not look at them |

use super::strict::{push_index, push_key};
use oci_spec::runtime::Capability;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use serde_json::Value;

/// Scheduler flags: the specification's name, oci-spec 0.10's.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

const NOT_OURS: [&str; 7] = [
    "windows",
    "solaris",
    "vm",
    "zos",
    "freebsd",
    "uidMappings",
    "gidMappings",
];

pub fn spec(tree: &mut Value, warnings: &mut Vec<String>) {
    if let Value::Object(top) = tree {
        top.retain(|key, _| !NOT_OURS.contains(&key.as_str()));
    }
    if let Some(inner) = tree.get_mut("process") {
        process(inner, warnings);
    }
    drop_nulls(tree);
    for rule in each(tree, "/linux/resources/devices") {
        if let Value::Object(rule) = rule {
            rule.retain(|key, value| key != "type" || value != "");
        }
    }
    for limit in each(tree, "/linux/resources/hugepageLimits") {
        if let Some(n) = limit.get_mut("limit")
            && n.as_u64().is_some_and(|n| n > i64::MAX as u64)
        {
            *n = Value::from(i64::MAX);
        }
    }
}

/// `tree` is the object `process`, be it of config.json or of `exec`.
pub fn process(tree: &mut Value, warnings: &mut Vec<String>) {
    drop_nulls(tree);
    let Value::Object(process) = tree else {
        return;
    };
    process
        .entry("user")
        .or_insert_with(|| Value::Object(Default::default()));
    if let Some(Value::Object(sets)) = process.get_mut("capabilities") {
        for (set, names) in sets {
            let mut path = "process.capabilities".to_owned();
            push_key(&mut path, set);
            drop_unknown_capabilities(&path, names, warnings);
        }
    }
    for flag in each(tree, "/scheduler/flags") {
        if let Some((_, ours)) = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name) {
            *flag = Value::from(*ours);
        }
    }
    if let Some(Value::Object(affinity)) = tree.get_mut("execCPUAffinity") {
        for list in affinity.values_mut() {
            if let Value::String(list) = list {
                let cpus: Vec<&str> = list.split(',').map(str::trim).collect();
                *list = cpus
                    .into_iter()
                    .filter(|c| !c.is_empty())
                    .collect::<Vec<_>>()
                    .join(",");
            }
        }
        affinity.retain(|_, list| list != "");
    }
}

fn each<'v>(tree: &'v mut Value, pointer: &str) -> impl Iterator<Item = &'v mut Value> {
    tree.pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Not from lists: there a `null` has a place, which the error names.
fn drop_nulls(tree: &mut Value) {
    match tree {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            entries.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn drop_unknown_capabilities(set: &str, names: &mut Value, warnings: &mut Vec<String>) {
    let Value::Array(names) = names else {
        return;
    };
    let mut index = 0;
    names.retain(|name| {
        let mut path = set.to_owned();
        push_index(&mut path, index);
        index += 1;
        match name {
            // What is no string is refused later, by place.
            Value::String(name) if !is_capability(name) => {
                warnings.push(format!(
                    "{path}: ignoring unknown capability {}",
                    super::short(&format!("{name:?}"))
                ));
                false
            }
            _ => true,
        }
    });
}

fn is_capability(name: &str) -> bool {
    let name: StrDeserializer<Error> = name.into_deserializer();
    Capability::deserialize(name).is_ok()
}
