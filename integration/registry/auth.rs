//! Names and passwords: where they come from, whom they reach, and TLS with CAs of one's own.

use super::daemon::{Daemon, Extra};
use super::oci::digest;
use super::place::{Place, run, said, text};
use super::server::{Answer, Request, Server};
use super::wire::{Free, join};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

tests! {
    a_password_is_proved_kept_used_and_forgotten ["docker-registry", "skopeo", "htpasswd"],
    a_credential_helper_is_asked_and_told ["docker-registry", "skopeo", "htpasswd"],
    auth_json_of_the_containers_tools_is_read ["docker-registry", "skopeo", "htpasswd"],
    tokens_are_fetched_for_what_is_done ["docker-registry", "skopeo", "openssl"],
    an_identity_token_is_exchanged ["docker-registry", "skopeo", "openssl"],
    a_registry_that_asks_for_a_password_only_later_gets_it [],
    a_private_ca_is_trusted_for_its_host_only ["docker-registry", "skopeo", "openssl"],
    a_client_certificate_is_shown_to_its_host ["docker-registry", "skopeo", "openssl"],
    a_proxy_is_used_for_what_is_not_this_machine ["docker-registry", "skopeo"],
    tls_goes_through_a_proxy_to_the_registry ["docker-registry", "skopeo", "openssl"],
    nginx_may_stand_before_the_registry ["docker-registry", "skopeo", "openssl", "nginx"],
    a_typed_password_is_not_shown_and_ctrl_c_leaves_the_terminal_as_it_was [],
}

/// docker-registry that wants alice's password.
fn with_password(place: &Place) -> Result<Daemon> {
    let table = run("htpasswd", &["-Bbn", "alice", "wonder:land"])?;
    let file = place.write("htpasswd", &table)?;
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: x\n    path: {}\n",
        file.display()
    );
    let daemon = Daemon::start_with(
        place,
        "registry",
        &Extra {
            auth,
            ..Extra::default()
        },
    )?;
    Ok(daemon)
}

fn fill_with_password(place: &Place, daemon: &Daemon) -> Result<()> {
    daemon
        .fill_as(
            place,
            "app:1",
            &[1000],
            &["--dest-creds", "alice:wonder:land"],
        )
        .map(drop)
}

fn login(place: &Place, registry: &str, user: &str, password: &str) -> Result<super::place::Said> {
    let mut child = place
        .command(&["login", "-u", user, "--password-stdin", registry])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("stdin")?
        .write_all(format!("{password}\n").as_bytes())?;
    said(child.wait_with_output()?)
}

fn a_password_is_proved_kept_used_and_forgotten(place: &Place) -> Result<()> {
    let daemon = with_password(place)?;
    fill_with_password(place, &daemon)?;
    let name = format!("{}/app:1", daemon.address);
    let config = place.path("home/.docker/config.json");
    place.bad(
        &["pull", &name],
        &["status 401", &format!("sc-image login {}", daemon.address)],
    )?;
    let wrong = login(place, &daemon.address, "alice", "guess")?;
    ensure!(
        !wrong.ok && wrong.stderr.contains("status 401"),
        "{}",
        wrong.stderr
    );
    ensure!(
        !wrong.stderr.contains("guess") && !config.exists(),
        "{}",
        wrong.stderr
    );
    let right = login(place, &daemon.address, "alice", "wonder:land")?;
    ensure!(
        right.ok && right.stdout.starts_with("Login Succeeded"),
        "{}",
        right.stderr
    );
    ensure!(fs::metadata(&config)?.permissions().mode() & 0o777 == 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(&config)?)?;
    // As docker and skopeo read it.
    let image = format!("docker://{name}");
    run(
        "skopeo",
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            "--authfile",
            text(&config),
            &image,
        ],
    )?;
    ensure!(kept["auths"][&daemon.address]["auth"] == STANDARD.encode("alice:wonder:land"));
    place.good(&["pull", &name])?;
    place.good(&["push", &name])?;
    place.good(&["logout", &daemon.address])?;
    place.bad(&["pull", &name], &["status 401"])?;
    let said = place.good(&["logout", &daemon.address])?;
    ensure!(said.stdout == format!("Not logged in to {}\n", daemon.address));
    Ok(())
}

