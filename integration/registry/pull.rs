//! Images come as they are in the registry: whole, for the right platform, and no byte twice.

use super::daemon::Daemon;
use super::oci::{CONFIG, INDEX, LAYER, Layout, MANIFEST, descriptor, digest, layer};
use super::place::{Place, run, skopeo, text};
use super::server::{Answer, Request, Server};
use super::wire::{Trouble, Wire};
use anyhow::{Result, ensure};
use serde_json::json;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

tests! {
    what_skopeo_pushed_is_pulled_and_skopeo_reads_the_store ["docker-registry", "skopeo"],
    of_an_index_the_platform_asked_for_is_taken ["docker-registry", "skopeo"],
    dockers_formats_are_pulled_as_well ["docker-registry", "skopeo"],
    a_list_of_dockers_is_pulled_saved_and_loaded_whole ["docker-registry", "skopeo"],
    so_many_layers_are_fetched_at_once_as_jobs_says [],
    garbage_is_collected_while_a_pull_goes_on ["docker-registry", "skopeo"],
    a_registry_at_an_ipv6_address_is_asked ["docker-registry", "skopeo", "::1"],
    a_digest_pulls_exactly_that ["docker-registry", "skopeo"],
    quiet_says_the_id_and_nothing_else ["docker-registry", "skopeo"],
    what_is_here_is_not_fetched_again ["docker-registry", "skopeo"],
    two_pulls_at_once_fetch_each_layer_once ["docker-registry", "skopeo"],
    an_image_for_another_machine_is_refused_or_warned_of ["docker-registry", "skopeo"],
    a_name_that_is_none_is_refused_before_anything_is_asked [],
    mirrors_blocks_and_locations_of_registries_conf_count ["docker-registry", "skopeo"],
}

fn what_skopeo_pushed_is_pulled_and_skopeo_reads_the_store(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "team/app:1", &[300_000, 2_000_000, 10])?;
    let name = format!("{}/team/app:1", daemon.address);
    let said = place.good(&["pull", &name])?;
    ensure!(
        said.stderr
            .contains(&format!("Status: Downloaded newer image for {name}")),
        "{}",
        said.stderr
    );
    place.check_store()?;
    ensure!(place.names()? == [(name.clone(), daemon.digest("team/app:1")?)]);
    let copy = place.path("copy");
    let store = format!("oci:{}", place.path("store/image").display());
    skopeo(&[], &store, &format!("oci:{}:x", copy.display()))?;
    Ok(())
}

