//! What does a profile say about each number? `linux.seccomp` (runtime-spec config-linux.md#seccomp)
//! becomes intervals of system call numbers with one verdict each, an audit architecture a section.

use super::abi::{self, Abi, X32_BIT};
use super::program::{
    Check, Compare, Condition, Interval, MAX_INSTRUCTIONS, Rule, Section, Verdict,
};
use anyhow::{Result, ensure};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use std::collections::BTreeSet;

/// SECCOMP_RET_KILL_THREAD: what libseccomp, and so runc, gives an ABI that the profile does not list.
pub(super) const STRANGER: u32 = 0;

const ENOSYS: u32 = libc::ENOSYS as u32;

/// Errors above are not errors to the C library; the kernel cuts to it (MAX_ERRNO of <linux/err.h>).
const MAX_ERRNO: u32 = 4095;

/// Where a small profile that multiplies (many names, many alternatives) is given up: most of
/// what the intervals of real profiles share is one check, so this is far above the program's limit.
const MOST_RULES: usize = 1 << 16;

/// A profile as numbers.
#[derive(Debug)]
pub(super) struct Profile {
    /// The native architecture first.
    pub sections: Vec<Section>,
    /// Names that no architecture knows.
    pub unknown: BTreeSet<String>,
}

/// Reads a profile for a machine of architecture `native`.
pub(super) fn read(seccomp: &LinuxSeccomp, native: Arch) -> Result<Profile> {
    let abis = abis(seccomp, native)?;
    let default = return_value(
        seccomp.default_action(),
        seccomp.default_errno_ret(),
        "linux.seccomp.defaultErrnoRet",
    )?;
    let none = Vec::new();
    let groups = seccomp.syscalls().as_ref().unwrap_or(&none);
    let mut unknown = BTreeSet::new();
    let mut asks = Vec::with_capacity(groups.len());
    for (at, group) in groups.iter().enumerate() {
        asks.push(Ask::read(group, at, &mut unknown)?);
    }
    let mut sections: Vec<Section> = Vec::new();
    for first in &abis {
        // x32 shares a section with x86_64.
        if sections.iter().any(|section| section.audit == first.audit) {
            continue;
        }
        let mut layout = Layout::default();
        let shared = || abis.iter().filter(|abi| abi.audit == first.audit);
        let x32 = shared().find(|abi| abi.is_x32());
        let plain = shared().find(|abi| !abi.is_x32());
        let stub = stub_of(seccomp);
        if first.audit != Arch::ScmpArchX86_64 as u32 {
            layout.abi(first, &asks, default, stub, 0)?;
        } else {
            match plain {
                Some(abi) => layout.abi(abi, &asks, default, stub, 0)?,
                None => layout.push(0, Verdict::Return(STRANGER)),
            }
            match x32 {
                Some(abi) => layout.abi(abi, &asks, default, stub, X32_BIT)?,
                None => {
                    layout.push(X32_BIT, Verdict::Return(STRANGER));
                    // -1, with which a tracer skips a call, has the bit by accident.
                    layout.push(u32::MAX, Verdict::Return(default));
                }
            }
        }
        sections.push(Section {
            audit: first.audit,
            big_endian: first.big_endian,
            intervals: layout.intervals,
        });
    }
    Ok(Profile { sections, unknown })
}

