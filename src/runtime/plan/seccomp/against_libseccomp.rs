//! Does our program say what libseccomp's says? For every number and for arguments around every
//! value of a profile: Docker's and podman's default profiles, and profiles made up from a seed.
//!
//! Needs python3 and libseccomp.so.2 (Debian: python3-minimal, libseccomp2), and for the defaults
//! `/usr/share/containers/seccomp.json` (golang-github-containers-common) and Docker's `default.json`
//! (golang-github-docker-docker-dev). What is missing is said on standard error. `SC_SECCOMP_PROFILES`
//! names more profiles, separated by colons; `LIBSECCOMP` another libseccomp.

use super::abi::{self, Abi, X32_BIT};
use super::interpreter::{Data, Instruction, decode, run};
use super::table::TABLE;
use super::{Arch, LinuxSeccomp, draw_for};
use oci_spec::runtime::{LinuxSeccompArg, LinuxSyscall};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const ENOSYS: u32 = 0x0005_0026;

/// The machines that are compared: the native architecture and those that run beside it.
const MACHINES: [&[Arch]; 12] = {
    use Arch::*;
    [
        &[ScmpArchX86_64, ScmpArchX86, ScmpArchX32],
        &[ScmpArchX86_64],
        &[ScmpArchX86_64, ScmpArchX32],
        &[ScmpArchAarch64, ScmpArchArm],
        &[ScmpArchX86],
        &[ScmpArchRiscv64],
        &[ScmpArchPpc64le],
        &[ScmpArchS390x, ScmpArchS390],
        &[ScmpArchPpc64, ScmpArchPpc],
        &[ScmpArchMips64, ScmpArchMips, ScmpArchMips64n32],
        &[ScmpArchMipsel64, ScmpArchMipsel, ScmpArchMipsel64n32],
        &[ScmpArchParisc],
    ]
};

/// libseccomp, in a process of its own.
struct Libseccomp {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Libseccomp {
    /// `None`, said aloud, where this machine has not what it takes.
    fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/libseccomp-compile");
        let child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            skipped("python3 is missing (apt-get install python3-minimal)");
            return None;
        };
        let ask = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut started = Libseccomp {
            child,
            ask,
            answers,
        };
        let probe = json!({"resolve": {"archs": [], "names": []}});
        if started.try_ask(&probe).is_none() {
            skipped("libseccomp.so.2 is missing (apt-get install libseccomp2)");
            return None;
        }
        Some(started)
    }

    fn try_ask(&mut self, job: &Value) -> Option<Value> {
        writeln!(self.ask, "{job}").ok()?;
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn ask(&mut self, job: &Value) -> Value {
        self.try_ask(job)
            .unwrap_or_else(|| panic!("no answer to {job}"))
    }

    /// `None` where it refuses the profile, or crashes over it (2.5.4): several entries with
    /// conditions about one call can be too much for its tree.
    fn compile(
        &mut self,
        profile: &Value,
        native: Arch,
        optimize: u32,
    ) -> Option<Vec<Instruction>> {
        let job = json!({"seccomp": profile, "native": native.to_string(), "optimize": optimize});
        let Some(answer) = self.try_ask(&job) else {
            *self = Self::start().expect("it was there before");
            return None;
        };
        let one = |fields: &Value| {
            let field = |n: usize| fields[n].as_u64().expect("a number") as u32;
            Instruction {
                code: field(0) as u16,
                if_true: field(1) as u8,
                if_false: field(2) as u8,
                k: field(3),
            }
        };
        match answer["program"].as_array() {
            Some(program) => Some(program.iter().map(one).collect()),
            None => {
                let error = answer["error"].as_str().unwrap_or("");
                let known = ["File exists", "Invalid argument"];
                assert!(
                    known.iter().any(|end| error.ends_with(end)),
                    "{error}: {profile}"
                );
                None
            }
        }
    }

    /// Names whose numbers libseccomp knows otherwise on one of these architectures: it is older
    /// than our table, or it is the table's 31-bit s390, which is older than libseccomp.
    fn strangers(&mut self, archs: &[Arch]) -> HashSet<&'static str> {
        let names: Vec<&'static str> = TABLE.iter().map(|row| row.0).collect();
        let texts: Vec<String> = archs.iter().map(Arch::to_string).collect();
        let answer = self.ask(&json!({"resolve": {"archs": texts, "names": names}}));
        let mut strangers = HashSet::new();
        for (arch, text) in archs.iter().zip(&texts) {
            let abi = Abi::of(*arch, *arch);
            for (name, theirs) in names.iter().zip(answer[text].as_array().expect("numbers")) {
                let call = abi::find(name).expect("from the table");
                let ours = abi.number(&call).map_or(-1, i64::from);
                let theirs = theirs.as_i64().expect("a number");
                // Calls that can also be made through a gate have negative numbers there.
                let gated = abi.gate(&call).is_some() && (-299..=-100).contains(&theirs);
                if theirs.max(-1) != ours && !gated {
                    strangers.insert(*name);
                }
            }
        }
        strangers
    }
}

