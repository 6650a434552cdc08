//! Registries that mean harm: they learn nothing that is not theirs, and nothing they send is believed.

use super::faults::One;
use super::oci::{CONFIG, INDEX, LAYER, MANIFEST, descriptor, digest};
use super::place::Place;
use super::server::{Answer, Request, Server};
use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;

tests! {
    a_password_is_not_sent_in_the_clear_to_where_a_registry_says [],
    a_redirect_takes_no_credentials_along [],
    a_redirect_out_of_tls_or_into_the_clear_is_refused [],
    an_uploads_foreign_location_gets_no_credentials [],
    a_blob_of_another_digest_gets_no_name [],
    a_blob_of_another_size_gets_no_name [],
    a_manifest_without_end_is_not_read [],
    a_digest_that_is_a_path_leads_nowhere [],
    a_manifest_that_is_two_things_is_none [],
    a_manifest_of_another_digest_or_type_is_refused [],
    urls_of_a_layer_are_never_fetched [],
    control_characters_do_not_reach_the_terminal [],
    a_helper_name_is_not_a_path [],
}

/// alice's password for a registry, in docker's file.
fn logged_in(place: &Place, registry: &str) -> Result<String> {
    let secret = STANDARD.encode("alice:secret");
    let auths = json!({"auths": {registry: {"auth": secret}}});
    place.write("home/.docker/config.json", &auths.to_string())?;
    Ok(secret)
}

fn ensure_never_told(requests: &[Request], secret: &str) -> Result<()> {
    for request in requests {
        ensure!(request.header("authorization").is_none(), "{request:?}");
        ensure!(!format!("{request:?}").contains(secret), "{request:?}");
    }
    Ok(())
}

fn a_password_is_not_sent_in_the_clear_to_where_a_registry_says(place: &Place) -> Result<()> {
    for realm in [
        "http://192.0.2.1/token",
        "ftp://x/",
        "http://user@127.0.0.1/",
        "not a url",
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
        let server =
            Server::start(move |_| Answer::new(401, "").header("WWW-Authenticate", &challenge))?;
        let secret = logged_in(place, &server.address)?;
        let said = place.bad(&["pull", &format!("{}/app:1", server.address)], &[])?;
        if realm.starts_with("http://192") {
            let words =
                "wants its tokens fetched from http://192.0.2.1/token, without TLS: refused";
            ensure!(said.stderr.contains(words), "{}", said.stderr);
        }
        ensure_never_told(&server.seen(), &secret)?;
    }
    Ok(())
}

