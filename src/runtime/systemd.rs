//! How does the container get the cgroup that systemd keeps for it, and give it back?
//!
//! The unit comes from the plan ([`UnitPlan`]); here systemd is asked for it over D-Bus
//! (org.freedesktop.systemd1(5)). A scope begins with a process: init is cloned elsewhere, waits
//! in the handshake, and [`Systemd::start`] has systemd move it into the new scope.
//!
//! PID 1 is spoken to through its private socket, as systemctl(1) does for root: no bus daemon in
//! between, and no greeting. Where that is missing, and for a user's own manager, a bus serves.
//! Under every wait lies [`PATIENCE`]: a systemd that hangs ends in an error, not in silence.

use crate::runtime::dbus::{self, Bus, Message, MethodCall, Refusal};
use crate::runtime::plan::unit::{Manager, Property, UnitName, UnitPlan};
use crate::runtime::plan::variant::Value;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::env;
use std::io::ErrorKind;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long systemd gets for a whole conversation: runc's number.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where PID 1 listens, without a bus.
pub const PRIVATE_SOCKET: &str = "/run/systemd/private";

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A conversation with a service manager. Short-lived: [`PATIENCE`] counts from its beginning.
#[derive(Debug)]
pub struct Systemd {
    bus: Bus,
}

// ---------------------------------------------------------------------------------------------
// Reaching it

/// Says why `manager` cannot serve this host, if so: systemd must be what boots and runs it
/// (sd_booted(3)).
pub fn is_running_here() -> Result<()> {
    ensure!(
        Path::new("/run/systemd/system").is_dir(),
        "systemd cgroup manager asked for (--systemd-cgroup), but this host does not run systemd \
         (no /run/systemd/system): leave the option out"
    );
    Ok(())
}

/// Ends `unit`, in a conversation of its own: see [`Systemd::stop`].
pub fn end(unit: &UnitName) -> Result<()> {
    Systemd::connect(unit.manager)?.stop(&unit.name)
}

impl Systemd {
    /// Begins a conversation with `manager`.
    pub fn connect(manager: Manager) -> Result<Systemd> {
        is_running_here()?;
        let (direct, buses) = places(manager, |name| env::var(name).ok())?;
        let mut refused = vec![];
        for (addresses, is_bus) in [(direct, false), (buses, true)] {
            for address in addresses {
                match Self::reach(&address, is_bus) {
                    Ok(systemd) => return Ok(systemd),
                    Err(error) => refused.push((address, error)),
                }
            }
        }
        Err(unreachable(manager, &refused))
    }

    fn reach(address: &SocketAddr, is_bus: bool) -> Result<Systemd> {
        let mut bus = Bus::connect(address, PATIENCE)?;
        if is_bus {
            put_greeting(&mut bus)?;
        }
        Ok(Systemd { bus })
    }
}

/// Where `manager` listens itself, and the buses it is on, best first.
fn places(
    manager: Manager,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>)> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    match manager {
        Manager::System => {
            let buses = match set("DBUS_SYSTEM_BUS_ADDRESS") {
                Some(told) => dbus::sockets(&told),
                None => vec![dbus::socket_at(Path::new("/run/dbus/system_bus_socket"))?],
            };
            let private = dbus::socket_at(Path::new(PRIVATE_SOCKET))?;
            Ok((vec![private], buses))
        }
        Manager::User => {
            let mut direct = vec![];
            let mut buses = set("DBUS_SESSION_BUS_ADDRESS")
                .map(|told| dbus::sockets(&told))
                .unwrap_or_default();
            if let Some(runtime) = set("XDG_RUNTIME_DIR").map(PathBuf::from) {
                direct.push(dbus::socket_at(&runtime.join("systemd/private"))?);
                buses.push(dbus::socket_at(&runtime.join("bus"))?);
            }
            Ok((direct, buses))
        }
    }
}

