//! Which devices may the container use, as a program the kernel can ask?
//!
//! `linux.resources.devices` (runtime-spec config-linux.md, "Allowed device list") becomes a
//! BPF_PROG_TYPE_CGROUP_DEVICE program. Pure; loading and attaching is `sys::bpf`.
//!
//! **Meaning.** Everything is denied at first. The rules of config.json apply in order, then the
//! default devices of runc are allowed (without a `devices` list, too, as in runc). A rule speaks
//! for the access bits it names, on the devices it names; a later rule overrides an earlier one.
//! So `a` with nothing else resets everything. An open asks for one or more of the three bits and
//! is allowed when each of them is. Where runc 1.1 differs, it is looser or refuses: it takes
//! `a` with numbers or with few bits for the whole of it, denies `rw` only when a deny rule names
//! both, and refuses a deny rule inside an allowed range ("cannot punch hole").
//!
//! **Size.** The verifier walks every path of a program, on every create. So rules are not
//! translated one by one: they are folded into a table of what differs from the default
//! ([`Table`]), and that is written as few compares. runc's default rules give 21 instructions
//! (runc 1.1 emits 64).

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};
use std::collections::BTreeSet;
use std::path::Path;

// Access bits, numbered as BPF_DEVCG_ACC_* of <linux/bpf.h>.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// BPF_DEVCG_DEV_* of <linux/bpf.h>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block = 1,
    Char = 2,
}

/// One line of the allowed device list; `None` stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// More rules than this would be a mistake, and their table slow to make.
const MOST_RULES: usize = 2048;

/// The program for `linux.resources.devices`, one instruction a number as the kernel reads it
/// (`struct bpf_insn`); `None` where every access is allowed.
///
/// Errors name the rule that is malformed.
pub fn draw(spec: &Spec) -> Result<Option<Vec<u64>>> {
    let (block, char) = tables(spec)?;
    assemble(&block, &char)
}

/// The same as a list of what is allowed, in the words of systemd's `DeviceAllow`
/// (systemd.resource-control(5)): a device or a group of them, and some of `rwm`. `None` where
/// every access to some kind of device is allowed by default: `DevicePolicy=auto`.
///
/// A list that only allows can say less than the rules can, so it allows more where it must: a
/// denial inside an allowed range, and a minor number of every major, are left to the program,
/// which stays in force beside systemd's.
pub fn allow_list(spec: &Spec) -> Result<Option<Vec<(String, String)>>> {
    let (block, char) = tables(spec)?;
    let mut out = vec![];
    for (kind, table) in [("block", &block), ("char", &char)] {
        let everywhere = table.other.all_bits();
        if everywhere == ALL {
            return Ok(None);
        }
        let mut allow = |device: String, access: u8, but: u8| {
            if access | but != but {
                out.push((device, letters(access | but)));
            }
        };
        allow(format!("{kind}-*"), everywhere, 0);
        for (major, row) in &table.majors {
            let group = row.other | everywhere;
            // A number for the group's name in /proc/devices, which differs between hosts.
            allow(format!("{kind}-{major}"), row.other, everywhere);
            for (minor, access) in &row.minors {
                allow(format!("/dev/{kind}/{major}:{minor}"), *access, group);
            }
        }
    }
    Ok(Some(out))
}

/// Access bits as systemd.resource-control(5) writes them.
fn letters(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .into_iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, letter)| letter)
        .collect()
}

/// What `spec` allows on block and on character devices.
fn tables(spec: &Spec) -> Result<(Table, Table)> {
    let linux = spec.linux().as_ref();
    let asked = linux
        .and_then(|l| l.resources().as_ref()?.devices().as_deref())
        .unwrap_or_default();
    ensure!(
        asked.len() <= MOST_RULES,
        "linux.resources.devices: {} rules are too many: use ranges (no `minor`), at most {MOST_RULES}",
        asked.len()
    );
    let mut rules = asked
        .iter()
        .enumerate()
        .map(|(i, rule)| read(i, rule))
        .collect::<Result<Vec<_>>>()?;
    let made: Vec<&Path> = linux
        .and_then(|l| l.devices().as_ref())
        .into_iter()
        .flatten()
        .map(|d| d.path().as_path())
        .collect();
    rules.extend(defaults(&made));
    Ok((
        Table::fold(&rules, Kind::Block)?,
        Table::fold(&rules, Kind::Char)?,
    ))
}

