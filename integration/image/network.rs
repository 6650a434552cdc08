//! Networks of `sc`: a host in a network namespace of the test's, with a neighbour that it routes through, and
//! containers that are reached, or not.

use crate::place::{Place, text};
use crate::sc::{program, with_image};
use crate::tests;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

tests! {
    containers_find_each_other_by_name ["busybox", "nft", "ip"],
    published_ports_are_reached_from_everywhere_and_others_from_nowhere ["busybox", "nft", "ip", "curl", "python3"],
    what_goes_out_comes_from_the_host ["busybox", "nft", "ip"],
    a_taken_port_names_its_holder ["busybox", "nft", "ip", "python3"],
    a_killed_container_leaves_nothing ["busybox", "nft", "ip", "curl"],
    networks_are_made_shown_and_removed ["busybox", "nft", "ip"],
    a_place_that_others_took_while_the_bridge_was_gone_is_left_to_them ["busybox", "nft", "ip"],
    a_running_container_changes_networks ["busybox", "nft", "ip", "curl"],
    addresses_are_chosen_and_refused ["busybox", "nft", "ip"],
    networks_are_shared_or_not_there ["busybox", "nft", "ip"],
    names_and_servers_are_what_was_typed ["busybox", "nft", "ip", "python3"],
    many_at_once_get_addresses_of_their_own ["busybox", "nft", "ip"],
    a_firewall_that_drops_is_named_with_what_to_type ["busybox", "nft", "ip"],
    a_firewall_of_iptables_is_named_in_its_words ["busybox", "nft", "ip", "iptables-nft"],
    a_port_of_sctp_is_forwarded ["busybox", "nft", "ip", "python3"],
}

/// A process that keeps a network namespace.
pub struct Namespace(Child);

impl Namespace {
    pub fn new() -> Result<Namespace> {
        let child = Command::new("unshare")
            .args(["-n", "sh", "-c", "ip link set lo up; echo; exec sleep 1000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.context("unshare")?;
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().context("no pipe")?, &mut line)?;
        Ok(Namespace(child))
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.0.id().to_string();
        command.args(["-t", &target, "-n", "--"]).arg(program);
        command.stdin(Stdio::null());
        command
    }

    pub fn sh(&self, script: &str) -> Result<String> {
        let mut command = self.command("sh");
        text(command.args(["-ec", script]).output()?).with_context(|| script.to_owned())
    }
}

impl Drop for Net<'_> {
    fn drop(&mut self) {
        // What a failed test leaves, too.
        let ids = self.ok(&["ps", "-aq"]).unwrap_or_default();
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            let _ = self.sc(&[&["rm", "-f"][..], &ids].concat());
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A host, and a neighbour that it routes through: 192.0.2.1 and 192.0.2.2, 2001:db8::1 and 2001:db8::2.
pub fn neighbours() -> Result<(Namespace, Namespace)> {
    let (host, outside) = (Namespace::new()?, Namespace::new()?);
    host.sh(&format!(
        "ip link add up0 type veth peer name up0 netns {}
         ip addr add 192.0.2.1/24 dev up0; ip -6 addr add 2001:db8::1/64 dev up0 nodad; ip link set up0 up
         ip route add default via 192.0.2.2",
        outside.0.id()
    ))?;
    outside.sh(
        "ip addr add 192.0.2.2/24 dev up0; ip -6 addr add 2001:db8::2/64 dev up0 nodad; ip link set up0 up",
    )?;
    Ok((host, outside))
}

/// The host with its containers, and a neighbour.
struct Net<'a> {
    place: &'a Place,
    host: Namespace,
    outside: Namespace,
}

impl Net<'_> {
    fn new(place: &Place) -> Result<Net<'_>> {
        with_image(place)?;
        place.sh("mkdir r/www; echo hello >r/www/index.html
             for name in timeout httpd wget nc nslookup ip hostname grep udpsvd; do ln -sf busybox r/bin/$name; done
             tar -C r -cf net.tar .")?;
        let (host, outside) = neighbours()?;
        let net = Net {
            place,
            host,
            outside,
        };
        net.ok(&["import", "net.tar", "busybox"])?;
        Ok(net)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.host.command(program());
        command.arg("--root").arg(&self.place.store).args(args);
        command.current_dir(&self.place.dir);
        command
    }

