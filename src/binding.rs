//! Files for nfdhcpd, replaced as it watches them.
//!
//! Their folder may be nfdhcpd's own, which parses what guests send: whatever it puts there, links, FIFOs or other files, leads
//! us to no other file and does not hold us.

use std::ffi::OsString;
use std::fs::Permissions;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;

use crate::object::File;
use crate::sys::files::{self, Dir};

/// Longest file that is compared with a binding: far more than one has.
const LONGEST: u64 = 64 * 1024;
/// How often a binding is put into its place, while somebody makes folders there.
const TRIES: usize = 64;

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

/// Removes a binding, or what else has its name, if it is there.
///
/// # Errors
/// Those of unlink(2) and rename(2).
pub fn remove(binding: &File) -> Result<()> {
    let (path, name) = place(binding)?;
    match Dir::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        folder => Ok(clear(&folder?, name, &beside(path))?),
    }
}

fn place(binding: &File) -> Result<(&Path, &Path)> {
    let place = binding.path.parent().zip(binding.path.file_name());
    place.map(|(folder, name)| (folder, Path::new(name))).ok_or_else(|| anyhow!("not a path of a file"))
}

/// The folder beside nfdhcpd's, on the same file system unless that one is a mount, and nobody's but ours.
fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".snf-network");
    beside.into()
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
    let beside_path = beside(path);
    let beside = Dir::of_ours(&beside_path).with_context(|| beside_path.display().to_string())?;
    match replace((&beside, name), (&folder, name), text, &beside_path) {
        // nfdhcpd's folder is a mount. A name in it that is no interface's is none that nfdhcpd heeds.
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
            let making = hidden(name, "making");
            clear(&folder, &making, &beside_path)?;
            replace((&folder, &making), (&folder, name), text, &beside_path)?;
        }
        done => done?,
    }
    folder.file(name, OFlag::O_WRONLY, Mode::empty())?;
    Ok(())
}

/// Writes a file under one name and moves it to another one, from where whatever is there goes.
fn replace(from: (&Dir, &Path), to: (&Dir, &Path), text: &[u8], beside: &Path) -> io::Result<()> {
    let done = make(from.0, from.1, text).and_then(|()| put(from, to, beside));
    if done.is_err() {
        from.0.remove(from.1)?;
    }
    done
}

fn make(folder: &Dir, name: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = folder.fresh(name, 0o644)?;
    file.write_all(text)?;
    // nfdhcpd runs as nobody, whatever our umask says.
    file.set_permissions(Permissions::from_mode(0o644))
}

fn put(from: (&Dir, &Path), to: (&Dir, &Path), beside: &Path) -> io::Result<()> {
    for _ in 1..TRIES {
        clear(to.0, to.1, beside)?;
        match from.0.rename(from.1, to.0, to.1) {
            // Somebody made another folder there meanwhile.
            Err(error) if is_folder(&error) => {}
            done => return done,
        }
    }
    from.0.rename(from.1, to.0, to.1)
}

/// Frees a name. A folder that is not empty is moved aside: into the one beside or, where that is on another file system, to a name
/// that nfdhcpd does not heed.
fn clear(folder: &Dir, name: &Path, beside: &Path) -> io::Result<()> {
    match folder.remove(name) {
        Err(error) if is_folder(&error) => {}
        done => return done,
    }
    match folder.remove_folder(name) {
        Err(error) if is_folder(&error) => {}
        done => return done,
    }
    // Not to be guessed, as it must be free.
    let aside = hidden(name, &format!("moved-{:016x}", RandomState::new().hash_one(name)));
    match folder.rename(name, &Dir::of_ours(beside)?, &aside) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => folder.rename(name, folder, &aside),
        done => done,
    }
}

/// Whether a folder is in the way.
fn is_folder(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EISDIR | libc::ENOTEMPTY | libc::EEXIST))
}

fn hidden(name: &Path, what: &str) -> PathBuf {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".snf-network-");
    hidden.push(what);
    hidden.into()
}
