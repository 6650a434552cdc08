//! `start`: lets a created container's init execute the user's program.

use crate::runtime::cli::Global;
use crate::runtime::container::{Container, EXEC_ERR, EXEC_FIFO, PATIENCE, Place, missing};
use crate::runtime::hooks;
use crate::runtime::notify;
use crate::runtime::state::State;
use crate::runtime::status::{Act, Answer, Status, ask};
use crate::sys::{self, Call};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::Mode;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// Longest text that is read of why exec failed.
const LONGEST: usize = 16 * 1024;

pub fn start(global: &Global, id: &str) -> Result<()> {
    let permitted = |container: &Container| match ask(Act::Start, container.status()?, id) {
        Answer::No(why) => bail!(why),
        _ => Ok(()),
    };
    // With the lock, so that of two `start` one starts it and the other is told.
    let place = Place::take(&global.root, id, permitted)?.ok_or_else(missing)?;
    let container = Container::read(place)?.ok_or_else(missing)?;
    permitted(&container)?;
    let proxy = match notify::asked() {
        Some(manager) if container.record.notify => {
            Some(notify::Proxy::new(container.dir(), &manager)?)
        }
        _ => None,
    };
    release(&container)?;
    poststart(&container)?;
    let Some(proxy) = proxy else {
        return Ok(());
    };
    let (pid, init) = (container.record.pid, container.init()?);
    // Its program may take long to be ready: others may work on the container meanwhile.
    drop(container);
    match init {
        Some(init) => proxy.serve(pid, init.as_fd()),
        None => Ok(()),
    }
}

/// Lets init go on, and waits until it has executed the program.
fn release(container: &Container) -> Result<()> {
    let id = container.id();
    // For reading before init may go on: whatever it writes is not lost.
    let why =
        open_fifo(container, EXEC_ERR, OFlag::O_RDONLY).with_context(|| format!("start {id}"))?;
    let fifo = match open_fifo(container, EXEC_FIFO, OFlag::O_WRONLY) {
        // Nobody reads: init has died since we looked.
        Err(e) if e.errno == Errno::ENXIO => bail!("cannot start a container that has stopped"),
        other => other.with_context(|| format!("start {id}"))?,
    };
    // Before the byte: a container that runs must not be seen as created.
    container.unlink(EXEC_FIFO)?;
    nix::unistd::write(&fifo, b"0").call("write", || format!("{EXEC_FIFO:?}"))?;
    drop(fifo);
    let failed = end_of(why).with_context(|| format!("start {id}: read {EXEC_ERR}"))?;
    container.unlink(EXEC_ERR)?;
    match failed.as_str() {
        "" => Ok(()),
        text => {
            // It is on its way out: whoever reads our error may delete it at once.
            if let Some(init) = container.init()? {
                sys::pidfd::wait(init.as_fd(), PATIENCE)?;
            }
            Err(anyhow!(text.trim_end().to_owned()))
        }
    }
}

fn open_fifo(container: &Container, name: &'static str, access: OFlag) -> sys::Result<OwnedFd> {
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(container.dir(), name, flags, Mode::empty()).call("openat", || format!("{name:?}"))
}

/// All that init writes until its end of the fifo is closed, by exec or by death. A blocking read:
/// poll(2) would not report the end to a reader that opened when the last writer was gone already.
fn end_of(fifo: OwnedFd) -> Result<String> {
    fcntl(&fifo, FcntlArg::F_SETFL(OFlag::empty())).call("fcntl", || "F_SETFL, 0".to_owned())?;
    let mut text = Vec::with_capacity(LONGEST);
    std::fs::File::from(fifo)
        .take(LONGEST as u64)
        .read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Runs the poststart hooks; a failing one ends the container (runtime-spec runtime.md#lifecycle).
fn poststart(container: &Container) -> Result<()> {
    let hooks = &container.record.poststart;
    if hooks.is_empty() {
        return Ok(());
    }
    let state = State::of(&container.record, Status::Running).line();
    hooks::run(hooks, "poststart", &state).or_else(|failed| {
        container
            .kill()
            .context("kill it after a failed poststart hook")?;
        Err(failed)
    })
}