impl Drop for Libseccomp {
    fn drop(&mut self) {
        // It ends by itself at the end of its input; what it says then is of no interest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Past the test harness, which keeps what a passing test prints to itself.
fn say(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

fn skipped(why: &str) {
    say(&format!("SKIPPED: the comparison with libseccomp: {why}"));
}

/// What a profile of the engines' format (archMap, includes, excludes) comes to on a machine, for a
/// container with Docker's default capabilities.
fn for_machine(source: &Value, archs: &[Arch]) -> Value {
    const CAPS: [&str; 2] = ["CAP_SYS_CHROOT", "CAP_AUDIT_WRITE"];
    let go = |arch: Arch| match arch {
        Arch::ScmpArchX86_64 => "amd64",
        Arch::ScmpArchX86 => "x86",
        Arch::ScmpArchAarch64 => "arm64",
        Arch::ScmpArchPpc64le => "ppc64le",
        Arch::ScmpArchS390x => "s390x",
        Arch::ScmpArchRiscv64 => "riscv64",
        _ => "other",
    };
    let any = |filter: &Value, key: &str, mine: &[&str]| {
        let listed = filter[key].as_array().filter(|list| !list.is_empty())?;
        Some(
            listed
                .iter()
                .any(|item| mine.contains(&item.as_str().unwrap_or(""))),
        )
    };
    let machine = [go(archs[0])];
    let wanted = |group: &&Value| {
        let (includes, excludes) = (&group["includes"], &group["excludes"]);
        any(includes, "caps", &CAPS) != Some(false)
            && any(includes, "arches", &machine) != Some(false)
            && any(excludes, "caps", &CAPS) != Some(true)
            && any(excludes, "arches", &machine) != Some(true)
    };
    let mut profile = json!({"defaultAction": source["defaultAction"]});
    if source["defaultErrnoRet"].is_u64() {
        profile["defaultErrnoRet"] = source["defaultErrnoRet"].clone();
    }
    let groups = source["syscalls"].as_array().expect("syscalls");
    let groups: Vec<&Value> = groups.iter().filter(wanted).collect();
    profile["syscalls"] = json!(groups);
    profile["architectures"] = json!(archs);
    profile
}

/// The default profiles found on this machine, with their paths.
fn engines_profiles() -> Vec<(PathBuf, Value)> {
    let mut paths = vec![
        "/usr/share/containers/seccomp.json".to_owned(),
        "/usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json".to_owned(),
    ];
    let more = std::env::var("SC_SECCOMP_PROFILES").unwrap_or_default();
    paths.extend(
        more.split(':')
            .filter(|path| !path.is_empty())
            .map(str::to_owned),
    );
    let mut found = Vec::new();
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => found.push((
                PathBuf::from(path),
                serde_json::from_str(&text).expect("JSON"),
            )),
            Err(error) => skipped(&format!("profile {path}: {error}")),
        }
    }
    found
}

/// Without names that libseccomp numbers otherwise, so that the rest can be compared.
fn without(mut profile: Value, strangers: &HashSet<&str>) -> Value {
    for group in profile["syscalls"].as_array_mut().into_iter().flatten() {
        if let Some(names) = group["names"].as_array_mut() {
            names.retain(|name| !strangers.contains(name.as_str().unwrap_or("")));
        }
    }
    profile
}

/// The highest number of an ABI that the profile names, where runc puts its stub before
/// libseccomp's program. Kept apart from the compiler's own way of finding it.
fn stub(profile: &LinuxSeccomp, abi: &Abi) -> Option<u32> {
    use super::LinuxSeccompAction::{ScmpActAllow, ScmpActLog, ScmpActTrace};
    let open = [ScmpActAllow, ScmpActLog, ScmpActTrace];
    if open.contains(&profile.default_action()) || profile.default_errno_ret() == Some(38) {
        return None;
    }
    let groups = profile.syscalls().iter().flatten();
    let calls = groups
        .flat_map(|group| group.names())
        .filter_map(|name| abi::find(name));
    calls
        .filter_map(|call| abi.number(&call).max(abi.gate(&call).map(|gate| gate.0)))
        .max()
}

/// Numbers worth a try: all that exist, the holes between, and the edges.
fn numbers(audit: u32) -> Vec<u32> {
    let ranges = match audit {
        8 | 0x4000_0008 => vec![0..20, 3990..4600],
        0x8000_0008 | 0xc000_0008 => vec![0..20, 4990..5600],
        0xa000_0008 | 0xe000_0008 => vec![0..20, 5990..6600],
        0x4000_0028 => vec![0..600, 0x000e_ffff..0x000f_0010],
        0xc000_003e => vec![0..700, X32_BIT..X32_BIT + 700],
        _ => std::iter::once(0..700).collect(),
    };
    let edges = [
        X32_BIT - 1,
        X32_BIT,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX - 1,
        u32::MAX,
    ];
    ranges.into_iter().flatten().chain(edges).collect()
}

/// Argument lists around every value that the profile compares with, one argument at a time
/// beside others that match and others that do not.
fn arguments(profile: &LinuxSeccomp) -> Vec<[u64; 6]> {
    let groups = profile.syscalls().iter().flatten();
    let compared: Vec<_> = groups
        .flat_map(|group| group.args().iter().flatten())
        .collect();
    let mut matching = [0; 6];
    for arg in &compared {
        matching[arg.index()] = arg
            .value_two()
            .filter(|two| *two != 0)
            .unwrap_or(arg.value());
    }
    let mut lists = BTreeSet::from([[0; 6], [u64::MAX; 6], matching]);
    // socketcall and ipc by number, and a version in its upper half.
    lists.extend((1..26).map(|what| [what, matching[1], matching[2], 0, 0, 0]));
    lists.insert([0x1_0000_0003, 0, 0, 0, 0, 0]);
    lists.insert([0x0001_0003, 0, 0, 0, 0, 0]);
    for arg in compared {
        for base in [arg.value(), arg.value_two().unwrap_or(0)] {
            let flipped =
                [0, 1, 1 << 31, 1 << 32, 1 << 63, 0xffff_ffff << 32].map(|bits| base ^ bits);
            let near = [
                base.wrapping_sub(1),
                base.wrapping_add(1),
                !base,
                base & 0xffff_ffff,
            ];
            for value in flipped.into_iter().chain(near) {
                for others in [[0; 6], [u64::MAX; 6], matching] {
                    let mut list = others;
                    list[arg.index()] = value;
                    lists.insert(list);
                }
            }
        }
    }
    lists.into_iter().collect()
}

/// A group of the profile that speaks of a number, through a gate if its first argument must be such.
type Word<'a> = (&'a LinuxSyscall, Option<u64>);

