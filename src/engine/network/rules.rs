//! What does nftables do for a network? A table of its own, named as its bridge, replaced in one transaction.
//!
//! | chain | what goes through it, and what becomes of it |
//! |---|---|
//! | `early` | from a container to the host's loopback: dropped, as route_localnet would let it in |
//! | `in`, `out` | to a published port of this host: to the container's |
//! | `leaving` | from a container to elsewhere, from the host's loopback, from a container to itself: from the gateway |
//! | `between` | to a container: only answers, and what was published |
//!
//! A map has the published ports of all addresses, another those of one. An address of the loopback is looked up only
//! for what this host sends: a neighbour may put 127.0.0.1 into a packet.

use super::definition::Definition;
use super::ports::Port;
use crate::sys::netlink;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// A published port and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    pub port: Port,
    pub v4: IpAddr,
    pub v6: Option<IpAddr>,
}

/// The whole table, with all that is published; whatever of it was there before is replaced.
pub fn table(network: &Definition, published: &[Published]) -> String {
    let name = &network.device;
    let mut text =
        format!("add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n");
    for (map, key, value) in [
        ("any4", "inet_proto . inet_service", "ipv4_addr"),
        ("any6", "inet_proto . inet_service", "ipv6_addr"),
        ("one4", "ipv4_addr . inet_proto . inet_service", "ipv4_addr"),
        ("one6", "ipv6_addr . inet_proto . inet_service", "ipv6_addr"),
    ] {
        // Writing to a String does not fail, here and below.
        let _ = writeln!(
            text,
            " map {map} {{ type {key} : {value} . inet_service; }}"
        );
    }
    let mut chain = |name: &str, kind: &str, rules: &[String]| {
        let rules: String = rules.iter().map(|rule| format!("  {rule}\n")).collect();
        let _ = writeln!(
            text,
            " chain {name} {{\n  type {kind}; policy accept;\n{rules} }}"
        );
    };
    let lookups = |v4: &str| {
        let one = |family: &str, digit: u8, guard: &str| {
            let local = format!("fib daddr type local {guard}dnat {family} to");
            [
                format!("{local} {family} daddr . meta l4proto . th dport map @one{digit}"),
                format!("{local} meta l4proto . th dport map @any{digit}"),
            ]
        };
        // From ::1 nothing is routed: who tries it is refused, and tries 127.0.0.1; where it is published by its name, a
        // process answers there.
        [one("ip", 4, v4), one("ip6", 6, "ip6 daddr != ::1 ")].concat()
    };
    let early = [
        format!("iifname \"{name}\" ip daddr 127.0.0.0/8 drop"),
        format!("iifname \"{name}\" ip saddr 127.0.0.0/8 drop"),
    ];
    chain("early", "filter hook prerouting priority raw", &early);
    let others = lookups("ip daddr != 127.0.0.0/8 ");
    chain("in", "nat hook prerouting priority dstnat", &others);
    chain("out", "nat hook output priority -100", &lookups(""));
    chain(
        "leaving",
        "nat hook postrouting priority srcnat",
        &masquerade(network),
    );
    chain(
        "between",
        "filter hook forward priority filter",
        &between(network),
    );
    text.push_str("}\n");
    text.push_str(&add(network, published));
    text
}

fn masquerade(network: &Definition) -> Vec<String> {
    let (name, v4) = (&network.device, network.subnet);
    let mut rules = vec![format!(
        "ip saddr 127.0.0.0/8 oifname \"{name}\" masquerade"
    )];
    let subnets = [Some(v4), network.subnet6];
    for subnet in subnets.into_iter().flatten() {
        let ip = if subnet.is_v4() { "ip" } else { "ip6" };
        if !network.internal {
            rules.push(format!(
                "{ip} saddr {subnet} oifname != \"{name}\" masquerade"
            ));
        }
        rules.push(format!(
            "{ip} saddr {subnet} {ip} daddr {subnet} ct status dnat masquerade"
        ));
    }
    rules
}

