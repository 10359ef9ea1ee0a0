//! What this process gives up for good: capabilities, system calls, files. What it does not have, nobody can make it use.
#![expect(unsafe_code, reason = "capset(2), prctl(2) and Landlock's system calls have no safe form")]

mod landlock;
mod seccomp;

use std::io;

use nix::libc;

pub use self::landlock::Reach;

/// Version 3 of capset(2): two words for each set (linux/capability.h).
const VERSION: u32 = 0x2008_0522;

/// Capabilities that a command may need (capabilities(7)), by their numbers in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// For files of others: nfdhcpd's folder, Ganeti's log, the name server's key.
    DacOverride = 1,
    /// For rtnetlink, nf_tables and /proc/sys/net.
    NetAdmin = 12,
    /// For packet sockets and raw ICMPv6 sockets.
    NetRaw = 13,
    /// For namespaces.
    SysAdmin = 21,
    /// To map root into a user namespace (user_namespaces(7)).
    Setfcap = 31,
}

/// `struct __user_cap_header_struct` and `struct __user_cap_data_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability but these. The bounding set stays, so that a program that root starts has all of them again
/// (capabilities(7), "Capabilities and execution of programs by root").
///
/// # Errors
/// Those of capget(2) and capset(2).
pub fn keep(kept: &[Capability]) -> io::Result<()> {
    // All numbers here are below 32, so the upper words are empty.
    let kept = kept.iter().fold(0, |all, it| all | 1 << *it as u32);
    let mut sets = [Sets { effective: kept, permitted: kept, inheritable: 0 }, Sets::default()];
    match set(&sets) {
        // One of them is not there to be kept.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        done => return done,
    }
    let header = Header { version: VERSION, pid: 0 };
    // SAFETY: version 3 reads one header and writes two data structs, which outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    let kept = kept & sets[0].permitted;
    set(&[Sets { effective: kept, permitted: kept, inheritable: 0 }, Sets::default()])
}

fn set(sets: &[Sets; 2]) -> io::Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    // SAFETY: version 3 reads one header and two data structs, which outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })
}

/// What a command may do beyond what its capabilities say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Whatever it wants: it ends with another program, or makes namespaces.
    All,
    /// It starts no other program, traces none, enters no namespace, mounts and loads nothing.
    NoProgram,
    /// It reads files, talks to others over sockets, and writes its log.
    Talk,
}

/// Gives up what is not among these system calls; the others fail with EPERM.
///
/// # Errors
/// Those of prctl(2): EINVAL where the kernel has no seccomp.
pub fn allow(calls: Calls) -> io::Result<()> {
    match calls {
        Calls::All => Ok(()),
        Calls::NoProgram => no_new_privileges().and_then(|()| seccomp::deny_programs()),
        Calls::Talk => no_new_privileges().and_then(|()| seccomp::allow_talk()),
    }
}

/// Confines a process that parses what comes from the network, or lives on after its caller.
///
/// # Errors
/// The first of what could not be given up; the rest was.
pub fn confine(kept: &[Capability], reach: &Reach<'_>) -> io::Result<()> {
    // The filter comes last: it forbids the rest.
    let steps = [keep(kept), no_new_privileges(), landlock::restrict(reach), allow(Calls::Talk)];
    steps.into_iter().collect()
}

/// No program that this one starts gets more than it has, by its file's owner or capabilities.
fn no_new_privileges() -> io::Result<()> {
    // SAFETY: this prctl takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
