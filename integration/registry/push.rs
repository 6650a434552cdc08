//! What is pushed is what is here; what the registry has is not sent.

use super::daemon::Daemon;
use super::place::{Place, run};
use super::wire::{Trouble, Wire};
use anyhow::{Result, ensure};
use std::fs;

tests! {
    a_pushed_image_is_the_same_for_skopeo ["docker-registry", "skopeo"],
    what_the_registry_has_is_not_sent_again ["docker-registry", "skopeo"],
    a_layer_of_another_repository_is_mounted_there ["docker-registry", "skopeo"],
    a_broken_upload_is_begun_anew ["docker-registry", "skopeo"],
    a_name_that_is_not_here_cannot_be_pushed [],
}

/// Gives an image of the store another name, as `tag` would.
fn rename(place: &Place, from: &str, to: &str) -> Result<()> {
    let path = place.path("store/image/index.json");
    let text = fs::read_to_string(&path)?;
    ensure!(text.contains(from), "{text}");
    Ok(fs::write(&path, text.replace(from, to))?)
}

fn add_name(place: &Place, from: &str, to: &str) -> Result<()> {
    let path = place.path("store/image/index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    let entry = index["manifests"][0].to_string();
    ensure!(entry.contains(from), "{entry}");
    let entry = serde_json::from_str(&entry.replace(from, to))?;
    index["manifests"]
        .as_array_mut()
        .expect("an index")
        .push(entry);
    Ok(fs::write(&path, index.to_string())?)
}

fn a_pushed_image_is_the_same_for_skopeo(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[3_000_000, 1000, 0])?;
    let other = Daemon::start_with(place, "other", &super::daemon::Extra::default())?;
    place.good(&["pull", &format!("{}/app:1", daemon.address)])?;
    rename(place, &daemon.address, &other.address)?;
    let said = place.good(&["push", &format!("{}/app:1", other.address)])?;
    let digest = daemon.digest("app:1")?;
    ensure!(said.stdout == format!("{digest}\n"), "{}", said.stdout);
    ensure!(other.digest("app:1")? == digest);
    // Every layer can be had from there.
    let copy = format!("dir:{}", place.path("copy").display());
    let from = format!("docker://{}/app:1", other.address);
    run(
        "skopeo",
        &[
            "copy",
            "--quiet",
            "--insecure-policy",
            "--src-tls-verify=false",
            &from,
            &copy,
        ],
    )
    .map(drop)
}

fn what_the_registry_has_is_not_sent_again(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[3_000_000])?;
    let wire = Wire::to(daemon.port, Trouble::default())?;
    let name = format!("{}/app:1", wire.address);
    place.good(&["pull", &name])?;
    wire.up();
    let said = place.good(&["push", &name])?;
    ensure!(said.stderr.contains("already there"), "{}", said.stderr);
    let bytes = wire.up();
    ensure!(bytes < 10_000, "{bytes} bytes went there");
    Ok(())
}

fn a_layer_of_another_repository_is_mounted_there(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "one:1", &[3_000_000])?;
    let wire = Wire::to(daemon.port, Trouble::default())?;
    place.good(&["pull", &format!("{}/one:1", wire.address)])?;
    add_name(place, "/one:1", "/two:1")?;
    wire.up();
    let said = place.good(&["push", &format!("{}/two:1", wire.address)])?;
    ensure!(said.stderr.contains("mounted"), "{}", said.stderr);
    let bytes = wire.up();
    ensure!(bytes < 10_000, "{bytes} bytes went there");
    ensure!(daemon.digest("two:1")? == daemon.digest("one:1")?);
    Ok(())
}

fn a_broken_upload_is_begun_anew(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[8_000_000])?;
    let other = Daemon::start_with(place, "other", &super::daemon::Extra::default())?;
    let wire = Wire::to(
        other.port,
        Trouble {
            cut_up: [3_000_000, 2_500_000].into(),
            ..Trouble::default()
        },
    )?;
    place.good(&["pull", &format!("{}/app:1", daemon.address)])?;
    rename(place, &daemon.address, &wire.address)?;
    let said = place.good(&["push", &format!("{}/app:1", wire.address)])?;
    ensure!(
        said.stderr.matches("again in").count() == 2,
        "{}",
        said.stderr
    );
    ensure!(other.digest("app:1")? == daemon.digest("app:1")?);
    Ok(())
}

fn a_name_that_is_not_here_cannot_be_pushed(place: &Place) -> Result<()> {
    place.bad(
        &["push", "r.example/a"],
        &["no image here is called r.example/a:latest"],
    )?;
    Ok(())
}
