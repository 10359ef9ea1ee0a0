//! What is recorded of an interface: who owns it, and all that its Plan was made from, so that ifdown and a second ifup
//! make the same Plan again. One file per interface under STATE_DIR, which a shell may source.
//!
//! A record is written before the kernel is touched. What it replaces stays in the file, in front of it, until that is
//! cleared away: a crash at any point leaves a file that names everything which may stand.

mod addresses;
mod lock;
mod uplinks;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};

pub use self::addresses::{VARIABLE as ADDRESSES, forget_addresses};
pub use self::uplinks::{
    UplinksLock, forget_table, lock_uplinks, record_table, uplink_of_table, uplink_written, uplinks,
};
use crate::addr::IfName;
use crate::object::shell_quoted;
use crate::printable::is_plain;
use crate::sys::files::{self, Dir};

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
/// Lock of those who make or remove bridges of the node.
const BRIDGES: &str = "bridges-of-the-node";
/// Ending of files in the making; likewise longer than any interface's name.
const MAKING: &str = ".snf-network-making";

/// About how many variables a record has.
const VARIABLES: usize = 64;

/// Variables in the order in which they were given.
pub type Variables = Vec<(String, String)>;

/// The records of one interface, locked against other runs for the same interface.
pub struct State {
    /// STATE_DIR.
    folder: Dir,
    /// Its path, and that of the file in it.
    path: (PathBuf, PathBuf),
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
    /// If the folder cannot be made, the lock not be taken, or a file that may be good not be read.
    pub fn open(folder: &Path, interface: &IfName) -> Result<Self> {
        Self::at(folder, interface.as_str().into(), interface.as_str(), None)
    }

    /// The same without waiting; none if another run has the lock.
    ///
    /// # Errors
    /// As above.
    pub fn try_open(path: &Path, interface: &IfName) -> Result<Option<Self>> {
        let folder = Dir::of_ours(path).with_context(|| format!("STATE_DIR: {}", path.display()))?;
        let explain = || format!("STATE_DIR: {}/{LOCKS}/{interface}", path.display());
        let lock = folder.lock_file(LOCKS, interface.as_str()).with_context(explain)?;
        let taken = lock::try_take(&lock).with_context(explain)?;
        taken.then(|| Self::locked(folder, path, interface.as_str().into(), lock)).transpose()
    }

    /// `within`: a folder of its own for the file.
    fn at(path: &Path, file: PathBuf, lock_name: &str, within: Option<&str>) -> Result<Self> {
        let folder = Dir::of_ours(path).with_context(|| format!("STATE_DIR: {}", path.display()))?;
        let explain = |name: &str| format!("STATE_DIR: {}/{name}", path.display());
        if let Some(within) = within {
            folder.make_folder(within).with_context(|| explain(within))?;
        }
        let locked = folder.lock_file(LOCKS, lock_name).map_err(Into::into).and_then(lock::take);
        let lock = locked.with_context(|| explain(&format!("{LOCKS}/{lock_name}")))?;
        Self::locked(folder, path, file, lock)
    }

    fn locked(folder: Dir, path: &Path, file: PathBuf, lock: File) -> Result<Self> {
        let (records, complaint) = match read(&folder, &file) {
            Ok(records) => (records, None),
            // What it names may stand, and would be lost.
            Err(error) if is_unread(&error) => {
                return Err(error.context(format!("STATE_DIR: {}", path.join(&file).display())));
            }
            Err(error) => (Vec::new(), Some(format!("{}: {error:#}", path.join(&file).display()))),
        };
        Ok(Self { folder, path: (path.to_owned(), file), records, complaint, _lock: lock })
    }