fn read(i: usize, rule: &LinuxDeviceCgroup) -> Result<Rule> {
    let field = format!("linux.resources.devices[{i}]");
    let number = |part: &str, value: Option<i64>| match value {
        // -1 is how engines write "all" where the field must have a value.
        None | Some(-1) => Ok(None),
        Some(n) => match u32::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => bail!("{field}.{part}: {n} is no device number"),
        },
    };
    let asked = rule.access().as_deref().unwrap_or("");
    ensure!(
        !asked.is_empty(),
        "{field}.access: device access cannot be empty: give some of r (read), w (write), m (mknod)"
    );
    let mut access = 0;
    for letter in asked.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => bail!("{field}.access: {asked:?} holds {letter:?}: only r, w and m are known"),
        };
    }
    Ok(Rule {
        allow: rule.allow(),
        kind: match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A => None,
            LinuxDeviceType::B => Some(Kind::Block),
            LinuxDeviceType::C => Some(Kind::Char),
            other => bail!(
                "{field}.type: invalid cgroup device type {:?}: give a (all), c or b",
                other.as_str()
            ),
        },
        major: number("major", rule.major())?,
        minor: number("minor", rule.minor())?,
        access,
    })
}

/// What runc 1.1 appends to every list (seen in the program it loads): any mknod, and the use of
/// the default devices, but for those that `linux.devices` makes anew under the same path.
fn defaults(made: &[&Path]) -> Vec<Rule> {
    let any = |kind| Rule {
        allow: true,
        kind: Some(kind),
        major: None,
        minor: None,
        access: MKNOD,
    };
    let char = |(path, major, minor): &(&str, u32, Option<u32>)| {
        let remade = !path.is_empty() && made.iter().any(|p| *p == Path::new(path));
        (!remade).then_some(Rule {
            major: Some(*major),
            minor: *minor,
            access: ALL,
            ..any(Kind::Char)
        })
    };
    let mut rules = vec![any(Kind::Char), any(Kind::Block)];
    rules.extend(DEFAULT_DEVICES.iter().filter_map(char));
    rules
}

/// (path where a bundle can replace it, major, minor).
const DEFAULT_DEVICES: [(&str, u32, Option<u32>); 9] = [
    ("/dev/null", 1, Some(3)),
    ("/dev/random", 1, Some(8)),
    ("/dev/full", 1, Some(7)),
    ("/dev/tty", 5, Some(0)),
    ("/dev/zero", 1, Some(5)),
    ("/dev/urandom", 1, Some(9)),
    ("", 136, None),     // /dev/pts/N
    ("", 5, Some(2)),    // /dev/ptmx
    ("", 10, Some(200)), // /dev/net/tun
];

/// What is allowed on the devices of one kind: the access bits by number.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    /// Majors that differ from `other`, ascending.
    majors: Vec<(u32, Row)>,
    other: Row,
}

/// What is allowed on the devices of one major.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// Minors that differ from `other`, ascending.
    minors: Vec<(u32, u8)>,
    other: u8,
}

impl Table {
    fn fold(rules: &[Rule], kind: Kind) -> Result<Table> {
        let rules: Vec<&Rule> = rules
            .iter()
            .filter(|r| r.kind.is_none_or(|k| k == kind))
            .collect();
        let majors: BTreeSet<u32> = rules.iter().filter_map(|r| r.major).collect();
        let everywhere: BTreeSet<u32> = minors(&rules, None).collect();
        // Each minor named for all majors may show again in each major's row.
        ensure!(
            majors.len() * everywhere.len() <= MOST_RULES,
            "linux.resources.devices: {} majors and {} minors of every major are too many together",
            majors.len(),
            everywhere.len()
        );
        let other = Row::fold(&rules, None, &everywhere);
        let rows = majors.into_iter().map(|major| {
            let named = minors(&rules, Some(major)).chain(everywhere.iter().copied());
            (major, Row::fold(&rules, Some(major), &named.collect()))
        });
        Ok(Table {
            majors: rows.filter(|(_, row)| *row != other).collect(),
            other,
        })
    }

    fn constant(&self) -> Option<u8> {
        (self.majors.is_empty() && self.other.minors.is_empty()).then_some(self.other.other)
    }