fn a_redirect_takes_no_credentials_along(place: &Place) -> Result<()> {
    let one = One::new(5000)?;
    let layer = one.layer.clone();
    let elsewhere = Server::start(move |_| Answer::new(200, layer.clone()))?;
    let (location, secret) = (
        format!("http://{}/store?sig=1", elsewhere.address),
        STANDARD.encode("alice:secret"),
    );
    let basic = format!("Basic {secret}");
    let server = Server::start(move |request| {
        if request.header("authorization") != Some(&basic) {
            return Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        one.answer(request)
            .unwrap_or_else(|| Answer::new(307, "").header("Location", &location))
    })?;
    logged_in(place, &server.address)?;
    place.good(&["pull", &format!("{}/app:1", server.address)])?;
    let seen = elsewhere.seen();
    // It may have been tried with TLS by its own rules, but never was: the location says http.
    ensure!(
        seen.len() == 1 && seen[0].path == "/store?sig=1",
        "{seen:?}"
    );
    ensure_never_told(&seen, &secret)
}

fn a_redirect_out_of_tls_or_into_the_clear_is_refused(place: &Place) -> Result<()> {
    let one = One::new(5000)?;
    let server = Server::start(move |request| {
        let away = Answer::new(302, "").header("Location", "http://192.0.2.1/blob?sig=hidden");
        one.answer(request).unwrap_or(away)
    })?;
    let words = ["leads to http://192.0.2.1/blob, without TLS: refused"];
    let said = place.bad(&["pull", &format!("{}/app:1", server.address)], &words)?;
    ensure!(!said.stderr.contains("hidden"), "{}", said.stderr);
    let ring = Server::start(|request| match request.path.as_str() {
        "/v2/" => Answer::new(200, ""),
        path => Answer::new(302, "").header("Location", path),
    })?;
    place.bad(
        &["pull", &format!("{}/app:1", ring.address)],
        &["more than 10 redirects"],
    )?;
    ensure!(ring.seen().len() < 15);
    Ok(())
}

fn an_uploads_foreign_location_gets_no_credentials(place: &Place) -> Result<()> {
    let one = One::new(5000)?;
    let elsewhere = Server::start(|_| Answer::new(201, ""))?;
    let (location, secret) = (
        format!("http://{}/upload", elsewhere.address),
        STANDARD.encode("alice:secret"),
    );
    let basic = format!("Basic {secret}");
    let server = Server::start(move |request| {
        if request.header("authorization") != Some(&basic) {
            return Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match request.method.as_str() {
            "HEAD" => Answer::new(404, ""),
            "POST" => Answer::new(202, "").header("Location", &location),
            "PUT" => Answer::new(201, ""),
            _ => one
                .answer(request)
                .unwrap_or_else(|| Answer::new(200, one.layer.clone())),
        }
    })?;
    logged_in(place, &server.address)?;
    let name = format!("{}/app:1", server.address);
    place.good(&["pull", &name])?;
    place.good(&["push", &name])?;
    ensure!(elsewhere.seen().len() == 2);
    ensure_never_told(&elsewhere.seen(), &secret)
}

fn a_blob_of_another_digest_gets_no_name(place: &Place) -> Result<()> {
    let one = One::new(5000)?;
    let server = Server::start(move |request| {
        one.answer(request)
            .unwrap_or_else(|| Answer::new(200, vec![b'x'; one.layer.len()]))
    })?;
    let words = ["the content has digest sha256:", "was announced"];
    place.bad(&["pull", &format!("{}/app:1", server.address)], &words)?;
    ensure!(place.names()?.is_empty() && place.partial() == 0);
    place.check_store()
}

fn a_blob_of_another_size_gets_no_name(place: &Place) -> Result<()> {
    // Longer than announced, with and without saying so; shorter is a connection that broke.
    for (extra, length, words) in [
        (10, None, "bytes were to come"),
        (1_000_000, Some(0), "more than the announced"),
        (-10, None, "bytes were to come"),
    ] {
        let one = One::new(5000)?;
        let server = Server::start(move |request| {
            one.answer(request).unwrap_or_else(|| {
                let mut content = one.layer.clone();
                content.resize((content.len() as i64 + extra) as usize, 0);
                Answer {
                    length,
                    ..Answer::new(200, content)
                }
            })
        })?;
        place.bad(&["pull", &format!("{}/app:1", server.address)], &[words])?;
        ensure!(place.names()?.is_empty());
        place.check_store()?;
        place.forget_store()?;
    }
    Ok(())
}

fn serving(manifest: impl Into<Vec<u8>>, kind: &'static str) -> Result<Server> {
    let manifest = manifest.into();
    Server::start(move |request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        path if path.contains("/manifests/") => {
            Answer::new(200, manifest.clone()).header("Content-Type", kind)
        }
        _ => Answer::new(404, ""),
    })
}

fn a_manifest_without_end_is_not_read(place: &Place) -> Result<()> {
    for (length, words) in [
        (None, "a manifest of 9000000 bytes (at most 4194304)"),
        (Some(0), "a manifest of more than 4194304 bytes"),
    ] {
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Answer::new(200, "{}"),
            _ => Answer {
                length,
                ..Answer::new(200, vec![b' '; 9_000_000]).header("Content-Type", MANIFEST)
            },
        })?;
        place.bad(&["pull", &format!("{}/app:1", server.address)], &[words])?;
    }
    Ok(())
}

fn a_digest_that_is_a_path_leads_nowhere(place: &Place) -> Result<()> {
    for evil in [
        "sha256:../../../../../evil",
        "../evil",
        "sha256:aa",
        "sha512:../x",
        "",
    ] {
        let layer = json!({"mediaType": LAYER, "digest": evil, "size": 4});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, b"{}"), "layers": [layer],
        });
        let server = serving(manifest.to_string(), MANIFEST)?;
        place.bad(
            &["pull", &format!("{}/app:1", server.address)],
            &["not a manifest: "],
        )?;
        ensure!(
            !server
                .seen()
                .iter()
                .any(|request| request.path.contains("/blobs/"))
        );
    }
    let found: Vec<_> = walk(&place.dir)
        .into_iter()
        .filter(|path| path.contains("evil"))
        .collect();
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

