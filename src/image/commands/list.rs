//! `list`: which images are here?

use crate::clock;
use crate::image::cli::Global;
use crate::image::reference::Reference;
use crate::image::show;
use crate::image::store::{Image, Listed, Store};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

/// List images
#[derive(Debug, Args)]
#[command(visible_aliases = ["ls", "images"])]
pub struct List {
    /// Only this name, or names of this repository
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// `json`: an object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Digests of manifests too
    #[arg(long)]
    digests: bool,
    /// IDs in full
    #[arg(long)]
    no_trunc: bool,
    /// dangling=BOOL, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

/// One line: an image under one of its names.
struct Row {
    name: Option<Reference>,
    digest: String,
    image: Image,
    created: i64,
}

impl List {
    pub fn run(&self, global: &Global) -> Result<()> {
        let store = global.store()?;
        let filters: Vec<Filter> = self
            .filter
            .iter()
            .map(|text| Filter::parse(text, &store))
            .collect::<Result<_>>()?;
        let mut rows = Vec::new();
        for listed in store.list()? {
            rows.extend(rows_of(listed));
        }
        rows.retain(|row| self.is_meant(row) && filters.iter().all(|filter| filter.takes(row)));
        rows.sort_by_key(|row| (-row.created, row.name.as_ref().map(Reference::to_string)));
        show::print(&self.text(&rows))
    }

    fn is_meant(&self, row: &Row) -> bool {
        let Some(wanted) = &self.name else {
            return true;
        };
        let Some(name) = &row.name else {
            return false;
        };
        match wanted
            .rsplit_once('/')
            .map_or(wanted.as_str(), |(_, last)| last)
            .contains(':')
        {
            true => name.familiar() == *wanted || name.to_string() == *wanted,
            false => name.familiar_name() == *wanted || name.name() == *wanted,
        }
    }

    fn text(&self, rows: &[Row]) -> String {
        let id = |row: &Row| match self.no_trunc {
            true => row.image.id().to_string(),
            false => row.image.id().short(),
        };
        if self.quiet {
            let mut ids: Vec<String> = rows.iter().map(|row| id(row) + "\n").collect();
            ids.dedup();
            return ids.concat();
        }
        if self.format == Format::Json {
            return rows
                .iter()
                .map(|row| row.json().to_string() + "\n")
                .collect();
        }
        let mut head = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
        if self.digests {
            head.insert(2, "DIGEST");
        }
        let lines = rows.iter().map(|row| {
            let (repository, tag) = row.columns();
            let created = show::age(row.image.config.created.as_deref());
            let mut line = vec![
                repository,
                tag,
                id(row),
                created,
                show::size(row.image.size()),
            ];
            if self.digests {
                line.insert(2, row.digest.clone());
            }
            line
        });
        show::table(&head, &lines.collect::<Vec<_>>())
    }
}

fn rows_of(listed: Listed) -> Vec<Row> {
    let digest = listed.descriptor.digest.to_string();
    let image = match listed.image {
        Ok(image) => image,
        Err(e) => {
            let name = listed.names.first().unwrap_or(&digest);
            show::warn(format_args!("{name}: {e:#}"));
            return Vec::new();
        }
    };
    let created = image
        .config
        .created
        .as_deref()
        .and_then(clock::parse)
        .unwrap_or(0);
    let row = |name| Row {
        name,
        digest: digest.clone(),
        image: image.clone(),
        created,
    };
    if listed.names.is_empty() {
        return vec![row(None)];
    }
    listed
        .names
        .iter()
        .map(|name| row(name.parse().ok()))
        .collect()
}

impl Row {
    fn columns(&self) -> (String, String) {
        let none = || "<none>".to_owned();
        let Some(name) = &self.name else {
            return (none(), none());
        };
        (name.familiar_name(), name.tag.clone().unwrap_or_else(none))
    }

    /// docker's keys.
    fn json(&self) -> serde_json::Value {
        let (repository, tag) = self.columns();
        json!({
            "ID": self.image.id(),
            "Repository": repository,
            "Tag": tag,
            "Digest": self.digest,
            "CreatedAt": self.image.config.created,
            "CreatedSince": show::age(self.image.config.created.as_deref()),
            "Size": self.image.size(),
            "Platform": self.image.config.platform().to_string(),
        })
    }
}

/// docker's filters.
enum Filter {
    Dangling(bool),
    Reference(String),
    Label(String, Option<String>),
    Before(i64),
    Since(i64),
}

impl Filter {
    fn parse(text: &str, store: &Store) -> Result<Filter> {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("--filter {text}: is not KEY=VALUE"))?;
        let created = || -> Result<i64> {
            let image = store.find(value, &crate::image::platform::Platform::host())?;
            let created = image.config.created.as_deref().and_then(clock::parse);
            created.with_context(|| format!("--filter {text}: the image has no date"))
        };
        Ok(match key {
            "dangling" => {
                Filter::Dangling(value.parse().with_context(|| format!("--filter {text}"))?)
            }
            "reference" => Filter::Reference(value.to_owned()),
            "label" => match value.split_once('=') {
                Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
                None => Filter::Label(value.to_owned(), None),
            },
            "before" => Filter::Before(created()?),
            "since" => Filter::Since(created()?),
            _ => bail!("--filter {text}: known are dangling, reference, label, before, since"),
        })
    }

    fn takes(&self, row: &Row) -> bool {
        match self {
            Filter::Dangling(dangling) => row.name.is_none() == *dangling,
            Filter::Reference(pattern) => row.name.as_ref().is_some_and(|name| {
                let with_tag = pattern
                    .rsplit('/')
                    .next()
                    .is_some_and(|last| last.contains(':'));
                let spelled = match with_tag {
                    true => [name.familiar(), name.to_string()],
                    false => [name.familiar_name(), name.name()],
                };
                spelled
                    .iter()
                    .any(|spelled| matches(pattern.as_bytes(), spelled.as_bytes()))
            }),
            Filter::Label(key, value) => {
                let found = row.image.config.config.labels.get(key);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
            Filter::Before(created) => row.created < *created,
            Filter::Since(created) => row.created > *created,
        }
    }
}

/// `*` and `?`, which do not stand for a slash, as in docker's patterns.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) if matches(&pattern[1..], text) => true,
        (Some(b'*'), Some(c)) if *c != b'/' => matches(pattern, &text[1..]),
        (Some(b'?'), Some(c)) if *c != b'/' => matches(&pattern[1..], &text[1..]),
        (Some(p), Some(c)) if p == c && *p != b'*' => matches(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_do_not_cross_slashes() {
        for (pattern, text, expected) in [
            ("busy*", "busybox", true),
            ("b?sybox:*", "busybox:1", true),
            ("*", "a/b", false),
            ("a/*", "a/b", true),
            ("", "", true),
            ("a*", "b", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