    /// Every set of bits that some device has.
    fn masks(&self) -> impl Iterator<Item = u8> {
        self.majors
            .iter()
            .map(|(_, row)| row)
            .chain([&self.other])
            .flat_map(|row| row.minors.iter().map(|m| m.1).chain([row.other]))
    }
}

impl Row {
    /// What is allowed on some device of this row.
    fn all_bits(&self) -> u8 {
        self.minors.iter().fold(self.other, |bits, m| bits | m.1)
    }

    /// `major`: `None` for one that no rule names.
    fn fold(rules: &[&Rule], major: Option<u32>, minors: &BTreeSet<u32>) -> Row {
        let other = allowed(rules, major, None);
        let named = minors.iter().map(|&n| (n, allowed(rules, major, Some(n))));
        Row {
            minors: named.filter(|m| m.1 != other).collect(),
            other,
        }
    }
}

/// The minors that rules name for exactly this major, or (`None`) for every major.
fn minors(rules: &[&Rule], major: Option<u32>) -> impl Iterator<Item = u32> {
    rules
        .iter()
        .filter(move |r| r.major == major)
        .filter_map(|r| r.minor)
}

/// The bits allowed on one device; `None` for a number that no rule names.
fn allowed(rules: &[&Rule], major: Option<u32>, minor: Option<u32>) -> u8 {
    let speaks = |r: &&&Rule| {
        (r.major.is_none() || r.major == major) && (r.minor.is_none() || r.minor == minor)
    };
    rules.iter().filter(speaks).fold(0, |bits, rule| {
        if rule.allow {
            bits | rule.access
        } else {
            bits & !rule.access
        }
    })
}

// ---------------------------------------------------------------------------------------------
// Assembly (instruction-set.rst of the kernel). The program gets in r1 a struct bpf_cgroup_dev_ctx
// { u32 access_type = access << 16 | kind; u32 major; u32 minor } and gives 1 in r0 to allow.

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const ASKED: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

const LOAD: u8 = 0x61; // BPF_LDX | BPF_W | BPF_MEM
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT
// BPF_JMP32 (kernel 5.1): compares 32 bits, so that numbers above 2^31 are not sign-extended.
const IF_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const IF_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const IF_ANY_BIT: u8 = 0x46; // BPF_JMP32 | BPF_JSET | BPF_K

/// A place to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Allow,
    Deny,
    /// Allowed when only these bits are asked for.
    Only(u8),
    /// Where the rules of block devices begin.
    Block,
    /// The end of a major's row.
    Row(Kind, u32),
}

enum Line {
    Here(Label),
    Plain(Insn),
    To(Insn, Label),
}

#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    dst: u8,
    src: u8,
    offset: i16,
    value: u32,
}

struct Program {
    lines: Vec<Line>,
    /// Bits allowed everywhere: a request for no others never reaches the tables.
    common: u8,
}

fn assemble(block: &Table, char: &Table) -> Result<Option<Vec<u64>>> {
    let masks: BTreeSet<u8> = block.masks().chain(char.masks()).collect();
    let common = masks.iter().fold(ALL, |all, mask| all & mask);
    if common == ALL {
        return Ok(None);
    }
    let mut p = Program {
        lines: vec![],
        common,
    };
    p.load(ASKED, 0);
    p.plain(MOVE, RESULT, 1);
    p.goto_if(IF_ANY_BIT, ASKED, bits(!common & ALL), Label::Only(common));
    p.plain(EXIT, 0, 0);
    p.lines.push(Line::Here(Label::Only(common)));

    let one_table = block == char;
    let block_label = block.constant().map_or(Label::Block, |mask| p.leaf(mask));
    if !one_table {
        p.goto_if(IF_ANY_BIT, ASKED, Kind::Block as u32, block_label);
    }
    p.table(char, Kind::Char);
    if !one_table && block_label == Label::Block {
        p.lines.push(Line::Here(Label::Block));
        p.table(block, Kind::Block);
    }
    for mask in masks {
        if let only @ Label::Only(_) = p.leaf(mask) {
            p.lines.push(Line::Here(only));
            p.goto_if(IF_ANY_BIT, ASKED, bits(!mask & ALL), Label::Deny);
            p.goto(Label::Allow);
        }
    }
    p.lines.push(Line::Here(Label::Deny));
    p.plain(MOVE, RESULT, 0);
    p.lines.push(Line::Here(Label::Allow));
    p.plain(EXIT, 0, 0);
    p.link().map(Some)
}