fn a_credential_helper_is_asked_and_told(place: &Place) -> Result<()> {
    let daemon = with_password(place)?;
    fill_with_password(place, &daemon)?;
    let kept = place.path("kept");
    let helper = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat >{0} ;;\nerase) rm -f {0} ;;\nget) cat >/dev/null; [ -e {0} ] || {{ echo \
         'credentials not found in native keychain'; exit 1; }}; cat {0} ;;\nesac\n",
        kept.display()
    );
    let program = place.write("bin/docker-credential-test", &helper)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    place.write(
        "home/.docker/config.json",
        r#"{"credsStore": "test", "other": 1}"#,
    )?;
    let name = format!("{}/app:1", daemon.address);
    place.bad(&["pull", &name], &["status 401"])?;
    let said = login(place, &daemon.address, "alice", "wonder:land")?;
    ensure!(
        said.ok && said.stdout.contains("credential helper test"),
        "{} {}",
        said.stdout,
        said.stderr
    );
    let config = fs::read_to_string(place.path("home/.docker/config.json"))?;
    ensure!(
        !config.contains("auths") && config.contains("other"),
        "{config}"
    );
    place.good(&["pull", &name])?;
    place.good(&["logout", &daemon.address])?;
    ensure!(!kept.exists());
    place.write("home/.docker/config.json", r#"{"credsStore": "absent"}"#)?;
    place.bad(
        &["pull", &name],
        &["run credential helper docker-credential-absent (is it installed?)"],
    )?;
    Ok(())
}

fn auth_json_of_the_containers_tools_is_read(place: &Place) -> Result<()> {
    let daemon = with_password(place)?;
    fill_with_password(place, &daemon)?;
    let auth = |user: &str| json!({"auth": STANDARD.encode(user)});
    let keys = json!({"auths": {
        daemon.address.clone(): auth("eve:x"),
        format!("{}/app", daemon.address): auth("alice:wonder:land"),
    }});
    let file = place.write("my-auth.json", &keys.to_string())?;
    let name = format!("{}/app:1", daemon.address);
    let output = place
        .command(&["pull", &name])
        .env("REGISTRY_AUTH_FILE", &file)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let missing = place
        .command(&["pull", &name])
        .env("REGISTRY_AUTH_FILE", "/nowhere.json")
        .output()?;
    ensure!(
        String::from_utf8_lossy(&missing.stderr)
            .contains("/nowhere.json: no such file (REGISTRY_AUTH_FILE names it)")
    );
    place.write("home/.config/containers/auth.json", &keys.to_string())?;
    place.good(&["pull", &name]).map(drop)
}

/// A CA, and a key with a certificate of it for 127.0.0.1 and registry.test: paths of key, certificate and CA.
fn certificate(place: &Place, name: &str) -> Result<[String; 3]> {
    let file = |end: &str| text(&place.path(&format!("{name}.{end}"))).to_owned();
    let (ca, ca_key, request) = (file("ca.crt"), file("ca.key"), file("csr"));
    let (key, crt) = (file("key"), file("crt"));
    let extensions = place.write(
        &format!("{name}.ext"),
        "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:registry.test\n",
    )?;
    let new = ["req", "-newkey", "rsa:2048", "-nodes"];
    let openssl = |more: &[&str]| run("openssl", more).map(drop);
    openssl(
        &[
            &new[..],
            &[
                "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", &ca_key, "-out", &ca,
            ],
        ]
        .concat(),
    )?;
    openssl(
        &[
            &new[..],
            &["-subj", "/CN=test", "-keyout", &key, "-out", &request],
        ]
        .concat(),
    )?;
    let sign = [
        "x509",
        "-req",
        "-days",
        "2",
        "-CAcreateserial",
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
    ];
    openssl(
        &[
            &sign[..],
            &["-in", &request, "-extfile", text(&extensions), "-out", &crt],
        ]
        .concat(),
    )?;
    Ok([key, crt, ca])
}

