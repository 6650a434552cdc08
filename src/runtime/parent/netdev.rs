//! How do devices of the host get into the container's network namespace?
//! (runtime-spec config-linux.md#network-devices)
//!
//! A move takes a device down and its addresses from it; the device's other properties travel with
//! it. So its permanent global addresses are noted before and given back inside, and it is set up
//! there. Everything that can be checked is checked for all devices before the first one is moved, and
//! they come back from a container that could not be made: a virtual device ends with its namespace.
//! What is configured inside later, and what becomes of the devices in the end, is not our business.

use crate::runtime::plan::NetDevice;
use crate::sys::netlink::{Route, attributes, malformed, put};
use crate::sys::{self, Call};
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Lengths of `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// Moves the devices, or none of them.
///
/// # Errors
/// Names the device. Those already moved have been moved back.
pub fn move_into(netns: OwnedFd, devices: &[NetDevice]) -> Result<Moved> {
    let host = own_namespace()?;
    let (outside, inside) = sides(host.as_fd(), netns.as_fd())?;
    let journeys = check(&outside, &inside, devices)?;
    let mut moved = Vec::new();
    for journey in journeys {
        match journey.carry(&outside, &inside, true) {
            Ok(name) => moved.push((journey, name)),
            Err(e) => {
                let (from, to) = (journey.from.clone(), journey.to.clone());
                // It may be inside, but not yet have all that it should.
                moved.push((journey, to));
                // The first error is the one to report.
                let _ = carry_home(&outside, &inside, moved);
                return Err(e.context(from));
            }
        }
    }
    Ok(Moved {
        namespace: netns,
        devices: moved,
    })
}

/// Devices that are in the container's network namespace, which is held until they can stay there.
pub struct Moved {
    namespace: OwnedFd,
    /// How each came, and its name there.
    devices: Vec<(Journey, String)>,
}

impl Moved {
    /// Takes them back: a virtual one would end with a container that failed. An error names the first
    /// that could not be taken.
    pub fn undo(self) -> Result<()> {
        let host = own_namespace()?;
        let (outside, inside) = sides(host.as_fd(), self.namespace.as_fd())?;
        carry_home(&outside, &inside, self.devices)
    }
}

/// Last first. Where one cannot be, the others are.
fn carry_home(outside: &Side, inside: &Side, moved: Vec<(Journey, String)>) -> Result<()> {
    let mut done = Ok(());
    for (journey, name) in moved.into_iter().rev() {
        let home = journey.back(name).carry(inside, outside, journey.was_up);
        done = done.and(home.map(drop).context(journey.from));
    }
    done
}

fn sides<'a>(host: BorrowedFd<'a>, netns: BorrowedFd<'a>) -> Result<(Side<'a>, Side<'a>)> {
    let outside = Side {
        route: Route::open()?,
        namespace: host,
    };
    let inside = Side {
        route: open_within(netns, host)?,
        namespace: netns,
    };
    Ok((outside, inside))
}

/// A network namespace, and a socket to talk about it.
struct Side<'a> {
    route: Route,
    namespace: BorrowedFd<'a>,
}

/// One device on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Journey {
    from: String,
    /// A name, or a template that ends in `%d`.
    to: String,
    addresses: Vec<Address>,
    was_up: bool,
}

/// What RTM_GETLINK says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    index: i32,
    name: String,
    up: bool,
}

/// An address as RTM_GETADDR tells it, to be given to RTM_NEWADDR as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    index: i32,
    family: u8,
    prefix: u8,
    flags: u32,
    scope: u8,
    label: Option<String>,
    attributes: Vec<(u16, Vec<u8>)>,
}

fn check(outside: &Side, inside: &Side, devices: &[NetDevice]) -> Result<Vec<Journey>> {
    let there = outside.links()?;
    let mut taken: Vec<String> = inside.links()?.into_iter().map(|link| link.name).collect();
    let addresses = outside.addresses()?;
    let mut journeys = Vec::new();
    for device in devices {
        let from = &device.host_name;
        let to = device.new_name.as_ref().unwrap_or(from);
        let link = there
            .iter()
            .find(|link| link.name == *from)
            .with_context(|| format!("{from}: the host has no such network device"))?;
        if !is_template(to) {
            ensure!(
                !taken.contains(to),
                "{from}: the container's network namespace already has a device named {to:?}"
            );
            taken.push(to.clone());
        }
        let of_link = addresses.iter().filter(|a| a.index == link.index);
        journeys.push(Journey {
            from: from.clone(),
            to: to.clone(),
            addresses: of_link.cloned().collect(),
            was_up: link.up,
        });
    }
    Ok(journeys)
}

fn is_template(name: &str) -> bool {
    name.ends_with("%d")
}

impl Journey {
    /// The same device, home again from where it got this name.
    fn back(&self, name: String) -> Self {
        Journey {
            from: name,
            to: self.from.clone(),
            ..self.clone()
        }
    }

    /// Gives the name it has on arrival.
    fn carry(&self, outside: &Side, inside: &Side, up: bool) -> Result<String> {
        let link = outside.link(&self.from)?;
        let before = inside.links()?;
        outside.send(&link, inside.namespace, &self.to)?;
        let link = self.arrived(before, inside)?;
        // Addresses first: what comes in through the device should find them there.
        for address in &self.addresses {
            inside.give(&link, address, &self.from)?;
        }
        if up {
            inside.set_up(&link)?;
        }
        Ok(link.name)
    }

    /// The device in its new namespace, where the kernel may have given it another number, and a
    /// name made from the template.
    fn arrived(&self, before: Vec<Link>, inside: &Side) -> Result<Link> {
        let mut new = inside.links()?;
        match self.to.strip_suffix("%d") {
            None => new.retain(|link| link.name == self.to),
            Some(start) => new.retain(|link| {
                link.name.starts_with(start) && before.iter().all(|old| old.index != link.index)
            }),
        }
        match new.len() {
            1 => Ok(new.remove(0)),
            many => bail!("moved as {:?}, but {many} devices there may be it", self.to),
        }
    }
}

impl Side<'_> {
    fn links(&self) -> Result<Vec<Link>> {
        let all = self
            .route
            .list("RTM_GETLINK", libc::RTM_GETLINK, &[0; LINK])?;
        all.iter().map(|message| link(&message.body)).collect()
    }

    fn link(&self, name: &str) -> Result<Link> {
        let links = self.links()?;
        let found = links.into_iter().find(|link| link.name == name);
        found.context("the device is not there any more")
    }

    /// The addresses that move with their device: permanent ones of global scope.
    fn addresses(&self) -> Result<Vec<Address>> {
        let all = self
            .route
            .list("RTM_GETADDR", libc::RTM_GETADDR, &[0; ADDRESS])?;
        let mut addresses = Vec::new();
        for message in all {
            let address = address(&message.body)?;
            if address.scope == libc::RT_SCOPE_UNIVERSE
                && address.flags & libc::IFA_F_PERMANENT != 0
            {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// To another namespace, and to another name on the way: there is no moment in which the old
    /// name would have to be free over there.
    fn send(&self, link: &Link, namespace: BorrowedFd, name: &str) -> sys::Result<()> {
        let mut body = link_header(link.index, 0);
        put(
            &mut body,
            libc::IFLA_NET_NS_FD,
            &namespace.as_raw_fd().to_ne_bytes(),
        );
        if name != link.name {
            put(&mut body, libc::IFLA_IFNAME, &zero_ended(name));
        }
        let args = || format!("{}, IFLA_NET_NS_FD, IFLA_IFNAME {name}", link.name);
        self.route
            .order("RTM_SETLINK", args, libc::RTM_SETLINK, 0, &body)
    }

    fn set_up(&self, link: &Link) -> sys::Result<()> {
        let body = link_header(link.index, libc::IFF_UP as u32);
        let args = || format!("{}, IFF_UP", link.name);
        self.route
            .order("RTM_SETLINK", args, libc::RTM_SETLINK, 0, &body)
    }

    fn give(&self, link: &Link, address: &Address, old_name: &str) -> sys::Result<()> {
        let mut body = vec![address.family, address.prefix, 0, address.scope];
        body.extend(link.index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            put(&mut body, *kind, value);
        }
        put(&mut body, libc::IFA_FLAGS, &address.flags.to_ne_bytes());
        if let Some(label) = &address.label {
            // "eth0:web": by convention a label begins with its device's name.
            let rest = label.strip_prefix(old_name);
            let label = rest.map_or(label.clone(), |rest| format!("{}{rest}", link.name));
            put(&mut body, libc::IFA_LABEL, &zero_ended(&label));
        }
        let args = || format!("{}, {address:?}", link.name);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.route
            .order("RTM_NEWADDR", args, libc::RTM_NEWADDR, flags, &body)
    }
}

/// `struct ifinfomsg`, changing only the flags given.
fn link_header(index: i32, flags: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header
}

fn link(body: &[u8]) -> Result<Link> {
    let (header, rest) = body
        .split_at_checked(LINK)
        .ok_or_else(|| malformed("RTM_GETLINK"))?;
    let number = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let name = attributes(rest)
        .into_iter()
        .find(|(kind, _)| *kind == libc::IFLA_IFNAME);
    Ok(Link {
        index: number(4) as i32,
        name: name.map_or_else(String::new, |(_, name)| text(name)),
        up: number(8) & libc::IFF_UP as u32 != 0,
    })
}

fn address(body: &[u8]) -> Result<Address> {
    let (header, rest) = body
        .split_at_checked(ADDRESS)
        .ok_or_else(|| malformed("RTM_GETADDR"))?;
    let mut address = Address {
        family: header[0],
        prefix: header[1],
        // Eight of them; IFA_FLAGS has all.
        flags: header[2].into(),
        scope: header[3],
        index: i32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
        label: None,
        attributes: Vec::new(),
    };
    for (kind, value) in attributes(rest) {
        match (kind, value.first_chunk()) {
            (libc::IFA_FLAGS, Some(flags)) => address.flags = u32::from_ne_bytes(*flags),
            (libc::IFA_LABEL, _) => address.label = Some(text(value)),
            _ => address.attributes.push((kind, value.to_vec())),
        }
    }
    Ok(address)
}

fn zero_ended(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn own_namespace() -> sys::Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .call("open", || format!("{path:?}"))
}

/// A socket of another namespace: it is entered for that, and left again.
fn open_within(namespace: BorrowedFd, home: BorrowedFd) -> Result<Route> {
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .call("setns", || "CLONE_NEWNET".to_owned())
        .context("enter the container's network namespace")?;
    let route = Route::open();
    setns(home, CloneFlags::CLONE_NEWNET)
        .call("setns", || "CLONE_NEWNET".to_owned())
        .context("return to the host's network namespace")?;
    Ok(route?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::thread;

    /// Runs `act` in a thread of its own within a network namespace.
    fn within<T: Send>(namespace: BorrowedFd, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    /// A new, empty network namespace; it ends with the descriptor.
    fn namespace() -> OwnedFd {
        let make = || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            own_namespace().unwrap()
        };
        thread::spawn(make).join().unwrap()
    }

    /// `ip` with these words, in the calling thread's namespace: what it prints.
    fn ip(words: &str) -> String {
        let output = Command::new("ip")
            .args(words.split(' '))
            .output()
            .expect("run ip (iproute2)");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {words}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Where the devices come from, with veth pairs v0-w0 and v1-w1, and where they go.
    fn places() -> (OwnedFd, OwnedFd) {
        let host = namespace();
        within(host.as_fd(), || {
            ip("link add v0 mtu 1400 address 02:00:00:00:00:07 type veth peer name w0");
            ip("link add v1 type veth peer name w1");
        });
        (host, namespace())
    }

    fn device(host_name: &str, new_name: Option<&str>) -> NetDevice {
        NetDevice {
            host_name: host_name.to_owned(),
            new_name: new_name.map(str::to_owned),
        }
    }

    fn moved(host: &OwnedFd, inside: &OwnedFd, devices: &[NetDevice]) -> Result<()> {
        within(host.as_fd(), || {
            move_into(inside.try_clone().unwrap(), devices).map(drop)
        })
    }

    fn names(namespace: &OwnedFd) -> Vec<String> {
        let list = within(namespace.as_fd(), || ip("-o link show"));
        let name = |line: &str| line.split([' ', '@', ':']).nth(2).unwrap().to_owned();
        let mut names: Vec<_> = list.lines().map(name).collect();
        names.sort();
        names
    }

    #[test]
    #[ignore = "needs root and ip"]
    fn a_device_arrives_up_renamed_and_with_what_it_had() {
        let (host, inside) = places();
        within(host.as_fd(), || {
            ip("link set v0 up");
            ip("addr add 10.1.2.3/24 broadcast 10.1.2.255 label v0:web dev v0");
            ip("addr add 10.1.2.4/24 dev v0");
            ip("addr add fd00::7/64 nodad dev v0");
            // These three stay behind.
            ip("addr add 10.9.9.9/32 scope link dev v0");
            ip("addr add 10.8.8.8/24 valid_lft 100 preferred_lft 100 dev v0");
            ip("addr add 10.7.7.7/24 dev v1");
        });
        moved(&host, &inside, &[device("v0", Some("eth0"))]).unwrap();
        assert_eq!(names(&inside), ["eth0", "lo"]);
        assert_eq!(names(&host), ["lo", "v1", "w0", "w1"]);
        let (link, addresses) = within(inside.as_fd(), || {
            (ip("link show eth0"), ip("-o addr show eth0"))
        });
        for wanted in [",UP", " mtu 1400 ", "02:00:00:00:00:07"] {
            assert!(link.contains(wanted), "{wanted} in {link}");
        }
        for wanted in [
            "inet 10.1.2.3/24 brd 10.1.2.255 scope global eth0:web",
            "inet 10.1.2.4/24 scope global secondary eth0",
            "inet6 fd00::7/64 scope global",
        ] {
            assert!(addresses.contains(wanted), "{wanted} in {addresses}");
        }
        for unwanted in ["10.9.9.9", "10.8.8.8", "10.7.7.7"] {
            assert!(!addresses.contains(unwanted), "{unwanted} in {addresses}");
        }
    }

    #[test]
    #[ignore = "needs root and ip"]
    fn without_a_new_name_the_old_one_stays() {
        let (host, inside) = places();
        moved(&host, &inside, &[device("v0", None), device("v1", None)]).unwrap();
        assert_eq!(names(&inside), ["lo", "v0", "v1"]);
    }

    #[test]
    #[ignore = "needs root and ip"]
    fn a_template_gives_each_device_a_name_of_its_own() {
        let (host, inside) = places();
        within(host.as_fd(), || ip("addr add 10.1.2.3/24 dev v1"));
        within(inside.as_fd(), || {
            ip("link add eth0 type veth peer name eth1")
        });
        let wanted = [device("v0", Some("eth%d")), device("v1", Some("eth%d"))];
        moved(&host, &inside, &wanted).unwrap();
        assert_eq!(names(&inside), ["eth0", "eth1", "eth2", "eth3", "lo"]);
        let addresses = within(inside.as_fd(), || ip("-o -4 addr show eth3"));
        assert!(addresses.contains("10.1.2.3/24"), "{addresses}");
    }

    #[test]
    #[ignore = "needs root and ip"]
    fn a_name_that_is_taken_or_missing_is_an_error_before_anything_moves() {
        let (host, inside) = places();
        within(inside.as_fd(), || {
            ip("link add eth0 type veth peer name eth1")
        });
        let before = (names(&host), names(&inside));
        let table = [
            (
                [device("v1", None), device("v0", Some("eth0"))],
                "v0: the container's network namespace already has a device named \"eth0\"",
            ),
            (
                [device("v1", None), device("none", None)],
                "none: the host has no such network device",
            ),
            (
                [device("v1", Some("a")), device("v0", Some("a"))],
                "v0: the container's network namespace already has a device named \"a\"",
            ),
        ];
        for (devices, message) in table {
            let error = moved(&host, &inside, &devices).unwrap_err();
            assert_eq!(format!("{error:#}"), message);
            assert_eq!((names(&host), names(&inside)), before);
        }
    }

    #[test]
    #[ignore = "needs root and ip"]
    fn what_was_moved_comes_back_when_a_later_device_cannot_move() {
        let (host, inside) = places();
        within(host.as_fd(), || {
            ip("addr add 10.1.2.3/24 dev v0");
            ip("link set v0 up");
        });
        // Too long for the kernel (IFNAMSIZ), which only the move itself finds out.
        let wanted = [
            device("v0", Some("eth0")),
            device("v1", Some("a-name-of-too-many-letters")),
        ];
        let error = moved(&host, &inside, &wanted).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("v1: RTM_SETLINK(v1, "),
            "{error:#}"
        );
        assert_eq!(names(&inside), ["lo"]);
        assert_eq!(names(&host), ["lo", "v0", "v1", "w0", "w1"]);
        let at_home = within(host.as_fd(), || ip("link show v0") + &ip("addr show v0"));
        assert!(
            at_home.contains(",UP") && at_home.contains("inet 10.1.2.3/24"),
            "{at_home}"
        );
    }
}