    fn sc(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args).output()?)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        text(self.sc(args)?).with_context(|| args.join(" "))
    }

    /// Expected to fail; its last line.
    fn refused(&self, args: &[&str]) -> Result<String> {
        let output = self.sc(args)?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(!output.status.success(), "{args:?} succeeds");
        Ok(said.lines().last().unwrap_or_default().to_owned())
    }

    /// A web server, in the background.
    fn web(&self, name: &str, args: &[&str]) -> Result<()> {
        let all = [
            &["run", "-d", "--name", name],
            args,
            &["busybox", "httpd", "-f", "-h", "/www"],
        ];
        self.ok(&all.concat())?;
        // It listens when it does: the first one to ask may be early.
        let ask = ["exec", name, "wget", "-qO-", "http://127.0.0.1/"];
        let listening = |_: &()| self.ok(&ask).is_ok();
        until(|| Ok(()), listening)
    }

    fn inspect(&self, name: &str) -> Result<Value> {
        let all: Value = serde_json::from_str(&self.ok(&["inspect", name])?)?;
        Ok(all[0]["NetworkSettings"].clone())
    }

    fn address(&self, name: &str) -> Result<String> {
        let settings = self.inspect(name)?;
        Ok(settings["IPAddress"]
            .as_str()
            .context("no address")?
            .to_owned())
    }

    /// What a container of the default network, or of others, says.
    fn run(&self, args: &[&str], script: &str) -> Result<String> {
        let all = [&["run", "--rm"], args, &["busybox", "sh", "-c", script]];
        self.ok(&all.concat())
    }

    /// Containers' devices, claims, elements of maps, processes beside them.
    fn left(&self) -> Result<String> {
        let mut left = self
            .host
            .sh("ip -o link | grep -o 'sc[0-9a-f]\\{13\\}' || true")?;
        for network in fs::read_dir(self.place.store.join("run/networks"))? {
            let path = network?.path();
            for entry in fs::read_dir(&path).into_iter().flatten() {
                let name = entry?.file_name();
                if name != "last" {
                    left += &format!("{}/{}\n", path.display(), name.display());
                }
            }
        }
        left += &self.host.sh("nft list ruleset | grep elements || true")?;
        let root = self.place.store.display();
        left += &self.place.sh(&format!(
            "pgrep -f '[r]oot {root} (resolver|forward)' || true"
        ))?;
        Ok(left)
    }

    fn assert_nothing(&self) -> Result<()> {
        until(|| self.left(), |left| left.is_empty())
    }
}

