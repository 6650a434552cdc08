//! A connection that breaks, lies, or is slow: what came is kept, what is wrong is fetched again, and nothing is
//! tried in vain.

use super::daemon::Daemon;
use super::oci::{CONFIG, LAYER, MANIFEST, descriptor, layer};
use super::place::{Place, said};
use super::server::{Answer, Request, Server};
use super::wire::{Trouble, Wire};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

tests! {
    a_broken_connection_is_gone_on_with_and_no_byte_comes_twice ["docker-registry", "skopeo"],
    what_an_interrupted_pull_left_is_not_fetched_again ["docker-registry", "skopeo"],
    a_pull_killed_at_any_moment_leaves_a_whole_store ["docker-registry", "skopeo"],
    a_damaged_remainder_is_thrown_away_and_fetched_anew ["docker-registry", "skopeo"],
    a_byte_changed_on_its_way_is_noticed_and_fetched_again ["docker-registry", "skopeo"],
    a_full_disk_ends_the_pull_and_room_lets_it_go_on ["docker-registry", "skopeo", "unshare"],
    a_slow_wire_is_only_slow ["docker-registry", "skopeo"],
    a_wire_that_stalls_is_left_for_another ["docker-registry", "skopeo"],
    a_registry_without_ranges_is_asked_for_the_whole [],
    a_busy_registry_is_asked_again_when_it_says [],
    what_cannot_pass_is_not_tried_again [],
    a_registry_that_always_breaks_off_is_given_up [],
}

const SIZE: usize = 6_000_000;

/// What the one layer of so many bytes has in the registry.
fn compressed() -> Result<u64> {
    Ok(layer(SIZE, 100)?.0.len() as u64)
}

fn a_broken_connection_is_gone_on_with_and_no_byte_comes_twice(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[SIZE])?;
    let cuts = [1_000_000, 700_000, 2_000_000];
    let wire = Wire::to(
        daemon.port,
        Trouble {
            cut_down: cuts.into(),
            ..Trouble::default()
        },
    )?;
    let said = place.good(&["pull", &format!("{}/app:1", wire.address)])?;
    ensure!(
        said.stderr.matches("again in").count() == 3,
        "{}",
        said.stderr
    );
    let bytes = wire.down();
    // What was in our buffers, and in the wire's, when the connection ended; headers.
    let size = compressed()?;
    ensure!(
        bytes < size + 3 * (128 << 10) + 10_000,
        "{bytes} bytes came for {size}"
    );
    place.check_store()
}

fn what_an_interrupted_pull_left_is_not_fetched_again(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[SIZE])?;
    let trouble = Trouble {
        delay: Duration::from_millis(20),
        piece: 64 << 10,
        ..Trouble::default()
    };
    let wire = Wire::to(daemon.port, trouble)?;
    let name = format!("{}/app:1", wire.address);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let before = place.partial();
        let mut child = place
            .command(&["pull", &name])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        while place.partial() < before + 1_000_000 {
            ensure!(
                child.try_wait()?.is_none(),
                "it ended before it could be interrupted"
            );
            std::thread::yield_now();
        }
        kill(Pid::from_raw(child.id().try_into()?), signal)?;
        ensure!(!child.wait()?.success());
        ensure!(place.names()?.is_empty());
    }
    let left = place.partial();
    ensure!(left >= 2_000_000, "{left} bytes were left");
    // Another wire, so that nothing is counted that was still under way on the first.
    let wire = Wire::to(daemon.port, Trouble::default())?;
    place.good(&["pull", &format!("{}/app:1", wire.address)])?;
    let (bytes, size) = (wire.down(), compressed()?);
    ensure!(
        bytes < size - left + 20_000,
        "{bytes} bytes came where {left} of {size} were here"
    );
    ensure!(place.partial() == 0);
    place.check_store()
}

fn a_pull_killed_at_any_moment_leaves_a_whole_store(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[500_000; 4])?;
    for step in 0..25 {
        // A piece at a time, so that all four layers are under way.
        let trouble = Trouble {
            piece: 16 << 10,
            ..Trouble::default()
        };
        let wire = Wire::to(daemon.port, trouble)?;
        let mut command = place.command(&["pull", "-q", &format!("{}/app:1", wire.address)]);
        let mut child = command
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut passed = 0;
        while passed < step * 90_000 && child.try_wait()?.is_none() {
            passed += wire.down();
            std::thread::yield_now();
        }
        child.kill()?;
        child.wait()?;
        if place.path("store").exists() {
            place.good(&["fsck"])?;
            place.check_store()?;
        }
        // Every other time the next one goes on with what is there.
        if step % 2 == 1 {
            place.forget_store()?;
        }
    }
    place.good(&["pull", &format!("{}/app:1", daemon.address)])?;
    place.good(&["fsck"]).map(drop)
}

