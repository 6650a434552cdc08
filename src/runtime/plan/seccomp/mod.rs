//! What may the container's processes ask of the kernel? `linux.seccomp` becomes a classic BPF
//! program for seccomp(2). Pure; loading is `sys::seccomp`.
//!
//! ```text
//! LinuxSeccomp ─ profile ▶ intervals of numbers ─ program ▶ struct sock_filter, 8 bytes each
//!                   └ abi, table: which name has which number where
//! ```
//!
//! What runtime-spec leaves open is done as runc does it with libseccomp:
//! - The native architecture is always in; a call by an architecture (or x32) that is not in the
//!   profile kills the thread.
//! - System calls that no architecture knows are ignored (a warning names them).
//! - A number above every number the profile names on that architecture gets ENOSYS, not the
//!   default action: the profile's author cannot have meant a call that came later, and C libraries
//!   fall back to older calls on ENOSYS alone (runc issue 2151). Not where the default action lets
//!   calls through (ALLOW, LOG, TRACE), and not where defaultErrnoRet is ENOSYS anyway.
//! - Several entries about one call: one without conditions settles it.
//!
//! - On 32-bit ABIs (x32 among them) conditions look at the lower half of an argument. Where sockets
//!   and System V IPC are also reached through socketcall(2) and ipc(2), an entry about such a call
//!   opens that way too, without its condition on the first argument.
//!
//! Where this differs, on purpose: entries about one call whose conditions overlap and whose actions
//! differ are tried in the profile's order (libseccomp's is that of its own tree, and its programs
//! for such profiles are not always right); and all numbers from 0x40000000 up count as x32.

mod abi;
#[cfg(test)]
mod against_libseccomp;
#[cfg(test)]
mod interpreter;
mod profile;
mod program;
mod table;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, Spec,
};
use std::path::PathBuf;

/// What a profile can say, sorted by name.
pub const ACTIONS: &[LinuxSeccompAction] = every!(LinuxSeccompAction:
    ScmpActAllow ScmpActErrno ScmpActKill ScmpActKillProcess ScmpActKillThread ScmpActLog
    ScmpActNotify ScmpActTrace ScmpActTrap);
pub const OPERATORS: &[LinuxSeccompOperator] = every!(LinuxSeccompOperator:
    ScmpCmpEq ScmpCmpGe ScmpCmpGt ScmpCmpLe ScmpCmpLt ScmpCmpMaskedEq ScmpCmpNe);
pub const ARCHS: &[Arch] = every!(Arch:
    ScmpArchAarch64 ScmpArchArm ScmpArchLoongarch64 ScmpArchM68k ScmpArchMips ScmpArchMips64
    ScmpArchMips64n32 ScmpArchMipsel ScmpArchMipsel64 ScmpArchMipsel64n32 ScmpArchNative
    ScmpArchParisc ScmpArchParisc64 ScmpArchPpc ScmpArchPpc64 ScmpArchPpc64le ScmpArchRiscv64
    ScmpArchS390 ScmpArchS390x ScmpArchSh ScmpArchSheb ScmpArchX32 ScmpArchX86 ScmpArchX86_64);
pub const FLAGS: &[LinuxSeccompFilterFlag] = every!(LinuxSeccompFilterFlag:
    SeccompFilterFlagLog SeccompFilterFlagSpecAllow SeccompFilterFlagTsync
    SeccompFilterFlagWaitKillableRecv);

/// What is loaded right before exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompPlan {
    /// `struct sock_filter`s as they lie in memory; at most 4096.
    pub program: Vec<u64>,
    /// SECCOMP_FILTER_FLAG_*. With [`notify`](Self::notify), NEW_LISTENER is among them.
    pub flags: u64,
    pub notify: Option<Notify>,
    /// What the user may want to know: system calls without a number, settings without effect.
    pub warnings: Vec<String>,
}

/// Who decides over the calls with SCMP_ACT_NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// The agent's UNIX stream socket, which gets the listener's descriptor and the state.
    pub listener_path: PathBuf,
    /// For the agent, as it is; empty where config.json has none.
    pub metadata: String,
}

/// What init calls between loading the program and the moment when the parent can fetch the
/// listener: if it waited for the agent, nobody would ever answer.
const BEFORE_LISTENER: &str = "write";

/// The program for config.json's `linux.seccomp`; `None` where it has none.
///
/// Errors name the JSON path: conditions on arguments that do not exist, error numbers too large,
/// architectures of another byte order, NOTIFY that cannot work, a program of more than 4096 instructions.
pub fn draw(spec: &Spec) -> Result<Option<SeccompPlan>> {
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let Some(seccomp) = seccomp else {
        return Ok(None);
    };
    let native = abi::native()
        .context("linux.seccomp: system call numbers of this machine are not known")?;
    draw_for(seccomp, native).map(Some)
}

