//! Which image is meant? A name, an ID, a digest, or the beginning of one.

use super::{Image, Store};
use crate::image::digest::Digest;
use crate::image::manifest::{Descriptor, Document, REF_NAME, media_type};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use anyhow::{Result, bail, ensure};

/// An entry of index.json, its image read where that is possible.
pub struct Listed {
    /// Every name that this content has; empty for what lost its name to another.
    pub names: Vec<String>,
    pub descriptor: Descriptor,
    /// For this machine, of an index of several.
    pub image: Result<Image>,
}

impl Store {
    /// The image that `text` means: a name (`busybox`, `docker.io/library/busybox:latest`), a digest, or
    /// the beginning of an ID. A name wins over an ID, as with docker. Of an index, the image for
    /// `platform`.
    pub fn find(&self, text: &str, platform: &Platform) -> Result<Image> {
        let (names, descriptor) = self.find_entry(text)?;
        let manifest = self.choose(&descriptor, platform)?;
        let mut image = self.image(&manifest)?;
        image.names = names;
        Ok(image)
    }

    /// The entry of index.json that `text` means, and all names of its content.
    pub fn find_entry(&self, text: &str) -> Result<(Vec<String>, Descriptor)> {
        let index = self.index()?.manifests;
        let with_names = |found: &Descriptor| {
            let same = index.iter().filter(|d| d.digest == found.digest);
            let names = same.filter_map(|d| d.annotation(REF_NAME).map(str::to_owned));
            (names.collect(), found.clone())
        };
        for name in spellings(text) {
            if let Some(found) = index.iter().find(|d| d.annotation(REF_NAME) == Some(&name)) {
                return Ok(with_names(found));
            }
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        // The digest of `name@sha256:…` may be that of an image with another name only: not that one.
        if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(|c| c.is_ascii_hexdigit()) {
            bail!("{text}: no such image");
        }
        let mut found: Vec<&Descriptor> = Vec::new();
        for descriptor in &index {
            let known = found.iter().any(|other| other.digest == descriptor.digest);
            if !known && self.begins(descriptor, hex) {
                found.push(descriptor);
            }
        }
        match found[..] {
            [] => bail!("{text}: no such image"),
            [one] => Ok(with_names(one)),
            _ => bail!("{text}: begins the ID of {} images", found.len()),
        }
    }

    fn begins(&self, descriptor: &Descriptor, hex: &str) -> bool {
        let begins = |digest: &Digest| digest.hex().starts_with(hex);
        begins(&descriptor.digest)
            || self
                .choose(descriptor, &Platform::host())
                .and_then(|manifest| self.image(&manifest))
                .is_ok_and(|image| begins(&image.id()))
    }

    /// Of an index, the manifest for a platform; a manifest itself.
    pub fn choose(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Descriptor> {
        let mut descriptor = descriptor.clone();
        // An index may hold indexes; none needs more than two.
        for _ in 0..3 {
            if !media_type::is_index(&descriptor.media_type) {
                return Ok(descriptor);
            }
            let content = self.read_blob(&descriptor)?;
            let Document::Index(index) = Document::parse(&content, Some(&descriptor.media_type))?
            else {
                bail!("{}: not an index", descriptor.digest);
            };
            // What was left out of an index that was fetched in part cannot be chosen.
            let here: Vec<Descriptor> = index
                .manifests
                .into_iter()
                .filter(|d| self.has(&d.digest))
                .collect();
            let offers = here.iter().map(|d| d.platform.as_ref());
            let chosen = platform.choose(offers).or((here.len() == 1).then_some(0));
            let Some(at) = chosen else {
                let has: Vec<String> = here
                    .iter()
                    .filter_map(|d| Some(d.platform.as_ref()?.to_string()))
                    .collect();
                bail!("no image for {platform} (there are: {})", has.join(", "));
            };
            descriptor = here[at].clone();
        }
        bail!("{}: indexes in indexes", descriptor.digest)
    }

    /// All entries of index.json, those of the same content together.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let index = self.index()?.manifests;
        let mut listed: Vec<Listed> = Vec::new();
        for descriptor in index {
            let name = descriptor.annotation(REF_NAME).map(str::to_owned);
            if let Some(known) = listed
                .iter_mut()
                .find(|l| l.descriptor.digest == descriptor.digest)
            {
                known.names.extend(name);
                continue;
            }
            let image = self
                .choose(&descriptor, &Platform::host())
                .and_then(|manifest| self.image(&manifest));
            listed.push(Listed {
                names: name.into_iter().collect(),
                descriptor,
                image,
            });
        }
        Ok(listed)
    }

    /// Takes a name, or all names when `text` is an ID, from an image. Gives what is said of it: the
    /// names, and whether content without a name is left for the collection of garbage.
    pub fn untag(&self, text: &str, force: bool) -> Result<Vec<String>> {
        let (names, descriptor) = self.find_entry(text)?;
        let spelled = spellings(text);
        let by_name: Vec<String> = names
            .iter()
            .filter(|name| spelled.contains(name))
            .cloned()
            .collect();
        let gone = if by_name.is_empty() {
            names
        } else {
            by_name.clone()
        };
        ensure!(
            !by_name.is_empty() || gone.len() <= 1 || force,
            "{text}: the image has several names ({}): name one, or use --force",
            gone.join(", ")
        );
        self.change_index(|index| {
            let before = index.manifests.len();
            index.manifests.retain(|d| {
                let name = d.annotation(REF_NAME);
                let named = name.is_some_and(|name| gone.iter().any(|gone| gone == name));
                let unnamed = name.is_none() && by_name.is_empty();
                d.digest != descriptor.digest || !(named || unnamed)
            });
            ensure!(index.manifests.len() < before, "{text}: no such image");
            Ok(())
        })?;
        Ok(gone)
    }
}

/// The whole names that a short one may stand for, best first: as docker has it, then local images.
pub fn spellings(text: &str) -> Vec<String> {
    let Ok(reference) = text.parse::<Reference>() else {
        return Vec::new();
    };
    let mut names = vec![reference.to_string()];
    let short = !text
        .split('/')
        .next()
        .is_some_and(|first| first.contains(['.', ':']))
        || !text.contains('/');
    if short && let Ok(local) = format!("localhost/{text}").parse::<Reference>() {
        names.push(local.to_string());
    }
    // `name:tag@digest` is kept as `name@digest`.
    if reference.digest.is_some() && reference.tag.is_some() {
        names.push(
            Reference {
                tag: None,
                ..reference
            }
            .to_string(),
        );
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_may_be_docker_hubs_or_a_local_images() {
        for (text, expected) in [
            (
                "busybox",
                &[
                    "docker.io/library/busybox:latest",
                    "localhost/busybox:latest",
                ][..],
            ),
            ("a/b:1", &["docker.io/a/b:1", "localhost/a/b:1"]),
            ("quay.io/a/b", &["quay.io/a/b:latest"]),
            ("UPPER", &[]),
        ] {
            assert_eq!(spellings(text), expected, "{text}");
        }
    }
}
