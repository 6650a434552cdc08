//! How does what was typed to `create` and `run` become a container that is there and has not started?

use super::config::{self, Wishes};
use super::network::wanted::Mode;
use super::options::{lifecycle, limits, mounts, network, process, security};
use super::programs;
use super::record::{Home, Record, short};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// All that `create` and `run` have in common.
#[derive(Debug, Args)]
pub struct Make {
    #[command(flatten)]
    pub process: process::Process,
    #[command(flatten)]
    pub lifecycle: lifecycle::Lifecycle,
    #[command(flatten)]
    limits: limits::Limits,
    #[command(flatten)]
    mounts: mounts::Mounts,
    #[command(flatten)]
    network: network::Network,
    #[command(flatten)]
    security: security::Security,
    /// Run a bundle (config.json, rootfs) instead of an image
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// IMAGE, then the command; after --bundle only the command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_names = ["IMAGE", "COMMAND"], num_args = 0..)]
    words: Vec<String>,
}

impl Make {
    /// The container's record and directory, with its bundle.
    pub fn make(&self, home: &Home) -> Result<Record> {
        let (image, command) = self.words()?;
        let wishes = self.wishes()?;
        let record = Record {
            name: self.lifecycle.name.clone(),
            image: image.unwrap_or_default().to_owned(),
            labels: self.lifecycle.labels()?,
            terminal: self.process.tty,
            interactive: self.process.interactive,
            remove: self.lifecycle.rm,
            networks: self.network.wanted(home, image.is_none())?,
            runtime: self.runtime()?,
            ..Record::default()
        };
        home.create(record, |dir, record| {
            let mut config = match image {
                Some(image) => self.unpack(home, image, command, dir, record)?,
                None => self.adopt(command, dir)?,
            };
            self.complete(&mut config, wishes, home, dir, record, image.is_some())?;
            let words = config["process"]["args"].as_array().into_iter().flatten();
            record.command = words
                .filter_map(|word| Some(word.as_str()?.to_owned()))
                .collect();
            let text = serde_json::to_vec_pretty(&config)?;
            Ok(fs::write(dir.join("bundle/config.json"), text)?)
        })
    }

    fn words(&self) -> Result<(Option<&str>, &[String])> {
        match (&self.bundle, self.words.split_first()) {
            (Some(_), _) => Ok((None, &self.words)),
            (None, Some((image, _))) if image.starts_with('-') => {
                bail!("unknown option {image}; `sc run --help` lists them")
            }
            (None, Some((image, command))) => Ok((Some(image), command)),
            (None, None) => bail!("which image? `sc images` lists them: sc run IMAGE [COMMAND]"),
        }
    }

    fn runtime(&self) -> Result<PathBuf> {
        match &self.lifecycle.runtime {
            None => Ok(programs::find("sc-runtime")),
            // The monitor works elsewhere.
            Some(path) if path.components().count() > 1 => Ok(std::path::absolute(path)?),
            Some(name) => Ok(name.clone()),
        }
    }

    fn wishes(&self) -> Result<Wishes> {
        let mut wishes = Wishes::default();
        self.process.wish(&mut wishes)?;
        self.limits.wish(&mut wishes)?;
        self.mounts.wish(&mut wishes)?;
        self.security.wish(&mut wishes);
        Ok(wishes)
    }