/// Which groups speak of which number, in the profile's order.
fn words<'a>(profile: &'a LinuxSeccomp, abi: &Abi) -> HashMap<u32, Vec<Word<'a>>> {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut words: HashMap<u32, Vec<Word>> = HashMap::new();
    for group in profile.syscalls().iter().flatten() {
        if group.action().as_u32(group.errno_ret()) == default {
            continue;
        }
        for call in group.names().iter().filter_map(|name| abi::find(name)) {
            if let Some(number) = abi.number(&call) {
                words.entry(number).or_default().push((group, None));
            }
            if let Some((number, what)) = abi.gate(&call) {
                words.entry(number).or_default().push((group, Some(what)));
            }
        }
    }
    words
}

/// What the profile says about a call, read word by word; `words` are those of its number.
fn said(profile: &LinuxSeccomp, abi: &Abi, words: &[Word], data: &Data) -> u32 {
    use oci_spec::runtime::LinuxSeccompOperator::*;
    let width = if abi.wide { u64::MAX } else { u32::MAX.into() };
    let vain = |arg: &&LinuxSeccompArg| arg.op() == ScmpCmpMaskedEq && arg.value() & width == 0;
    let holds = |arg: &LinuxSeccompArg| {
        let (have, want) = (data.args[arg.index()] & width, arg.value() & width);
        match arg.op() {
            ScmpCmpNe => have != want,
            ScmpCmpLt => have < want,
            ScmpCmpLe => have <= want,
            ScmpCmpEq => have == want,
            ScmpCmpGe => have >= want,
            ScmpCmpGt => have > want,
            ScmpCmpMaskedEq => have & want == arg.value_two().unwrap_or(0) & want,
        }
    };
    let mut matched = None;
    for (group, gate) in words {
        let action = group.action().as_u32(group.errno_ret());
        let args: Vec<_> = group.args().iter().flatten().collect();
        let indexes: HashSet<_> = args.iter().map(|arg| arg.index()).collect();
        let together = indexes.len() == args.len();
        let settled = if together {
            args.iter().all(vain)
        } else {
            args.iter().any(vain)
        };
        if gate.is_none() && settled {
            return action;
        }
        let through = gate.is_none_or(|what| data.args[0] & width == what);
        let mut each = args
            .iter()
            .map(|arg| gate.is_some() && arg.index() == 0 || holds(arg));
        if through
            && (if together {
                each.all(|it| it)
            } else {
                each.any(|it| it)
            })
        {
            matched.get_or_insert(action);
        }
    }
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    matched.unwrap_or(default)
}