fn of_an_index_the_platform_asked_for_is_taken(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    let mut layout = Layout::new(&place.path("layout"))?;
    let mut digests = Vec::new();
    let mut parts = Vec::new();
    for (seed, (architecture, variant)) in
        [("arm", Some("v6")), ("arm", Some("v7")), ("amd64", None)]
            .iter()
            .enumerate()
    {
        let mut part = layout.manifest(architecture, &[1000], seed as u64 + 1)?;
        digests.push(part["digest"].as_str().unwrap_or_default().to_owned());
        part["platform"] = json!({"os": "linux", "architecture": architecture});
        if let Some(variant) = variant {
            part["platform"]["variant"] = json!(variant);
        }
        parts.push(part);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": parts});
    let index = layout.blob(INDEX, index.to_string().as_bytes())?;
    let whole = index["digest"].as_str().unwrap_or_default().to_owned();
    layout.tag("it", index)?;
    skopeo(
        &["--all"],
        &layout.at("it"),
        &format!("docker://{}/multi:1", daemon.address),
    )?;
    let name = format!("{}/multi:1", daemon.address);
    for (platform, expected) in [
        ("linux/arm/v6", 0),
        ("linux/arm/v7", 1),
        ("linux/arm", 1),
        ("linux/amd64", 2),
    ] {
        place.good(&["pull", "--platform", platform, &name])?;
        let names = place.names()?;
        ensure!(
            names.contains(&(name.clone(), digests[expected].clone())),
            "{platform}: {names:?}"
        );
    }
    let words = [
        "no image for linux/s390x in the index (there are linux/arm/v6, linux/arm/v7, linux/amd64)",
    ];
    place.bad(&["pull", "--platform", "linux/s390x", &name], &words)?;
    // All of it, and back again, byte for byte.
    let said = place.good(&["pull", "-q", "--all-platforms", &name])?;
    ensure!(said.stdout == format!("{whole}\n"), "{}", said.stdout);
    let other = Daemon::start_with(place, "other", &super::daemon::Extra::default())?;
    place.registries_conf(&format!(
        "[[registry]]\nprefix = \"{}\"\nlocation = \"{}\"\n",
        daemon.address, other.address
    ))?;
    let said = place.good(&["push", "-q", &name])?;
    ensure!(said.stdout == format!("{whole}\n"), "{}", said.stdout);
    ensure!(other.digest("multi:1")? == whole);
    place.check_store()
}

fn dockers_formats_are_pulled_as_well(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill_as(place, "docker:1", &[1000, 2000], &["--format", "v2s2"])?;
    place.good(&["pull", &format!("{}/docker:1", daemon.address)])?;
    ensure!(place.names()?[0].1 == daemon.digest("docker:1")?);
    place.check_store()
}

fn a_list_of_dockers_is_pulled_saved_and_loaded_whole(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    let mut layout = Layout::new(&place.path("layout"))?;
    let mut parts = Vec::new();
    for (seed, architecture) in [(1, "amd64"), (2, "arm64")] {
        let mut part = layout.manifest(architecture, &[1000, 2000], seed)?;
        part["platform"] = json!({"os": "linux", "architecture": architecture});
        parts.push(part);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": parts});
    let index = layout.blob(INDEX, index.to_string().as_bytes())?;
    layout.tag("it", index)?;
    skopeo(
        &["--all", "--format", "v2s2"],
        &layout.at("it"),
        &format!("docker://{}/multi:1", daemon.address),
    )?;
    let name = format!("{}/multi:1", daemon.address);
    let image = format!("docker://{name}");
    let raw = run(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &image],
    )?;
    let list: serde_json::Value = serde_json::from_str(&raw)?;
    ensure!(
        list["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json",
        "{raw}"
    );
    for (at, architecture) in ["amd64", "arm64"].iter().enumerate() {
        place.good(&[
            "pull",
            "--platform",
            &format!("linux/{architecture}"),
            &name,
        ])?;
        let digest = list["manifests"][at]["digest"].as_str().unwrap_or_default();
        ensure!(place.names()?.contains(&(name.clone(), digest.to_owned())));
    }
    let whole = daemon.digest("multi:1")?;
    place.good(&["pull", "-q", "--all-platforms", &name])?;
    ensure!(place.names()?.contains(&(name.clone(), whole.clone())));
    for format in ["oci-archive", "oci-dir", "docker-archive"] {
        let file = text(&place.path(format)).to_owned();
        place.good(&["save", "-q", "--format", format, "-o", &file, &name])?;
        let other = Place {
            dir: place.path(&format!("from-{format}")),
        };
        std::fs::create_dir_all(other.path("home"))?;
        other.good(&["load", "-q", "-i", &file])?;
        ensure!(
            other.names()?.contains(&(name.clone(), whole.clone())),
            "{format}: {:?}",
            other.names()?
        );
        other.good(&["fsck"])?;
        for platform in ["linux/amd64", "linux/arm64"] {
            let bundle = other.path(&platform.replace('/', "-"));
            let args = ["unpack", "-q", "--platform", platform, "--bundle"];
            other.good(&[&args[..], &[text(&bundle), &name]].concat())?;
        }
    }
    // Others take it from there as it was.
    let raw_again = run(
        "skopeo",
        &[
            "inspect",
            "--raw",
            &format!("oci-archive:{}", place.path("oci-archive").display()),
        ],
    )?;
    ensure!(raw_again == raw, "{raw_again}");
    place.check_store()
}

/// The registry answers no layer before three are asked for; and when one is to be asked for at a time, it counts.
fn so_many_layers_are_fetched_at_once_as_jobs_says(place: &Place) -> Result<()> {
    let image = Layered::new(6)?;
    for jobs in [3, 1] {
        let image = image.clone();
        let (at_once, barrier) = (AtomicUsize::new(0), Barrier::new(jobs));
        let most = Arc::new(AtomicUsize::new(0));
        let seen = most.clone();
        let server = Server::start(move |request| {
            image.answer(request).unwrap_or_else(|layer| {
                let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
                seen.fetch_max(now, Ordering::SeqCst);
                barrier.wait();
                at_once.fetch_sub(1, Ordering::SeqCst);
                Answer::new(200, layer)
            })
        })?;
        let name = format!("{}/app:1", server.address);
        place.good(&["pull", "--jobs", &jobs.to_string(), &name])?;
        let most = most.load(Ordering::SeqCst);
        ensure!(most == jobs, "{most} at once instead of {jobs}");
        place.check_store()?;
        place.forget_store()?;
    }
    let said = place.run(&["pull", "--jobs", "0", "x"])?;
    ensure!(
        !said.ok && said.stderr.contains("--jobs"),
        "{}",
        said.stderr
    );
    Ok(())
}

/// What a registry needs to know of an image with so many layers.
#[derive(Clone)]
struct Layered {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

impl Layered {
    fn new(count: u64) -> Result<Layered> {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for seed in 0..count {
            let (content, diff_id) = layer(1000, seed + 1)?;
            layers.push(content);
            diff_ids.push(diff_id);
        }
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        let described: Vec<_> = layers
            .iter()
            .map(|layer| descriptor(LAYER, layer))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config), "layers": described,
        });
        Ok(Layered {
            manifest: manifest.to_string().into_bytes(),
            config,
            layers,
        })
    }

    /// A layer is the caller's to give out.
    fn answer(&self, request: &Request) -> Result<Answer, Vec<u8>> {
        let path = request.path.as_str();
        if let Some(layer) = self
            .layers
            .iter()
            .find(|layer| path.ends_with(&digest(layer)))
        {
            return Err(layer.clone());
        }
        Ok(match path {
            "/v2/" => Answer::new(200, "{}"),
            _ if path.contains("/manifests/") => {
                Answer::new(200, self.manifest.clone()).header("Content-Type", MANIFEST)
            }
            _ if path.ends_with(&digest(&self.config)) => Answer::new(200, self.config.clone()),
            _ => Answer::new(404, ""),
        })
    }
}