    /// Reads without waiting for a run that is under way.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn peek(folder: &Path, interface: &IfName) -> Result<Vec<Variables>> {
        Self::peek_at(folder, interface.as_str().as_ref())
    }

    fn peek_at(folder: &Path, file: &Path) -> Result<Vec<Variables>> {
        let read = || -> Result<_> {
            match Dir::open(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                opened => read(&opened?, file),
            }
        };
        read().with_context(|| folder.join(file).display().to_string())
    }

    /// Adds one, which is in force from now on.
    ///
    /// # Errors
    /// As [`State::write`].
    pub fn add(&mut self, record: Variables) -> Result<()> {
        let others = self.records.iter().filter(|it| **it != record).cloned();
        self.write(others.chain([record.clone()]).collect())
    }

    /// Forgets all but the one in force.
    ///
    /// # Errors
    /// As [`State::write`].
    pub fn keep_last(&mut self) -> Result<()> {
        if self.records.len() > 1 { self.write(self.records.last().cloned().into_iter().collect()) } else { Ok(()) }
    }

    /// Makes these the records of the interface; none removes the file. Writes only what differs.
    ///
    /// # Errors
    /// Those of writing and renaming a file.
    pub fn write(&mut self, records: Vec<Variables>) -> Result<()> {
        if records != self.records {
            let replaced = self.replace(&text(&records));
            replaced.with_context(|| format!("STATE_DIR: {}", self.path.0.join(&self.path.1).display()))?;
            let former = std::mem::replace(&mut self.records, records);
            self.release(&former, &self.records)?;
        }
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
    // The folders of our own and files in the making have longer names than any interface.
    let mut names: Vec<_> = names_in(folder)?.iter().filter_map(|name| name.to_str()?.parse::<IfName>().ok()).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(names)
}

/// The names in STATE_DIR or a folder in it, none where it is not there.
fn names_in(folder: &Path) -> Result<Vec<OsString>> {
    match Dir::open(folder).and_then(|folder| folder.names()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.with_context(|| format!("STATE_DIR: {}", folder.display())),
    }
}

/// Whether a record could not be read for a reason that says nothing of it.
pub fn is_unread(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(files::is_unread)
}

/// Opens one more lock file of an interface, `name`, without taking any lock.
///
/// # Errors
/// As [`State::open`].
pub fn lock_file(folder: &Path, name: &str) -> Result<File> {
    let opened = Dir::of_ours(folder).and_then(|folder| folder.lock_file(LOCKS, name));
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

/// When the records of an interface were written.
pub fn written(folder: &Path, interface: &IfName) -> Option<SystemTime> {
    fs::metadata(folder.join(interface.as_str())).ok()?.modified().ok()
}

/// Waits for the run that is under way for an interface, if any; not for ever, as one may hang. Whoever may not see its lock
/// does not wait.
pub fn wait_for_run(folder: &Path, interface: &IfName) {
    let Ok(file) = lock_file(folder, interface.as_str()) else { return };
    let deadline = Instant::now() + LONGEST_RUN;
    while matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) && Instant::now() < deadline {
        sleep(LOOK);
    }
}

/// A value as it is recorded: a line break could forge a variable of its own. What parts words becomes a space; other control
/// characters do not, as one word would be two then, each of which may mean something.
pub fn one_line(value: &str) -> Cow<'_, str> {
    if is_plain(value) {
        return value.into();
    }
    let shown = |c: char| match c {
        c if c.is_ascii_whitespace() => ' ',
        c if c.is_control() => '?',
        c => c,
    };
    value.chars().map(shown).collect()
}

fn read(folder: &Dir, file: &Path) -> Result<Vec<Variables>> {
    let Some(bytes) = folder.read_ours(file, LONGEST)? else { return Ok(Vec::new()) };
    parse(&String::from_utf8(bytes)?)
}

/// The file of these records.
pub fn text(records: &[Variables]) -> String {
    let mut text = String::new();
    for record in records {
        let version = ("SNF_NETWORK_STATE", VERSION);
        text.extend([HEAD, "\n"]);
        for (key, value) in [version].into_iter().chain(record.iter().map(|it| (it.0.as_str(), it.1.as_str()))) {
            text.extend([key, "=", &shell_quoted(&one_line(value)), "\n"]);
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
            records.push(Vec::with_capacity(VARIABLES));
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
