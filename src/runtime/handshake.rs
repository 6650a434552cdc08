//! All that parent and init say to each other between clone and exec.
//!
//! ```text
//!  parent                               init
//!    │  clone3 ───────────────────────▶ │
//!    │ ◀────────────── Child + pidfd ── │   only when a joiner made it (CloneRoute::Joiner)
//!    │  Placed ───────────────────────▶ │   only with systemd: it has put init into its cgroup
//!    │  Welcome ──────────────────────▶ │   only with a new user namespace: id maps are written; and
//!    │                                  │   when a joiner made it: what it says is known to be init's
//!    │ ◀─────────────── Trees + which ─ │   binds that init may not make itself, please
//!    │  Tree + fd, … ─────────────────▶ │   one a bind, made by a helper of the parent's
//!    │                                  │   mounts, devices
//!    │ ◀─────────────────────── Hooks ─ │   only with prestart or createRuntime hooks
//!    │  Go ───────────────────────────▶ │   they are done
//!    │                                  │   pivot_root, identity, argv[0] found
//!    │ ◀──────────────── Console + fd ─ │   only with a terminal: the pty's master
//!    │ ◀─────────── Courier, Listener ─ │   only with a seccomp agent: a child of init's, under no
//!    │                                  │   filter, brings the listener, before Ready or after it
//!    │ ◀─────────────────────── Ready ─ │   all but exec is done; limits and record are the parent's
//!    │  Start ────────────────────────▶ │   `run`; said while init mounts where nothing of the parent's
//!    │                                  │   must come first. With `create` the fifo says so, later
//!    │ ◀──────────────── end of file ── │   exec has closed the socket
//! ```
//!
//! For `exec` there is only `Console`, then the end of file: nothing waits for the parent, but with a
//! seccomp agent, when `Courier`, `Listener`, `Ready` and `Start` are said too, and where systemd must put an
//! ordinary user's process into its cgroup (`Placed`).
//!
//! At any time init may say `Failed { why }` and end. End of file before `Ready` means that it died.
//! The socket keeps message boundaries (SOCK_SEQPACKET); a message is one tag byte and its payload.

use crate::sys::{self, Call};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message: an error text is cut to fit.
const LONGEST: usize = 16 * 1024;

/// What init says.
#[derive(Debug)]
pub enum FromInit {
    /// A joiner has made init.
    Child { pidfd: OwnedFd },
    /// Sources of these entries of the plan's mounts, please: their ids are to be mapped, or the
    /// way to them is closed to the container's root.
    Trees(Vec<u32>),
    /// The mounts are there, the root is not yet pivoted: hooks, please.
    Hooks,
    /// The master of the container's terminal.
    Console(OwnedFd),
    /// This process will send `Listener`, and end.
    Courier(OwnedFd),
    /// The seccomp filter is in force, and this is its listener. From the courier: init can be counted
    /// on for write(2) alone, as with runc, whose profiles count on it.
    Listener(OwnedFd),
    /// Only the wait for start and exec are left.
    Ready,
    /// Init gives up; nothing more will follow.
    Failed(String),
}

/// What the parent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromParent {
    Placed,
    Welcome,
    Go,
    /// May come before it is due: init remembers it.
    Start,
}

const CHILD: u8 = b'c';
const TREES: u8 = b'b';
const HOOKS: u8 = b'h';
const CONSOLE: u8 = b't';
const COURIER: u8 = b'k';
const LISTENER: u8 = b'l';
const READY: u8 = b'r';
const FAILED: u8 = b'f';
const PLACED: u8 = b'p';
const WELCOME: u8 = b'w';
const GO: u8 = b'g';
const START: u8 = b's';

/// Most that init asks for at once; the rest in further messages.
pub const MOST_TREES: usize = 1000;

/// The parent's end.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd);

/// The init's end.
#[derive(Debug)]
pub struct InitEnd {
    socket: OwnedFd,
    may_start: Cell<bool>,
}

/// Both ends, close-on-exec.
pub fn pair() -> Result<(ParentEnd, InitEnd)> {
    let (parent, init) = sys::socket::packet_pair()?;
    let init = InitEnd {
        socket: init,
        may_start: Cell::new(false),
    };
    Ok((ParentEnd(parent), init))
}

impl ParentEnd {
    pub fn tell(&self, message: FromParent) -> Result<()> {
        let tag = match message {
            FromParent::Placed => PLACED,
            FromParent::Welcome => WELCOME,
            FromParent::Go => GO,
            FromParent::Start => START,
        };
        sys::socket::send(self.0.as_fd(), &[tag], None).context("tell init to go on")
    }

    /// One of the trees that init has asked for.
    pub fn give_tree(&self, tree: BorrowedFd) -> Result<()> {
        sys::socket::send(self.0.as_fd(), &[TREES], Some(tree)).context("give init a mount")
    }

    /// Why init cannot have the next tree it asked for, nor the rest.
    pub fn refuse_tree(&self, why: &str) -> Result<()> {
        Ok(sys::socket::send(self.0.as_fd(), &failed(why), None)?)
    }

