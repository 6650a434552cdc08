//! How is a table of verdicts said in classic BPF (seccomp(2), the kernel's networking/filter.rst)?
//!
//! Jumps go forward only, by at most 255 instructions when they are conditional. So the program
//! is written from its end to its beginning: whatever a jump leads to is already there, and its
//! distance is known. Where a target is too far, an island is put just behind the jump: a copy of
//! the `ret`, which costs a caller nothing, or an unconditional jump.
//!
//! ```text
//!   ld arch; jeq NATIVE ...; jeq OTHER ...; ret KILL
//!   NATIVE: ld nr; binary search over the starts of the intervals
//!           checks of arguments, out of the way of the calls that need none
//!   OTHER:  ...
//! ```

use super::abi::X32_BIT;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// BPF_MAXINSNS of <linux/bpf_common.h>: what seccomp(2) takes.
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

/// Numbers of one audit architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// AUDIT_ARCH_*.
    pub audit: u32,
    pub big_endian: bool,
    /// Ascending; the first starts at 0, the last goes on to `u32::MAX`; neighbours differ.
    pub intervals: Vec<Interval>,
}

/// The system calls from `start` to the next interval's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interval {
    pub start: u32,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// SECCOMP_RET_*.
    Return(u32),
    Check(Check),
}

/// The first rule whose conditions all hold decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Check {
    pub rules: Vec<Rule>,
    pub otherwise: u32,
    /// Compare 64 bits of each argument, or 32.
    pub wide: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub conditions: Vec<Condition>,
    pub action: u32,
}

/// `argument[index] & mask  compared with  value`, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Condition {
    pub index: u8,
    pub compare: Compare,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Compare {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// Only these bits, and they equal the value's.
    MaskedEq(u64),
}

/// The program for `sections`, the most frequent first; every other architecture gets `stranger`.
pub(super) fn write(sections: &[Section], stranger: u32) -> Result<Vec<u64>> {
    let mut writer = Writer::default();
    let mut entry = Target::Return(stranger);
    let mut entries = Vec::with_capacity(sections.len());
    for section in sections.iter().rev() {
        entries.push((section.audit, writer.section(section)));
        fits(&writer)?;
    }
    for (audit, section) in entries {
        entry = writer.branch(JEQ, audit, section, entry);
    }
    let first = writer.then(LOAD, ARCH, entry);
    writer.island(first);
    fits(&writer)?;
    Ok(writer.code.iter().rev().map(Instruction::encode).collect())
}

fn fits(writer: &Writer) -> Result<()> {
    let length = writer.code.len();
    ensure!(
        length <= MAX_INSTRUCTIONS,
        "linux.seccomp: the profile needs {length} BPF instructions or more, the kernel takes \
         {MAX_INSTRUCTIONS} (BPF_MAXINSNS); use fewer conditions on arguments or fewer architectures"
    );
    Ok(())
}

// struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6].
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

// Operation codes of <linux/bpf_common.h>.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

impl Instruction {
    fn new(code: u16, k: u32) -> Self {
        Instruction {
            code,
            if_true: 0,
            if_false: 0,
            k,
        }
    }

    /// As it lies in memory.
    fn encode(&self) -> u64 {
        let [a, b] = self.code.to_ne_bytes();
        let [e, f, g, h] = self.k.to_ne_bytes();
        u64::from_ne_bytes([a, b, self.if_true, self.if_false, e, f, g, h])
    }
}

/// Where control goes: a verdict, or the instruction with that index in [`Writer::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Return(u32),
    At(usize),
}

#[derive(Default)]
struct Writer {
    /// Last instruction first.
    code: Vec<Instruction>,
    /// The foremost `ret` of each action. (No hash maps: their seed costs a getrandom(2).)
    returns: BTreeMap<u32, usize>,
    /// Checks already written: several calls, or architectures, may share one (all sections have one
    /// byte order).
    checks: BTreeMap<Check, Target>,
}

impl Writer {
    fn push(&mut self, instruction: Instruction) -> Target {
        self.code.push(instruction);
        Target::At(self.code.len() - 1)
    }

    /// How far ahead the next instruction to be written would have `target`; `None`: too far.
    fn distance(&self, target: Target) -> Option<u8> {
        let at = match target {
            Target::Return(action) => *self.returns.get(&action)?,
            Target::At(at) => at,
        };
        u8::try_from(self.code.len() - 1 - at).ok()
    }

    /// Makes `target` the very next instruction.
    fn island(&mut self, target: Target) -> Target {
        match target {
            Target::Return(action) => {
                let copy = self.push(Instruction::new(RETURN, action));
                self.returns.insert(action, self.code.len() - 1);
                copy
            }
            Target::At(at) if at + 1 == self.code.len() => target,
            Target::At(at) => {
                let skip = self.code.len() - 1 - at;
                self.push(Instruction::new(JUMP, skip as u32))
            }
        }
    }

    /// A conditional jump on what was loaded.
    fn branch(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let (mut yes, mut no) = (yes, no);
        loop {
            match (self.distance(yes), self.distance(no)) {
                (Some(if_true), Some(if_false)) => {
                    return self.push(Instruction {
                        code,
                        if_true,
                        if_false,
                        k,
                    });
                }
                // An island for the one may push the other out of reach: look again.
                (_, None) => no = self.island(no),
                (None, _) => yes = self.island(yes),
            }
        }
    }

