//! Networks of an ordinary user's containers: pasta, slirp4netns where there is no pasta, the host's and none; on a host
//! in a network namespace of the test's.

use crate::network::{Namespace, neighbours, until};
use crate::place::{Place, program, text};
use crate::sc_rootless::{UID, as_user, home};
use crate::tests;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::{Child, Command, Output, Stdio};

tests! {
    pasta_carries_what_goes_out_and_publishes ["busybox", "setpriv", "newuidmap", "ip", "curl", "pasta", "/dev/net/tun"],
    slirp4netns_does_it_where_there_is_no_pasta ["busybox", "setpriv", "newuidmap", "ip", "curl", "slirp4netns", "/dev/net/tun"],
    without_both_there_is_loopback ["busybox", "setpriv", "newuidmap", "ip"],
    the_hosts_network_is_shared_and_none_is_none ["busybox", "setpriv", "newuidmap", "ip"],
    containers_of_a_network_find_each_other_and_the_way_out ["busybox", "setpriv", "newuidmap", "ip", "nft", "curl", "python3", "pasta", "/dev/net/tun"],
    a_bridge_needs_neither_pasta_nor_a_way_out ["busybox", "setpriv", "newuidmap", "ip", "nft"],
    slirp4netns_connects_bridges_too ["busybox", "setpriv", "newuidmap", "ip", "nft", "curl", "slirp4netns", "/dev/net/tun"],
    a_network_is_shared_by_name_of_the_container ["busybox", "setpriv", "newuidmap", "ip", "nft", "curl", "pasta", "/dev/net/tun"],
    a_shared_network_that_came_back_elsewhere_is_told ["busybox", "setpriv", "newuidmap", "ip"],
    whoever_is_killed_leaves_nothing ["busybox", "setpriv", "newuidmap", "ip", "nft", "curl", "pasta", "/dev/net/tun"],
    a_container_changes_its_networks ["busybox", "setpriv", "newuidmap", "ip", "nft", "curl", "pasta", "/dev/net/tun"],
    many_come_to_one_world_at_once ["busybox", "setpriv", "newuidmap", "ip", "nft"],
}

/// What sc executes as an ordinary user, but for what carries networks.
const TOOLS: [&str; 9] = [
    "sh",
    "rm",
    "env",
    "newuidmap",
    "newgidmap",
    "fuse-overlayfs",
    "nft",
    "busybox",
    "mount",
];

/// An ordinary user on a host with a neighbour, 192.0.2.2, that has a web server.
struct User<'a> {
    place: &'a Place,
    host: Namespace,
    outside: Namespace,
    web: Option<Child>,
}

