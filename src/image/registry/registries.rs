//! Where is an image really fetched from? registries.conf as containers-registries.conf(5) has it, version 2:
//! prefixes with a location, mirrors, `insecure` and `blocked`.
//!
//! Not used of it: `unqualified-search-registries`, `short-name-mode` and aliases (a short name is docker's
//! here, always), and `credential-helpers` (docker's config.json names them).

use crate::image::reference::{Reference, check_registry};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Replaces the files of user and system, as in the containers tools.
const NAMED_BY: &str = "CONTAINERS_REGISTRIES_CONF";

/// What is configured of registries.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default, rename = "mirror")]
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFromMirror,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Deserialize)]
struct File {
    #[serde(default, rename = "registry")]
    entries: Vec<Entry>,
    /// Version 1's only table.
    registries: Option<toml::Value>,
}

/// One place to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Host and port.
    pub registry: String,
    pub repository: String,
    /// TLS need not be verified, and plain HTTP is good enough.
    pub insecure: bool,
    pub mirror: bool,
}

impl Registries {
    /// Reads the user's file, or else the system's, each with the `registries.conf.d/*.conf` beside it.
    ///
    /// # Errors
    /// A file that cannot be read or understood, by its name.
    pub fn load() -> Result<Registries> {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(file) = get(NAMED_BY) {
            let file = PathBuf::from(file);
            let entries = read(&file)?.with_context(|| {
                format!("{}: no such file ({NAMED_BY} names it)", file.display())
            })?;
            return Ok(Registries { entries });
        }
        let dirs = places(&get, "containers");
        let mut entries = Vec::new();
        // One main file, but the drop-ins of all places: those of the user last, so that they win.
        for dir in &dirs {
            if let Some(found) = read(&dir.join("registries.conf"))? {
                entries = found;
                break;
            }
        }
        for dir in dirs.iter().rev() {
            for file in drop_ins(&dir.join("registries.conf.d"))? {
                override_with(&mut entries, read(&file)?.unwrap_or_default());
            }
        }
        Ok(Registries { entries })
    }

    fn parse(text: &str) -> Result<Vec<Entry>> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            anyhow::anyhow!("line {line}: {}", error.message())
        })?;
        ensure!(
            file.registries.is_none(),
            "[registries.…] is version 1 of the format; write [[registry]] tables (containers-registries.conf(5))"
        );
        for entry in &file.entries {
            entry.check()?;
        }
        Ok(file.entries)
    }

    /// The places an image may be pulled from, most wanted first: mirrors, then its own.
    ///
    /// # Errors
    /// The registry is blocked by the configuration, or a rewritten name is none.
    pub fn to_pull(&self, reference: &Reference) -> Result<Vec<Source>> {
        let Some(entry) = self.entry(&reference.name()) else {
            return Ok(vec![Source::plain(reference)]);
        };
        entry.refuse_blocked(reference)?;
        let by_digest = reference.digest.is_some();
        let mut sources = Vec::new();
        for mirror in &entry.mirrors {
            let wanted = match mirror.pull_from_mirror {
                PullFromMirror::All => by_digest || !entry.mirror_by_digest_only,
                PullFromMirror::DigestOnly => by_digest,
                PullFromMirror::TagOnly => !by_digest,
            };
            if wanted {
                sources.push(entry.source(
                    reference,
                    Some(&mirror.location),
                    mirror.insecure,
                    true,
                )?);
            }
        }
        sources.push(entry.source(reference, entry.location.as_deref(), entry.insecure, false)?);
        Ok(sources)
    }

    /// The one place an image is pushed to: never a mirror.
    ///
    /// # Errors
    /// As [`Registries::to_pull`].
    pub fn to_push(&self, reference: &Reference) -> Result<Source> {
        match self.entry(&reference.name()) {
            None => Ok(Source::plain(reference)),
            Some(entry) => {
                entry.refuse_blocked(reference)?;
                entry.source(reference, entry.location.as_deref(), entry.insecure, false)
            }
        }
    }

    /// Is this registry configured as insecure? For those that no image's name led to, such as a redirect's.
    pub fn insecure(&self, registry: &str) -> bool {
        let entry = self.entry(registry).is_some_and(|entry| {
            entry.insecure
                && entry
                    .location
                    .as_deref()
                    .is_none_or(|location| host(location) == registry)
        });
        let located = self.entries.iter().any(|entry| {
            entry.insecure && entry.location.as_deref().map(host) == Some(registry)
                || (entry.mirrors.iter())
                    .any(|mirror| mirror.insecure && host(&mirror.location) == registry)
        });
        entry || located
    }

    /// The entry whose prefix is the longest that fits.
    fn entry(&self, name: &str) -> Option<&Entry> {
        let fits = |entry: &&Entry| fit(entry.prefix(), name).is_some();
        self.entries
            .iter()
            .filter(fits)
            .max_by_key(|entry| entry.prefix().len())
    }
}

