//! Namespaces of our own, for the demo and the tests: no root, no other tool, and nothing on the host is touched.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::abort;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getgid, getuid};

use super::topology;

/// Moves this process into a user, mount and network namespace of its own, in which it is root, and whose mounts do
/// not reach the host's. To be called before there is any thread (unshare(2), CLONE_NEWUSER). Where user namespaces
/// are switched off, root does without.
///
/// # Errors
/// If the kernel lets this user have no such namespaces.
pub fn enter_private() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    let ours = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    match unshare(CloneFlags::CLONE_NEWUSER | ours) {
        Ok(()) => {
            // Without "deny" an unprivileged process may not map a group (user_namespaces(7)).
            for (file, text) in
                [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
            {
                let path = format!("/proc/self/{file}");
                fs::write(&path, text).with_context(|| format!("write {path}"))?;
            }
        }
        Err(Errno::EPERM | Errno::ENOSPC | Errno::EUSERS) if uid.is_root() => {
            unshare(ours).context("new mount and network namespaces")?;
        }
        Err(error) => return Err(error).context("new user, mount and network namespaces"),
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make mounts private (expected / to be a mount point)")?;
    topology::set_up(&topology::loopback()?)
}

/// Mounts an empty file system in memory over a folder, to be called in a mount namespace of our own
/// ([`enter_private`]): what is written there goes with the namespace, what the folder held is out of sight.
///
/// # Errors
/// ENOENT if there is no such folder, EPERM outside of [`enter_private`] without CAP_SYS_ADMIN.
pub fn mount_tmpfs(folder: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some("mode=0700"))
        .with_context(|| format!("mount -t tmpfs tmpfs {}", folder.display()))
}

/// A network namespace, alive for as long as this handle or anything in it is.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// A new one, with `lo` up. The calling thread stays where it is.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in our user namespace.
    pub fn new() -> Result<Self> {
        // A thread's namespace is its own: one that ends leaves only what we hold.
        let born = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("new network namespace")?;
            topology::set_up(&topology::loopback()?)?;
            Self::current()
        });
        born.join().map_err(|_| anyhow!("new network namespace: the thread panicked"))?
    }

    /// That of the calling thread.
    ///
    /// # Errors
    /// If /proc is not there.
    pub fn current() -> Result<Self> {
        const PATH: &str = "/proc/thread-self/ns/net";
        Ok(Self(File::open(PATH).with_context(|| format!("open {PATH}"))?.into()))
    }

    /// Runs `work` with the calling thread in this namespace, and brings the thread back. Sockets and TAPs that
    /// `work` opens stay in this namespace; threads it starts do so, too.
    ///
    /// # Errors
    /// Those of `work`, and EPERM without CAP_SYS_ADMIN over this namespace.
    pub fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _back = Return(Self::current()?);
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
        work()
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Brings the thread back into its namespace, also when the work there panics.
struct Return(Netns);

impl Drop for Return {
    fn drop(&mut self) {
        // What would run next would change another namespace than it believes: on a node, the host's.
        if setns(&self.0, CloneFlags::CLONE_NEWNET).is_err() {
            abort();
        }
    }
}

/// Writes a sysctl of the calling thread's network namespace, such as `net/ipv4/ip_forward`.
///
/// # Errors
/// If there is none of this name, or the value is refused; the message is the `sysctl` command that failed.
pub fn set_sysctl(name: &str, value: impl Display) -> Result<()> {
    // No create: below /proc/sys a missing file would otherwise answer "permission denied".
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).open(format!("/proc/sys/{name}"))?;
        io::Write::write_all(&mut file, value.to_string().as_bytes())
    };
    write().with_context(|| format!("sysctl -w {name}={value}"))
}
