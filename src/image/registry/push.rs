//! How does an image go from the store to a registry? What it names, if it is not there, then its manifest.
//!
//! A blob that the registry has, or has in another repository from which it can be mounted (distribution-spec,
//! "Mounting a blob from another repository"), is not sent.

use super::client::{Access, Call, Client, Content, Hosts, expect, header};
use super::failure::{Failure, Outcome, retrying};
use super::pull::in_parallel;
use super::url::Url;
use crate::image::digest::Digest;
use crate::image::manifest::{Descriptor, Document, Index, Manifest, REF_NAME};
use crate::image::progress::{Bar, Progress};
use crate::image::reference::Reference;
use crate::image::store::Store;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering};
use ureq::http::{Method, Response};

/// Pushes what the store has under this name; says what that is.
pub fn push(
    hosts: &Hosts,
    store: &Store,
    reference: &Reference,
    jobs: usize,
    progress: &Progress,
) -> Result<Descriptor> {
    let name = reference.to_string();
    let index = store.index()?;
    let named = index
        .manifests
        .iter()
        .find(|descriptor| descriptor.annotation(REF_NAME) == Some(&name));
    let descriptor = named.with_context(|| {
        format!(
            "no image here is called {}: sc-image tag gives it this name",
            reference.familiar()
        )
    })?;
    let source = hosts.registries.to_push(reference)?;
    let tell = |line: &str| progress.say(line);
    let push = || {
        let client = Client::connect(hosts, &source, Access::Push, &tell)?;
        let elsewhere = elsewhere(hosts, store, &index, &client);
        let push = Push {
            store,
            client,
            elsewhere,
            jobs,
            progress,
        };
        push.document(
            descriptor,
            reference
                .tag
                .as_deref()
                .unwrap_or(&descriptor.digest.to_string()),
        )
    };
    push().with_context(|| format!("push {}", reference.familiar()))?;
    Ok(descriptor.clone())
}

struct Push<'a> {
    store: &'a Store,
    client: Client<'a>,
    /// Repositories of the same registry that, as far as we know, have a blob.
    elsewhere: BTreeMap<Digest, BTreeSet<String>>,
    jobs: usize,
    progress: &'a Progress,
}

/// Where the registry may have our blobs already: in the repositories of other images here.
fn elsewhere(
    hosts: &Hosts,
    store: &Store,
    index: &Index,
    client: &Client<'_>,
) -> BTreeMap<Digest, BTreeSet<String>> {
    let mut found: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for descriptor in &index.manifests {
        let name = descriptor
            .annotation(REF_NAME)
            .and_then(|name| name.parse::<Reference>().ok());
        let Some(place) = name.and_then(|name| hosts.registries.to_push(&name).ok()) else {
            continue;
        };
        if place.registry != client.source.registry || place.repository == client.source.repository
        {
            continue;
        }
        // A damaged image is no help here, and no hindrance either.
        let Ok(image) = store.image(descriptor) else {
            continue;
        };
        for layer in image.manifest.layers {
            found
                .entry(layer.digest)
                .or_default()
                .insert(place.repository.clone());
        }
    }
    found
}

impl Push<'_> {
    fn document(&self, descriptor: &Descriptor, version: &str) -> Result<()> {
        let content = self.store.read_blob(descriptor)?;
        match Document::parse(&content, Some(&descriptor.media_type))? {
            Document::Manifest(manifest) => self.blobs(&manifest)?,
            Document::Index(index) => {
                for part in &index.manifests {
                    if !self.store.has(&part.digest) {
                        let platform = part
                            .platform
                            .as_ref()
                            .map(|platform| format!(" for {platform}"));
                        bail!(
                            "the image{} of the index is not here: pull it with --all-platforms",
                            platform.unwrap_or_default()
                        );
                    }
                    self.document(part, &part.digest.to_string())?;
                }
            }
        }
        let tell = |line: &str| self.progress.say(line);
        Ok(retrying(
            || self.client.put_manifest(version, descriptor, &content),
            || 0,
            &tell,
        )?)
    }

    fn blobs(&self, manifest: &Manifest) -> Result<()> {
        let mut seen = BTreeSet::new();
        let parts = manifest
            .layers
            .iter()
            .map(|layer| ("layer", layer))
            .chain([("config", &manifest.config)]);
        let parts = parts.filter(|(_, part)| seen.insert(part.digest));
        let mut work: Vec<(&Descriptor, Bar)> = parts
            .map(|(what, part)| {
                (
                    part,
                    self.progress
                        .bar(&format!("{what} {}", part.digest.short()), Some(part.size)),
                )
            })
            .collect();
        work.sort_by_key(|(part, _)| part.size);
        in_parallel(work, self.jobs, |(part, bar), stop| {
            self.blob(part, bar, stop)
                .with_context(|| format!("blob {}", part.digest))
        })
    }

    fn blob(&self, part: &Descriptor, bar: Bar, stop: &AtomicBool) -> Result<()> {
        let tell = |line: &str| {
            self.progress
                .say(&format!("blob {}: {line}", part.digest.short()))
        };
        let exists = retrying(|| self.client.has_blob(&part.digest), || 0, &tell)?;
        if exists {
            bar.done("already there");
            return Ok(());
        }
        let from = self
            .elsewhere
            .get(&part.digest)
            .and_then(|places| places.first());
        if let Some(from) = from
            // Whatever is wrong with mounting, sending may work.
            && self.client.mount(&part.digest, from).unwrap_or(false)
        {
            bar.done("mounted");
            return Ok(());
        }
        let mut content = Counted {
            file: self.store.open_blob(part)?,
            bar: &bar,
            stop,
        };
        retrying(|| self.client.send_blob(part, &mut content), || 0, &tell)?;
        bar.done("pushed");
        Ok(())
    }
}

