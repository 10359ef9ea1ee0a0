//! What is recorded of an interface: who owns it, and all that its Plan was made from, so that ifdown and a second ifup
//! make the same Plan again. One file per interface under STATE_DIR, which a shell may source.
//!
//! A record is written before the kernel is touched. What it replaces stays in the file, in front of it, until that is
//! cleared away: a crash at any point leaves a file that names everything which may stand.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::libc;

use crate::addr::{Family, IfName};
use crate::plan::shell_quoted;

/// Format of the files; others are not read.
const VERSION: &str = "1";
/// Begins a record.
const HEAD: &str = "# snf-network record";
/// Longest file that is read, in bytes: a record is about one kilobyte.
const LONGEST: u64 = 256 * 1024;
/// How long a run is waited for by who only looks: ifup takes milliseconds.
const LONGEST_RUN: Duration = Duration::from_secs(3);
/// Between two looks at its lock.
const LOOK: Duration = Duration::from_millis(1);
/// Folder of the lock files. Longer than any interface's name, so it is never taken for a record.
const LOCKS: &str = "locks-of-interfaces";
/// Folder of what is recorded of the node's uplinks, a file per device and family.
const UPLINKS: &str = "uplinks-by-device";
/// Folder that names the uplink of each routing table.
const TABLES: &str = "uplinks-by-table";
/// Ending of files in the making; likewise longer than any interface's name.
const MAKING: &str = ".snf-network-making";

/// Variables in the order in which they were given.
pub type Variables = Vec<(String, String)>;

/// The records of one interface, locked against other runs for the same interface.
pub struct State {
    path: PathBuf,
    text: String,
    /// Oldest first; the last one is in force, those before it wait to be cleared away.
    pub records: Vec<Variables>,
    /// What was wrong with the file, if it could not be read.
    pub complaint: Option<String>,
    _lock: File,
}

impl State {
    /// Waits for the lock of the interface and reads what is recorded of it. A file that cannot be understood counts as none,
    /// with a complaint.
    ///
    /// # Errors
    /// If the folder cannot be made or the lock not be taken.
    pub fn open(folder: &Path, interface: &IfName) -> Result<Self> {
        Self::at(folder, folder.join(interface.as_str()), interface.as_str())
    }

    /// The same without waiting; none if another run has the lock.
    ///
    /// # Errors
    /// As above.
    pub fn try_open(folder: &Path, interface: &IfName) -> Result<Option<Self>> {
        let lock = lock(&lock_file(folder, interface.as_str())?, Wait::No)?;
        Ok(lock.map(|lock| Self::locked(folder.join(interface.as_str()), lock)))
    }

    /// The same of one family of an uplink.
    ///
    /// # Errors
    /// As above.
    pub fn of_uplink(folder: &Path, device: &IfName, family: Family) -> Result<Self> {
        let uplinks = folder.join(UPLINKS);
        fs::create_dir_all(&uplinks).with_context(|| format!("STATE_DIR: {}", uplinks.display()))?;
        // All uplinks share settings of the node, so they share a lock.
        Self::at(folder, uplinks.join(uplink_file(device, family)), UPLINKS)
    }

    fn at(folder: &Path, path: PathBuf, lock_name: &str) -> Result<Self> {
        let lock = lock(&lock_file(folder, lock_name)?, Wait::Yes)?;
        Ok(Self::locked(path, lock.context("STATE_DIR: no lock")?))
    }

    fn locked(path: PathBuf, lock: File) -> Self {
        let (text, records, complaint) = match read(&path) {
            Ok((text, records)) => (text, records, None),
            Err(error) => (String::new(), Vec::new(), Some(format!("{}: {error:#}", path.display()))),
        };
        Self { path, text, records, complaint, _lock: lock }
    }

