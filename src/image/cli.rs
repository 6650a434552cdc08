//! What was typed: verbs and options, and the only place that prints an error.
//!
//! One verb, one file in [`commands`](super::commands): its options are a struct there, its work the
//! method `run`. Exit status: 0, or 1 with one line on stderr.

use super::commands::*;
use super::show::printable;
use super::store::Store;
use crate::sys;
use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Images: from a registry or a file into a store, and from the store into bundles.
#[derive(Debug, Parser)]
#[command(
    name = "sc-image",
    version,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Typed {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, clap::Args)]
pub struct Global {
    /// Where images are kept [/var/lib/sc; without root $XDG_DATA_HOME/sc]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl Global {
    pub fn root(&self) -> Result<PathBuf> {
        match &self.root {
            Some(root) => Ok(root.clone()),
            None => Store::default_root(),
        }
    }

    /// The store, with its shared lock.
    pub fn store(&self) -> Result<Store> {
        Store::open(&self.root()?)
    }
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Commit(commit::Commit),
    Fsck(fsck::Fsck),
    Gc(gc::Gc),
    History(history::History),
    Import(import::Import),
    Inspect(inspect::Inspect),
    List(list::List),
    Load(load::Load),
    Login(login::Login),
    Logout(login::Logout),
    Prune(prune::Prune),
    Pull(pull::Pull),
    Push(push::Push),
    Rm(rm::Rm),
    Save(save::Save),
    Tag(tag::Tag),
    #[command(hide = true)]
    Tar(tar::Tar),
    Unpack(unpack::Unpack),
    #[command(hide = true)]
    Untar(untar::Untar),
}

impl Verb {
    fn run(&self, global: &Global) -> Result<()> {
        match self {
            Verb::Commit(verb) => verb.run(global),
            Verb::Fsck(verb) => verb.run(global),
            Verb::Gc(verb) => verb.run(global),
            Verb::History(verb) => verb.run(global),
            Verb::Import(verb) => verb.run(global),
            Verb::Inspect(verb) => verb.run(global),
            Verb::List(verb) => verb.run(global),
            Verb::Load(verb) => verb.run(global),
            Verb::Login(verb) => verb.run(global),
            Verb::Logout(verb) => verb.run(global),
            Verb::Prune(verb) => verb.run(global),
            Verb::Pull(verb) => verb.run(global),
            Verb::Push(verb) => verb.run(global),
            Verb::Rm(verb) => verb.run(global),
            Verb::Save(verb) => verb.run(global),
            Verb::Tag(verb) => verb.run(global),
            Verb::Tar(verb) => verb.run(),
            Verb::Unpack(verb) => verb.run(global),
            Verb::Untar(verb) => verb.run(),
        }
    }
}

/// From argv to the exit status.
pub fn main(argv: impl Iterator<Item = OsString>) -> ExitCode {
    if let Err(e) = sys::process::keep_zombies(true) {
        eprintln!("sc-image: {e}");
        return ExitCode::FAILURE;
    }
    // Modes are what is said where a file is made.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let typed = match Typed::try_parse_from(argv) {
        Ok(typed) => typed,
        Err(e) => return refuse(&e),
    };
    match typed.verb.run(&typed.global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sc-image: {}", printable(&format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Help goes to stdout and is no failure; clap's own status for wrong usage is 2, docker's 1.
fn refuse(e: &clap::Error) -> ExitCode {
    // When the stream is closed, nobody is left to be told.
    let _ = e.print();
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_table_of_verbs_is_sound() {
        Typed::command().debug_assert();
    }
}
