//! What is fuzzed: everything that reads text or bytes that the programs did not write.
//!
//! A target takes any bytes and returns; a panic is a finding, and so is time or memory beyond what
//! scripts/fuzz allows. A new one is a line in [`ALL`] and a directory of seeds, `fuzz/corpus/NAME/`.

use oci_spec::runtime::Spec;
use procfs::FromRead;
use serde_json::{Value, json};
use simplecontainer::image::bundle;
use simplecontainer::image::compression::decode;
use simplecontainer::image::config::ImageConfig;
use simplecontainer::image::manifest::Document;
use simplecontainer::image::reference::Reference;
use simplecontainer::image::registry::challenge;
use simplecontainer::image::registry::url::Url;
use simplecontainer::image::{layer, tape::Tape};
use simplecontainer::runtime::container::{Record, check_id};
use simplecontainer::runtime::plan::unit::Manager;
use simplecontainer::runtime::plan::{self, Ask, Host};
use simplecontainer::runtime::{config, dbus, duration, pid, signal, size, stats, validate};
use simplecontainer::users;
use std::fmt::Display;

#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const ALL: &[Target] = &[
    target("config", a_config),
    target("process", a_process),
    target("seccomp", a_seccomp_profile),
    target("update", an_update),
    target("record", a_record),
    target("kernel", files_of_the_kernel),
    target("dbus", a_message_of_systemd),
    target("words", words),
    target("layer", a_layer),
    target("image", documents_of_an_image),
    target("registry", words_of_a_registry),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Written out, as a user would read it.
fn say(message: impl Display) {
    assert!(!format!("{message:#}").is_empty());
}

/// Root, an ordinary user, and root with systemd's cgroups.
fn callers() -> [Ask; 3] {
    let root = Ask {
        id: "fuzz".to_owned(),
        bundle: "/bundle".into(),
        no_pivot: false,
        no_new_keyring: false,
        systemd_cgroup: false,
        preserve_fds: 0,
        listen_fds: None,
        notify: None,
        host: Host {
            euid: 0,
            egid: 0,
            rootless: false,
            systemd: Manager::System,
            setgroups_denied: false,
            last_cap: 40,
            cgroup_mount: "/sys/fs/cgroup".into(),
            own_cgroup: "/".into(),
        },
    };
    let mut user = root.clone();
    (user.host.euid, user.host.egid, user.host.rootless) = (1000, 1000, true);
    user.host.systemd = Manager::User;
    user.host.own_cgroup = "/user.slice/user-1000.slice/shell.scope".into();
    let mut systemd = root.clone();
    systemd.systemd_cgroup = true;
    [root, user, systemd]
}

/// config.json → validate → plan.
fn a_config(input: &[u8]) {
    match config::parse(input) {
        Ok((spec, warnings)) => {
            warnings.iter().for_each(say);
            callers().iter().for_each(|ask| drawn(&spec, ask));
        }
        Err(e) => say(e),
    }
}

fn drawn(spec: &Spec, ask: &Ask) {
    let plan = validate::check(spec, ask).and_then(|odd| {
        odd.iter().for_each(say);
        plan::draw(spec, ask)
    });
    match plan {
        Ok(plan) => {
            plan.warnings.iter().for_each(say);
            plan::show(&plan);
            if let Some(seccomp) = &plan.init.seccomp {
                bpf::check(&seccomp.program);
            }
        }
        Err(e) => say(e),
    }
}

/// `exec --process`.
fn a_process(input: &[u8]) {
    let (process, warnings) = match config::parse_process(input) {
        Ok(read) => read,
        Err(e) => return say(e),
    };
    warnings.iter().for_each(say);
    let (spec, ask) = (Spec::default(), &callers()[0]);
    let plan = validate::check_process(&process, &spec, ask).and_then(|odd| {
        odd.iter().for_each(say);
        plan::exec::draw(&spec, &process, ask, false)
    });
    match plan {
        Ok(drawn) => drawn.plan.warnings.iter().for_each(say),
        Err(e) => say(e),
    }
}

/// `linux.seccomp` as JSON, or, so that a mutated byte is another profile and not a mistake in
/// spelling, bytes that choose one.
fn a_seccomp_profile(input: &[u8]) {
    let profile = match input.first() {
        Some(b'{') => serde_json::from_slice(input),
        _ => Ok(Dice(input).profile()),
    };
    let Ok(profile) = profile else { return };
    let text = json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/" },
        "linux": { "seccomp": profile },
    });
    let Ok((spec, _)) = config::parse(text.to_string().as_bytes()) else {
        return;
    };
    match plan::seccomp::draw(&spec) {
        Ok(Some(plan)) => {
            plan.warnings.iter().for_each(say);
            bpf::check(&plan.program);
        }
        Ok(None) => panic!("a profile, and no program"),
        Err(e) => say(e),
    }
}

