//! How does an ordinary user's container reach the network? By a program of the user's that carries what goes through a
//! device in the container to sockets of its own: pasta (Debian: passt), else slirp4netns.

use super::claim::Given;
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
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where pasta answers questions for names: an address that is nobody's.
const PASTA_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// slirp4netns(1)
const SLIRP_DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const SLIRP_OWN: &str = "10.0.2.100";

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
    let (ports, sockets) = reserve::all(home, &wanted.ports, false)?;
    drop(sockets);
    let given = Given {
        ports,
        dns: wanted.dns.clone(),
        ..Given::default()
    };
    let program = match program() {
        Some("pasta") => pasta(&given.ports, dir)?,
        Some(_) => slirp(&given.ports, pid)?,
        None => bail!(
            "without root a network needs pasta (Debian: passt) or slirp4netns: install one, or use --network none or host"
        ),
    };
    Ok((program, given))
}

fn pasta(ports: &[Port], dir: &Path) -> Result<Program> {
    let number = dir.join("pasta.pid");
    let _ = fs::remove_file(&number);
    let mut command = Command::new("pasta");
    command
        .args(["--config-net", "--quiet", "--no-map-gw", "--dns-forward"])
        .arg(PASTA_DNS.to_string())
        .arg("--pid")
        .arg(&number);
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
    ensure!(
        ports.iter().all(|port| port.protocol != Protocol::Sctp),
        "--publish: without root, only tcp and udp"
    );
    // The monitor has those blocked that end it.
    process::unblock_signals_in(&mut command);
    // Nor are the user's own ports the container's.
    let output = command
        .args(["-T", "none", "-U", "none"])
        .arg("--userns")
        .arg(dir.join("userns"))
        .arg("--netns")
        .arg(dir.join("netns"))
        .stdin(Stdio::null())
        .output();
    let output = output.context("execute pasta")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "pasta: {}",
        said.trim().lines().last().unwrap_or("failed")
    );
    Ok(Program::Pasta(number))
}

fn slirp(ports: &[Port], pid: i32) -> Result<Program> {
    // Relative, as an address has room for 107 bytes; the container's directory is the working directory.
    let api = Path::new("slirp");
    let _ = fs::remove_file(api);
    let mut child = Command::new("slirp4netns")
        .args(["--configure", "--mtu=65520", "--disable-host-loopback"])
        .args(["--ready-fd=1", "--exit-fd=0", "--api-socket"])
        .arg(api)
        .arg(pid.to_string())
        .arg("tap0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("execute slirp4netns")?;
    let mut ready = [0];
    let told = child
        .stdout
        .take()
        .context("no pipe")?
        .read_exact(&mut ready);
    let program = Program::Slirp(child);
    told.context("slirp4netns ended before the network was there")?;
    for port in ports {
        publish(api, port).with_context(|| format!("--publish {port}"))?;
    }
    Ok(program)
}

/// One request a connection (slirp4netns(1), API SOCKET).
fn publish(api: &Path, port: &Port) -> Result<()> {
    ensure!(
        port.protocol != Protocol::Sctp,
        "without root, only tcp and udp"
    );
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
            Program::Pasta(number) => end_pasta(number),
            Program::Slirp(child) => {
                drop(child.stdin.take());
                let _ = child.wait();
            }
        }
    }
}

/// Ends the pasta with its number in the file, if it is one.
pub fn end_pasta(number: &Path) {
    let pid = fs::read_to_string(number)
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(pid) = pid
        && let Ok(process) = pidfd::open(pid)
        // The number may be another's by now; not any more once it is open.
        && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("pasta") || name.starts_with("passt"))
    {
        let _ = pidfd::send_signal(process.as_fd(), libc::SIGTERM);
    }
    let _ = fs::remove_file(number);
}
