//! How does an image come from a registry into the store? Manifest, then what it names, then the name.
//!
//! Nothing a registry says is believed: manifests and blobs are what their digests say, sizes are those of the
//! manifest, and a descriptor's `urls` are never fetched (CVE-2020-15157). A blob that breaks off is gone on with,
//! in this run and in the next; a blob that is here is not fetched.

use super::client::{Access, Call, Client, Hosts, expect, header};
use super::failure::{Again, Failure, Outcome, retrying};
use super::registries::Source;
use crate::image::digest::Digest;
use crate::image::manifest::{
    DOCUMENT_LIMIT, Descriptor, Document, Index, Manifest, REF_NAME, media_type,
};
use crate::image::platform::Platform;
use crate::image::progress::{Bar, Progress};
use crate::image::reference::Reference;
use crate::image::show;
use crate::image::store::{BlobWriter, Image, Ingest, Store};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use ureq::http::Method;

const BUFFER: usize = 128 << 10;

/// What is wanted of a name.
pub struct Wish {
    /// `None`: this machine's, and what has another is taken with a warning.
    pub platform: Option<Platform>,
    /// The whole index.
    pub all_platforms: bool,
    /// Blobs at once.
    pub jobs: usize,
}

pub struct Pulled {
    /// What the name leads to in the store: an image, or with all platforms the index.
    pub descriptor: Descriptor,
    /// The image's ID; of a whole index, its digest.
    pub id: Digest,
    /// What the registry has under the name: the index where there is one.
    pub digest: Digest,
    /// The name led here before.
    pub up_to_date: bool,
}

/// Pulls from the first place that has it.
pub fn pull(
    hosts: &Hosts,
    store: &Store,
    reference: &Reference,
    wish: &Wish,
    progress: &Progress,
) -> Result<Pulled> {
    let mut sources = hosts.registries.to_pull(reference)?.into_iter().peekable();
    while let Some(source) = sources.next() {
        let pulled = Pull {
            hosts,
            store,
            reference,
            wish,
            progress,
        }
        .from(&source);
        match pulled {
            Err(error) if sources.peek().is_some() => {
                let (from, next) = (
                    &source.registry,
                    sources.peek().map_or("", |next| &next.registry),
                );
                progress.say(&format!("{from}: {error:#}; trying {next}"));
            }
            other => return other.with_context(|| format!("pull {}", reference.familiar())),
        }
    }
    bail!(
        "{}: registries.conf leaves no place to pull it from",
        reference.familiar()
    )
}

struct Pull<'a> {
    hosts: &'a Hosts,
    store: &'a Store,
    reference: &'a Reference,
    wish: &'a Wish,
    progress: &'a Progress,
}

/// A manifest or an index, as it came.
struct Fetched {
    content: Vec<u8>,
    descriptor: Descriptor,
    document: Document,
}