/// Bytes as a row of choices; when they run out, the first of each.
struct Dice<'i>(&'i [u8]);

impl Dice<'_> {
    fn roll(&mut self) -> usize {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                usize::from(*first)
            }
            None => 0,
        }
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.roll() % from.len()]
    }

    /// Boundaries more often than not.
    fn number(&mut self) -> u64 {
        let shift = self.roll() % 64;
        match self.roll() {
            0..100 => (1 << shift) - 1,
            100..200 => 1 << shift,
            other => other as u64,
        }
    }

    fn profile(&mut self) -> Value {
        let mut profile = json!({ "defaultAction": self.pick(&ACTIONS), "listenerPath": "/s" });
        if self.roll() % 2 == 1 {
            profile["defaultErrnoRet"] = self.roll().into();
        }
        let architectures = (0..self.roll() % 5).map(|_| self.pick(&ARCHITECTURES));
        profile["architectures"] = architectures.collect();
        let mut entries = Vec::new();
        while !self.0.is_empty() && entries.len() < 200 {
            entries.push(self.entry());
        }
        profile["syscalls"] = entries.into();
        profile
    }

    fn entry(&mut self) -> Value {
        let names: Value = (0..1 + self.roll() % 8)
            .map(|_| self.pick(&NAMES))
            .collect();
        let mut entry = json!({ "names": names, "action": self.pick(&ACTIONS) });
        if self.roll() % 4 == 1 {
            entry["errnoRet"] = self.roll().into();
        }
        let conditions = (0..self.roll() % 4).map(|_| {
            let (index, op) = (self.roll() % 7, self.pick(&OPERATORS));
            json!({ "index": index, "op": op, "value": self.number(), "valueTwo": self.number() })
        });
        entry["args"] = conditions.collect();
        entry
    }
}

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
];

