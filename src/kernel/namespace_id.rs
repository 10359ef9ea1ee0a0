//! Which network namespace a socket is in.
#![expect(unsafe_code, reason = "nix has no SO_NETNS_COOKIE")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use nix::libc;

use crate::model::link_id::Namespace;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const OWN: &str = "/proc/thread-self/ns/net";

/// The namespace of `socket`, which was made by this thread.
///
/// # Errors
/// Those of reading /proc.
pub fn of(socket: BorrowedFd<'_>) -> Result<Namespace> {
    let boot = fs::read_to_string(BOOT_ID).context(BOOT_ID)?.trim().parse().context(BOOT_ID)?;
    let number = match cookie(socket) {
        // Before Linux 5.14 there is no cookie. The number of the file may come again once the namespace is gone.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => fs::metadata(OWN).context(OWN)?.ino(),
        cookie => cookie.context("SO_NETNS_COOKIE")?,
    };
    Ok(Namespace { boot, number })
}

fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: it writes at most `length` bytes, which are those of `cookie`; both outlive the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