/// Counts of one comparison.
#[derive(Default, Debug)]
struct Counts {
    calls: usize,
    /// Calls where libseccomp's program does not say what the profile says. 2.5.4 and 2.6.1 go wrong
    /// in some profiles with few, conditional entries (a program that never loads the number, for
    /// one); no engine's profile is concerned.
    astray: usize,
    ours: usize,
    theirs: usize,
}

/// Compares verdict by verdict; panics at the first difference.
fn compare(
    profile: &Value,
    archs: &[Arch],
    ours: &[Instruction],
    theirs: &[Instruction],
) -> Counts {
    let parsed: LinuxSeccomp = serde_json::from_value(profile.clone()).expect("a profile");
    let abis: Vec<Abi> = archs.iter().map(|arch| Abi::of(*arch, archs[0])).collect();
    let lists = arguments(&parsed);
    let conditional: HashSet<u32> = {
        let groups = parsed.syscalls().iter().flatten();
        let with_args = groups.filter(|group| group.args().is_some());
        let calls = with_args
            .flat_map(|group| group.names())
            .filter_map(|name| abi::find(name));
        calls
            .flat_map(|call| abis.iter().filter_map(move |abi| abi.number(&call)))
            .collect()
    };
    let stubs: Vec<Option<u32>> = abis.iter().map(|abi| stub(&parsed, abi)).collect();
    let words: Vec<_> = abis.iter().map(|abi| words(&parsed, abi)).collect();
    let mut audits: BTreeSet<u32> = abis.iter().map(|abi| abi.audit).collect();
    audits.extend([0xc000_003e, 0x4000_0003, 0xdead_beef]);
    let mut counts = Counts::default();
    for audit in audits {
        let of = |x32: bool| {
            abis.iter()
                .position(|abi| abi.audit == audit && abi.is_x32() == x32)
        };
        let x86_64 = audit == 0xc000_003e;
        for nr in numbers(audit) {
            let at = of(x86_64 && nr >= X32_BIT);
            let abi = at.map(|at| &abis[at]);
            let newest = at.and_then(|at| stubs[at]);
            let words = at.and_then(|at| words[at].get(&nr));
            let gate = abi.is_some_and(|abi| {
                let mut gates = ["socketcall", "ipc"].into_iter().filter_map(abi::find);
                gates.any(|gate| abi.number(&gate) == Some(nr))
            });
            let tried = if gate || conditional.contains(&nr) {
                &lists[..]
            } else {
                &lists[..1]
            };
            for args in tried {
                let data = Data {
                    nr,
                    arch: audit,
                    args: *args,
                    big_endian: abis[0].big_endian,
                };
                let (our_verdict, our_steps) = run(ours, &data);
                let (mut their_verdict, their_steps) = run(theirs, &data);
                if newest.is_some_and(|newest| nr > newest) {
                    their_verdict = ENOSYS;
                }
                if let Some(abi) = abi {
                    let said = match newest {
                        Some(newest) if nr > newest => ENOSYS,
                        _ => said(&parsed, abi, words.map_or(&[], Vec::as_slice), &data),
                    };
                    assert_eq!(
                        our_verdict, said,
                        "not what is said: {data:x?} of {profile}"
                    );
                    if their_verdict != said {
                        counts.astray += 1;
                        continue;
                    }
                }
                assert_eq!(
                    our_verdict, their_verdict,
                    "ours {our_verdict:#x}, theirs {their_verdict:#x}: {data:x?} of {profile}"
                );
                counts.calls += 1;
                counts.ours += our_steps;
                counts.theirs += their_steps;
            }
        }
    }
    counts
}