fn unreachable(manager: Manager, refused: &[(SocketAddr, anyhow::Error)]) -> anyhow::Error {
    let tried: Vec<String> = refused
        .iter()
        .map(|(address, error)| {
            let place = match (address.as_pathname(), refused_name(address)) {
                (Some(path), _) => path.display().to_string(),
                (None, name) => name,
            };
            let reason = match error.downcast_ref::<std::io::Error>().map(|e| e.kind()) {
                Some(ErrorKind::NotFound) => "absent".to_owned(),
                Some(ErrorKind::PermissionDenied) => "permission denied".to_owned(),
                Some(ErrorKind::ConnectionRefused) => "nobody listens".to_owned(),
                _ => format!("{error:#}"),
            };
            format!("{place}: {reason}")
        })
        .collect();
    let what_to_do = match manager {
        Manager::System => "its bus is not there: leave the option out, or see to dbus.socket",
        Manager::User => {
            "no systemd --user serves this user: log in with a session, or `loginctl \
             enable-linger`, and set XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS"
        }
    };
    let tried = match tried.is_empty() {
        true => String::new(),
        false => format!(" ({})", tried.join("; ")),
    };
    anyhow!("systemd cgroup manager asked for (--systemd-cgroup), but {what_to_do}{tried}")
}

fn refused_name(address: &SocketAddr) -> String {
    use std::os::linux::net::SocketAddrExt;
    let name = address.as_abstract_name().unwrap_or_default();
    format!("@{}", String::from_utf8_lossy(name))
}

