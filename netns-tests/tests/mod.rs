//! The tests, by theme.

mod bridged;
mod selftest;
mod vlan;
mod walk;

use super::Test;

/// Those that run in namespaces on this machine's kernel.
pub fn all() -> impl Iterator<Item = Test> {
    [bridged::TESTS, selftest::TESTS].into_iter().flatten().copied()
}

/// Those that run on Debian's own kernel.
pub fn in_virtual_machine() -> impl Iterator<Item = Test> {
    [vlan::TESTS].into_iter().flatten().copied()
}
