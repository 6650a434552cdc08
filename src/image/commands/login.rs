//! `login` and `logout`: a registry's name and password, proved and kept.

use crate::image::cli::Global;
use crate::image::reference::{DEFAULT_REGISTRY, check_registry};
use crate::image::registry::credentials::{Credentials, place};
use crate::image::registry::registries::Source;
use crate::image::registry::{Access, Client, Hosts};
use crate::image::show;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Stdin, Write};
use std::os::fd::AsFd;

/// A password longer than this is not one.
const PASSWORD_MAX: u64 = 64 << 10;

/// Log in to a registry: prove a name and password there, and keep them
#[derive(Debug, Args)]
pub struct Login {
    /// Host and port
    #[arg(default_value = DEFAULT_REGISTRY, value_parser = registry)]
    registry: String,
    /// User name; asked for on a terminal
    #[arg(short, long)]
    username: Option<String>,
    /// Take the password from stdin; otherwise it is asked for on a terminal
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

/// Forget the name and password kept for a registry
#[derive(Debug, Args)]
pub struct Logout {
    /// Host and port
    #[arg(default_value = DEFAULT_REGISTRY, value_parser = registry)]
    registry: String,
}

/// As users write it: with scheme, with a path of old.
fn registry(text: &str) -> Result<String> {
    let registry = place(text);
    check_registry(registry)?;
    Ok(registry.to_owned())
}

impl Login {
    pub fn run(&self, _: &Global) -> Result<()> {
        let hosts = Hosts::from_environment()?;
        let (user, password) = self.ask()?;
        let registry = &self.registry;
        let source = Source {
            registry: registry.clone(),
            repository: String::new(),
            insecure: hosts.registries.insecure(registry),
            mirror: false,
        };
        let credentials = Credentials::Password {
            user: user.clone(),
            password: password.clone(),
        };
        let tell = |line: &str| show::warn(line);
        let context = || format!("log in to {registry} as {user}");
        let client = Client::connect_as(&hosts, &source, Access::Login, Some(credentials), &tell)
            .with_context(context)?;
        client.prove(&tell).with_context(context)?;
        let place = hosts.keyring.store(registry, &user, &password)?;
        show::print(&format!("Login Succeeded (kept in {place})\n"))
    }

    fn ask(&self) -> Result<(String, String)> {
        let stdin = std::io::stdin();
        if self.password_stdin {
            let mut password = String::new();
            stdin
                .lock()
                .take(PASSWORD_MAX)
                .read_to_string(&mut password)
                .context("read the password from stdin")?;
            let password = password.strip_suffix('\n').unwrap_or(&password);
            let password = password.strip_suffix('\r').unwrap_or(password).to_owned();
            ensure!(!password.is_empty(), "no password on stdin");
            return Ok((self.username.clone().unwrap_or_default(), password));
        }
        if !stdin.is_terminal() {
            bail!(
                "nobody to ask for a password, since stdin is not a terminal: use --username and --password-stdin"
            );
        }
        let user = match &self.username {
            Some(user) => user.clone(),
            None => {
                prompt("Username: ")?;
                let mut line = String::new();
                stdin.read_line(&mut line).context("read the user name")?;
                line.trim().to_owned()
            }
        };
        ensure!(!user.is_empty(), "a user name is needed");
        let password = read_secret(&stdin, "Password: ").context("read the password")?;
        prompt("\n")?;
        let password = password.context("no password was typed")?;
        Ok((user, password))
    }
}

fn prompt(text: &str) -> Result<()> {
    let mut stderr = std::io::stderr();
    stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush())
        .context("write to stderr")
}

/// A line typed without being shown; `None` where it was broken off. Keys that would end the program are read as
/// characters meanwhile, so that the terminal is never left without its echo.
fn read_secret(stdin: &Stdin, question: &str) -> Result<Option<String>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: [u8; 2] = [8, 127];
    const KILL_LINE: u8 = 21;
    // Before the question: an answer may come at once.
    let _silence = Silence::begin(stdin)?;
    prompt(question)?;
    let mut typed = Vec::new();
    for byte in stdin.lock().bytes().take(PASSWORD_MAX as usize) {
        match byte? {
            b'\n' | b'\r' => return Ok(Some(String::from_utf8(typed).context("it is not UTF-8")?)),
            INTERRUPT | END => return Ok(None),
            KILL_LINE => typed.clear(),
            key if BACKSPACE.contains(&key) => {
                // A character may be several bytes: the continuing ones begin with the bits 10.
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            other => typed.push(other),
        }
    }
    Ok(None)
}

/// The terminal without echo, lines and signals, until dropped.
struct Silence<'a> {
    stdin: &'a Stdin,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn begin(stdin: &'a Stdin) -> Result<Silence<'a>> {
        let before = tcgetattr(stdin.as_fd()).context("tcgetattr")?;
        let mut silent = before.clone();
        silent
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &silent).context("tcsetattr")?;
        Ok(Silence { stdin, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // A terminal that has gone needs no echo.
        let _ = tcsetattr(self.stdin.as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

impl Logout {
    pub fn run(&self, _: &Global) -> Result<()> {
        let hosts = Hosts::from_environment()?;
        let registry = &self.registry;
        match hosts.keyring.forget(registry)? {
            true => show::print(&format!("Removed the credentials for {registry}\n")),
            false => show::print(&format!("Not logged in to {registry}\n")),
        }
    }
}
