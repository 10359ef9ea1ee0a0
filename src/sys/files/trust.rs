//! Whom files are believed of.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::geteuid;

use crate::sys::acl;

pub(super) fn is_trusted(user: u32) -> bool {
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

/// That nobody but root and us can write to an open file or folder, be it by an ACL.
///
/// # Errors
/// Who can.
pub(super) fn trusted(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let mut why = distrusted(metadata.uid(), metadata.gid(), metadata.mode());
    if why.is_none() && metadata.mode() & 0o020 != 0 {
        why = acl::writer(file)?.map(|who| format!("{who} can write it by its ACL, expected only root to"));
    }
    why.map_or(Ok(()), |why| Err(io::Error::other(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