impl Entry {
    fn prefix(&self) -> &str {
        let given = self.prefix.as_deref().filter(|prefix| !prefix.is_empty());
        given.or(self.location.as_deref()).unwrap_or_default()
    }

    fn check(&self) -> Result<()> {
        ensure!(
            !self.prefix().is_empty(),
            "[[registry]]: neither prefix nor location"
        );
        let locations = self
            .location
            .iter()
            .chain(self.mirrors.iter().map(|mirror| &mirror.location));
        for location in locations.filter(|location| !location.is_empty()) {
            ensure!(
                !location.contains("://") && !location.ends_with('/'),
                "location {location:?}: without scheme and without a / at its end, please"
            );
            check_registry(host(location)).with_context(|| format!("location {location:?}"))?;
        }
        for mirror in &self.mirrors {
            ensure!(
                !mirror.location.is_empty(),
                "[[registry.mirror]] of {:?}: no location",
                self.prefix()
            );
        }
        Ok(())
    }

    fn refuse_blocked(&self, reference: &Reference) -> Result<()> {
        if self.blocked {
            bail!(
                "{}: blocked by {:?} in registries.conf",
                reference.familiar(),
                self.prefix()
            );
        }
        Ok(())
    }

    fn source(
        &self,
        reference: &Reference,
        location: Option<&str>,
        insecure: bool,
        mirror: bool,
    ) -> Result<Source> {
        let name = reference.name();
        let fit = fit(self.prefix(), &name).unwrap_or_default();
        let moved = match location.filter(|location| !location.is_empty()) {
            Some(location) => format!("{location}{}", &name[fit..]),
            None => name.clone(),
        };
        let (registry, repository) = moved
            .split_once('/')
            .filter(|(_, repository)| !repository.is_empty())
            .with_context(|| {
                format!("registries.conf makes {moved:?} of {name}, which is not an image's name")
            })?;
        Ok(Source {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            insecure,
            mirror,
        })
    }
}

impl Source {
    fn plain(reference: &Reference) -> Source {
        Source {
            registry: reference.registry.clone(),
            repository: reference.repository.clone(),
            insecure: false,
            mirror: false,
        }
    }
}

/// How many bytes of `name` a prefix covers: whole components only, `*.` any subdomain.
fn fit(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = host(name);
        return (host.len() > domain.len() && host.ends_with(domain)).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/') || rest.starts_with(':')).then_some(prefix.len())
}

fn host(location: &str) -> &str {
    location.split_once('/').map_or(location, |(host, _)| host)
}

