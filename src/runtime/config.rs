//! What does the bundle's config.json say? Bytes to runtime-spec's types, or to the name of the
//! value that is wrong.
//!
//! One typed pass reads nearly every file. Only when it refuses is the text read once more, as a
//! tree: [`mend`] applies what engines and runc are used to and oci-spec's types are too strict
//! for, each with its reason, and the tree is read into the types again. Whether the values make
//! sense together is not asked here but in [`super::validate`].

mod mend;
mod strict;

use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A config.json beyond this is a mistake or an attack: the largest that engines write (a few
/// hundred mounts and a seccomp profile) are a hundredth of it.
const LARGEST: u64 = 16 << 20;

/// A config.json that was read.
pub struct Loaded {
    pub spec: Spec,
    /// What was tolerated, and should be repaired.
    pub warnings: Vec<String>,
    /// The file as it was.
    pub raw: Vec<u8>,
}

/// Reads `bundle`/config.json.
///
/// Errors name the JSON path of the value that is wrong, or line and column where it is not JSON.
pub fn load(bundle: &Path) -> Result<Loaded> {
    let path = bundle.join("config.json");
    // Not blocking: a FIFO in its place would be waited for forever.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&path);
    let file = match opened {
        // runc's words, which engines look for.
        Err(e) if e.kind() == ErrorKind::NotFound => bail!(
            "JSON specification file config.json not found in {}",
            bundle.display()
        ),
        other => other.with_context(|| format!("open {}", path.display()))?,
    };
    let raw = read(file).with_context(|| format!("{}", path.display()))?;
    let (spec, warnings) = parse(&raw).context("config.json")?;
    Ok(Loaded {
        spec,
        warnings,
        raw,
    })
}

/// All of a regular file, in one read.
fn read(mut file: File) -> Result<Vec<u8>> {
    let facts = file.metadata()?;
    ensure!(facts.is_file(), "is not a regular file");
    ensure!(
        facts.len() <= LARGEST,
        "has {} bytes; more than {LARGEST} are refused",
        facts.len()
    );
    let mut text = vec![0; facts.len() as usize];
    file.read_exact(&mut text)?;
    Ok(text)
}

/// The text of a config.json; with it, warnings about what was tolerated.
pub fn parse(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    understand(text, "", mend::spec)
}

/// The text of a process alone (`exec --process`). Fields are named as in config.json.
pub fn parse_process(text: &[u8]) -> Result<(Process, Vec<String>)> {
    understand(text, "process", mend::process)
}

fn understand<T: DeserializeOwned>(
    text: &[u8],
    root: &str,
    mend: fn(&mut Value, &mut Vec<String>),
) -> Result<(T, Vec<String>)> {
    ensure!(
        text.len() as u64 <= LARGEST,
        "has {} bytes; more than {LARGEST} are refused",
        text.len()
    );
    let mut reader = serde_json::Deserializer::from_slice(text);
    let first = match strict::read(&mut reader) {
        Ok(value) => {
            reader.end().map_err(|e| anyhow!("is not JSON: {e}"))?;
            return Ok((value, Vec::new()));
        }
        Err(refused) => refused,
    };
    // Not JSON at all, or too deep: said before what a half-read document lacks.
    let mut tree: Value = serde_json::from_slice(text).map_err(|e| anyhow!("is not JSON: {e}"))?;
    let mut warnings = Vec::new();
    if first.error.to_string().starts_with("duplicate field") {
        // As everywhere else, Go included; but two readers may differ, so it is said.
        warnings.push(format!(
            "{}: {}; the last one counts",
            place(root, &first.path),
            first.error
        ));
    }
    mend(&mut tree, &mut warnings);
    match strict::read::<T, _>(tree) {
        Ok(value) => Ok((value, warnings)),
        // The first pass knows line and column of the same value.
        Err(second) if second.path == first.path => Err(complaint(root, &first)),
        Err(second) => Err(complaint(root, &second)),
    }
}

/// One line, whatever the document holds.
fn complaint(root: &str, refused: &strict::Refused<serde_json::Error>) -> anyhow::Error {
    let text = refused.error.to_string();
    let mut path = refused.path.clone();
    let missing = text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'));
    let text = match missing {
        Some((field, _)) => {
            strict::push_key(&mut path, field);
            "is missing".to_owned()
        }
        None => text,
    };
    match place(root, &path) {
        path if path.is_empty() => anyhow!("{}", short(&text)),
        path => anyhow!("{}: {}", short(&path), short(&text)),
    }
}

fn place(root: &str, path: &str) -> String {
    match (root, path) {
        ("", path) => path.to_owned(),
        (root, "") => root.to_owned(),
        (root, path) if path.starts_with('[') => format!("{root}{path}"),
        (root, path) => format!("{root}.{path}"),
    }
}

/// At most 300 characters, none of which starts a new line or speaks to a terminal.
fn short(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == 300 {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}
