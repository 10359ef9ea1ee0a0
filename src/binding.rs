//! Files for nfdhcpd, replaced as it watches them.
//!
//! Their folder may be nfdhcpd's own, which parses what guests send: whatever it puts there, links, FIFOs or other files, leads
//! us to no other file and does not hold us.

use std::fs::Permissions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::object::File;
use crate::sys::files::{self, Dir};

/// Longest file that is compared with a binding: far more than one has.
const LONGEST: u64 = 64 * 1024;

/// What a binding's file holds, none if there is no such file. Of what is no file of a binding's size it is nothing, which no
/// binding is.
///
/// # Errors
/// What says nothing of the file, such as EIO.
pub fn read(binding: &File) -> Result<Option<Vec<u8>>> {
    let (path, name) = place(binding)?;
    match Dir::open(path).and_then(|folder| folder.read(name, LONGEST)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if files::is_unread(&error) => Err(error).with_context(|| binding.path.display().to_string()),
        Err(_) => Ok(Some(Vec::new())),
        Ok(text) => Ok(text),
    }
}

/// Removes a binding, if it is there.
///
/// # Errors
/// Those of unlink(2).
pub fn remove(binding: &File) -> Result<()> {
    let (path, name) = place(binding)?;
    match Dir::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        folder => Ok(folder?.remove(name)?),
    }
}

fn place(binding: &File) -> Result<(&Path, &Path)> {
    let place = binding.path.parent().zip(binding.path.file_name());
    place.map(|(folder, name)| (folder, Path::new(name))).ok_or_else(|| anyhow!("not a path of a file"))
}

/// Writes a binding so that nfdhcpd reads it once and whole: it watches DELETE and CLOSE_WRITE, not renames, so the old file
/// is unlinked, the new one renamed into place, then opened for writing and closed.
///
/// # Errors
/// Those of making, writing and renaming a file.
pub fn write(binding: &File) -> Result<()> {
    let (path, name) = place(binding)?;
    let folder = Dir::open(path)?;
    let text = binding.text.as_bytes();
    if folder.read(name, text.len() as u64).is_ok_and(|old| old.as_deref() == Some(text)) {
        return Ok(());
    }
    // Beside the folder that nfdhcpd watches, on the same file system, and nobody's but ours.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".snf-network");
    let beside = Dir::of_ours(beside.as_ref()).with_context(|| beside.display().to_string())?;
    let written = make(&beside, name, text);
    if let Err(error) = written {
        beside.remove(name)?;
        return Err(error.into());
    }
    folder.remove(name)?;
    beside.rename(name, &folder, name)?;
    folder.file(name, OFlag::O_WRONLY, Mode::empty())?;
    Ok(())
}

fn make(beside: &Dir, name: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = beside.fresh(name, 0o644)?;
    file.write_all(text)?;
    // nfdhcpd runs as nobody, whatever our umask says.
    file.set_permissions(Permissions::from_mode(0o644))
}
