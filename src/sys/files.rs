//! Files where others may have laid their hands on them: whatever stands under a name, opening it never waits, reading it
//! has an end, and no link leads elsewhere.

mod open;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat, renameat};
use nix::libc;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, symlinkat, unlinkat};

use super::dir_names;

/// The device number of /dev/null, by which an administrator masks a settings file (Documentation/admin-guide/devices.txt).
const NULL: u64 = libc::makedev(1, 3);

/// Reads a file of the administrator's, through whatever links lead to it; none if there is no such file. /dev/null is an
/// empty one.
///
/// # Errors
/// Those of open(2) and read(2); what is no regular file, or longer than `longest` bytes.
pub fn read(path: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    // A FIFO without writers, or a line without carrier, must not hold the run.
    let file = match options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    if metadata.rdev() == NULL && metadata.mode() & libc::S_IFMT == libc::S_IFCHR {
        return Ok(Some(Vec::new()));
    }
    read_open(&file, &metadata, longest).map(Some)
}

/// The same of a file that has to be there.
///
/// # Errors
/// As [`read`], and ENOENT.
pub fn read_needed(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    read(path, longest)?.ok_or_else(|| Errno::ENOENT.into())
}

fn read_open(file: &File, metadata: &Metadata, longest: u64) -> io::Result<Vec<u8>> {
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "expected a regular file"));
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(longest).try_into().unwrap_or(0));
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(io::Error::other(format!("expected a file of at most {longest} bytes")));
    }
    Ok(bytes)
}

/// Opens a file to append to it, creating it if need be. A link in its place is followed if it is root's or our own.
///
/// # Errors
/// Those of open(2); ELOOP for another's link; ENXIO for a FIFO that nobody reads.
pub fn append(path: &Path, mode: u32) -> io::Result<File> {
    let open = |path: &Path| {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().append(true).create(true).mode(mode).custom_flags(flags).open(path)
    };
    match open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => open(&target(path)?),
        file => file,
    }
}

/// Where a link leads, if it is root's or our own. The owner and the target are those of one and the same link, whoever
/// exchanges it meanwhile.
fn target(link: &Path) -> io::Result<PathBuf> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(link)?;
    let metadata = file.metadata()?;
    if !metadata.is_symlink() {
        return Err(Errno::ENOTDIR.into());
    }
    if !is_trusted(metadata.uid()) {
        return Err(io::Error::other(format!("a symbolic link of user {}, expected root's", metadata.uid())));
    }
    let target = readlinkat(&file, "")?;
    Ok(link.parent().unwrap_or(Path::new("/")).join(target))
}

/// Whether reading failed for a reason that says nothing of what stands under the name: it may be there, and good.
pub fn is_unread(error: &io::Error) -> bool {
    let of_the_file = [libc::ELOOP, libc::EXDEV, libc::ENOTDIR, libc::EISDIR, libc::ENXIO];
    error.raw_os_error().is_some_and(|errno| !of_the_file.contains(&errno))
}

fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// Who but root and us could have written it: then what it says is not to be acted on.
fn distrusted(user: u32, group: u32, mode: u32) -> Option<String> {
    if !is_trusted(user) {
        return Some(format!("it belongs to user {user}, expected root"));
    }
    if mode & 0o002 != 0 {
        return Some(format!("everybody can write it (mode {:04o}), expected only root to", mode & 0o7777));
    }
    (mode & 0o020 != 0 && group != 0)
        .then(|| format!("group {group} can write it (mode {:04o}), expected only root to", mode & 0o7777))
}

fn trusted(metadata: &Metadata) -> io::Result<()> {
    let why = distrusted(metadata.uid(), metadata.gid(), metadata.mode());
    why.map_or(Ok(()), |why| Err(io::Error::other(why)))
}

/// A folder, held open: what is named in it stays in it, also if somebody moves it or puts a link into its place.
#[derive(Debug)]
pub struct Dir(File);