/// What a bus wants to hear before it carries anything: Hello, and which signals we want. The
/// answers need no wait: the first real one comes after them.
fn put_greeting(bus: &mut Bus) -> Result<()> {
    const BUS: &str = "org.freedesktop.DBus";
    let rule = format!(
        "type='signal',sender='{SERVICE}',path='{MANAGER_PATH}',interface='{MANAGER}',\
         member='JobRemoved'"
    );
    for (member, arguments) in [("Hello", vec![]), ("AddMatch", vec![Value::Text(rule)])] {
        bus.put(&MethodCall {
            destination: BUS,
            path: "/org/freedesktop/DBus",
            interface: BUS,
            member,
            arguments: &arguments,
        })?;
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------
// What is asked

impl Systemd {
    /// An error when the unit of `plan` is there and alive: somebody else's.
    pub fn refuse_used(&mut self, plan: &UnitPlan) -> Result<()> {
        match self.cgroup_of(&plan.name)? {
            Some(_) => Err(taken(plan, &format!("Unit {} is active", plan.name))),
            None => Ok(()),
        }
    }

    /// Starts the transient unit of `plan` with the process `pid` in it, and gives the cgroup
    /// that now holds it, as /proc/PID/cgroup names it (below the cgroup2 mount).
    ///
    /// A unit of the same name that has failed is cleared away first, as runc does; one that is
    /// alive is an error. After an error there is no unit but somebody else's.
    pub fn start(&mut self, plan: &UnitPlan, pid: Pid) -> Result<PathBuf> {
        let mut properties = self.known(&plan.properties)?;
        let pid_number = u32::try_from(pid.as_raw()).context("no pid")?;
        let pids = Value::Array("u".into(), vec![Value::U32(pid_number)]);
        properties.push(sent("PIDs", pids));
        let arguments = [
            plan.name.as_str().into(),
            // A stop of the slice that waits to be done is called off.
            "replace".into(),
            Value::Array("(sv)".into(), properties),
            // No auxiliary units.
            Value::Array("(sa(sv))".into(), vec![]),
        ];
        let mut done = self.job("StartTransientUnit", &arguments);
        if done.as_ref().is_ok_and(|d| is(d, "UnitExists")) {
            // What a container of this name left when it failed stays until someone has seen it.
            self.reset_failed(&plan.name)?;
            done = self.job("StartTransientUnit", &arguments);
        }
        let others = done.as_ref().is_ok_and(|d| is(d, "UnitExists"));
        done.and_then(|done| Ok(done?))
            .map_err(|error| not_started(plan, error))
            .and_then(|()| cgroup_of_process(pid, plan))
            .inspect_err(|_| {
                if !others {
                    // What failed is told; this only tidies up.
                    let _ = self.stop(&plan.name);
                }
            })
    }

    /// Moves the process `pid` into the cgroup of a running `unit` that is delegated, also out of
    /// cgroups that the caller may not write to. It must still have the caller's uid.
    pub fn attach(&mut self, unit: &str, pid: Pid) -> Result<()> {
        let pid_number = u32::try_from(pid.as_raw()).context("no pid")?;
        let pids = Value::Array("u".into(), vec![Value::U32(pid_number)]);
        self.ask("AttachProcessesToUnit", &[unit.into(), "".into(), pids])
            .and_then(|done| Ok(done?))
            .map(drop)
            .with_context(|| format!("unable to put a process into unit {unit:?}"))
    }

    /// The cgroup of `unit` below the cgroup2 mount; `None` where it has none, or does not exist.
    pub fn cgroup_of(&mut self, unit: &str) -> Result<Option<PathBuf>> {
        let what = || format!("asking systemd for the cgroup of {unit:?}");
        let path = match self.ask("GetUnit", &[unit.into()]).with_context(what)? {
            Ok(answer) => object(&answer)?,
            Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => return Ok(None),
            Err(refusal) => return Err(refusal).with_context(what),
        };
        let interface = match unit.ends_with(".slice") {
            true => "org.freedesktop.systemd1.Slice",
            false => "org.freedesktop.systemd1.Scope",
        };
        let value = self
            .property(&path, interface, "ControlGroup")
            .with_context(what)?;
        match value {
            Value::Text(path) if !path.is_empty() => Ok(Some(path.into())),
            _ => Ok(None),
        }
    }

    /// Changes properties of a running `unit`, until it ends (`update`).
    pub fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let known = self.known(properties)?;
        if known.is_empty() {
            return Ok(());
        }
        let arguments = [
            unit.into(),
            // For this run of it only.
            Value::Bool(true),
            Value::Array("(sv)".into(), known),
        ];
        self.ask("SetUnitProperties", &arguments)
            .and_then(|done| Ok(done?))
            // systemd answers first and writes the files after that, before it hears the next.
            .and_then(|_| self.property(MANAGER_PATH, MANAGER, "Version"))
            .map(drop)
            .with_context(|| format!("unable to set properties of unit {unit:?}"))
    }

    /// Ends `unit` with all its processes, waits until it is gone, and clears away that it
    /// failed. One that does not exist is well.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        let what = || format!("unable to stop unit {unit:?}");
        // StopUnit alone sends SIGTERM, which the first process of a pid namespace never gets, and
        // waits a minute and a half.
        let kill = [unit.into(), "all".into(), Value::I32(libc::SIGKILL)];
        if let Err(refusal) = self.ask("KillUnit", &kill).with_context(what)?
            && refusal.name.ends_with(".NoSuchUnit")
        {
            return Ok(());
        }
        let done = self.job("StopUnit", &[unit.into(), "replace".into()]);
        match done.with_context(what)? {
            Ok(()) => self.reset_failed(unit),
            // Empty, it has ended by itself.
            Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => Ok(()),
            Err(refusal) => Err(refusal).with_context(what),
        }
    }

    /// Lets systemd forget that `unit` failed, and with that the unit.
    pub fn reset_failed(&mut self, unit: &str) -> Result<()> {
        let what = || format!("unable to reset failed unit {unit:?}");
        match self
            .ask("ResetFailedUnit", &[unit.into()])
            .with_context(what)?
        {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => Ok(()),
            Err(refusal) => Err(refusal).with_context(what),
        }
    }

    /// `properties` as they are sent, without those that this systemd is too old for. Only when
    /// one of them is new is the version asked for.
    fn known(&mut self, properties: &[Property]) -> Result<Vec<Value>> {
        let version = match properties.iter().any(|p| p.since.is_some()) {
            true => self.version()?,
            false => 0,
        };
        Ok(properties
            .iter()
            .filter(|p| p.since.is_none_or(|since| since <= version))
            .map(|p| sent(&p.name, p.value.clone()))
            .collect())
    }

    fn version(&mut self) -> Result<u32> {
        let value = self.property(MANAGER_PATH, MANAGER, "Version");
        match value.context("asking systemd for its version")? {
            Value::Text(text) => Ok(version_number(&text)),
            _ => Ok(0),
        }
    }

    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<Value> {
        let answer = self.bus.call(&MethodCall {
            destination: SERVICE,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            arguments: &[interface.into(), name.into()],
        })??;
        match answer.arguments()?.into_iter().next() {
            Some(Value::Variant(value)) => Ok(*value),
            _ => bail!("{interface}.{name} is no property"),
        }
    }

    fn ask(&mut self, member: &str, arguments: &[Value]) -> Result<Result<Message, Refusal>> {
        self.bus.call(&manager_call(member, arguments))
    }

    /// Calls a method that begins a job, and waits for the job's end. The end may be told before
    /// the answer that names the job.
    fn job(&mut self, member: &str, arguments: &[Value]) -> Result<Result<(), Refusal>> {
        let serial = self.bus.put(&manager_call(member, arguments))?;
        let mut ended: HashMap<String, (String, String)> = HashMap::new();
        let mut begun: Option<(String, String)> = None;
        loop {
            if let Some((job, sender)) = &begun
                && let Some((result, from)) = ended.get(job)
                // On a bus anyone can send signals; systemd's come from where its answer came.
                && from == sender
            {
                ensure!(
                    matches!(result.as_str(), "done" | "skipped"),
                    "systemd's job ended with: {result}"
                );
                return Ok(Ok(()));
            }
            let message = self.bus.wait()?;
            if message.reply_to == Some(serial) {
                let sender = message.sender.clone();
                match message.answer()? {
                    Ok(answer) => begun = Some((object(&answer)?, sender)),
                    Err(refusal) => return Ok(Err(refusal)),
                }
            } else if message.is_signal(MANAGER, "JobRemoved")
                && let [_, Value::Path(job), _, Value::Text(result)] = &message.arguments()?[..]
            {
                ended.insert(job.clone(), (result.clone(), message.sender.clone()));
            }
        }
    }
}

