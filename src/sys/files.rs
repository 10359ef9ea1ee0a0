//! Files where others may have laid their hands on them: whatever stands under a name, opening it never waits, reading it
//! has an end, and no link leads elsewhere.

mod dir;
mod open;
mod trust;

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::libc;
use nix::sys::stat::Mode;

pub use self::dir::Dir;
pub use self::open::open;
use self::trust::{is_trusted, trusted};

/// The device number of /dev/null, by which an administrator masks a settings file (Documentation/admin-guide/devices.txt).
const NULL: u64 = libc::makedev(1, 3);

/// Reads a file of the administrator's, through whatever links lead to it; none if there is no such file. /dev/null is an
/// empty one.
///
/// # Errors
/// Those of open(2) and read(2); what is no regular file, or longer than `longest` bytes.
pub fn read(path: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
    read_if(path, longest, |_| Ok(()))
}

/// The same of a file that nobody but root and us can write to.
///
/// # Errors
/// As [`read`], and who else can write it.
pub fn read_trusted(path: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
    read_if(path, longest, trusted)
}

fn read_if(path: &Path, longest: u64, check: impl FnOnce(&File) -> io::Result<()>) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path, OFlag::O_RDONLY, Mode::empty()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    if metadata.rdev() == NULL && metadata.mode() & libc::S_IFMT == libc::S_IFCHR {
        return Ok(Some(Vec::new()));
    }
    if metadata.is_file() {
        check(&file)?;
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

/// That nobody but root and us can write to a file. A file that does not exist passes.
///
/// # Errors
/// Those of open(2), and who can.
pub fn check_trusted(path: &Path) -> io::Result<()> {
    match open(path, OFlag::O_RDONLY, Mode::empty()) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        file => trusted(&file?),
    }
}

/// Who but root and us can read or write a file with a secret; none if nobody can, or it cannot be opened.
pub fn exposed(path: &Path) -> Option<String> {
    let file = open(path, OFlag::O_RDONLY, Mode::empty()).ok()?;
    let mode = file.metadata().ok()?.mode();
    if mode & 0o004 != 0 {
        return Some(format!("everybody can read it (mode {:04o}), expected only root to", mode & 0o7777));
    }
    trusted(&file).err().map(|why| why.to_string())
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

/// Opens a file to append to it, creating it if need be. A link in its place is followed if it is root's or our own, and
/// nobody else could have moved it there.
///
/// # Errors
/// Those of open(2); a link that is not followed; a file that has another name too; ENXIO for a FIFO that nobody reads.
pub fn append(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(mode);
    let file = match open(path, flags, mode) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let folder = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?.metadata()?;
            // Not even root's group: an ACL, which hides behind its rights, cannot be read here.
            if !is_trusted(folder.uid()) || folder.mode() & 0o022 != 0 {
                return Err(io::Error::other("a symbolic link in a folder of others, expected a file"));
            }
            open(&target(path)?, flags, mode)?
        }
        file => file?,
    };
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() > 1 {
        return Err(io::Error::other(format!("a file with {} names, expected one", metadata.nlink())));
    }
    Ok(file)
}

/// Opens a folder. A link in its place is followed if it is root's or our own.
fn open_folder(path: &Path) -> io::Result<File> {
    let (flags, mode) = (OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
    match open(path, flags, mode) {
        // With O_DIRECTORY a link is ENOTDIR.
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => open(&target(path)?, flags, mode),
        file => file,
    }
}

/// Where a link leads, if it is root's or our own. The owner and the target are those of one and the same link, whoever
/// exchanges it meanwhile.
fn target(link: &Path) -> io::Result<PathBuf> {
    let file = open(link, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("snf-network-files-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
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