/// The kernel and the resolver clear away after a container's end, at once but not at the same time.
pub fn until<T: std::fmt::Debug>(
    look: impl Fn() -> Result<T>,
    good: impl Fn(&T) -> bool,
) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let seen = look()?;
        if good(&seen) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{seen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn containers_find_each_other_by_name(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    net.web(
        "Web",
        &["--network-alias", "www", "--network-alias", "site"],
    )?;
    let address = net.address("Web")?;
    let id = net.ok(&["ps", "-q"])?;
    for name in ["Web", "web", "www", "site", id.trim()] {
        let said = net.run(
            &[],
            &format!("nslookup {name}; timeout 5 wget -qO- http://{name}/"),
        )?;
        ensure!(
            said.contains(&format!("Address: {address}\n")),
            "{name}: {said}"
        );
        ensure!(
            said.contains("Address: fd") && said.ends_with("hello\n"),
            "{name}: {said}"
        );
    }
    let said = net.run(&[], &format!("nslookup {address}"))?;
    ensure!(said.contains("name = Web"), "{said}");
    // A container that came meanwhile is known at once, and one that has gone is not.
    net.web("late", &[])?;
    let ask = "nslookup late >/dev/null && echo there || echo gone";
    ensure!(net.run(&[], ask)? == "there\n");
    net.ok(&["rm", "-f", "late"])?;
    ensure!(net.run(&[], ask)? == "gone\n");
    // Nobody is known, or reached, in another network.
    net.ok(&["network", "create", "other"])?;
    ensure!(
        net.run(
            &["--network", "other"],
            "nslookup Web >/dev/null && echo there || echo gone"
        )? == "gone\n"
    );
    let far = format!("timeout 5 wget -qO- http://{address}/ || echo unreachable");
    let said = net.run(&["--network", "other"], &far)?;
    ensure!(said == "unreachable\n", "{said}");
    // Who is in both, finds both.
    let both = ["--network", "other", "--network", "bridge"];
    ensure!(net.run(&both, "timeout 5 wget -qO- http://Web/")? == "hello\n");
    net.ok(&["rm", "-f", "Web"])?;
    net.assert_nothing()
}

fn published_ports_are_reached_from_everywhere_and_others_from_nowhere(
    place: &Place,
) -> Result<()> {
    let net = Net::new(place)?;
    net.web(
        "web",
        &[
            "-p",
            "8080:80",
            "-p",
            "127.0.0.1:8081:80",
            "-p",
            "192.0.2.1:8082:80",
            "-p",
            "[::1]:8083:80",
            "-p",
            "9000-9002:80-82",
        ],
    )?;
    let address = net.address("web")?;
    let settings = net.inspect("web")?;
    let v6 = settings["Networks"]["bridge"]["GlobalIPv6Address"]
        .as_str()
        .context("no IPv6")?
        .to_owned();
    let get = |from: &Namespace, url: &str| -> Result<bool> {
        let output = from
            .command("curl")
            .args(["-sg", "-m", "2", url])
            .output()?;
        Ok(output.stdout == b"hello\n")
    };
    for (who, from, place, expected) in [
        ("host", &net.host, "127.0.0.1:8080", true),
        ("host", &net.host, "localhost:8080", true),
        ("host", &net.host, "192.0.2.1:8080", true),
        ("host", &net.host, "[2001:db8::1]:8080", true),
        ("host", &net.host, "127.0.0.1:8081", true),
        ("host", &net.host, "192.0.2.1:8081", false),
        ("host", &net.host, "127.0.0.1:8082", false),
        ("host", &net.host, "192.0.2.1:8082", true),
        ("host", &net.host, "[::1]:8083", true),
        ("host", &net.host, "127.0.0.1:8083", false),
        ("host", &net.host, "127.0.0.1:9000", true),
        ("outside", &net.outside, "192.0.2.1:8080", true),
        ("outside", &net.outside, "[2001:db8::1]:8080", true),
        ("outside", &net.outside, "192.0.2.1:8081", false),
        ("outside", &net.outside, "192.0.2.1:8082", true),
        ("outside", &net.outside, "192.0.2.1:9000", true),
        ("outside", &net.outside, "[2001:db8::1]:8083", false),
    ] {
        let got = get(from, &format!("http://{place}/"))?;
        ensure!(got == expected, "{place} from {who}: {got}");
    }
    // From the container itself, and from another.
    for script in [
        "timeout 5 wget -qO- http://192.0.2.1:8080/",
        "timeout 5 wget -qO- http://10.89.0.1:8080/",
    ] {
        ensure!(
            net.ok(&["exec", "web", "sh", "-c", script])? == "hello\n",
            "{script}"
        );
        ensure!(net.run(&[], script)? == "hello\n", "{script}");
    }
    // A neighbour that knows the way: to addresses of containers, to the host's loopback.
    net.outside.sh(
        "ip route add 10.89.0.0/24 via 192.0.2.1; ip -6 route add fd00::/8 via 2001:db8::1
         ip route add 127.0.0.1/32 via 192.0.2.1 table 7; ip rule add to 127.0.0.1 table 7 pref 1
         ip route del local 127.0.0.1 table local || true; echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet",
    )?;
    for place in [
        format!("{address}:80"),
        format!("[{v6}]:80"),
        "127.0.0.1:8081".to_owned(),
    ] {
        ensure!(
            !get(&net.outside, &format!("http://{place}/"))?,
            "{place} is reached from outside"
        );
    }
    // Nor does a container reach what listens on the host's loopback.
    let mut server = net.host.command("busybox");
    let mut server = server
        .args(["httpd", "-f", "-p", "127.0.0.1:7777", "-h", "r/www"])
        .current_dir(&place.dir)
        .spawn()?;
    until(|| get(&net.host, "http://127.0.0.1:7777/"), |got| *got)?;
    let steal =
        "ip route add 127.0.0.1 via 10.89.0.1 table 7; ip rule add to 127.0.0.1 table 7 pref 1
         ip route del local 127.0.0.1 table local; ip route del local 127.0.0.0/8 table local
         timeout 2 wget -qO- http://127.0.0.1:7777/ || echo no";
    let said = net.run(&["--privileged"], steal)?;
    let _ = server.kill();
    let _ = server.wait();
    ensure!(said == "no\n", "{said}");
    // UDP, and any port that is free.
    net.ok(&[
        "run",
        "-d",
        "--name",
        "udp",
        "-p",
        "5353:53/udp",
        "-p",
        "53/udp",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let pid: Value = serde_json::from_str(&net.ok(&["inspect", "udp"])?)?;
    let pid = pid[0]["State"]["Pid"].to_string();
    let echo = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('0.0.0.0',53))
while True: q,a=s.recvfrom(99); s.sendto(q,a)";
    let mut server = Command::new("nsenter");
    let mut server = server
        .args(["-t", &pid, "-n", "python3", "-c", echo])
        .spawn()?;
    let said = net.ok(&["port", "udp", "53/udp"])?;
    let chosen = said
        .lines()
        .filter_map(|line| line.strip_prefix("0.0.0.0:"))
        .find(|port| *port != "5353");
    ensure!(
        chosen.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 1023)),
        "{said}"
    );
    let said = net.outside.sh("python3 -c \"
import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(0.2)
for n in range(50):
    s.sendto(b'ping',('192.0.2.1',5353))
    try: print(s.recv(9).decode()); break
    except OSError: pass\"")?;
    let _ = server.kill();
    let _ = server.wait();
    ensure!(said == "ping\n", "{said:?}");
    let ps = net.ok(&["ps"])?;
    ensure!(
        ps.contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:8081->80/tcp"),
        "{ps}"
    );
    net.ok(&["rm", "-f", "web", "udp"])?;
    ensure!(!get(&net.host, "http://127.0.0.1:8080/")?);
    net.assert_nothing()
}

