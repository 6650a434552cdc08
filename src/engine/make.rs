//! How does what was typed to `create` and `run` become a container that is there and has not started?

use super::config::{self, Wishes};
use super::network::wanted::Mode;
use super::options::image::{Missing, When};
use super::options::namespaces::Users;
use super::options::{image, lifecycle, limits, mounts, namespaces, network, process, security};
use super::programs;
use super::record::{Home, Record, Typed, short};
use super::rootless;
use super::userns;
use super::volumes::Hold;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
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
    cgroup: limits::Cgroup,
    #[command(flatten)]
    mounts: mounts::Mounts,
    #[command(flatten)]
    image: image::Image,
    #[command(flatten)]
    namespaces: namespaces::Namespaces,
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
    /// The container's record and directory, with its bundle; `detached`: nobody will be there at its start. What is
    /// not here is fetched first, while nothing is locked.
    pub fn make(&self, home: &Home, detached: bool) -> Result<Record> {
        let (image, command) = self.words()?;
        let Some(image) = image else {
            return self.attempt(home, None, command, detached);
        };
        if self.image.pull == When::Always {
            self.image.pull(&home.root, image)?;
        }
        match self.attempt(home, Some(image), command, detached) {
            Err(e) if e.is::<Missing>() => {}
            made => return made,
        }
        if self.image.pull == When::Never {
            bail!(
                "no image {image} here: `sc pull {image}` fetches it, `sc load` takes it from a file"
            );
        }
        let quoted = crate::show::printable(image);
        // In one piece, beside others that say the same.
        let said = format!("Unable to find image '{quoted}' locally\n");
        eprint!("{said}");
        let pulled = self.image.pull(&home.root, image);
        pulled.with_context(|| format!("no image {image} here, and it cannot be pulled"))?;
        self.attempt(home, Some(image), command, detached)
    }

    fn attempt(
        &self,
        home: &Home,
        image: Option<&str>,
        command: &[String],
        detached: bool,
    ) -> Result<Record> {
        let wishes = self.wishes()?;
        let mut record = Record {
            image: image.unwrap_or_default().to_owned(),
            terminal: self.process.tty,
            interactive: self.process.interactive,
            stdin_once: self.process.interactive && !detached,
            networks: self.network.wanted(home, image.is_none())?,
            runtime: self.runtime()?,
            systemd_cgroup: self.cgroup.systemd_cgroup,
            typed: Typed {
                entrypoint: self.process.entrypoint.clone(),
                command: command.to_vec(),
                env: wishes.env.clone(),
                workdir: wishes.cwd.clone(),
                user: self.process.user.clone(),
            },
            ..Record::default()
        };
        self.lifecycle.note(&mut record)?;
        let cidfile = self.cidfile()?;
        let users = self.namespaces.users(image.is_some())?;
        if let Users::Kept(kept) = users {
            record.kept = Some(kept);
        }
        let has_own = matches!(users, Users::Own(_));
        // Held until the record names what is made.
        let (mut hold, mut ids_lock) = (None, None);
        let record = home.create(record, |dir, record| {
            let (mut config, volumes) = match image {
                Some(image) => self.unpack(home, image, command, dir, record)?,
                None => {
                    record.health = self.lifecycle.health(None)?;
                    (self.adopt(command, dir)?, Vec::new())
                }
            };
            if has_own {
                userns::join(&mut config, dir);
            }
            self.complete(&mut config, wishes, home, dir, record, image.is_some())?;
            record.joins = self.namespaces.apply(&mut config, home)?;
            record.mounts = self.mounts.wanted(home, &volumes)?;
            if mounts::Mounts::names_volumes(&record.mounts) {
                hold = Some(Hold::take(home)?);
            }
            let mounts = &mut record.mounts;
            self.mounts.apply(
                &mut config,
                mounts,
                home,
                &mut hold,
                image.is_some(),
                has_own,
            )?;
            let mode = &record.networks.mode;
            rootless::finish(&mut config, mode.is_prepared() && !mode.is_own());
            let words = config["process"]["args"].as_array().into_iter().flatten();
            record.command = words
                .filter_map(|word| Some(word.as_str()?.to_owned()))
                .collect();
            if self.lifecycle.init {
                put_init_before(&mut config)?;
            }
            config::without_nulls(&mut config);
            let text = serde_json::to_vec_pretty(&config)?;
            fs::write(dir.join("bundle/config.json"), text)?;
            if let Users::Own(size) = users {
                let (ids, lock) = userns::claim(home, size)?;
                userns::give_files(dir, &ids)?;
                (record.ids, ids_lock) = (Some(ids), Some(lock));
            }
            Ok(())
        })?;
        drop(ids_lock);
        if let Some(hold) = hold {
            hold.keep();
        }
        if let Some(mut file) = cidfile {
            file.write_all(record.id.as_bytes()).context("--cidfile")?;
        }
        Ok(record)
    }

    fn cidfile(&self) -> Result<Option<File>> {
        let Some(path) = &self.lifecycle.cidfile else {
            return Ok(None);
        };
        let new = File::create_new(path);
        new.map(Some)
            .with_context(|| format!("--cidfile {}", path.display()))
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
            Some(name) => Ok(name.to_str().map_or_else(|| name.clone(), programs::find)),
        }
    }

    fn wishes(&self) -> Result<Wishes> {
        let mut wishes = Wishes::default();
        self.process.wish(&mut wishes)?;
        Ok(wishes)
    }

    /// sc-image makes the bundle, and says which layers are below it; the second is where the image wants volumes.
    fn unpack(
        &self,
        home: &Home,
        image: &str,
        command: &[String],
        dir: &Path,
        record: &mut Record,
    ) -> Result<(Value, Vec<String>)> {
        #[derive(Deserialize)]
        struct Layers {
            id: String,
            lowerdirs: Vec<PathBuf>,
            volumes: Vec<String>,
            rootless: bool,
            healthcheck: Option<Value>,
        }
        let mut program = programs::image(&home.root);
        program
            .arg("unpack")
            .arg("--overlay")
            .arg("--bundle")
            .arg(dir.join("bundle"));
        program.args(self.process.tty.then_some("--tty"));
        let kept = record.kept.map(|kept| kept.to_string());
        // podman's: who keeps an id is who runs it.
        let user = self.process.user.clone().or_else(|| kept.clone());
        for (option, value) in [
            ("--kept", &kept),
            ("--user", &user),
            ("--entrypoint", &self.process.entrypoint),
            ("--platform", &self.image.platform),
        ] {
            if let Some(value) = value {
                program.arg(format!("{option}={value}"));
            }
        }
        for (option, values) in [
            ("--group-add", &self.process.group_add),
            // The seccomp profile goes by them.
            ("--cap-add", &self.security.cap_add),
            ("--cap-drop", &self.security.cap_drop),
        ] {
            program.args(values.iter().map(|value| format!("{option}={value}")));
        }
        // The command's options are not sc-image's.
        program
            .arg("--")
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
            match error.ends_with(": no such image") {
                true => return Err(Missing.into()),
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
        record.image_id = layers.id;
        record.rootless = layers.rootless;
        record.health = self.lifecycle.health(layers.healthcheck.as_ref())?;
        let text = fs::read(dir.join("bundle/config.json"))?;
        let mut config: Value = serde_json::from_slice(&text)?;
        rootless::nest(&mut config, record.kept);
        let said = config["annotations"]["org.opencontainers.image.stopSignal"].as_str();
        if let (Some(signal), true) = (said, record.stop_signal.is_empty()) {
            record.stop_signal = signal.to_owned();
        }
        Ok((config, layers.volumes))
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
        for group in &self.process.group_add {
            let gid: u32 = group
                .parse()
                .with_context(|| format!("--group-add {group}: in a bundle, only numbers"))?;
            let gids = &mut config["process"]["user"]["additionalGids"];
            let mut all = gids.as_array().cloned().unwrap_or_default();
            all.push(json!(gid));
            *gids = json!(all);
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
        let mode = record.networks.mode.clone();
        wishes.host_network = mode == Mode::Host;
        if image {
            let hostname = wishes
                .hostname
                .get_or_insert_with(|| short(&record.id).to_owned())
                .clone();
            let exposed = config["annotations"]["org.opencontainers.image.exposedPorts"].as_str();
            (self.network).publish_exposed(&mut record.networks, exposed.unwrap_or_default())?;
            record.networks.hostname = hostname.clone();
            identify(config, home, dir, &mode)?;
            wishes.env.insert(0, format!("HOSTNAME={hostname}"));
        }
        match (mode.is_prepared(), record.rootless) {
            // The runtime makes it, of the container's own user namespace: else its root could do nothing there.
            (true, true) if mode.is_own() => config::open_all_ports(config),
            (true, rootless) => {
                config::join_network(config, &dir.join("netns"), mode.is_own());
                if rootless {
                    config::join_users(config, &dir.join("userns"));
                }
            }
            (false, _) => {}
        }
        config::apply(config, &wishes)?;
        self.process.apply(config)?;
        self.limits.apply(config)?;
        self.cgroup.apply(config, &record.id);
        self.security.apply(config)
    }
}

/// `--init`: sc-init is process 1, and the program its child. Below /dev, where nothing of it stays in a layer.
fn put_init_before(config: &mut Value) -> Result<()> {
    const AT: &str = "/dev/sc-init";
    let program = programs::find("sc-init");
    ensure!(
        program.is_absolute(),
        "--init: sc-init is not beside sc: install it there"
    );
    config::add_mount(
        config,
        json!({ "destination": AT, "type": "bind", "source": program, "options": ["bind", "ro", "nosuid", "nodev", "rprivate"] }),
    );
    let words = config["process"]["args"].as_array_mut();
    let words = words.context("config.json: process.args is missing")?;
    words.splice(0..0, [json!(AT), json!("--")]);
    Ok(())
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