    /// As [`hear`](Self::hear), while `helper` has its own word to say here, for which init waits: an
    /// error when that has died without it. The socket would not tell, as init has it too.
    pub fn hear_beside(&self, helper: Option<&OwnedFd>) -> Result<Option<FromInit>> {
        if let Some(helper) = helper {
            let ended = self.wait_beside(helper)?;
            // It may have spoken between the look at the socket and that at itself.
            if ended && !sys::socket::is_readable(self.as_fd())? {
                bail!("a process that helps to make the container was killed (want of memory?)");
            }
        }
        self.hear()
    }

    /// Whether it was not a message that came first, but the end of `helper`.
    fn wait_beside(&self, helper: &OwnedFd) -> Result<bool> {
        loop {
            let mut both = [
                PollFd::new(self.as_fd(), PollFlags::POLLIN),
                PollFd::new(helper.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut both, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).call("poll", String::new).map_err(Into::into),
                Ok(_) => return Ok(!both[0].any().unwrap_or(false)),
            }
        }
    }

    /// What init has said of its end, if it has ended already: the reason for whatever went wrong since.
    pub fn last_words(&self) -> Option<String> {
        while sys::socket::is_readable(self.as_fd()).ok()? {
            if let FromInit::Failed(why) = self.hear().ok()?? {
                return Some(why);
            }
        }
        None
    }

    /// The next message; `None` when init has closed its end: it executed, or died.
    pub fn hear(&self) -> Result<Option<FromInit>> {
        let mut buffer = [0; LONGEST];
        let (length, fd) = sys::socket::receive(self.0.as_fd(), &mut buffer)?;
        let message = match (buffer[..length].split_first(), fd) {
            (None, _) => return Ok(None),
            (Some((&CHILD, _)), Some(pidfd)) => FromInit::Child { pidfd },
            (Some((&TREES, which)), _) => {
                let (numbers, _) = which.as_chunks();
                FromInit::Trees(numbers.iter().map(|n| u32::from_ne_bytes(*n)).collect())
            }
            (Some((&HOOKS, _)), _) => FromInit::Hooks,
            (Some((&CONSOLE, _)), Some(master)) => FromInit::Console(master),
            (Some((&COURIER, _)), Some(pidfd)) => FromInit::Courier(pidfd),
            (Some((&LISTENER, _)), Some(listener)) => FromInit::Listener(listener),
            (Some((&READY, _)), _) => FromInit::Ready,
            (Some((&FAILED, why)), _) => {
                FromInit::Failed(String::from_utf8_lossy(why).into_owned())
            }
            (Some((tag, _)), _) => bail!("init sent a message of unknown kind {tag:#x}"),
        };
        Ok(Some(message))
    }
}

impl AsFd for ParentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl InitEnd {
    pub fn tell(&self, message: &FromInit) -> Result<()> {
        let (bytes, fd) = match message {
            FromInit::Child { pidfd } => (vec![CHILD], Some(pidfd.as_fd())),
            FromInit::Hooks => (vec![HOOKS], None),
            FromInit::Console(master) => (vec![CONSOLE], Some(master.as_fd())),
            FromInit::Courier(pidfd) => (vec![COURIER], Some(pidfd.as_fd())),
            FromInit::Listener(listener) => (vec![LISTENER], Some(listener.as_fd())),
            FromInit::Ready => (vec![READY], None),
            FromInit::Trees(which) => {
                let mut bytes = vec![TREES];
                bytes.extend(which.iter().flat_map(|n| n.to_ne_bytes()));
                (bytes, None)
            }
            FromInit::Failed(why) => (failed(why), None),
        };
        match fd {
            Some(_) => sys::socket::send(self.socket.as_fd(), &bytes, fd),
            // With a seccomp profile in force: every program needs write(2), few need sendmsg(2).
            None => sys::socket::write(self.socket.as_fd(), &bytes),
        }
        .context("tell the runtime")
    }

    /// The next of the trees that were asked for.
    pub fn next_tree(&self) -> Result<OwnedFd> {
        let mut buffer = [0; LONGEST];
        let (length, fd) = sys::socket::receive(self.socket.as_fd(), &mut buffer)?;
        match (buffer[..length].split_first(), fd) {
            (Some((&TREES, _)), Some(tree)) => Ok(tree),
            (Some((&START, _)), _) => {
                self.may_start.set(true);
                self.next_tree()
            }
            (Some((&FAILED, why)), _) => bail!("{}", String::from_utf8_lossy(why)),
            (None, _) => bail!("the runtime ended before the container was made"),
            _ => bail!("the runtime sent a message of unknown kind"),
        }
    }