fn manager_call<'a>(member: &'a str, arguments: &'a [Value]) -> MethodCall<'a> {
    MethodCall {
        destination: SERVICE,
        path: MANAGER_PATH,
        interface: MANAGER,
        member,
        arguments,
    }
}

/// One `(sv)`.
fn sent(name: &str, value: Value) -> Value {
    Value::Struct(vec![name.into(), Value::Variant(Box::new(value))])
}

/// The object that an answer names.
fn object(answer: &Message) -> Result<String> {
    match answer.arguments()?.into_iter().next() {
        Some(Value::Path(path)) => Ok(path),
        _ => bail!("systemd's answer names no object"),
    }
}

fn is(done: &Result<(), Refusal>, name: &str) -> bool {
    matches!(done, Err(refusal) if refusal.name == format!("{SERVICE}.{name}"))
}

/// `257.13-1~deb13u1`, `v252` and `252.33-1` begin with what counts.
fn version_number(text: &str) -> u32 {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().unwrap_or(0)
}

/// What the user can do about it: systemd speaks of its own properties, the user of config.json.
fn not_started(plan: &UnitPlan, error: anyhow::Error) -> anyhow::Error {
    let name = &plan.name;
    if let Some(refusal) = error.downcast_ref::<Refusal>()
        && refusal.name.ends_with(".UnitExists")
    {
        return taken(plan, &refusal.to_string());
    }
    let text = format!("{error:#}");
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let all = plan.properties.iter().filter(|p| !p.field.is_empty());
    // It names the property, or it does not: then one whose type only this config chose.
    let named = all.clone().find(|p| words.contains(&p.name.as_str()));
    let typed = all.filter(|p| p.field.starts_with("annotations"));
    let fields: Vec<&str> = match named {
        Some(property) => vec![&property.field],
        None if text.contains("Unexpected message") => typed.map(|p| p.field.as_str()).collect(),
        None => vec![],
    };
    let hint = match fields.is_empty() {
        true => String::new(),
        false => format!(" (asked for by {})", fields.join(", ")),
    };
    anyhow!("unable to start unit {name:?}: {text}{hint}")
}