fn ours(profile: &Value, native: Arch) -> Vec<Instruction> {
    let parsed: LinuxSeccomp = serde_json::from_value(profile.clone()).expect("a profile");
    let plan = draw_for(&parsed, native).unwrap_or_else(|error| panic!("{error:#}: {profile}"));
    decode(&plan.program)
}

#[test]
fn default_profiles_say_what_libseccomp_says() {
    let Some(mut libseccomp) = Libseccomp::start() else {
        return;
    };
    for (path, source) in engines_profiles() {
        for archs in MACHINES {
            let strangers = libseccomp.strangers(archs);
            let profile = without(for_machine(&source, archs), &strangers);
            let theirs = libseccomp.compile(&profile, archs[0], 2);
            let theirs = theirs.expect("engines use it");
            let ours = ours(&profile, archs[0]);
            let counts = compare(&profile, archs, &ours, &theirs);
            assert_eq!(counts.astray, 0, "{path:?} {archs:?}");
            assert!(
                counts.ours <= counts.theirs,
                "more instructions run than libseccomp's: {path:?} {archs:?} {counts:?}"
            );
        }
    }
}

/// xorshift64*: the same profiles on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn of<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn value(&mut self) -> u64 {
        let small = self.below(20) as u64;
        let high = (self.below(1 << 16) as u64) << 32;
        *self.of(&[
            small,
            small << 28,
            high,
            high | small,
            u64::MAX,
            1 << 31,
            1 << 32,
            1 << 63,
        ])
    }
}

/// A profile. The entries with conditions about one call have one action: libseccomp tries them in
/// an order of its own.
fn made_up(random: &mut Random, archs: &[Arch]) -> Value {
    const ACTIONS: [&str; 7] = [
        "KILL",
        "KILL_PROCESS",
        "TRAP",
        "ERRNO",
        "TRACE",
        "ALLOW",
        "LOG",
    ];
    const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let action = |random: &mut Random, group: &mut Value, key: &str, errno: &str| {
        let action = *random.of(&ACTIONS);
        group[key] = json!(format!("SCMP_ACT_{action}"));
        if matches!(action, "ERRNO" | "TRACE") && random.below(2) == 0 {
            group[errno] = json!(random.of(&[0, 1, 13, 38, 4095]));
        }
    };
    let tangled = random.below(4) == 0;
    let mut profile = json!({"architectures": archs});
    action(random, &mut profile, "defaultAction", "defaultErrnoRet");
    let mut groups = Vec::new();
    let mut conditional = HashSet::new();
    for _ in 0..random.below(12) {
        let mut group = json!({});
        action(random, &mut group, "action", "errnoRet");
        let most = *random.of(&[1, 3, 40, 200]);
        let names: Vec<&str> = (0..=random.below(most))
            .map(|_| random.of(&TABLE).0)
            .collect();
        group["names"] = json!(names);
        groups.push(group);
    }
    for _ in 0..random.below(8) {
        let name = random.of(&TABLE).0;
        // Through a gate, several calls with several actions come to one number.
        if matches!(name, "socketcall" | "ipc") || !conditional.insert(name) {
            continue;
        }
        let mut group = json!({"names": [name]});
        action(random, &mut group, "action", "errnoRet");
        for _ in 0..=if tangled { random.below(3) } else { 0 } {
            let mut one = group.clone();
            let arg = |random: &mut Random| {
                let op = format!("SCMP_CMP_{}", random.of(&OPERATORS));
                json!({"index": random.below(6), "value": random.value(), "valueTwo": random.value(), "op": op})
            };
            one["args"] = (0..=random.below(3)).map(|_| arg(random)).collect();
            groups.push(one);
        }
    }
    // Shuffled, as an entry without conditions may come before and after one with them.
    for n in (1..groups.len()).rev() {
        groups.swap(n, random.below(n + 1));
    }
    profile["syscalls"] = json!(groups);
    profile
}