fn a_manifest_that_is_two_things_is_none(place: &Place) -> Result<()> {
    let config = descriptor(CONFIG, b"{}");
    let cases: &[(Value, &str, &str)] = &[
        (
            json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}),
            MANIFEST,
            "both an index and a manifest",
        ),
        (
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
            MANIFEST,
            "mediaType",
        ),
        (
            json!({"schemaVersion": 2, "config": config, "layers": []}),
            INDEX,
            "media type",
        ),
        (
            json!({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": [], "signatures": []}),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "Docker's schema 1",
        ),
        (
            json!({"schemaVersion": 2}),
            MANIFEST,
            "neither an index nor a manifest",
        ),
        (json!("x"), MANIFEST, "not a manifest"),
    ];
    for (manifest, kind, words) in cases {
        let server = serving(manifest.to_string(), kind)?;
        place.bad(&["pull", &format!("{}/app:1", server.address)], &[words])?;
    }
    ensure!(place.names()?.is_empty());
    Ok(())
}

fn a_manifest_of_another_digest_or_type_is_refused(place: &Place) -> Result<()> {
    let one = One::new(1000)?;
    let manifest = one.manifest.clone();
    let server = serving(manifest.clone(), MANIFEST)?;
    let other = format!("{}/app@sha256:{}", server.address, "1".repeat(64));
    place.bad(
        &["pull", &other],
        &["the content has digest sha256:", "was asked for"],
    )?;
    let lying = Server::start(move |request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ => Answer::new(200, manifest.clone())
            .header("Content-Type", MANIFEST)
            .header(
                "Docker-Content-Digest",
                &format!("sha256:{}", "2".repeat(64)),
            ),
    })?;
    place.bad(
        &["pull", &format!("{}/app:1", lying.address)],
        &["the content has digest", "was announced"],
    )?;
    // An index announces one type and one size, the registry sends another.
    let (size, kind) = (one.manifest.len(), MANIFEST);
    for (announced_kind, announced_size, words) in [
        (
            "application/vnd.docker.distribution.manifest.v2+json",
            size,
            "announced as",
        ),
        (kind, size + 1, "were announced"),
    ] {
        let part = json!({
            "mediaType": announced_kind, "digest": digest(&one.manifest), "size": announced_size,
            "platform": {"os": "linux", "architecture": "amd64"},
        });
        let index =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [part]}).to_string();
        let manifest = one.manifest.clone();
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Answer::new(200, "{}"),
            path if path.ends_with("/manifests/1") => {
                Answer::new(200, index.clone()).header("Content-Type", INDEX)
            }
            _ => Answer::new(200, manifest.clone()).header("Content-Type", kind),
        })?;
        place.bad(
            &[
                "pull",
                "--platform",
                "linux/amd64",
                &format!("{}/app:1", server.address),
            ],
            &[words],
        )?;
    }
    Ok(())
}

fn urls_of_a_layer_are_never_fetched(place: &Place) -> Result<()> {
    let elsewhere = Server::start(|_| Answer::new(200, "x"))?;
    let one = One::new(1000)?;
    let mut manifest: Value = serde_json::from_slice(&one.manifest)?;
    manifest["layers"][0]["urls"] = json!([format!("http://{}/layer", elsewhere.address)]);
    let manifest = manifest.to_string();
    let server = Server::start(move |request| match request.path.as_str() {
        path if path.contains("/manifests/") => {
            Answer::new(200, manifest.clone()).header("Content-Type", MANIFEST)
        }
        _ => one.answer(request).unwrap_or_else(|| Answer::new(404, "")),
    })?;
    let words = ["a layer kept elsewhere (urls), from where nothing is fetched"];
    place.bad(&["pull", &format!("{}/app:1", server.address)], &words)?;
    ensure!(elsewhere.seen().is_empty());
    Ok(())
}

fn control_characters_do_not_reach_the_terminal(place: &Place) -> Result<()> {
    let evil = "{\"errors\":[{\"code\":\"\\u001b[2J\",\"message\":\"\\u0007gone\\nsc-image: all is well\"}]}";
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ => Answer::new(404, evil),
    })?;
    let said = place.bad(
        &["pull", &format!("{}/app:1", server.address)],
        &["\\u{1b}[2J"],
    )?;
    ensure!(
        !said.stderr.contains(['\x1b', '\x07']) && said.stderr.lines().count() == 1,
        "{:?}",
        said.stderr
    );
    Ok(())
}

fn a_helper_name_is_not_a_path(place: &Place) -> Result<()> {
    let server = Server::start(|_| Answer::new(200, "{}"))?;
    place.write(
        "home/.docker/config.json",
        r#"{"credsStore": "../../bin/sh"}"#,
    )?;
    place.bad(
        &["pull", &format!("{}/a", server.address)],
        &["credential helper \"../../bin/sh\" is not a name"],
    )?;
    Ok(())
}
