//! `sc run`: an image that is not here comes from its registry, Debian's docker-registry on loopback.

use crate::place::{Place, text};
use crate::sc::{assert_nothing, command, ok, refused, sc, with_image};
use crate::tests;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

tests! {
    a_missing_image_is_pulled_and_stdout_stays_the_containers ["busybox", "docker-registry"],
}

struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(place: &Place) -> Result<Registry> {
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            place.path("registry").display()
        );
        fs::write(place.path("registry.yml"), config)?;
        let mut child = Command::new("docker-registry")
            .args(["serve", "registry.yml"])
            .current_dir(&place.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let mut registry = Registry {
            child,
            address: String::new(),
        };
        for line in lines.by_ref() {
            let line = line?;
            if let Some((_, rest)) = line.split_once("listening on ") {
                let port = |c: char| c.is_ascii_digit() || c == '.' || c == ':';
                registry.address = rest.chars().take_while(|c| port(*c)).collect();
                break;
            }
        }
        ensure!(
            !registry.address.is_empty(),
            "docker-registry did not begin to listen"
        );
        // It must not stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn a_missing_image_is_pulled_and_stdout_stays_the_containers(place: &Place) -> Result<()> {
    with_image(place)?;
    let registry = Registry::start(place)?;
    let name = format!("{}/box:1", registry.address);
    ok(place, &["tag", "busybox", &name])?;
    ok(place, &["push", &name])?;
    ensure!(ok(place, &["history", &name])?.contains("CREATED BY"));
    ok(place, &["rmi", &name, "busybox"])?;
    refused(
        place,
        &["run", "--rm", "--pull", "never", &name, "true"],
        125,
    )?;
    let output = sc(place, &["run", "--rm", &name, "echo", "hello"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains(&format!("Unable to find image '{name}' locally\n")),
        "{said}"
    );
    ensure!(text(output)? == "hello\n");
    // It is here now: nobody is asked, unless always.
    let output = sc(place, &["run", "--rm", &name, "true"])?;
    ensure!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ok(
        place,
        &["run", "--rm", "-q", "--pull", "always", &name, "true"],
    )?;
    let said = refused(
        place,
        &[
            "run",
            "--rm",
            &format!("{}/nosuch", registry.address),
            "true",
        ],
        125,
    )?;
    ensure!(said.contains("and it cannot be pulled"), "{said}");
    // Many at once want the same.
    ok(place, &["rmi", &name])?;
    let run = |_| {
        command(place, &["run", "--rm", "-q", &name, "echo", "x"])
            .stdout(Stdio::piped())
            .spawn()
    };
    let all = (0..4).map(run).collect::<std::io::Result<Vec<_>>>()?;
    for one in all {
        ensure!(text(one.wait_with_output()?)? == "x\n");
    }
    drop(registry);
    ensure!(ok(place, &["run", "--rm", &name, "echo", "still"])? == "still\n");
    refused(
        place,
        &["run", "--rm", "--pull", "always", &name, "true"],
        125,
    )?;
    assert_nothing(place)
}
