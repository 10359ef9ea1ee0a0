//! What is recorded of an interface: who owns it, and all that its Plan was made from, so that ifdown and a second ifup
//! make the same Plan again. One file per interface under STATE_DIR, which a shell may source.
//!
//! A record is written before the kernel is touched. What it replaces stays in the file, in front of it, until that is
//! cleared away: a crash at any point leaves a file that names everything which may stand.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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
/// Folder of the lock files. Longer than any interface's name, so it is never taken for a record.
const LOCKS: &str = "locks-of-interfaces";
/// Folder of what is recorded of the node's uplinks, a file per device and family.
const UPLINKS: &str = "uplinks-by-device";
/// Folder that names the uplink of each routing table.
const TABLES: &str = "uplinks-by-table";
/// Lock of those who make or remove bridges of the node.
const BRIDGES: &str = "bridges-of-the-node";
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
        let locks = folder.join(LOCKS);
        fs::create_dir_all(&locks).with_context(|| format!("STATE_DIR: {}", locks.display()))?;
        let lock = lock(&locks.join(lock_name))?;
        let (text, records, complaint) = match read(&path) {
            Ok((text, records)) => (text, records, None),
            Err(error) => (String::new(), Vec::new(), Some(format!("{}: {error:#}", path.display()))),
        };
        Ok(Self { path, text, records, complaint, _lock: lock })
    }

    /// Reads without waiting for a run that is under way.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn peek(folder: &Path, interface: &IfName) -> Result<Vec<Variables>> {
        let path = folder.join(interface.as_str());
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

/// The folder of the lock files.
pub fn locks(folder: &Path) -> PathBuf {
    folder.join(LOCKS)
}

/// Waits until no other run makes or removes bridges of the node, and keeps others from it while the file is open.
///
/// # Errors
/// If the folder cannot be made or the lock not be taken.
pub fn lock_bridges(folder: &Path) -> Result<File> {
    let locks = locks(folder);
    fs::create_dir_all(&locks).with_context(|| format!("STATE_DIR: {}", locks.display()))?;
    lock(&locks.join(BRIDGES))
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

/// Takes the lock; the file stays, as removing it would let two runs hold two locks of one name.
fn lock(path: &Path) -> Result<File> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        options.open(path)
    };
    let file = open().with_context(|| format!("STATE_DIR: {}", path.display()))?;
    loop {
        match file.lock() {
            // The lock goes when the file is closed.
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => bail!("STATE_DIR: {}: flock: {error}", path.display()),
        }
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
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("snf-network-state-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn tap0() -> IfName {
        "tap0".parse().expect("a name")
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let folder = folder("roundtrip");
        let record = |ip: &str| vec![("IP".to_owned(), ip.to_owned()), ("TAGS".to_owned(), "it's $(x) `y`".to_owned())];
        let mut state = State::open(&folder, &tap0()).expect("the lock");
        assert!(state.records.is_empty());
        state.write(vec![record("10.0.0.1"), record("10.0.0.2")]).expect("written");
        drop(state);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.join("tap0")).expect("a file").permissions());
        assert_eq!(mode & 0o7777, 0o600);
        let mut state = State::open(&folder, &tap0()).expect("the lock");
        assert_eq!(state.records, [record("10.0.0.1"), record("10.0.0.2")]);
        state.write(Vec::new()).expect("removed");
        assert!(!folder.join("tap0").exists());
        fs::remove_dir_all(&folder).expect("cleared");
    }

    #[test]
    fn no_value_forges_a_line() {
        let folder = folder("forge");
        let mut state = State::open(&folder, &tap0()).expect("the lock");
        let tags = format!("a\n{HEAD}\nSNF_NETWORK_STATE='1'\nIP='10.0.0.9'");
        state.write(vec![vec![("TAGS".to_owned(), tags)]]).expect("written");
        drop(state);
        let records = State::peek(&folder, &tap0()).expect("a record");
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].len(), 1);
        fs::remove_dir_all(&folder).expect("cleared");
    }

    #[test]
    fn what_is_not_ours_counts_as_none_with_a_complaint() {
        let folder = folder("foreign");
        for text in ["IP=10.0.0.1\n", "# snf-network record\n", "# snf-network record\nSNF_NETWORK_STATE='9'\n", "\0"] {
            fs::write(folder.join("tap0"), text).expect("written");
            let state = State::open(&folder, &tap0()).expect("the lock");
            assert!(state.records.is_empty() && state.complaint.is_some(), "{text:?}");
        }
        fs::remove_file(folder.join("tap0")).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", folder.join("tap0")).expect("a link");
        assert!(State::open(&folder, &tap0()).expect("the lock").complaint.is_some());
        fs::remove_dir_all(&folder).expect("cleared");
    }

    #[test]
    fn every_prefix_of_a_file_is_survived() {
        let text = format!("{HEAD}\nSNF_NETWORK_STATE='1'\nIP='10.0.0.1'\nTAGS='it'\\''s'\n");
        for length in 0..text.len() {
            let _either_way = parse(&text[..length]);
        }
        assert_eq!(parse(&text).expect("whole")[0][1].1, "it's");
    }
}