impl Dir {
    /// Opens a folder, anybody's. A link in its place is followed if it is root's or our own.
    ///
    /// # Errors
    /// Those of open(2); ENOTDIR for what is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let open = |path: &Path| {
            let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
            OpenOptions::new().read(true).custom_flags(flags).open(path).map(Self)
        };
        match open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => open(&target(path)?),
            folder => folder,
        }
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
        trusted(&self.0.metadata()?)
    }

    /// Opens `name` in here; no link is followed on the way, and nothing waits.
    ///
    /// # Errors
    /// Those of openat2(2); ELOOP for a link.
    pub fn file(&self, name: &Path, flags: OFlag, mode: Mode) -> io::Result<File> {
        open::beneath(&self.0, name, flags, mode)
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
        check: impl FnOnce(&Metadata) -> io::Result<()>,
    ) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(name, OFlag::O_RDONLY, Mode::empty()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let metadata = file.metadata()?;
        check(&metadata)?;
        read_open(&file, &metadata, longest).map(Some)
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
        let metadata = file.metadata()?;
        trusted(&metadata)?;
        if metadata.is_file() { Ok(file) } else { Err(io::Error::other("expected a regular file")) }
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

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove(&self, name: &Path) -> io::Result<()> {
        match unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir) {
            Err(error) if error != Errno::ENOENT => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("snf-network-files-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn whom_is_trusted() {
        let own = geteuid().as_raw();
        for (user, group, mode, expected) in [
            (0, 0, 0o755, true),
            (own, 1000, 0o755, true),
            (0, 0, 0o775, true),
            (0, 1000, 0o775, false),
            (0, 0, 0o1777, false),
            (own + 1000, 0, 0o700, false),
        ] {
            assert_eq!(distrusted(user, group, mode).is_none(), expected, "{user} {group} {mode:o}");
        }
    }

    #[test]
    fn reading_never_waits_and_has_an_end() {
        let folder = folder("read");
        let (fifo, file, link) = (folder.join("fifo"), folder.join("file"), folder.join("link"));
        mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
        fs::write(&file, "12345678").expect("a file");
        symlink(&file, &link).expect("a link");
        let kind = |path: &Path| read(path, 8).map_err(|error| error.to_string());
        for other in [&fifo, &folder, Path::new("/dev/zero"), Path::new("/dev/tty")] {
            assert!(kind(other).is_err(), "{}", other.display());
        }
        assert_eq!(kind(&link).expect("a file").as_deref(), Some(&b"12345678"[..]));
        assert_eq!(read(&file, 7).expect_err("too long").to_string(), "expected a file of at most 7 bytes");
        assert_eq!(kind(Path::new("/dev/null")), Ok(Some(Vec::new())));
        assert_eq!(kind(&folder.join("none")), Ok(None));
        // In a folder of ours links are not followed either.
        let ours = Dir::of_ours(&folder).expect("ours");
        for name in ["fifo", "link", ".", "../files"] {
            assert!(ours.read(name.as_ref(), 8).is_err(), "{name}");
        }
        assert_eq!(ours.read_ours("file".as_ref(), 8).expect("a file").as_deref(), Some(&b"12345678"[..]));
        fs::remove_dir_all(folder).expect("cleared");
    }

    #[test]
    fn a_folder_stays_the_one_that_was_opened() {
        let folder = folder("moved");
        let (place, elsewhere) = (folder.join("place"), folder.join("elsewhere"));
        let ours = Dir::of_ours(&place).expect("made");
        fs::create_dir(&elsewhere).expect("a folder");
        fs::rename(&place, folder.join("away")).expect("moved");
        symlink(&elsewhere, &place).expect("a link");
        drop(ours.fresh("file".as_ref(), 0o600).expect("a file"));
        assert!(folder.join("away/file").exists() && !elsewhere.join("file").exists());
        // Our own link may lead to a folder, and to a log.
        assert!(Dir::open(&place).is_ok());
        symlink("elsewhere/log", folder.join("log")).expect("a link");
        append(&folder.join("log"), 0o600).expect("a log");
        assert!(elsewhere.join("log").is_file());
        fs::remove_dir_all(folder).expect("cleared");
    }
}
