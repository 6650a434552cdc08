//! Images come as they are in the registry: whole, for the right platform, and no byte twice.

use super::daemon::Daemon;
use super::oci::{INDEX, Layout};
use super::place::{Place, run, skopeo, text};
use super::wire::{Trouble, Wire};
use anyhow::{Result, ensure};
use serde_json::json;
use std::process::Stdio;

tests! {
    what_skopeo_pushed_is_pulled_and_skopeo_reads_the_store ["docker-registry", "skopeo"],
    of_an_index_the_platform_asked_for_is_taken ["docker-registry", "skopeo"],
    dockers_formats_are_pulled_as_well ["docker-registry", "skopeo"],
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
