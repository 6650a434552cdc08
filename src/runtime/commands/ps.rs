//! `ps`: which processes are in a container? Their pids as JSON, or ps(1)'s lines about them.

use super::say;
use crate::runtime::cli::{Global, ListFormat};
use crate::runtime::container::Container;
use crate::runtime::status::Status;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::process::Command;

/// `options` are those of ps(1), for the table.
pub fn ps(global: &Global, id: &str, format: ListFormat, options: &[OsString]) -> Result<()> {
    let container = Container::load(&global.root, id)?;
    let pids = match container.cgroup()? {
        Some(cgroup) => cgroup.pids(true)?,
        None if container.status()? == Status::Stopped => Vec::new(),
        None => bail!(
            "unable to get all container pids: container {id} has no cgroup (none was delegated to \
             the user who created it)"
        ),
    };
    match format {
        ListFormat::Json => say(&json(&pids)?),
        ListFormat::Table => say(&of_container(&table(options)?, &pids)?),
    }
}

/// `null` for none: what Go makes of an empty list.
fn json(pids: &[i32]) -> Result<String> {
    match pids {
        [] => Ok("null\n".to_owned()),
        _ => Ok(serde_json::to_string(pids)? + "\n"),
    }
}

/// What ps(1) says of all processes.
fn table(options: &[OsString]) -> Result<String> {
    let default = [OsString::from("-ef")];
    let options = if options.is_empty() {
        &default
    } else {
        options
    };
    let output = Command::new("ps")
        .args(options)
        .output()
        .context("run ps: is it installed (package procps), and in $PATH?")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        bail!("ps: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The header, and the lines about `pids`.
fn of_container(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|title| title == "PID") else {
        bail!("couldn't find PID field in ps output: let ps print a column PID (-o pid,…)");
    };
    let mut kept = format!("{header}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let pid = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = pid
            .parse()
            .with_context(|| format!("unable to parse pid {pid:?} in the ps line {line:?}"))?;
        if pids.contains(&pid) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
UID          PID    PPID CMD
root           1       0 init
root          42       1 sleep 600

root         142      42 sleep 42
";

    #[test]
    fn the_header_and_the_containers_lines_are_kept() {
        for (pids, expected) in [
            (&[][..], "UID          PID    PPID CMD\n"),
            (
                &[42],
                "UID          PID    PPID CMD\nroot          42       1 sleep 600\n",
            ),
            (
                &[142, 42],
                "UID          PID    PPID CMD\nroot          42       1 sleep 600\n\
                 root         142      42 sleep 42\n",
            ),
        ] {
            assert_eq!(of_container(TABLE, pids).unwrap(), expected);
        }
        assert_eq!(
            of_container("  PID\n    7\n", &[7]).unwrap(),
            "  PID\n    7\n"
        );
    }

    #[test]
    fn a_table_without_pids_is_an_error() {
        for (table, why) in [
            (
                "COMMAND\ninit\n",
                "couldn't find PID field in ps output: let ps print a column PID (-o pid,…)",
            ),
            (
                "",
                "couldn't find PID field in ps output: let ps print a column PID (-o pid,…)",
            ),
            (
                "UID PID\nroot x\n",
                "unable to parse pid \"x\" in the ps line \"root x\": invalid digit found in string",
            ),
            (
                "UID PID\nroot\n",
                "unable to parse pid \"\" in the ps line \"root\": cannot parse integer from empty string",
            ),
        ] {
            assert_eq!(format!("{:#}", of_container(table, &[1]).unwrap_err()), why);
        }
    }

    #[test]
    fn no_process_is_null_as_go_has_it() {
        assert_eq!(json(&[]).unwrap(), "null\n");
        assert_eq!(json(&[4232, 7]).unwrap(), "[4232,7]\n");
    }
}
