//! Namespaces: the process's own user and mount namespace, and network namespaces held by file descriptor.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getgid, getuid};

use super::until;

/// Moves the process into user, mount and network namespaces of its own, where it is root. Only a process of one
/// thread can enter a user namespace, so this comes first of all.
///
/// # Errors
/// If the kernel grants an ordinary user no namespaces.
pub fn enter() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            fs::write("/proc/self/setgroups", "deny").context("/proc/self/setgroups")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("/proc/self/uid_map")?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("/proc/self/gid_map")?;
        }
        // Root in a container may be refused a user namespace and still be allowed the others.
        Err(_) if uid.is_root() => return enter_as_root(),
        Err(errno) => return Err(errno).context("unshare user, mount and network"),
    }
    keep_mounts_private()
}

/// Moves the process into mount and network namespaces of its own, where it is the root that it was before, as on a node.
pub fn enter_as_root() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("unshare mount and network")?;
    keep_mounts_private()
}

fn keep_mounts_private() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make the mounts private")?;
    // iptables locks a file in /run, which an ordinary user cannot write.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("mount /run")
}

/// A network namespace. It lives as long as this value, or a process or thread inside it.
pub struct Netns {
    handle: File,
}

impl Netns {
    /// A fresh one, its loopback up.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare network")?;
            File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
        });
        let handle = made.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        let netns = Self { handle };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The one that the calling thread is in.
    pub fn of_this_thread() -> Result<Self> {
        Ok(Self { handle: File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")? })
    }

    /// Another handle of the same namespace.
    pub fn again(&self) -> Result<Self> {
        Ok(Self { handle: self.handle.try_clone()? })
    }

    /// Runs `inside` on a thread of its own that is in this namespace: setns is per thread, and children and
    /// /proc/sys/net follow the thread that makes or opens them.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("setns to a network namespace we made");
                inside()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The path by which `ip ... netns PATH` finds this namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.handle.as_raw_fd())
    }

    /// Runs a command in here to its end, and gives what it printed.
    ///
    /// # Errors
    /// If it cannot be started or fails.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.fed(command, "")
    }

    /// As `output`, with `input` on its standard input.
    pub fn fed(&self, command: &mut Command, input: &str) -> Result<String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.run(|| command.spawn()).with_context(|| format!("{command:?}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?} {input:?}: {}: {}", output.status, errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `ip` with arguments separated by spaces.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.output(Command::new("ip").args(arguments.split_whitespace()))
    }

    /// Many `ip` commands, one a line, each perhaps with `-6` in front.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        // A batch is of one family.
        let lines: Vec<_> = lines.lines().collect();
        for batch in lines.chunk_by(|a, b| a.starts_with("-6 ") == b.starts_with("-6 ")) {
            let family: &[&str] = if batch[0].starts_with("-6 ") { &["-6"] } else { &[] };
            let lines = batch.iter().map(|line| format!("{}\n", line.trim_start_matches("-6 ")));
            self.fed(Command::new("ip").args(family).args(["-batch", "-"]), &lines.collect::<String>())?;
        }
        Ok(())
    }

    /// Deletes the policy rules of both families that `ip rule show` prints with one of these words; says how many.
    pub fn delete_rules(&self, words: &[&str]) -> Result<usize> {
        let mut count = 0;
        for family in ["-4", "-6"] {
            for line in self.ip(&format!("{family} rule show"))?.lines() {
                let Some((preference, rule)) = line.split_once(":\t") else { continue };
                if words.iter().any(|word| rule.contains(word)) {
                    self.ip(&format!("{family} rule del pref {preference} {rule}"))?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    /// `iptables` with arguments separated by spaces.
    pub fn iptables(&self, arguments: &str) -> Result<String> {
        self.output(Command::new("iptables").args(arguments.split_whitespace()))
    }

    /// `ip6tables` with arguments separated by spaces.
    pub fn ip6tables(&self, arguments: &str) -> Result<String> {
        self.output(Command::new("ip6tables").args(arguments.split_whitespace()))
    }

    /// Writes a file below /proc/sys/net.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(name);
        self.run(|| fs::write(&path, value)).with_context(|| format!("{} = {value}", path.display()))
    }

    /// Reads a file below /proc/sys/net.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = Path::new("/proc/sys/net").join(name);
        let text = self.run(|| fs::read_to_string(&path)).with_context(|| path.display().to_string())?;
        Ok(text.trim().to_owned())
    }

    /// The processes in here, such as one that a finished run left behind.
    pub fn processes(&self) -> Result<Vec<PathBuf>> {
        let ours = self.handle.metadata()?;
        let inside = |process: &PathBuf| {
            // One that is gone by now is not inside.
            let theirs = fs::metadata(process.join("ns/net")).ok();
            theirs.is_some_and(|theirs| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
        };
        Ok(fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path())).filter(inside).collect())
    }

    /// Waits until the processes that were left behind in here have ended.
    pub fn settle(&self) -> Result<()> {
        until("the detached processes to end", || Ok(self.processes()?.is_empty()))
    }

    /// The MAC of an interface, as `ip` prints it.
    pub fn mac_of(&self, interface: &str) -> Result<String> {
        let line = self.ip(&format!("-br link show dev {interface}"))?;
        match line.split_whitespace().nth(2) {
            Some(mac) => Ok(mac.to_owned()),
            None => bail!("no MAC in {line:?}"),
        }
    }
}
