//! Debian's docker-registry, as a child of the test, on a free port of loopback.

use super::oci::Layout;
use super::place::{Place, run, skopeo, text};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

pub struct Daemon {
    child: Child,
    /// `127.0.0.1:PORT`
    pub address: String,
    pub port: u16,
}

/// What goes into its configuration beyond storage and address; in YAML, indented as it must be there.
#[derive(Default)]
pub struct Extra {
    /// Below `http:`
    pub http: String,
    pub auth: String,
}

impl Daemon {
    pub fn start(place: &Place) -> Result<Daemon> {
        Daemon::start_with(place, "registry", &Extra::default())
    }

    pub fn start_with(place: &Place, name: &str, extra: &Extra) -> Result<Daemon> {
        let data = place.path(name);
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: \
             true\nhttp:\n  addr: 127.0.0.1:0\n  secret: x\n{}{}",
            data.display(),
            extra.http,
            extra.auth
        );
        let config = place.write(&format!("{name}.yml"), &config)?;
        let mut child = Command::new("docker-registry")
            .args(["serve", text(&config)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("docker-registry")?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let mut before = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                bail!("docker-registry did not begin to listen: {before}");
            };
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end =
                    rest.find(|char: char| !char.is_ascii_digit() && !matches!(char, '.' | ':'));
                break rest[..end.unwrap_or(rest.len())]
                    .trim_end_matches(['.', ','])
                    .to_owned();
            }
            before += &line;
        };
        // It must not stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let port = address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .context(address.clone())?;
        Ok(Daemon {
            child,
            address,
            port,
        })
    }

    /// Pushes a new image of these layers there by skopeo; gives the layout it came from.
    pub fn fill(&self, place: &Place, name: &str, sizes: &[usize]) -> Result<Layout> {
        self.fill_as(place, name, sizes, &[])
    }

    pub fn fill_as(
        &self,
        place: &Place,
        name: &str,
        sizes: &[usize],
        more: &[&str],
    ) -> Result<Layout> {
        let mut layout =
            Layout::new(&place.path(&format!("layout-{}", name.replace(['/', ':'], "-"))))?;
        let manifest = layout.manifest("amd64", sizes, 1)?;
        layout.tag("it", manifest)?;
        skopeo(
            more,
            &layout.at("it"),
            &format!("docker://{}/{name}", self.address),
        )?;
        Ok(layout)
    }

    /// The digest that a tag has there, as skopeo finds it.
    pub fn digest(&self, name: &str) -> Result<String> {
        let image = format!("docker://{}/{name}", self.address);
        let raw = run(
            "skopeo",
            &["inspect", "--raw", "--tls-verify=false", &image],
        )?;
        Ok(super::oci::digest(raw.as_bytes()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
