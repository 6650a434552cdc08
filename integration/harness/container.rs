//! A created container, followed to its end.

use super::command::Call;
use super::machine::machine;
use super::{Context, Outcome, Place, Result, Value, kernel};
use anyhow::{bail, ensure};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

pub struct Container<'p> {
    pub place: &'p Place,
    pub id: String,
    pub pid: i32,
    pidfd: OwnedFd,
    stdout: PathBuf,
}

impl<'p> Container<'p> {
    /// Runs a `create` (or `run --detach`) that must succeed.
    pub fn from_call(place: &'p Place, id: String, call: Call) -> Result<Container<'p>> {
        let running = call.spawn()?;
        let stdout = running.stdout.clone();
        running.wait()?.ok();
        let state = state_of(place, &id)?;
        let pid = state["pid"].as_i64().context("a pid")? as i32;
        ensure!(pid > 0, "no process after create: {state}");
        Ok(Container {
            place,
            id,
            pid,
            pidfd: kernel::pidfd_open(pid)?,
            stdout,
        })
    }

    pub fn call(&self, verb: &str) -> Result<Outcome> {
        self.place.call([verb, &self.id])
    }

    pub fn start(&self) -> Result<()> {
        self.call("start").map(|out| drop(out.ok()))
    }

    pub fn state(&self) -> Result<Value> {
        state_of(self.place, &self.id)
    }

    pub fn status(&self) -> Result<String> {
        Ok(self.state()?["status"]
            .as_str()
            .context("a status")?
            .to_string())
    }

    pub fn kill(&self, signal: &str) -> Result<Outcome> {
        self.place.call(["kill", &self.id, signal])
    }

    /// Waits for the end of the init process; it may still be a zombie.
    pub fn ended(&self) -> Result<()> {
        if !kernel::ended_within(self.pidfd.as_fd(), machine().patience())? {
            bail!("{}: its process {} runs on", self.id, self.pid);
        }
        Ok(())
    }

    pub fn delete(&self) -> Result<()> {
        self.call("delete").map(|out| drop(out.ok()))
    }

    /// Kills, waits and deletes, each of which must succeed.
    pub fn end(&self) -> Result<()> {
        self.kill("KILL")?.ok();
        self.ended()?;
        self.delete()
    }

    /// What the container has printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    pub fn cgroup(&self) -> PathBuf {
        self.place.cgroup_dir(&self.id)
    }

    /// A file of its cgroup.
    pub fn cgroup_file(&self, name: &str) -> Result<String> {
        let path = self.cgroup().join(name);
        Ok(fs::read_to_string(&path)
            .with_context(|| path.display().to_string())?
            .trim()
            .to_string())
    }
}

pub fn state_of(place: &Place, id: &str) -> Result<Value> {
    let text = place.call(["state", id])?.text();
    serde_json::from_str(&text).with_context(|| text)
}
