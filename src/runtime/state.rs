//! What are `state`, `list` and hooks told about a container? runtime-spec runtime.md#state plus
//! the keys that runc adds, in runc's order.

use crate::runtime::container::Record;
use crate::runtime::status::Status;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Not config.json's version: the one that this runtime speaks.
pub const OCI_VERSION: &str = "1.3.0";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    /// In the runtime's pid namespace; 0 for a stopped container.
    pub pid: i32,
    pub status: &'a str,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    /// A user's name in `list`; always empty in `state`, as runc has it.
    pub owner: String,
}

impl<'a> State<'a> {
    pub fn of(record: &'a Record, status: Status) -> Self {
        Self::new(record, status.shown_pid(record.pid), status.name())
    }

    pub fn new(record: &'a Record, pid: i32, status: &'a str) -> Self {
        State {
            oci_version: &record.oci_version,
            id: &record.id,
            pid,
            status,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner: String::new(),
        }
    }

    /// On one line: what a hook reads on stdin.
    pub fn line(&self) -> Vec<u8> {
        // Only a path that is not UTF-8 has no JSON form, and a record with one cannot be saved.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Indented by two spaces, no newline at the end: what `state` prints.
    pub fn pretty(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_printed_as_runc_does() {
        let mut record = Record::example();
        record.annotations.clear();
        assert_eq!(
            State::of(&record, Status::Stopped).pretty().unwrap(),
            r#"{
  "ociVersion": "1.3.0",
  "id": "web",
  "pid": 0,
  "status": "stopped",
  "bundle": "/b",
  "rootfs": "/b/rootfs",
  "created": "2026-11-22T17:11:01.601975232Z",
  "owner": ""
}"#
        );
    }

    #[test]
    fn a_hook_reads_one_line_with_annotations() {
        assert_eq!(
            String::from_utf8(State::of(&Record::example(), Status::Creating).line()).unwrap(),
            concat!(
                r#"{"ociVersion":"1.3.0","id":"web","pid":42,"status":"creating","bundle":"/b","#,
                r#""rootfs":"/b/rootfs","created":"2026-11-22T17:11:01.601975232Z","#,
                r#""annotations":{"a":"b"},"owner":""}"#
            )
        );
    }
}
