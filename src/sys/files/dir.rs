//! Folders that are held open while work is done in them.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::open::beneath;
use super::trust::trusted;
use super::{open_folder, read_open};
use crate::sys::dir_names;

/// A folder, held open: what is named in it stays in it, also if somebody moves it or puts a link into its place.
#[derive(Debug)]
pub struct Dir(File);

impl Dir {
    /// Opens a folder, anybody's. A link in its place is followed if it is root's or our own.
    ///
    /// # Errors
    /// Those of open(2); ENOTDIR for what is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        open_folder(path).map(Self)
    }

    /// Opens a folder that nobody but root and us can write to, and makes it first if there is none.
    ///
    /// # Errors
    /// As [`Dir::open`], and one that others can write to.
    pub fn of_ours(path: &Path) -> io::Result<Self> {
        let folder = match Self::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // For root alone, whatever our umask says; its parents are as usual.
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                match DirBuilder::new().mode(0o755).create(path) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                    _ => Self::open(path)?,
                }
            }
            folder => folder?,
        };
        folder.check()?;
        Ok(folder)
    }

    /// That nobody but root and us can write to it.
    ///
    /// # Errors
    /// Who can.
    pub fn check(&self) -> io::Result<()> {
        trusted(&self.0)
    }

    /// Opens `name` in here; no link is followed on the way, and nothing waits.
    ///
    /// # Errors
    /// Those of openat2(2); ELOOP for a link.
    pub fn file(&self, name: &Path, flags: OFlag, mode: Mode) -> io::Result<File> {
        beneath(&self.0, name, flags, mode)
    }

    /// The bytes of a regular file in here, whoever's; none if there is no such file.
    ///
    /// # Errors
    /// Those of openat2(2) and read(2); what is no regular file, or longer than `longest` bytes.
    pub fn read(&self, name: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
        self.read_if(name, longest, |_| Ok(()))
    }

    /// The same of a file that nobody but root and us can write to.
    ///
    /// # Errors
    /// As above, and a file that others can write to.
    pub fn read_ours(&self, name: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
        self.read_if(name, longest, trusted)
    }

    fn read_if(
        &self,
        name: &Path,
        longest: u64,
        check: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(name, OFlag::O_RDONLY, Mode::empty()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        check(&file)?;
        read_open(&file, &file.metadata()?, longest).map(Some)
    }

    /// Opens a file to be locked, which is made if need be, and stays: to remove it would let two runs hold two locks of one
    /// name. Its folder is made, too.
    ///
    /// # Errors
    /// Those of openat2(2) and mkdirat(2); what is no regular file, or one that others can write to.
    pub fn lock_file(&self, folder: &str, name: &str) -> io::Result<File> {
        let path = Path::new(folder).join(name);
        let open = || self.file(&path, OFlag::O_RDWR | OFlag::O_CREAT, Mode::from_bits_truncate(0o600));
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_folder(folder)?;
                open()?
            }
            file => file?,
        };
        trusted(&file)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("expected a regular file")) }
    }

    /// Makes a folder in here, unless it is there.
    ///
    /// # Errors
    /// Those of mkdirat(2).
    pub fn make_folder(&self, name: &str) -> io::Result<()> {
        match mkdirat(&self.0, name, Mode::from_bits_truncate(0o755)) {
            Err(error) if error != Errno::EEXIST => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A fresh file in here to write to. What had the name goes: it was left by a crash, or somebody's trap.
    ///
    /// # Errors
    /// Those of openat2(2) and unlinkat(2).
    pub fn fresh(&self, name: &Path, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let create = || self.file(name, flags, Mode::from_bits_truncate(mode));
        match create() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.remove(name)?;
                create()
            }
            file => file,
        }
    }

    /// The names in here, in no order.
    ///
    /// # Errors
    /// Those of open(2) and getdents64(2).
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        // Opened again, as it remembers how far it was read.
        dir_names::names(&self.file(".".as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?)
    }

    /// Moves a file from here to there, in place of what has the name there.
    ///
    /// # Errors
    /// Those of renameat(2).
    pub fn rename(&self, name: &Path, there: &Self, new: &Path) -> io::Result<()> {
        Ok(renameat(&self.0, name, &there.0, new)?)
    }

    /// Makes a symbolic link in here, and its folder; false if the name is taken.
    ///
    /// # Errors
    /// Those of symlinkat(2) and mkdirat(2).
    pub fn link(&self, target: &Path, name: &Path) -> io::Result<bool> {
        let made = match (symlinkat(target, &self.0, name), name.parent().and_then(Path::to_str)) {
            (Err(Errno::ENOENT), Some(folder)) => {
                self.make_folder(folder)?;
                symlinkat(target, &self.0, name)
            }
            (made, _) => made,
        };
        match made {
            Err(Errno::EEXIST) => Ok(false),
            made => Ok(made.map(|()| true)?),
        }
    }

    /// What a symbolic link in here says; none if there is no such link.
    ///
    /// # Errors
    /// Those of readlinkat(2).
    pub fn target(&self, name: &Path) -> io::Result<Option<PathBuf>> {
        match readlinkat(&self.0, name) {
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
            target => Ok(Some(target?.into())),
        }
    }

    /// Removes an empty folder, if it is there.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove_folder(&self, name: &Path) -> io::Result<()> {
        self.unlink(name, UnlinkatFlags::RemoveDir)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// Those of unlinkat(2); EISDIR for a folder.
    pub fn remove(&self, name: &Path) -> io::Result<()> {
        self.unlink(name, UnlinkatFlags::NoRemoveDir)
    }

    fn unlink(&self, name: &Path, what: UnlinkatFlags) -> io::Result<()> {
        match unlinkat(&self.0, name, what) {
            Err(error) if error != Errno::ENOENT => Err(error.into()),
            _ => Ok(()),
        }
    }
}
