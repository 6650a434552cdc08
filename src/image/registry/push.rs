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
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use ureq::http::Method;

/// A blob up to this size is sent with the request that ends its upload; a larger one in one of its own, after whose
/// failure the registry can be asked how far it came.
const SMALL: u64 = 1 << 20;

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
        let file = self.store.open_blob(part)?;
        let mut upload = Upload {
            client: &self.client,
            part,
            file,
            bar: &bar,
            stop,
            session: None,
            mount: None,
        };
        upload.mount = self
            .elsewhere
            .get(&part.digest)
            .and_then(|repositories| repositories.first().cloned());
        let farthest = Cell::new(0);
        let attempt = || {
            let outcome = upload.attempt(&farthest);
            if outcome.is_err() {
                upload.mount = None;
            }
            outcome
        };
        let how = retrying(attempt, || farthest.get(), &tell)?;
        bar.done(how);
        Ok(())
    }
}

/// One blob on its way out.
struct Upload<'a> {
    client: &'a Client<'a>,
    part: &'a Descriptor,
    file: File,
    bar: &'a Bar,
    stop: &'a AtomicBool,
    /// Where the registry wants the rest of what it has a part of.
    session: Option<Url>,
    mount: Option<String>,
}

impl Upload<'_> {
    /// Mounts or sends the blob; after a failure, goes on where the registry says.
    fn attempt(&mut self, farthest: &Cell<u64>) -> Outcome<&'static str> {
        let (session, have) = match self.session.take() {
            Some(session) => match self.taken_up(&session) {
                Some(progress) => progress,
                None => (self.begin_plain()?, 0),
            },
            None => match self.begin()? {
                Some(session) => (session, 0),
                None => return Ok("mounted"),
            },
        };
        self.bar.reset(have);
        farthest.set(farthest.get().max(have));
        self.file
            .seek(SeekFrom::Start(have))
            .map_err(anyhow::Error::from)?;
        if self.part.size <= SMALL {
            self.finish(&session, self.part.size - have)?;
            return Ok("pushed");
        }
        let rest = if have < self.part.size {
            self.send_rest(session, have)?
        } else {
            session
        };
        farthest.set(self.part.size);
        self.finish(&rest, 0)?;
        Ok("pushed")
    }

    /// Begins an upload; `None` if the registry could mount the blob instead.
    fn begin(&self) -> Outcome<Option<Url>> {
        let Some(from) = self.mount.as_deref() else {
            return self.begin_plain().map(Some);
        };
        let uploads = self.client.url("blobs/uploads/");
        let url = uploads
            .with_query("mount", &self.part.digest.to_string())
            .with_query("from", from);
        let answer = self
            .client
            .send(Call::new(Method::POST, url.clone()), &[from])?;
        let answer = expect(answer, &[201, 202], "POST", &url)?;
        match answer.status().as_u16() {
            201 => Ok(None),
            _ => location(&answer, &url).map(Some),
        }
    }

    fn begin_plain(&self) -> Outcome<Url> {
        let url = self.client.url("blobs/uploads/");
        let answer = self
            .client
            .send(Call::new(Method::POST, url.clone()), &[])?;
        location(&expect(answer, &[202], "POST", &url)?, &url)
    }

    /// How much of a broken upload the registry has; `None` if it does not know it any more.
    fn taken_up(&self, session: &Url) -> Option<(Url, u64)> {
        let answer = self
            .client
            .send(Call::new(Method::GET, session.clone()), &[])
            .ok()?;
        let answer = expect(answer, &[204], "GET", session).ok()?;
        let range = header(answer.headers(), "range")?;
        let last: u64 = range.rsplit('-').next()?.parse().ok()?;
        // `0-0` is said of nothing as well as of one byte.
        let have = if last == 0 { 0 } else { last + 1 };
        let next = location(&answer, session).unwrap_or_else(|_| session.clone());
        (have <= self.part.size).then_some((next, have))
    }

    /// Sends all from `have` on; gives where the upload is to be ended.
    fn send_rest(&mut self, session: Url, have: u64) -> Outcome<Url> {
        self.session = Some(session.clone());
        let rest = self.part.size - have;
        let mut call = Call::new(Method::PATCH, session.clone())
            .header("content-type", "application/octet-stream");
        if have > 0 {
            call = call.header("content-range", format!("{have}-{}", self.part.size - 1));
        }
        let mut reader = Counted {
            file: &self.file,
            left: rest,
            bar: self.bar,
            stop: self.stop,
        };
        let answer = self
            .client
            .send(call.body(Content::Stream(&mut reader, rest)), &[])?;
        let answer = expect(answer, &[202], "PATCH", &session)?;
        let next = location(&answer, &session)?;
        self.session = Some(next.clone());
        Ok(next)
    }

    /// Ends the upload, with the last bytes; the registry verifies the digest.
    fn finish(&mut self, session: &Url, rest: u64) -> Outcome<()> {
        let url = session
            .clone()
            .with_query("digest", &self.part.digest.to_string());
        let call =
            Call::new(Method::PUT, url.clone()).header("content-type", "application/octet-stream");
        let mut bytes = Vec::new();
        if rest > 0 {
            let mut reader = Counted {
                file: &self.file,
                left: rest,
                bar: self.bar,
                stop: self.stop,
            };
            reader
                .read_to_end(&mut bytes)
                .map_err(anyhow::Error::from)?;
        }
        let answer = self.client.send(call.body(Content::Bytes(&bytes)), &[])?;
        let answer = expect(answer, &[201, 204], "PUT", &url)?;
        match header(answer.headers(), "docker-content-digest") {
            Some(said) if said != self.part.digest.to_string() => {
                Err(anyhow!("PUT {url}: the registry says the content has digest {said:?}").into())
            }
            _ => Ok(()),
        }
    }
}

/// So much of a file, with a bar that follows.
struct Counted<'a> {
    file: &'a File,
    left: u64,
    bar: &'a Bar,
    stop: &'a AtomicBool,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("stopped, since another blob failed"));
        }
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read(&mut buffer[..most])?;
        self.left -= n as u64;
        self.bar.add(n as u64);
        Ok(n)
    }
}

fn location<T>(answer: &ureq::http::Response<T>, url: &Url) -> Outcome<Url> {
    let location = header(answer.headers(), "location").with_context(|| {
        format!("{url}: the answer does not say where to send the content (Location)")
    })?;
    Ok(url
        .join(location)
        .with_context(|| format!("{url}: Location"))?)
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
        match header(answer.headers(), "docker-content-digest") {
            Some(said) if said != descriptor.digest.to_string() => Err(anyhow!(
                "PUT {url}: the registry says the manifest has digest {said:?}, ours has {}",
                descriptor.digest
            )
            .into()),
            _ => Ok(()),
        }
    }
}