impl User<'_> {
    /// With only these of the programs that carry networks.
    fn new<'a>(place: &'a Place, carriers: &[&str]) -> Result<User<'a>> {
        home(place, UID)?;
        let (host, outside) = neighbours()?;
        fs::create_dir(place.path("tools"))?;
        for name in TOOLS.iter().chain(carriers) {
            if let Some(path) = program(name) {
                std::os::unix::fs::symlink(path, place.path("tools").join(name))?;
            }
        }
        place.sh("mkdir www; echo outside >www/index.html")?;
        let mut user = User {
            place,
            host,
            outside,
            web: None,
        };
        let mut web = user.outside.command("busybox");
        web.args(["httpd", "-f", "-p", "192.0.2.2:80", "-h"]);
        user.web = Some(web.arg(place.path("www")).spawn()?);
        Ok(user)
    }

    fn command(&self, args: &[&str]) -> Command {
        let script = format!(
            "PATH={}; {}",
            self.place.path("tools").display(),
            as_user(self.place, UID).replace("setpriv", &found("setpriv"))
        );
        let mut command = self.host.command("unshare");
        command.args(["-m", "sh", "-ec", &script, "sh"]).args(args);
        command.current_dir(&self.place.dir).stdin(Stdio::null());
        command
    }

    fn sc(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args).output()?)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        text(self.sc(args)?).with_context(|| args.join(" "))
    }

    /// What a container says that runs a script.
    fn run(&self, args: &[&str], script: &str) -> Result<String> {
        let all = [&["run", "--rm"], args, &["busybox", "sh", "-c", script]];
        self.ok(&all.concat())
    }

    /// A web server, in the background; it listens when this returns.
    fn serve(&self, name: &str, args: &[&str]) -> Result<()> {
        let script = format!("mkdir /www; echo {name} >/www/index.html; busybox httpd -f -h /www");
        let all = [
            &["run", "-d", "--name", name],
            args,
            &["busybox", "sh", "-c", &script],
        ];
        self.ok(&all.concat())?;
        let ask = ["exec", name, "busybox", "wget", "-qO-", "http://127.0.0.1/"];
        until(|| Ok(()), |_| self.ok(&ask).is_ok())
    }

    /// It may be another process that listens, which is there when it is.
    fn fetched(&self, url: &str, expected: &str) -> Result<()> {
        let fetch = format!("curl -gsS --max-time 60 {url} 2>&1 || true");
        until(|| self.host.sh(&fetch), |said| said.trim() == expected).context(url.to_owned())
    }

    /// Which processes of the user's containers are there?
    fn processes(&self) -> Result<String> {
        let dir = self.place.dir.display();
        self.place.sh(&format!("pgrep -af '{dir}/[h]ome/' || true"))
    }

    /// Processes, and what a container had of a network.
    fn assert_nothing(&self) -> Result<()> {
        ensure!(self.ok(&["ps", "-aq"])?.is_empty(), "containers are left");
        until(|| self.processes(), |left| left.is_empty())?;
        let left = self
            .place
            .sh("cd home/.local/share/sc/run/networks 2>/dev/null || exit 0; find . -name 'sc*'; find .world -mindepth 1")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    }

    /// The processes beside a container or a network: `monitor`, `resolver`, `forward`, `pasta`.
    fn kill(&self, what: &str) -> Result<()> {
        let dir = self.place.dir.display();
        let pattern = match what {
            "pasta" => format!("pasta .*{dir}/home"),
            verb => format!("root {dir}/home/.*sc {verb} "),
        };
        let found = self.place.host("pgrep", ["-f", &pattern]);
        for pid in found.with_context(|| what.to_owned())?.lines() {
            self.place.host("kill", ["-9", pid])?;
            // Who is killed is still at work for a moment.
            let stat = format!("/proc/{pid}/stat");
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {}
        }
        Ok(())
    }

    fn address(&self, name: &str) -> Result<String> {
        let format = "{{json .NetworkSettings.Networks}}";
        let text = self.ok(&["inspect", "--format", format, name])?;
        let all: serde_json::Value = serde_json::from_str(&text)?;
        let mut networks = all.as_object().context("no networks")?.values();
        let first = networks.next().context("no network")?;
        let address = first["IPAddress"].as_str().context("no address")?;
        Ok(address.to_owned())
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        // What a failed test leaves, too.
        let ids = self.ok(&["ps", "-aq"]).unwrap_or_default();
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            let _ = self.sc(&[&["rm", "-f"][..], &ids].concat());
        }
        if let Some(web) = &mut self.web {
            let _ = web.kill();
            let _ = web.wait();
        }
    }
}

fn found(name: &str) -> String {
    program(name).map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

fn pasta_carries_what_goes_out_and_publishes(place: &Place) -> Result<()> {
    let user = User::new(place, &["pasta", "slirp4netns"])?;
    carries_and_publishes(&user)?;
    // For pasta there is no IPv6 on a host that has no way out with it.
    user.host.sh("ip -6 route add default via 2001:db8::2")?;
    user.serve("web", &["-p", "[::1]:8080:80"])?;
    user.fetched("http://[::1]:8080/", "web")?;
    user.ok(&["rm", "-f", "web"])?;
    // Killed with its monitor, it leaves a pasta, which goes with the container.
    user.serve("web", &["-p", "8080:80"])?;
    let id = user.ok(&["inspect", "--format", "{{.Id}}", "web"])?;
    let monitor = place.host("pgrep", ["-f", &format!("monitor {}", id.trim())])?;
    place.host("kill", ["-9", monitor.trim()])?;
    user.fetched("http://127.0.0.1:8080/", "web")?;
    user.ok(&["rm", "-f", "web"])?;
    user.assert_nothing()
}

fn slirp4netns_does_it_where_there_is_no_pasta(place: &Place) -> Result<()> {
    carries_and_publishes(&User::new(place, &["slirp4netns"])?)
}

fn carries_and_publishes(user: &User) -> Result<()> {
    let out = "busybox wget -qO- http://192.0.2.2/; grep nameserver /etc/resolv.conf";
    let said = user.run(&[], out)?;
    ensure!(said.starts_with("outside\nnameserver "), "{said}");
    user.serve("web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"])?;
    for place in ["127.0.0.1:8080", "192.0.2.1:8080", "127.0.0.1:8081"] {
        user.fetched(&format!("http://{place}/"), "web")?;
    }
    let beyond =
        "curl -sS --max-time 60 http://192.0.2.1:8080/; ! curl -sS http://192.0.2.1:8081/ 2>&1";
    let said = user.outside.sh(beyond)?;
    ensure!(
        said.starts_with("web\n") && said.lines().count() == 2,
        "{said}"
    );
    let twice = user.sc(&["run", "--rm", "-p", "8080:80", "busybox", "true"])?;
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    ensure!(
        twice.status.code() == Some(125)
            && said.contains("8080/tcp is already in use by container web"),
        "{said}"
    );
    user.ok(&["rm", "-f", "web"])?;
    user.assert_nothing()
}