    /// sc-image makes the bundle, and says which layers are below it.
    fn unpack(
        &self,
        home: &Home,
        image: &str,
        command: &[String],
        dir: &Path,
        record: &mut Record,
    ) -> Result<Value> {
        #[derive(Deserialize)]
        struct Layers {
            lowerdirs: Vec<PathBuf>,
        }
        ensure!(
            nix::unistd::geteuid().is_root(),
            "run IMAGE needs root, to mount its layers; without root, run a bundle: `sc-image unpack --bundle DIR {image}`, `sc run --bundle DIR`"
        );
        let mut program = programs::image(&home.root);
        program
            .arg("unpack")
            .arg("--overlay")
            .arg("--bundle")
            .arg(dir.join("bundle"));
        program.args(self.process.tty.then_some("--tty"));
        for (option, value) in [
            ("--user", &self.process.user),
            ("--entrypoint", &self.process.entrypoint),
        ] {
            if let Some(value) = value {
                program.arg(format!("{option}={value}"));
            }
        }
        program
            .arg(image)
            .args(command)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let output = program.output().context("execute sc-image")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let error = said
                .lines()
                .last()
                .unwrap_or("failed")
                .trim_start_matches("sc-image: ");
            let missing = error.contains("no such image") || error.contains("no image");
            match missing {
                true => bail!(
                    "no image {image} here: `sc pull {image}` fetches it, `sc load` takes it from a file"
                ),
                false => bail!("{error}"),
            }
        }
        eprint!("{said}");
        let layers: Layers =
            serde_json::from_slice(&output.stdout).context("what sc-image unpack says")?;
        for name in ["l", "work", "upper"] {
            fs::create_dir(dir.join(name))?;
        }
        // The uppermost directory is the root's: others than root must pass.
        fs::set_permissions(dir.join("upper"), PermissionsExt::from_mode(0o755))?;
        for (number, layer) in layers.lowerdirs.iter().enumerate() {
            std::os::unix::fs::symlink(layer, dir.join(format!("l/{number}")))?;
        }
        record.lower = layers.lowerdirs;
        let text = fs::read(dir.join("bundle/config.json"))?;
        let config: Value = serde_json::from_slice(&text)?;
        if let Some(signal) = config["annotations"]["org.opencontainers.image.stopSignal"].as_str()
        {
            record.stop_signal = signal.to_owned();
        }
        Ok(config)
    }

    /// A copy of the bundle's config.json, with its root where it was.
    fn adopt(&self, command: &[String], dir: &Path) -> Result<Value> {
        let bundle = std::path::absolute(self.bundle.as_deref().context("no bundle")?)?;
        let path = bundle.join("config.json");
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        let mut config: Value =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let root = config["root"]["path"]
            .as_str()
            .context("config.json: root.path is missing")?;
        config["root"]["path"] = json!(bundle.join(root));
        config["process"]["terminal"] = json!(self.process.tty);
        let entrypoint = self
            .process
            .entrypoint
            .iter()
            .filter(|program| !program.is_empty());
        let words: Vec<&String> = entrypoint.chain(command).collect();
        if !words.is_empty() {
            config["process"]["args"] = json!(words);
        }
        if let Some(user) = &self.process.user {
            let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
            let number = |text: &str| {
                text.parse::<u32>()
                    .with_context(|| format!("--user {user}: in a bundle, only numbers"))
            };
            config["process"]["user"] = json!({ "uid": number(uid)?, "gid": number(gid)? });
        }
        fs::create_dir(dir.join("bundle"))?;
        Ok(config)
    }

    /// All that was typed, and for an image the files that tell a container who it is.
    fn complete(
        &self,
        config: &mut Value,
        mut wishes: Wishes,
        home: &Home,
        dir: &Path,
        record: &mut Record,
        image: bool,
    ) -> Result<()> {
        wishes.host_network = record.networks.mode == Mode::Host;
        if image {
            let hostname = wishes
                .hostname
                .get_or_insert_with(|| short(&record.id).to_owned())
                .clone();
            let exposed = config["annotations"]["org.opencontainers.image.exposedPorts"].as_str();
            (self.network).publish_exposed(&mut record.networks, exposed.unwrap_or_default())?;
            record.networks.hostname = hostname.clone();
            identify(config, home, dir, &record.networks.mode)?;
            wishes.env.insert(0, format!("HOSTNAME={hostname}"));
        }
        if record.networks.mode.is_prepared() {
            config::join_network(config, &dir.join("netns"), record.networks.mode.is_own());
        }
        config::apply(config, &wishes)
    }
}

/// /etc/hosts, /etc/hostname and /etc/resolv.conf: files that are filled when the container starts, or those of the
/// container whose network it shares.
fn identify(config: &mut Value, home: &Home, dir: &Path, mode: &Mode) -> Result<()> {
    let of = match mode {
        Mode::Container(id) => home.dir(id),
        _ => dir.to_owned(),
    };
    for name in ["hosts", "hostname", "resolv.conf"] {
        let path = of.join(name);
        if of == dir {
            fs::write(&path, "")?;
        }
        config::add_mount(
            config,
            json!({ "destination": format!("/etc/{name}"), "type": "bind", "source": path, "options": ["bind", "rprivate"] }),
        );
    }
    Ok(())
}
