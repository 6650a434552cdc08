//! What was typed: runc's options and verbs, as values.
//!
//! One table ([`GLOBAL`], [`FORMS`]) says which there are. Engines type them as Go programs take
//! them (`-no-subreaper`, `--force=true`, options after the ID), so argv is first put into the
//! form that clap reads ([`normalise`], pure), then parsed. A verb's options are built only when
//! that verb is typed: what a start costs is paid by every container.

use crate::runtime::commands;
use crate::runtime::criu::message::CgroupMode;
use crate::runtime::duration;
use crate::runtime::host;
use crate::runtime::log::{self, Format, Log};
use crate::runtime::parent::seal;
use crate::runtime::state::OCI_VERSION;
use crate::sys;
use anyhow::{Context, Error, Result, anyhow, bail};
use clap::builder::{OsStringValueParser, ValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// Global options.
#[derive(Debug)]
pub struct Global {
    /// Absolute path of the directory that holds the containers' records.
    pub root: PathBuf,
}

/// `create`; paths as typed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateArgs {
    pub bundle: PathBuf,
    pub id: String,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Descriptors 3..3+N are the container's too.
    pub preserve_fds: u32,
    /// systemd makes the cgroup (a global option).
    pub systemd_cgroup: bool,
    /// `--rootless` (a global option): whether to expect that cgroups are refused. `None`: found out.
    pub rootless: Option<bool>,
}

/// `run`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunArgs {
    pub create: CreateArgs,
    pub detach: bool,
    /// The record and the cgroup stay when the container has ended.
    pub keep: bool,
    pub no_subreaper: bool,
}

/// `exec`; options as typed. With `process`, those that describe the process are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecArgs {
    pub id: String,
    pub command: Vec<String>,
    /// A JSON file with config.json's `process`.
    pub process: Option<PathBuf>,
    pub cwd: Option<PathBuf>,
    /// `KEY=value`, beside those of config.json.
    pub env: Vec<String>,
    pub tty: bool,
    /// `UID[:GID]`
    pub user: Option<String>,
    pub additional_gids: Vec<String>,
    pub process_label: Option<String>,
    pub apparmor: Option<String>,
    /// `None`: as config.json has it.
    pub no_new_privs: Option<bool>,
    pub caps: Vec<String>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub detach: bool,
    pub preserve_fds: u32,
    /// Cgroups below the container's: one, or none.
    pub cgroups: Vec<String>,
    pub ignore_paused: bool,
}

/// `update`; options as typed, empty where they were not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateArgs {
    pub id: String,
    /// A JSON file, or `-` for stdin. Other options are then ignored.
    pub resources: Option<PathBuf>,
    /// Name of the option and its value, in the order of the table.
    pub options: Vec<(&'static str, String)>,
}

/// What `checkpoint` and `restore` have CRIU do alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CriuArgs {
    /// Of CRIU's image files. `None`: `checkpoint` in the working directory.
    pub image_path: Option<PathBuf>,
    /// Of CRIU's log. `None`: with the image files.
    pub work_path: Option<PathBuf>,
    pub tcp_established: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub lazy_pages: bool,
    pub file_locks: bool,
    pub auto_dedup: bool,
    pub cgroup_mode: Option<CgroupMode>,
    /// The network namespace is made, but nothing in it: others configure it.
    pub empty_network: bool,
}

/// `checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckpointArgs {
    pub id: String,
    pub criu: CriuArgs,
    /// Of an earlier `--pre-dump`, relative to the image path.
    pub parent_path: Option<PathBuf>,
    pub leave_running: bool,
    pub pre_dump: bool,
    pub tcp_skip_in_flight: bool,
    pub link_remap: bool,
    pub status_fd: Option<i32>,
    /// Address and port.
    pub page_server: Option<(String, u16)>,
}

/// `restore`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreArgs {
    pub run: RunArgs,
    pub criu: CriuArgs,
    /// `TYPE:NAME`
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    Create(CreateArgs),
    Run(RunArgs),
    Exec(Box<ExecArgs>),
    Start {
        id: String,
    },
    State {
        id: String,
    },
    List {
        format: ListFormat,
        quiet: bool,
    },
    Kill {
        id: String,
        signal: String,
        all: bool,
    },
    Delete {
        id: String,
        force: bool,
    },
    Ps {
        id: String,
        format: ListFormat,
        /// Of ps(1).
        options: Vec<OsString>,
    },
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    Update(UpdateArgs),
    Checkpoint(Box<CheckpointArgs>),
    Restore(Box<RestoreArgs>),
    Events {
        id: String,
        interval: Duration,
        /// One line, then exit.
        stats: bool,
    },
    Spec {
        bundle: PathBuf,
        rootless: bool,
    },
    Features,
    Plan {
        bundle: PathBuf,
        systemd_cgroup: bool,
    },
}

impl Verb {
    /// `exec` gives the status of its process, so its own failures have one that engines know.
    fn status_of_failure(&self) -> u8 {
        match self {
            Verb::Exec(_) => 255,
            _ => 1,
        }
    }

    /// `--systemd-cgroup`; verbs that make nothing go by the record.
    fn let_systemd_make_the_cgroup(&mut self) {
        match self {
            Verb::Create(args) => args.systemd_cgroup = true,
            Verb::Run(args) => args.create.systemd_cgroup = true,
            Verb::Restore(args) => args.run.create.systemd_cgroup = true,
            Verb::Plan { systemd_cgroup, .. } => *systemd_cgroup = true,
            _ => {}
        }
    }

    /// `--rootless`; as above.
    fn set_rootless(&mut self, rootless: Option<bool>) {
        match self {
            Verb::Create(args) => args.rootless = rootless,
            Verb::Run(args) => args.create.rootless = rootless,
            Verb::Restore(args) => args.run.create.rootless = rootless,
            _ => {}
        }
    }
}

/// From argv to the exit status: the only place that prints an error.
pub fn main(argv: impl Iterator<Item = OsString>) -> u8 {
    sys::process::prepare_stdio();
    if let Err(e) = sys::process::keep_zombies(true) {
        log::fail(&e.into());
        return 1;
    }
    let words: Vec<OsString> = argv.skip(1).collect();
    // Before anything is done that would be done again: sealing executes this program anew. An
    // operand of that name only costs the time.
    let sealed = match words
        .iter()
        .any(|word| sys::entry::MAKERS.iter().any(|verb| word == verb))
    {
        true => seal::ensure(),
        false => Ok(()),
    };
    let args = normalise(words);
    log::set(log_of(&args));
    let typed = sealed.map_err(Refused::from).and_then(|()| parse(&args));
    let outcome = typed.and_then(|typed| match typed {
        Typed::Print(text) => Ok(print(&text).map(|()| 0)?),
        Typed::Verb(root, verb) => {
            log::check()?;
            log::debug(|| format!("{verb:?}"));
            let status_of_failure = verb.status_of_failure();
            commands::perform(&Global { root }, &verb).map_err(|why| Refused {
                status: status_of_failure,
                why,
            })
        }
    });
    // Rust's own exit would do it; this program's main is not Rust's.
    let outcome = outcome.and_then(|status| {
        std::io::stdout().flush().context("write to stdout")?;
        Ok(status)
    });
    match outcome {
        Ok(status) => {
            log::close();
            // Exit statuses are a byte, also the container's.
            status as u8
        }
        Err(Refused { status, why }) => {
            log::fail(&why);
            status
        }
    }
}

