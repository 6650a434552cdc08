//! How does an ordinary user's container reach the network? By a program of the user's that carries what goes through a
//! device in the container to sockets of its own: pasta (Debian: passt), else slirp4netns.

use super::claim::Given;
use super::link::Namespace;
use super::ports::{Port, Protocol};
use super::reserve;
use super::wanted::Wanted;
use crate::engine::record::Home;
use crate::sys::{pidfd, process};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where pasta answers questions for names: an address that is nobody's.
const PASTA_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// slirp4netns(1)
const SLIRP_DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const SLIRP_OWN: &str = "10.0.2.100";

const MISSING: &str =
    "without root a network needs pasta (Debian: passt) or slirp4netns: install one";

/// For how long the end of one is waited for; it takes a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// The one that runs.
pub enum Program {
    /// It goes into the background when all is set up; its number is in the file.
    Pasta(PathBuf),
    /// It ends with its stdin.
    Slirp(Child),
}

/// Which of them is installed?
pub fn program() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    ["pasta", "slirp4netns"]
        .into_iter()
        .find(|name| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Connects the network namespace of a process; it and its user namespace are mounted at `netns` and `userns`.
pub fn start(home: &Home, wanted: &Wanted, pid: i32, dir: &Path) -> Result<(Program, Given)> {
    // The sockets are closed again: the program makes its own. But who has a port is told here as everywhere.
    let (ports, sockets) = reserve::all(home, &wanted.ports, |_| reserve::Use::Answered)?;
    drop(sockets);
    let given = Given {
        ports,
        dns: wanted.dns.clone(),
        ..Given::default()
    };
    let program = match program() {
        Some("pasta") => pasta(&given.ports, dir)?,
        Some(_) => slirp(&given.ports, pid)?,
        None => bail!("{MISSING}, or use --network none or host"),
    };
    Ok((program, given))
}

fn pasta(ports: &[Port], dir: &Path) -> Result<Program> {
    let number = dir.join("pasta.pid");
    let mut command = pasta_command(&number);
    for (option, protocol) in [("-t", Protocol::Tcp), ("-u", Protocol::Udp)] {
        let mut none = true;
        for port in ports.iter().filter(|port| port.protocol == protocol) {
            let address = port.address.map(|address| format!("{address}/"));
            let spec = format!(
                "{}{}:{}",
                address.unwrap_or_default(),
                port.host,
                port.container
            );
            command.arg(option).arg(spec);
            none = false;
        }
        // Else it would publish all that listens.
        command.args(none.then_some([option, "none"]).into_iter().flatten());
    }
    command
        .arg("--userns")
        .arg(dir.join("userns"))
        .arg("--netns")
        .arg(dir.join("netns"))
        .stdin(Stdio::null());
    into_background(command)?;
    Ok(Program::Pasta(number))
}

fn pasta_command(number: &Path) -> Command {
    let _ = fs::remove_file(number);
    let mut command = Command::new("pasta");
    command
        .args(["--config-net", "--quiet", "--no-map-gw", "--dns-forward"])
        .arg(PASTA_DNS.to_string())
        // The user's own ports are not the container's.
        .args(["-T", "none", "-U", "none", "--pid"])
        .arg(number);
    command
}

/// It is there when all is set up.
fn into_background(mut pasta: Command) -> Result<()> {
    // Until then its number is nowhere: it is not to outlive who would write it down.
    process::end_with_parent(&mut pasta);
    let output = pasta.output().context("execute pasta")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "pasta: {}",
        said.trim().lines().last().unwrap_or("failed")
    );
    Ok(())
}

/// Connects a network namespace of the caller's user namespace, publishing nothing, until [`end`] of what is at
/// `number` then.
pub fn carry(net: &Namespace, number: &Path) -> Result<()> {
    // Its own descriptor: others' it may not look at.
    const NET: &str = "/proc/self/fd/0";
    let net = net.fd().try_clone_to_owned()?;
    match program() {
        Some("pasta") => {
            let mut command = pasta_command(number);
            command.args(["-t", "none", "-u", "none", "--netns-only"]);
            command.args(["--no-netns-quit", "--netns", NET]).stdin(net);
            into_background(command)
        }
        Some(_) => {
            let mut command = slirp_command();
            command.args(["--netns-type=path", NET, "tap0"]).stdin(net);
            let mut child = command.spawn().context("execute slirp4netns")?;
            fs::write(number, child.id().to_string())?;
            let ready = is_ready(&mut child);
            if ready.is_err() {
                end(number);
            }
            ready
        }
        None => bail!(MISSING),
    }
}