fn without_both_there_is_loopback(place: &Place) -> Result<()> {
    let user = User::new(place, &[])?;
    let output = user.sc(&["run", "--rm", "busybox", "busybox", "ip", "-o", "link"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("only loopback: without root a network needs pasta"),
        "{said}"
    );
    ensure!(text(output)?.lines().count() == 1);
    let refused = user.sc(&["run", "--rm", "-p", "80", "busybox", "true"])?;
    ensure!(refused.status.code() == Some(125));
    user.assert_nothing()
}

fn the_hosts_network_is_shared_and_none_is_none(place: &Place) -> Result<()> {
    let user = User::new(place, &["pasta", "slirp4netns"])?;
    let look =
        "busybox ip -o link | busybox wc -l; busybox wget -qO- http://192.0.2.2/ 2>&1 || true";
    let said = user.run(&["--network", "host"], look)?;
    ensure!(said == "2\noutside\n", "{said}");
    let said = user.run(&["--network", "none"], look)?;
    ensure!(
        said.starts_with("1\n") && !said.contains("outside"),
        "{said}"
    );
    user.assert_nothing()
}

/// What a container of a network sees of another one, of names, and of what is outside.
fn meet(user: &User, name: &str, network: &str) -> Result<()> {
    let address = user.address(name)?;
    let look = format!(
        "busybox nslookup {name}; busybox ping -c 1 {address}; busybox wget -qO- http://{name}/"
    );
    let with = ["--network", network, "--cap-add", "NET_RAW"];
    let said = user.run(&with, &look)?;
    ensure!(
        said.contains(&format!("Address: {address}\n")) && said.contains("1 packets received"),
        "{said}"
    );
    ensure!(said.ends_with(&format!("{name}\n")), "{said}");
    Ok(())
}

fn containers_of_a_network_find_each_other_and_the_way_out(place: &Place) -> Result<()> {
    let user = User::new(place, &["pasta"])?;
    bridges(&user)?;
    let said = user.run(&["--network", "bridge"], "busybox ip -o addr show eth0")?;
    ensure!(said.contains("inet6 fd"), "{said}");
    datagrams(&user)?;
    user.assert_nothing()
}

/// What comes from a port of UDP goes back to who asked.
fn datagrams(user: &User) -> Result<()> {
    let port = "127.0.0.1:9000:9000/udp";
    let with = ["--name", "echo", "--network", "bridge", "-p", port];
    let all = [&["run", "-d"], &with[..], &["busybox", "sleep", "1000"]];
    user.ok(&all.concat())?;
    let pid = user.ok(&["inspect", "--format", "{{.State.Pid}}", "echo"])?;
    let echo = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('0.0.0.0',9000))
while True: q,a=s.recvfrom(99); s.sendto(q,a)";
    let mut server = Command::new("nsenter");
    let server = server.args(["-t", pid.trim(), "-n", "python3", "-c", echo]);
    let mut server = server.spawn()?;
    let said = user.host.sh("python3 -c \"
import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(0.2)
for n in range(300):
    s.sendto(b'ping',('127.0.0.1',9000))
    try: print(s.recv(9).decode()); break
    except OSError: pass\"");
    let _ = server.kill();
    let _ = server.wait();
    let said = said?;
    ensure!(said == "ping\n", "{said:?}");
    user.ok(&["rm", "-f", "echo"]).map(drop)
}

