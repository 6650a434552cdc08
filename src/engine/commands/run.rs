//! `run`: a container from an image or a bundle, made and started.

use crate::engine::cli::Global;
use crate::engine::config::{self, Volume, Wishes};
use crate::engine::monitor;
use crate::engine::programs;
use crate::engine::record::{Home, Record, short};
use crate::engine::rootless;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Run a command in a new container
#[derive(Debug, Args)]
pub struct Run {
    /// In the background; print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// [default: one is made up]
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// An environment variable; KEY alone takes the value it has here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// A file of such lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it, a name of the image or a number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Instead of the image's Entrypoint and Cmd
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Show a file or directory of the host in the container
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    volume: Vec<String>,
    /// [default: the beginning of the id]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// none: loopback only; host: no network of its own, all of the host's
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    /// Memory, and as much swap, like 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Processors, like 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Nothing can be written but below /run, /tmp, /var/tmp and volumes
    #[arg(long)]
    read_only: bool,
    /// One more capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// One capability less, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// All capabilities and devices, no seccomp, nothing of /proc hidden
    #[arg(long)]
    privileged: bool,
    /// KEY or KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// Another OCI runtime: crun, runc [default: sc-runtime]
    #[arg(long, value_name = "PROGRAM")]
    runtime: Option<PathBuf>,
    /// Run a bundle (config.json, rootfs) instead of an image
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// IMAGE, then the command; after --bundle only the command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_names = ["IMAGE", "COMMAND"], num_args = 0..)]
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Network {
    // Never weaker than what was asked for: a container that has too little network says so at once.
    #[default]
    None,
    Host,
}

impl Run {
    pub fn run(&self, global: &Global) -> Result<u8> {
        ensure!(
            !self.tty || self.detach || std::io::stdin().is_terminal(),
            "--tty: stdin is not a terminal; without -t, or with -d, none is needed"
        );
        let (image, command) = self.words()?;
        let wishes = self.wishes()?;
        let home = global.home()?;
        let record = Record {
            name: self.name.clone(),
            image: image.unwrap_or_default().to_owned(),
            labels: labels(&self.label)?,
            terminal: self.tty,
            interactive: self.interactive,
            remove: self.rm,
            network: match self.network {
                Network::None => "none".to_owned(),
                Network::Host => "host".to_owned(),
            },
            runtime: self.runtime()?,
            ..Record::default()
        };
        let record = home.create(record, |dir, record| {
            let mut config = match image {
                Some(image) => self.unpack(&home, image, command, dir, record)?,
                None => self.adopt(command, dir)?,
            };
            self.complete(&mut config, wishes, dir, record, image.is_some())?;
            let words = config["process"]["args"].as_array().into_iter().flatten();
            record.command = words
                .filter_map(|word| Some(word.as_str()?.to_owned()))
                .collect();
            let text = serde_json::to_vec_pretty(&config)?;
            Ok(fs::write(dir.join("bundle/config.json"), text)?)
        })?;
        let started = match self.detach {
            true => monitor::detach(&home, &record.id).map(|()| {
                println!("{}", record.id);
                0
            }),
            false => monitor::attached(&home, &record.id),
        };
        // As docker: what never started stays to be looked at, but for --rm.
        if started.is_err() && self.rm {
            home.remove(&record.id)?;
        }
        started
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
        match &self.runtime {
            None => Ok(programs::find("sc-runtime")),
            // The monitor works elsewhere.
            Some(path) if path.components().count() > 1 => Ok(std::path::absolute(path)?),
            Some(name) => Ok(name.clone()),
        }
    }

