//! `system df`: what takes how much of the disk, and how much of it could go? A layer counts once, however many images
//! have it; sizes are those on disk, of a layer both packed and unpacked.

use super::ps::{self, size};
use crate::engine::cli::Global;
use crate::engine::now;
use crate::engine::programs;
use crate::engine::record::{Home, Record, short};
use crate::engine::table::{Column, Format};
use crate::engine::volumes;
use crate::show;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Debug, Args)]
pub struct Df {
    /// Each image, container and volume
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    format: Format,
}

const SUMS: [Column; 5] = [
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

const IMAGES: [Column; 8] = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
];

const CONTAINERS: [Column; 8] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("SIZE", "Size"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
];

const VOLUMES: [Column; 3] = [
    ("VOLUME NAME", "Name"),
    ("LINKS", "Links"),
    ("SIZE", "Size"),
];

/// A kind of things: its row, and one for each of them.
struct Kind {
    sum: Value,
    each: Vec<Value>,
}

impl Df {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let records = home.list()?;
        let images = Images::read(&home)?.kind(&records);
        let containers = containers(&home, &records);
        let volumes = volumes(&home, &records)?;
        let text = match (self.verbose, self.format.format.as_deref()) {
            (false, _) => {
                let sums = [images.sum, containers.sum, volumes.sum];
                self.format.list(&SUMS, &sums)?
            }
            (true, None) => [
                titled("Images", &IMAGES, &images.each)?,
                titled("Containers", &CONTAINERS, &containers.each)?,
                titled("Local Volumes", &VOLUMES, &volumes.each)?,
            ]
            .join("\n"),
            (true, Some("json")) => {
                let all = json!({
                    "Images": images.each,
                    "Containers": containers.each,
                    "Volumes": volumes.each,
                });
                format!("{all}\n")
            }
            (true, Some(_)) => bail!("--verbose: of --format only json goes with it"),
        };
        show::print(&text)?;
        Ok(0)
    }
}

/// As docker has it.
fn titled(kind: &str, columns: &[Column], rows: &[Value]) -> Result<String> {
    let table = Format::default().list(columns, rows)?;
    Ok(format!("{kind} space usage:\n\n{table}"))
}

/// docker's row of a kind, of which so much could go.
fn sum(kind: &str, total: usize, active: usize, size: u64, reclaimable: u64) -> Value {
    let percent = (reclaimable * 100).checked_div(size);
    let part = percent.map_or(String::new(), |percent| format!(" ({percent}%)"));
    json!({
        "Type": kind,
        "TotalCount": total.to_string(),
        "Active": active.to_string(),
        "Size": show::size(size),
        "Reclaimable": show::size(reclaimable) + &part,
    })
}

fn containers(home: &Home, records: &[Record]) -> Kind {
    let (mut each, mut all, mut idle, mut active) = (Vec::new(), 0, 0, 0);
    for record in records {
        // One whose state cannot be told is not called idle.
        let now = now::now(home, record).unwrap_or(now::Now::Running);
        let size = size(&home.dir(&record.id));
        all += size;
        match now.is_alive() {
            true => active += 1,
            false => idle += size,
        }
        let mut row = ps::row(home, record, &now, false);
        row["Size"] = show::size(size).into();
        each.push(row);
    }
    let sum = sum("Containers", records.len(), active, all, idle);
    Kind { sum, each }
}

fn volumes(home: &Home, records: &[Record]) -> Result<Kind> {
    let (mut each, mut all, mut unused, mut active) = (Vec::new(), 0, 0, 0);
    for volume in volumes::list(home)? {
        let size = size(&volumes::data(home, &volume.name));
        let users = volumes::users(&volume.name, records).len();
        all += size;
        match users {
            0 => unused += size,
            _ => active += 1,
        }
        each.push(json!({
            "Name": volume.name,
            "Links": users.to_string(),
            "Size": show::size(size),
        }));
    }
    let sum = sum("Local Volumes", each.len(), active, all, unused);
    Ok(Kind { sum, each })
}

/// What sc-image says of its images, and what their layers take.
#[derive(Default)]
struct Images {
    /// A line of `sc-image list`: an image under one of its names.
    names: Vec<Value>,
    /// The layers of an image, by its id.
    layers: BTreeMap<String, BTreeSet<String>>,
    /// By chain id.
    sizes: BTreeMap<String, u64>,
    /// Of what no image has, too.
    total: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Layer {
    #[serde(rename = "ChainID")]
    chain_id: String,
    digest: String,
}

impl Images {
    fn read(home: &Home) -> Result<Images> {
        let mut images = Images {
            total: size(&home.root.join("layers")) + size(&home.root.join("image")),
            ..Images::default()
        };
        let list = ask(home, &["list", "--format", "json"])?;
        for line in list.lines() {
            let name: Value = serde_json::from_str(line).context("sc-image list")?;
            images.names.push(name);
        }
        let ids: BTreeSet<&str> = images
            .names
            .iter()
            .filter_map(|name| name["ID"].as_str())
            .collect();
        if ids.is_empty() {
            return Ok(images);
        }
        let words: Vec<&str> = ["inspect"].into_iter().chain(ids).collect();
        let inspected: Vec<Inspected> =
            serde_json::from_str(&ask(home, &words)?).context("sc-image inspect")?;
        for image in inspected {
            images.add(&home.root, image);
        }
        Ok(images)
    }

