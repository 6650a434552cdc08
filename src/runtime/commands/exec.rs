//! `exec`: one more process in a container that is there; in the foreground also waits for it.

use super::create::{self, HandOut};
use crate::runtime::cli::{ExecArgs, Global};
use crate::runtime::container::Container;
use crate::runtime::parent::enter::{self, Entered, Order, Place};
use crate::runtime::parent::foreground::{self, Signals};
use crate::runtime::plan::Ask;
use crate::runtime::plan::exec::{self, ExecPlan};
use crate::runtime::status::{Act, Answer, ask};
use crate::runtime::{config, host, log, lsm, validate};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, Spec};
use std::num::{IntErrorKind, ParseIntError};
use std::os::fd::AsFd;
use std::path::Path;

/// Gives the exit status of the process, or 0 with `--detach`.
pub fn exec(global: &Global, args: &ExecArgs) -> Result<i32> {
    // Before anything of ours is open: a number that the caller left free would be a directory of the
    // host's (CVE-2024-21626).
    create::guard_descriptors(args.preserve_fds)?;
    let container = Container::load(&global.root, &args.id)?;
    let act = match args.ignore_paused {
        true => Act::ExecPaused,
        false => Act::Exec,
    };
    let (status, init) = container.status_and_init()?;
    if let Answer::No(why) = ask(act, status, &args.id) {
        bail!(why);
    }
    let init = init.context("cannot exec in a stopped container")?;
    let mut plan = draw(&container, args)?;
    if !args.detach {
        foreground::take_callers_size(&mut plan.plan.init.process);
    }
    let terminal = plan.plan.init.process.terminal;
    let out = HandOut {
        console: create::console(args.console_socket.as_deref(), terminal, args.detach)?,
        pidfd_socket: args.pidfd_socket.as_deref(),
        pid_file: args.pid_file.as_deref(),
    };
    let signals = match args.detach {
        true => None,
        false => Some(Signals::hold()?),
    };
    let order = Order {
        plan: &plan,
        init: init.as_fd(),
        record: &container.record,
        status,
        cgroup: place(&container, &args.cgroups)?,
    };
    container.still_there()?;
    let made = enter::enter(&order).context("unable to start container process")?;
    if let Err(e) = out.give(made.pid, made.pidfd.as_fd(), made.master.as_ref()) {
        made.undo();
        return Err(e);
    }
    let Some(signals) = signals else {
        return Ok(0);
    };
    let Entered { pid, pidfd, master } = made;
    signals.wait(pid, pidfd.as_fd(), master)
}

/// From the record's config.json and what was typed to the plan.
fn draw(container: &Container, args: &ExecArgs) -> Result<ExecPlan> {
    let record = &container.record;
    // What it warns of was said when the container was made.
    let (spec, _) = config::parse(&container.config()?).context("config.json")?;
    let (mut process, mut warnings) = match &args.process {
        Some(path) => from_file(path)?,
        None => typed(args, &spec)?,
    };
    exec::complete(&mut process, &spec);
    let ask = Ask {
        preserve_fds: args.preserve_fds,
        ..host::ask_for(record)?
    };
    warnings.extend(validate::check_process(&process, &spec, &ask)?);
    let linux = spec.linux().as_ref();
    let inside =
        linux.is_some_and(exec::joins_user_namespace) && host::shares_user_namespace(record.pid)?;
    let mut plan = exec::draw(&spec, &process, &ask, inside)?;
    lsm::require(&plan.plan.init.process, None)?;
    warnings.append(&mut plan.plan.warnings);
    log::warn_all(&warnings);
    Ok(plan)
}

/// `--process FILE`
fn from_file(path: &Path) -> Result<(Process, Vec<String>)> {
    let text = config::read_file(path).with_context(|| format!("--process {}", path.display()))?;
    config::parse_process(&text).with_context(|| path.display().to_string())
}

/// The container's own process, changed by what was typed.
fn typed(args: &ExecArgs, spec: &Spec) -> Result<(Process, Vec<String>)> {
    if args.command.is_empty() {
        bail!("process args cannot be empty");
    }
    let mut process = spec.process().clone().context("process is missing")?;
    let mut warnings = Vec::new();
    process.set_args(Some(args.command.clone()));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env_mut().take().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    process.set_terminal(Some(args.tty));
    // The size is that of the container's own terminal.
    process.set_console_size(None);
    if let Some(asked) = args.no_new_privs {
        process.set_no_new_privileges(Some(asked));
    }
    if args.apparmor.is_some() {
        process.set_apparmor_profile(args.apparmor.clone());
    }
    if args.process_label.is_some() {
        process.set_selinux_label(args.process_label.clone());
    }
    set_user(&mut process, args)?;
    if !args.caps.is_empty() {
        let mut sets = process
            .capabilities()
            .clone()
            .unwrap_or_else(no_capabilities);
        add_capabilities(&mut sets, &args.caps, &mut warnings);
        process.set_capabilities(Some(sets));
    }
    Ok((process, warnings))
}

fn set_user(process: &mut Process, args: &ExecArgs) -> Result<()> {
    let user = process.user_mut();
    if let Some(typed) = &args.user {
        let (uid, gid) = match typed.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (typed.as_str(), None),
        };
        user.set_uid(id(uid).with_context(|| format!("--user {typed:?}: bad uid"))?);
        if let Some(gid) = gid {
            user.set_gid(id(gid).with_context(|| format!("--user {typed:?}: bad gid"))?);
        }
    }
    if !args.additional_gids.is_empty() {
        let mut all = user.additional_gids_mut().take().unwrap_or_default();
        for gid in &args.additional_gids {
            if gid.starts_with('-') {
                bail!("additional-gids must be a positive number {gid}");
            }
            all.push(id(gid).with_context(|| format!("--additional-gids {gid:?}"))?);
        }
        user.set_additional_gids(Some(all));
    }
    Ok(())
}