fn print(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to stdout")
}

// ---------------------------------------------------------------------------------------------
// The table

/// What an option takes, and what its value is called in the help.
#[derive(Clone, Copy)]
enum Takes {
    /// It is there or not.
    Nothing,
    /// There, not there, or denied (`--name=false`): three things.
    Denial,
    /// The last one typed counts.
    One(&'static str),
    /// All that are typed count.
    Many(&'static str),
}

struct Flag {
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    /// Empty: taken, but left out of the help.
    help: &'static str,
}

struct Form {
    verb: &'static str,
    about: &'static str,
    flags: &'static [&'static [Flag]],
    /// Names of the operands; one in brackets may be left out, one with dots repeated.
    operands: &'static [&'static str],
    /// What follows the first operand is an operand, whatever it looks like.
    operands_last: bool,
    /// Works, but is not for users: left out of the help.
    hidden: bool,
}

const fn flag(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag {
        long,
        short,
        takes: Takes::Nothing,
        help,
    }
}

const fn option(
    long: &'static str,
    short: Option<char>,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        long,
        short,
        takes: Takes::One(value),
        help,
    }
}

const fn many(
    long: &'static str,
    short: Option<char>,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        long,
        short,
        takes: Takes::Many(value),
        help,
    }
}

const GLOBAL: &[Flag] = &[
    option(
        "root",
        None,
        "DIR",
        "Directory of the containers' records [default: /run/sc-runtime, or $XDG_RUNTIME_DIR/sc-runtime]",
    ),
    option("log", None, "FILE", "Append errors and warnings to FILE"),
    option("log-format", None, "FORMAT", "text or json [default: text]"),
    flag("debug", None, "Log more"),
    flag("systemd-cgroup", None, "Let systemd make the cgroups"),
    option(
        "rootless",
        None,
        "BOOL",
        "true, false or auto [default: auto]",
    ),
    flag(
        "version",
        Some('v'),
        "Print version, commit and runtime-spec version",
    ),
];

const BUNDLE: &[Flag] = &[option(
    "bundle",
    Some('b'),
    "DIR",
    "The bundle: config.json and root file system [default: .]",
)];

const CREATE: &[Flag] = &[
    option(
        "console-socket",
        None,
        "SOCKET",
        "Send the terminal's master end to this socket",
    ),
    option(
        "pidfd-socket",
        None,
        "SOCKET",
        "Send a pidfd of the container's process to this socket",
    ),
    option("pid-file", None, "FILE", "Write the process id to FILE"),
    flag(
        "no-pivot",
        None,
        "Move the root instead of pivoting, for a root on a ramdisk",
    ),
    flag("no-new-keyring", None, "Keep the caller's session keyring"),
    option(
        "preserve-fds",
        None,
        "N",
        "Pass N more file descriptors, from 3 on [default: 0]",
    ),
];

const RUN: &[Flag] = &[
    flag(
        "detach",
        Some('d'),
        "Leave the container running, and return",
    ),
    flag(
        "keep",
        None,
        "Do not delete the container when it has ended",
    ),
    flag(
        "no-subreaper",
        None,
        "Do not become the parent of the container's orphans",
    ),
];

const CRIU: &[Flag] = &[
    option(
        "image-path",
        None,
        "DIR",
        "Directory of CRIU's image files [default: ./checkpoint]",
    ),
    option(
        "work-path",
        None,
        "DIR",
        "Directory of CRIU's log [default: that of the image files]",
    ),
    flag("tcp-established", None, "Established TCP connections, too"),
    flag(
        "ext-unix-sk",
        None,
        "Unix sockets that are connected to the outside, too",
    ),
    flag(
        "shell-job",
        None,
        "Processes with a terminal of the caller's, too",
    ),
    flag(
        "lazy-pages",
        None,
        "Memory follows when it is needed (userfaultfd)",
    ),
    flag("file-locks", None, "File locks, too"),
    option(
        "manage-cgroups-mode",
        None,
        "MODE",
        "soft, full, strict or ignore [default: soft]",
    ),
    many(
        "empty-ns",
        None,
        "NAMESPACE",
        "Make the namespace (network), but put nothing into it",
    ),
    flag(
        "auto-dedup",
        None,
        "Keep each page of memory once, in the newest images",
    ),
];

const CHECKPOINT: &[Flag] = &[
    option(
        "parent-path",
        None,
        "DIR",
        "Images of an earlier --pre-dump, relative to those to be made",
    ),
    flag("leave-running", None, "The container goes on"),
    flag("pre-dump", None, "Memory alone; the container goes on"),
    flag(
        "tcp-skip-in-flight",
        None,
        "Without TCP connections that are being made",
    ),
    flag("link-remap", None, "Link files that are open but removed"),
    option(
        "status-fd",
        None,
        "FD",
        "Descriptor to which CRIU writes a zero byte when it serves lazy pages",
    ),
    option(
        "page-server",
        None,
        "ADDRESS:PORT",
        "Memory goes to this page server",
    ),
];

const RESTORE: &[Flag] = &[
    option(
        "console-socket",
        None,
        "SOCKET",
        "Send the terminal's master end to this socket",
    ),
    option("pid-file", None, "FILE", "Write the process id to FILE"),
    flag(
        "detach",
        Some('d'),
        "Leave the container running, and return",
    ),
    flag(
        "no-subreaper",
        None,
        "Do not become the parent of the container's orphans",
    ),
    flag("no-pivot", None, ""),
    flag("no-new-keyring", None, ""),
    // containerd gives it; the images themselves say it.
    option("parent-path", None, "DIR", ""),
    option(
        "lsm-profile",
        None,
        "TYPE:NAME",
        "Restore with this profile (apparmor:NAME, selinux:LABEL)",
    ),
    option(
        "lsm-mount-context",
        None,
        "CONTEXT",
        "Mount with this SELinux context",
    ),
];

