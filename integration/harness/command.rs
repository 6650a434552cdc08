//! One call of the runtime, with a deadline. Output goes to files and not to pipes: a container
//! inherits them, and a pipe would end only with the container.

use super::machine::{CGROUPS, machine};
use super::{Context, Place, Result, kernel};
use anyhow::bail;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A command line being written.
pub struct Call {
    command: Command,
    words: String,
    stdout: PathBuf,
    stderr: PathBuf,
    stdin: Stdio,
    fds: Vec<(OwnedFd, RawFd)>,
    cgroup: PathBuf,
    traced: bool,
    /// Who calls; 0 is root.
    user: u32,
    filter: Vec<libc::sock_filter>,
}

/// A call that is under way.
pub struct Running {
    child: Child,
    words: String,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

/// How a call ended. A status of 128+n stands for signal n.
#[derive(Debug)]
pub struct Outcome {
    pub words: String,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Call {
    pub fn new<S: AsRef<OsStr>>(
        place: &Place,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Call {
        let number = place.next_number();
        let args: Vec<OsString> = args
            .into_iter()
            .map(|a| a.as_ref().to_os_string())
            .collect();
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let words = args
            .iter()
            .fold(name, |line, arg| line + " " + &arg.to_string_lossy());
        let mut command = Command::new(program);
        command.args(&args).current_dir(&place.dir);
        if place.user() != 0 {
            command.env_remove("XDG_RUNTIME_DIR");
        }
        Call {
            command,
            words,
            stdout: place.dir.join(format!("call-{number}.out")),
            stderr: place.dir.join(format!("call-{number}.err")),
            stdin: Stdio::null(),
            fds: Vec::new(),
            cgroup: PathBuf::from(format!("{CGROUPS}{}/runner/cgroup.procs", place.cgroup)),
            traced: false,
            user: place.user(),
            filter: match machine().without.is_empty() {
                true => Vec::new(),
                false => kernel::without_calls(&machine().without),
            },
        }
    }

    /// On a kernel that does not have these system calls, as far as the runtime can tell.
    pub fn without(mut self, numbers: &[libc::c_long]) -> Call {
        self.filter = match numbers {
            [] => Vec::new(),
            some => kernel::without_calls(some),
        };
        self
    }

    pub fn current_dir(mut self, dir: &Path) -> Call {
        self.command.current_dir(dir);
        self
    }

    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Call {
        self.command.env(key, value);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Call {
        self.stdin = stdin.into();
        self
    }

    /// Hands a descriptor to the runtime under a number of the test's choice.
    pub fn fd(mut self, fd: impl Into<OwnedFd>, number: RawFd) -> Result<Call> {
        // Out of the way of the numbers that are to be filled.
        let fd = kernel::dup_above(fd.into().as_fd(), 100)?;
        self.fds.push((fd, number));
        Ok(self)
    }

    /// The runtime asks to be traced and stops at its execve: for `tracer.rs`.
    pub fn traced(mut self) -> Call {
        self.traced = true;
        self
    }

    pub fn spawn(mut self) -> Result<Running> {
        // So that whatever this call leaves behind can be found, whoever its parent is by then.
        let cgroup = OpenOptions::new().write(true).open(&self.cgroup)?;
        let cgroup = kernel::dup_above(cgroup.as_fd(), 100)?;
        let (fds, traced, user) = (std::mem::take(&mut self.fds), self.traced, self.user);
        let filter = std::mem::take(&mut self.filter);
        self.command
            .stdin(self.stdin)
            .stdout(File::create(&self.stdout)?)
            .stderr(File::create(&self.stderr)?);
        // SAFETY: between fork and exec only system calls are made: no allocation, no lock.
        unsafe {
            self.command.pre_exec(move || {
                kernel::write(cgroup.as_raw_fd(), b"0")?;
                for (fd, number) in &fds {
                    kernel::dup_to(fd.as_raw_fd(), *number)?;
                }
                if !filter.is_empty() {
                    kernel::filter(&filter)?;
                }
                if user != 0 {
                    // After the filter, which takes CAP_SYS_ADMIN where newuidmap(1) shall still work.
                    kernel::become_user(user)?;
                }
                if traced {
                    super::tracer::ask_to_be_traced()
                } else {
                    Ok(())
                }
            });
        }
        let child = self.command.spawn().with_context(|| self.words.clone())?;
        Ok(Running {
            child,
            words: self.words,
            stdout: self.stdout,
            stderr: self.stderr,
        })
    }

    pub fn run(self) -> Result<Outcome> {
        self.spawn()?.wait()
    }
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn wait(mut self) -> Result<Outcome> {
        let pidfd = kernel::pidfd_open(self.pid())?;
        if !kernel::ended_within(pidfd.as_fd(), machine().patience())? {
            self.child.kill()?;
            self.child.wait()?;
            bail!(
                "{}: still running after {:?}; stderr: {}",
                self.words,
                machine().patience(),
                read(&self.stderr)
            );
        }
        let status = self.child.wait()?;
        Ok(self.outcome(
            status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        ))
    }

    /// For a caller that has waited for the process itself.
    pub fn outcome(self, status: i32) -> Outcome {
        let (stdout, stderr) = (read(&self.stdout), read(&self.stderr));
        Outcome {
            words: self.words,
            status,
            stdout,
            stderr,
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

impl Outcome {
    #[track_caller]
    pub fn ok(self) -> Outcome {
        assert_eq!(
            self.status, 0,
            "{}\nstdout: {}\nstderr: {}",
            self.words, self.stdout, self.stderr
        );
        self
    }

    /// What was printed, when the status was 0, without the white space around it.
    #[track_caller]
    pub fn text(self) -> String {
        self.ok().stdout.trim().to_string()
    }

    /// The error as a user reads it: runc's logrus quoting is taken off.
    pub fn message(&self) -> String {
        self.stderr
            .replace("\\\"", "\"")
            .replace("\\\\", "\\")
            .trim()
            .to_string()
    }

    /// Status 1 and the error: one line, on stderr, containing all the words. (crun has words of its
    /// own, so with it as the stand-in only the failure counts.)
    #[track_caller]
    pub fn fails(self, words: &[&str]) -> Outcome {
        self.fails_with(1, words)
    }

    /// The same with another status: `exec` has 255 for its own failures.
    #[track_caller]
    pub fn fails_with(self, status: i32, words: &[&str]) -> Outcome {
        assert_ne!(
            self.status, 0,
            "{} should have failed\nstdout: {}\nstderr: {}",
            self.words, self.stdout, self.stderr
        );
        assert!(
            !self.stderr.contains("panicked at"),
            "{}: {}",
            self.words,
            self.stderr
        );
        if !machine().is("crun") {
            assert_eq!(
                self.status, status,
                "{}: exit status; stderr: {}",
                self.words, self.stderr
            );
            let message = self.message();
            for word in words {
                assert!(
                    message.contains(word),
                    "{}: no {word:?} in the error:\n{message}",
                    self.words
                );
            }
        }
        if machine().is("sc-runtime") {
            assert_eq!(
                self.stderr.trim_end().lines().count(),
                1,
                "{}: not one line:\n{}",
                self.words,
                self.stderr
            );
            assert_eq!(
                self.stdout, "",
                "{}: an error belongs on stderr",
                self.words
            );
        }
        self
    }
}
