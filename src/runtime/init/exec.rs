//! The last steps: find the program, wait to be started, become it. Holds the only execve(2).

use crate::runtime::plan::ProcessPlan;
use crate::sys;
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::unistd::AccessFlags;
use std::ffi::CString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// All that execve(2) needs, prepared while an error can still be told at `create`.
pub struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Finds `process.args[0]` as a shell would, in the PATH of the container's environment.
    /// `home` is from [`home`].
    pub fn find(process: &ProcessPlan, home: Option<String>) -> Result<Self> {
        let Some(name) = process.args.first() else {
            bail!("process.args is empty: nothing to execute");
        };
        let path = look_up(name, path_of(&process.env))?;
        let mut env = process.env.clone();
        if let Some(home) = home {
            env.retain(|kv| !kv.starts_with("HOME="));
            env.push(format!("HOME={home}"));
        }
        Ok(Program {
            path: CString::new(path.as_os_str().as_bytes())?,
            args: c_strings(&process.args).context("process.args")?,
            env: c_strings(&env).context("process.env")?,
        })
    }

    /// Returns only when refused.
    pub fn execute(&self) -> anyhow::Error {
        let e = sys::process::exec(&self.path, &self.args, &self.env);
        let name = self.path.to_string_lossy();
        anyhow!("exec {name}: {}", e.errno.desc().to_lowercase())
    }
}

fn c_strings(list: &[String]) -> Result<Vec<CString>> {
    let own = |s: &String| CString::new(s.as_str()).map_err(|_| anyhow!("{s:?} holds a NUL byte"));
    list.iter().map(own).collect()
}

fn path_of(env: &[String]) -> &str {
    env.iter()
        .rev()
        .find_map(|kv| kv.strip_prefix("PATH="))
        .unwrap_or("")
}

/// The words are those of Go's os/exec, which engines search for (podman: exit status 127, 126).
fn look_up(name: &str, search: &str) -> Result<PathBuf> {
    if name.contains('/') {
        let refusal = |e: Errno| match e {
            Errno::EACCES => anyhow!("exec: {name:?}: permission denied"),
            e => anyhow!("exec: {name:?}: stat {name}: {}", e.desc().to_lowercase()),
        };
        return executable(Path::new(name))
            .map(|()| name.into())
            .map_err(refusal);
    }
    let mut denied = false;
    for dir in search.split(':') {
        // An empty entry is the working directory (execvp(3)).
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = Path::new(dir).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        bail!("exec: {name:?}: permission denied");
    }
    bail!("exec: {name:?}: executable file not found in $PATH")
}

/// Whether this process may execute `path`; a directory may not be executed.
fn executable(path: &Path) -> nix::Result<()> {
    nix::unistd::faccessat(
        sys::mount::cwd(),
        path,
        AccessFlags::X_OK,
        nix::fcntl::AtFlags::AT_EACCESS,
    )?;
    match nix::sys::stat::stat(path)? {
        stat if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => Err(Errno::EACCES),
        _ => Ok(()),
    }
}

/// What HOME is to be, where the environment does not say. To be asked before the process's limits
/// and user are set: they must not decide whether /etc/passwd can be read.
pub fn home(process: &ProcessPlan) -> Option<String> {
    let given = |kv: &String| kv.strip_prefix("HOME=").is_some_and(|v| !v.is_empty());
    match process.env.iter().any(given) {
        true => None,
        false => Some(home_of(process.uid)),
    }
}

/// The home directory of `uid` in the container's /etc/passwd, `/` where it has none. Read in
/// pieces and with an end: the file is the image's (CVE-2026-61801).
fn home_of(uid: u32) -> String {
    const LONGEST_FILE: u64 = 16 << 20;
    let fallback = || "/".to_owned();
    // A pipe in its place would block open(2), a device could be read for ever.
    let open = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/etc/passwd");
    let Ok(file) = open else {
        return fallback();
    };
    match file.metadata() {
        Ok(meta) if meta.is_file() => {}
        _ => return fallback(),
    }
    let mut lines = BufReader::with_capacity(4096, file.take(LONGEST_FILE));
    let mut line = Vec::new();
    while let Ok(1..) = (&mut lines).take(64 * 1024).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        let mut fields = text.trim_end().split(':');
        // name:password:uid:gid:comment:home:shell
        if fields.nth(2).and_then(|u| u.parse().ok()) == Some(uid) {
            return match fields.nth(2) {
                Some(home) if !home.is_empty() => home.to_owned(),
                _ => fallback(),
            };
        }
        line.clear();
    }
    fallback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_or_refused_in_the_words_engines_know() {
        let say = |name: &str, path: &str| match look_up(name, path) {
            Ok(path) => path.display().to_string(),
            Err(e) => e.to_string(),
        };
        assert_eq!(say("sh", "/nowhere:/bin"), "/bin/sh");
        assert_eq!(
            say("no-such", "/bin:/usr/bin"),
            "exec: \"no-such\": executable file not found in $PATH"
        );
        assert_eq!(
            say("/no/such", ""),
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
        assert_eq!(
            say("/etc/passwd", ""),
            "exec: \"/etc/passwd\": permission denied"
        );
        assert_eq!(say("/etc", ""), "exec: \"/etc\": permission denied");
    }

    #[test]
    fn the_last_path_of_the_environment_counts() {
        let env = ["PATH=/a".to_owned(), "X=1".to_owned(), "PATH=/b".to_owned()];
        assert_eq!(path_of(&env), "/b");
        assert_eq!(path_of(&[]), "");
    }
}
