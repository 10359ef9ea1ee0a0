//! The tests, by theme.

mod selftest;
mod walk;

use super::Test;

/// All of them.
pub fn all() -> impl Iterator<Item = Test> {
    [selftest::TESTS, crate::attack::TESTS].into_iter().flatten().copied()
}