const ARCHITECTURES: [&str; 6] = [
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_S390X",
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

/// First and last, some in the middle, the roundabout ones, and one that nobody knows.
const NAMES: [&str; 24] = [
    "read",
    "write",
    "open",
    "close",
    "mmap",
    "ioctl",
    "socket",
    "connect",
    "socketcall",
    "shmat",
    "semop",
    "ipc",
    "clone",
    "execve",
    "kill",
    "personality",
    "arch_prctl",
    "openat",
    "seccomp",
    "clone3",
    "openat2",
    "_llseek",
    "rt_sigreturn",
    "no_such_call",
];

/// `update --resources`: the resources, and after a NUL byte each, cpu.max and the recorded config.json.
fn an_update(input: &[u8]) {
    let mut parts = input.splitn(3, |b| *b == 0);
    let json = |part: Option<&[u8]>| serde_json::from_slice(part.unwrap_or(b"{}"));
    let given = json(parts.next());
    let cpu_max = parts.next().map(String::from_utf8_lossy);
    let (Ok(given), Ok(recorded)) = (given, json(parts.next())) else {
        return;
    };
    match plan::update::draw(recorded, given, cpu_max.as_deref()) {
        Ok(update) => {
            if let Err(e) = plan::unit::limits(&update.writes) {
                say(e);
            }
        }
        Err(e) => say(e),
    }
}

/// A container's state.json, which a full disk or a person may have changed.
fn a_record(input: &[u8]) {
    match Record::parse(input) {
        Ok(record) => drop(record.hook_state(1, "created")),
        Err(e) => say(e),
    }
}

/// One text as each file of a cgroup, as a process's stat, and as mountinfo: a container's process
/// names itself, and mount points may be called anything.
fn files_of_the_kernel(input: &[u8]) {
    pid::parse(input);
    let text = String::from_utf8_lossy(input);
    let sizes = stats::huge_page_sizes(text.lines().map(str::to_owned));
    let all = stats::of(|_| Some(text.to_string()), &sizes, || 1);
    serde_json::to_string(&all).expect("statistics as JSON");
    let _ = procfs::process::MountInfos::from_read(input); // its errors are the library's own
}

fn a_message_of_systemd(input: &[u8]) {
    let mut bytes = input.to_vec();
    while let Ok(Some(message)) = dbus::take(&mut bytes) {
        let _ = message.arguments();
        let _ = message.answer();
    }
}

/// Words of the command line and of annotations, one a line.
fn words(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for word in text.split('\n').take(100) {
        let results = [
            size::bytes(word).map(drop),
            duration::parse(word).map(drop),
            signal::number(word).map(drop),
            check_id(word),
            plan::variant::parse(word).map(drop),
            plan::unit::expand(word).map(drop),
        ];
        results.into_iter().filter_map(Result::err).for_each(say);
    }
}

/// Names of images, and what a registry's headers say. What parses is printed to the same again.
fn words_of_a_registry(input: &[u8]) {
    let base = Url::parse("https://r.example:5000/v2/a/blobs/").expect("a URL");
    let text = String::from_utf8_lossy(input);
    for word in text.split('\n').take(100) {
        match word.parse::<Reference>() {
            Ok(name) => assert_eq!(name.to_string().parse::<Reference>().ok(), Some(name)),
            Err(why) => say(why),
        }
        challenge::parse(word);
        match base.join(word) {
            Ok(url) => say(url.with_query("digest", word)),
            Err(why) => say(why),
        }
    }
}

/// The kernel's checker of classic BPF programs, with what seccomp(2) adds to it (net/core/filter.c,
/// kernel/seccomp.c).
mod bpf {
    /// Panics where seccomp(2) would refuse the program.
    pub fn check(program: &[u64]) {
        assert!(!program.is_empty(), "no instructions");
        assert!(program.len() <= 4096, "{} instructions", program.len());
        for (at, word) in program.iter().enumerate() {
            let [a, b, if_true, if_false, e, f, g, h] = word.to_ne_bytes();
            let code = u16::from_ne_bytes([a, b]);
            let k = u32::from_ne_bytes([e, f, g, h]);
            let left = program.len() - at - 1;
            let good = match code {
                // Loads from struct seccomp_data, 64 bytes.
                0x20 => k < 64 && k.is_multiple_of(4),
                // The length, and constants.
                0x80 | 0x81 | 0x00 | 0x01 => true,
                // The memory's 16 words.
                0x60 | 0x61 | 0x02 | 0x03 => k < 16,
                // Arithmetic. Division by 0 and shifts by more than a word are refused.
                0x34 => k != 0,
                0x64 | 0x74 => k < 32,
                0x04 | 0x14 | 0x24 | 0x44 | 0x54 | 0xa4 => true,
                0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0x84 | 0xac => true,
                0x07 | 0x87 => true,
                // Jumps go forward, and stay inside.
                0x05 => (k as usize) < left,
                0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                    usize::from(if_true) < left && usize::from(if_false) < left
                }
                0x06 | 0x16 => true,
                _ => false,
            };
            assert!(good, "instruction {at} of {}: {word:#018x}", program.len());
        }
        let last = program[program.len() - 1].to_ne_bytes();
        let code = u16::from_ne_bytes([last[0], last[1]]);
        assert!(
            code == 0x06 || code == 0x16,
            "the last instruction does not return"
        );
    }
}

/// A layer's stream, as it comes and decompressed: every entry read and judged.
fn a_layer(input: &[u8]) {
    entries(input);
    match decode(input) {
        Ok(stream) => entries(std::io::BufReader::new(std::io::Read::take(
            stream,
            1 << 22,
        ))),
        Err(e) => say(e),
    }
}

fn entries(stream: impl std::io::BufRead) {
    let mut tape = Tape::new(stream);
    loop {
        match tape.next_entry() {
            Ok(Some(entry)) => {
                if let Err(e) = layer::act(&entry.path).and_then(|_| layer::inside(&entry.link)) {
                    say(e);
                }
                while let Ok(content) = tape.content()
                    && !content.is_empty()
                {
                    let n = content.len();
                    tape.consume(n);
                }
            }
            Ok(None) => return tape.finish().map(drop).unwrap_or_else(say),
            Err(e) => return say(e),
        }
    }
}

/// A manifest, an index, an image's config and the config.json made of it, /etc/passwd and /etc/group.
fn documents_of_an_image(input: &[u8]) {
    if let Err(e) = Document::parse(input, None) {
        say(e);
    }
    let text = String::from_utf8_lossy(input);
    let ask = bundle::Ask {
        passwd: text.to_string(),
        group: text.to_string(),
        ..bundle::Ask::default()
    };
    match ImageConfig::parse(input).and_then(|config| bundle::make(&config, &ask)) {
        Ok(made) => made.warnings.iter().for_each(say),
        Err(e) => say(e),
    }
    for name in text.lines().take(8) {
        if let Err(e) = users::resolve(name, &text, &text) {
            say(e);
        }
    }
}