fn taken(plan: &UnitPlan, why: &str) -> anyhow::Error {
    anyhow!(
        "unable to start unit {:?}: {why}: another container or service has this name and is \
         alive: stop it, or give another linux.cgroupsPath",
        plan.name
    )
}

/// Where `pid` is now. The kernel's word, not systemd's: it holds in this cgroup namespace, and
/// proves that the move has taken place.
fn cgroup_of_process(pid: Pid, plan: &UnitPlan) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    let path = PathBuf::from(path.with_context(|| format!("{file} has no line \"0::\""))?);
    ensure!(
        path.file_name() == plan.cgroup.file_name(),
        "systemd has started unit {:?}, but process {pid} is in cgroup {}",
        plan.name,
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(places: &[SocketAddr]) -> Vec<String> {
        let path = |a: &SocketAddr| a.as_pathname().map(|p| p.display().to_string());
        places.iter().filter_map(path).collect()
    }

    #[test]
    fn a_manager_is_looked_for_at_its_own_socket_first() {
        for (manager, variables, direct, buses) in [
            (
                Manager::System,
                vec![],
                vec!["/run/systemd/private"],
                vec!["/run/dbus/system_bus_socket"],
            ),
            (
                Manager::System,
                vec![("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x")],
                vec!["/run/systemd/private"],
                vec!["/x"],
            ),
            (Manager::User, vec![], vec![], vec![]),
            (
                Manager::User,
                vec![("XDG_RUNTIME_DIR", "/run/user/7")],
                vec!["/run/user/7/systemd/private"],
                vec!["/run/user/7/bus"],
            ),
            (
                Manager::User,
                vec![
                    ("XDG_RUNTIME_DIR", ""),
                    ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/x"),
                ],
                vec![],
                vec!["/x"],
            ),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let found = places(manager, variable).unwrap();
            assert_eq!(shown(&found.0), direct, "{manager:?} {variables:?}");
            assert_eq!(shown(&found.1), buses, "{manager:?} {variables:?}");
        }
    }

    #[test]
    fn a_manager_that_cannot_be_reached_is_explained() {
        let refusal = |kind: ErrorKind| anyhow::Error::from(std::io::Error::from(kind));
        let at = |path: &str| dbus::socket_at(Path::new(path)).unwrap();
        let error = unreachable(
            Manager::System,
            &[
                (at("/run/systemd/private"), refusal(ErrorKind::NotFound)),
                (at("/x"), refusal(ErrorKind::ConnectionRefused)),
            ],
        );
        assert_eq!(
            error.to_string(),
            "systemd cgroup manager asked for (--systemd-cgroup), but its bus is not there: leave \
             the option out, or see to dbus.socket (/run/systemd/private: absent; /x: nobody listens)"
        );
        assert_eq!(
            unreachable(Manager::User, &[]).to_string(),
            "systemd cgroup manager asked for (--systemd-cgroup), but no systemd --user serves \
             this user: log in with a session, or `loginctl enable-linger`, and set \
             XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS"
        );
    }

    #[test]
    fn a_version_is_read_whatever_the_distribution_adds() {
        for (text, number) in [
            ("257.13-1~deb13u1", 257),
            ("v252", 252),
            ("systemd 244 (v244-1)", 244),
            ("263~devel", 263),
            ("", 0),
            ("unknown", 0),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }

    // -----------------------------------------------------------------------------------------
    // With a real systemd: `cargo test --lib systemd -- --ignored`, as root on a host that runs
    // it, or as a user who has a systemd --user.

    use crate::runtime::plan::variant;
    use nix::unistd::geteuid;
    use std::process::{Child, Command};

    const REAL: &str = "these tests talk to the systemd of this host: run them where there is one";

    struct Sleeper(Child);

    impl Sleeper {
        fn new() -> Sleeper {
            Sleeper(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn pid(&self) -> Pid {
            Pid::from_raw(self.0.id() as i32)
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn manager() -> Manager {
        match geteuid().is_root() {
            true => Manager::System,
            false => Manager::User,
        }
    }

    fn plan(name: &str, properties: &[(&str, &str)]) -> UnitPlan {
        let name = format!("sc-test-{name}-{}.scope", std::process::id());
        let property = |(name, text): &(&str, &str)| Property {
            name: (*name).into(),
            value: variant::parse(text).unwrap(),
            field: match *name {
                "Slice" | "Delegate" => String::new(),
                _ => format!("annotations[{name:?}]"),
            },
            since: None,
        };
        let common = [("Slice", "'sc-test.slice'"), ("Delegate", "true")];
        UnitPlan {
            cgroup: Path::new("/sc.slice/sc-test.slice").join(&name),
            name,
            slice: "sc-test.slice".into(),
            manager: manager(),
            properties: common.iter().chain(properties).map(property).collect(),
        }
    }

    fn shows(unit: &str, property: &str) -> String {
        let mut systemctl = Command::new("systemctl");
        if manager() == Manager::User {
            systemctl.arg("--user");
        }
        let out = systemctl.args(["show", "--value", "-p", property, unit]);
        let out = out.output().expect(REAL).stdout;
        String::from_utf8(out).unwrap().trim().to_owned()
    }

    #[test]
    #[ignore = "needs a host that runs systemd"]
    fn a_scope_lives_from_start_to_stop_on_every_way_to_systemd() {
        let (direct, buses) = places(manager(), |name| env::var(name).ok()).unwrap();
        for (address, is_bus) in [(&direct[0], false), (&buses[0], true)] {
            let mut systemd = Systemd::reach(address, is_bus).expect(REAL);
            let sleeper = Sleeper::new();
            let plan = plan(
                "life",
                &[("TasksMax", "uint64 77"), ("Description", "'it'")],
            );
            let cgroup = systemd.start(&plan, sleeper.pid()).unwrap();
            assert!(
                cgroup.ends_with(plan.cgroup.strip_prefix("/").unwrap()),
                "{cgroup:?}"
            );
            assert_eq!(systemd.cgroup_of(&plan.name).unwrap(), Some(cgroup));
            assert_eq!(shows(&plan.name, "Description"), "it");
            assert_eq!(shows(&plan.name, "TasksMax"), "77");

            let more = [Property {
                name: "TasksMax".into(),
                value: Value::U64(78),
                field: String::new(),
                since: None,
            }];
            systemd.set_properties(&plan.name, &more).unwrap();
            assert_eq!(shows(&plan.name, "TasksMax"), "78");

            // In a conversation of its own, as `delete` does.
            let mut systemd = Systemd::reach(address, is_bus).expect(REAL);
            systemd.stop(&plan.name).unwrap();
            assert_eq!(shows(&plan.name, "LoadState"), "not-found");
            assert_eq!(systemd.cgroup_of(&plan.name).unwrap(), None);
            systemd.stop(&plan.name).unwrap();
            systemd.reset_failed(&plan.name).unwrap();
        }
    }

    #[test]
    #[ignore = "needs a host that runs systemd"]
    fn what_failed_under_the_same_name_is_cleared_away_and_what_lives_is_not() {
        let mut systemd = Systemd::connect(manager()).expect(REAL);
        let first = Sleeper::new();
        let failing = plan("again", &[("RuntimeMaxUSec", "uint64 1")]);
        systemd.start(&failing, first.pid()).unwrap();
        // It ends by systemd's hand, and has then failed.
        while shows(&failing.name, "ActiveState") != "failed" {
            std::thread::yield_now();
        }

        let second = Sleeper::new();
        let plan = plan("again", &[]);
        systemd.start(&plan, second.pid()).unwrap();
        let third = Sleeper::new();
        let error = systemd.start(&plan, third.pid()).unwrap_err();
        let name = &plan.name;
        assert_eq!(
            format!("{error:#}"),
            format!(
                "unable to start unit {name:?}: Unit {name} was already loaded or has a fragment \
                 file: another container or service has this name and is alive: stop it, or give \
                 another linux.cgroupsPath"
            )
        );
        systemd.stop(name).unwrap();
        assert_eq!(shows(name, "LoadState"), "not-found");
    }

    #[test]
    #[ignore = "needs a host that runs systemd"]
    fn a_property_that_systemd_refuses_is_named_with_its_annotation() {
        let sleeper = Sleeper::new();
        for (property, value, message) in [
            (
                "Bogus",
                "true",
                "Cannot set property Bogus, or unknown property (asked for by annotations[\"Bogus\"])",
            ),
            (
                "TimeoutStopUSec",
                "123",
                "Failed to set unit properties: Unexpected message contents \
                 (asked for by annotations[\"TimeoutStopUSec\"])",
            ),
        ] {
            let plan = plan("bogus", &[(property, value)]);
            let mut systemd = Systemd::connect(manager()).expect(REAL);
            let error = systemd.start(&plan, sleeper.pid()).unwrap_err();
            let expected = format!("unable to start unit {:?}: {message}", plan.name);
            assert_eq!(format!("{error:#}"), expected);
        }
    }

    #[test]
    #[ignore = "needs a host that runs systemd"]
    fn a_process_that_is_gone_gets_no_scope() {
        let mut sleeper = Sleeper::new();
        sleeper.0.kill().unwrap();
        sleeper.0.wait().unwrap();
        let plan = plan("gone", &[]);
        let mut systemd = Systemd::connect(manager()).expect(REAL);
        let error = systemd.start(&plan, sleeper.pid()).unwrap_err();
        let name = &plan.name;
        // 252 has other words than 257.
        let expected = [
            "Failed to set unit properties: No such process".to_owned(),
            format!("Process with ID {} does not exist", sleeper.pid()),
        ];
        let expected = expected.map(|why| format!("unable to start unit {name:?}: {why}"));
        assert!(expected.contains(&format!("{error:#}")), "{error:#}");
        systemd.stop(name).unwrap();
        assert_eq!(shows(&plan.name, "LoadState"), "not-found");
    }

    /// As `create`, the container's own end, and `delete` follow one another, many at a time.
    #[test]
    #[ignore = "needs a host that runs systemd"]
    fn scopes_that_end_by_themselves_are_stopped_at_once() {
        std::thread::scope(|threads| {
            for thread in 0..8 {
                threads.spawn(move || {
                    for _ in 0..6 {
                        let plan = plan(&format!("race{thread}"), &[]);
                        let sleeper = Sleeper::new();
                        let mut systemd = Systemd::connect(manager()).expect(REAL);
                        systemd.start(&plan, sleeper.pid()).unwrap();
                        drop(sleeper);
                        let mut systemd = Systemd::connect(manager()).expect(REAL);
                        systemd.stop(&plan.name).unwrap();
                    }
                });
            }
        });
    }

    /// What a file of the kernel holds after `start` alone, for a whole config.json.
    #[test]
    #[ignore = "needs a host that runs systemd, with cgroup v2 and its controllers"]
    fn limits_reach_the_kernel_through_systemd_alone() {
        use crate::runtime::plan::{example_ask, unit};
        use serde_json::json;
        let block_device = std::fs::read_dir("/sys/block")
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path().join("dev")).unwrap())
            .find(|number| !number.starts_with("7:"))
            .expect("a block device in /sys/block");
        let number = block_device.trim();
        let (major, minor) = number.split_once(':').unwrap();
        let device = json!({"major": major.parse::<u32>().unwrap(), "minor": minor.parse::<u32>().unwrap(), "rate": 1_048_576});
        let resources = json!({
            "memory": {"limit": 33_554_432, "swap": 50_331_648, "reservation": 16_777_216},
            "cpu": {"shares": 512, "quota": 12_345, "period": 10_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 77},
            "blockIO": {"weight": 500, "throttleReadBpsDevice": [device]},
            "unified": {"memory.high": "20971520"}
        });
        let spec = json!({
            "ociVersion": "1.2.0",
            "linux": {"cgroupsPath": ":sc-test:limits", "resources": resources},
            "annotations": {"org.systemd.property.TimeoutStopSec": "5"}
        });
        let mut ask = example_ask();
        ask.id = "limits".into();
        ask.host.systemd = manager();
        let plan = unit::draw(&serde_json::from_value(spec).unwrap(), &ask).unwrap();
        let sleeper = Sleeper::new();
        let mut systemd = Systemd::connect(manager()).expect(REAL);
        let cgroup = systemd.start(&plan, sleeper.pid()).unwrap();
        let mount = Path::new("/sys/fs/cgroup");
        let directory = mount.join(cgroup.strip_prefix("/").unwrap());
        let read = |file: &str| std::fs::read_to_string(directory.join(file));
        let controllers = read("cgroup.controllers").unwrap();
        assert!(
            controllers.contains("memory") && controllers.contains("pids"),
            "{controllers}"
        );
        let mut wrong = vec![];
        for (file, expected) in [
            ("memory.max", "33554432"),
            ("memory.high", "20971520"),
            ("memory.low", "16777216"),
            ("memory.swap.max", "16777216"),
            ("pids.max", "77"),
            ("cpu.weight", "59"),
            // Rounded to whole percents; the exact 12345 is written to the file afterwards.
            ("cpu.max", "12400 10000"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
            (
                "io.max",
                &format!("{number} rbps=1048576 wbps=max riops=max wiops=max"),
            ),
        ] {
            let controller = file.split('.').next().unwrap();
            let is = match controllers.contains(controller) {
                true => read(file).unwrap(),
                false => continue,
            };
            if is.trim() != expected {
                wrong.push(format!("{file}: {is:?}, not {expected:?}"));
            }
        }
        let shown = [
            ("TimeoutStopUSec", "5s"),
            ("IOWeight", "4950"),
            ("TasksMax", "77"),
        ];
        for (property, expected) in shown {
            let is = shows(&plan.name, property);
            if is != expected {
                wrong.push(format!("{property}: {is:?}, not {expected:?}"));
            }
        }

        // What systemd has no word for is handed down by us, where we may.
        if manager() == Manager::System {
            crate::runtime::cgroup::Cgroup::adopt(mount, &cgroup).unwrap();
            let all = std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap();
            let have = read("cgroup.controllers").unwrap();
            if all != have {
                wrong.push(format!("controllers {have:?}, not {all:?}"));
            }
        }

        // update: the same way, and back from idle.
        let writes = |resources| {
            let resources = serde_json::from_value(resources).unwrap();
            crate::runtime::plan::resources::writes(&resources).unwrap()
        };
        let more = json!({"pids": {"limit": -1}, "cpu": {"idle": 1}, "unified": {"memory.zswap.max": "5"}});
        let more = unit::limits(&writes(more)).unwrap();
        systemd.set_properties(&plan.name, &more).unwrap();
        let idle = read("cpu.idle").unwrap_or_default();
        let back = json!({"cpu": {"idle": 0, "shares": 2048}});
        let back = unit::limits(&writes(back)).unwrap();
        systemd.set_properties(&plan.name, &back).unwrap();
        let weight = read("cpu.weight").unwrap_or_default();
        let pids = read("pids.max").unwrap();
        if controllers.contains("cpu ") && (idle.trim(), weight.trim()) != ("1", "174") {
            wrong.push(format!("cpu.idle {idle:?}, then cpu.weight {weight:?}"));
        }
        if pids.trim() != "max" {
            wrong.push(format!("pids.max {pids:?} after update"));
        }
        systemd.stop(&plan.name).unwrap();
        assert_eq!(shows(&plan.name, "LoadState"), "not-found");
        assert!(!directory.exists(), "{directory:?} is still there");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