const EXEC: &[Flag] = &[
    option(
        "console-socket",
        None,
        "SOCKET",
        "Send the terminal's master end to this socket",
    ),
    option(
        "pidfd-socket",
        None,
        "SOCKET",
        "Send a pidfd of the process to this socket",
    ),
    option(
        "cwd",
        None,
        "DIR",
        "Working directory in the container [default: that of config.json]",
    ),
    many(
        "env",
        Some('e'),
        "KEY=VALUE",
        "An environment variable beside those of config.json (may be repeated)",
    ),
    flag("tty", Some('t'), "Give the process a terminal"),
    option(
        "user",
        Some('u'),
        "UID[:GID]",
        "User and group [default: those of config.json]",
    ),
    many(
        "additional-gids",
        Some('g'),
        "GID",
        "One more group (may be repeated)",
    ),
    option(
        "process",
        Some('p'),
        "FILE",
        "Take the process from FILE (JSON, as `process` of config.json)",
    ),
    flag("detach", Some('d'), "Leave the process running, and return"),
    option("pid-file", None, "FILE", "Write the process id to FILE"),
    option(
        "process-label",
        None,
        "LABEL",
        "SELinux label of the process",
    ),
    option(
        "apparmor",
        None,
        "PROFILE",
        "AppArmor profile of the process",
    ),
    Flag {
        long: "no-new-privs",
        short: None,
        takes: Takes::Denial,
        help: "Set no_new_privs, or with =false do not [default: as in config.json]",
    },
    many(
        "cap",
        Some('c'),
        "CAP",
        "One more capability, like CAP_KILL (may be repeated)",
    ),
    option(
        "preserve-fds",
        None,
        "N",
        "Pass N more file descriptors, from 3 on [default: 0]",
    ),
    many(
        "cgroup",
        None,
        "PATH",
        "Run in this existing cgroup below the container's",
    ),
    flag("ignore-paused", None, "Also in a paused container"),
];

/// The values are kept as typed; `update` knows their units.
const UPDATE: &[Flag] = &[
    option(
        "blkio-weight",
        None,
        "WEIGHT",
        "Share of block I/O, 10 to 1000",
    ),
    option(
        "cpu-period",
        None,
        "USEC",
        "Length of a period in which the quota holds",
    ),
    option(
        "cpu-quota",
        None,
        "USEC",
        "CPU time in each period; -1: no limit",
    ),
    option(
        "cpu-burst",
        None,
        "USEC",
        "CPU time that may be saved up beyond the quota",
    ),
    option(
        "cpu-share",
        None,
        "SHARES",
        "Share of CPU time, 2 to 262144",
    ),
    option(
        "cpu-rt-period",
        None,
        "USEC",
        "Refused: cgroup v2 cannot do it",
    ),
    option(
        "cpu-rt-runtime",
        None,
        "USEC",
        "Refused: cgroup v2 cannot do it",
    ),
    option("cpuset-cpus", None, "LIST", "CPUs to run on, like 0-2,7"),
    option("cpuset-mems", None, "LIST", "Memory nodes to use"),
    option("kernel-memory", None, "BYTES", ""),
    option("kernel-memory-tcp", None, "BYTES", ""),
    option("memory", None, "BYTES", "Memory limit, like 512m; -1: none"),
    option(
        "memory-reservation",
        None,
        "BYTES",
        "Memory that is reclaimed last",
    ),
    option(
        "memory-swap",
        None,
        "BYTES",
        "Limit of memory and swap together; -1: none",
    ),
    option(
        "cpu-idle",
        None,
        "0|1",
        "1: run only where others leave time",
    ),
    option("pids-limit", None, "COUNT", "Limit of processes; -1: none"),
    option(
        "l3-cache-schema",
        None,
        "SCHEMA",
        "Intel RDT: share of the L3 cache",
    ),
    option(
        "mem-bw-schema",
        None,
        "SCHEMA",
        "Intel RDT: share of memory bandwidth",
    ),
];

const FORMS: &[Form] = &[
    Form {
        verb: "create",
        about: "Make a container that waits for start",
        flags: &[BUNDLE, CREATE],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "start",
        about: "Execute the program of a created container",
        flags: &[],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "run",
        about: "Create a container, start it, and delete it when it has ended",
        flags: &[BUNDLE, CREATE, RUN],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "exec",
        about: "Execute one more process in a running container",
        flags: &[EXEC],
        operands: &["ID", "[COMMAND...]"],
        operands_last: true,
        hidden: false,
    },
    Form {
        verb: "state",
        about: "Print the state of a container as JSON",
        flags: &[],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "list",
        about: "Print the containers of this root",
        flags: &[&[
            option(
                "format",
                Some('f'),
                "FORMAT",
                "table or json [default: table]",
            ),
            flag("quiet", Some('q'), "Print names only"),
        ]],
        operands: &[],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "kill",
        about: "Send a signal to a container's process [default: TERM]",
        flags: &[&[flag(
            "all",
            Some('a'),
            "Send it to every process of the container",
        )]],
        operands: &["ID", "[SIGNAL]"],
        operands_last: true,
        hidden: false,
    },
    Form {
        verb: "delete",
        about: "Remove a container that has stopped",
        flags: &[&[flag(
            "force",
            Some('f'),
            "Kill it first, if it runs; be content if it does not exist",
        )]],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "ps",
        about: "Print the processes of a container",
        flags: &[&[option(
            "format",
            Some('f'),
            "FORMAT",
            "table or json [default: table]",
        )]],
        operands: &["ID", "[PS_OPTIONS...]"],
        operands_last: true,
        hidden: false,
    },
    Form {
        verb: "pause",
        about: "Stop all processes of a container where they are",
        flags: &[],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "resume",
        about: "Let a paused container go on",
        flags: &[],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "update",
        about: "Change the limits of a container",
        flags: &[
            &[option(
                "resources",
                Some('r'),
                "FILE",
                "Read linux.resources as JSON from FILE, or from stdin (-); ignores other options",
            )],
            UPDATE,
        ],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "events",
        about: "Print a container's statistics, and when it ran out of memory, as JSON lines",
        flags: &[&[
            option(
                "interval",
                None,
                "DURATION",
                "Time between two lines of statistics [default: 5s]",
            ),
            flag("stats", None, "Print one line of statistics, and exit"),
        ]],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "checkpoint",
        about: "Write a running container to disk, with CRIU",
        flags: &[CRIU, CHECKPOINT],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "restore",
        about: "Run a container again that was written to disk",
        flags: &[BUNDLE, RESTORE, CRIU],
        operands: &["ID"],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "spec",
        about: "Write a config.json that runs as it is",
        flags: &[
            BUNDLE,
            &[flag(
                "rootless",
                None,
                "Write one that an ordinary user can run",
            )],
        ],
        operands: &[],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "features",
        about: "Print what this runtime can do as JSON",
        flags: &[],
        operands: &[],
        operands_last: false,
        hidden: false,
    },
    Form {
        verb: "plan",
        about: "Print what create would do",
        flags: &[BUNDLE],
        operands: &[],
        operands_last: false,
        hidden: true,
    },
];

fn form_of(verb: &str) -> Option<&'static Form> {
    FORMS.iter().find(|form| form.verb == verb)
}