/// Access bits where struct bpf_cgroup_dev_ctx has them.
fn bits(access: u8) -> u32 {
    u32::from(access) << 16
}

impl Program {
    /// Where it is decided about devices with these bits. Something beyond `common` is asked for
    /// by then.
    fn leaf(&self, mask: u8) -> Label {
        if mask == ALL {
            Label::Allow
        } else if mask == self.common {
            Label::Deny
        } else {
            Label::Only(mask)
        }
    }

    fn table(&mut self, table: &Table, kind: Kind) {
        let rows = || {
            table
                .majors
                .iter()
                .map(|(_, row)| row)
                .chain([&table.other])
        };
        if !table.majors.is_empty() {
            self.load(MAJOR, 4);
        }
        if rows().any(|row| !row.minors.is_empty()) {
            self.load(MINOR, 8);
        }
        for (major, row) in &table.majors {
            if row.minors.is_empty() {
                self.goto_if(IF_EQUAL, MAJOR, *major, self.leaf(row.other));
                continue;
            }
            let end = Label::Row(kind, *major);
            self.goto_if(IF_NOT_EQUAL, MAJOR, *major, end);
            self.minors(row);
            // No other major will match below; where the end is the same, fall through to it.
            if !(table.other.minors.is_empty() && table.other.other == row.other) {
                self.goto(self.leaf(row.other));
            }
            self.lines.push(Line::Here(end));
        }
        self.minors(&table.other);
        self.goto(self.leaf(table.other.other));
    }

    fn minors(&mut self, row: &Row) {
        for &(minor, mask) in &row.minors {
            self.goto_if(IF_EQUAL, MINOR, minor, self.leaf(mask));
        }
    }

    fn load(&mut self, dst: u8, offset: i16) {
        let (code, src) = (LOAD, CONTEXT);
        self.lines.push(Line::Plain(Insn {
            code,
            dst,
            src,
            offset,
            value: 0,
        }));
    }

    fn plain(&mut self, code: u8, dst: u8, value: u32) {
        self.lines.push(Line::Plain(Insn {
            code,
            dst,
            src: 0,
            offset: 0,
            value,
        }));
    }

    fn goto_if(&mut self, code: u8, dst: u8, value: u32, label: Label) {
        self.lines.push(Line::To(
            Insn {
                code,
                dst,
                src: 0,
                offset: 0,
                value,
            },
            label,
        ));
    }

    fn goto(&mut self, label: Label) {
        self.goto_if(JUMP, 0, 0, label);
    }

    /// Labels become offsets.
    fn link(mut self) -> Result<Vec<u64>> {
        self.drop_idle_jumps();
        let mut places: Vec<(Label, usize)> = vec![];
        let mut length = 0;
        for line in &self.lines {
            match line {
                Line::Here(label) => places.push((*label, length)),
                _ => length += 1,
            }
        }
        let mut code: Vec<u64> = Vec::with_capacity(length);
        for line in &self.lines {
            code.push(match line {
                Line::Here(_) => continue,
                Line::Plain(insn) => insn.encode(),
                Line::To(insn, label) => {
                    // Labels are few but for rows, whose end is the nearest one ahead.
                    let place = places.iter().find(|p| p.0 == *label && p.1 > code.len());
                    let offset = place.and_then(|p| i16::try_from(p.1 - code.len() - 1).ok());
                    let Some(offset) = offset else {
                        bail!("linux.resources.devices: too many rules for one program");
                    };
                    Insn { offset, ..*insn }.encode()
                }
            });
        }
        Ok(code)
    }

    /// Takes out jumps to the very next instruction.
    fn drop_idle_jumps(&mut self) {
        let idle = |lines: &[Line], i: usize| {
            let Line::To(Insn { code: JUMP, .. }, label) = &lines[i] else {
                return false;
            };
            lines[i + 1..]
                .iter()
                .map_while(|l| match l {
                    Line::Here(here) => Some(here),
                    _ => None,
                })
                .any(|here| here == label)
        };
        for i in (0..self.lines.len()).rev() {
            if idle(&self.lines, i) {
                self.lines.remove(i);
            }
        }
    }
}