    fn wishes(&self) -> Result<Wishes> {
        let mut volumes = Vec::new();
        for text in &self.volume {
            let (volume, note) = Volume::parse(text)?;
            // A typing error must not become a directory of the host.
            ensure!(
                Path::new(&volume.source).exists(),
                "--volume {text:?}: {} does not exist: make it first",
                volume.source
            );
            if let Some(note) = note {
                eprintln!("sc: {note}");
            }
            volumes.push(volume);
        }
        let memory = self.memory.as_deref().map(config::bytes);
        let all = caps::runtime::thread_all_supported();
        Ok(Wishes {
            env: self.environment()?,
            cwd: self.workdir.clone(),
            hostname: self.hostname.clone(),
            host_network: self.network == Network::Host,
            memory: memory.transpose().context("--memory")?,
            cpus: self.cpus,
            pids_limit: self.pids_limit,
            read_only: self.read_only,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            volumes,
            all_caps: all.iter().map(ToString::to_string).collect(),
        })
    }

    /// Files first: what is typed wins.
    fn environment(&self) -> Result<Vec<String>> {
        let mut env = Vec::new();
        for path in &self.env_file {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("--env-file {}", path.display()))?;
            let lines = text.lines().map(str::trim_start);
            env.extend(
                lines
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .map(str::to_owned),
            );
        }
        env.extend(self.env.iter().cloned());
        Ok(env.into_iter().filter_map(valued).collect())
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
            rootless: bool,
        }
        let mut program = programs::image(&home.root);
        program
            .arg("unpack")
            .arg("--overlay")
            .arg("--bundle")
            .arg(dir.join("bundle"));
        program.args(self.tty.then_some("--tty"));
        for (option, value) in [("--user", &self.user), ("--entrypoint", &self.entrypoint)] {
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
        fs::set_permissions(
            dir.join("upper"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        for (number, layer) in layers.lowerdirs.iter().enumerate() {
            std::os::unix::fs::symlink(layer, dir.join(format!("l/{number}")))?;
        }
        record.lower = layers.lowerdirs;
        record.rootless = layers.rootless;
        let text = fs::read(dir.join("bundle/config.json"))?;
        let mut config: Value = serde_json::from_slice(&text)?;
        rootless::nest(&mut config);
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
        config["process"]["terminal"] = json!(self.tty);
        let entrypoint = self.entrypoint.iter().filter(|program| !program.is_empty());
        let words: Vec<&String> = entrypoint.chain(command).collect();
        if !words.is_empty() {
            config["process"]["args"] = json!(words);
        }
        if let Some(user) = &self.user {
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
        dir: &Path,
        record: &Record,
        image: bool,
    ) -> Result<()> {
        if image {
            let hostname = wishes
                .hostname
                .get_or_insert_with(|| short(&record.id).to_owned())
                .clone();
            identify(config, dir, &hostname, self.network)?;
            wishes.env.insert(0, format!("HOSTNAME={hostname}"));
        }
        config::apply(config, &wishes)
    }
}

/// /etc/hosts, /etc/hostname and /etc/resolv.conf: the host's where the network is.
fn identify(config: &mut Value, dir: &Path, hostname: &str, network: Network) -> Result<()> {
    let host = |path: &str| match network {
        Network::Host => fs::read_to_string(path).unwrap_or_default(),
        Network::None => String::new(),
    };
    let hosts = format!(
        "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost\n{}",
        host("/etc/hosts")
    );
    for (name, text) in [
        ("hosts", hosts),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", host("/etc/resolv.conf")),
    ] {
        let path = dir.join(name);
        fs::write(&path, text)?;
        config::add_mount(
            config,
            json!({ "destination": format!("/etc/{name}"), "type": "bind", "source": path, "options": ["bind", "rprivate"] }),
        );
    }
    Ok(())
}

/// `KEY` takes the value of here; unset, it says nothing.
pub fn valued(entry: String) -> Option<String> {
    match entry.contains('=') {
        true => Some(entry),
        false => std::env::var(&entry)
            .ok()
            .map(|value| format!("{entry}={value}")),
    }
}

fn labels(typed: &[String]) -> Result<BTreeMap<String, String>> {
    let split = |label: &String| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        ensure!(!key.is_empty(), "--label {label:?}: a key is missing");
        Ok((key.to_owned(), value.to_owned()))
    };
    typed.iter().map(split).collect()
}