    /// Reads without waiting for a run that is under way.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn peek(folder: &Path, interface: &IfName) -> Result<Vec<Variables>> {
        let path = folder.join(interface.as_str());
        Ok(read(&path).with_context(|| path.display().to_string())?.1)
    }

    /// The same of one family of an uplink.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn peek_uplink(folder: &Path, device: &IfName, family: Family) -> Result<Vec<Variables>> {
        let path = folder.join(UPLINKS).join(uplink_file(device, family));
        Ok(read(&path).with_context(|| path.display().to_string())?.1)
    }

    /// Makes these the records of the interface; none removes the file. Writes only what differs.
    ///
    /// # Errors
    /// Those of writing and renaming a file.
    pub fn write(&mut self, records: Vec<Variables>) -> Result<()> {
        let mut text = String::new();
        for record in &records {
            let _infallible = writeln!(text, "{HEAD}\nSNF_NETWORK_STATE={}", shell_quoted(VERSION));
            for (key, value) in record {
                let _infallible = writeln!(text, "{key}={}", shell_quoted(&one_line(value)));
            }
        }
        if text != self.text {
            self.replace(&text).with_context(|| format!("STATE_DIR: {}", self.path.display()))?;
            self.text = text;
        }
        self.records = records;
        Ok(())
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let mut making = self.path.clone().into_os_string();
        making.push(MAKING);
        // What a crash left is of no use; a link that somebody put there is not followed.
        match fs::remove_file(&making) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&making)?;
        let done = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&making, &self.path));
        if done.is_err() {
            let _the_first_error_counts = fs::remove_file(&making);
        }
        done
    }
}

/// The interfaces of which anything is recorded; what is none of our files counts as none.
///
/// # Errors
/// If the folder is there and cannot be read.
pub fn interfaces(folder: &Path) -> Result<Vec<IfName>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("STATE_DIR: {}", folder.display()))?,
    };
    // The folders of our own and files in the making have longer names than any interface.
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<IfName>().ok()).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(names)
}

/// The uplinks of which anything is recorded, by device and family.
///
/// # Errors
/// If the folder is there and cannot be read.
pub fn uplinks(folder: &Path) -> Result<Vec<(IfName, Family)>> {
    let folder = folder.join(UPLINKS);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("STATE_DIR: {}", folder.display()))?,
    };
    let uplink_of = |name: &str| {
        let (device, family) = name.rsplit_once('.')?;
        let family = Family::BOTH.into_iter().find(|it| it.sysctl() == family)?;
        Some((device.parse().ok()?, family))
    };
    let mut uplinks: Vec<_> = entries.filter_map(|entry| uplink_of(entry.ok()?.file_name().to_str()?)).collect();
    uplinks.sort_unstable();
    Ok(uplinks)
}

/// When the records of an interface, or of a family of an uplink, were written.
pub fn written(folder: &Path, interface: &IfName, uplink: Option<Family>) -> Option<SystemTime> {
    let path = match uplink {
        Some(family) => folder.join(UPLINKS).join(uplink_file(interface, family)),
        None => folder.join(interface.as_str()),
    };
    fs::metadata(path).ok()?.modified().ok()
}

/// The folder of the lock files.
pub fn locks(folder: &Path) -> PathBuf {
    folder.join(LOCKS)
}

/// A value as it is recorded: a line break could forge a variable of its own, so control characters become spaces.
pub fn one_line(value: &str) -> String {
    value.replace(|c: char| c.is_control(), " ")
}

fn uplink_file(device: &IfName, family: Family) -> String {
    format!("{device}.{}", family.sysctl())
}

/// Whether anything is recorded of that family of another uplink.
///
/// # Errors
/// If the folder cannot be read.
pub fn other_uplinks(folder: &Path, device: &IfName, family: Family) -> Result<bool> {
    let (own, kin) = (uplink_file(device, family), format!(".{}", family.sysctl()));
    let entries = fs::read_dir(folder.join(UPLINKS)).context("STATE_DIR")?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.any(|name| name.ends_with(&kin) && name != own))
}

/// Records through which device a table's default route leads: a hint, which saves the next ifup a dump of the table.
///
/// # Errors
/// Those of writing a file.
pub fn record_table(folder: &Path, table: u32, device: &IfName) -> Result<()> {
    let path = folder.join(TABLES).join(table.to_string());
    let write = || {
        fs::create_dir_all(folder.join(TABLES))?;
        fs::write(&path, device.as_str())
    };
    write().with_context(|| format!("STATE_DIR: {}", path.display()))
}