fn slirp4netns_connects_bridges_too(place: &Place) -> Result<()> {
    bridges(&User::new(place, &["slirp4netns"])?)
}

fn bridges(user: &User) -> Result<()> {
    user.ok(&["network", "create", "back"])?;
    user.serve(
        "web",
        &["--network", "back", "-p", "8080:80", "-p", "[::1]:8081:80"],
    )?;
    meet(user, "web", "back")?;
    let out = "busybox wget -qO- http://192.0.2.2/";
    ensure!(user.run(&["--network", "back"], out)? == "outside\n");
    for place in [
        "127.0.0.1:8080",
        "192.0.2.1:8080",
        "[::1]:8080",
        "[::1]:8081",
    ] {
        user.fetched(&format!("http://{place}/"), "web")?;
    }
    ensure!(
        user.outside
            .sh("curl -sS --max-time 60 http://192.0.2.1:8080/")?
            == "web\n"
    );
    // Another network is another one.
    let other = ["--network", "bridge"];
    let said = user.run(&other, "busybox nslookup web || echo none")?;
    ensure!(said.ends_with("none\n"), "{said}");
    let rm = user.sc(&["network", "rm", "back"])?;
    let said = String::from_utf8_lossy(&rm.stderr).into_owned();
    ensure!(
        said.contains("network back is used by container web"),
        "{said}"
    );
    // Its ports come back with it.
    user.ok(&["restart", "-t", "0", "web"])?;
    user.fetched("http://127.0.0.1:8080/", "web")?;
    user.ok(&["rm", "-f", "web"])?;
    user.ok(&["network", "rm", "back"])?;
    user.assert_nothing()
}

fn a_bridge_needs_neither_pasta_nor_a_way_out(place: &Place) -> Result<()> {
    let user = User::new(place, &[])?;
    user.ok(&["network", "create", "--internal", "back"])?;
    let script = "mkdir /www; echo web >/www/index.html; busybox httpd -f -h /www";
    let output = user.sc(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "back",
        "busybox",
        "sh",
        "-c",
        script,
    ])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("containers reach only each other: without root a network needs pasta"),
        "{said}"
    );
    text(output)?;
    let ask = [
        "exec",
        "web",
        "busybox",
        "wget",
        "-qO-",
        "http://127.0.0.1/",
    ];
    until(|| Ok(()), |_| user.ok(&ask).is_ok())?;
    meet(&user, "web", "back")?;
    user.ok(&["rm", "-f", "web"])?;
    user.assert_nothing()
}