/// docker-registry that wants tokens, and the server that gives them out: a JWT signed with its key, for the scopes that
/// are asked for, to alice; `pull` of `public/…` to anybody.
fn with_tokens(place: &Place) -> Result<(Daemon, Server)> {
    let [key, crt, ca] = certificate(place, "token")?;
    let pem = fs::read_to_string(&crt)?;
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let dir = place.dir.clone();
    let server = Server::start(move |request| match grant(request, &key, &der, &dir) {
        Ok(answer) => answer,
        Err(error) => Answer::new(500, format!("{error:#}")),
    })?;
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: registry\n    issuer: tester\n    rootcertbundle: {ca}\n",
        server.address
    );
    let daemon = Daemon::start_with(
        place,
        "registry",
        &Extra {
            auth,
            ..Extra::default()
        },
    )?;
    Ok((daemon, server))
}

fn grant(request: &Request, key: &str, der: &str, dir: &std::path::Path) -> Result<Answer> {
    let form = String::from_utf8(request.body.clone())?;
    let query = match request.method.as_str() {
        "POST" => form.as_str(),
        _ => request.path.split_once('?').map_or("", |(_, query)| query),
    };
    let decode = |text: &str| {
        text.replace("%3A", ":")
            .replace("%2F", "/")
            .replace("%2C", ",")
            .replace("%20", " ")
    };
    let known = match request.method.as_str() {
        "POST" => form.contains("refresh_token=identity-of-alice"),
        _ => {
            request.header("authorization")
                == Some(&format!("Basic {}", STANDARD.encode("alice:wonder:land")))
        }
    };
    if !known && (request.header("authorization").is_some() || request.method == "POST") {
        return Ok(Answer::new(
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"no such user"}]}"#,
        ));
    }
    let mut access = Vec::new();
    for (_, scope) in query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| *name == "scope")
    {
        for scope in decode(scope).split(' ') {
            let parts: Vec<&str> = scope.split(':').collect();
            let all: Vec<&str> = parts[2].split(',').collect();
            let actions = match (known, parts[1].starts_with("public/")) {
                (true, _) => all,
                (false, true) => vec!["pull"],
                (false, false) => vec![],
            };
            access.push(json!({"type": parts[0], "name": parts[1], "actions": actions}));
        }
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let claims = json!({
        "iss": "tester", "sub": "", "aud": "registry", "exp": now + 300, "nbf": now - 60, "iat": now,
        "jti": digest(query.as_bytes()), "access": access,
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let name = digest(format!("{signed}{:?}", std::thread::current().id()).as_bytes());
    let (input, output) = (
        dir.join(format!("{name}.in")),
        dir.join(format!("{name}.out")),
    );
    fs::write(&input, &signed)?;
    run(
        "openssl",
        &[
            "dgst",
            "-sha256",
            "-sign",
            key,
            "-out",
            text(&output),
            text(&input),
        ],
    )?;
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fs::read(&output)?));
    Ok(Answer::new(
        200,
        json!({"token": token, "expires_in": 300}).to_string(),
    ))
}

fn tokens_are_fetched_for_what_is_done(place: &Place) -> Result<()> {
    let (daemon, server) = with_tokens(place)?;
    daemon.fill_as(
        place,
        "public/app:1",
        &[1000, 2000, 3000],
        &["--dest-creds", "alice:wonder:land"],
    )?;
    daemon.fill_as(
        place,
        "private/app:1",
        &[1000],
        &["--dest-creds", "alice:wonder:land"],
    )?;
    let (public, private) = (
        format!("{}/public/app:1", daemon.address),
        format!("{}/private/app:1", daemon.address),
    );
    let before = server.seen().len();
    place.good(&["pull", &public])?;
    let asked = server.seen().split_off(before);
    // One token for manifest, config and three layers.
    ensure!(asked.len() == 1, "{asked:?}");
    ensure!(
        asked[0].path == "/token?service=registry&scope=repository%3Apublic%2Fapp%3Apull",
        "{}",
        asked[0].path
    );
    place.bad(&["pull", &private], &["status 401"])?;
    let wrong = login(place, &daemon.address, "alice", "guess")?;
    ensure!(
        !wrong.ok && wrong.stderr.contains("refuses your credentials"),
        "{}",
        wrong.stderr
    );
    ensure!(login(place, &daemon.address, "alice", "wonder:land")?.ok);
    place.good(&["pull", &private])?;
    place.good(&["push", &private])?;
    let last = server.seen().pop().context("a token")?;
    ensure!(
        last.path
            .contains("repository%3Aprivate%2Fapp%3Apull%2Cpush"),
        "{}",
        last.path
    );
    Ok(())
}