fn between(network: &Definition) -> Vec<String> {
    let name = &network.device;
    let mut rules = vec![
        // Only where bridged packets pass the rules of the host (br_netfilter).
        format!("iifname \"{name}\" oifname \"{name}\" accept"),
    ];
    if network.internal {
        rules.push(format!("iifname \"{name}\" drop"));
    } else {
        rules.push("ct state established,related accept".to_owned());
        rules.push(format!("iifname \"{name}\" accept"));
        rules.push(format!("oifname \"{name}\" ct status dnat accept"));
    }
    rules.push(format!("oifname \"{name}\" drop"));
    rules
}

/// What a container publishes.
pub fn add(network: &Definition, published: &[Published]) -> String {
    elements("add", network, published)
}

/// It publishes it no more.
pub fn remove(network: &Definition, published: &[Published]) -> String {
    elements("delete", network, published)
}

fn elements(verb: &str, network: &Definition, published: &[Published]) -> String {
    let mut text = String::new();
    for one in published.iter().filter(|one| !one.port.is_loopback6()) {
        for place in one.port.addresses() {
            let (digit, to) = match (place.ip(), one.v6) {
                (IpAddr::V4(_), _) => (4, one.v4),
                (IpAddr::V6(_), Some(v6)) => (6, v6),
                (IpAddr::V6(_), None) => continue,
            };
            let protocol = one.port.protocol.name();
            let (map, key) = match place.ip().is_unspecified() {
                true => ("any", String::new()),
                false => ("one", format!("{} . ", place.ip())),
            };
            let _ = writeln!(
                text,
                "{verb} element inet {} {map}{digit} {{ {key}{protocol} . {} : {to} . {} }}",
                network.device,
                place.port(),
                one.port.container,
            );
        }
    }
    text
}

/// It is where not every $PATH leads.
fn nft() -> Command {
    let mut command = Command::new("nft");
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    command.env("PATH", path);
    command
}

/// Hands a transaction to nft: all of it or nothing.
pub fn apply(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut child = nft()
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context(
            "execute nft, which sets up networks: install nftables, or use --network none or host",
        )?;
    let written = child
        .stdin
        .take()
        .map(|mut to| to.write_all(text.as_bytes()));
    let output = child.wait_with_output().context("nft")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "nft: {}",
            said.lines()
                .next()
                .unwrap_or("failed")
                .trim_start_matches("/dev/stdin:")
        );
    }
    Ok(written.transpose().map(drop)?)
}

/// Is the table there? Without nft.
pub fn is_loaded(network: &Definition) -> Result<bool> {
    Ok(netlink::has_table(&network.device)?)
}

/// Forgets the network's table.
pub fn drop_table(network: &Definition) -> Result<()> {
    match is_loaded(network)? {
        true => apply(&format!("delete table inet {}\n", network.device)),
        false => Ok(()),
    }
}

/// The chains of others that let nothing be forwarded unless they say so, and say nothing of `device`: what our table
/// accepts, they drop. Each is `FAMILY TABLE CHAIN`.
fn obstacles(ruleset: &str, device: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = (String::new(), String::new(), Vec::new());
    let (mut drops, mut lets) = (false, false);
    let accepts = |line: &str| {
        let of = ["iifname", "oifname"].map(|end| format!("{end} \"{device}\""));
        line.ends_with("accept") && of.iter().any(|of| line.contains(of))
    };
    for line in ruleset.lines().map(str::trim) {
        let name = |line: &str| line.trim_end_matches('{').trim().to_owned();
        if let Some(rest) = line.strip_prefix("table ") {
            table = name(rest);
        } else if let Some(rest) = line.strip_prefix("chain ") {
            (chain, drops, lets) = (name(rest), false, false);
        } else if line.contains("hook forward ") && line.contains("policy drop") {
            drops = true;
        } else if line == "}" {
            if drops && !lets {
                found.push(format!("{table} {chain}"));
            }
            drops = false;
        } else {
            lets |= accepts(line);
        }
    }
    found
}