fn a_network_is_shared_by_name_of_the_container(place: &Place) -> Result<()> {
    let user = User::new(place, &["pasta"])?;
    for network in ["bridge", "pasta"] {
        user.serve("web", &["--network", network])?;
        let look = "busybox wget -qO- http://127.0.0.1/; busybox wget -qO- http://192.0.2.2/; ls /sys/class/net | busybox wc -l";
        let said = user.run(&["--network", "container:web"], look)?;
        ensure!(said == "web\noutside\n2\n", "{network}: {said}");
        user.ok(&[
            "run",
            "-d",
            "--name",
            "side",
            "--network",
            "container:web",
            "busybox",
            "sleep",
            "1000",
        ])?;
        let ask = [
            "exec",
            "side",
            "busybox",
            "wget",
            "-qO-",
            "http://127.0.0.1/",
        ];
        ensure!(user.ok(&ask)? == "web\n");
        // It has been stopped, and come back, alone and with the other.
        user.ok(&["restart", "-t", "0", "side"])?;
        ensure!(user.ok(&ask)? == "web\n");
        user.ok(&["restart", "-t", "0", "web"])?;
        user.ok(&["restart", "-t", "0", "side"])?;
        until(|| Ok(()), |_| user.ok(&ask).is_ok())?;
        user.ok(&["rm", "-f", "side", "web"])?;
    }
    user.ok(&[
        "run",
        "-d",
        "--name",
        "plain",
        "--network",
        "host",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let refused = user.sc(&[
        "run",
        "--rm",
        "--network",
        "container:plain",
        "busybox",
        "true",
    ])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        said.contains("its network is the host's: --network host"),
        "{said}"
    );
    user.ok(&["rm", "-f", "plain"])?;
    user.assert_nothing()
}

/// With another monitor, what was shared is where the one that shares it cannot follow.
fn a_shared_network_that_came_back_elsewhere_is_told(place: &Place) -> Result<()> {
    let user = User::new(place, &[])?;
    let run = ["run", "-d", "--network"];
    let sleep = ["busybox", "sleep", "1000"];
    user.ok(&[&run[..], &["none", "--name", "web"], &sleep].concat())?;
    user.ok(&[&run[..], &["container:web", "--name", "side"], &sleep].concat())?;
    user.ok(&["stop", "-t", "0", "web"])?;
    user.ok(&["start", "web"])?;
    let refused = user.sc(&["restart", "-t", "0", "side"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(said.contains("start this one anew too"), "{said}");
    let status = ["inspect", "--format", "{{.State.Status}}", "side"];
    until(|| user.ok(&status), |said| said == "exited\n")?;
    user.ok(&["start", "side"])?;
    ensure!(user.ok(&status)? == "running\n");
    user.ok(&["rm", "-f", "side", "web"])?;
    user.assert_nothing()
}

fn whoever_is_killed_leaves_nothing(place: &Place) -> Result<()> {
    let user = User::new(place, &["pasta"])?;
    for victims in [
        &["monitor"][..],
        &["resolver"],
        &["forward"],
        &["monitor", "resolver"],
        &["pasta"],
        &["monitor", "resolver", "forward", "pasta"],
    ] {
        user.serve("web", &["--network", "bridge", "-p", "8080:80"])?;
        for victim in victims {
            user.kill(victim)?;
        }
        let context = || format!("{victims:?}");
        // One way into the world is enough for the next.
        if victims.len() == 1 {
            user.run(
                &["--network", "bridge"],
                "busybox wget -qO- http://192.0.2.2/",
            )
            .with_context(context)?;
            meet(&user, "web", "bridge").with_context(context)?;
        }
        if victims[0] == "monitor" && victims.len() < 3 {
            user.fetched("http://127.0.0.1:8080/", "web")
                .with_context(context)?;
        }
        user.ok(&["rm", "-f", "web"]).with_context(context)?;
        user.ok(&["system", "prune", "-f"]).with_context(context)?;
        user.assert_nothing().with_context(context)?;
    }
    Ok(())
}

fn a_container_changes_its_networks(place: &Place) -> Result<()> {
    let user = User::new(place, &["pasta"])?;
    user.ok(&["network", "create", "back"])?;
    user.serve("web", &["--network", "bridge", "-p", "8080:80"])?;
    user.ok(&["network", "connect", "--alias", "www", "back", "web"])?;
    let said = user.run(&["--network", "back"], "busybox wget -qO- http://www/")?;
    ensure!(said == "web\n", "{said}");
    // What is published goes with it to the next.
    user.ok(&["network", "disconnect", "bridge", "web"])?;
    user.fetched("http://127.0.0.1:8080/", "web")?;
    let said = user.run(
        &["--network", "bridge"],
        "busybox nslookup web || echo none",
    )?;
    ensure!(said.ends_with("none\n"), "{said}");
    let said = user.ok(&["network", "inspect", "back"])?;
    ensure!(said.contains("\"Name\": \"web\""), "{said}");
    user.ok(&["rm", "-f", "web"])?;
    ensure!(user.ok(&["network", "prune"])? == "back\n");
    user.assert_nothing()
}

fn many_come_to_one_world_at_once(place: &Place) -> Result<()> {
    let user = User::new(place, &[])?;
    let mut children = Vec::new();
    for number in 0..12 {
        let name = format!("box{number}");
        let mut command = user.command(&[
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            "bridge",
            "busybox",
            "sleep",
            "1000",
        ]);
        children.push(
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?,
        );
    }
    for child in children {
        text(child.wait_with_output()?)?;
    }
    let all = "for n in 0 1 2 3 4 5 6 7 8 9 10 11; do busybox ping -c 1 -q box$n; done | grep -c '1 packets received'";
    let said = user.run(&["--network", "bridge", "--cap-add", "NET_RAW"], all)?;
    ensure!(said == "12\n", "{said}");
    let ids = user.ok(&["ps", "-aq"])?;
    let ids: Vec<&str> = ids.lines().collect();
    user.ok(&[&["rm", "-f"][..], &ids].concat())?;
    user.assert_nothing()
}
