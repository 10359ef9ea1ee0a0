//! What is recorded of an interface: who owns it, and all that its Plan was made from, so that ifdown and a second ifup
//! make the same Plan again. One file per interface under STATE_DIR, which a shell may source.
//!
//! A record is written before the kernel is touched. What it replaces stays in the file, in front of it, until that is
//! cleared away: a crash at any point leaves a file that names everything which may stand.

mod lock;
mod uplinks;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

pub use self::uplinks::{forget_table, other_uplinks, record_table, uplink_of_table};
use crate::addr::IfName;
use crate::files::Folder;
use crate::plan::shell_quoted;

/// Format of the files; others are not read.
const VERSION: &str = "1";
/// Begins a record.
const HEAD: &str = "# snf-network record";
/// Longest file that is read, in bytes: a record is about one kilobyte.
const LONGEST: u64 = 256 * 1024;
/// Folder of the lock files. Longer than any interface's name, so it is never taken for a record.
const LOCKS: &str = "locks-of-interfaces";
/// Lock of those who make or remove bridges of the node.
const BRIDGES: &str = "bridges-of-the-node";
/// Ending of files in the making; likewise longer than any interface's name.
const MAKING: &str = ".snf-network-making";

/// Variables in the order in which they were given.
pub type Variables = Vec<(String, String)>;

/// The records of one interface, locked against other runs for the same interface.
pub struct State {
    /// STATE_DIR.
    folder: Folder,
    /// Its path, and that of the file in it.
    path: (PathBuf, PathBuf),
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
        Self::at(folder, interface.as_str().into(), interface.as_str(), None)
    }

    /// `within`: a folder of its own for the file.
    fn at(path: &Path, file: PathBuf, lock_name: &str, within: Option<&str>) -> Result<Self> {
        let folder = Folder::of_ours(path).with_context(|| format!("STATE_DIR: {}", path.display()))?;
        let explain = |name: &str| format!("STATE_DIR: {}/{name}", path.display());
        if let Some(within) = within {
            folder.make_folder(within).with_context(|| explain(within))?;
        }
        let locked = folder.lock_file(LOCKS, lock_name).map_err(Into::into).and_then(lock::take);
        let lock = locked.with_context(|| explain(&format!("{LOCKS}/{lock_name}")))?;
        let (text, records, complaint) = match read(&folder, &file) {
            Ok((text, records)) => (text, records, None),
            Err(error) => (String::new(), Vec::new(), Some(format!("{}: {error:#}", path.join(&file).display()))),
        };
        Ok(Self { folder, path: (path.to_owned(), file), text, records, complaint, _lock: lock })
    }

    /// Reads without waiting for a run that is under way.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn peek(folder: &Path, interface: &IfName) -> Result<Vec<Variables>> {
        let read = || -> Result<_> {
            match Folder::open(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                opened => Ok(read(&opened?, interface.as_str().as_ref())?.1),
            }
        };
        read().with_context(|| folder.join(interface.as_str()).display().to_string())
    }

    /// Makes these the records of the interface; none removes the file. Writes only what differs.
    ///
    /// # Errors
    /// Those of writing and renaming a file.
    pub fn write(&mut self, records: Vec<Variables>) -> Result<()> {
        let text = text(&records);
        if text != self.text {
            self.replace(&text).with_context(|| format!("STATE_DIR: {}", self.path.0.join(&self.path.1).display()))?;
            self.text = text;
        }
        self.records = records;
        Ok(())
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let (folder, file) = (&self.folder, &self.path.1);
        if text.is_empty() {
            return folder.remove(file);
        }
        let mut making = file.clone().into_os_string();
        making.push(MAKING);
        let making = PathBuf::from(making);
        let mut open = folder.fresh(&making, 0o600)?;
        let done = open.write_all(text.as_bytes()).and_then(|()| folder.rename(&making, folder, file));
        if done.is_err() {
            let _the_first_error_counts = folder.remove(&making);
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

/// Opens one more lock file of an interface, `name`, without taking any lock.
///
/// # Errors
/// As [`State::open`].
pub fn lock_file(folder: &Path, name: &str) -> Result<File> {
    let opened = Folder::of_ours(folder).and_then(|folder| folder.lock_file(LOCKS, name));
    opened.with_context(|| format!("STATE_DIR: {}/{LOCKS}/{name}", folder.display()))
}

/// Waits until no other run makes or removes bridges of the node, and keeps others from it while the file is open.
///
/// # Errors
/// If the folder cannot be made or the lock not be taken.
pub fn lock_bridges(folder: &Path) -> Result<File> {
    let locked = lock::take(lock_file(folder, BRIDGES)?);
    locked.with_context(|| format!("STATE_DIR: {}/{LOCKS}/{BRIDGES}", folder.display()))
}

/// A value as it is recorded: a line break could forge a variable of its own, so control characters become spaces.
pub fn one_line(value: &str) -> String {
    value.replace(|c: char| c.is_control(), " ")
}

fn read(folder: &Folder, file: &Path) -> Result<(String, Vec<Variables>)> {
    let Some(bytes) = folder.read_ours(file, LONGEST)? else { return Ok((String::new(), Vec::new())) };
    let text = String::from_utf8(bytes)?;
    let records = parse(&text)?;
    Ok((text, records))
}

/// The file of these records.
pub fn text(records: &[Variables]) -> String {
    let mut text = String::new();
    for record in records {
        let _infallible = writeln!(text, "{HEAD}\nSNF_NETWORK_STATE={}", shell_quoted(VERSION));
        for (key, value) in record {
            let _infallible = writeln!(text, "{key}={}", shell_quoted(&one_line(value)));
        }
    }
    text
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