/// What lets `device` through such a chain; in those of iptables with its own words, as it reads no others.
fn remedy(chain: &str, device: &str) -> String {
    let both = |command: &str, end: [&str; 2], verdict: &str| {
        end.map(|end| format!("{command} {end} {device} {verdict}"))
            .join(" && ")
    };
    match chain {
        "ip filter FORWARD" => both("iptables -I FORWARD", ["-i", "-o"], "-j ACCEPT"),
        "ip6 filter FORWARD" => both("ip6tables -I FORWARD", ["-i", "-o"], "-j ACCEPT"),
        _ => both(
            &format!("nft insert rule {chain}"),
            ["iifname", "oifname"],
            "accept",
        ),
    }
}

/// A word of warning when others drop what is forwarded.
pub fn warning(network: &Definition) -> Option<String> {
    // Without the elements of sets, which may be many.
    let output = nft()
        .args(["--terse", "list", "ruleset"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let device = &network.device;
    let obstacles = obstacles(&String::from_utf8_lossy(&output.stdout), device);
    if obstacles.is_empty() {
        return None;
    }
    let remedies: Vec<String> = obstacles
        .iter()
        .map(|chain| remedy(chain, device))
        .collect();
    Some(format!(
        "the firewall of this host drops what is forwarded (chain {}): containers reach only each other and the host, \
         until you type `{}`",
        obstacles.join(", "),
        remedies.join(" && ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::network::ports;

    fn network() -> Definition {
        Definition {
            device: "sc0".to_owned(),
            ..Definition::of_tests()
        }
    }

    #[test]
    fn a_port_of_all_addresses_leads_to_both_of_the_container() {
        let publish = |text| Published {
            port: ports::parse(text).unwrap()[0],
            v4: [10, 89, 0, 5].into(),
            v6: "fd00::5".parse().ok(),
        };
        assert_eq!(
            add(
                &network(),
                &[publish("8080:80"), publish("127.0.0.1:53:53/udp")]
            ),
            "add element inet sc0 any4 { tcp . 8080 : 10.89.0.5 . 80 }\n\
             add element inet sc0 any6 { tcp . 8080 : fd00::5 . 80 }\n\
             add element inet sc0 one4 { 127.0.0.1 . udp . 53 : 10.89.0.5 . 53 }\n"
        );
    }

    #[test]
    fn what_is_published_at_the_loopback_of_ipv6_is_no_rule() {
        let publish = |text| Published {
            port: ports::parse(text).unwrap()[0],
            v4: [10, 89, 0, 5].into(),
            v6: "fd00::5".parse().ok(),
        };
        assert_eq!(add(&network(), &[publish("[::1]:8080:80")]), "");
    }

    #[test]
    fn an_internal_network_is_neither_left_nor_entered() {
        let internal = Definition {
            internal: true,
            ..network()
        };
        let text = table(&internal, &[]);
        assert!(!text.contains("oifname != \"sc0\" masquerade"), "{text}");
        assert!(
            text.contains("  iifname \"sc0\" drop\n  oifname \"sc0\" drop\n"),
            "{text}"
        );
    }

    #[test]
    fn a_chain_that_drops_by_policy_is_found() {
        let ruleset = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n\
                       table inet sc0 {\n\tchain between {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n";
        assert_eq!(obstacles(ruleset, "sc0"), ["ip filter FORWARD"]);
        let rule = "policy drop;\n\t\tiifname \"sc0\" counter packets 0 bytes 0 accept";
        let told = ruleset.replace("policy drop;", rule);
        assert_eq!(obstacles(&told, "sc0"), [""; 0]);
        assert_eq!(obstacles(&told, "sc1"), ["ip filter FORWARD"]);
    }

    #[test]
    fn a_remedy_is_in_the_words_of_the_firewall() {
        for (chain, expected) in [
            (
                "ip filter FORWARD",
                "iptables -I FORWARD -i sc0 -j ACCEPT && iptables -I FORWARD -o sc0 -j ACCEPT",
            ),
            (
                "inet fw pass",
                "nft insert rule inet fw pass iifname sc0 accept && nft insert rule inet fw pass oifname sc0 accept",
            ),
        ] {
            assert_eq!(remedy(chain, "sc0"), expected);
        }
    }
}