// ---------------------------------------------------------------------------------------------
// From Go's form to clap's

/// argv without its first word, as clap takes it: options first, each one word (`--root=/r`), long,
/// with two dashes; then `--` and the operands. What is unknown stays, for clap to refuse.
pub fn normalise(argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words = argv.into_iter().collect::<Vec<_>>().into_iter();
    let (mut args, operands) = sort(&mut words, &[GLOBAL], true);
    let Some((verb, rest)) = operands.split_first() else {
        return args;
    };
    args.push(verb.clone());
    let Some(form) = verb.to_str().and_then(form_of) else {
        args.extend_from_slice(rest);
        return args;
    };
    let (flags, operands) = sort(&mut rest.iter().cloned(), form.flags, form.operands_last);
    args.extend(flags);
    args.push("--".into());
    args.extend(operands);
    args
}

/// Takes options and operands apart. With `operands_last` the first operand ends the options.
fn sort(
    words: &mut dyn Iterator<Item = OsString>,
    flags: &[&[Flag]],
    operands_last: bool,
) -> (Vec<OsString>, Vec<OsString>) {
    let (mut options, mut operands) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        if word == "--" {
            operands.extend(words);
            break;
        }
        let Some((name, value)) = split(&word) else {
            operands.push(word);
            if operands_last {
                operands.extend(words);
                break;
            }
            continue;
        };
        let known = flags.iter().copied().flatten().find(|flag| flag.is(name));
        options.extend(option_word(known, name, value, words));
    }
    (options, operands)
}

/// `--name=value` or `-name=value` in two; `None` for an operand (`-` is one).
fn split(word: &OsStr) -> Option<(&OsStr, Option<&OsStr>)> {
    let bytes = word.as_bytes();
    let name = bytes
        .strip_prefix(b"--")
        .or_else(|| bytes.strip_prefix(b"-"))?;
    if name.is_empty() {
        return None;
    }
    match name.iter().position(|b| *b == b'=') {
        Some(at) => Some((
            OsStr::from_bytes(&name[..at]),
            Some(OsStr::from_bytes(&name[at + 1..])),
        )),
        None => Some((OsStr::from_bytes(name), None)),
    }
}

/// One option as one word, or none (`--force=false`). Takes its value from the next word if need be.
fn option_word(
    known: Option<&Flag>,
    name: &OsStr,
    value: Option<&OsStr>,
    words: &mut dyn Iterator<Item = OsString>,
) -> Option<OsString> {
    let mut word = OsString::from("--");
    let Some(flag) = known else {
        word.push(if name == "h" {
            OsStr::new("help")
        } else {
            name
        });
        if let Some(value) = value {
            word.push("=");
            word.push(value);
        }
        return Some(word);
    };
    word.push(flag.long);
    let value = match flag.takes {
        Takes::One(_) | Takes::Many(_) => value.map(OsStr::to_owned).or_else(|| words.next()),
        Takes::Nothing | Takes::Denial => match value.map(OsStr::as_bytes) {
            // Go's strconv.ParseBool.
            None | Some(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True") => None,
            Some(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False") => match flag.takes {
                Takes::Denial => Some("false".into()),
                _ => return None,
            },
            Some(other) => Some(OsStr::from_bytes(other).to_owned()),
        },
    };
    if let Some(value) = value {
        word.push("=");
        word.push(value);
    }
    Some(word)
}

impl Flag {
    fn is(&self, name: &OsStr) -> bool {
        let mut short = [0; 4];
        name == self.long
            || self
                .short
                .is_some_and(|c| name == &*c.encode_utf8(&mut short))
    }
}

/// Where messages go is read before anything can be refused, from normalised arguments.
fn log_of(args: &[OsString]) -> Log {
    let globals = || {
        args.iter()
            .take_while(|word| word.as_bytes().starts_with(b"--"))
    };
    let value = |name: &str| {
        globals()
            .filter_map(|word| word.as_bytes().strip_prefix(name.as_bytes()))
            .last()
            .filter(|value| !value.is_empty())
    };
    let format = match value("--log-format=") {
        Some(b"json") => Format::Json,
        _ => Format::Text,
    };
    let file = value("--log=").map(|path| PathBuf::from(OsStr::from_bytes(path)));
    Log::new(file, format, globals().any(|word| word == "--debug"))
}

// ---------------------------------------------------------------------------------------------
// Parsing

#[derive(Debug)]
enum Typed {
    /// Help, or the version.
    Print(String),
    /// The root directory, and what to do.
    Verb(PathBuf, Verb),
}

#[derive(Debug)]
struct Refused {
    status: u8,
    why: Error,
}

impl From<Error> for Refused {
    fn from(why: Error) -> Self {
        Refused { status: 1, why }
    }
}

fn command() -> Command {
    let command = Command::new("sc-runtime")
        .about("Runs OCI containers")
        .no_binary_name(true)
        .bin_name("sc-runtime")
        .disable_version_flag(true)
        .args_override_self(true)
        .args(GLOBAL.iter().map(arg));
    FORMS.iter().fold(command, |command, form| {
        let verb = Command::new(form.verb).about(form.about).hide(form.hidden);
        command.subcommand(verb.defer(fill))
    })
}

/// The options and operands of one verb, when it is the one that was typed.
fn fill(command: Command) -> Command {
    let Some(form) = form_of(command.get_name()) else {
        return command;
    };
    let operand = |name: &&'static str| {
        let bare = name.trim_matches(['[', ']', '.']);
        let help = match bare {
            "ID" => "The container's name",
            "COMMAND" => "The program and its arguments",
            "PS_OPTIONS" => "Options of ps(1), for the table [default: -ef]",
            _ => "A signal's name or number",
        };
        let arg = Arg::new(bare)
            .help(help)
            .required(bare == *name)
            .value_parser(ValueParser::from(OsStringValueParser::new()));
        match name.contains("...") {
            true => arg.num_args(0..),
            false => arg,
        }
    };
    command
        .args(form.flags.iter().copied().flatten().map(arg))
        .args(form.operands.iter().map(operand))
}

fn arg(flag: &'static Flag) -> Arg {
    let arg = Arg::new(flag.long).long(flag.long);
    let arg = match flag.help {
        "" => arg.hide(true),
        help => arg.help(help),
    };
    let arg = match flag.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match flag.takes {
        Takes::Nothing => arg.action(ArgAction::SetTrue),
        Takes::Denial => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(["true", "false"])
            .value_name("BOOL"),
        Takes::One("N") => arg.value_name("N").value_parser(value_parser!(u32)),
        Takes::One(value) => arg
            .value_name(value)
            .value_parser(OsStringValueParser::new()),
        Takes::Many(value) => arg
            .value_name(value)
            .action(ArgAction::Append)
            .value_parser(OsStringValueParser::new()),
    }
}

