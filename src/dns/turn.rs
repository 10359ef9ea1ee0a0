//! Whose turn it is: changes for one interface reach the name server in the order in which its ifup and ifdown ran, though
//! these do not wait for each other's.

use std::fs::{File, OpenOptions, create_dir_all};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::addr::IfName;

/// The byte whose lock guards the number in the file.
const COUNTER: i64 = 0;

/// A place in the queue of an interface. Number N has byte N of the interface's file locked (an open file description lock,
/// fcntl(2), which a forked child shares and the kernel lets go of when the last of them ends), and waits for N - 1.
pub struct Turn {
    file: File,
    number: i64,
}

impl Turn {
    /// Takes the next place, and waits for nobody. `file` is the interface's, in a folder that is made if need be.
    ///
    /// # Errors
    /// Those of opening, reading, writing and locking the file.
    pub fn take(folder: &Path, interface: &IfName) -> Result<Self> {
        let path = folder.join(format!("{interface}.dns"));
        let take = || {
            create_dir_all(folder)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o600);
            let mut file = options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(&path)?;
            lock(&file, COUNTER, libc::F_WRLCK)?;
            let mut text = String::new();
            (&file).take(32).read_to_string(&mut text)?;
            let number = text.trim().parse().ok().filter(|number| (1..i64::MAX - 1).contains(number)).unwrap_or(0) + 1;
            lock(&file, number, libc::F_WRLCK)?;
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(number.to_string().as_bytes())?;
            lock(&file, COUNTER, libc::F_UNLCK)?;
            Ok::<_, std::io::Error>(Self { file, number })
        };
        take().with_context(|| format!("STATE_DIR: {}", path.display()))
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

    /// Undoes [`Turn::into_parts`].
    pub fn from_parts((file, number): (OwnedFd, i64)) -> Self {
        Self { file: file.into(), number }
    }
}

/// Locks or unlocks one byte of the file, waiting for it if need be.
fn lock(file: &File, byte: i64, kind: libc::c_int) -> std::io::Result<()> {
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&range)) {
            Err(Errno::EINTR) => {}
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
        let tap: IfName = "tap0".parse().expect("a name");
        let turns: Vec<_> = (0..5).map(|_| Turn::take(&folder, &tap).expect("a turn")).collect();
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
        std::fs::write(folder.join("tap0.dns"), "rubbish").expect("the file");
        Turn::take(&folder, &tap).expect("a turn").wait().expect("nobody before");
        std::fs::remove_dir_all(&folder).expect("the folder");
    }
}
