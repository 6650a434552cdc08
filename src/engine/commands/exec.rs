//! `exec`: one more process in a running container, by its runtime.

use crate::engine::carry;
use crate::engine::cli::Global;
use crate::engine::events::{self, Event};
use crate::engine::inside;
use crate::engine::now::{self, Now};
use crate::engine::options::process::{environment, valued};
use crate::engine::programs;
use crate::engine::record::{Home, Record};
use crate::users;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::fcntl::{AT_FDCWD, OFlag};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;

/// Run one more command in a running container
#[derive(Debug, Args)]
pub struct Exec {
    /// In the background
    #[arg(short, long)]
    detach: bool,
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// An environment variable; KEY alone takes the value it has here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// A file of such lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it, names of the container or numbers [default: as the container]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// With all capabilities
    #[arg(long)]
    privileged: bool,
    /// Name, id or beginning of the id
    container: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

impl Exec {
    pub fn run(&self, global: &Global) -> Result<u8> {
        ensure!(
            !self.tty || self.detach || std::io::stdin().is_terminal(),
            "--tty: stdin is not a terminal; without -t none is needed"
        );
        let home = global.home()?;
        let record = home.find(&self.container)?;
        match now::now(&home, &record)? {
            Now::Running => {}
            Now::Paused => bail!("container {0} is paused: `sc unpause {0}`", self.container),
            _ => bail!(
                "container {} is not running: `sc start {0}`",
                self.container
            ),
        }
        // A runtime has one status for all that fails: its log tells what did.
        let log = home
            .dir(&record.id)
            .join(format!("exec.{}", std::process::id()));
        let mut runtime = programs::runtime(&home, &record);
        runtime.args(["--log-format", "json", "--log"]).arg(&log);
        let process = home
            .dir(&record.id)
            .join(format!("exec.{}.json", std::process::id()));
        runtime.arg("exec");
        match &self.user {
            None => runtime
                .args(self.options()?)
                .arg(&record.id)
                .args(&self.command),
            Some(typed) => {
                let wanted = self.as_user(&home, &record, typed)?;
                fs::write(&process, wanted.to_string()).context("exec")?;
                let detach = self.detach.then_some("--detach");
                runtime
                    .arg("--process")
                    .arg(&process)
                    .args(detach)
                    .arg(&record.id)
            }
        };
        tell(&home, &record, "exec_start", &self.command);
        let status = if self.detach {
            let nothing = runtime.stdin(Stdio::null()).stdout(Stdio::null());
            nothing.stderr(Stdio::null()).status().map_err(Into::into)
        } else if self.tty {
            runtime.status().map_err(Into::into)
        } else {
            carry::run(&mut runtime, self.interactive)
        };
        let said = programs::error_in(&log);
        // There is none where nothing was said.
        let _ = fs::remove_file(&log);
        let _ = fs::remove_file(&process);
        let status = status.with_context(|| format!("execute {}", record.runtime.display()))?;
        if !self.detach {
            tell(&home, &record, "exec_die", &self.command);
        }
        Ok(match (said, status.code(), status.signal()) {
            // The runtime has told it on stderr.
            (Some(said), ..) => {
                if self.detach {
                    eprintln!("sc: {}", crate::show::printable(&said));
                }
                programs::refused_status(&said)
            }
            (None, Some(code), _) => code as u8,
            (None, None, signal) => 128 + signal.unwrap_or(0) as u8,
        })
    }

    fn options(&self) -> Result<Vec<String>> {
        let mut options = Vec::new();
        let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
        for entry in self.environment()? {
            add("--env", entry);
        }
        if let Some(dir) = &self.workdir {
            add("--cwd", dir.clone());
        }
        if self.privileged {
            // What we lack ourselves, nobody can be given.
            for cap in caps::read(None, caps::CapSet::Permitted)? {
                add("--cap", cap.to_string());
            }
        }
        options.extend(self.tty.then(|| "--tty".to_owned()));
        options.extend(self.detach.then(|| "--detach".to_owned()));
        Ok(options)
    }

    fn environment(&self) -> Result<Vec<String>> {
        let mut env = environment(&self.env_file, &self.env)?;
        if self.tty {
            env.extend(valued("TERM".to_owned()));
        }
        Ok(env)
    }

    /// The whole process: by options, runtimes only add groups to those of the container's own user, so that
    /// `--user nobody` would stay in root's.
    fn as_user(&self, home: &Home, record: &Record, typed: &str) -> Result<Value> {
        let path = home.dir(&record.id).join("bundle/config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let mut process = config["process"].take();
        let user = find_user(record, typed)?;
        let own = find_user(record, &process["user"]["uid"].to_string())?;
        let given = process["user"]["additionalGids"].as_array().cloned();
        // What is not its user's was asked for with --group-add, for all of its processes.
        let mut gids: Vec<u32> = given.unwrap_or_default().iter().flat_map(number).collect();
        gids.retain(|gid| *gid != own.gid && !own.additional_gids.contains(gid));
        gids.extend(user.additional_gids.iter().copied());
        gids.sort_unstable();
        gids.dedup();
        process["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": gids});
        let mut env = process["env"].as_array().cloned().unwrap_or_default();
        let asked = self.environment()?;
        if let Some(home) = &user.home
            && !asked.iter().any(|entry| entry.starts_with("HOME="))
        {
            env.push(json!(format!("HOME={home}")));
        }
        env.extend(asked.into_iter().map(Value::String));
        process["env"] = json!(env);
        process["args"] = json!(self.command);
        process["terminal"] = json!(self.tty);
        if let Some(dir) = &self.workdir {
            process["cwd"] = json!(dir);
        }
        if self.privileged {
            let all = caps::read(None, caps::CapSet::Permitted)?;
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            process["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
        }
        Ok(process)
    }
}

fn number(gid: &Value) -> Option<u32> {
    gid.as_u64()?.try_into().ok()
}

fn tell(home: &Home, record: &Record, action: &str, command: &[String]) {
    let action = format!("{action}: {}", command.join(" "));
    events::tell(home, &Event::of(record, &action));
}

/// By the container's own files, as they are now.
fn find_user(record: &Record, typed: &str) -> Result<users::User> {
    let process = record.process.as_ref().context("the container has ended")?;
    let text =
        |path| text_inside(process.pid, path).with_context(|| format!("{path} of the container"));
    let user = users::resolve(typed, &text("etc/passwd")?, &text("etc/group")?);
    user.with_context(|| format!("--user {typed}"))
}

/// A file below the root of a process, wherever its links point; empty where there is none.
fn text_inside(pid: i32, path: &str) -> Result<String> {
    let root = nix::fcntl::openat(
        AT_FDCWD,
        format!("/proc/{pid}/root").as_str(),
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    // A FIFO must not make us wait.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let file = match inside::open(root.as_fd(), path.as_ref(), flags) {
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Ok(String::new()),
        other => File::from(other?),
    };
    ensure!(file.metadata()?.is_file(), "not a file");
    let mut text = Vec::new();
    file.take(users::FILE_LIMIT + 1).read_to_end(&mut text)?;
    ensure!(text.len() as u64 <= users::FILE_LIMIT, "longer than 1 MiB");
    Ok(String::from_utf8_lossy(&text).into_owned())
}
