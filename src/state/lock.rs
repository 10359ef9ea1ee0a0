//! The locks by which runs for one interface wait for each other.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::libc;

use crate::deadline;
use crate::sys::files;

/// Between two looks at a lock that another run holds: at first, and at most. flock(2) itself knows no time limit.
const LOOK: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

/// Takes the lock of a file, which goes when the file is closed.
///
/// # Errors
/// If another run holds it until the time of this one is up; those of flock(2).
pub(super) fn take(file: File) -> Result<File> {
    let mut look = LOOK.0;
    while !try_take(&file)? {
        if deadline::left().is_some_and(|left| left.is_zero()) {
            let by = holder(&file).map_or_else(String::new, |pid| format!(" (process {pid})"));
            return Err(anyhow!("another run holds the lock for {}{by}", deadline::whole()));
        }
        sleep(deadline::at_most(look));
        look = (look * 2).min(LOOK.1);
    }
    Ok(file)
}

/// Takes the lock of a file if nobody has it; whether it did.
///
/// # Errors
/// Those of flock(2).
pub(super) fn try_take(file: &File) -> Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(anyhow!("flock: {error}")),
        }
    }
}

/// The process that holds the lock, if /proc/locks tells.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let text = files::read("/proc/locks".as_ref(), 1024 * 1024).ok()??;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let place = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    holder_in(&String::from_utf8_lossy(&text), &place)
}

/// Of a line such as `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`; the process is 0 where it is of another namespace.
fn holder_in(locks: &str, place: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, at, ..] = words[..] else { return None };
        pid.parse().ok().filter(|pid| at == place && *pid != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:2f:12 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 8 00:2f:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 9 00:2f:12 0 EOF\n3: FLOCK  ADVISORY  WRITE 0 00:2f:13 0 EOF\n4:\n";
        assert_eq!(holder_in(locks, "00:2f:12"), Some(9));
        assert_eq!(holder_in(locks, "00:2f:13"), None);
        assert_eq!(holder_in("", "00:2f:12"), None);
    }
}
