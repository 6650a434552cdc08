//! What is pushed is what is here; what the registry has is not sent.

use super::daemon::Daemon;
use super::place::{Place, run};
use super::wire::{Trouble, Wire};
use anyhow::{Result, ensure};

tests! {
    a_pushed_image_is_the_same_for_skopeo ["docker-registry", "skopeo"],
    what_the_registry_has_is_not_sent_again ["docker-registry", "skopeo"],
    a_layer_of_another_repository_is_mounted_there ["docker-registry", "skopeo"],
    a_broken_upload_is_begun_anew ["docker-registry", "skopeo"],
    a_name_that_is_not_here_cannot_be_pushed [],
}

/// `app:1` of one registry becomes that of another.
fn tag(place: &Place, from: &str, to: &str) -> Result<()> {
    let (from, to) = (format!("{from}/app:1"), format!("{to}/app:1"));
    place.good(&["tag", &from, &to]).map(drop)
}

fn a_pushed_image_is_the_same_for_skopeo(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[3_000_000, 1000, 0])?;
    let other = Daemon::start_with(place, "other", &super::daemon::Extra::default())?;
    place.good(&["pull", &format!("{}/app:1", daemon.address)])?;
    tag(place, &daemon.address, &other.address)?;
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
    place.good(&[
        "tag",
        &format!("{}/one:1", wire.address),
        &format!("{}/two:1", wire.address),
    ])?;
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
    tag(place, &daemon.address, &wire.address)?;
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