/// It neither waits for the pull nor takes what the pull has fetched.
fn garbage_is_collected_while_a_pull_goes_on(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[3_000_000, 1000, 2000])?;
    let trouble = Trouble {
        delay: std::time::Duration::from_millis(20),
        piece: 32 << 10,
        ..Trouble::default()
    };
    let wire = Wire::to(daemon.port, trouble)?;
    let name = format!("{}/app:1", wire.address);
    let mut child = place
        .command(&["pull", "-q", &name])
        .stdout(Stdio::null())
        .spawn()?;
    // The small ones are here, and nothing names them yet.
    let blobs = place.path("store/image/blobs/sha256");
    let fetched = || std::fs::read_dir(&blobs).map_or(0, Iterator::count);
    while fetched() < 3 {
        ensure!(child.try_wait()?.is_none(), "it ended too early");
        std::thread::yield_now();
    }
    for command in [
        &["gc", "--all"][..],
        &["prune", "-a"],
        &["fsck", "--repair"],
    ] {
        let said = place.good(command)?;
        ensure!(said.stderr.is_empty(), "{command:?}: {}", said.stderr);
        ensure!(
            child.try_wait()?.is_none(),
            "{command:?} waited for the pull"
        );
    }
    ensure!(fetched() == 3);
    ensure!(child.wait()?.success());
    ensure!(place.names()? == [(name, daemon.digest("app:1")?)]);
    place.check_store()?;
    // What a dead one pledged is swept.
    let pledge = place.write("store/leases/1-1.pledge", "[]")?;
    place.good(&["gc"])?;
    ensure!(!pledge.exists());
    ensure!(std::fs::read_dir(place.path("store/leases"))?.count() == 0);
    place.good(&["fsck"]).map(drop)
}

fn a_registry_at_an_ipv6_address_is_asked(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[1000])?;
    let wire = Wire::from("[::1]:0", daemon.port, Trouble::default())?;
    let name = format!("{}/app:1", wire.address);
    ensure!(name.starts_with("[::1]:"), "{name}");
    place.good(&["pull", &name])?;
    place.good(&["push", &name])?;
    ensure!(place.names()? == [(name, daemon.digest("app:1")?)]);
    Ok(())
}

fn a_digest_pulls_exactly_that(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[1000])?;
    let digest = daemon.digest("app:1")?;
    for name in [
        format!("{}/app@{digest}", daemon.address),
        format!("{}/app:other@{digest}", daemon.address),
    ] {
        place.good(&["pull", &name])?;
        ensure!(
            place.names()?.contains(&(name.clone(), digest.clone())),
            "{name}"
        );
    }
    let none = format!("{}/app@sha256:{}", daemon.address, "0".repeat(64));
    place.bad(&["pull", &none], &["status 404", "MANIFEST_UNKNOWN"])?;
    Ok(())
}

fn quiet_says_the_id_and_nothing_else(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[1000])?;
    let image = format!("docker://{}/app:1", daemon.address);
    let raw = run(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &image],
    )?;
    let manifest: serde_json::Value = serde_json::from_str(&raw)?;
    let said = place.good(&["pull", "--quiet", &format!("{}/app:1", daemon.address)])?;
    ensure!(
        said.stdout
            == format!(
                "{}\n",
                manifest["config"]["digest"].as_str().unwrap_or_default()
            )
    );
    ensure!(said.stderr.is_empty(), "{}", said.stderr);
    Ok(())
}

