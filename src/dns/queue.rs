//! The changes of an instance that still have to reach the name server: one queue for all its NICs and hooks.
//!
//! A file for each instance holds what is still to be done, an address a line; a newer line of an address replaces the older one. Whoever
//! waits for the server carries out all of it at once, so an instance has at most two processes: one that talks to the server, and one
//! that waits. Their locks are of single bytes (open file description locks, fcntl(2)), which a forked child shares, and which the
//! kernel gives up when the last of them ends.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::Name;
use crate::addr::IfName;
use crate::deadline;
use crate::state;

/// Held while the content is read and written.
const CONTENT: i64 = 0;
/// Held by who will carry out what the file says.
const WAITING: i64 = 1;
/// Held by who talks to the server.
const SENDING: i64 = 2;
/// Between two looks at a lock.
const LOOK: Duration = Duration::from_millis(2);
/// Longest file that is read, in bytes.
const LONGEST: u64 = 64 * 1024;
/// Longest part of an instance's name in the file's, which has at most 255 bytes. Instances that have it in common share a queue.
const NAME: usize = 200;

/// What becomes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Its records have to be there.
    Add,
    /// They have to go.
    Remove,
}

/// A change that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of whom.
    pub name: Name,
    /// What becomes of it.
    pub verb: Verb,
    /// The address under that name.
    pub address: IpAddr,
    /// The interface whose ifup or ifdown it is.
    pub interface: IfName,
}

impl Change {
    fn of_line(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let [verb, name, address, interface] = words[..] else { return None };
        let verb = match verb {
            "add" => Verb::Add,
            "remove" => Verb::Remove,
            _ => return None,
        };
        let name = Name::vec_from_str(name).ok()?;
        Some(Self { name, verb, address: address.parse().ok()?, interface: interface.parse().ok()? })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.verb == Verb::Add { "add" } else { "remove" };
        write!(f, "{verb} {} {} {}", self.name, self.address, self.interface)
    }
}

/// The queue of an instance. What is locked is unlocked when this, and what a forked child has of it, is gone.
pub struct Queue(File);

impl Queue {
    /// Opens an instance's queue below STATE_DIR.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(state_dir: &Path, name: &Name) -> Result<Self> {
        let name = name.to_string().to_ascii_lowercase();
        let name = &name[..name.len().min(NAME)];
        state::lock_file(state_dir, &format!("{name}.dns")).map(Self)
    }

    /// Adds changes, without waiting for the server. True: the caller has to carry out all that the queue holds by then, in
    /// a process that lives on with this queue. False: another one will.
    ///
    /// # Errors
    /// Those of locking, reading and writing the file.
    pub fn add(&self, changes: &[Change]) -> io::Result<bool> {
        self.lock(CONTENT)?;
        let mut all = self.read()?;
        for change in changes {
            all.retain(|it| (&it.name, it.address) != (&change.name, change.address));
            all.push(change.clone());
        }
        self.write(&all)?;
        let is_first = self.try_lock(WAITING)?;
        self.set(CONTENT, libc::F_UNLCK, false)?;
        Ok(is_first)
    }

    /// Waits until nobody else talks to the server about this instance, then takes all that is to be done.
    ///
    /// # Errors
    /// Those of locking, reading and writing the file.
    pub fn take(&self) -> Result<Vec<Change>> {
        self.lock(SENDING).context("waiting for an earlier change")?;
        self.lock(CONTENT)?;
        let all = self.read()?;
        self.write(&[])?;
        self.set(WAITING, libc::F_UNLCK, false)?;
        self.set(CONTENT, libc::F_UNLCK, false)?;
        Ok(all)
    }

    /// Forgets the changes that a newer one replaces, and waits until nobody else talks to the server about this instance.
    ///
    /// # Errors
    /// Those of locking, reading and writing the file; that the run's time is up.
    pub fn replace(&self, is_replaced: impl Fn(&Change) -> bool) -> Result<()> {
        self.lock(CONTENT)?;
        let mut all = self.read()?;
        all.retain(|it| !is_replaced(it));
        self.write(&all)?;
        self.set(CONTENT, libc::F_UNLCK, false)?;
        self.lock(SENDING).context("waiting for an earlier change")
    }

    fn read(&self) -> io::Result<Vec<Change>> {
        let mut text = Vec::new();
        (&self.0).rewind()?;
        (&self.0).take(LONGEST).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).lines().filter_map(Change::of_line).collect())
    }

    fn write(&self, changes: &[Change]) -> io::Result<()> {
        let text: String = changes.iter().map(|change| format!("{change}\n")).collect();
        self.0.set_len(0)?;
        (&self.0).rewind()?;
        (&self.0).write_all(text.as_bytes())
    }

    /// Locks a byte; waits for it, if need be, as long as the run may.
    fn lock(&self, byte: i64) -> io::Result<()> {
        while deadline::left().is_some_and(|left| !left.is_zero()) {
            if self.try_lock(byte)? {
                return Ok(());
            }
            sleep(LOOK);
        }
        self.set(byte, libc::F_WRLCK, deadline::left().is_none())
    }

    fn try_lock(&self, byte: i64) -> io::Result<bool> {
        match self.set(byte, libc::F_WRLCK, false) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
            done => done.map(|()| true),
        }
    }

    fn set(&self, byte: i64, kind: libc::c_int, waits: bool) -> io::Result<()> {
        let range = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        loop {
            let asked = if waits { FcntlArg::F_OFD_SETLKW(&range) } else { FcntlArg::F_OFD_SETLK(&range) };
            match fcntl(&self.0, asked) {
                Err(Errno::EINTR) => {}
                done => return done.map(drop).map_err(Into::into),
            }
        }
    }
}