/// Undoes [`record_table`], if it is this device that is recorded.
pub fn forget_table(folder: &Path, table: u32, device: &IfName) {
    if uplink_of_table(folder, table).as_ref() == Some(device) {
        // Only a hint: left behind, it costs a question.
        let _gone_or_harmless = fs::remove_file(folder.join(TABLES).join(table.to_string()));
    }
}

/// The device that was recorded for a table.
pub fn uplink_of_table(folder: &Path, table: u32) -> Option<IfName> {
    fs::read_to_string(folder.join(TABLES).join(table.to_string())).ok()?.parse().ok()
}

/// Whether a lock that another run has is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

fn lock_file(folder: &Path, name: &str) -> Result<PathBuf> {
    let locks = folder.join(LOCKS);
    fs::create_dir_all(&locks).with_context(|| format!("STATE_DIR: {}", locks.display()))?;
    Ok(locks.join(name))
}

/// Takes the lock, or none if it is not waited for; the file stays, as removing it would let two runs hold two locks of one name.
fn lock(path: &Path, wait: Wait) -> Result<Option<File>> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        options.open(path)
    };
    let file = open().with_context(|| format!("STATE_DIR: {}", path.display()))?;
    loop {
        let locked = match wait {
            Wait::Yes => file.lock(),
            Wait::No => file.try_lock().map_err(io::Error::from),
        };
        match locked {
            // The lock goes when the file is closed.
            Ok(()) => return Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => bail!("STATE_DIR: {}: flock: {error}", path.display()),
        }
    }
}

/// Keeps all runs for the node's uplinks away.
pub struct UplinksLock(#[expect(dead_code, reason = "the lock goes when the file is closed")] File);

/// Waits for the lock of the uplinks.
///
/// # Errors
/// If the folder cannot be made or the lock not be taken.
pub fn lock_uplinks(folder: &Path) -> Result<UplinksLock> {
    let lock = lock(&lock_file(folder, UPLINKS)?, Wait::Yes)?;
    Ok(UplinksLock(lock.context("STATE_DIR: no lock")?))
}

/// Waits for the run that is under way for an interface, if any; not for ever, as one may hang. Whoever may not see its lock
/// does not wait.
pub fn wait_for_run(folder: &Path, interface: &IfName) {
    let Ok(file) = File::open(folder.join(LOCKS).join(interface.as_str())) else { return };
    let deadline = Instant::now() + LONGEST_RUN;
    while matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) && Instant::now() < deadline {
        sleep(LOOK);
    }
}

fn read(path: &Path) -> Result<(String, Vec<Variables>)> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((String::new(), Vec::new())),
        file => file?,
    };
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= LONGEST, "longer than {LONGEST} bytes");
    let records = parse(&text)?;
    Ok((text, records))
}

/// The records in a file of ours.
///
/// # Errors
/// If a line is not `KEY='value'`, or a record is not of our format.
pub fn parse(text: &str) -> Result<Vec<Variables>> {
    let mut records: Vec<Variables> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line == HEAD {
            records.push(Vec::new());
            continue;
        }
        let parsed = line.split_once('=').and_then(|(key, value)| Some((key.to_owned(), unquoted(value)?)));
        let (Some((key, value)), Some(record)) = (parsed, records.last_mut()) else {
            bail!("line {}: expected KEY='value' of a record of ours", number + 1);
        };
        record.push((key, value));
    }
    for record in &mut records {
        let (key, version) = record.first().context("a record is empty")?;
        ensure!(key == "SNF_NETWORK_STATE" && version == VERSION, "a record is not of version {VERSION}");
        record.remove(0);
    }
    Ok(records)
}

/// Undoes [`shell_quoted`]; none for anything else.
fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut value = String::new();
    for (place, part) in inner.split(r"'\''").enumerate() {
        if part.contains('\'') {
            return None;
        }
        if place > 0 {
            value.push('\'');
        }
        value.push_str(part);
    }
    Some(value)
}

#[cfg(test)]
mod tests;