/// A file with a bar that follows.
struct Counted<'a> {
    file: File,
    bar: &'a Bar,
    stop: &'a AtomicBool,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("stopped, since another blob failed"));
        }
        let n = self.file.read(buffer)?;
        self.bar.add(n as u64);
        Ok(n)
    }
}

impl Client<'_> {
    fn has_blob(&self, digest: &Digest) -> Outcome<bool> {
        let url = self.url(&format!("blobs/{digest}"));
        let answer = self.send(Call::new(Method::HEAD, url.clone()), &[])?;
        match expect(answer, &[200], "HEAD", &url) {
            Ok(_) => Ok(true),
            Err(Failure {
                status: Some(404), ..
            }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Has the registry take a blob from another of its repositories; did it?
    fn mount(&self, digest: &Digest, from: &str) -> Outcome<bool> {
        let url = self
            .url("blobs/uploads/")
            .with_query("mount", &digest.to_string())
            .with_query("from", from);
        let answer = self.send(Call::new(Method::POST, url.clone()), &[from])?;
        // 202: it has begun an upload instead, which it forgets in time.
        let answer = expect(answer, &[201, 202], "POST", &url)?;
        Ok(answer.status() == 201)
    }

    /// Sends a blob: an upload is begun, and ended with all its content. (What an upload that broke had brought is lost:
    /// docker-registry, for one, does not go on with it.)
    fn send_blob(&self, part: &Descriptor, content: &mut Counted<'_>) -> Outcome<()> {
        let begin = self.url("blobs/uploads/");
        let answer = self.send(Call::new(Method::POST, begin.clone()), &[])?;
        let answer = expect(answer, &[202], "POST", &begin)?;
        let location = header(answer.headers(), "location").with_context(|| {
            format!("{begin}: the answer does not say where to send the content (Location)")
        })?;
        let end = begin
            .join(location)
            .with_context(|| format!("{begin}: Location"))?;
        let end = end.with_query("digest", &part.digest.to_string());
        content.bar.reset(0);
        content.file.rewind().map_err(anyhow::Error::from)?;
        let call = Call::new(Method::PUT, end.clone())
            .header("content-type", "application/octet-stream")
            .body(Content::Stream(content, part.size));
        let answer = expect(self.send(call, &[])?, &[201, 204], "PUT", &end)?;
        check_digest(&answer, &end, &part.digest)
    }

    fn put_manifest(&self, version: &str, descriptor: &Descriptor, content: &[u8]) -> Outcome<()> {
        let url = self.url(&format!("manifests/{version}"));
        let call =
            Call::new(Method::PUT, url.clone()).header("content-type", &descriptor.media_type);
        let answer = expect(
            self.send(call.body(Content::Bytes(content)), &[])?,
            &[201, 202],
            "PUT",
            &url,
        )?;
        check_digest(&answer, &url, &descriptor.digest)
    }
}

/// What the registry says it has is what it was sent.
fn check_digest<T>(answer: &Response<T>, url: &Url, digest: &Digest) -> Outcome<()> {
    match header(answer.headers(), "docker-content-digest") {
        Some(said) if said != digest.to_string() => Err(anyhow!(
            "PUT {url}: the registry says it has digest {said:?}, {digest} was sent"
        )
        .into()),
        _ => Ok(()),
    }
}
