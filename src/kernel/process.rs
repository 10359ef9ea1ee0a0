//! The detached processes: ourselves, going on after the caller has its answer.
#![expect(unsafe_code, reason = "clone(2), fork(2), close_range(2) and dup2(2) have no safe form")]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::process::exit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc::{self, c_int, c_void};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork, setsid};

use crate::deadline;

/// Bytes of its stack that a process which ends leaves to itself: far more than it takes to call _exit(2).
const LAST_STEPS: usize = 16 * 1024;

/// What is left for when the caller has its answer.
struct Work {
    kept: Vec<OwnedFd>,
    carry_out: Box<dyn FnOnce(io::Result<Vec<OwnedFd>>) + Send>,
}

/// It belongs to the process, as what atexit(3) registers does.
static LEFT: Mutex<Vec<Work>> = Mutex::new(Vec::new());

/// Leaves work to a process of its own, which begins when this one ends or becomes another program. It keeps `kept` and no
/// other file descriptor of the caller's (its stdin, stdout and stderr become /dev/null), and leaves the caller's session and
/// directory. What closing `kept` makes wait (see docs/architecture.md) is then nobody's wait.
///
/// `work` gets `kept` with other numbers, or an error: that of clone(2) or fork(2), in this process, as there is no other; or, in the
/// other, of letting go of the caller. `kept` is closed then.
pub fn leave(kept: Vec<OwnedFd>, work: impl FnOnce(io::Result<Vec<OwnedFd>>) + Send + 'static) {
    left().push(Work { kept, carry_out: Box::new(work) });
}

/// Begins what was left, for a process that goes on, be it as another program.
pub fn begin() {
    // The lock is not held meanwhile.
    let works = std::mem::take(&mut *left());
    works.into_iter().for_each(Work::begin);
}

/// Begins what was left, and ends this process.
pub fn end(status: u8) -> ! {
    let mut works = std::mem::take(&mut *left());
    let Some(last) = works.pop() else { exit(status.into()) };
    works.into_iter().for_each(Work::begin);
    last.take_over(status)
}

fn left() -> MutexGuard<'static, Vec<Work>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    /// Begins it in a child with a copy of our memory.
    fn begin(self) {
        // SAFETY: this program has one thread, so the child may allocate and take locks like any process.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { .. }) => {}
            Ok(ForkResult::Child) => self.go_on(),
            Err(error) => self.fail(error.into()),
        }
    }

    /// Begins it in a child that takes our memory over, as we end: to copy it, and to give it up, takes longer than all else that is
    /// left to do.
    fn take_over(self, status: u8) -> ! {
        // Whoever does not read any more is told nothing.
        let _best_effort = io::stdout().flush();
        // Who waits for the end of our output need not wait for the child to let it go.
        close_standard();
        let here = 0_u8;
        // As it grows downwards, the child has the rest of our stack, with the guard that the kernel keeps below it.
        let stack = (&raw const here).map_addr(|it| (it - LAST_STEPS) & !0xf).cast_mut();
        let work = Box::into_raw(Box::new(self));
        // SAFETY: the child runs in our memory, so nothing of it may be used any more here, but the stack down to where the child's
        // begins: all that follows is _exit(2). Thread-local storage is the child's too, as this thread ends; what the kernel writes
        // there at our end (set_tid_address(2)) only matters to who starts threads.
        let child = unsafe { libc::clone(taken_over, stack.cast(), libc::CLONE_VM | libc::SIGCHLD, work.cast()) };
        if child < 0 {
            let error = io::Error::last_os_error();
            // SAFETY: there is no child, so it is still ours, as it was made above.
            unsafe { Box::from_raw(work) }.fail(error);
        }
        // SAFETY: _exit(2) takes any status and does not return.
        unsafe { libc::_exit(status.into()) }
    }

    fn fail(self, error: io::Error) {
        drop(self.kept);
        (self.carry_out)(Err(error));
    }

    /// In the child.
    fn go_on(self) -> ! {
        deadline::lift();
        (self.carry_out)(let_go(self.kept));
        // Not exit(3): the caller's buffers are the parent's to write.
        // SAFETY: as above.
        unsafe { libc::_exit(0) }
    }
}

extern "C" fn taken_over(work: *mut c_void) -> c_int {
    // What a panic calls, abort(3) of musl, would signal the thread that we took over from.
    // SAFETY: _exit(2) takes any status and does not return.
    std::panic::set_hook(Box::new(|_| unsafe { libc::_exit(1) }));
    // SAFETY: `take_over` made it of a Box, and gave it to us alone.
    unsafe { Box::from_raw(work.cast::<Work>()) }.go_on()
}

/// Closes stdin, stdout and stderr.
fn close_standard() {
    // SAFETY: close(2) takes a number and touches no memory. Nothing is read or written there any more.
    (0..3).for_each(|standard| unsafe {
        libc::close(standard);
    });
}

/// Has a write beyond RLIMIT_FSIZE fail (EFBIG), as one to a full disk does: its signal would end a run in the middle.
pub fn ignore_file_size_signal() {
    // SAFETY: to ignore a signal runs no code of ours.
    let _never_fails = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// Undoes [`ignore_file_size_signal`], for another program that takes our place: it would inherit that.
pub fn heed_file_size_signal() {
    // SAFETY: the default runs no code of ours.
    let _never_fails = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigDfl) };
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
fn let_go(kept: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
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
    close_standard();
    // The lowest number that is free: 0. Where there is no /dev/null (an empty chroot), closed is the next best.
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let null = null.into_raw_fd();
        // SAFETY: dup2(2) takes numbers and touches no memory.
        (1..3).for_each(|standard| unsafe {
            libc::dup2(null, standard);
        });
    }
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
