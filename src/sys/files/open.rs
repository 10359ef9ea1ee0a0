//! How files are opened: the one place for it. No open waits, whatever has the name.
//!
//! The flags go to the kernel as they are. `std::fs::OpenOptions` clears those that musl counts to O_ACCMODE, which makes a
//! blocking O_RDONLY of O_PATH; clippy.toml forbids it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

/// How often an open is tried: a signal interrupts it, or somebody moves folders about (EAGAIN, with RESOLVE_BENEATH).
const TRIES: usize = 64;

/// What every open has: a FIFO or a terminal holds nobody up, and no terminal becomes the process' own.
const ALWAYS: OFlag = OFlag::O_CLOEXEC.union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// Opens a path of the administrator's, through links on the way; the last one too, unless the flags forbid it.
///
/// # Errors
/// Those of openat(2).
pub fn open(path: &Path, flags: OFlag, mode: Mode) -> io::Result<File> {
    Ok(again(|| openat(AT_FDCWD, path, flags | ALWAYS, mode))?.into())
}

/// Opens `path` beneath `folder`. It follows no link, leaves the folder neither by `..` nor by an absolute path, and never
/// waits.
///
/// # Errors
/// Those of openat2(2); ELOOP or ENOTDIR for a link, EXDEV for a path that leaves the folder.
pub(super) fn beneath(folder: &impl AsFd, path: &Path, flags: OFlag, mode: Mode) -> io::Result<File> {
    let flags = flags | ALWAYS;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how = OpenHow::new().flags(flags).mode(mode).resolve(resolve);
    let opened = match again(|| openat2(folder, path, how)) {
        // No openat2(2) in this kernel, or a seccomp filter that cannot look into its arguments: systemd's RestrictSUIDSGID
        // answers ENOSYS, others EPERM. If the EPERM is the file's own, the other way ends with it too.
        Err(Errno::ENOSYS | Errno::EPERM) => by_components(folder, path, flags, mode),
        opened => opened,
    };
    Ok(opened?.into())
}

/// The same without openat2(2): one openat(2) for each component, each relative to the one before.
fn by_components(folder: &impl AsFd, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(_) | Component::CurDir => names.push(component.as_os_str()),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(Errno::EXDEV),
        }
    }
    let (last, parents) = names.split_last().ok_or(Errno::ENOENT)?;
    let way = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut parent: Option<OwnedFd> = None;
    for name in parents {
        let parent_fd = parent.as_ref().map_or(folder.as_fd(), AsFd::as_fd);
        parent = Some(again(|| openat(parent_fd, *name, way, Mode::empty()))?);
    }
    let parent_fd = parent.as_ref().map_or(folder.as_fd(), AsFd::as_fd);
    again(|| openat(parent_fd, *last, flags | OFlag::O_NOFOLLOW, mode))
}

/// Repeats an open that fails for a reason that passes.
fn again(open: impl Fn() -> nix::Result<OwnedFd>) -> nix::Result<OwnedFd> {
    for _ in 1..TRIES {
        match open() {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            opened => return opened,
        }
    }
    open()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    /// Both ways open the same and refuse the same.
    #[test]
    fn without_openat2() {
        let root = std::env::temp_dir().join(format!("snf-network-open-{}", std::process::id()));
        let folder = root.join("folder");
        fs::create_dir_all(folder.join("inner")).expect("a folder");
        for file in [root.join("outside"), folder.join("file"), folder.join("inner/file")] {
            fs::write(file, "text").expect("a file");
        }
        symlink(root.join("outside"), folder.join("link")).expect("a link");
        symlink(root.join("none"), folder.join("dangling")).expect("a link");
        symlink("inner", folder.join("other")).expect("a link");
        mkfifo(&folder.join("fifo"), Mode::S_IRWXU).expect("a FIFO");
        let opened = File::open(&folder).expect("a folder");
        let absolute = folder.join("file");
        let (read, write) = (OFlag::O_RDONLY, OFlag::O_WRONLY | OFlag::O_CREAT);
        for (name, flags, opens) in [
            ("file", read, true),
            ("file", write, true),
            ("./file", read, true),
            ("inner/file", read, true),
            ("inner/new", write, true),
            (".", read | OFlag::O_DIRECTORY, true),
            ("fifo", read, true),
            ("fifo", OFlag::O_WRONLY, false),
            ("none", read, false),
            ("", read, false),
            ("link", read, false),
            ("dangling", write, false),
            ("other", read | OFlag::O_DIRECTORY, false),
            ("other/file", read, false),
            ("file/file", read, false),
            ("..", read, false),
            ("../outside", read, false),
            ("inner/../../outside", read, false),
            (absolute.to_str().expect("text"), read, false),
        ] {
            let mode = if flags.contains(OFlag::O_CREAT) { Mode::S_IRUSR } else { Mode::empty() };
            let one = beneath(&opened, name.as_ref(), flags, mode);
            let other = by_components(&opened, name.as_ref(), flags | ALWAYS, mode);
            assert_eq!((one.is_ok(), other.is_ok()), (opens, opens), "{name}: {one:?}, {other:?}");
        }
        assert!(!root.join("none").exists(), "a link was followed");
        fs::remove_dir_all(root).expect("cleared");
    }
}
