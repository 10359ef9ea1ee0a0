//! Whose turn it is: changes for one interface reach the name server in the order in which its ifup and ifdown ran, though
//! these do not wait for each other's.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::deadline;

/// The byte whose lock guards the number in the file.
const COUNTER: i64 = 0;
/// Between two looks at a lock.
const LOOK: Duration = Duration::from_millis(2);

/// A place in the queue of an interface. Number N has byte N of the interface's file locked (an open file description lock,
/// fcntl(2), which a forked child shares and the kernel lets go of when the last of them ends), and waits for N - 1.
pub struct Ticket {
    file: File,
    number: i64,
}

impl Ticket {
    /// Takes the next place, and waits for nobody. `file` is the interface's.
    ///
    /// # Errors
    /// Those of reading, writing and locking the file.
    pub fn take(mut file: File) -> Result<Self> {
        let mut take = || {
            lock(&file, COUNTER, libc::F_WRLCK)?;
            let mut text = String::new();
            (&file).take(32).read_to_string(&mut text)?;
            let number = text.trim().parse().ok().filter(|number| (1..i64::MAX - 1).contains(number)).unwrap_or(0) + 1;
            lock(&file, number, libc::F_WRLCK)?;
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(number.to_string().as_bytes())?;
            lock(&file, COUNTER, libc::F_UNLCK)?;
            Ok::<_, std::io::Error>(number)
        };
        let number = take()?;
        Ok(Self { file, number })
    }

    /// Waits until whoever came before has ended.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn wait(&self) -> Result<()> {
        let before = self.number - 1;
        if before != COUNTER {
            lock(&self.file, before, libc::F_WRLCK).context("waiting for an earlier change")?;
        }
        Ok(())
    }

    /// What a forked child has to keep, and its number.
    pub fn into_parts(self) -> (OwnedFd, i64) {
        (self.file.into(), self.number)
    }

    /// Undoes [`Ticket::into_parts`].
    pub fn from_parts((file, number): (OwnedFd, i64)) -> Self {
        Self { file: file.into(), number }
    }
}

/// Locks or unlocks one byte of the file, waiting for it if need be, and as long as the run may.
fn lock(file: &File, byte: i64, kind: libc::c_int) -> std::io::Result<()> {
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        let wait = deadline::left().is_none();
        let asked = if wait { FcntlArg::F_OFD_SETLKW(&range) } else { FcntlArg::F_OFD_SETLK(&range) };
        match fcntl(file, asked) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if deadline::left().is_some_and(|left| !left.is_zero()) => sleep(LOOK),
            done => return done.map(drop).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn turns_come_in_the_order_in_which_they_were_taken() {
        let folder = std::env::temp_dir().join(format!("snf-network-turn-{}", std::process::id()));
        let open = || crate::state::lock_file(&folder, "tap0.dns").expect("a file");
        let turns: Vec<_> = (0..5).map(|_| Ticket::take(open()).expect("a turn")).collect();
        let served = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for (n, turn) in (0..).zip(turns).collect::<Vec<_>>().into_iter().rev() {
                let served = &served;
                scope.spawn(move || {
                    turn.wait().expect("the lock");
                    assert_eq!(served.fetch_add(1, Ordering::SeqCst), n);
                });
            }
        });
        std::fs::write(folder.join("locks-of-interfaces/tap0.dns"), "rubbish").expect("the file");
        Ticket::take(open()).expect("a turn").wait().expect("nobody before");
        std::fs::remove_dir_all(&folder).expect("the folder");
    }
}
