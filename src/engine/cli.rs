//! What was typed: verbs and options, and the only place that prints an error.
//!
//! Exit status as docker's: `run`, `start -a` and `exec` give the process's own, 125 when sc failed, 126 and 127
//! when the program cannot be executed or is not there; all else 0, or 1 with one line on stderr.

use super::commands::*;
use super::programs;
use super::record::Home;
use super::rootless;
use crate::sys;
use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Containers without a daemon
#[derive(Debug, Parser)]
#[command(
    name = "sc",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "`sc container VERB` is `sc VERB`; `sc image --help` lists what is done with images."
)]
struct Typed {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Where images and containers are kept [/var/lib/sc; without root $XDG_DATA_HOME/sc]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

impl Global {
    pub fn home(&self) -> Result<Home> {
        Home::open(self.root.as_deref())
    }
}

/// What is handed to sc-image as it was typed.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct Rest {
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARG"
    )]
    args: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(Box<run::Run>),
    Create(Box<create::Create>),
    Start(start::Start),
    Stop(stop::Stop),
    Restart(restart::Restart),
    Kill(kill::Kill),
    Pause(pause::Pause),
    Unpause(pause::Unpause),
    Attach(attach::Attach),
    Exec(exec::Exec),
    Wait(wait::Wait),
    Rm(rm::Rm),
    Rename(rename::Rename),
    Update(update::Update),
    Ps(ps::Ps),
    Logs(logs::Logs),
    Inspect(inspect::Inspect),
    Port(port::PortVerb),
    #[command(visible_alias = "networks")]
    Network(network::Network),
    Cp(cp::Cp),
    Diff(diff::Diff),
    Commit(commit::Commit),
    Export(export::Export),
    #[command(visible_alias = "volumes")]
    Volume(volume::Volumes),
    Top(top::Top),
    Stats(stats::Stats),
    Events(events::Events),
    Prune(prune::Prune),
    System(prune::System),
    Info(prune::Info),
    /// Everything about images: sc-image
    Image(Rest),
    /// List images
    Images(Rest),
    /// Fetch an image from a registry
    Pull(Rest),
    /// Send an image to a registry
    Push(Rest),
    /// Load images from an archive
    Load(Rest),
    /// Make an image of a tar of files
    Import(Rest),
    /// Write images into an archive
    Save(Rest),
    /// Give an image a name
    Tag(Rest),
    /// Remove images
    Rmi(Rest),
    /// Show what an image was made by
    History(Rest),
    /// Keep credentials for a registry
    Login(Rest),
    /// Forget credentials for a registry
    Logout(Rest),
    /// Run a command in the user namespace of an ordinary user's containers, where all their files are root's
    Unshare(Rest),
    /// Print what makes a shell complete `sc`: eval "$(sc completion bash)"
    Completion {
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man {
        dir: PathBuf,
    },
    /// Print the versions of the three programs
    Version,
}

impl Verb {
    fn run(&self, global: &Global) -> Result<u8> {
        match self {
            Verb::Run(verb) => verb.run(global),
            Verb::Create(verb) => verb.run(global),
            Verb::Start(verb) => verb.run(global),
            Verb::Stop(verb) => verb.run(global),
            Verb::Restart(verb) => verb.run(global),
            Verb::Kill(verb) => verb.run(global),
            Verb::Pause(verb) => verb.run(global),
            Verb::Unpause(verb) => verb.run(global),
            Verb::Attach(verb) => verb.run(global),
            Verb::Exec(verb) => verb.run(global),
            Verb::Wait(verb) => verb.run(global),
            Verb::Rm(verb) => verb.run(global),
            Verb::Rename(verb) => verb.run(global),
            Verb::Update(verb) => verb.run(global),
            Verb::Ps(verb) => verb.run(global),
            Verb::Logs(verb) => verb.run(global),
            Verb::Inspect(verb) => verb.run(global),
            Verb::Port(verb) => verb.run(global),
            Verb::Network(verb) => verb.run(global),
            Verb::Cp(verb) => verb.run(global),
            Verb::Diff(verb) => verb.run(global),
            Verb::Commit(verb) => verb.run(global),
            Verb::Export(verb) => verb.run(global),
            Verb::Volume(verb) => verb.run(global),
            Verb::Top(verb) => verb.run(global),
            Verb::Stats(verb) => verb.run(global),
            Verb::Events(verb) => verb.run(global),
            Verb::Prune(verb) => verb.run(global),
            Verb::System(verb) => verb.run(global),
            Verb::Info(verb) => verb.run(global),
            Verb::Image(rest) => programs::become_image(global, None, &rest.args),
            Verb::Images(rest) => programs::become_image(global, Some("list"), &rest.args),
            Verb::Pull(rest) => programs::become_image(global, Some("pull"), &rest.args),
            Verb::Push(rest) => programs::become_image(global, Some("push"), &rest.args),
            Verb::Load(rest) => programs::become_image(global, Some("load"), &rest.args),
            Verb::Import(rest) => programs::become_image(global, Some("import"), &rest.args),
            Verb::Save(rest) => programs::become_image(global, Some("save"), &rest.args),
            Verb::Tag(rest) => programs::become_image(global, Some("tag"), &rest.args),
            Verb::Rmi(rest) => programs::become_image(global, Some("rm"), &rest.args),
            Verb::History(rest) => programs::become_image(global, Some("history"), &rest.args),
            Verb::Login(rest) => programs::become_image(global, Some("login"), &rest.args),
            Verb::Logout(rest) => programs::become_image(global, Some("logout"), &rest.args),
            Verb::Unshare(rest) => rootless::unshare(&rest.args),
            Verb::Completion { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(*shell, &mut Typed::command(), "sc", &mut text);
                crate::show::print(&String::from_utf8(text)?)?;
                Ok(0)
            }
            Verb::Man { dir } => {
                clap_mangen::generate_to(Typed::command(), dir)
                    .with_context(|| dir.display().to_string())?;
                Ok(0)
            }
            Verb::Version => programs::versions(),
        }
    }
}

