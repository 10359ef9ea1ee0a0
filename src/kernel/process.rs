//! The detached process: ourselves, going on after the caller has its answer.
#![expect(unsafe_code, reason = "fork(2), close_range(2) and dup2(2) have no safe form")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{ForkResult, fork, setsid};

use crate::deadline;

/// Forks; the child keeps `kept` and no other file descriptor of the caller's (its stdin, stdout and stderr become
/// /dev/null), leaves the caller's session and directory, runs `work` and exits. The parent returns at once, its own copies
/// of `kept` closed: what closing them makes wait (see docs/architecture.md) is then nobody's wait.
///
/// # Errors
/// Those of fork(2); then `kept` is closed here.
pub fn detach(kept: Vec<OwnedFd>, work: impl FnOnce(Vec<OwnedFd>)) -> io::Result<()> {
    // SAFETY: this program has one thread, so the child may allocate and take locks like any process.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(()),
        ForkResult::Child => {
            deadline::lift();
            let status = match leave(kept) {
                Ok(kept) => {
                    work(kept);
                    0
                }
                Err(_) => 1,
            };
            // Not exit(3): the caller's buffers are the parent's to write.
            // SAFETY: _exit(2) takes any status and does not return.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Raises the limit of open files to what is allowed; returns what it is then.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| {
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        raised.map_or(soft, |()| hard)
    });
    // POSIX's least (_POSIX_OPEN_MAX), where nobody tells.
    limit.ok().and_then(|it| usize::try_from(it).ok()).unwrap_or(20)
}

/// Lets go of everything of the caller's but `kept`, which is moved to the lowest numbers behind stderr.
fn leave(kept: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    setsid()?;
    nix::unistd::chdir("/")?;
    // Out of the way first, then down to where they belong: a kept one may stand where another one goes.
    let first = 3 + RawFd::try_from(kept.len()).map_err(io::Error::other)?;
    let mut parked = Vec::new();
    for fd in kept {
        // SAFETY: F_DUPFD_CLOEXEC takes a lowest number and touches no memory.
        let number = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the number was returned by the call above and is owned by nobody else.
        parked.push(unsafe { OwnedFd::from_raw_fd(number) });
    }
    let null = File::options().read(true).write(true).open("/dev/null").ok();
    for standard in 0..3 {
        // Where there is no /dev/null (an empty chroot), closed is the next best.
        if let Some(null) = &null {
            // SAFETY: dup2(2) takes numbers and touches no memory; nothing else in this process refers to 0, 1 and 2.
            unsafe { libc::dup2(null.as_raw_fd(), standard) };
        } else {
            // SAFETY: likewise close(2).
            unsafe { libc::close(standard) };
        }
    }
    drop(null);
    let mut moved = Vec::new();
    for (place, fd) in (3..).zip(parked) {
        // SAFETY: as above; whatever had this number is the caller's and is let go of.
        if unsafe { libc::dup2(fd.as_raw_fd(), place) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: dup2 made this number ours.
        moved.push(unsafe { OwnedFd::from_raw_fd(place) });
    }
    let behind = libc::c_uint::try_from(first).map_err(io::Error::other)?;
    // SAFETY: close_range(2) takes numbers; what it closes is not used any more in this process (Linux 5.9).
    unsafe { libc::syscall(libc::SYS_close_range, behind, libc::c_uint::MAX, 0) };
    Ok(moved)
}