#[test]
fn made_up_profiles_say_what_libseccomp_says() {
    let Some(mut libseccomp) = Libseccomp::start() else {
        return;
    };
    let rounds = std::env::var("SC_SECCOMP_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let mut random = Random(0x5ec_c037);
    let (mut calls, mut refused, mut astray) = (0, 0, 0);
    for archs in MACHINES {
        let strangers = libseccomp.strangers(archs);
        for _ in 0..rounds {
            let profile = without(made_up(&mut random, archs), &strangers);
            // The tree of 2.5.4 breaks down where an architecture has few calls.
            let groups = profile["syscalls"].as_array().expect("syscalls").iter();
            let names = groups.map(|group| group["names"].as_array().map_or(0, Vec::len));
            let optimize = if names.sum::<usize>() > 150 { 2 } else { 1 };
            let ours = ours(&profile, archs[0]);
            let theirs = libseccomp.compile(&profile, archs[0], optimize);
            refused += usize::from(theirs.is_none());
            // Without theirs, ours must still say what the profile says.
            let counts = compare(&profile, archs, &ours, theirs.as_ref().unwrap_or(&ours));
            calls += counts.calls;
            astray += counts.astray;
        }
    }
    say(&format!(
        "libseccomp: {calls} calls compared; it refused or crashed over {refused} of the profiles made up, and took {astray} \
         calls otherwise than their profile says"
    ));
    assert!(
        refused * 2 < rounds * MACHINES.len(),
        "too many refused: {refused}"
    );
}

/// Instructions run per call, by x86_64 number: the mean, and the most.
fn steps(program: &[Instruction]) -> (f64, usize) {
    let calls = TABLE.iter().filter_map(|row| abi::find(row.0));
    let x86_64 = Abi::of(Arch::ScmpArchX86_64, Arch::ScmpArchX86_64);
    let numbers: Vec<u32> = calls.filter_map(|call| x86_64.number(&call)).collect();
    let steps = |nr: &u32| {
        let data = Data {
            nr: *nr,
            arch: x86_64.audit,
            args: [0; 6],
            big_endian: false,
        };
        run(program, &data).1
    };
    let all: Vec<usize> = numbers.iter().map(steps).collect();
    let sum: usize = all.iter().sum();
    (
        sum as f64 / all.len() as f64,
        all.into_iter().max().unwrap_or(0),
    )
}

/// The median of 31 times, in microseconds.
fn median(mut act: impl FnMut()) -> u128 {
    let one = |_| {
        let begin = std::time::Instant::now();
        act();
        begin.elapsed().as_micros()
    };
    let mut times: Vec<u128> = (0..31).map(one).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn encode(program: &[Instruction]) -> Vec<u64> {
    let one = |i: &Instruction| {
        let ([a, b], [e, f, g, h]) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
        u64::from_ne_bytes([a, b, i.if_true, i.if_false, e, f, g, h])
    };
    program.iter().map(one).collect()
}

/// seccomp(2) of the program, each on a thread of its own.
fn load_time(program: &[u64]) -> u128 {
    let one = |_| {
        let load = || {
            nix::sys::prctl::set_no_new_privs().expect("no_new_privs");
            let begin = std::time::Instant::now();
            crate::sys::seccomp::load(program, 0).expect("seccomp");
            begin.elapsed().as_micros()
        };
        std::thread::scope(|scope| scope.spawn(load).join().expect("a thread"))
    };
    let mut times: Vec<u128> = (0..31).map(one).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// cargo test --release --lib figures -- --ignored --nocapture
#[test]
#[ignore = "figures for people, not a test"]
fn figures() {
    let Some(mut libseccomp) = Libseccomp::start() else {
        return;
    };
    for (path, source) in engines_profiles() {
        for archs in [MACHINES[0], MACHINES[1]] {
            let strangers = libseccomp.strangers(archs);
            let profile = without(for_machine(&source, archs), &strangers);
            say(&format!("{} {archs:?}", path.display()));
            let line = |name: &str, program: &[Instruction], compile: u128| {
                let (mean, most) = steps(program);
                let load = load_time(&encode(program));
                let length = program.len();
                say(&format!(
                    "  {name:10} {length:5} instructions, {mean:6.1} run per call, {most:4} at most; \
                     compiled in {compile:6} us, loaded in {load:5} us"
                ));
            };
            let parsed: LinuxSeccomp = serde_json::from_value(profile.clone()).expect("a profile");
            let compile = median(|| drop(draw_for(&parsed, archs[0])));
            line("ours", &ours(&profile, archs[0]), compile);
            for (name, optimize) in [("its tree", 2), ("its chain", 1)] {
                let job = json!({"seccomp": profile, "native": archs[0].to_string(), "optimize": optimize});
                let micros = libseccomp.ask(&job)["micros"].as_u64().unwrap_or(0);
                let theirs = libseccomp
                    .compile(&profile, archs[0], optimize)
                    .expect("a program");
                line(name, &theirs, micros.into());
            }
        }
    }
}