impl Pull<'_> {
    fn from(&self, source: &Source) -> Result<Pulled> {
        // Nobody waits for a network to collect garbage.
        self.store.step_aside()?;
        let tell = |line: &str| self.progress.say(line);
        let client = Client::connect(self.hosts, source, Access::Pull, &tell)?;
        let top = self.document(&client, &self.reference.version(), None)?;
        let digest = top.descriptor.digest;
        let (descriptor, id) = match &top.document {
            Document::Manifest(manifest) => {
                let image = self.image(&client, &top, manifest)?;
                self.judge_platform(&image)?;
                (top.descriptor, image.id())
            }
            Document::Index(index) if self.wish.all_platforms => {
                self.all(&client, index)?;
                (
                    self.store
                        .put_manifest(&top.content, &top.descriptor.media_type)?,
                    digest,
                )
            }
            Document::Index(index) => {
                let chosen = self.choose(index)?;
                let found = self.document(&client, &chosen.digest.to_string(), Some(chosen))?;
                let Document::Manifest(manifest) = &found.document else {
                    bail!("{}: an index within an index", chosen.digest);
                };
                let image = self.image(&client, &found, manifest)?;
                (found.descriptor, image.id())
            }
        };
        let name = self.reference.to_string();
        let before = self.store.index()?;
        let up_to_date = (before.manifests.iter())
            .any(|had| had.digest == descriptor.digest && had.annotation(REF_NAME) == Some(&name));
        self.store.tag(&name, &descriptor)?;
        Ok(Pulled {
            descriptor,
            id,
            digest,
            up_to_date,
        })
    }

    fn document(
        &self,
        client: &Client<'_>,
        version: &str,
        announced: Option<&Descriptor>,
    ) -> Result<Fetched> {
        let asked = match announced {
            Some(descriptor) => Some(descriptor.digest),
            None => self.reference.digest,
        };
        let attempt = || client.manifest(version, asked.as_ref());
        let (content, kind) = retrying(attempt, || 0, &|line| self.progress.say(line))?;
        let context = || format!("manifest {version}");
        if let Some(announced) = announced {
            let len = content.len() as u64;
            ensure!(
                len == announced.size,
                "{}: {len} bytes came, {} were announced",
                context(),
                announced.size
            );
        }
        // Who announced it, and who sent it, mean the same document (CVE-2021-41190).
        let announced_kind = announced.map(|descriptor| descriptor.media_type.as_str());
        if let (Some(announced), Some(sent)) = (announced_kind, &kind) {
            ensure!(
                announced == sent,
                "{}: announced as {announced:?}, sent as {sent:?}",
                context()
            );
        }
        let kind = kind.as_deref().or(announced_kind);
        let document = Document::parse(&content, kind).with_context(context)?;
        let kind = match (kind, &document) {
            (Some(kind), _) => kind,
            (None, Document::Manifest(manifest)) => manifest
                .media_type
                .as_deref()
                .unwrap_or(media_type::MANIFEST),
            (None, Document::Index(index)) => {
                index.media_type.as_deref().unwrap_or(media_type::INDEX)
            }
        };
        let descriptor = Descriptor::of(kind, &content);
        Ok(Fetched {
            content,
            descriptor,
            document,
        })
    }

    fn choose<'i>(&self, index: &'i Index) -> Result<&'i Descriptor> {
        let host;
        let wanted = match &self.wish.platform {
            Some(platform) => platform,
            None => {
                host = Platform::host();
                &host
            }
        };
        let offers = || {
            index
                .manifests
                .iter()
                .map(|manifest| manifest.platform.as_ref())
        };
        let chosen = wanted.choose(offers()).map(|at| &index.manifests[at]);
        chosen.with_context(|| {
            let known = offers().flatten().filter(|offer| offer.os != "unknown");
            let known: Vec<String> = known.map(Platform::to_string).collect();
            format!(
                "no image for {wanted} in the index (there are {})",
                known.join(", ")
            )
        })
    }

    /// An image without an index has one platform, which may not be the wanted one.
    fn judge_platform(&self, image: &Image) -> Result<()> {
        let has = image.config.platform();
        match &self.wish.platform {
            Some(wanted) => ensure!(
                wanted.rank(&has).is_some(),
                "it is for {has}, not for {wanted}"
            ),
            None if Platform::host().rank(&has).is_none() => {
                show::warn(format!(
                    "{} is for {has}, this machine is {}",
                    self.reference.familiar(),
                    Platform::host()
                ));
            }
            None => {}
        }
        Ok(())
    }

    fn image(&self, client: &Client<'_>, fetched: &Fetched, manifest: &Manifest) -> Result<Image> {
        self.blobs(client, &[manifest])?;
        let descriptor = self
            .store
            .put_manifest(&fetched.content, &fetched.descriptor.media_type)?;
        self.store.image(&descriptor)
    }

    fn all(&self, client: &Client<'_>, index: &Index) -> Result<()> {
        let mut found = Vec::new();
        for descriptor in &index.manifests {
            let fetched =
                self.document(client, &descriptor.digest.to_string(), Some(descriptor))?;
            ensure!(
                matches!(fetched.document, Document::Manifest(_)),
                "{}: an index within an index",
                descriptor.digest
            );
            found.push(fetched);
        }
        let manifests: Vec<&Manifest> = found
            .iter()
            .filter_map(|fetched| match &fetched.document {
                Document::Manifest(manifest) => Some(manifest),
                Document::Index(_) => None,
            })
            .collect();
        self.blobs(client, &manifests)?;
        for fetched in &found {
            self.store
                .put_manifest(&fetched.content, &fetched.descriptor.media_type)?;
        }
        Ok(())
    }

    /// What the manifests name, each once, the largest first. Afterwards the store's lock is held again.
    fn blobs(&self, client: &Client<'_>, manifests: &[&Manifest]) -> Result<()> {
        let mut wanted: BTreeMap<Digest, &Descriptor> = BTreeMap::new();
        let mut work = Vec::new();
        for manifest in manifests {
            ensure!(
                manifest.config.size <= DOCUMENT_LIMIT,
                "config {}: {} bytes (at most {DOCUMENT_LIMIT})",
                manifest.config.digest,
                manifest.config.size
            );
            let parts = manifest
                .layers
                .iter()
                .map(|layer| ("layer", layer))
                .chain([("config", &manifest.config)]);
            for (what, part) in parts {
                match wanted.insert(part.digest, part) {
                    Some(twin) => ensure!(
                        twin.size == part.size,
                        "blob {}: has two sizes",
                        part.digest
                    ),
                    None => {
                        let label = format!("{what} {}", part.digest.short());
                        work.push((part, self.progress.bar(&label, Some(part.size))));
                    }
                }
            }
        }
        // The last to be taken goes first.
        work.sort_by_key(|(part, _)| part.size);
        self.store.step_in()?;
        let blobs: Vec<Digest> = wanted.into_keys().collect();
        let pledge = self.store.pledge(&blobs)?;
        self.store.step_aside()?;
        in_parallel(work, self.wish.jobs, |(part, bar), stop| {
            self.blob(client, part, bar, stop)
                .with_context(|| format!("blob {}", part.digest))
        })?;
        // From here on the lock keeps what the pledge kept.
        self.store.step_in()?;
        drop(pledge);
        Ok(())
    }

    fn blob(
        &self,
        client: &Client<'_>,
        part: &Descriptor,
        bar: Bar,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut wrong = None;
        // What an earlier run left may be damaged, and what came now too: the second time it is fetched whole.
        for _ in 0..2 {
            let Ingest::Missing(mut writer) = self.store.blob_writer(&part.digest, part.size)?
            else {
                bar.done("already here");
                return Ok(());
            };
            bar.reset(writer.len());
            let farthest = Cell::new(writer.len());
            let attempt = || {
                let outcome = client.blob(part, &mut writer, &bar, stop);
                farthest.set(farthest.get().max(writer.len()));
                outcome
            };
            let tell = |line: &str| {
                self.progress
                    .say(&format!("blob {}: {line}", part.digest.short()))
            };
            retrying(attempt, || farthest.get(), &tell)?;
            match writer.commit() {
                Ok(_) => {
                    bar.done("pulled");
                    return Ok(());
                }
                Err(error) => wrong = Some(error),
            }
        }
        Err(wrong.unwrap_or_else(|| anyhow!("was not fetched")))
    }
}