impl From<OwnedFd> for Queue {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

impl From<Queue> for OwnedFd {
    fn from(queue: Queue) -> Self {
        queue.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn change(line: &str) -> Change {
        Change::of_line(line).expect(line)
    }

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("snf-network-queue-{name}-{}", std::process::id()))
    }

    #[test]
    fn one_waits_and_carries_out_what_came_last() {
        let folder = folder("waits");
        let name = Name::vec_from_str("Vm1.example.org").expect("a name");
        let open = || Queue::open(&folder, &name).expect("a queue");
        let (first, second, third) = (open(), open(), open());
        let add = change("add vm1.example.org 192.0.2.5 tap1");
        let remove = change("remove vm1.example.org 192.0.2.5 tap1");
        let other = change("add vm1.example.org 2001:db8::5 tap1");
        assert!(first.add(std::slice::from_ref(&add)).expect("added"));
        assert_eq!(first.take().expect("its turn"), std::slice::from_ref(&add));
        // While the first one talks, one more waits, and no other.
        assert!(second.add(&[add.clone(), other.clone()]).expect("added"));
        assert!(!third.add(std::slice::from_ref(&remove)).expect("added"));
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let taken = second.take().expect("its turn");
                assert!(ended.load(Ordering::SeqCst), "it did not wait");
                taken
            });
            ended.store(true, Ordering::SeqCst);
            drop(first);
            assert_eq!(waits.join().expect("no panic"), [other, remove]);
        });
        std::fs::remove_dir_all(&folder).expect("the folder");
    }

    #[test]
    fn a_hook_replaces_what_waits() {
        let folder = folder("hook");
        let open = |name: &str| Queue::open(&folder, &Name::vec_from_str(name).expect("a name")).expect("a queue");
        let (waiting, hook) = (open("vm1.example.org"), open("VM1.example.org"));
        let kept = change("add vm1.example.org 192.0.2.6 tap1");
        assert!(waiting.add(&[change("add vm1.example.org 192.0.2.5 tap1"), kept.clone()]).expect("added"));
        hook.replace(|it| it.address == IpAddr::from([192, 0, 2, 5])).expect("its turn");
        drop(hook);
        assert_eq!(waiting.take().expect("its turn"), [kept]);
        // What is in the file by accident is nothing to do.
        std::fs::write(folder.join("locks-of-interfaces/vm2.example.org.dns"), "rubbish\nadd x y z\n")
            .expect("the file");
        assert_eq!(open("vm2.example.org").take().expect("its turn"), []);
        std::fs::remove_dir_all(&folder).expect("the folder");
    }

    #[test]
    fn the_longest_name_has_a_file() {
        let folder = folder("long");
        let label = "a".repeat(62);
        let name = Name::vec_from_str(&[&*label; 4].join(".")).expect("a name");
        Queue::open(&folder, &name).expect("a queue");
        std::fs::remove_dir_all(&folder).expect("the folder");
    }
}