fn a_damaged_remainder_is_thrown_away_and_fetched_anew(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    let layout = daemon.fill(place, "app:1", &[100_000])?;
    let (content, _) = layer(100_000, 100)?;
    ensure!(
        layout
            .dir
            .join("blobs")
            .join(super::oci::digest(&content).replace(':', "/"))
            .exists()
    );
    let part = format!(
        "store/image/ingest/{}.part",
        super::oci::digest(&content).replace(':', "-")
    );
    let name = format!("{}/app:1", daemon.address);
    // Wrong from the first byte; and longer than the blob.
    for remainder in ["x".repeat(5000), "x".repeat(500_000)] {
        place.write(&part, &remainder)?;
        place.good(&["pull", &name])?;
        place.check_store()?;
        place.forget_store()?;
    }
    Ok(())
}

fn a_byte_changed_on_its_way_is_noticed_and_fetched_again(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[SIZE])?;
    let wire = Wire::to(
        daemon.port,
        Trouble {
            corrupt: Some(3_000_000),
            ..Trouble::default()
        },
    )?;
    place.good(&["pull", &format!("{}/app:1", wire.address)])?;
    ensure!(wire.down() > 2 * SIZE as u64);
    place.check_store()
}

fn a_full_disk_ends_the_pull_and_room_lets_it_go_on(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[SIZE])?;
    let wire = Wire::to(daemon.port, Trouble::default())?;
    let pull = place.command(&["pull", "-q", &format!("{}/app:1", daemon.address)]);
    let rest = place.command(&["pull", "-q", &format!("{}/app:1", wire.address)]);
    let fsck = place.command(&["fsck"]);
    let words = |command: &Command| {
        let words = [command.get_program()]
            .into_iter()
            .chain(command.get_args());
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let script = format!(
        "mkdir -p $0 && mount -t tmpfs -o size=3m tmpfs $0 && ! {pull} && {fsck} && \
         mount -o remount,size=30m $0 && {rest} && {fsck}",
        pull = words(&pull),
        rest = words(&rest),
        fsck = words(&fsck)
    );
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", &script])
        .arg(place.path("store"));
    let said = said(command.env("HOME", place.path("home")).output()?)?;
    ensure!(said.ok, "{}", said.stderr);
    ensure!(
        said.stderr.contains("No space left on device"),
        "{}",
        said.stderr
    );
    ensure!(!said.stderr.contains("again in"), "{}", said.stderr);
    let (bytes, size) = (wire.down(), compressed()?);
    ensure!(bytes < size + (1 << 20), "{bytes} bytes came for {size}");
    Ok(())
}

fn a_slow_wire_is_only_slow(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[100_000, 50_000])?;
    let trouble = Trouble {
        delay: Duration::from_millis(3),
        piece: 1000,
        ..Trouble::default()
    };
    let wire = Wire::to(daemon.port, trouble)?;
    let said = place.good(&["pull", &format!("{}/app:1", wire.address)])?;
    ensure!(!said.stderr.contains("again in"), "{}", said.stderr);
    place.check_store()
}

/// Half a minute of nothing is what we wait for.
fn a_wire_that_stalls_is_left_for_another(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[SIZE])?;
    let trouble = Trouble {
        stall: Some(2_000_000),
        ..Trouble::default()
    };
    let wire = Wire::to(daemon.port, trouble)?;
    let said = place.good(&["pull", &format!("{}/app:1", wire.address)])?;
    ensure!(
        said.stderr.matches("again in").count() == 1,
        "{}",
        said.stderr
    );
    let (bytes, size) = (wire.down(), compressed()?);
    ensure!(bytes < size + (1 << 20), "{bytes} bytes came for {size}");
    place.check_store()
}

/// A registry with one image of one layer, whose blob it gives out as a test says.
pub struct One {
    pub manifest: Vec<u8>,
    pub layer: Vec<u8>,
    config: Vec<u8>,
}