    fn add(&mut self, root: &Path, image: Inspected) {
        let hex = |id: &str| id.split_once(':').map_or(id, |(_, hex)| hex).to_owned();
        let mut chain = BTreeSet::new();
        for layer in image.layers {
            let packed = root.join("image/blobs/sha256").join(hex(&layer.digest));
            let unpacked = root.join("layers").join(hex(&layer.chain_id));
            self.sizes.entry(layer.chain_id.clone()).or_insert_with(|| {
                fs::metadata(packed).map_or(0, |meta| meta.blocks() * 512) + size(&unpacked)
            });
            chain.insert(layer.chain_id);
        }
        self.layers.insert(image.id, chain);
    }

    fn kind(&self, records: &[Record]) -> Kind {
        let users = |id: &str| {
            records
                .iter()
                .filter(|record| record.image_id == id)
                .count()
        };
        let active: Vec<&BTreeSet<String>> = self
            .layers
            .iter()
            .filter_map(|(id, layers)| (users(id) > 0).then_some(layers))
            .collect();
        // What a container stands on stays, and what it shares with images that none stands on.
        let kept: BTreeSet<&String> = active.iter().copied().flatten().collect();
        let kept: u64 = kept.iter().map(|layer| self.sizes[*layer]).sum();
        Kind {
            sum: sum(
                "Images",
                self.layers.len(),
                active.len(),
                self.total,
                self.total.saturating_sub(kept),
            ),
            each: self
                .names
                .iter()
                .map(|name| self.row(name, &users))
                .collect(),
        }
    }

    fn row(&self, name: &Value, users: &impl Fn(&str) -> usize) -> Value {
        let id = name["ID"].as_str().unwrap_or_default();
        let (mut shared, mut own) = (0, 0);
        for layer in self.layers.get(id).into_iter().flatten() {
            let owners = self.layers.values().filter(|layers| layers.contains(layer));
            *match owners.count() {
                0 | 1 => &mut own,
                _ => &mut shared,
            } += self.sizes[layer];
        }
        let mut row = name.clone();
        row["ID"] = short(id.trim_start_matches("sha256:")).into();
        row["Size"] = show::size(shared + own).into();
        row["SharedSize"] = show::size(shared).into();
        row["UniqueSize"] = show::size(own).into();
        row["Containers"] = users(id).to_string().into();
        row
    }
}

/// sc-image, and what it says.
fn ask(home: &Home, words: &[&str]) -> Result<String> {
    let output = programs::image(&home.root).args(words).output();
    let output = output.context("execute sc-image")?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => bail!("{}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        let layers = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        Images {
            names: vec![
                json!({ "ID": "sha256:a", "Repository": "a", "CreatedSince": "2 hours ago" }),
                json!({ "ID": "sha256:b", "Repository": "b", "CreatedSince": "2 days ago" }),
            ],
            layers: [
                ("sha256:a".to_owned(), layers(&["base", "x"])),
                ("sha256:b".to_owned(), layers(&["base", "y"])),
            ]
            .into(),
            sizes: [("base", 1000), ("x", 20), ("y", 300)]
                .map(|(id, size)| (id.to_owned(), size))
                .into(),
            total: 1320,
        }
    }

    #[test]
    fn a_layer_of_two_images_counts_once() {
        let record = Record {
            image_id: "sha256:a".to_owned(),
            ..Record::default()
        };
        for (records, active, reclaimable) in [
            (&[][..], "0", "1.32kB (100%)"),
            (&[record.clone(), record], "1", "300B (22%)"),
        ] {
            let kind = images().kind(records);
            assert_eq!(kind.sum["Size"], "1.32kB");
            assert_eq!(kind.sum["Active"], active);
            assert_eq!(kind.sum["Reclaimable"], reclaimable);
            let of = |key: &str| (kind.each[0][key].clone(), kind.each[1][key].clone());
            assert_eq!(of("Size"), (json!("1.02kB"), json!("1.3kB")));
            assert_eq!(of("SharedSize"), (json!("1kB"), json!("1kB")));
            assert_eq!(of("UniqueSize"), (json!("20B"), json!("300B")));
        }
    }
}
