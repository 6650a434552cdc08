//! `commit`: what a container changed, as a layer on top of its image.

use super::diff;
use crate::engine::cli::Global;
use crate::engine::now::{self, Now};
use crate::engine::programs;
use crate::engine::record::{Home, Record};
use crate::engine::rootfs::is_by_fuse;
use crate::show::printable;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;
use std::process::Stdio;

/// Make an image of a container's changes
#[derive(Debug, Args)]
pub struct Commit {
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// A word about it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// An instruction of a Dockerfile, such as 'CMD ["sh"]' or 'ENV A=1'
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Pause the container meanwhile [true, where it can be paused]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: Option<bool>,
    /// Name, id or beginning of the id
    container: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Commit {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let record = home.find(&self.container)?;
        ensure!(
            !record.lower.is_empty(),
            "{}: it was made from a bundle, which has no layers",
            record.name
        );
        let running = now::now(&home, &record)? == Now::Running;
        let mut paused = false;
        if running && self.pause != Some(false) {
            match programs::call(&home, &record, &["pause", &record.id]) {
                Ok(()) => paused = true,
                Err(e) if self.pause.is_some() => return Err(e),
                // Without root it may have no cgroup.
                Err(e) => eprintln!(
                    "sc: the container goes on meanwhile: {}",
                    printable(&format!("{e:#}"))
                ),
            }
        }
        let made = self.make(&home, &record);
        if paused {
            // It may have been killed meanwhile.
            let _ = programs::call(&home, &record, &["resume", &record.id]);
        }
        made.map(|()| 0)
    }

    fn make(&self, home: &Home, record: &Record) -> Result<()> {
        let dir = home.dir(&record.id);
        let mut command = programs::image(&home.root);
        command.arg("commit");
        for (option, value) in [("--author", &self.author), ("--message", &self.message)] {
            if let Some(value) = value {
                command.arg(format!("{option}={value}"));
            }
        }
        for instruction in instructions(record).iter().chain(&self.change) {
            command.arg(format!("--change={instruction}"));
        }
        command.args(is_by_fuse(&dir).then_some("--fuse"));
        if let Some(kept) = record.kept {
            command.arg(format!("--kept={kept}"));
        }
        // The runtime made places for mounts there.
        for path in diff::mounted(&dir)? {
            command.arg("--without").arg(path);
        }
        command
            .arg("--")
            .arg(&record.image_id)
            .arg(dir.join("upper"))
            .args(&self.name);
        let output = command
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped());
        let output = output.output().context("execute sc-image")?;
        programs::said(&output)
    }
}

/// What was typed when the container was made, as instructions of a Dockerfile: docker keeps it.
fn instructions(record: &Record) -> Vec<String> {
    let typed = &record.typed;
    let mut all = Vec::new();
    if let Some(program) = &typed.entrypoint {
        let words: Vec<&String> = [program].into_iter().filter(|p| !p.is_empty()).collect();
        all.push(format!("ENTRYPOINT {}", json!(words)));
    }
    // With an entrypoint of its own it had not the image's command.
    if typed.entrypoint.is_some() || !typed.command.is_empty() {
        all.push(format!("CMD {}", json!(typed.command)));
    }
    let quoted = |entry: &str| entry.replace('\\', "\\\\").replace('"', "\\\"");
    let env = typed.env.iter();
    all.extend(env.map(|entry| format!("ENV \"{}\"", quoted(entry))));
    let labels = record.labels.iter().filter(|(key, _)| !key.is_empty());
    all.extend(
        labels.map(|(key, value)| format!("LABEL \"{}\"", quoted(&format!("{key}={value}")))),
    );
    all.extend(typed.workdir.iter().map(|dir| format!("WORKDIR {dir}")));
    all.extend(typed.user.iter().map(|user| format!("USER {user}")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::Typed;

    #[test]
    fn what_was_typed_is_kept_and_nothing_else() {
        let typed = |entrypoint: Option<&str>, command: &[&str]| Record {
            typed: Typed {
                entrypoint: entrypoint.map(str::to_owned),
                command: command.iter().map(ToString::to_string).collect(),
                ..Typed::default()
            },
            ..Record::default()
        };
        for (record, expected) in [
            (Record::default(), &[][..]),
            (typed(None, &["a", "b c"]), &[r#"CMD ["a","b c"]"#]),
            (typed(Some("/x"), &[]), &[r#"ENTRYPOINT ["/x"]"#, "CMD []"]),
            (typed(Some(""), &["a"]), &["ENTRYPOINT []", r#"CMD ["a"]"#]),
        ] {
            assert_eq!(instructions(&record), expected);
        }
        let mut record = Record::default();
        record.typed.env = ["A=1", "B=", r#"C=x "y" \z"#].map(str::to_owned).to_vec();
        record.typed.workdir = Some("/a b".to_owned());
        record.typed.user = Some("joe:8".to_owned());
        record.labels.insert("k".to_owned(), "v w".to_owned());
        let expected = [
            r#"ENV "A=1""#,
            r#"ENV "B=""#,
            r#"ENV "C=x \"y\" \\z""#,
            r#"LABEL "k=v w""#,
            "WORKDIR /a b",
            "USER joe:8",
        ];
        assert_eq!(instructions(&record), expected);
    }
}
