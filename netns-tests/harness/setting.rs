//! The same test in other surroundings: another setting of all its nodes, or a kernel that refuses some system calls.

use std::cell::Cell;
use std::process::Command;

use anyhow::Result;

use super::seccomp;

/// What differs from the usual surroundings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    #[default]
    Usual,
    /// A line in the settings of all nodes.
    Line(&'static str),
    /// All guests' TAPs have a virtio header, and so are guarded.
    VirtioHeader,
    /// The program that is built for this machine's C library in place of the static one.
    Glibc,
    /// A seccomp filter as systemd makes it of RestrictSUIDSGID, on all runs of the program.
    RestrictSuidSgid,
}

impl Variant {
    /// As it stands behind the test's name.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Usual => None,
            Self::Line(line) => Some(line),
            Self::VirtioHeader => Some("virtio header"),
            Self::Glibc => Some("glibc"),
            Self::RestrictSuidSgid => Some("RestrictSUIDSGID"),
        }
    }
}

thread_local! {
    static VARIANT: Cell<Variant> = const { Cell::new(Variant::Usual) };
}

/// Runs a test under a variant; its nodes must be made, and its runs started, by the test's own thread.
pub fn under(variant: Variant, test: fn() -> Result<()>) -> Result<()> {
    VARIANT.set(variant);
    let result = test();
    VARIANT.set(Variant::Usual);
    result
}

/// The line of the settings, with its end, or nothing.
pub fn line() -> String {
    match VARIANT.get() {
        Variant::Line(line) => format!("{line}\n"),
        Variant::Usual | Variant::Glibc | Variant::VirtioHeader | Variant::RestrictSuidSgid => String::new(),
    }
}

/// Whether the TAPs of guests have a virtio header.
pub fn virtio_header() -> bool {
    VARIANT.get() == Variant::VirtioHeader
}

/// Whether this test runs on the program for this machine's C library.
pub fn is_glibc() -> bool {
    VARIANT.get() == Variant::Glibc
}

/// Puts a run of the program under the filter, if there is one.
pub fn restrict(command: &mut Command) {
    if VARIANT.get() == Variant::RestrictSuidSgid {
        seccomp::restrict_suid_sgid(command);
    }
}
