//! The built `sc-runtime` on real bundles, as root.
//!
//!     cargo test --test integration                       # the program cargo built
//!     SC_RUNTIME=/usr/sbin/runc cargo test --test integration   # another runtime as a yardstick
//!     cargo test --test integration -- mounts::           # one file
//!
//! The test program is self-contained: it and the runtime can be copied into a guest. `SC_RUNTIME`
//! says where the runtime is, `SC_IN_GUEST=1` that the machine is slow. `SC_THOROUGH=1` kills the
//! runtime at every system call instead of some, `SC_BEYOND=1` also runs what a stand-in is known to
//! fail. `SC_WITHOUT=openat2` (or another call, or several) is a kernel without it: then most tests
//! fail, but nothing may be left behind that the test has not made itself.
//!
//! # Layout
//!
//! `harness/` is the workshop; each other file is one subject of the contract. A test that cannot
//! run here is counted as ignored, and its reason is printed at the end.

#[macro_use]
mod harness;
mod bad_input;
mod cgroups;
mod checkpoint;
mod cli_contract;
mod control;
mod crash;
mod devices;
mod differential;
mod escapes;
mod exec;
mod hooks;
mod idmap;
mod labels;
mod lifecycle;
mod mounts;
mod namespaces;
mod notify;
mod old_kernels;
mod process;
mod races;
mod rootless;
mod seccomp;
mod systemd;
mod terminal;

use harness::{Place, Test, machine};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;

/// The subjects, in reading order.
const SUBJECTS: &[(&str, &[Test])] = &[
    ("lifecycle", lifecycle::TESTS),
    ("notify", notify::TESTS),
    ("cli_contract", cli_contract::TESTS),
    ("process", process::TESTS),
    ("terminal", terminal::TESTS),
    ("checkpoint", checkpoint::TESTS),
    ("mounts", mounts::TESTS),
    ("idmap", idmap::TESTS),
    ("devices", devices::TESTS),
    ("namespaces", namespaces::TESTS),
    ("seccomp", seccomp::TESTS),
    ("labels", labels::TESTS),
    ("cgroups", cgroups::TESTS),
    ("control", control::TESTS),
    ("exec", exec::TESTS),
    ("systemd", systemd::TESTS),
    ("rootless", rootless::TESTS),
    ("hooks", hooks::TESTS),
    ("bad_input", bad_input::TESTS),
    ("escapes", escapes::TESTS),
    ("old_kernels", old_kernels::TESTS),
    ("differential", differential::TESTS),
    ("races", races::TESTS),
    ("crash", crash::TESTS),
];

/// Reason -> how many tests were not run for it.
static IGNORED: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args[0].rsplit('/').next() == Some("probe") {
        harness::probe::main(&args);
    }
    let arguments = Arguments::from_args();
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "the integration tests make containers and need root: sudo -E {}",
            args.join(" ")
        );
        return ExitCode::FAILURE;
    }
    let machine = match harness::machine::enter() {
        Ok(machine) => machine,
        Err(e) => {
            eprintln!("integration: {e:#}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!(
        "testing {} ({}); cgroup2 controllers: {}",
        machine.runtime.display(),
        machine.flavour,
        machine.controllers.join(" ")
    );
    std::panic::set_hook(Box::new(|info| {
        PANICKED_AT.set(
            info.location()
                .map(|at| format!("{}:{}: ", at.file(), at.line()))
                .unwrap_or_default(),
        );
    }));
    let conclusion = libtest_mimic::run(&arguments, trials());
    machine.leave();
    for (reason, names) in IGNORED.lock().unwrap().iter() {
        eprintln!("ignored: {reason}: {}", names.join(", "));
    }
    conclusion.exit_code()
}

/// `subject::a_sentence`.
pub fn has_test(name: &str) -> bool {
    let (subject, test) = name.split_once("::").unwrap_or_default();
    let tests = SUBJECTS.iter().find(|(name, _)| *name == subject);
    tests.is_some_and(|(_, tests)| tests.iter().any(|t| t.name == test))
}

thread_local! {
    /// Where the present test's assertion failed: told with its message, not into the midst of the list.
    static PANICKED_AT: Cell<String> = const { Cell::new(String::new()) };
}

fn trials() -> Vec<Trial> {
    let all = SUBJECTS
        .iter()
        .flat_map(|(subject, tests)| tests.iter().map(move |test| (subject, test)));
    all.map(|(subject, test)| {
        let name = format!("{subject}::{}", test.name);
        Trial::ignorable_test(name.clone(), move || run(&name, test))
    })
    .collect()
}

fn run(name: &str, test: &Test) -> Result<Completion, Failed> {
    if let Some(reason) = test.needs.iter().find_map(|need| machine().lacks(*need)) {
        IGNORED
            .lock()
            .unwrap()
            .entry(reason.clone())
            .or_default()
            .push(name.to_string());
        return Ok(Completion::ignored_with(reason));
    }
    let place = Place::new().map_err(|e| format!("{e:#}"))?;
    let result = catch_unwind(AssertUnwindSafe(|| (test.body)(&place)));
    let mut trouble = match result {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(e)) => vec![format!("{e:#}")],
        Err(panic) => vec![said(&*panic)],
    };
    trouble.extend(
        place
            .finish()
            .iter()
            .map(|thing| format!("left behind: {thing}")),
    );
    if trouble.is_empty() {
        Ok(Completion::Completed)
    } else {
        Err(trouble.join("\n").into())
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text
        .or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    PANICKED_AT.take() + text
}