fn parse(args: &[OsString]) -> Result<Typed, Refused> {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(e) => return refusal(e),
    };
    let typed = Options(&matches);
    if typed.has("version") {
        return Ok(Typed::Print(version()));
    }
    let Some((verb, options)) = matches.subcommand() else {
        return Ok(Typed::Print(command().render_help().to_string()));
    };
    let mut verb = Options(options).verb(verb)?;
    typed.check_log_format()?;
    verb.set_rootless(typed.rootless()?);
    if typed.has("systemd-cgroup") {
        verb.let_systemd_make_the_cgroup();
    }
    Ok(Typed::Verb(typed.root()?, verb))
}

/// Three lines that moby reads by their first words.
fn version() -> String {
    format!(
        "sc-runtime version {}\ncommit: {}\nspec: {OCI_VERSION}\n",
        env!("CARGO_PKG_VERSION"),
        env!("SC_COMMIT")
    )
}

/// clap's page of an error as one line; help is no error.
fn refusal(e: clap::Error) -> Result<Typed, Refused> {
    let text = e.to_string();
    let status = match e.kind() {
        ErrorKind::DisplayHelp => return Ok(Typed::Print(text)),
        // runc's, too.
        ErrorKind::InvalidSubcommand => 3,
        _ => 1,
    };
    // A tip to type `-- --nope` helps nobody who mistyped an option.
    let idle = ["Usage:", "For more", "  tip: to pass"];
    let parts = text
        .split("\n\n")
        .filter(|part| !idle.iter().any(|start| part.starts_with(start)));
    let words: Vec<&str> = parts
        .flat_map(str::split_whitespace)
        .skip_while(|word| *word == "error:")
        .collect();
    let why = match e.kind() {
        // podman looks for these words to learn whether a runtime knows an option.
        ErrorKind::InvalidValue if words.starts_with(&["a", "value", "is", "required"]) => {
            anyhow!("flag needs an argument: {}", words.join(" "))
        }
        _ => anyhow!(words.join(" ")),
    };
    Err(Refused { status, why })
}

/// What clap understood, by name.
struct Options<'a>(&'a ArgMatches);

