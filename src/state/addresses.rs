//! Which NIC has an address: a link for each, `interfaces-by-address/table,100,10.0.0.2 -> ../tap0`. Only one link can have a
//! name, so of two runs for one address one sees that of the other.
//!
//! A run makes its link after its record and before anything else, so that a link is valid as long as the record that it leads
//! to names the address. A crash leaves a link too many, which the next run replaces, or one too few, which the next run makes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{LOCKS, State, Variables, lock, names_in};
use crate::addr::IfName;
use crate::sys::files::Dir;

/// Folder of the links.
const ADDRESSES: &str = "interfaces-by-address";
/// The variable of a record that names its links.
pub const VARIABLE: &str = "ADDRESSES";

impl State {
    /// Makes this interface the one that has an address, `place`. Returns another one that has it: one that has a link for it, and
    /// of which `has` says that it is still right.
    ///
    /// # Errors
    /// Those of making a link and of taking the lock, and of `has`.
    pub fn claim(&self, place: &str, mut has: impl FnMut(&IfName) -> Result<bool>) -> Result<Option<IfName>> {
        let (path, target) = (link(place), Path::new("..").join(&self.path.1));
        loop {
            if self.folder.link(&target, &path).with_context(|| self.explain(&path))? {
                return Ok(None);
            }
            let Some(other) = self.linked(&path)? else { continue };
            if Path::new(other.as_str()) == self.path.1 {
                return Ok(None);
            }
            if has(&other)? {
                return Ok(Some(other));
            }
            let _lock = self.lock_addresses()?;
            if self.linked(&path)?.as_ref() != Some(&other) {
                continue;
            }
            self.folder.remove(&path)?;
            if !self.folder.link(&target, &path)? {
                continue;
            }
            // A run for it may have written its record meanwhile, and have seen its link before that went.
            if has(&other)? {
                self.folder.remove(&path)?;
                self.folder.link(&Path::new("..").join(other.as_str()), &path)?;
                return Ok(Some(other));
            }
            return Ok(None);
        }
    }

    /// Removes the links of those addresses that these records name and `kept` ones do not.
    pub(super) fn release(&self, records: &[Variables], kept: &[Variables]) -> Result<()> {
        let kept: Vec<_> = kept.iter().flat_map(places).collect();
        let mut gone = records.iter().flat_map(places).filter(|it| !kept.contains(it)).peekable();
        if gone.peek().is_none() {
            return Ok(());
        }
        let _lock = self.lock_addresses()?;
        for place in gone {
            let path = link(place);
            if self.linked(&path)?.is_some_and(|it| Path::new(it.as_str()) == self.path.1) {
                self.folder.remove(&path)?;
            }
        }
        Ok(())
    }

    /// The interface that a link leads to.
    fn linked(&self, path: &Path) -> Result<Option<IfName>> {
        linked(&self.folder, path).with_context(|| self.explain(path))
    }

    fn lock_addresses(&self) -> Result<Lock> {
        lock_addresses(&self.folder).with_context(|| self.explain(Path::new(LOCKS)))
    }

    fn explain(&self, path: &Path) -> String {
        format!("STATE_DIR: {}", self.path.0.join(path).display())
    }
}

/// Removes links of interfaces of which nothing is recorded: a run that was killed left them.
///
/// # Errors
/// Those of reading the folder, of taking the lock and of removing a link.
pub fn forget_addresses(path: &Path) -> Result<()> {
    let explain = || format!("STATE_DIR: {}", path.join(ADDRESSES).display());
    let names = names_in(&path.join(ADDRESSES))?;
    if names.is_empty() {
        return Ok(());
    }
    let folder = Dir::of_ours(path).with_context(explain)?;
    let is_stale =
        |link: &Path| -> Result<bool> { Ok(linked(&folder, link)?.is_some_and(|it| !path.join(it.as_str()).exists())) };
    for name in names {
        let link = Path::new(ADDRESSES).join(name);
        if is_stale(&link)? {
            let _lock = lock_addresses(&folder).with_context(explain)?;
            if is_stale(&link)? {
                folder.remove(&link).with_context(explain)?;
            }
        }
    }
    Ok(())
}

fn linked(folder: &Dir, path: &Path) -> io::Result<Option<IfName>> {
    let target = folder.target(path)?;
    Ok(target.and_then(|it| it.file_name()?.to_str()?.parse().ok()))
}

/// The lock of the links. A run takes it more than once, and a close(2) that a signal interrupts must not leave it taken.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        while self.0.unlock().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
    }
}

fn lock_addresses(folder: &Dir) -> Result<Lock> {
    lock::take(folder.lock_file(LOCKS, ADDRESSES)?).map(Lock)
}

/// The addresses that a record names.
fn places(record: &Variables) -> impl Iterator<Item = &str> {
    record.iter().filter(|it| it.0 == VARIABLE).flat_map(|it| it.1.split_ascii_whitespace())
}

fn link(place: &str) -> PathBuf {
    Path::new(ADDRESSES).join(place)
}