fn what_is_here_is_not_fetched_again(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    let mut layout = daemon.fill(place, "app:1", &[500_000, 1000])?;
    // A second image on the same large layer.
    let manifest = layout.manifest("amd64", &[500_000, 1000, 2000], 1)?;
    layout.tag("two", manifest)?;
    skopeo(
        &[],
        &layout.at("two"),
        &format!("docker://{}/app:2", daemon.address),
    )?;
    let wire = Wire::to(daemon.port, Trouble::default())?;
    let name = format!("{}/app:1", wire.address);
    place.good(&["pull", &name])?;
    ensure!(wire.down() > 500_000);
    let said = place.good(&["pull", &name])?;
    ensure!(
        said.stderr.contains("Status: Image is up to date"),
        "{}",
        said.stderr
    );
    let again = wire.down();
    ensure!(again < 10_000, "{again} bytes came for what is here");
    place.good(&["pull", &format!("{}/app:2", wire.address)])?;
    let more = wire.down();
    ensure!(more < 20_000, "{more} bytes came for a layer of 2 kB");
    Ok(())
}

fn two_pulls_at_once_fetch_each_layer_once(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[2_000_000, 1_000_000])?;
    let trouble = Trouble {
        delay: std::time::Duration::from_millis(5),
        ..Trouble::default()
    };
    let wire = Wire::to(daemon.port, trouble)?;
    let name = format!("{}/app:1", wire.address);
    let pull = || {
        let mut command = place.command(&["pull", "-q", &name]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    for mut child in [pull()?, pull()?] {
        ensure!(child.wait()?.success());
    }
    let bytes = wire.down();
    ensure!(bytes < 3_200_000, "{bytes} bytes came for 3 MB");
    place.check_store()
}

fn an_image_for_another_machine_is_refused_or_warned_of(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    let mut layout = Layout::new(&place.path("layout"))?;
    let manifest = layout.manifest("s390x", &[1000], 1)?;
    layout.tag("it", manifest)?;
    skopeo(
        &[],
        &layout.at("it"),
        &format!("docker://{}/app:1", daemon.address),
    )?;
    let name = format!("{}/app:1", daemon.address);
    let said = place.good(&["pull", &name])?;
    ensure!(
        said.stderr.contains("warning: ")
            && said.stderr.contains("is for linux/s390x, this machine is")
    );
    place.forget_store()?;
    place.bad(
        &["pull", "--platform", "linux/arm64", &name],
        &["it is for linux/s390x, not for linux/arm64"],
    )?;
    ensure!(place.names()?.is_empty());
    Ok(())
}

fn a_name_that_is_none_is_refused_before_anything_is_asked(place: &Place) -> Result<()> {
    for (name, words) in [
        ("UPPER", "repository name (UPPER) must be lowercase"),
        ("a//b", "is not a repository name"),
        ("a@sha256:../../etc/passwd", "is not 64 hexadecimal digits"),
    ] {
        let said = place.run(&["pull", name])?;
        ensure!(
            !said.ok && said.stderr.contains(words),
            "{name}: {}",
            said.stderr
        );
    }
    ensure!(!place.path("store").exists());
    Ok(())
}

fn mirrors_blocks_and_locations_of_registries_conf_count(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "mirrored/team/app:1", &[1000])?;
    daemon.fill(place, "moved/app:1", &[1001])?;
    let wire = Wire::to(daemon.port, Trouble::default())?;
    let (address, wired) = (&daemon.address, &wire.address);
    place.registries_conf(&format!(
        r#"
        [[registry]]
        prefix = "r.example/team"
        location = "{address}/nowhere"
        [[registry.mirror]]
        location = "127.0.0.1:1/dead"
        [[registry.mirror]]
        location = "{wired}/mirrored/team"
        [[registry]]
        prefix = "old.example"
        location = "{address}/moved"
        [[registry]]
        prefix = "*.bad.example"
        blocked = true
        "#
    ))?;
    let said = place.good(&["pull", "r.example/team/app:1"])?;
    ensure!(
        said.stderr.contains("127.0.0.1:1: ") && said.stderr.contains("trying"),
        "{}",
        said.stderr
    );
    ensure!(wire.down() > 1000);
    place.good(&["pull", "old.example/app:1"])?;
    // Kept under the name that was asked for.
    let names: Vec<String> = place.names()?.into_iter().map(|(name, _)| name).collect();
    ensure!(
        names == ["r.example/team/app:1", "old.example/app:1"],
        "{names:?}"
    );
    place.bad(
        &["pull", "x.bad.example/a"],
        &["x.bad.example/a:latest: blocked by \"*.bad.example\" in registries.conf"],
    )?;
    let conf = place.path("home/.config/containers/registries.conf");
    std::fs::write(&conf, "[[registry]]\nlocation = 5\n")?;
    place.bad(
        &["pull", "r.example/a"],
        &[text(&conf), "line 2: invalid type"],
    )?;
    Ok(())
}