impl One {
    pub fn new(size: usize) -> Result<One> {
        let (layer, diff_id) = layer(size, 7)?;
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)],
        });
        Ok(One {
            manifest: manifest.to_string().into_bytes(),
            layer,
            config,
        })
    }

    /// All but the layer.
    pub fn answer(&self, request: &Request) -> Option<Answer> {
        match request.path.as_str() {
            "/v2/" => Some(Answer::new(200, "{}")),
            path if path.contains("/manifests/") => {
                Some(Answer::new(200, self.manifest.clone()).header("Content-Type", MANIFEST))
            }
            path if path.ends_with(&super::oci::digest(&self.config)) => {
                Some(Answer::new(200, self.config.clone()))
            }
            path if path.ends_with(&super::oci::digest(&self.layer)) => None,
            _ => Some(Answer::new(
                404,
                r#"{"errors":[{"code":"NOT_THERE","message":"no"}]}"#,
            )),
        }
    }
}

fn a_registry_without_ranges_is_asked_for_the_whole(place: &Place) -> Result<()> {
    let one = One::new(300_000)?;
    let times = AtomicU32::new(0);
    let server = Server::start(move |request| {
        one.answer(request)
            .unwrap_or_else(|| match times.fetch_add(1, Ordering::SeqCst) {
                0 => Answer {
                    length: Some(one.layer.len() as u64),
                    ..Answer::new(200, &one.layer[..200_000])
                },
                // Another range than was asked for.
                1 => Answer::new(206, &one.layer[100_000..])
                    .header("Content-Range", "bytes 100000-1/*"),
                2 => Answer {
                    length: Some(one.layer.len() as u64),
                    ..Answer::new(200, &one.layer[..200_000])
                },
                _ => Answer::new(200, &one.layer[..]),
            })
    })?;
    place.good(&["pull", &format!("{}/app:1", server.address)])?;
    let asked: Vec<String> = (server.seen().iter())
        .filter(|request| request.path.contains("/blobs/"))
        .filter_map(|request| request.header("range").map(str::to_owned))
        .collect();
    ensure!(asked == ["bytes=200000-", "bytes=200000-"], "{asked:?}");
    place.check_store()
}

fn a_busy_registry_is_asked_again_when_it_says(place: &Place) -> Result<()> {
    let one = One::new(1000)?;
    let times = AtomicU32::new(0);
    let server = Server::start(move |request| match times.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(429, "").header("Retry-After", "1"),
        3 => Answer::new(503, ""),
        _ => one
            .answer(request)
            .unwrap_or_else(|| Answer::new(200, &one.layer[..])),
    })?;
    let begin = std::time::Instant::now();
    let said = place.good(&["pull", &format!("{}/app:1", server.address)])?;
    ensure!(begin.elapsed() >= Duration::from_secs(1), "it did not wait");
    ensure!(
        said.stderr
            .contains("status 429; try again in 1 s; again in 1.0 s"),
        "{}",
        said.stderr
    );
    ensure!(
        said.stderr.contains("status 503; again in"),
        "{}",
        said.stderr
    );
    Ok(())
}

fn what_cannot_pass_is_not_tried_again(place: &Place) -> Result<()> {
    for (status, retry_after) in [(404, None), (403, None), (429, Some("86400"))] {
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Answer::new(200, "{}"),
            _ => match retry_after {
                Some(seconds) => Answer::new(status, "").header("Retry-After", seconds),
                None => Answer::new(status, ""),
            },
        })?;
        place.bad(
            &["pull", &format!("{}/app:1", server.address)],
            &[&format!("status {status}")],
        )?;
        let asked = server
            .seen()
            .iter()
            .filter(|request| request.path != "/v2/")
            .count();
        ensure!(asked == 1, "status {status}: asked {asked} times");
    }
    Ok(())
}

fn a_registry_that_always_breaks_off_is_given_up(place: &Place) -> Result<()> {
    let one = One::new(300_000)?;
    let server = Server::start(move |request| {
        one.answer(request)
            .unwrap_or_else(|| match request.header("range") {
                // Never a byte more than the first time.
                Some(_) => Answer {
                    length: Some(5),
                    ..Answer::new(503, "")
                },
                None => Answer {
                    length: Some(one.layer.len() as u64),
                    ..Answer::new(200, &one.layer[..200_000])
                },
            })
    })?;
    let output = said(
        place
            .command(&["pull", &format!("{}/app:1", server.address)])
            .output()?,
    )?;
    let line = output.stderr.lines().last().context("an error")?;
    ensure!(
        !output.ok && line.contains("tried 5 times") && line.contains("status 503"),
        "{line}"
    );
    ensure!(place.partial() == 200_000 && place.names()?.is_empty());
    Ok(())
}