fn what_goes_out_comes_from_the_host(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    // The neighbour knows no way back to 10.89.0.0/24, so what is answered came from the host's address.
    let mut server = net.outside.command("busybox");
    let mut server = server
        .args(["nc", "-ll", "-p", "7777", "-e", "echo", "out"])
        .spawn()?;
    let ask = "for n in 1 2 3 4 5; do echo | nc -w 2 192.0.2.2 7777 && break; sleep 0.1; done";
    let said = net.run(&[], ask)?;
    net.ok(&["network", "create", "--internal", "in"])?;
    let inside = net.run(&["--network", "in"], &format!("{ask} || true; ip route"))?;
    let _ = server.kill();
    let _ = server.wait();
    ensure!(said == "out\n", "{said:?}");
    ensure!(
        !inside.contains("out\n") && !inside.contains("default"),
        "{inside:?}"
    );
    net.assert_nothing()
}

fn a_taken_port_names_its_holder(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    net.web("web", &["-p", "8080:80"])?;
    for args in [&["-p", "8080:81"][..], &["-p", "127.0.0.1:8080:81"]] {
        let said = net.refused(&[&["run", "--rm"], args, &["busybox", "true"]].concat())?;
        ensure!(
            said.starts_with("sc: --publish: port 8080/tcp is already in use by container web"),
            "{said}"
        );
    }
    let mut server = net.host.command("python3");
    let script = "import socket,sys\ns=socket.socket()\ns.bind(('127.0.0.1',8085))\ns.listen()\nprint(1,flush=True)\nsys.stdin.read()";
    let mut server = server
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    std::io::Read::read_exact(server.stdout.as_mut().context("no pipe")?, &mut [0])?;
    let said = net.refused(&["run", "--rm", "-p", "8085:80", "busybox", "true"])?;
    ensure!(
        said.contains("port 8085/tcp is already in use by python3"),
        "{said}"
    );
    drop(server.stdin.take());
    server.wait()?;
    let said = net.refused(&["run", "--rm", "-p", "198.51.100.1:80:80", "busybox", "true"])?;
    ensure!(
        said.contains("198.51.100.1 is no address of this host"),
        "{said}"
    );
    let said = net.refused(&[
        "run", "--rm", "-p", "80:80", "-p", "80:81", "busybox", "true",
    ])?;
    ensure!(
        said == "sc: --publish: port 80/tcp of the host is typed twice",
        "{said}"
    );
    ensure!(
        net.ok(&["ps", "-aq"])?.lines().count() == 1,
        "what failed is left"
    );
    // The port of a program and that of a container are the same: it cannot be taken from it either.
    let mut taken = net.host.command("python3");
    let taken = taken
        .args([
            "-c",
            "import socket; socket.socket().bind(('0.0.0.0',8080))",
        ])
        .output()?;
    ensure!(
        !taken.status.success(),
        "a program took the port of a container"
    );
    net.ok(&["rm", "-f", "web"])?;
    net.assert_nothing()
}