fn draw_for(seccomp: &LinuxSeccomp, native: Arch) -> Result<SeccompPlan> {
    let notify = notify(seccomp)?;
    let profile = profile::read(seccomp, native)?;
    let mut warnings = idle(seccomp, notify.as_ref());
    if !profile.unknown.is_empty() {
        let names = Vec::from_iter(profile.unknown).join(", ");
        warnings.push(format!(
            "linux.seccomp.syscalls: unknown system calls are ignored: {names}"
        ));
    }
    Ok(SeccompPlan {
        program: program::write(&profile.sections, profile::STRANGER)?,
        flags: flags(seccomp, notify.is_some()),
        notify,
        warnings,
    })
}

/// Error numbers where the action has no use for one, and an agent that nobody will ask.
/// runtime-spec calls for an error, but runc takes them without a word, and profiles carry them
/// along when their actions are edited.
fn idle(seccomp: &LinuxSeccomp, notify: Option<&Notify>) -> Vec<String> {
    use LinuxSeccompAction::{ScmpActErrno, ScmpActTrace};
    let useless = |action| !matches!(action, ScmpActErrno | ScmpActTrace);
    let say = |field: String, action| format!("{field}: means nothing with {action}");
    let mut warnings = Vec::new();
    let default = seccomp.default_action();
    if seccomp.default_errno_ret().is_some() && useless(default) {
        warnings.push(say("linux.seccomp.defaultErrnoRet".to_owned(), default));
    }
    for (at, group) in seccomp.syscalls().iter().flatten().enumerate() {
        if group.errno_ret().is_some() && useless(group.action()) {
            let field = format!("linux.seccomp.syscalls[{at}].errnoRet");
            warnings.push(say(field, group.action()));
        }
    }
    if notify.is_none() {
        let (path, metadata) = (seccomp.listener_path(), seccomp.listener_metadata());
        for (there, field) in [
            (path.is_some(), "linux.seccomp.listenerPath"),
            (metadata.is_some(), "linux.seccomp.listenerMetadata"),
        ] {
            if there {
                warnings.push(format!("{field}: means nothing without SCMP_ACT_NOTIFY"));
            }
        }
    }
    warnings
}

/// Flags of seccomp(2). Where config.json has no list at all, runc disables the speculative store
/// bypass mitigation, which seccomp would else turn on before Linux 5.16.
fn flags(seccomp: &LinuxSeccomp, listener: bool) -> u64 {
    use LinuxSeccompFilterFlag::*;
    let Some(wanted) = seccomp.flags() else {
        return libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | listener_flag(listener);
    };
    let mut flags = listener_flag(listener);
    for flag in wanted {
        flags |= match flag {
            // A listener and TSYNC both want the return value, unless a failure is ESRCH (Linux 5.7).
            SeccompFilterFlagTsync if listener => {
                libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH
            }
            // Nobody waits without a listener, and the kernel refuses the flag.
            SeccompFilterFlagWaitKillableRecv if !listener => 0,
            other => bit(*other),
        };
    }
    flags
}

/// SECCOMP_FILTER_FLAG_* by its name.
pub fn bit(flag: LinuxSeccompFilterFlag) -> u64 {
    use LinuxSeccompFilterFlag::*;
    match flag {
        SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
        SeccompFilterFlagWaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    }
}

fn listener_flag(listener: bool) -> u64 {
    if listener {
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
    } else {
        0
    }
}

/// The agent, where an action is SCMP_ACT_NOTIFY.
fn notify(seccomp: &LinuxSeccomp) -> Result<Option<Notify>> {
    const NOTIFY: LinuxSeccompAction = LinuxSeccompAction::ScmpActNotify;
    ensure!(
        seccomp.default_action() != NOTIFY,
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default: init itself would wait for the agent"
    );
    let mut wanted = None;
    for (at, group) in seccomp.syscalls().iter().flatten().enumerate() {
        if group.action() != NOTIFY {
            continue;
        }
        if group.names().iter().any(|name| name == BEFORE_LISTENER) {
            bail!(
                "linux.seccomp.syscalls[{at}].action: SCMP_ACT_NOTIFY cannot be used for \
                 {BEFORE_LISTENER}: init needs it to hand the listener to the agent"
            );
        }
        wanted.get_or_insert(at);
    }
    let Some(at) = wanted else {
        return Ok(None);
    };
    let listener_path = seccomp
        .listener_path()
        .clone()
        .filter(|path| !path.as_os_str().is_empty());
    Ok(Some(Notify {
        listener_path: listener_path.with_context(|| {
            format!("linux.seccomp.listenerPath: missing, but linux.seccomp.syscalls[{at}].action is SCMP_ACT_NOTIFY")
        })?,
        metadata: seccomp.listener_metadata().clone().unwrap_or_default(),
    }))
}