    /// A load, or the AND behind it, which goes on to `next`.
    fn then(&mut self, code: u16, k: u32, next: Target) -> Target {
        match next {
            // Whatever would be loaded: the verdict is the same.
            Target::Return(_) => next,
            Target::At(_) => {
                self.island(next);
                self.push(Instruction::new(code, k))
            }
        }
    }

    fn section(&mut self, section: &Section) -> Target {
        let mut leaves = Vec::with_capacity(section.intervals.len());
        for interval in &section.intervals {
            let target = match &interval.verdict {
                Verdict::Return(action) => Target::Return(*action),
                Verdict::Check(check) => self.check(check, section.big_endian),
            };
            leaves.push((interval.start, target));
        }
        // x32 is rare: whoever calls without its bit pays one comparison, not a level of the search.
        let x32 = leaves.partition_point(|leaf| leaf.0 < X32_BIT);
        let root = if x32 < leaves.len() && leaves[x32].0 == X32_BIT {
            let right = self.search(&leaves[x32..]);
            let left = self.search(&leaves[..x32]);
            self.branch(JGE, X32_BIT, right, left)
        } else {
            self.search(&leaves)
        };
        self.then(LOAD, NR, root)
    }

    /// Binary search for the interval of the loaded number.
    fn search(&mut self, leaves: &[(u32, Target)]) -> Target {
        match leaves {
            [(_, only)] => *only,
            // One number with its own verdict amid others: one comparison instead of two.
            [(_, around), (number, inside), (next, after)]
                if number + 1 == *next && around == after =>
            {
                self.branch(JEQ, *number, *inside, *around)
            }
            _ => {
                let middle = leaves.len() / 2;
                let right = self.search(&leaves[middle..]);
                let left = self.search(&leaves[..middle]);
                self.branch(JGE, leaves[middle].0, right, left)
            }
        }
    }

    fn check(&mut self, check: &Check, big_endian: bool) -> Target {
        if let Some(written) = self.checks.get(check) {
            return *written;
        }
        let mut next = Target::Return(check.otherwise);
        for rule in check.rules.iter().rev() {
            let mut hold = Target::Return(rule.action);
            for condition in rule.conditions.iter().rev() {
                hold = self.condition(condition, check.wide, big_endian, hold, next);
            }
            next = hold;
        }
        self.checks.insert(check.clone(), next);
        next
    }

    fn condition(
        &mut self,
        condition: &Condition,
        wide: bool,
        big_endian: bool,
        yes: Target,
        no: Target,
    ) -> Target {
        use Compare::*;
        let first = ARGS + 8 * u32::from(condition.index);
        let words = Words {
            low: (
                if big_endian { first + 4 } else { first },
                condition.value as u32,
            ),
            high: wide.then_some((
                if big_endian { first } else { first + 4 },
                (condition.value >> 32) as u32,
            )),
        };
        match condition.compare {
            Eq => self.masked(&words, u64::MAX, yes, no),
            Ne => self.masked(&words, u64::MAX, no, yes),
            MaskedEq(mask) => self.masked(&words, mask, yes, no),
            Ge => self.ordered(&words, JGE, yes, no),
            Lt => self.ordered(&words, JGE, no, yes),
            Gt => self.ordered(&words, JGT, yes, no),
            Le => self.ordered(&words, JGT, no, yes),
        }
    }

    /// Equal under a mask: the upper word first, as it tells most arguments apart from a bad one.
    fn masked(&mut self, words: &Words, mask: u64, yes: Target, no: Target) -> Target {
        let (offset, value) = words.low;
        let low = self.masked_word(offset, mask as u32, value, yes, no);
        match words.high {
            Some((offset, value)) => self.masked_word(offset, (mask >> 32) as u32, value, low, no),
            None => low,
        }
    }

    fn masked_word(
        &mut self,
        offset: u32,
        mask: u32,
        value: u32,
        yes: Target,
        no: Target,
    ) -> Target {
        let value = value & mask;
        let test = match mask {
            0 => return yes,
            u32::MAX => self.branch(JEQ, value, yes, no),
            _ if value == 0 => self.branch(JSET, mask, no, yes),
            _ => {
                let test = self.branch(JEQ, value, yes, no);
                self.then(AND, mask, test)
            }
        };
        self.then(LOAD, offset, test)
    }

    /// Unsigned `>` or `>=`: the upper words decide unless they are equal.
    fn ordered(&mut self, words: &Words, compare: u16, yes: Target, no: Target) -> Target {
        let (offset, value) = words.low;
        let low = self.branch(compare, value, yes, no);
        let low = self.then(LOAD, offset, low);
        match words.high {
            Some((offset, value)) => {
                let equal = self.branch(JEQ, value, low, no);
                let above = self.branch(JGT, value, yes, equal);
                self.then(LOAD, offset, above)
            }
            None => low,
        }
    }
}

/// Offset in `struct seccomp_data` and value to compare with, of both halves of an argument.
struct Words {
    low: (u32, u32),
    high: Option<(u32, u32)>,
}