impl Options<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.get_flag(name)
    }

    fn value(&self, name: &str) -> Option<&OsStr> {
        self.0.get_one::<OsString>(name).map(OsString::as_os_str)
    }

    /// A path; an empty one is as good as none.
    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    }

    fn bundle(&self) -> PathBuf {
        self.path("bundle").unwrap_or_else(|| ".".into())
    }

    /// Whether it is a legal name is the record's to say; one that is no text is not.
    fn id(&self) -> Result<String> {
        let id = self.value("ID").unwrap_or_default();
        id.to_str()
            .map(str::to_owned)
            .context("invalid container ID format")
    }

    fn verb(&self, verb: &str) -> Result<Verb> {
        Ok(match verb {
            "create" => Verb::Create(self.create()?),
            "run" => Verb::Run(RunArgs {
                create: self.create()?,
                detach: self.has("detach"),
                keep: self.has("keep"),
                no_subreaper: self.has("no-subreaper"),
            }),
            "exec" => Verb::Exec(Box::new(self.exec()?)),
            "start" => Verb::Start { id: self.id()? },
            "state" => Verb::State { id: self.id()? },
            "list" => Verb::List {
                format: self.list_format()?,
                quiet: self.has("quiet"),
            },
            "kill" => Verb::Kill {
                id: self.id()?,
                signal: self
                    .value("SIGNAL")
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                all: self.has("all"),
            },
            "delete" => Verb::Delete {
                id: self.id()?,
                force: self.has("force"),
            },
            "ps" => Verb::Ps {
                id: self.id()?,
                format: self.list_format()?,
                options: self
                    .0
                    .get_many("PS_OPTIONS")
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            },
            "pause" => Verb::Pause { id: self.id()? },
            "resume" => Verb::Resume { id: self.id()? },
            "update" => Verb::Update(self.update()?),
            "events" => Verb::Events {
                id: self.id()?,
                interval: self.interval()?,
                stats: self.has("stats"),
            },
            "checkpoint" => Verb::Checkpoint(Box::new(self.checkpoint()?)),
            "restore" => Verb::Restore(Box::new(self.restore()?)),
            "spec" => Verb::Spec {
                bundle: self.bundle(),
                rootless: self.has("rootless"),
            },
            "features" => Verb::Features,
            "plan" => Verb::Plan {
                bundle: self.bundle(),
                systemd_cgroup: false,
            },
            other => bail!("{other}: a verb without meaning"),
        })
    }

    fn create(&self) -> Result<CreateArgs> {
        Ok(CreateArgs {
            bundle: self.bundle(),
            id: self.id()?,
            pid_file: self.path("pid-file"),
            console_socket: self.path("console-socket"),
            pidfd_socket: self.path("pidfd-socket"),
            no_pivot: self.has("no-pivot"),
            no_new_keyring: self.has("no-new-keyring"),
            preserve_fds: self.0.get_one("preserve-fds").copied().unwrap_or(0),
            systemd_cgroup: false,
            rootless: None,
        })
    }

    fn criu(&self) -> Result<CriuArgs> {
        let mut empty_network = false;
        for namespace in self.texts("empty-ns")? {
            match namespace.as_str() {
                "network" => empty_network = true,
                other => bail!("--empty-ns {other}: only the network namespace can be left empty"),
            }
        }
        Ok(CriuArgs {
            image_path: self.path("image-path"),
            work_path: self.path("work-path"),
            tcp_established: self.has("tcp-established"),
            ext_unix_sk: self.has("ext-unix-sk"),
            shell_job: self.has("shell-job"),
            lazy_pages: self.has("lazy-pages"),
            file_locks: self.has("file-locks"),
            auto_dedup: self.has("auto-dedup"),
            cgroup_mode: match self.text("manage-cgroups-mode")?.as_deref() {
                None => None,
                Some("soft") => Some(CgroupMode::Soft),
                Some("full") => Some(CgroupMode::Full),
                Some("strict") => Some(CgroupMode::Strict),
                Some("ignore") => Some(CgroupMode::Ignore),
                Some(other) => {
                    bail!("--manage-cgroups-mode {other}: use soft, full, strict or ignore")
                }
            },
            empty_network,
        })
    }

    fn checkpoint(&self) -> Result<CheckpointArgs> {
        let status_fd = match self.text("status-fd")?.as_deref() {
            // runc's own default, which engines may repeat.
            None | Some("-1") => None,
            Some(typed) => match typed.parse::<u16>() {
                Ok(fd) => Some(fd.into()),
                Err(_) => bail!("--status-fd {typed}: not the number of a descriptor"),
            },
        };
        let page_server = match self.text("page-server")? {
            None => None,
            Some(typed) => {
                let server = typed.rsplit_once(':').and_then(|(address, port)| {
                    Some((address.to_owned(), port.parse::<u16>().ok()?))
                });
                Some(server.with_context(|| format!("--page-server {typed}: use ADDRESS:PORT"))?)
            }
        };
        Ok(CheckpointArgs {
            id: self.id()?,
            criu: self.criu()?,
            parent_path: self.path("parent-path"),
            leave_running: self.has("leave-running"),
            pre_dump: self.has("pre-dump"),
            tcp_skip_in_flight: self.has("tcp-skip-in-flight"),
            link_remap: self.has("link-remap"),
            status_fd,
            page_server,
        })
    }

    fn restore(&self) -> Result<RestoreArgs> {
        Ok(RestoreArgs {
            run: RunArgs {
                create: CreateArgs {
                    bundle: self.bundle(),
                    id: self.id()?,
                    pid_file: self.path("pid-file"),
                    console_socket: self.path("console-socket"),
                    no_pivot: self.has("no-pivot"),
                    no_new_keyring: self.has("no-new-keyring"),
                    ..CreateArgs::default()
                },
                detach: self.has("detach"),
                keep: false,
                no_subreaper: self.has("no-subreaper"),
            },
            criu: self.criu()?,
            lsm_profile: self.text("lsm-profile")?,
            lsm_mount_context: self.text("lsm-mount-context")?,
        })
    }

    fn exec(&self) -> Result<ExecArgs> {
        Ok(ExecArgs {
            id: self.id()?,
            command: self.texts("COMMAND")?,
            process: self.path("process"),
            cwd: self.path("cwd"),
            env: self.texts("env")?,
            tty: self.has("tty"),
            user: self.text("user")?,
            additional_gids: self.texts("additional-gids")?,
            process_label: self.text("process-label")?,
            apparmor: self.text("apparmor")?,
            no_new_privs: self
                .0
                .get_one::<String>("no-new-privs")
                .map(|v| v == "true"),
            caps: self.texts("cap")?,
            console_socket: self.path("console-socket"),
            pidfd_socket: self.path("pidfd-socket"),
            pid_file: self.path("pid-file"),
            detach: self.has("detach"),
            preserve_fds: self.0.get_one("preserve-fds").copied().unwrap_or(0),
            cgroups: self.texts("cgroup")?,
            ignore_paused: self.has("ignore-paused"),
        })
    }

    /// The values of an option that may be repeated, or the operands of that name.
    fn texts(&self, name: &str) -> Result<Vec<String>> {
        let all = self.0.get_many::<OsString>(name).into_iter().flatten();
        all.map(|value| match value.to_str() {
            Some(text) => Ok(text.to_owned()),
            None => bail!("{name}: {value:?} is not UTF-8"),
        })
        .collect()
    }

    /// The value of an option; an empty one is as good as none.
    fn text(&self, name: &str) -> Result<Option<String>> {
        match self.value(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => bail!("{name}: {value:?} is not UTF-8"),
            },
        }
    }

    fn update(&self) -> Result<UpdateArgs> {
        let mut options = Vec::new();
        for flag in UPDATE {
            if let Some(value) = self.value(flag.long).filter(|value| !value.is_empty()) {
                let Some(value) = value.to_str() else {
                    bail!("invalid value for {}: it is no text", flag.long);
                };
                options.push((flag.long, value.to_owned()));
            }
        }
        Ok(UpdateArgs {
            id: self.id()?,
            resources: self.path("resources"),
            options,
        })
    }

    fn interval(&self) -> Result<Duration> {
        let Some(typed) = self.value("interval") else {
            return Ok(Duration::from_secs(5));
        };
        let interval = duration::parse(&typed.to_string_lossy()).context("--interval")?;
        match interval.is_zero() {
            true => bail!("duration interval must be greater than 0"),
            false => Ok(interval),
        }
    }

    fn list_format(&self) -> Result<ListFormat> {
        match self.value("format").map(OsStr::as_bytes) {
            None | Some(b"" | b"table") => Ok(ListFormat::Table),
            Some(b"json") => Ok(ListFormat::Json),
            Some(_) => bail!("invalid format option"),
        }
    }

    /// It only needs to be right: `main` has looked at it already.
    fn check_log_format(&self) -> Result<()> {
        match self.value("log-format").map(OsStr::as_bytes) {
            None | Some(b"" | b"text" | b"json") => {}
            Some(other) => bail!("invalid log-format: {}", String::from_utf8_lossy(other)),
        }
        Ok(())
    }

    /// Whether cgroups may be refused; `None`: to be found out.
    fn rootless(&self) -> Result<Option<bool>> {
        match self.value("rootless").map(OsStr::as_bytes) {
            None | Some(b"" | b"auto") => Ok(None),
            Some(b"true") => Ok(Some(true)),
            Some(b"false") => Ok(Some(false)),
            Some(other) => bail!(
                "invalid value {:?} for --rootless: use true, false or auto",
                String::from_utf8_lossy(other)
            ),
        }
    }

    /// Absolute, so that it still names the same directory after a change of directory.
    fn root(&self) -> Result<PathBuf> {
        let root = self.path("root").unwrap_or_else(|| {
            let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
            match own {
                Some(dir) if has_runtime_dir() => PathBuf::from(dir).join("sc-runtime"),
                _ => "/run/sc-runtime".into(),
            }
        });
        std::path::absolute(&root).with_context(|| format!("--root {}", root.display()))
    }
}