impl Insn {
    /// `struct bpf_insn` as it lies in memory.
    fn encode(self) -> u64 {
        let registers = if cfg!(target_endian = "little") {
            self.src << 4 | self.dst
        } else {
            self.dst << 4 | self.src
        };
        let [o0, o1] = self.offset.to_ne_bytes();
        let [v0, v1, v2, v3] = self.value.to_ne_bytes();
        u64::from_ne_bytes([self.code, registers, o0, o1, v0, v1, v2, v3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(devices: Value) -> Spec {
        let linux = json!({"resources": {"devices": devices}});
        serde_json::from_value(json!({"ociVersion": "1.2.0", "linux": linux})).unwrap()
    }

    /// What the kernel's interpreter does, for the instructions used here; `None` for anything
    /// the verifier would refuse: an unknown instruction, a jump out of the program or backwards,
    /// a register read before it was written.
    fn run(code: &[u64], kind: Kind, major: u32, minor: u32, access: u8) -> Option<bool> {
        let mut registers = [None; 5];
        let mut at = 0;
        loop {
            let [op, regs, o0, o1, v @ ..] = code.get(at)?.to_ne_bytes();
            let (dst, src) = (usize::from(regs & 15), regs >> 4);
            let offset = i16::from_ne_bytes([o0, o1]);
            let value = u32::from_ne_bytes(v);
            at += 1;
            let jump = match op {
                LOAD if src == CONTEXT => {
                    registers[dst] = Some(match offset {
                        0 => u32::from(access) << 16 | kind as u32,
                        4 => major,
                        8 => minor,
                        _ => return None,
                    });
                    false
                }
                MOVE => {
                    registers[dst] = Some(value);
                    false
                }
                JUMP => true,
                IF_EQUAL => registers[dst]? == value,
                IF_NOT_EQUAL => registers[dst]? != value,
                IF_ANY_BIT => registers[dst]? & value != 0,
                EXIT => return registers[0].map(|r| r == 1),
                _ => return None,
            };
            if jump {
                at += usize::try_from(offset).ok()?;
            }
        }
    }

    /// The meaning, spelled out: the last rule that speaks of a bit on a device decides it.
    fn judge(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        [MKNOD, READ, WRITE]
            .into_iter()
            .filter(|bit| access & bit != 0)
            .all(|bit| {
                let last = rules.iter().rev().find(|r| {
                    r.access & bit != 0
                        && r.kind.is_none_or(|k| k == kind)
                        && r.major.is_none_or(|m| m == major)
                        && r.minor.is_none_or(|m| m == minor)
                });
                last.is_some_and(|r| r.allow)
            })
    }

    /// Program and meaning agree on every kind, on every access, and on every number the rules
    /// name, their neighbours and the ends.
    fn prove(rules: &[Rule]) -> usize {
        let numbers = |pick: fn(&Rule) -> Option<u32>| -> BTreeSet<u32> {
            let near = |n: u32| [n.saturating_sub(1), n, n.saturating_add(1)];
            let named = rules.iter().filter_map(pick).flat_map(near);
            named.chain([0, 1, u32::MAX]).collect()
        };
        let block = Table::fold(rules, Kind::Block).unwrap();
        let char = Table::fold(rules, Kind::Char).unwrap();
        let code = assemble(&block, &char).unwrap();
        for kind in [Kind::Block, Kind::Char] {
            for &major in &numbers(|r| r.major) {
                for &minor in &numbers(|r| r.minor) {
                    for access in 0..=ALL {
                        let expected = judge(rules, kind, major, minor, access);
                        let got = code
                            .as_ref()
                            .map_or(Some(true), |c| run(c, kind, major, minor, access));
                        assert_eq!(
                            got,
                            Some(expected),
                            "{kind:?} {major}:{minor} {access} {rules:?}"
                        );
                    }
                }
            }
        }
        assert!(code.as_ref().is_none_or(|c| reaches_all(c)), "{rules:?}");
        code.map_or(0, |c| c.len())
    }

    /// The verifier refuses a program with an instruction that no path reaches.
    fn reaches_all(code: &[u64]) -> bool {
        let mut reached = vec![false; code.len()];
        let mut ahead = vec![0];
        while let Some(at) = ahead.pop() {
            if !std::mem::replace(&mut reached[at], true) {
                let [op, _, o0, o1, ..] = code[at].to_ne_bytes();
                let there = at + 1 + i16::from_ne_bytes([o0, o1]) as usize;
                match op {
                    EXIT => {}
                    JUMP => ahead.push(there),
                    IF_EQUAL | IF_NOT_EQUAL | IF_ANY_BIT => ahead.extend([at + 1, there]),
                    _ => ahead.push(at + 1),
                }
            }
        }
        reached.into_iter().all(|r| r)
    }

    fn rules_of(devices: Value) -> Vec<Rule> {
        let spec = spec(devices);
        let asked = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        let asked = asked.devices().as_ref().unwrap();
        let read = asked.iter().enumerate().map(|(i, r)| read(i, r).unwrap());
        read.chain(defaults(&[])).collect()
    }

    #[test]
    fn common_lists_mean_what_they_say_in_few_instructions() {
        for (devices, length) in [
            (json!([]), 21),
            // runc's and sc-runtime's `spec`.
            (json!([{"allow": false, "access": "rwm"}]), 21),
            // --privileged: no program at all.
            (json!([{"allow": true, "access": "rwm"}]), 0),
            (
                json!([{"allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm"}]),
                0,
            ),
            // Rules that change nothing cost nothing.
            (
                json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]),
                21,
            ),
            (
                json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "access": "r"}]),
                27,
            ),
            (
                json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"}]),
                12,
            ),
            (
                json!([{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"},
                {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]),
                22,
            ),
            (
                json!([{"allow": true, "type": "c", "minor": 3, "access": "r"}]),
                30,
            ),
            (json!([{"allow": true, "access": "r"}]), 21),
        ] {
            let rules = rules_of(devices.clone());
            assert_eq!(prove(&rules), length, "{devices}");
        }
    }

