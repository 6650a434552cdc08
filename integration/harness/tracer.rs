//! A runtime stopped, killed or lied to at its n-th system call, by ptrace(2). No other program is
//! needed, so it works in a guest that holds nothing but the runtime and this test.

use super::command::{Call, Outcome};
use super::{Result, kernel};
use anyhow::{Context, bail};
use std::collections::HashMap;
use std::io;

/// Which process of the call something is to happen to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Victim {
    /// The runtime itself.
    Parent,
    /// Whatever it has cloned.
    Children,
}

#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// SIGKILL on the way into the call, which then never happens.
    Kill,
    /// The call does not happen and returns this errno.
    Refuse(i32),
}

/// What became of a traced call.
pub struct Traced {
    pub outcome: Outcome,
    /// The number of the system call it happened at; None when the run ended before the n-th.
    pub at: Option<i64>,
}

/// Between fork and exec, in the child.
pub fn ask_to_be_traced() -> io::Result<()> {
    // SAFETY: PTRACE_TRACEME ignores the other arguments.
    let rc = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Runs the call to its end and does the deed at the n-th (from 1) system call of the victim's that
/// `counts` is true for. Must be called on the thread that spawns: a tracer is a thread.
pub fn at_call(
    call: Call,
    victim: Victim,
    nth: usize,
    deed: Deed,
    counts: impl Fn(i64) -> bool,
) -> Result<Traced> {
    let running = call.traced().spawn()?;
    let parent = running.pid();
    let mut tracer = Tracer {
        parent,
        victim,
        left: nth,
        deed,
        at: None,
        inside: HashMap::new(),
        refused: HashMap::new(),
    };
    let status = tracer.follow(counts)?;
    Ok(Traced {
        outcome: running.outcome(status),
        at: tracer.at,
    })
}

struct Tracer {
    parent: i32,
    victim: Victim,
    left: usize,
    deed: Deed,
    at: Option<i64>,
    /// Whether a task's next system-call stop is the way out.
    inside: HashMap<i32, bool>,
    /// Tasks whose present call is to return an error.
    refused: HashMap<i32, i32>,
}

impl Tracer {
    /// Until the parent has ended; its exit status.
    fn follow(&mut self, counts: impl Fn(i64) -> bool) -> Result<i32> {
        let mut status = 0;
        wait_for(self.parent, &mut status)?; // stopped at its execve
        let mut options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        if self.victim == Victim::Children {
            options |=
                libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACECLONE;
        }
        request(libc::PTRACE_SETOPTIONS, self.parent, options as usize)?;
        request(libc::PTRACE_SYSCALL, self.parent, 0)?;
        loop {
            let task = wait_for(-1, &mut status)?;
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                if task == self.parent {
                    self.release()?;
                    return Ok(if libc::WIFEXITED(status) {
                        libc::WEXITSTATUS(status)
                    } else {
                        128 + libc::WTERMSIG(status)
                    });
                }
                self.inside.remove(&task);
                continue;
            }
            let signal = libc::WSTOPSIG(status);
            let deliver = if signal == (libc::SIGTRAP | 0x80) {
                self.system_call(task, &counts)?;
                0
            } else if signal == libc::SIGTRAP
                || (signal == libc::SIGSTOP && !self.inside.contains_key(&task))
            {
                self.inside.entry(task).or_insert(false); // an event, or a new child's first stop
                0
            } else {
                signal
            };
            // A task that was just killed is gone: that is the aim.
            let _ = request(libc::PTRACE_SYSCALL, task, deliver as usize);
        }
    }

    fn system_call(&mut self, task: i32, counts: &impl Fn(i64) -> bool) -> Result<()> {
        let leaving = self
            .inside
            .insert(task, !self.inside.get(&task).copied().unwrap_or(false))
            .unwrap_or(false);
        if leaving {
            if let Some(errno) = self.refused.remove(&task) {
                let mut registers = registers(task)?;
                registers.rax = -i64::from(errno) as u64;
                set_registers(task, &registers)?;
            }
            return Ok(());
        }
        let is_victim = (task == self.parent) == (self.victim == Victim::Parent);
        if !is_victim || self.left == 0 {
            return Ok(());
        }
        let Ok(mut registers) = registers(task) else {
            return Ok(());
        }; // killed meanwhile
        let number = registers.orig_rax as i64;
        if !counts(number) {
            return Ok(());
        }
        self.left -= 1;
        if self.left == 0 {
            self.at = Some(number);
            match self.deed {
                Deed::Kill => kernel::kill(task, libc::SIGKILL)?,
                Deed::Refuse(errno) => {
                    registers.orig_rax = u64::MAX; // no such call: the kernel does nothing
                    set_registers(task, &registers)?;
                    self.refused.insert(task, errno);
                }
            }
        }
        Ok(())
    }

    /// Lets the children that still live go on untraced. A task must be stopped to be let go.
    fn release(&mut self) -> Result<()> {
        let tasks: Vec<i32> = self
            .inside
            .keys()
            .copied()
            .filter(|task| *task != self.parent)
            .collect();
        for task in tasks {
            if request(libc::PTRACE_DETACH, task, 0).is_ok() {
                continue;
            }
            // Running, or in a call: stop it, and skip what it reports until then.
            if kernel::kill(task, libc::SIGSTOP).is_err() {
                continue; // gone
            }
            let mut status = 0;
            while wait_for(task, &mut status).is_ok() {
                if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                    break;
                }
                if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP {
                    request(libc::PTRACE_DETACH, task, 0).context("detach")?;
                    break;
                }
                let _ = request(libc::PTRACE_CONT, task, 0); // gone: the next wait says so
            }
        }
        Ok(())
    }
}

/// One change of one of this thread's tracees (or children).
fn wait_for(task: i32, status: &mut i32) -> Result<i32> {
    loop {
        // SAFETY: `status` is one int. __WNOTHREAD: other tests have children too.
        let task = unsafe { libc::waitpid(task, status, libc::__WALL | libc::__WNOTHREAD) };
        if task > 0 {
            return Ok(task);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            bail!("waitpid: {error}");
        }
    }
}

fn request(what: libc::c_uint, task: i32, data: usize) -> Result<()> {
    // SAFETY: the requests used here take a number as data and no address.
    let rc = unsafe { libc::ptrace(what, task, 0, data) };
    if rc < 0 {
        bail!("ptrace({what}, {task}): {}", io::Error::last_os_error())
    }
    Ok(())
}

fn registers(task: i32) -> Result<libc::user_regs_struct> {
    // SAFETY: the kernel fills one user_regs_struct, which is plain numbers.
    unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        if libc::ptrace(libc::PTRACE_GETREGS, task, 0, &mut registers) < 0 {
            bail!("PTRACE_GETREGS: {}", io::Error::last_os_error());
        }
        Ok(registers)
    }
}

fn set_registers(task: i32, registers: &libc::user_regs_struct) -> Result<()> {
    // SAFETY: the kernel reads one user_regs_struct.
    if unsafe { libc::ptrace(libc::PTRACE_SETREGS, task, 0, registers) } < 0 {
        bail!("PTRACE_SETREGS: {}", io::Error::last_os_error());
    }
    Ok(())
}