/// Is `$XDG_RUNTIME_DIR` the caller's own? An ordinary user's is, and as in runc that of whoever is
/// root only of a user namespace (podman's own, say), unless it goes by the name.
fn has_runtime_dir() -> bool {
    !nix::unistd::geteuid().is_root()
        || !host::in_initial_user_namespace().unwrap_or(true)
            && std::env::var_os("USER").is_none_or(|name| name != "root")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_table_is_sound() {
        let mut command = command();
        command.build();
        command.debug_assert();
    }

    #[test]
    fn options_as_go_takes_them_become_options_as_clap_takes_them() {
        for (typed, normal) in [
            ("", ""),
            ("list", "list --"),
            ("-v", "--version"),
            ("-version", "--version"),
            ("--version=false list", "list --"),
            ("--root /r list", "--root=/r list --"),
            (
                "-root /r -log=f list -q",
                "--root=/r --log=f list --quiet --",
            ),
            ("--root", "--root"),
            ("--root --debug list", "--root=--debug list --"),
            ("-- list", "list --"),
            ("--bogus list", "--bogus list --"),
            ("create --bundle b x", "create --bundle=b -- x"),
            ("create x -b b", "create --bundle=b -- x"),
            (
                "create x -bundle=b --no-pivot",
                "create --bundle=b --no-pivot -- x",
            ),
            ("create --bundle", "create --bundle --"),
            ("create -- -x", "create -- -x"),
            ("create - x", "create -- - x"),
            (
                "run -no-subreaper -d=true --keep=0 x",
                "run --no-subreaper --detach -- x",
            ),
            ("delete x -f", "delete --force -- x"),
            ("delete --force=xx x", "delete --force=xx -- x"),
            ("delete -fq x", "delete --fq -- x"),
            ("delete -h", "delete --help --"),
            ("-h", "--help"),
            ("kill x -9", "kill -- x -9"),
            ("kill -a x --all", "kill --all -- x --all"),
            ("kill --all=true x KILL", "kill --all -- x KILL"),
            ("bogus -b x", "bogus -b x"),
            ("help create", "help create"),
        ] {
            assert_eq!(normalise(words(typed)), words(normal), "{typed}");
        }
    }

    fn verb(line: &str) -> Verb {
        match parse(&normalise(words(line))).unwrap() {
            Typed::Verb(_, verb) => verb,
            Typed::Print(text) => panic!("{text}"),
        }
    }

    fn refused(line: &str) -> (u8, String) {
        let Refused { status, why } = parse(&normalise(words(line))).unwrap_err();
        (status, format!("{why:#}"))
    }

    #[test]
    fn what_containerd_and_podman_type_is_understood() {
        let create = CreateArgs {
            bundle: "/b".into(),
            id: "x".into(),
            pid_file: Some("/b/init.pid".into()),
            ..CreateArgs::default()
        };
        assert_eq!(
            verb(
                "--root /run/c/k8s --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid x"
            ),
            Verb::Create(create.clone())
        );
        assert_eq!(
            verb(
                "create --bundle /b --pid-file /b/init.pid --no-pivot --no-new-keyring --preserve-fds 2 --console-socket s x"
            ),
            Verb::Create(CreateArgs {
                no_pivot: true,
                no_new_keyring: true,
                preserve_fds: 2,
                console_socket: Some("s".into()),
                ..create.clone()
            })
        );
        assert_eq!(
            verb("run -b /b --pid-file /b/init.pid --detach -no-subreaper --keep x"),
            Verb::Run(RunArgs {
                create,
                detach: true,
                keep: true,
                no_subreaper: true
            })
        );
        let (id, signal) = ("x".to_owned(), "9".to_owned());
        assert_eq!(
            verb("kill --all x 9"),
            Verb::Kill {
                id: id.clone(),
                signal,
                all: true
            }
        );
        assert_eq!(
            verb("kill x"),
            Verb::Kill {
                id: id.clone(),
                signal: String::new(),
                all: false
            }
        );
        assert_eq!(
            verb("delete --force x"),
            Verb::Delete {
                id: id.clone(),
                force: true
            }
        );
        assert_eq!(
            verb("delete x --force --force"),
            Verb::Delete {
                id: id.clone(),
                force: true
            }
        );
        assert_eq!(
            verb("--systemd-cgroup create x"),
            Verb::Create(CreateArgs {
                bundle: ".".into(),
                id: id.clone(),
                systemd_cgroup: true,
                ..CreateArgs::default()
            })
        );
        for (typed, rootless) in [
            ("--rootless true", Some(true)),
            ("--rootless=false", Some(false)),
            ("--rootless auto", None),
        ] {
            let expected = CreateArgs {
                bundle: ".".into(),
                id: id.clone(),
                rootless,
                ..CreateArgs::default()
            };
            assert_eq!(verb(&format!("{typed} create x")), Verb::Create(expected));
        }
        assert_eq!(
            verb("--systemd-cgroup delete x"),
            Verb::Delete {
                id: id.clone(),
                force: false
            }
        );
        assert_eq!(
            verb("state -- -x"),
            Verb::State {
                id: "-x".to_owned()
            }
        );
        assert_eq!(
            verb("list --format=json"),
            Verb::List {
                format: ListFormat::Json,
                quiet: false
            }
        );
        assert_eq!(
            verb("list -f table -q"),
            Verb::List {
                format: ListFormat::Table,
                quiet: true
            }
        );
        assert_eq!(
            verb("spec -b d --rootless"),
            Verb::Spec {
                bundle: "d".into(),
                rootless: true
            }
        );
        assert_eq!(verb("start x"), Verb::Start { id });
    }

    #[test]
    fn what_is_typed_of_a_process_is_understood() {
        let exec = |line: &str| match verb(line) {
            Verb::Exec(args) => *args,
            other => panic!("{other:?}"),
        };
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        // containerd's and podman's.
        let engines = ExecArgs {
            id: "x".into(),
            process: Some("/tmp/p.json".into()),
            console_socket: Some("s".into()),
            detach: true,
            pid_file: Some("p".into()),
            ..ExecArgs::default()
        };
        assert_eq!(
            exec("exec --process /tmp/p.json --console-socket s --detach --pid-file p x"),
            engines
        );
        let typed = ExecArgs {
            id: "x".into(),
            command: list(&["ls", "-e", "--", "--tty"]),
            env: list(&["A=1", "B=2"]),
            user: Some("1:2".into()),
            additional_gids: list(&["3", "-4"]),
            caps: list(&["CAP_KILL", "a,b"]),
            tty: true,
            ..ExecArgs::default()
        };
        assert_eq!(
            exec(
                "exec -e A=1 --env=B=2 -u 1:2 -g 3 --additional-gids=-4 -c CAP_KILL --cap a,b -t x ls -e -- --tty"
            ),
            typed
        );
        for (flag, expected) in [
            ("", None),
            ("--no-new-privs", Some(true)),
            ("--no-new-privs=1", Some(true)),
            ("--no-new-privs=false", Some(false)),
            ("-no-new-privs --no-new-privs=f", Some(false)),
        ] {
            let args = exec(&format!("exec {flag} x true"));
            assert_eq!(args.no_new_privs, expected, "{flag}");
        }
        assert_eq!(verb("exec x true").status_of_failure(), 255);
        assert_eq!(verb("start x").status_of_failure(), 1);
        assert_eq!(refused("exec").0, 1);
    }

    #[test]
    fn what_engines_type_to_control_a_container_is_understood() {
        let id = || "x".to_owned();
        let ps = |format, options: &str| Verb::Ps {
            id: id(),
            format,
            options: words(options),
        };
        for (line, expected) in [
            ("ps --format json x", ps(ListFormat::Json, "")),
            ("ps -f=table x", ps(ListFormat::Table, "")),
            (
                "ps x -o pid,comm -f json",
                ps(ListFormat::Table, "-o pid,comm -f json"),
            ),
            ("ps x aux", ps(ListFormat::Table, "aux")),
            ("ps x -- -e", ps(ListFormat::Table, "-- -e")),
            ("pause x", Verb::Pause { id: id() }),
            ("resume x", Verb::Resume { id: id() }),
        ] {
            assert_eq!(verb(line), expected, "{line}");
        }
        let update = |resources: &str, options: &[(&'static str, &str)]| {
            Verb::Update(UpdateArgs {
                id: id(),
                resources: (!resources.is_empty()).then(|| resources.into()),
                options: options.iter().map(|(o, v)| (*o, (*v).to_owned())).collect(),
            })
        };
        for (line, expected) in [
            ("update --resources=- x", update("-", &[])),
            ("update --resources - x", update("-", &[])),
            ("update -r /tmp/podman1 x", update("/tmp/podman1", &[])),
            ("update x", update("", &[])),
            (
                "update x --memory 512m --cpu-quota -1 --kernel-memory=1 --pids-limit=",
                update(
                    "",
                    &[
                        ("cpu-quota", "-1"),
                        ("kernel-memory", "1"),
                        ("memory", "512m"),
                    ],
                ),
            ),
        ] {
            assert_eq!(verb(line), expected, "{line}");
        }
        let events = |seconds, stats| Verb::Events {
            id: id(),
            interval: Duration::from_secs(seconds),
            stats,
        };
        for (line, expected) in [
            ("events x", events(5, false)),
            ("events --stats x", events(5, true)),
            ("events --interval=1m x", events(60, false)),
        ] {
            assert_eq!(verb(line), expected, "{line}");
        }
    }

    #[test]
    fn what_engines_type_to_checkpoint_is_understood() {
        let criu = |images: &str, work: &str| CriuArgs {
            image_path: Some(images.into()),
            work_path: Some(work.into()),
            ..CriuArgs::default()
        };
        let podman = "checkpoint --image-path I --work-path W --leave-running --tcp-established --file-locks \
                      --parent-path ../pre-checkpoint x";
        let expected = CheckpointArgs {
            id: "x".to_owned(),
            criu: CriuArgs {
                tcp_established: true,
                file_locks: true,
                ..criu("I", "W")
            },
            parent_path: Some("../pre-checkpoint".into()),
            leave_running: true,
            ..CheckpointArgs::default()
        };
        assert_eq!(verb(podman), Verb::Checkpoint(Box::new(expected)));

        let page_server = "checkpoint --page-server ::1:27 --status-fd=7 --manage-cgroups-mode ignore --empty-ns network x";
        let expected = CheckpointArgs {
            id: "x".to_owned(),
            criu: CriuArgs {
                cgroup_mode: Some(CgroupMode::Ignore),
                empty_network: true,
                ..CriuArgs::default()
            },
            status_fd: Some(7),
            page_server: Some(("::1".to_owned(), 27)),
            ..CheckpointArgs::default()
        };
        assert_eq!(verb(page_server), Verb::Checkpoint(Box::new(expected)));

        let containerd = "restore --image-path I --work-path W --parent-path P --detach --pid-file F -no-subreaper \
                          --bundle B x";
        let expected = RestoreArgs {
            run: RunArgs {
                create: CreateArgs {
                    bundle: "B".into(),
                    id: "x".to_owned(),
                    pid_file: Some("F".into()),
                    ..CreateArgs::default()
                },
                detach: true,
                no_subreaper: true,
                ..RunArgs::default()
            },
            criu: criu("I", "W"),
            ..RestoreArgs::default()
        };
        assert_eq!(verb(containerd), Verb::Restore(Box::new(expected)));
        // podman looks for these words.
        let (_, said) = refused("restore --lsm-mount-context");
        assert!(said.contains("flag needs an argument"), "{said}");
    }

    #[test]
    fn an_empty_id_reaches_the_record_to_be_refused() {
        let args = normalise(["delete", "--force", ""].map(OsString::from));
        let Typed::Verb(_, verb) = parse(&args).unwrap() else {
            panic!()
        };
        assert_eq!(
            verb,
            Verb::Delete {
                id: String::new(),
                force: true
            }
        );
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line() {
        for (line, status, why) in [
            ("bogus", 3, "unrecognized subcommand 'bogus'"),
            (
                "lits",
                3,
                "unrecognized subcommand 'lits' tip: a similar subcommand exists: 'list'",
            ),
            (
                "state",
                1,
                "the following required arguments were not provided: <ID>",
            ),
            ("state a b", 1, "unexpected argument 'b' found"),
            ("kill a 9 b", 1, "unexpected argument 'b' found"),
            ("state --nope a", 1, "unexpected argument '--nope' found"),
            ("--nope list", 1, "unexpected argument '--nope' found"),
            (
                "delete --force=xx a",
                1,
                "unexpected value 'xx' for '--force' found; no more were expected",
            ),
            (
                "create --bundle",
                1,
                "flag needs an argument: a value is required for '--bundle <DIR>' but none was supplied",
            ),
            (
                "--root",
                1,
                "flag needs an argument: a value is required for '--root <DIR>' but none was supplied",
            ),
            (
                "create --preserve-fds x a",
                1,
                "invalid value 'x' for '--preserve-fds <N>': invalid digit found in string",
            ),
            ("list -f xml", 1, "invalid format option"),
            ("ps -f xml a", 1, "invalid format option"),
            (
                "events --interval 0 a",
                1,
                "duration interval must be greater than 0",
            ),
            (
                "events --interval 10 a",
                1,
                "--interval: invalid duration \"10\": give a number with a unit, like 500ms, 5s or 1m30s",
            ),
            ("--log-format xml list", 1, "invalid log-format: xml"),
            (
                "--rootless maybe list",
                1,
                "invalid value \"maybe\" for --rootless: use true, false or auto",
            ),
        ] {
            assert_eq!(refused(line), (status, why.to_owned()), "{line}");
        }
    }

    #[test]
    fn the_version_has_the_lines_that_moby_reads() {
        let text = version();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            concat!("sc-runtime version ", env!("CARGO_PKG_VERSION"))
        );
        assert!(lines[1].starts_with("commit: "));
        assert_eq!(lines[2], "spec: 1.3.0");
    }

    #[test]
    fn help_tells_every_verb_and_its_options() {
        let help = |line: &str| match parse(&normalise(words(line))).unwrap() {
            Typed::Print(text) => text,
            Typed::Verb(..) => panic!("{line}"),
        };
        for form in FORMS {
            let shown = help("--help").contains(&format!("\n  {} ", form.verb));
            assert_eq!(shown, !form.hidden, "{}", form.verb);
            for line in [
                format!("{} --help", form.verb),
                format!("help {}", form.verb),
            ] {
                let text = help(&line);
                for flag in form.flags.iter().copied().flatten() {
                    assert_eq!(
                        text.contains(&format!("--{}", flag.long)),
                        !flag.help.is_empty(),
                        "{line}: {}",
                        flag.long
                    );
                }
            }
        }
        assert_eq!(help(""), help("-h"));
    }

    #[test]
    fn messages_go_where_was_typed_even_if_the_rest_is_wrong() {
        let log = log_of(&normalise(words(
            "--log f --log-format json --debug bogus --log g",
        )));
        let expected = Log::new(Some("f".into()), Format::Json, true);
        assert_eq!(format!("{log:?}"), format!("{expected:?}"));
    }
}
