//! `list`: which containers are below this root? A table, JSON, or names alone, as runc prints them.

use super::say;
use crate::runtime::cli::{Global, ListFormat};
use crate::runtime::container::Container;
use crate::runtime::log;
use crate::runtime::state::State;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

pub fn list(global: &Global, format: ListFormat, quiet: bool) -> Result<()> {
    let names = names(&global.root)?;
    let containers: Vec<Container> = names.iter().filter_map(|name| load(global, name)).collect();
    if quiet {
        return say(&containers
            .iter()
            .map(|c| format!("{}\n", c.id()))
            .collect::<String>());
    }
    let mut users = HashMap::new();
    let mut states = Vec::new();
    for container in &containers {
        let owner = container.record.owner;
        let status = match container.status() {
            Ok(status) => status,
            // It must not hide the others.
            Err(e) => {
                log::warn(format!("status of container {}: {e:#}", container.id()));
                continue;
            }
        };
        let mut state = State::of(&container.record, status);
        state.owner = users
            .entry(owner)
            .or_insert_with(|| user_name(owner))
            .clone();
        states.push(state);
    }
    say(&match format {
        ListFormat::Table => table(&states),
        ListFormat::Json => json(&states)?,
    })
}

/// The directories of the root, sorted; none when it was never made.
fn names(root: &Path) -> Result<Vec<String>> {
    let wanted = || format!("read {}", root.display());
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(wanted),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(wanted)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A container, or `None`, with a warning if it is broken. One that has no record (yet, or any
/// more) is another command's at this moment: not worth a word.
fn load(global: &Global, name: &str) -> Option<Container> {
    match Container::find(&global.root, name) {
        Ok(found) => found,
        Err(e) => {
            log::warn(format!("load container {name}: {e:#}"));
            None
        }
    }
}

/// `null` for an empty list: what Go makes of one, and what readers written for runc expect.
fn json(states: &[State]) -> Result<String> {
    match states {
        [] => Ok("null\n".to_owned()),
        _ => Ok(serde_json::to_string(states)? + "\n"),
    }
}

/// Columns as wide as their widest cell and three spaces, twelve at least; the last as it comes.
fn table(states: &[State]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(states.iter().map(|state| {
        [
            state.id.to_owned(),
            state.pid.to_string(),
            state.status.to_owned(),
            state.bundle.display().to_string(),
            state.created.to_owned(),
            state.owner.clone(),
        ]
    }));
    let widest = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..5).map(|column| (widest(column) + 3).max(12)).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

/// The name of a user in /etc/passwd, or `#uid`. Read here: a static program has no NSS.
fn user_name(uid: u32) -> String {
    let unnamed = || format!("#{uid}");
    let Ok(passwd) = std::fs::File::open("/etc/passwd") else {
        return unnamed();
    };
    // No more than a MiB of it: its size is not ours to trust.
    name_in(BufReader::new(passwd.take(1 << 20)), uid).unwrap_or_else(unnamed)
}

fn name_in(passwd: impl BufRead, uid: u32) -> Option<String> {
    passwd.lines().map_while(Result::ok).find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::container::Record;
    use crate::runtime::status::Status;

    #[test]
    fn the_table_is_padded_as_runc_does() {
        assert_eq!(
            table(&[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
        let (short, mut long) = (Record::example(), Record::example());
        long.id = "a-longer-name".into();
        let mut states = [
            State::of(&short, Status::Running),
            State::of(&long, Status::Stopped),
        ];
        states[0].owner = "root".into();
        assert_eq!(
            table(&states),
            "ID              PID         STATUS      BUNDLE      CREATED                          OWNER\n\
             web             42          running     /b          2026-11-22T17:11:01.601975232Z   root\n\
             a-longer-name   0           stopped     /b          2026-11-22T17:11:01.601975232Z   \n"
        );
    }

    #[test]
    fn json_is_one_line_and_null_when_empty() {
        assert_eq!(json(&[]).unwrap(), "null\n");
        let record = Record::example();
        assert_eq!(
            json(&[State::of(&record, Status::Created)]).unwrap(),
            concat!(
                r#"[{"ociVersion":"1.3.0","id":"web","pid":42,"status":"created","bundle":"/b","#,
                r#""rootfs":"/b/rootfs","created":"2026-11-22T17:11:01.601975232Z","#,
                r#""annotations":{"a":"b"},"owner":""}]"#,
                "\n"
            )
        );
    }

    #[test]
    fn owners_are_named_as_passwd_does() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nweb:x:1000:1000::/:/bin/sh\n";
        for (uid, name) in [(0, Some("root")), (1000, Some("web")), (7, None)] {
            assert_eq!(name_in(passwd.as_bytes(), uid).as_deref(), name);
        }
    }
}