/// An error that has docker's exit status of its own.
#[derive(Debug)]
pub struct WithStatus {
    pub status: u8,
    pub message: String,
}

impl fmt::Display for WithStatus {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str(&self.message)
    }
}

impl std::error::Error for WithStatus {}

/// From argv to the exit status.
pub fn main(mut argv: Vec<OsString>) -> ExitCode {
    if let Err(e) = sys::process::keep_zombies(true) {
        eprintln!("sc: {e}");
        return ExitCode::FAILURE;
    }
    // Modes are what is said where a file is made.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if let Some(status) = beside(&argv) {
        return status;
    }
    let at = verb_at(&argv);
    if argv.get(at).is_some_and(|verb| verb == "container") && argv.len() > at + 1 {
        argv.remove(at);
    }
    let verb = argv.get(at).and_then(|verb| verb.to_str()).unwrap_or("");
    let failed = match verb {
        "run" | "create" | "exec" => 125,
        _ => 1,
    };
    let typed = match Typed::try_parse_from(&argv) {
        Ok(typed) => typed,
        Err(e) => return refuse(&e, failed),
    };
    match typed.verb.run(&typed.global) {
        Ok(status) => status.into(),
        Err(e) => {
            tell(&e);
            let own = e.downcast_ref::<WithStatus>();
            own.map_or(failed, |own| own.status).into()
        }
    }
}

/// `sc --root ROOT monitor ID`, `forward ID` and `resolver NETWORK`, the processes beside a container and a network: they
/// live long, and parse no more than they need. And `clear ID` and `heal all`: what other commands do where an ordinary
/// user's bridges are.
fn beside(argv: &[OsString]) -> Option<ExitCode> {
    let [_, option, root, verb, whose] = argv else {
        return None;
    };
    let run = match verb.to_str() {
        Some("monitor") => super::monitor::run,
        Some("resolver") => super::network::resolver::serve,
        Some("forward") => super::network::forward::serve,
        Some("clear") => super::network::live::clear_there,
        Some("heal") => super::network::bridge::heal_there,
        _ => return None,
    };
    if option != "--root" {
        return None;
    }
    let run = Home::open(Some(root.as_ref())).and_then(|home| run(&home, &whose.to_string_lossy()));
    let status = run.unwrap_or_else(|e| {
        // The others' stderr is nobody's.
        if ["clear", "heal"].iter().any(|short| verb == short) {
            tell(&e);
        }
        1
    });
    Some(status.into())
}

/// Where the verb stands: behind the options that stand before it.
fn verb_at(argv: &[OsString]) -> usize {
    let mut at = 1;
    while let Some(word) = argv.get(at).and_then(|word| word.to_str()) {
        match word {
            "--root" => at += 2,
            _ if word.starts_with('-') => at += 1,
            _ => break,
        }
    }
    at
}

/// The one line of an error. Text of an image must not steer a terminal.
pub fn tell(e: &anyhow::Error) {
    eprintln!("sc: {}", crate::show::printable(&format!("{e:#}")));
}

/// Help goes to stdout and is no failure.
fn refuse(e: &clap::Error, failed: u8) -> ExitCode {
    // When the stream is closed, nobody is left to be told.
    let _ = e.print();
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => failed.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_verbs_is_sound() {
        Typed::command().debug_assert();
    }

    #[test]
    fn the_verb_is_behind_global_options() {
        for (argv, expected) in [
            (&["sc", "ps"][..], 1),
            (&["sc", "--root", "/x", "container", "ps"], 3),
            (&["sc", "--root=/x", "ps"], 2),
            (&["sc"], 1),
        ] {
            let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
            assert_eq!(verb_at(&argv), expected, "{argv:?}");
        }
    }
}