    /// Waits for `expected`; a closed socket means that the runtime is gone.
    pub fn wait_for(&self, expected: FromParent) -> Result<()> {
        if expected == FromParent::Start && self.may_start.get() {
            return Ok(());
        }
        let mut buffer = [0; 1];
        let length = sys::socket::read(self.socket.as_fd(), &mut buffer)?;
        let said = match &buffer[..length] {
            [PLACED] => FromParent::Placed,
            [WELCOME] => FromParent::Welcome,
            [GO] => FromParent::Go,
            [START] => FromParent::Start,
            [] => bail!("the runtime ended before the container was made"),
            _ => bail!("the runtime sent a message of unknown kind"),
        };
        match said {
            _ if said == expected => Ok(()),
            FromParent::Start => {
                self.may_start.set(true);
                self.wait_for(expected)
            }
            _ => bail!("the runtime said {said:?} where {expected:?} was due"),
        }
    }
}

fn failed(why: &str) -> Vec<u8> {
    let why = why.as_bytes();
    let mut bytes = vec![FAILED];
    bytes.extend(&why[..why.len().min(LONGEST - 1)]);
    bytes
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_words_and_a_closed_end_is_none() {
        let (parent, init) = pair().unwrap();
        init.tell(&FromInit::Failed("mounts[3] (/data): no".into()))
            .unwrap();
        drop(init);
        match parent.hear().unwrap() {
            Some(FromInit::Failed(why)) => assert_eq!(why, "mounts[3] (/data): no"),
            other => panic!("{other:?}"),
        }
        assert!(parent.hear().unwrap().is_none());
    }

    #[test]
    fn the_last_words_of_init_are_found_behind_all_others_and_never_waited_for() {
        let (parent, init) = pair().unwrap();
        assert_eq!(parent.last_words(), None);
        init.tell(&FromInit::Ready).unwrap();
        assert_eq!(parent.last_words(), None);
        init.tell(&FromInit::Hooks).unwrap();
        init.tell(&FromInit::Failed("no such program".into()))
            .unwrap();
        drop(init);
        assert_eq!(parent.last_words().unwrap(), "no such program");
        assert_eq!(parent.last_words(), None);
    }

    #[test]
    fn trees_are_asked_for_by_number_and_come_one_by_one() {
        let (parent, init) = pair().unwrap();
        init.tell(&FromInit::Trees(vec![3, 70_000])).unwrap();
        match parent.hear().unwrap() {
            Some(FromInit::Trees(which)) => assert_eq!(which, [3, 70_000]),
            other => panic!("{other:?}"),
        }
        parent.give_tree(parent.as_fd()).unwrap();
        parent.refuse_tree("no").unwrap();
        init.next_tree().unwrap();
        assert_eq!(init.next_tree().unwrap_err().to_string(), "no");
    }

    #[test]
    fn a_console_brings_its_descriptor() {
        let (parent, init) = pair().unwrap();
        let (end, _other) = sys::socket::packet_pair().unwrap();
        init.tell(&FromInit::Console(end)).unwrap();
        assert!(matches!(parent.hear().unwrap(), Some(FromInit::Console(_))));
    }

    #[test]
    fn a_listener_brings_its_descriptor() {
        let (parent, init) = pair().unwrap();
        let (end, _other) = sys::socket::packet_pair().unwrap();
        init.tell(&FromInit::Listener(end)).unwrap();
        assert!(matches!(
            parent.hear().unwrap(),
            Some(FromInit::Listener(_))
        ));
    }

    #[test]
    fn the_start_may_come_before_it_is_due() {
        let (parent, init) = pair().unwrap();
        parent.tell(FromParent::Start).unwrap();
        parent.give_tree(parent.as_fd()).unwrap();
        parent.tell(FromParent::Go).unwrap();
        init.next_tree().unwrap();
        init.wait_for(FromParent::Go).unwrap();
        init.wait_for(FromParent::Start).unwrap();
    }

    #[test]
    fn a_helper_that_dies_without_its_word_is_noticed() {
        let (parent, init) = pair().unwrap();
        let mut helper = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let life = sys::pidfd::open(helper.id() as i32).unwrap();
        init.tell(&FromInit::Ready).unwrap();
        let heard = |helper| parent.hear_beside(Some(helper));
        assert!(matches!(heard(&life).unwrap(), Some(FromInit::Ready)));
        // What it said before its end counts.
        init.tell(&FromInit::Hooks).unwrap();
        helper.kill().unwrap();
        helper.wait().unwrap();
        assert!(matches!(heard(&life).unwrap(), Some(FromInit::Hooks)));
        assert_eq!(
            heard(&life).unwrap_err().to_string(),
            "a process that helps to make the container was killed (want of memory?)"
        );
        drop(init);
        assert!(heard(&life).unwrap().is_none());
    }

    #[test]
    fn init_takes_only_what_is_due() {
        let (parent, init) = pair().unwrap();
        parent.tell(FromParent::Welcome).unwrap();
        init.wait_for(FromParent::Welcome).unwrap();
        parent.tell(FromParent::Welcome).unwrap();
        assert_eq!(
            init.wait_for(FromParent::Go).unwrap_err().to_string(),
            "the runtime said Welcome where Go was due"
        );
        drop(parent);
        assert_eq!(
            init.wait_for(FromParent::Go).unwrap_err().to_string(),
            "the runtime ended before the container was made"
        );
    }
}