/// Does the work with so many threads, taking it from the end; the first error stops the rest.
pub(super) fn in_parallel<T: Send>(
    work: Vec<T>,
    jobs: usize,
    each: impl Fn(T, &AtomicBool) -> Result<()> + Sync,
) -> Result<()> {
    let threads = jobs.max(1).min(work.len());
    let queue = Mutex::new(work);
    let stop = AtomicBool::new(false);
    let failed = Mutex::new(None);
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(item) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop() else {
                return;
            };
            if let Err(error) = each(item, &stop) {
                // Those stopped for it fail too, but later.
                failed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    failed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

impl Client<'_> {
    /// A manifest or an index by tag or digest, and the media type it was sent as, where that says anything.
    fn manifest(
        &self,
        version: &str,
        digest: Option<&Digest>,
    ) -> Outcome<(Vec<u8>, Option<String>)> {
        let url = self.url(&format!("manifests/{version}"));
        let kinds = [
            media_type::INDEX,
            media_type::MANIFEST,
            media_type::DOCKER_INDEX,
            media_type::DOCKER_MANIFEST,
        ];
        let call = Call::new(Method::GET, url.clone()).header("accept", kinds.join(", "));
        let mut answer = expect(self.send(call, &[])?, &[200], "GET", &url)?;
        if let Some(len) = answer
            .body()
            .content_length()
            .filter(|len| *len > DOCUMENT_LIMIT)
        {
            return Err(
                anyhow!("{url}: a manifest of {len} bytes (at most {DOCUMENT_LIMIT})").into(),
            );
        }
        let mut content = Vec::new();
        let read = answer
            .body_mut()
            .as_reader()
            .take(DOCUMENT_LIMIT + 1)
            .read_to_end(&mut content);
        read.map_err(|error| Failure::of_reading(error, &url))?;
        if content.len() as u64 > DOCUMENT_LIMIT {
            return Err(anyhow!("{url}: a manifest of more than {DOCUMENT_LIMIT} bytes").into());
        }
        let has = Digest::of(&content);
        if let Some(wanted) = digest.filter(|wanted| **wanted != has) {
            return Err(
                anyhow!("{url}: the content has digest {has}, {wanted} was asked for").into(),
            );
        }
        let said = header(answer.headers(), "docker-content-digest")
            .filter(|said| said.starts_with("sha256:"));
        if let Some(said) = said.filter(|said| **said != has.to_string()) {
            return Err(
                anyhow!("{url}: the content has digest {has}, {said:?} was announced").into(),
            );
        }
        let kind = header(answer.headers(), "content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        // What a plain file server says of any file.
        let vague = [
            "",
            "application/json",
            "application/octet-stream",
            "text/plain",
        ]
        .contains(&kind);
        Ok((content, (!vague).then(|| kind.to_owned())))
    }

    /// Goes on with a blob, once; what came before an error stays written.
    fn blob(
        &self,
        part: &Descriptor,
        writer: &mut BlobWriter,
        bar: &Bar,
        stop: &AtomicBool,
    ) -> Outcome<()> {
        let have = writer.len();
        if have == part.size {
            return Ok(());
        }
        let url = self.url(&format!("blobs/{}", part.digest));
        let mut call = Call::new(Method::GET, url.clone());
        if have > 0 {
            call = call.header("range", format!("bytes={have}-"));
        }
        let answer = self.send(call, &[])?;
        if answer.status() == 416 {
            writer.restart()?;
            bar.reset(0);
            return Err(Failure::later(anyhow!(
                "GET {url}: the registry has less than we have"
            )));
        }
        let answer = expect(answer, &[200, 206], "GET", &url)
            .map_err(|failure| explain_urls(failure, part))?;
        if let Some(encoding) =
            header(answer.headers(), "content-encoding").filter(|it| *it != "identity")
        {
            return Err(anyhow!(
                "{url}: sent with Content-Encoding {encoding:?}, which nobody asked for"
            )
            .into());
        }
        let begins = match answer.status().as_u16() {
            206 => header(answer.headers(), "content-range")
                .and_then(range_start)
                .unwrap_or(u64::MAX),
            _ => 0,
        };
        if begins != have {
            // Ranges are not known there, or another one was sent.
            writer.restart()?;
            bar.reset(0);
        }
        if begins != 0 && begins != have {
            return Err(Failure::later(anyhow!(
                "GET {url}: another range was sent than asked for"
            )));
        }
        if let Some(len) = answer
            .body()
            .content_length()
            .filter(|len| *len != part.size - begins)
        {
            return Err(anyhow!(
                "{url}: {len} bytes were to come, {} are announced",
                part.size - begins
            )
            .into());
        }
        let mut reader = answer.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(anyhow!("stopped, since another blob failed").into());
            }
            let n = match reader
                .read(&mut buffer)
                .map_err(|error| Failure::of_reading(error, &url))?
            {
                0 => break,
                n => n,
            };
            writer
                .write_all(&buffer[..n])
                .map_err(anyhow::Error::from)?;
            bar.add(n as u64);
        }
        if writer.len() < part.size {
            let len = writer.len();
            return Err(Failure::later(anyhow!(
                "GET {url}: ended after {len} of {} bytes",
                part.size
            )));
        }
        Ok(())
    }
}