/// The directories `name` has for configuration, the user's first.
pub fn places(get: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Vec<PathBuf> {
    let config = get("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(get("HOME")?).join(".config")));
    let own = config.map(|dir| dir.join(name));
    own.into_iter()
        .chain([Path::new("/etc").join(name)])
        .collect()
}

/// Of two entries for one prefix the later counts.
fn override_with(entries: &mut Vec<Entry>, later: Vec<Entry>) {
    for entry in later {
        entries.retain(|earlier| earlier.prefix() != entry.prefix());
        entries.push(entry);
    }
}

fn read(file: &Path) -> Result<Option<Vec<Entry>>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    Registries::parse(&text)
        .with_context(|| file.display().to_string())
        .map(Some)
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = match std::fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| dir.display().to_string()),
    };
    let files: std::io::Result<Vec<PathBuf>> = listed.map(|entry| Ok(entry?.path())).collect();
    let mut files = files.with_context(|| dir.display().to_string())?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "conf")
    });
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const CONF: &str = r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        location = "lab.example:5000"
        insecure = true
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example/hub"
        [[registry.mirror]]
        location = "127.0.0.1:5001"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/internal"
        location = "in.example/x"
        [[registry]]
        prefix = "*.corp.example"
        blocked = true
        [[registry]]
        prefix = "old.example"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "new.example"
    "#;

    fn pulled_from(name: &str) -> Result<Vec<String>> {
        let registries = Registries {
            entries: Registries::parse(CONF)?,
        };
        let sources = registries.to_pull(&name.parse()?)?;
        let show = |source: Source| {
            let insecure = if source.insecure { " insecure" } else { "" };
            format!("{}/{}{insecure}", source.registry, source.repository)
        };
        Ok(sources.into_iter().map(show).collect())
    }

    #[test]
    fn mirrors_come_first_and_prefixes_are_replaced() {
        let cases: &[(&str, &[&str])] = &[
            ("other.example/a", &["other.example/a"]),
            ("lab.example:5000/a", &["lab.example:5000/a insecure"]),
            ("lab.example/a", &["lab.example/a"]),
            (
                "alpine",
                &[
                    "mirror.example/hub/library/alpine",
                    "docker.io/library/alpine",
                ],
            ),
            (
                "alpine@sha256:H",
                &[
                    "mirror.example/hub/library/alpine",
                    "127.0.0.1:5001/library/alpine insecure",
                    "docker.io/library/alpine",
                ],
            ),
            ("internal/a", &["in.example/x/a"]),
            (
                "internals/a",
                &["mirror.example/hub/internals/a", "docker.io/internals/a"],
            ),
            ("old.example/a", &["old.example/a"]),
            (
                "old.example/a@sha256:H",
                &["new.example/a", "old.example/a"],
            ),
            ("corp.example/a", &["corp.example/a"]),
        ];
        for (name, expected) in cases {
            assert_eq!(
                pulled_from(&name.replace('H', HEX)).unwrap(),
                *expected,
                "{name}"
            );
        }
    }

    #[test]
    fn a_blocked_registry_is_refused_for_pull_and_push() {
        let error = pulled_from("a.corp.example/x").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "a.corp.example/x:latest: blocked by \"*.corp.example\" in registries.conf"
        );
        let registries = Registries {
            entries: Registries::parse(CONF).unwrap(),
        };
        assert!(
            registries
                .to_push(&"a.corp.example/x".parse().unwrap())
                .is_err()
        );
    }

    #[test]
    fn nothing_is_pushed_to_a_mirror() {
        let registries = Registries {
            entries: Registries::parse(CONF).unwrap(),
        };
        let place = registries.to_push(&"alpine".parse().unwrap()).unwrap();
        assert_eq!(
            (place.registry.as_str(), place.mirror),
            ("docker.io", false)
        );
    }

    #[test]
    fn a_redirects_host_is_insecure_only_if_configured() {
        let registries = Registries {
            entries: Registries::parse(CONF).unwrap(),
        };
        for (host, expected) in [
            ("lab.example:5000", true),
            ("127.0.0.1:5001", true),
            ("lab.example", false),
            ("mirror.example", false),
        ] {
            assert_eq!(registries.insecure(host), expected, "{host}");
        }
    }

    #[test]
    fn a_broken_file_says_where() {
        let cases = [
            (
                "a = 1\n[[registry]]\nlocation = 5\n",
                "line 3: invalid type: integer `5`, expected a string",
            ),
            (
                "[[registry]]\ninsecure = true\n",
                "[[registry]]: neither prefix nor location",
            ),
            (
                "[[registry]]\nlocation = \"https://a.example\"\n",
                "location \"https://a.example\": without scheme and without a / at its end, please",
            ),
            (
                "[registries.search]\nregistries = []\n",
                "[registries.…] is version 1 of the format; write [[registry]] tables (containers-registries.conf(5))",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                format!("{:#}", Registries::parse(text).unwrap_err()),
                expected
            );
        }
    }

    #[test]
    fn of_two_entries_the_later_file_counts() {
        let mut entries = Registries::parse("[[registry]]\nlocation = \"a.example\"\n").unwrap();
        let later = "[[registry]]\nlocation = \"a.example\"\nblocked = true\n";
        override_with(&mut entries, Registries::parse(later).unwrap());
        assert_eq!(entries.len(), 1);
        assert!(entries[0].blocked);
    }
}