/// A user or group by number; names are not looked up. What setresuid(2) takes for "none" is none.
fn id(text: &str) -> Result<u32> {
    let digits = |text: &str| text.parse::<u32>();
    match digits(text) {
        Ok(n) if n <= i32::MAX as u32 => Ok(n),
        Err(e) if !is_overflow(&e) && !text.starts_with('-') => {
            bail!("{text:?} is not a number (names are not looked up)")
        }
        _ => bail!("{text}: uids and gids must be in range 0-2147483647"),
    }
}

fn is_overflow(e: &ParseIntError) -> bool {
    *e.kind() == IntErrorKind::PosOverflow
}

/// Not LinuxCapabilities::default(), which gives some.
fn no_capabilities() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None)
        .set_effective(None)
        .set_permitted(None)
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

/// As runc: never inheritable (CVE-2022-29162), and ambient only where some are inheritable.
fn add_capabilities(sets: &mut LinuxCapabilities, names: &[String], warnings: &mut Vec<String>) {
    let mut more = Capabilities::new();
    for name in names {
        let bare = name.to_ascii_uppercase();
        match bare.strip_prefix("CAP_").unwrap_or(&bare).parse() {
            Ok(cap) => drop(more.insert(cap)),
            Err(_) => warnings.push(format!("--cap {name}: is not known: ignored")),
        }
    }
    let with = |set: &Option<Capabilities>| {
        let present = set.iter().flatten();
        Some(present.chain(&more).copied().collect::<Capabilities>())
    };
    sets.set_bounding(with(sets.bounding()));
    sets.set_effective(with(sets.effective()));
    sets.set_permitted(with(sets.permitted()));
    if sets.inheritable().is_some() {
        sets.set_ambient(with(sets.ambient()));
    }
}

/// The cgroup to be in. One controller's path (`cpu:PATH`) has no meaning on cgroup v2.
fn place<'c>(container: &'c Container, asked: &[String]) -> Result<Option<Place<'c>>> {
    let cgroup = container.cgroup()?;
    let inner = match asked {
        [] => {
            return Ok(cgroup.map(|cgroup| Place::Containers {
                cgroup,
                mount: &container.record.cgroup_mount,
            }));
        }
        [one] => one,
        [first, ..] => {
            bail!("invalid --cgroup argument: {first} (missing <controller>: prefix)")
        }
    };
    match inner.split(':').collect::<Vec<_>>()[..] {
        [_] => {}
        [controller, _] => bail!(
            "--cgroup {inner}: unknown controller {controller}: cgroup v2 has one path for all"
        ),
        _ => bail!("invalid --cgroup argument: {inner}"),
    }
    let cgroup = cgroup.with_context(|| {
        format!(
            "--cgroup {inner}: container {} has no cgroup",
            container.id()
        )
    })?;
    match cgroup.below(Path::new(inner)) {
        Ok(dir) => Ok(Some(Place::Chosen(dir))),
        Err(Errno::EXDEV | Errno::ELOOP) => bail!("--cgroup: {inner} is not a sub cgroup path"),
        Err(e) => bail!(
            "--cgroup: open {}: {}",
            cgroup.path().join(inner.trim_start_matches('/')).display(),
            e.desc().to_lowercase()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_that_the_kernel_takes() {
        let say = |text: &str| match id(text) {
            Ok(n) => n.to_string(),
            Err(e) => e.to_string(),
        };
        let range = |text: &str| format!("{text}: uids and gids must be in range 0-2147483647");
        for (text, said) in [
            ("0", "0".to_owned()),
            ("2147483647", "2147483647".to_owned()),
            ("2147483648", range("2147483648")),
            ("4294967295", range("4294967295")),
            ("99999999999", range("99999999999")),
            ("-1", range("-1")),
        ] {
            assert_eq!(say(text), said);
        }
        for text in ["", "ann", "1 ", "0x1"] {
            let said = format!("{text:?} is not a number (names are not looked up)");
            assert_eq!(say(text), said);
        }
    }

    #[test]
    fn added_capabilities_are_not_inherited() {
        let names = |set: &Option<Capabilities>| {
            let mut all: Vec<String> = set.iter().flatten().map(|cap| cap.to_string()).collect();
            all.sort();
            all.join(" ")
        };
        for (own, expected) in [
            ("{}", ["KILL", "KILL", "KILL", "", ""]),
            (
                r#"{"bounding": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"]}"#,
                ["CHOWN KILL", "KILL", "KILL", "CHOWN", "KILL"],
            ),
        ] {
            let mut sets: LinuxCapabilities = serde_json::from_str(own).unwrap();
            let mut warnings = Vec::new();
            let typed = ["cap_kill".to_owned(), "NOSUCH".to_owned()];
            add_capabilities(&mut sets, &typed, &mut warnings);
            let found = [
                sets.bounding(),
                sets.effective(),
                sets.permitted(),
                sets.inheritable(),
                sets.ambient(),
            ];
            assert_eq!(found.map(names), expected);
            assert_eq!(warnings, ["--cap NOSUCH: is not known: ignored"]);
        }
    }
}