/// A layer that its registry does not have, because it may not be distributed.
fn explain_urls(failure: Failure, part: &Descriptor) -> Failure {
    match &part.urls {
        Some(urls) if failure.status == Some(404) && !urls.is_empty() => Failure {
            again: Again::Never,
            ..failure
        }
        .context("a layer kept elsewhere (urls), from where nothing is fetched"),
        _ => failure,
    }
}

/// The first byte of `Content-Range: bytes 5-9/10`.
fn range_start(text: &str) -> Option<u64> {
    text.trim()
        .strip_prefix("bytes")?
        .trim_start()
        .split('-')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_where_it_begins() {
        for (text, expected) in [
            ("bytes 5-9/10", Some(5)),
            ("bytes 0-9/*", Some(0)),
            ("bytes */10", None),
            ("items 5-9/10", None),
            ("", None),
        ] {
            assert_eq!(range_start(text), expected, "{text}");
        }
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let done = Mutex::new(Vec::new());
        let outcome = in_parallel((0..100).collect(), 1, |item: u32, _| {
            done.lock().unwrap().push(item);
            ensure!(item != 97, "not {item}");
            Ok(())
        });
        assert_eq!(outcome.unwrap_err().to_string(), "not 97");
        assert_eq!(*done.lock().unwrap(), [99, 98, 97]);
        assert!(in_parallel(Vec::<u32>::new(), 3, |_, _| Ok(())).is_ok());
    }
}
