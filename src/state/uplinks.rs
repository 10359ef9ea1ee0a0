//! What is recorded of the node's uplinks: a file per device and family, and which of them a routing table leads through.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::{LOCKS, MAKING, State, Variables, lock, lock_file, names_in};
use crate::addr::{Family, IfName};
use crate::sys::files::Dir;

/// Folder of what is recorded of the node's uplinks, a file per device and family.
const UPLINKS: &str = "uplinks-by-device";
/// Folder that names the uplink of each routing table.
const TABLES: &str = "uplinks-by-table";
/// Longest name of a device, and a line end.
const LONGEST: u64 = 16;

impl State {
    /// Waits for the lock of one family of an uplink and reads what is recorded of it.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn of_uplink(folder: &Path, device: &IfName, family: Family) -> Result<Self> {
        let path = Path::new(UPLINKS).join(uplink_file(device, family));
        // All uplinks share settings of the node, so they share a lock.
        Self::at(folder, path, UPLINKS, Some(UPLINKS))
    }

    /// Reads what is recorded of one family of an uplink, without waiting for a run that is under way.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn peek_uplink(folder: &Path, device: &IfName, family: Family) -> Result<Vec<Variables>> {
        Self::peek_at(folder, &Path::new(UPLINKS).join(uplink_file(device, family)))
    }
}

/// Keeps all runs for the node's uplinks away, until it is dropped and every [`State`] it gave.
#[derive(Debug)]
pub struct UplinksLock(File);

impl UplinksLock {
    /// Reads what is recorded of one family of an uplink, as [`State::of_uplink`] does.
    ///
    /// # Errors
    /// If it may be good and cannot be read.
    pub fn state(&self, path: &Path, device: &IfName, family: Family) -> Result<State> {
        let opened = Dir::of_ours(path).and_then(|folder| Ok((folder, self.0.try_clone()?)));
        let (folder, lock) = opened.with_context(|| format!("STATE_DIR: {}", path.display()))?;
        State::locked(folder, path, Path::new(UPLINKS).join(uplink_file(device, family)), lock)
    }
}

/// Waits for the lock of the uplinks.
///
/// # Errors
/// If the folder cannot be made or the lock not be taken.
pub fn lock_uplinks(folder: &Path) -> Result<UplinksLock> {
    let locked = lock::take(lock_file(folder, UPLINKS)?);
    locked.map(UplinksLock).with_context(|| format!("STATE_DIR: {}/{LOCKS}/{UPLINKS}", folder.display()))
}

/// The uplinks of which anything is recorded, by device and family.
///
/// # Errors
/// If the folder is there and cannot be read.
pub fn uplinks(folder: &Path) -> Result<Vec<(IfName, Family)>> {
    let uplink_of = |name: &str| {
        let (device, family) = name.rsplit_once('.')?;
        let family = Family::BOTH.into_iter().find(|it| it.sysctl() == family)?;
        Some((device.parse().ok()?, family))
    };
    let names = names_in(&folder.join(UPLINKS))?;
    let mut uplinks: Vec<_> = names.iter().filter_map(|name| uplink_of(name.to_str()?)).collect();
    uplinks.sort_unstable();
    Ok(uplinks)
}

/// When the records of a family of an uplink were written.
pub fn uplink_written(folder: &Path, device: &IfName, family: Family) -> Option<SystemTime> {
    fs::metadata(folder.join(UPLINKS).join(uplink_file(device, family))).ok()?.modified().ok()
}

fn uplink_file(device: &IfName, family: Family) -> String {
    format!("{device}.{}", family.sysctl())
}

/// Records through which device a table's default route leads: a hint, which saves the next ifup a dump of an IPv6 table
/// that no mark leads to.
///
/// # Errors
/// Those of writing a file.
pub fn record_table(folder: &Path, table: u32, device: &IfName) -> Result<()> {
    let path = table_file(table);
    let making = PathBuf::from(format!("{}{MAKING}", path.display()));
    let write = |folder: &Dir| {
        folder.make_folder(TABLES)?;
        folder.fresh(&making, 0o600)?.write_all(device.as_str().as_bytes())?;
        folder.rename(&making, folder, &path)
    };
    let written = Dir::of_ours(folder).and_then(|folder| write(&folder));
    written.with_context(|| format!("STATE_DIR: {}", folder.join(&path).display()))
}

/// Undoes [`record_table`], if it is this device that is recorded.
pub fn forget_table(folder: &Path, table: u32, device: &IfName) {
    if uplink_of_table(folder, table).as_ref() == Some(device) {
        // Only a hint: left behind, it costs a question.
        let _gone_or_harmless = Dir::open(folder).and_then(|folder| folder.remove(&table_file(table)));
    }
}

/// The device that was recorded for a table.
pub fn uplink_of_table(folder: &Path, table: u32) -> Option<IfName> {
    let text = Dir::open(folder).ok()?.read_ours(&table_file(table), LONGEST).ok()??;
    String::from_utf8(text).ok()?.parse().ok()
}

fn table_file(table: u32) -> PathBuf {
    Path::new(TABLES).join(table.to_string())
}