fn a_killed_container_leaves_nothing(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    let root = place.store.display().to_string();
    let kill = |what: &str| place.sh(&format!("pkill -KILL -f '[r]oot {root} {what}'"));
    net.web("web", &["-p", "8080:80"])?;
    kill("monitor")?;
    // It runs on, and its port is still its own.
    ensure!(net.host.sh("curl -s -m 2 http://127.0.0.1:8080/")? == "hello\n");
    let said = net.refused(&["run", "--rm", "-p", "8080:80", "busybox", "true"])?;
    ensure!(said.contains("by container web"), "{said}");
    // Then it is killed: the resolver clears away.
    let pid = net.ok(&["inspect", "web"])?;
    let pid: Value = serde_json::from_str(&pid)?;
    place.sh(&format!("kill -KILL {}", pid[0]["State"]["Pid"]))?;
    net.assert_nothing()?;
    net.ok(&["rm", "-f", "web"])?;
    // Without the resolver, the next start does.
    net.web("web", &["-p", "8080:80"])?;
    kill("resolver")?;
    kill("monitor")?;
    let pid: Value = serde_json::from_str(&net.ok(&["inspect", "web"])?)?;
    place.sh(&format!("kill -KILL {}", pid[0]["State"]["Pid"]))?;
    until(|| net.host.sh("ip -o link"), |links| !links.contains("@if")).or_else(|e| {
        if format!("{e:#}").contains("up0@") {
            Ok(())
        } else {
            Err(e)
        }
    })?;
    net.web("next", &["-p", "8080:80"])?;
    ensure!(net.host.sh("curl -s -m 2 http://127.0.0.1:8080/")? == "hello\n");
    ensure!(net.run(&[], "timeout 5 wget -qO- http://next/")? == "hello\n");
    net.ok(&["start", "web"])
        .err()
        .context("web starts beside its port's new holder")?;
    net.ok(&["rm", "-f", "web", "next"])?;
    net.assert_nothing()
}

