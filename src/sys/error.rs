//! What a refused system call looks like: its name, its arguments, its errno.

use nix::errno::Errno;
use std::fmt;

/// A system call that failed. Prints as `open_tree("/srv/d", OPEN_TREE_CLONE): no such file or directory`.
#[derive(Debug, Clone)]
pub struct Error {
    pub call: &'static str,
    pub args: String,
    pub errno: Errno,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The call that just failed on this thread, with errno(3) as it left it.
    pub fn last(call: &'static str, args: impl Into<String>) -> Self {
        Self::new(call, args, Errno::last())
    }

    pub fn new(call: &'static str, args: impl Into<String>, errno: Errno) -> Self {
        Error {
            call,
            args: args.into(),
            errno,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Lower case, as the words of Go's runtimes are: engines search for them.
        let why = self.errno.desc().to_lowercase();
        write!(f, "{}({}): {why}", self.call, self.args)
    }
}

impl std::error::Error for Error {}

/// Names a refused call of nix: `mkdirat(fd, name, mode).call("mkdirat", || format!("{name:?}"))?`.
pub trait Call<T> {
    fn call(self, name: &'static str, args: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Call<T> for nix::Result<T> {
    fn call(self, name: &'static str, args: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::new(name, args(), errno))
    }
}

/// Runs `call` until it is not interrupted. Gives its non-negative result, or the error that
/// `args` describes (made only then: no formatting on the fast path).
pub(super) fn retry(
    name: &'static str,
    args: impl Fn() -> String,
    mut call: impl FnMut() -> libc::c_long,
) -> Result<libc::c_long> {
    loop {
        let r = call();
        if r >= 0 {
            return Ok(r);
        }
        if Errno::last() != Errno::EINTR {
            return Err(Error::last(name, args()));
        }
    }
}
