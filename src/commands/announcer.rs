//! The detached process, which nobody waits for.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::kernel::process;

/// How long after a commit the nfnetlink socket closes without waiting for a grace period (seen: 0.05 ms instead of 7 to 15).
const GRACE: Duration = Duration::from_millis(100);

/// Leaves the closing of a socket to a process that nobody waits for.
pub fn detach(lingering: Option<OwnedFd>) {
    if let Some(fd) = lingering {
        // If there can be no such process, the socket was closed here, late but well.
        let _closed_either_way = process::detach(vec![fd], |_| std::thread::sleep(GRACE));
    }
}