fn a_registry_that_asks_for_a_password_only_later_gets_it(place: &Place) -> Result<()> {
    let one = super::faults::One::new(1000)?;
    let basic = format!("Basic {}", STANDARD.encode("alice:secret"));
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ if request.header("authorization") != Some(&basic) => {
            Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")
        }
        _ => one
            .answer(request)
            .unwrap_or_else(|| Answer::new(200, one.layer.clone())),
    })?;
    let name = format!("{}/app:1", server.address);
    place.bad(&["pull", &name], &["status 401"])?;
    let auths =
        json!({"auths": {server.address.clone(): {"auth": STANDARD.encode("alice:secret")}}});
    place.write("home/.docker/config.json", &auths.to_string())?;
    place.good(&["pull", &name]).map(drop)
}

fn an_identity_token_is_exchanged(place: &Place) -> Result<()> {
    let (daemon, server) = with_tokens(place)?;
    daemon.fill_as(
        place,
        "private/app:1",
        &[1000],
        &["--dest-creds", "alice:wonder:land"],
    )?;
    let auths = json!({"auths": {daemon.address.clone(): {"auth": "", "identitytoken": "identity-of-alice"}}});
    place.write("home/.docker/config.json", &auths.to_string())?;
    place.good(&["pull", &format!("{}/private/app:1", daemon.address)])?;
    let last = server.seen().pop().context("a token")?;
    ensure!(
        last.method == "POST" && last.path == "/token" && last.header("authorization").is_none()
    );
    Ok(())
}

fn a_private_ca_is_trusted_for_its_host_only(place: &Place) -> Result<()> {
    let [key, crt, ca] = certificate(place, "tls")?;
    let http = format!("  tls:\n    certificate: {crt}\n    key: {key}\n");
    let daemon = Daemon::start_with(
        place,
        "registry",
        &Extra {
            http,
            ..Extra::default()
        },
    )?;
    daemon.fill(place, "app:1", &[1_000_000])?;
    let name = format!("{}/app:1", daemon.address);
    let hint = format!("put it into certs.d/{}/ca.crt", daemon.address);
    place.bad(&["pull", &name], &["https://", "certificate", &hint])?;
    let certs = format!("home/.config/containers/certs.d/{}/ca.crt", daemon.address);
    place.write(
        "home/.config/containers/certs.d/127.0.0.1:1/ca.crt",
        &fs::read_to_string(&ca)?,
    )?;
    place.bad(&["pull", &name], &["certificate"])?;
    place.write(&certs, "not a certificate")?;
    place.bad(&["pull", &name], &["ca.crt: no certificate in PEM"])?;
    place.write(&certs, &fs::read_to_string(&ca)?)?;
    place.good(&["pull", &name])?;
    place.good(&["push", &name])?;
    fs::remove_file(place.path(&certs))?;
    place.registries_conf(&format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        daemon.address
    ))?;
    place.good(&["pull", &name]).map(drop)
}

