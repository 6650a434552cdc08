//! The built `sc-image` with real registries: Debian's docker-registry, filled by skopeo and by ourselves.
//!
//!     cargo test --test registry                  # the program cargo built
//!     SC_IMAGE=PATH cargo test --test registry -- faults::
//!
//! # Layout
//!
//! - [`place`]   one test's own corner: directory, store, home, and `sc-image` run in it
//! - [`oci`]     images to try, made as an OCI layout
//! - [`daemon`]  docker-registry as a child, with the authorization and TLS that a test asks for
//! - [`wire`]    a TCP proxy that counts, drops, delays and corrupts
//! - [`server`]  a small HTTP server: the token server, and registries that are hostile
//!
//! Each other file is one subject. A test that cannot run here is counted as ignored, with its reason.

/// `tests! { a_sentence ["program"], … }` makes the table of a file.
macro_rules! tests {
    ($($name:ident [$($need:expr),* $(,)?]),+ $(,)?) => {
        pub const TESTS: &[$crate::Test] = &[$(
            $crate::Test { name: stringify!($name), needs: &[$($need),*], body: $name }
        ),+];
    };
}

mod auth;
mod daemon;
mod faults;
mod hostile;
mod oci;
mod place;
mod pull;
mod push;
mod server;
mod wire;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{SigHandler, Signal};
use place::Place;
use std::process::ExitCode;

/// A test: a sentence, the programs it needs, and what it does.
pub struct Test {
    pub name: &'static str,
    pub needs: &'static [&'static str],
    pub body: fn(&Place) -> anyhow::Result<()>,
}

/// Which Debian package a program is in; `::1` is no program, but loopback's other address.
const PACKAGES: &[(&str, &str)] = &[
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("openssl", "openssl"),
    ("htpasswd", "apache2-utils"),
    ("unshare", "util-linux"),
    ("nginx", "nginx-light"),
    ("::1", "IPv6"),
];

const SUBJECTS: &[(&str, &[Test])] = &[
    ("pull", pull::TESTS),
    ("push", push::TESTS),
    ("auth", auth::TESTS),
    ("faults", faults::TESTS),
    ("hostile", hostile::TESTS),
];

fn main() -> ExitCode {
    // A shell's `&` has SIGINT ignored; sc-image keeps it so, and could not be interrupted.
    // SAFETY: SIG_DFL is no handler of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGINT, SigHandler::SigDfl) }.expect("sigaction");
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for (subject, tests) in SUBJECTS {
        for test in *tests {
            let lacking: Vec<&str> = test
                .needs
                .iter()
                .copied()
                .filter(|need| !here(need))
                .collect();
            if !lacking.is_empty() && !arguments.list {
                let packages = PACKAGES
                    .iter()
                    .filter(|(program, _)| lacking.contains(program));
                let packages: Vec<&str> = packages.map(|(_, package)| *package).collect();
                eprintln!(
                    "ignored: {subject}::{}: needs {}",
                    test.name,
                    packages.join(", ")
                );
            }
            let name = format!("{subject}::{}", test.name);
            let trial = Trial::test(name.clone(), move || run(&name, test.body));
            trials.push(trial.with_ignored_flag(!lacking.is_empty()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(name: &str, body: fn(&Place) -> anyhow::Result<()>) -> Result<(), Failed> {
    let place = Place::new(name)?;
    body(&place).map_err(|error| Failed::from(format!("{error:#}")))
}

fn here(program: &str) -> bool {
    if program == "::1" {
        return std::net::TcpListener::bind("[::1]:0").is_ok();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}