/// The ABIs of the profile: the native one always, and first, as it makes nearly all calls.
fn abis(seccomp: &LinuxSeccomp, native: Arch) -> Result<Vec<Abi>> {
    let mut abis = vec![Abi::of(native, native)];
    for (at, arch) in seccomp.architectures().iter().flatten().enumerate() {
        let abi = Abi::of(*arch, native);
        ensure!(
            abi.big_endian == abis[0].big_endian,
            "linux.seccomp.architectures[{at}]: {arch} has another byte order than this machine's {native}; \
             no such process can run here, remove it"
        );
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    Ok(abis)
}

/// Whether a number above all that the profile names gets ENOSYS.
///
/// Not where the default lets calls through (a tracer can tell for itself what it does not know),
/// and not where the profile's author has chosen ENOSYS.
fn stub_of(seccomp: &LinuxSeccomp) -> bool {
    use LinuxSeccompAction::*;
    let permissive = matches!(
        seccomp.default_action(),
        ScmpActAllow | ScmpActLog | ScmpActTrace
    );
    !permissive && seccomp.default_errno_ret() != Some(ENOSYS)
}

/// SECCOMP_RET_* with its data. `field` is where `errno` stands.
fn return_value(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<u32> {
    use LinuxSeccompAction::*;
    let limit = match action {
        ScmpActErrno => MAX_ERRNO,
        ScmpActTrace => libc::SECCOMP_RET_DATA,
        // Data of any other action means nothing; runc does not look at it either.
        _ => return Ok(action.as_u32(None)),
    };
    let data = errno.unwrap_or(libc::EPERM as u32);
    ensure!(
        data <= limit,
        "{field}: {data} is above {limit}, the most that {action} can carry"
    );
    Ok(action.as_u32(Some(data)))
}

/// One entry of `linux.seccomp.syscalls`.
struct Ask {
    calls: Vec<abi::Call>,
    action: u32,
    /// Any of them may hold; each holds when all its conditions do.
    alternatives: Vec<Vec<Condition>>,
}

impl Ask {
    fn read(group: &LinuxSyscall, at: usize, unknown: &mut BTreeSet<String>) -> Result<Ask> {
        let field = format!("linux.seccomp.syscalls[{at}]");
        let action = return_value(
            group.action(),
            group.errno_ret(),
            &format!("{field}.errnoRet"),
        )?;
        let mut conditions = Vec::new();
        for (n, arg) in group.args().iter().flatten().enumerate() {
            conditions.push(condition(arg, &format!("{field}.args[{n}]"))?);
        }
        let mut calls = Vec::with_capacity(group.names().len());
        for name in group.names() {
            match abi::find(name) {
                Some(call) => calls.push(call),
                None => {
                    unknown.insert(name.clone());
                }
            }
        }
        Ok(Ask {
            calls,
            action,
            alternatives: alternatives(conditions),
        })
    }
}

fn condition(arg: &LinuxSeccompArg, field: &str) -> Result<Condition> {
    use LinuxSeccompOperator::*;
    ensure!(
        arg.index() <= 5,
        "{field}.index: {} is above 5: a system call has six arguments",
        arg.index()
    );
    // With a mask, `value` is the mask and `valueTwo` what must be left.
    let (compare, value) = match arg.op() {
        ScmpCmpNe => (Compare::Ne, arg.value()),
        ScmpCmpLt => (Compare::Lt, arg.value()),
        ScmpCmpLe => (Compare::Le, arg.value()),
        ScmpCmpEq => (Compare::Eq, arg.value()),
        ScmpCmpGe => (Compare::Ge, arg.value()),
        ScmpCmpGt => (Compare::Gt, arg.value()),
        ScmpCmpMaskedEq => (Compare::MaskedEq(arg.value()), arg.value_two().unwrap_or(0)),
    };
    Ok(Condition {
        index: arg.index() as u8,
        compare,
        value,
    })
}

/// All conditions must hold together. But where two of them look at the same argument, each is an
/// alternative of its own: so runc reads it, for the sake of profiles written before libseccomp
/// could do otherwise.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let mut seen = [false; 6];
    let twice = |c: &Condition| std::mem::replace(&mut seen[usize::from(c.index)], true);
    if conditions.iter().any(twice) {
        conditions.into_iter().map(|one| vec![one]).collect()
    } else {
        vec![conditions]
    }
}

/// Intervals, in ascending order; equal neighbours have become one.
#[derive(Default)]
struct Layout {
    intervals: Vec<Interval>,
    /// Rules in them, all together.
    rules: usize,
}

impl Layout {
    /// From `start` on, `verdict`.
    fn push(&mut self, start: u32, verdict: Verdict) {
        if self
            .intervals
            .last()
            .is_some_and(|last| last.start == start)
        {
            self.intervals.pop();
        }
        if self
            .intervals
            .last()
            .is_none_or(|last| last.verdict != verdict)
        {
            self.intervals.push(Interval { start, verdict });
        }
    }

    /// All numbers of an ABI, which begin at `start`.
    fn abi(&mut self, abi: &Abi, asks: &[Ask], default: u32, stub: bool, start: u32) -> Result<()> {
        let (wishes, newest) = wishes(abi, asks, default);
        self.push(start, Verdict::Return(default));
        for same in wishes.chunk_by(|a, b| a.number == b.number) {
            let verdict = verdict(same, abi, default);
            if let Verdict::Check(check) = &verdict {
                self.rules += check.rules.len();
                ensure!(
                    self.rules <= MOST_RULES,
                    "linux.seccomp.syscalls: more than {MOST_RULES} conditions on arguments for {}; \
                     no program of {MAX_INSTRUCTIONS} instructions can hold them",
                    abi.arch
                );
            }
            self.push(same[0].number, verdict);
            // The next wish, if it is for the next number, replaces this.
            self.push(same[0].number + 1, Verdict::Return(default));
        }
        if let (true, Some(newest)) = (stub, newest) {
            // What the profile names with the default's own action has no wish, but is known.
            self.push(
                newest + 1,
                Verdict::Return(libc::SECCOMP_RET_ERRNO | ENOSYS),
            );
        }
        Ok(())
    }
}

/// An entry that speaks of a number.
struct Wish<'a> {
    number: u32,
    ask: &'a Ask,
    /// Reached through socketcall(2) or ipc(2), and what the first argument says then.
    gate: Option<u64>,
}