fn networks_are_made_shown_and_removed(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    let id = net.ok(&[
        "network",
        "create",
        "--subnet",
        "10.7.0.0/16",
        "--gateway",
        "10.7.1.1",
        "--ipv6",
        "--label",
        "a=b",
        "seven",
    ])?;
    ensure!(id.trim().len() == 64, "{id}");
    let shown: Value = serde_json::from_str(&net.ok(&["network", "inspect", &id[..6]])?)?;
    let shown = &shown[0];
    ensure!(
        shown["Name"] == "seven" && shown["Labels"]["a"] == "b" && shown["EnableIPv6"] == true,
        "{shown}"
    );
    ensure!(
        shown["IPAM"]["Config"][0]["Gateway"] == "10.7.1.1",
        "{shown}"
    );
    let said = net.run(&["--network", "seven"], "ip -4 route; ip -4 addr show eth0")?;
    ensure!(
        said.contains("default via 10.7.1.1") && said.contains("inet 10.7.0.1/16"),
        "{said}"
    );
    for (args, message) in [
        (
            &["network", "create", "seven"][..],
            "sc: there is a network \"seven\" already",
        ),
        (
            &["network", "create", "--subnet", "10.7.3.0/24", "eight"],
            "sc: --subnet 10.7.3.0/24: it overlaps that of the network seven",
        ),
        (
            &["network", "create", "--subnet", "192.0.2.0/24", "eight"],
            "sc: --subnet 192.0.2.0/24: this host reaches 192.0.2.0/24 elsewhere",
        ),
        (
            &["network", "create", "host"],
            "sc: \"host\" cannot be a network's name",
        ),
        (&["network", "create", "../x"], "sc: \"../x\": only "),
        (
            &["network", "rm", "none-such"],
            "sc: no such network: none-such; `sc network ls` lists them",
        ),
        (
            &["run", "--rm", "--network", "none-such", "busybox"],
            "sc: --network none-such: no such network",
        ),
    ] {
        let said = net.refused(args)?;
        ensure!(said.starts_with(message), "{said}");
    }
    net.ok(&[
        "run",
        "-d",
        "--name",
        "user",
        "--network",
        "seven",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let said = net.refused(&["network", "rm", "seven"])?;
    ensure!(said.contains("used by container user"), "{said}");
    let table = net.ok(&["network", "ls"])?;
    ensure!(
        table.contains("seven") && table.contains("10.7.0.0/16"),
        "{table}"
    );
    ensure!(net.ok(&["network", "prune"])?.is_empty());
    net.ok(&["rm", "-f", "user"])?;
    net.assert_nothing()?;
    ensure!(net.ok(&["network", "prune"])? == "seven\n");
    let links = net.host.sh("ip -o link; nft list ruleset")?;
    ensure!(!links.contains("sc0") && !links.contains("sc1"), "{links}");
    Ok(())
}

/// As after a boot, or `prune`: the host has something else by that name and at those addresses by then.
fn a_place_that_others_took_while_the_bridge_was_gone_is_left_to_them(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    net.ok(&["network", "create", "own"])?;
    let address = || {
        net.ok(&[
            "run", "--rm", "busybox", "ip", "-4", "-o", "addr", "show", "eth0",
        ])
    };
    ensure!(address()?.contains(" 10.89.4."), "the first");
    net.ok(&["system", "prune", "-f"])?;
    net.host.sh(
        "ip link add sc1 type bridge; ip link set sc1 alias 'of someone'; ip addr add 10.89.4.1/22 dev sc1
         ip link set sc1 up",
    )?;
    ensure!(
        address()?.contains(" 10.89.0."),
        "its own is gone, so that is free"
    );
    ensure!(
        net.host
            .sh("ip -o addr show dev sc1")?
            .contains("10.89.4.1/22")
    );
    ensure!(address()?.contains(" 10.89.0."), "it stays there");
    Ok(())
}

fn a_running_container_changes_networks(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    net.ok(&["network", "create", "a"])?;
    net.ok(&["network", "create", "b"])?;
    net.web("web", &["--network", "a", "-p", "8080:80"])?;
    let ask = |network: &str, name: &str| {
        net.run(
            &["--network", network],
            &format!("timeout 5 wget -qO- http://{name}/ 2>/dev/null || echo no"),
        )
    };
    ensure!(ask("b", "web")? == "no\n");
    net.ok(&["network", "connect", "--alias", "w", "b", "web"])?;
    for (network, name) in [("a", "web"), ("b", "web"), ("b", "w")] {
        ensure!(ask(network, name)? == "hello\n", "{name} in {network}");
    }
    let said = net.refused(&["network", "connect", "b", "web"])?;
    ensure!(said.contains("is in the network b already"), "{said}");
    net.ok(&["network", "disconnect", "a", "web"])?;
    ensure!(ask("a", "web")? == "no\n" && ask("b", "web")? == "hello\n");
    // The port leads where the container is now.
    ensure!(net.host.sh("curl -s -m 2 http://127.0.0.1:8080/")? == "hello\n");
    let shown: Value = serde_json::from_str(&net.ok(&["network", "inspect", "b"])?)?;
    ensure!(
        shown[0]["Containers"]
            .as_object()
            .is_some_and(|all| all.len() == 1),
        "{shown}"
    );
    // It is remembered.
    net.ok(&["stop", "-t", "0", "web"])?;
    net.ok(&["start", "web"])?;
    ensure!(ask("b", "w")? == "hello\n");
    net.ok(&["rm", "-f", "web"])?;
    net.assert_nothing()
}

fn addresses_are_chosen_and_refused(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    net.ok(&[
        "network",
        "create",
        "--subnet",
        "10.7.0.0/29",
        "--subnet",
        "fd07::/64",
        "small",
    ])?;
    let with = |args: &[&'static str]| [&["--network", "small"], args].concat();
    let said = net.run(
        &with(&[
            "--ip",
            "10.7.0.5",
            "--ip6",
            "fd07::77",
            "--mac-address",
            "02:00:00:00:00:07",
        ]),
        "ip addr show eth0",
    )?;
    for wanted in ["inet 10.7.0.5/29", "inet6 fd07::77/64", "02:00:00:00:00:07"] {
        ensure!(said.contains(wanted), "{said}");
    }
    for n in 2..7 {
        let name = format!("c{n}");
        net.ok(&[
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            "small",
            "busybox",
            "sleep",
            "1000",
        ])?;
    }
    let said = net.refused(&["run", "--rm", "--network", "small", "busybox", "true"])?;
    ensure!(
        said.contains("all 6 addresses of 10.7.0.0/29 are taken"),
        "{said}"
    );
    for (args, message) in [
        (&["--ip", "10.7.0.3"][..], "--ip 10.7.0.3 is taken"),
        (
            &["--ip", "10.8.0.3"],
            "--ip 10.8.0.3 is no address of a host in 10.7.0.0/29",
        ),
        (&["--ip6", "fd08::77"], "--ip6 fd08::77 is not in fd07::/64"),
    ] {
        net.ok(&["stop", "-t", "0", "c6"])?;
        let said =
            net.refused(&[&["run", "--rm"], &with(args)[..], &["busybox", "true"]].concat())?;
        ensure!(said.ends_with(message), "{said}");
    }
    net.ok(&["rm", "-f", "c2", "c3", "c4", "c5", "c6"])?;
    net.assert_nothing()
}

fn networks_are_shared_or_not_there(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    net.web("web", &["-p", "8080:80"])?;
    let shared = net.run(
        &["--network", "container:web"],
        "timeout 5 wget -qO- http://127.0.0.1/; cat /etc/hosts",
    )?;
    let address = net.address("web")?;
    ensure!(
        shared.starts_with("hello\n") && shared.contains(&address),
        "{shared}"
    );
    let host = net.run(
        &["--network", "host"],
        "ip -o link show up0; timeout 5 wget -qO- http://127.0.0.1:8080/",
    )?;
    ensure!(host.contains("up0") && host.ends_with("hello\n"), "{host}");
    let none = net.run(&["--network", "none"], "ip -o link; cat /etc/resolv.conf")?;
    ensure!(none.lines().count() == 1 && none.contains("lo:"), "{none}");
    let path = format!("ns:/proc/{}/ns/net", net.outside.0.id());
    let other = net.run(&["--network", &path], "ip addr show up0")?;
    ensure!(other.contains("192.0.2.2"), "{other}");
    for (args, message) in [
        (
            &["--network", "container:none-such"][..],
            "no such container: none-such",
        ),
        (
            &["--network", "container:web", "-p", "1:1"],
            "the ports are the other container's",
        ),
        (
            &["--network", "none", "-p", "1:1"],
            "there is nothing to publish",
        ),
        (
            &["--network", "none", "--network", "bridge"],
            "cannot be combined",
        ),
        (
            &["--network", "host", "--ip", "10.0.0.1"],
            "--ip: only with a network that has a bridge",
        ),
    ] {
        let said = net.refused(&[&["run", "--rm"], args, &["busybox", "true"]].concat())?;
        ensure!(said.contains(message), "{said}");
    }
    net.ok(&["rm", "-f", "web"])?;
    net.assert_nothing()
}

fn names_and_servers_are_what_was_typed(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    let typed = [
        "--hostname",
        "me",
        "--add-host",
        "db:10.1.2.3",
        "--add-host",
        "up:host-gateway",
        "--dns-search",
        "a.example",
        "--dns-option",
        "timeout:1",
    ];
    let said = net.run(
        &typed,
        "cat /etc/hosts /etc/resolv.conf /etc/hostname; hostname",
    )?;
    for wanted in [
        "\tme\n",
        "10.1.2.3\tdb\n",
        "10.89.0.1\tup\n",
        "nameserver 10.89.0.1\nsearch a.example\noptions timeout:1 ndots:0\n",
    ] {
        ensure!(said.contains(wanted), "{wanted:?} in {said}");
    }
    ensure!(said.ends_with("me\nme\n"), "{said}");
    // A name server of the neighbour's: our answer for names of ours, its for all others.
    let script = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('192.0.2.2',53)); print(1,flush=True)
while True:
    q,a=s.recvfrom(512); n=q.index(b'\\0',12)+5
    ans=b'\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x05\\0\\x04\\xc6\\x33\\x64\\x07' if q[n-4:n-2]==b'\\0\\x01' else b''
    s.sendto(q[:2]+b'\\x81\\x80\\0\\x01\\0'+bytes([1 if ans else 0])+b'\\0\\0\\0\\0'+q[12:n]+ans,a)";
    let mut server = net.outside.command("python3");
    let mut server = server.args(["-c", script]).stdout(Stdio::piped()).spawn()?;
    std::io::Read::read_exact(server.stdout.as_mut().context("no pipe")?, &mut [0])?;
    net.web("web", &[])?;
    let said = net.run(
        &["--dns", "192.0.2.2"],
        "nslookup www.example.org; nslookup web",
    );
    let _ = server.kill();
    let _ = server.wait();
    let (said, address) = (said?, net.address("web")?);
    ensure!(
        said.contains("Address: 198.51.100.7") && said.contains(&format!("Address: {address}")),
        "{said}"
    );
    net.ok(&["rm", "-f", "web"])?;
    net.assert_nothing()
}

fn many_at_once_get_addresses_of_their_own(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    let run = |_| {
        let script = "ip -4 -o addr show eth0 | grep -o 'inet [0-9.]*'";
        let mut one = net.command(&["run", "--rm", "-p", "80", "busybox", "sh", "-c", script]);
        one.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let all = (0..20).map(run).collect::<std::io::Result<Vec<_>>>()?;
    let mut addresses = Vec::new();
    for one in all {
        addresses.push(text(one.wait_with_output()?)?);
    }
    addresses.sort();
    addresses.dedup();
    ensure!(addresses.len() == 20, "{addresses:?}");
    net.assert_nothing()
}

/// With a firewall that `rules` make: a published port is not reached from outside, nor the outside, until what the
/// warning says is typed; and then nothing is warned of.
fn a_firewall_is_told_of(place: &Place, rules: &str) -> Result<()> {
    let net = Net::new(place)?;
    net.host.sh(rules)?;
    let serve = [
        "run", "-d", "--name", "c_f", "-p", "8080:80", "busybox", "httpd", "-f", "-h", "/www",
    ];
    let started = net.sc(&serve)?;
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    ensure!(started.status.success(), "{said}");
    let typed = said.split('`').nth(1).with_context(|| said.clone())?;
    let inside = ["exec", "c_f", "wget", "-qO-", "http://127.0.0.1/"];
    until(|| Ok(net.ok(&inside).is_ok()), |listens| *listens)?;
    let ask = |seconds: u32| {
        let wget = format!("timeout {seconds} busybox wget -qO- http://192.0.2.1:8080/");
        net.outside.sh(&wget)
    };
    ensure!(ask(1).is_err(), "the firewall does not drop");
    net.host.sh(typed)?;
    ensure!(ask(20)? == "hello\n");
    // Answered, if only by a refusal: not dropped.
    let out = [
        "exec",
        "c_f",
        "timeout",
        "20",
        "wget",
        "-qO-",
        "http://192.0.2.2:9/",
    ];
    let said = net.sc(&out)?;
    ensure!(said.stderr.ends_with(b"Connection refused\n"), "{said:?}");
    net.ok(&["rm", "-f", "c_f"])?;
    net.ok(&["network", "prune", "-f"])?;
    let started = net.sc(&serve)?;
    let said = String::from_utf8_lossy(&started.stderr);
    ensure!(started.status.success() && said.is_empty(), "{said}");
    net.ok(&["rm", "-f", "c_f"]).map(drop)
}

fn a_firewall_that_drops_is_named_with_what_to_type(place: &Place) -> Result<()> {
    a_firewall_is_told_of(
        place,
        "nft 'table inet fw { chain pass { type filter hook forward priority 0; policy drop; ct state established accept; }; }'",
    )
}

fn a_firewall_of_iptables_is_named_in_its_words(place: &Place) -> Result<()> {
    a_firewall_is_told_of(place, "iptables-nft -P FORWARD DROP")
}

/// The kernel here need not have SCTP: packets are made by hand, and only forwarded.
fn a_port_of_sctp_is_forwarded(place: &Place) -> Result<()> {
    let net = Net::new(place)?;
    let publish = ["-p", "9000:9001/sctp"];
    net.ok(&[
        &["run", "-d", "--name", "c_s"],
        &publish[..],
        &["busybox", "sleep", "1000"],
    ]
    .concat())?;
    ensure!(
        net.ok(&["port", "c_s"])?
            .starts_with("9001/sctp -> 0.0.0.0:9000\n")
    );
    let pid = net.ok(&["inspect", "-f", "{{.State.Pid}}", "c_s"])?;
    let listen = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
s.settimeout(60)
print(flush=True)
print(s.recv(2000)[20:24].hex())";
    let mut inside = Command::new("nsenter")
        .args(["-t", pid.trim(), "-n", "--", "python3", "-c", listen])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = inside.stdout.as_mut().context("no pipe")?;
    std::io::Read::read_exact(out, &mut [0])?;
    // An INIT chunk from port 5555 to 9000, with its CRC32c (RFC 9260, 3.3.2 and appendix A).
    let send = "import socket, struct
def crc(data):
    c = 0xffffffff
    for byte in data:
        c ^= byte
        for _ in range(8): c = (c >> 1) ^ (0x82f63b78 if c & 1 else 0)
    return struct.pack('<I', c ^ 0xffffffff)
ports = struct.pack('>HHI', 5555, 9000, 0)
init = struct.pack('>BBHIIHHI', 1, 0, 20, 0x1234, 65535, 1, 1, 1)
packet = ports + crc(ports + bytes(4) + init) + init
socket.socket(socket.AF_INET, socket.SOCK_RAW, 132).sendto(packet, ('192.0.2.1', 0))";
    text(net.outside.command("python3").args(["-c", send]).output()?)?;
    let ports = text(inside.wait_with_output()?)?;
    ensure!(ports.trim() == "15b32329", "{ports}");
    net.ok(&["rm", "-f", "c_s"])?;
    net.assert_nothing()
}
