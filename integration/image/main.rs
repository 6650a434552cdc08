//! The built `sc-image` on real archives, layouts and file systems, as root.
//!
//!     cargo test --test image                 # the program cargo built
//!     SC_IMAGE=…/sc-image cargo test --test image -- hostile::
//!
//! Everything is made in a tmpfs of a mount namespace of our own. umoci, skopeo, buildah, podman and
//! dockerd are asked where they are installed; a test that cannot run here is counted as ignored, with its reason.
//!
//! # Layout
//! - [`place`]: one test's directory and store, and calls of programs there.
//! - [`layout`]: images written by hand, entry by entry.
//! - every other file is one subject.

mod archives;
mod bundles;
mod docker;
mod hostile;
mod layout;
mod lists;
mod lives;
mod network;
mod place;
mod rootless;
mod rootless_network;
mod sc;
mod sc_files;
mod sc_options;
mod sc_pull;
mod sc_rootless;
mod sc_userns;
mod sc_volumes;
mod store;
mod storm;
mod streams;
mod unpacking;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use place::{Place, Test};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

const SUBJECTS: &[(&str, &[Test])] = &[
    ("unpacking", unpacking::TESTS),
    ("hostile", hostile::TESTS),
    ("archives", archives::TESTS),
    ("docker", docker::TESTS),
    ("store", store::TESTS),
    ("bundles", bundles::TESTS),
    ("rootless", rootless::TESTS),
    ("sc", sc::TESTS),
    ("network", network::TESTS),
    ("sc_files", sc_files::TESTS),
    ("sc_options", sc_options::TESTS),
    ("sc_pull", sc_pull::TESTS),
    ("sc_rootless", sc_rootless::TESTS),
    ("sc_userns", sc_userns::TESTS),
    ("rootless_network", rootless_network::TESTS),
    ("sc_volumes", sc_volumes::TESTS),
    ("lives", lives::TESTS),
    ("streams", streams::TESTS),
    ("lists", lists::TESTS),
    ("storm", storm::TESTS),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the tests of sc-image mount, and give files to other users: they need root");
        return ExitCode::FAILURE;
    }
    if let Err(e) = place::enter() {
        eprintln!("image: {e:#}");
        return ExitCode::FAILURE;
    }
    let all = SUBJECTS
        .iter()
        .flat_map(|(subject, tests)| tests.iter().map(move |test| (subject, test)));
    let trials = all.map(|(subject, test)| {
        Trial::ignorable_test(format!("{subject}::{}", test.name), move || run(test))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    place::leave();
    conclusion.exit_code()
}

fn run(test: &Test) -> Result<Completion, Failed> {
    if let Some(missing) = test.needs.iter().find_map(|name| place::missing(name)) {
        return Ok(Completion::ignored_with(missing));
    }
    let place = Place::new().map_err(|e| format!("{e:#}"))?;
    match catch_unwind(AssertUnwindSafe(|| (test.body)(&place))) {
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(e)) => match e.downcast_ref::<place::CannotRun>() {
            Some(why) => Ok(Completion::ignored_with(why.to_string())),
            None => Err(format!("{e:#}").into()),
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.unwrap_or_else(|| "a panic".to_owned()).into())
        }
    }
}