/// All that is asked of an ABI, by number and, for one number, in the profile's order; and the
/// highest number that the profile names.
///
/// What an entry asks that is the default anyway is left out, as in runc: a later entry about the
/// same call may still say otherwise.
fn wishes<'a>(abi: &Abi, asks: &'a [Ask], default: u32) -> (Vec<Wish<'a>>, Option<u32>) {
    let mut wishes = Vec::new();
    let mut newest = None;
    for ask in asks {
        for call in &ask.calls {
            let number = abi.number(call);
            newest = newest.max(number);
            if ask.action == default {
                continue;
            }
            let direct = number.map(|number| (number, None));
            let gate = abi.gate(call).map(|(number, what)| (number, Some(what)));
            for (number, gate) in direct.into_iter().chain(gate) {
                newest = newest.max(Some(number));
                wishes.push(Wish { number, ask, gate });
            }
        }
    }
    wishes.sort_by_key(|wish| wish.number);
    (wishes, newest)
}

/// What several entries about one number come to: an entry without conditions settles it, the
/// first of them if there are more (so libseccomp); otherwise the first whose conditions hold.
fn verdict(wishes: &[Wish], abi: &Abi, default: u32) -> Verdict {
    let (mut rules, mut seen) = (Vec::new(), BTreeSet::new());
    for wish in wishes {
        for alternative in &wish.ask.alternatives {
            let mut conditions = behind(wish.gate, alternative);
            conditions.retain(|condition| !asks_nothing(condition, abi.wide));
            if conditions.is_empty() {
                return Verdict::Return(wish.ask.action);
            }
            let rule = Rule {
                conditions,
                action: wish.ask.action,
            };
            if seen.insert(rule.clone()) {
                rules.push(rule);
            }
        }
    }
    Verdict::Check(Check {
        rules,
        otherwise: default,
        wide: abi.wide,
    })
}

/// A mask without a bit, or without one in the half that a 32-bit caller can set: always equal.
fn asks_nothing(condition: &Condition, wide: bool) -> bool {
    match condition.compare {
        Compare::MaskedEq(mask) if wide => mask == 0,
        Compare::MaskedEq(mask) => mask as u32 == 0,
        _ => false,
    }
}

/// The conditions of a call made through a gate. The gate's first argument names the call, so a
/// condition on the call's own first argument is lost (its arguments lie in memory, where a
/// filter cannot look): libseccomp drops it too, and programs of old C libraries rely on it.
fn behind(gate: Option<u64>, conditions: &[Condition]) -> Vec<Condition> {
    let Some(what) = gate else {
        return conditions.to_vec();
    };
    let named = Condition {
        index: 0,
        compare: Compare::Eq,
        value: what,
    };
    let rest = conditions.iter().filter(|condition| condition.index != 0);
    std::iter::once(named).chain(rest.copied()).collect()
}