fn a_client_certificate_is_shown_to_its_host(place: &Place) -> Result<()> {
    let [key, crt, ca] = certificate(place, "tls")?;
    let http =
        format!("  tls:\n    certificate: {crt}\n    key: {key}\n    clientcas:\n      - {ca}\n");
    let extra = Extra {
        http,
        ..Extra::default()
    };
    let daemon = Daemon::start_with(place, "registry", &extra)?;
    let name = format!("{}/app:1", daemon.address);
    let certs = format!("home/.config/containers/certs.d/{}", daemon.address);
    place.write(&format!("{certs}/ca.crt"), &fs::read_to_string(&ca)?)?;
    place.bad(&["pull", &name], &["https://", "ertificate"])?;
    place.write(&format!("{certs}/me.cert"), &fs::read_to_string(&crt)?)?;
    place.bad(&["pull", &name], &["me.key", "No such file"])?;
    let [other, _, _] = certificate(place, "other")?;
    let me = format!("{certs}/me.key");
    place.write(&me, &fs::read_to_string(&other)?)?;
    place.bad(&["pull", &name], &["me.cert and", "me.key"])?;
    place.write(&me, &fs::read_to_string(&key)?)?;
    // In: there is no such image, but it was looked for.
    place.bad(&["pull", &name], &["status 404"])?;
    Ok(())
}

/// The proxy knows one name: `registry.test`, which is not this machine as far as a client can tell.
fn a_proxy_is_used_for_what_is_not_this_machine(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[200_000])?;
    let proxy = proxy_to(daemon.port)?;
    place.registries_conf("[[registry]]\nlocation = \"registry.test:5000\"\ninsecure = true\n")?;
    let pull = |except: &str| {
        let mut command = place.command(&["pull", "registry.test:5000/app:1"]);
        command
            .env("HTTP_PROXY", &proxy)
            .env("HTTPS_PROXY", &proxy)
            .env("NO_PROXY", except);
        said(command.output()?)
    };
    let with = pull("")?;
    ensure!(with.ok, "{}", with.stderr);
    let without = pull("other, .test")?;
    ensure!(
        !without.ok
            && without
                .stderr
                .contains("failed to lookup address information"),
        "{}",
        without.stderr
    );
    // This machine itself is never asked for through it.
    let mut command = place.command(&["pull", &format!("{}/app:1", daemon.address)]);
    ensure!(
        command
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .output()?
            .status
            .success()
    );
    Ok(())
}

/// The certificate that is checked is the registry's, by its name; the proxy sees bytes.
fn tls_goes_through_a_proxy_to_the_registry(place: &Place) -> Result<()> {
    let [key, crt, ca] = certificate(place, "tls")?;
    let http = format!("  tls:\n    certificate: {crt}\n    key: {key}\n");
    let extra = Extra {
        http,
        ..Extra::default()
    };
    let daemon = Daemon::start_with(place, "registry", &extra)?;
    daemon.fill(place, "app:1", &[1_000_000])?;
    let proxy = proxy_to(daemon.port)?;
    let call = |verb: &str| {
        let mut command = place.command(&[verb, "registry.test:5000/app:1"]);
        command
            .env("HTTPS_PROXY", &proxy)
            .env("HTTP_PROXY", "http://127.0.0.1:1");
        said(command.output()?)
    };
    let unknown = call("pull")?;
    ensure!(
        !unknown.ok && unknown.stderr.contains("certificate"),
        "{}",
        unknown.stderr
    );
    place.write(
        "home/.config/containers/certs.d/registry.test:5000/ca.crt",
        &fs::read_to_string(&ca)?,
    )?;
    for verb in ["pull", "push"] {
        let known = call(verb)?;
        ensure!(known.ok, "{verb}: {}", known.stderr);
    }
    place.check_store()
}

