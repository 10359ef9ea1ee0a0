//! Which files a process can reach (Landlock, Documentation/userspace-api/landlock.rst of the kernel). Its versions name what a
//! kernel can restrict: 0 where there is none (before 5.13, or switched off).
#![expect(unsafe_code, reason = "Landlock's system calls have no wrappers")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;

use super::check;
use crate::sys::files::open;

/// The numbers are the same on every architecture.
const CREATE_RULESET: libc::c_long = 444;
const ADD_RULE: libc::c_long = 445;
const RESTRICT_SELF: libc::c_long = 446;
/// LANDLOCK_CREATE_RULESET_VERSION and LANDLOCK_RULE_PATH_BENEATH of linux/landlock.h.
const ASK_VERSION: u32 = 1;
const PATH_BENEATH: libc::c_int = 1;

const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_REG: u64 = 1 << 8;
const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;
/// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and _SIGNAL.
const OTHERS: u64 = 0b11;

/// What a process can still reach. It executes nothing.
pub struct Reach<'a> {
    /// The folders that it reads; none: whatever its user may.
    pub reads: Option<&'a [&'a Path]>,
    /// The folders in which it writes files and makes new ones.
    pub writes: &'a [&'a Path],
    /// Whether it connects by TCP. It listens in no case.
    pub connects: bool,
}

/// `struct landlock_ruleset_attr`; of an older version only the beginning.
#[repr(C)]
struct Handled {
    fs: u64,
    net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: libc::c_int,
}

/// Gives up all other files, as far as this kernel can.
pub(super) fn restrict(reach: &Reach<'_>) -> io::Result<()> {
    let none = std::ptr::null::<Handled>();
    // SAFETY: with this flag it takes no attributes and tells the version.
    let version = unsafe { libc::syscall(CREATE_RULESET, none, 0_usize, ASK_VERSION) };
    let (all, size) = match version {
        ..1 => return Ok(()),
        1 => ((1 << 13) - 1, 8),
        2 => ((1 << 14) - 1, 8),
        3 => ((1 << 15) - 1, 8),
        4 => ((1 << 15) - 1, 16),
        5 => ((1 << 16) - 1, 16),
        _ => ((1 << 16) - 1, size_of::<Handled>()),
    };
    let handled = Handled {
        fs: if reach.reads.is_some() { all } else { all & !(READ_FILE | READ_DIR) },
        net: if reach.connects { BIND_TCP } else { BIND_TCP | CONNECT_TCP },
        scoped: OTHERS,
    };
    // SAFETY: it reads `size` bytes of the attributes, which are at least as long.
    let ruleset = unsafe { libc::syscall(CREATE_RULESET, &raw const handled, size, 0_u32) };
    check(ruleset)?;
    // SAFETY: the number was returned by the call above and is owned by nobody else.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as libc::c_int) };
    let reads = reach.reads.into_iter().flatten().map(|folder| (folder, READ_FILE | READ_DIR));
    let writes = reach.writes.iter().map(|folder| (folder, WRITE_FILE | MAKE_REG));
    for (folder, allowed) in reads.chain(writes) {
        // What is not there needs no exception.
        let Ok(folder) = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()) else { continue };
        let rule = PathBeneath { allowed, parent: folder.as_raw_fd() };
        // SAFETY: the rule is of the type that the number says, and outlives the call.
        check(unsafe { libc::syscall(ADD_RULE, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0_u32) })?;
    }
    // SAFETY: it takes numbers.
    check(unsafe { libc::syscall(RESTRICT_SELF, ruleset.as_raw_fd(), 0_u32) })
}
