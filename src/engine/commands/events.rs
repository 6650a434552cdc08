//! `events`: what happened, and what happens.

use crate::clock;
use crate::engine::cli::Global;
use crate::engine::events::{self, Event};
use crate::engine::filter::Filters;
use crate::engine::record::Home;
use crate::engine::template::Template;
use crate::engine::times;
use crate::show;
use anyhow::{Context, Result};
use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Print what happens to containers, volumes and networks
#[derive(Debug, Args)]
pub struct Events {
    /// From a time on, or since so long: 2026-01-31T12:00:00Z, 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to a time, and end there
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// container, event, image, label, type, volume, network
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, or a template like '{{.Action}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const KEYS: [&str; 7] = [
    "container",
    "event",
    "image",
    "label",
    "type",
    "volume",
    "network",
];

impl Events {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let filters = Filters::parse(&self.filter, &KEYS)?;
        let time = |option: &str, text: &Option<String>| {
            let nanos = text.as_deref().map(times::parse);
            nanos.transpose().with_context(|| option.to_owned())
        };
        let since = time("--since", &self.since)?;
        let until = time("--until", &self.until)?;
        let template = match self.format.as_deref() {
            None => None,
            Some("json") => Some(Template::parse("{{json .}}")?),
            Some(text) => Some(Template::parse(text)?),
        };
        let show = |event: &Event| -> Result<bool> {
            let in_time = since.is_none_or(|since| event.time_nano >= since)
                && until.is_none_or(|until| event.time_nano <= until);
            match in_time && matches(&filters, event) {
                true => print(event, template.as_ref()),
                false => Ok(true),
            }
        };
        follow(&home, since.is_some() || until.is_some(), until, show)
    }
}

/// Past events where they are asked for, then new ones; ends at `until`, or when nobody reads.
fn follow(
    home: &Home,
    past: bool,
    until: Option<i64>,
    show: impl Fn(&Event) -> Result<bool>,
) -> Result<u8> {
    // Watched before it is read: nothing falls between. The directory, as the file may be exchanged.
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    watch.add_watch(&home.root, flags)?;
    let path = events::path(home);
    let mut file = open(&path)?;
    let mut known = match &file {
        Some(file) => file.get_ref().metadata()?.len(),
        None => 0,
    };
    if past {
        for event in events::past(home)? {
            if !show(&event)? {
                return Ok(0);
            }
        }
    }
    if let Some(file) = &mut file {
        use std::io::Seek;
        // What came while the past was read is in it.
        if past {
            known = file.get_ref().metadata()?.len();
        }
        file.seek(std::io::SeekFrom::Start(known))?;
    }
    let mut text = String::new();
    loop {
        while let Some(lines) = &mut file {
            lines.read_line(&mut text)?;
            if !text.ends_with('\n') {
                break;
            }
            if let Ok(event) = serde_json::from_str(&std::mem::take(&mut text))
                && !show(&event)?
            {
                return Ok(0);
            }
        }
        // It may have become the old one.
        let current = std::fs::metadata(&path).map(|meta| meta.ino()).ok();
        let ours = file
            .as_ref()
            .and_then(|file| Some(file.get_ref().metadata().ok()?.ino()));
        if current.is_some() && current != ours {
            file = open(&path)?;
            continue;
        }
        let left = until.map(|until| (until - clock::nanos()).max(0) / 1_000_000 + 1);
        if until.is_some_and(|until| clock::nanos() > until) {
            return Ok(0);
        }
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.min(i64::from(i32::MAX)) as i32).unwrap_or(PollTimeout::NONE)
        });
        match poll(
            &mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        // What woke us is read for its own sake.
        let _ = watch.read_events();
    }
}

fn open(path: &std::path::Path) -> Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let attribute = |key: &str| event.actor.attributes.get(key).map(String::as_str);
    let named = |kind: &'static str| {
        move |wanted: &str| {
            event.kind == kind
                && (event.actor.id.starts_with(wanted) || attribute("name") == Some(wanted))
        }
    };
    filters.allow("type", |wanted| event.kind == wanted)
        && filters.allow("event", |wanted| {
            event.action == wanted || event.action.split(':').next() == Some(wanted)
        })
        && filters.allow("container", named("container"))
        && filters.allow("volume", named("volume"))
        && filters.allow("network", named("network"))
        && filters.allow("image", |wanted| attribute("image") == Some(wanted))
        && filters.allow("label", |wanted| match wanted.split_once('=') {
            Some((key, value)) => attribute(key) == Some(value),
            None => attribute(wanted).is_some(),
        })
}

/// docker's line: `2026-11-22T17:11:01.6Z container start 1f… (image=busybox, name=web)`. False: nobody reads.
fn print(event: &Event, template: Option<&Template>) -> Result<bool> {
    let line = match template {
        Some(template) => template.render(&serde_json::to_value(event)?)?,
        None => {
            let attributes = event.actor.attributes.iter();
            let attributes: Vec<String> = attributes
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            show::printable(&format!(
                "{} {} {} {} ({})",
                clock::text(event.time_nano),
                event.kind,
                event.action,
                event.actor.id,
                attributes.join(", ")
            ))
        }
    };
    let mut out = std::io::stdout();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}