fn slirp(ports: &[Port], pid: i32) -> Result<Program> {
    // Relative, as an address has room for 107 bytes; the container's directory is the working directory.
    let api = Path::new("slirp");
    let _ = fs::remove_file(api);
    let mut child = slirp_command()
        .args(["--exit-fd=0", "--api-socket"])
        .arg(api)
        .arg(pid.to_string())
        .arg("tap0")
        .stdin(Stdio::piped())
        .spawn()
        .context("execute slirp4netns")?;
    let ready = is_ready(&mut child);
    let program = Program::Slirp(child);
    ready?;
    for port in ports {
        publish(api, port).with_context(|| format!("--publish {port}"))?;
    }
    Ok(program)
}

fn slirp_command() -> Command {
    let mut command = Command::new("slirp4netns");
    command
        .args(["--configure", "--mtu=65520", "--disable-host-loopback"])
        .arg("--ready-fd=1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn is_ready(slirp: &mut Child) -> Result<()> {
    let mut ready = [0];
    let mut told = slirp.stdout.take().context("no pipe")?;
    told.read_exact(&mut ready)
        .context("slirp4netns ended before the network was there")
}

/// One request a connection (slirp4netns(1), API SOCKET).
fn publish(api: &Path, port: &Port) -> Result<()> {
    let address = match port.address {
        None => IpAddr::from([0; 4]),
        Some(address) => address,
    };
    ensure!(
        address.is_ipv4(),
        "slirp4netns publishes only at IPv4 addresses: install passt"
    );
    let request = json!({
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol.name(),
            "host_addr": address,
            "host_port": port.host,
            "guest_addr": SLIRP_OWN,
            "guest_port": port.container,
        }
    });
    let mut socket = UnixStream::connect(api).context("slirp4netns")?;
    socket.write_all(request.to_string().as_bytes())?;
    socket.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    socket.read_to_string(&mut said)?;
    ensure!(!said.contains("\"error\""), "slirp4netns: {said}");
    Ok(())
}

impl Program {
    /// Where it answers questions for names.
    pub fn server(&self) -> IpAddr {
        match self {
            Program::Pasta(_) => PASTA_DNS.into(),
            Program::Slirp(_) => SLIRP_DNS.into(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        match self {
            Program::Pasta(number) => end(number),
            Program::Slirp(child) => {
                drop(child.stdin.take());
                let _ = child.wait();
            }
        }
    }
}

/// The program of ours that has its number in the file, if it is one, and whether that is a pasta.
fn running(number: &Path) -> Option<(OwnedFd, bool)> {
    let text = fs::read_to_string(number).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let process = pidfd::open(pid).ok()?;
    // The number may be another's by now; not any more once it is open.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let is_pasta = name.starts_with("pasta") || name.starts_with("passt");
    let is_ours = is_pasta || name.starts_with("slirp4netns");
    // A corpse that nobody has taken away yet has its name still.
    let has_ended = pidfd::wait(process.as_fd(), Duration::ZERO).ok()?;
    (is_ours && !has_ended).then_some((process, is_pasta))
}

/// Where it answers questions for names; `None`: it does not run.
pub fn server(number: &Path) -> Option<IpAddr> {
    let (_, is_pasta) = running(number)?;
    Some(if is_pasta { PASTA_DNS } else { SLIRP_DNS }.into())
}

/// Ends it.
pub fn end(number: &Path) {
    if let Some((process, _)) = running(number) {
        // The first process of a pid namespace of its own, as pasta is, hears nothing less.
        let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
        // Its ports are free when it has gone: the next life may want them at once.
        let _ = pidfd::wait(process.as_fd(), PATIENCE);
    }
    let _ = fs::remove_file(number);
}
