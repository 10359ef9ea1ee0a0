//! Runs a program and stops it before each of its system calls, by ptrace(2): there it can be killed, the call can be
//! made to fail, or something can happen around it.
//!
//! What is killed before its call n+1 is killed after call n, as nothing but a system call changes anything outside of a
//! process: so kills before every call cover both sides of each. A process that it forks is not traced.
#![expect(unsafe_code, reason = "pre_exec has no safe form")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::netns::Netns;
use super::nic::{Outcome, words};

/// A system call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Which one of the run's, from 1; the first is behind execve(2).
    pub n: usize,
    /// Its number (`SYS_*`).
    pub number: i64,
    /// The address family (`AF_*`) of the socket that is its first argument, if it is one.
    pub family: Option<u64>,
}

/// What shall become of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It is made.
    Make,
    /// The process is killed before it.
    Kill,
    /// It is not made, and returns this error.
    Fail(Errno),
    /// It is made, and said to have returned half of the bytes that it did.
    Halve,
    /// It is made, and what it received of a netlink dump is said to have changed meanwhile (NLM_F_DUMP_INTR).
    Interrupt,
}

/// Runs a command in a namespace to its end; `decide` is asked before each of its system calls.
///
/// # Errors
/// If it cannot be traced; those of `decide`.
pub fn run(netns: &Netns, command: &mut Command, decide: impl FnMut(Call) -> Result<Act> + Send) -> Result<Outcome> {
    // A tracer is a thread: the one that has started the program.
    netns.run(|| traced(command, decide)).with_context(|| words(command))
}

fn traced(command: &mut Command, mut decide: impl FnMut(Call) -> Result<Act>) -> Result<Outcome> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: ptrace(PTRACE_TRACEME) is a system call that allocates nothing and takes no lock.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let ended = follow(pid, &mut decide);
    if ended.is_err() {
        // It ends with its tracer at the latest (EXITKILL).
        let _ = child.kill();
    }
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let code = ended?;
    // A few lines, which the pipes hold.
    child.stdout.take().context("stdout")?.read_to_string(&mut stdout)?;
    child.stderr.take().context("stderr")?.read_to_string(&mut stderr)?;
    Ok(Outcome { command: words(command), code, stdout, stderr })
}

/// NLM_F_MULTI and NLM_F_DUMP_INTR of linux/netlink.h, and where the flags are in struct nlmsghdr.
const MULTI: u16 = 0x2;
const DUMP_INTR: u16 = 0x10;
const FLAGS: usize = 6;

/// Marks the parts of a dump in what a process received.
fn interrupt(pid: Pid, address: u64, length: u64) -> Result<()> {
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let mut bytes = vec![0; usize::try_from(length)?];
    memory.read_exact_at(&mut bytes, address)?;
    let mut place = 0;
    while let Some(header) = bytes.get_mut(place..place + 16) {
        let (length, flags) = (header[..4].try_into()?, u16::from_ne_bytes(header[FLAGS..FLAGS + 2].try_into()?));
        if flags & MULTI != 0 {
            header[FLAGS..FLAGS + 2].copy_from_slice(&(flags | DUMP_INTR).to_ne_bytes());
        }
        place += usize::try_from(u32::from_ne_bytes(length))?.next_multiple_of(4).max(16);
    }
    memory.write_all_at(&bytes, address).context("its memory")
}

/// Follows it to its end; returns its exit code, none after a signal.
fn follow(pid: Pid, decide: &mut impl FnMut(Call) -> Result<Act>) -> Result<Option<i32>> {
    // It stops behind its execve.
    ensure!(matches!(waitpid(pid, None)?, WaitStatus::Stopped(_, Signal::SIGTRAP)), "it did not stop");
    ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)?;
    let mut families = BTreeMap::new();
    let mut under_way: Option<(Call, Act, u64)> = None;
    let (mut n, mut signal) = (0, None);
    loop {
        ptrace::syscall(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, code) => return Ok(Some(code)),
            WaitStatus::Signaled(..) => return Ok(None),
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::PtraceSyscall(_) => {
                let mut registers = ptrace::getregs(pid)?;
                let Some((call, act, family)) = under_way.take() else {
                    n += 1;
                    let number = registers.orig_rax.cast_signed();
                    let call = Call { n, number, family: families.get(&registers.rdi).copied() };
                    let act = decide(call)?;
                    match act {
                        Act::Kill => {
                            ptrace::kill(pid)?;
                            waitpid(pid, None)?;
                            return Ok(None);
                        }
                        Act::Fail(_) => {
                            // In its place one that does nothing, and that no filter of seccomp refuses.
                            registers.orig_rax = libc::SYS_getpid.cast_unsigned();
                            ptrace::setregs(pid, registers)?;
                        }
                        Act::Make | Act::Halve | Act::Interrupt => {}
                    }
                    under_way = Some((call, act, registers.rdi));
                    continue;
                };
                let returned = registers.rax.cast_signed();
                match act {
                    Act::Fail(errno) => registers.rax = (-i64::from(errno as i32)).cast_unsigned(),
                    Act::Halve if returned > 0 => registers.rax = (returned / 2).cast_unsigned(),
                    Act::Interrupt if returned > 0 => {
                        interrupt(pid, registers.rsi, returned.cast_unsigned())?;
                        continue;
                    }
                    _ if call.number == libc::SYS_socket && returned >= 0 => {
                        families.insert(returned.cast_unsigned(), family);
                        continue;
                    }
                    _ if call.number == libc::SYS_close => {
                        families.remove(&family);
                        continue;
                    }
                    _ => continue,
                }
                ptrace::setregs(pid, registers)?;
            }
            other => bail!("{other:?}"),
        }
    }
}
