//! POSIX ACLs (acl(5)): who else may write a file, behind the rights of its group in the mode.
#![expect(unsafe_code, reason = "fgetxattr(2) has no wrapper")]

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// The extended attribute with the ACL.
const NAME: &CStr = c"system.posix_acl_access";
/// Longest value of an extended attribute (XATTR_SIZE_MAX of linux/limits.h).
const LONGEST: usize = 65536;
/// POSIX_ACL_XATTR_VERSION of linux/posix_acl_xattr.h. Behind it (4 bytes, little endian, as all of it) are entries: 2 bytes of tag, 2 of
/// permissions, 4 of a user's or group's number.
const VERSION: [u8; 4] = 2_u32.to_le_bytes();
/// ACL_USER, ACL_GROUP and ACL_WRITE of linux/posix_acl.h.
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const WRITE: u16 = 0x02;

/// A user or a group, but root's, whom the ACL of an open file gives the right to write. Ask only where the mode has that right for
/// the group: it is the mask, without which no entry counts.
///
/// # Errors
/// Those of fgetxattr(2); an ACL of another version.
pub fn writer(file: &impl AsRawFd) -> io::Result<Option<String>> {
    let mut value = vec![0_u8; LONGEST];
    // SAFETY: the name ends with a zero, and at most as many bytes are written as the buffer has.
    let length = unsafe { libc::fgetxattr(file.as_raw_fd(), NAME.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match usize::try_from(length) {
        Ok(length) => writer_in(&value[..length]).ok_or_else(|| io::Error::other("an ACL of an unknown form")),
        Err(_) => match io::Error::last_os_error() {
            // There is none, or the file system has none.
            error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(None),
            error => Err(error),
        },
    }
}

fn writer_in(value: &[u8]) -> Option<Option<String>> {
    let (entries, rest) = value.strip_prefix(&VERSION)?.as_chunks::<8>();
    let writer = entries.iter().find_map(|[t0, t1, p0, p1, id @ ..]| {
        let (tag, permissions) = (u16::from_le_bytes([*t0, *t1]), u16::from_le_bytes([*p0, *p1]));
        let id = u32::from_le_bytes(*id);
        let kind = match tag {
            USER => "user",
            GROUP => "group",
            _ => return None,
        };
        (permissions & WRITE != 0 && id != 0).then(|| format!("{kind} {id}"))
    });
    rest.is_empty().then_some(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write_by_an_acl() {
        let entry = |tag: u16, permissions: u16, id: u32| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let acl = |entries: &[Vec<u8>]| [&VERSION[..], &entries.concat()].concat();
        // ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK and ACL_OTHER have no number.
        let common = [entry(0x01, 7, u32::MAX), entry(0x04, 7, u32::MAX), entry(0x10, 7, u32::MAX), entry(0x20, 7, 0)];
        for (entries, expected) in [
            (vec![], None),
            (vec![entry(USER, 6, 1000)], Some("user 1000")),
            (vec![entry(USER, 5, 1000), entry(GROUP, 2, 4)], Some("group 4")),
            (vec![entry(USER, 7, 0), entry(GROUP, 7, 0)], None),
        ] {
            let found = writer_in(&acl(&[common.as_slice(), &entries].concat())).expect("an ACL");
            assert_eq!(found.as_deref(), expected);
        }
        // As the kernel gives it back, where the file system has ACLs.
        let path = std::env::temp_dir().join(format!("snf-network-acl-{}", std::process::id()));
        let file = std::fs::File::create(&path).expect("a file");
        assert_eq!(writer(&file).expect("no ACL"), None);
        let mut value = acl(&[entry(0x01, 6, u32::MAX), entry(USER, 6, 1000)]);
        value.extend([entry(0x04, 4, u32::MAX), entry(0x10, 6, u32::MAX), entry(0x20, 0, u32::MAX)].concat());
        // SAFETY: the name ends with a zero, and the value has as many bytes as it says; both outlive the call.
        let set = unsafe { libc::fsetxattr(file.as_raw_fd(), NAME.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
        if set == 0 {
            assert_eq!(writer(&file).expect("an ACL").as_deref(), Some("user 1000"));
        }
        std::fs::remove_file(&path).expect("removed");
        for bad in [&[][..], &[1, 0, 0, 0], &[2, 0, 0, 0, 1]] {
            assert_eq!(writer_in(bad), None, "{bad:?}");
        }
    }
}