    #[test]
    fn any_list_of_rules_means_what_it_says() {
        // A small linear congruence in place of a random source: the same lists on every run.
        let mut state = 1u64;
        let mut pick = |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % n
        };
        for _ in 0..1500 {
            let length = pick(9);
            let rules: Vec<Rule> = (0..length)
                .map(|_| {
                    let mut number = || match pick(5) {
                        0 | 1 => None,
                        2 => Some(u32::MAX - 1),
                        n => Some(n as u32 * 3),
                    };
                    let (major, minor) = (number(), number());
                    Rule {
                        allow: pick(2) == 0,
                        kind: [None, Some(Kind::Block), Some(Kind::Char)][pick(3) as usize],
                        major,
                        minor,
                        access: 1 + pick(7) as u8,
                    }
                })
                .collect();
            prove(&rules);
        }
    }

    #[test]
    fn the_default_program_is_this_one() {
        let code = draw(&spec(json!([{"allow": false, "access": "rwm"}])))
            .unwrap()
            .unwrap();
        let hex: Vec<String> = code.iter().map(|c| format!("{:016x}", c.to_le())).collect();
        assert_eq!(
            hex,
            [
                "0000000000001261", // r2 = access and kind
                "00000001000000b7", // r0 = 1
                "0006000000010246", // if it asks to read or to write, go on
                "0000000000000095", // exit: mknod is free
                "00000001000e0246", // if it is a block device, deny
                "0000000000041361", // r3 = major
                "0000000000081461", // r4 = minor
                "0000000100050356", // if major != 1, over the next
                "00000003000b0416", // 1:3 null
                "00000005000a0416", // 1:5 zero
                "0000000700090416", // 1:7 full
                "0000000800080416", // 1:8 random
                "0000000900070416", // 1:9 urandom
                "0000000500020356", // if major != 5, over the next
                "0000000000050416", // 5:0 tty
                "0000000200040416", // 5:2 ptmx
                "0000000a00010356", // if major != 10, over the next
                "000000c800020416", // 10:200 tun
                "0000008800010316", // 136:* pts
                "00000000000000b7", // r0 = 0
                "0000000000000095", // exit
            ]
        );
    }

    #[test]
    fn no_devices_and_no_resources_mean_runcs_default_list() {
        let with = draw(&spec(json!([]))).unwrap();
        for linux in [json!({}), json!({"resources": {}}), Value::Null] {
            let spec =
                serde_json::from_value(json!({"ociVersion": "1.2.0", "linux": linux})).unwrap();
            assert_eq!(draw(&spec).unwrap(), with);
        }
    }

    #[test]
    fn a_device_made_anew_loses_its_default_rule() {
        let linux =
            json!({"devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]});
        let spec = serde_json::from_value(json!({"ociVersion": "1.2.0", "linux": linux})).unwrap();
        let code = draw(&spec).unwrap().unwrap();
        assert_eq!(run(&code, Kind::Char, 1, 3, READ), Some(false));
        assert_eq!(run(&code, Kind::Char, 1, 3, MKNOD), Some(true));
        assert_eq!(run(&code, Kind::Char, 1, 5, READ | WRITE), Some(true));
    }

    #[test]
    fn a_malformed_rule_is_named() {
        for (rule, message) in [
            (
                json!({"allow": true}),
                "linux.resources.devices[1].access: device access cannot be empty: give some of r (read), w (write), m (mknod)",
            ),
            (
                json!({"allow": true, "access": "rx"}),
                "linux.resources.devices[1].access: \"rx\" holds 'x': only r, w and m are known",
            ),
            (
                json!({"allow": true, "type": "p", "access": "r"}),
                "linux.resources.devices[1].type: invalid cgroup device type \"p\": give a (all), c or b",
            ),
            (
                json!({"allow": true, "type": "u", "access": "r"}),
                "linux.resources.devices[1].type: invalid cgroup device type \"u\": give a (all), c or b",
            ),
            (
                json!({"allow": true, "type": "c", "major": -2, "access": "r"}),
                "linux.resources.devices[1].major: -2 is no device number",
            ),
            (
                json!({"allow": true, "type": "c", "minor": 4294967296i64, "access": "r"}),
                "linux.resources.devices[1].minor: 4294967296 is no device number",
            ),
        ] {
            let error = draw(&spec(json!([{"access": "r"}, rule]))).unwrap_err();
            assert_eq!(format!("{error:#}"), message);
        }
    }

    #[test]
    fn very_long_lists_are_refused_or_folded_quickly() {
        let rule = |major: u32| json!({"allow": true, "type": "c", "major": major, "minor": major, "access": "r"});
        let most: Vec<Value> = (0..2048).map(rule).collect();
        assert!(draw(&spec(json!(most))).unwrap().is_some());
        let more: Vec<Value> = (0..2049).map(rule).collect();
        assert_eq!(
            format!("{:#}", draw(&spec(json!(more))).unwrap_err()),
            "linux.resources.devices: 2049 rules are too many: use ranges (no `minor`), at most 2048"
        );
    }

    #[test]
    fn a_list_for_systemd_allows_no_less_than_the_program() {
        let list = |devices: Value| {
            let list = allow_list(&spec(devices)).unwrap();
            list.map(|l| {
                l.iter()
                    .map(|(d, a)| format!("{d} {a}"))
                    .collect::<Vec<_>>()
            })
        };
        let defaults = [
            "/dev/char/1:3 rwm",
            "/dev/char/1:5 rwm",
            "/dev/char/1:7 rwm",
            "/dev/char/1:8 rwm",
            "/dev/char/1:9 rwm",
        ];
        let others = [
            "/dev/char/5:0 rwm",
            "/dev/char/5:2 rwm",
            "/dev/char/10:200 rwm",
            "char-136 rwm",
        ];
        let with = |block: &[&str], char: &[&str], middle: &[&str]| {
            let lines = [block, char, &defaults, middle, &others].concat();
            Some(lines.iter().map(|l| l.to_string()).collect::<Vec<_>>())
        };
        for (devices, expected) in [
            (json!([]), with(&["block-* m"], &["char-* m"], &[])),
            (
                json!([{"allow": true, "type": "c", "major": 4, "access": "rw"},
                       {"allow": true, "type": "b", "major": 8, "access": "r"},
                       {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "w"}]),
                with(
                    &["block-* m", "block-8 rm", "/dev/block/8:1 rwm"],
                    &["char-* m"],
                    &["char-4 rwm"],
                ),
            ),
            // Minor 5 of every major: reading any is left to the program.
            (
                json!([{"allow": true, "type": "c", "minor": 5, "access": "r"}]),
                with(&["block-* m"], &["char-* rm"], &[]),
            ),
            // A hole in what is allowed is left to it, too.
            (
                json!([{"allow": true, "type": "b", "major": 8, "access": "rwm"},
                       {"allow": false, "type": "b", "major": 8, "minor": 3, "access": "rwm"}]),
                with(&["block-* m", "block-8 rwm"], &["char-* m"], &[]),
            ),
            (json!([{"allow": true, "access": "rwm"}]), None),
            (
                json!([{"allow": true, "access": "rwm"},
                       {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]),
                None,
            ),
        ] {
            assert_eq!(list(devices.clone()), expected, "{devices}");
        }
    }
}