/// As registries are mostly run: TLS ends at nginx, which passes the rest on in the clear.
fn nginx_may_stand_before_the_registry(place: &Place) -> Result<()> {
    let daemon = Daemon::start(place)?;
    daemon.fill(place, "app:1", &[3_000_000, 1000])?;
    let [key, crt, ca] = certificate(place, "tls")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let dir = place.dir.display();
    let conf = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr;
         events {{}}
         http {{
             access_log off; client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy;
             fastcgi_temp_path {dir}/nginx-f; uwsgi_temp_path {dir}/nginx-u; scgi_temp_path {dir}/nginx-s;
             server {{
                 listen 127.0.0.1:{port} ssl; ssl_certificate {crt}; ssl_certificate_key {key};
                 client_max_body_size 0; chunked_transfer_encoding on;
                 location / {{
                     proxy_pass http://{}; proxy_set_header Host $http_host;
                     proxy_set_header X-Forwarded-Proto $scheme;
                 }}
             }}
         }}",
        daemon.address
    );
    let conf = place.write("nginx.conf", &conf)?;
    let mut nginx = Command::new("nginx")
        .args(["-c", text(&conf)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let tried = (|| -> Result<()> {
        // It does not tell when it listens.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(nginx.try_wait()?.is_none(), "nginx does not start");
            std::thread::yield_now();
        }
        let registry = format!("127.0.0.1:{port}");
        let name = format!("{registry}/app:1");
        place.bad(&["pull", &name], &["certificate"])?;
        place.write(
            &format!("home/.config/containers/certs.d/{registry}/ca.crt"),
            &fs::read_to_string(&ca)?,
        )?;
        place.good(&["pull", &name])?;
        ensure!(place.names()? == [(name.clone(), daemon.digest("app:1")?)]);
        let pushed = format!("{registry}/pushed:1");
        place.good(&["tag", &name, &pushed])?;
        place.good(&["push", &pushed])?;
        ensure!(daemon.digest("pushed:1")? == daemon.digest("app:1")?);
        place.check_store()
    })();
    nginx.kill()?;
    nginx.wait()?;
    tried
}

/// A proxy's URL.
fn proxy_to(port: u16) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let proxy = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let _ = tunnel(client, port);
        }
    });
    Ok(proxy)
}

fn tunnel(mut client: TcpStream, port: u16) -> Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let known = line.starts_with("CONNECT registry.test:5000 ");
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
    }
    if !known {
        return Ok(client.write_all(b"HTTP/1.1 404 No\r\n\r\n")?);
    }
    let server = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    join(client, server, &Arc::new(Free));
    Ok(())
}

fn a_typed_password_is_not_shown_and_ctrl_c_leaves_the_terminal_as_it_was(
    place: &Place,
) -> Result<()> {
    let server = Server::start(|request| match request.header("authorization") {
        Some(authorization)
            if authorization == format!("Basic {}", STANDARD.encode("alice:geheim")) =>
        {
            Answer::new(200, "{}")
        }
        _ => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
    })?;
    for (typed, good) in [
        ("alice\rgehexx\x7f\x7fim\r", true),
        ("alice\rgeh\x03", false),
    ] {
        let pty = openpty(None, None)?;
        let stdio = || pty.slave.try_clone().map(Stdio::from);
        let mut child = place.command(&["login", &server.address]);
        let mut child = child
            .stdin(stdio()?)
            .stdout(stdio()?)
            .stderr(stdio()?)
            .spawn()?;
        let mut master = fs::File::from(pty.master);
        let (user, password) = typed.split_at(6);
        let mut screen = until(&mut master, "Username: ")?;
        master.write_all(user.as_bytes())?;
        screen += &until(&mut master, "Password: ")?;
        master.write_all(password.as_bytes())?;
        screen += &until(
            &mut master,
            if good {
                "Login Succeeded"
            } else {
                "no password was typed"
            },
        )?;
        ensure!(child.wait()?.success() == good, "{screen}");
        ensure!(!screen.contains("geh"), "{screen}");
        let flags = tcgetattr(&pty.slave)?.local_flags;
        ensure!(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG));
    }
    let without = place.run(&["login", &server.address])?;
    ensure!(
        without.stderr.contains("stdin is not a terminal"),
        "{}",
        without.stderr
    );
    Ok(())
}

/// What the terminal shows up to these words.
fn until(master: &mut fs::File, words: &str) -> Result<String> {
    let mut screen = String::new();
    let mut buffer = [0; 1024];
    while !screen.contains(words) {
        let n = master
            .read(&mut buffer)
            .with_context(|| format!("waited for {words:?}, saw {screen:?}"))?;
        screen += &String::from_utf8_lossy(&buffer[..n]);
    }
    Ok(screen)
}
