//! What a folder holds. The standard library's way panics where close(2) fails, and gives up after a signal.
#![expect(unsafe_code, reason = "getdents64(2) has no wrapper")]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use nix::libc;

/// Bytes that are asked for at once: a name takes up to 280.
const AT_ONCE: usize = 16 * 1024;
/// Where d_reclen (2 bytes, native order) and d_name are in struct linux_dirent64 of linux/dirent.h.
const LENGTH: usize = 16;
const NAME: usize = 19;

/// The names in a folder that is open for reading and of which nothing was read yet, without `.` and `..`, in no order.
///
/// # Errors
/// Those of getdents64(2).
pub fn names(folder: &impl AsRawFd) -> io::Result<Vec<OsString>> {
    let (mut names, mut buffer) = (Vec::new(), vec![0_u8; AT_ONCE]);
    loop {
        // SAFETY: it writes at most as many bytes as it is told that the buffer has.
        let read =
            unsafe { libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        let Ok(read) = usize::try_from(read) else {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            }
        };
        if read == 0 {
            return Ok(names);
        }
        names.extend(entries(&buffer[..read]).filter(|it| *it != "." && *it != "..").map(OsStr::to_owned));
    }
}

/// The names in what getdents64 wrote.
fn entries(mut rest: &[u8]) -> impl Iterator<Item = &OsStr> {
    std::iter::from_fn(move || {
        let length = rest.get(LENGTH..LENGTH + 2)?.try_into().map(u16::from_ne_bytes).ok()?;
        let entry = rest.get(..usize::from(length))?;
        let name = entry.get(NAME..)?.split(|byte| *byte == 0).next()?;
        rest = &rest[entry.len()..];
        Some(OsStr::from_bytes(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn all_names_of_a_large_folder() {
        let folder = std::env::temp_dir().join(format!("snf-network-names-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let mut expected: Vec<OsString> = (0..1000).map(|n| format!("a-name-of-some-length-{n:04}").into()).collect();
        for name in &expected {
            File::create(folder.join(name)).expect("a file");
        }
        let mut found = names(&File::open(&folder).expect("open")).expect("names");
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        assert!(names(&File::open(folder.join(&expected[0])).expect("a file")).is_err());
        fs::remove_dir_all(&folder).expect("cleared");
    }

    #[test]
    fn what_is_cut_short_ends() {
        let mut bytes = vec![0; 24];
        bytes[LENGTH..LENGTH + 2].copy_from_slice(&24_u16.to_ne_bytes());
        bytes[NAME..NAME + 4].copy_from_slice(b"tap0");
        assert_eq!(entries(&bytes).collect::<Vec<_>>(), ["tap0"]);
        for length in 0..bytes.len() {
            assert_eq!(entries(&bytes[..length]).count(), 0, "{length} bytes");
        }
        bytes[LENGTH..LENGTH + 2].copy_from_slice(&0_u16.to_ne_bytes());
        assert_eq!(entries(&bytes).count(), 0);
    }
}
