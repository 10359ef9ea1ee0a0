//! The tests, by theme.

mod announce;
mod failure;
mod ganeti;
mod input;
mod lifecycle;
mod nfdhcpd;
mod node;
mod plan;
mod process;
mod routed;
mod selftest;
mod spoof;
mod walk;

use super::Test;

/// All of them.
pub fn all() -> impl Iterator<Item = Test> {
    let themes = [
        crate::attack::TESTS,
        selftest::TESTS,
        routed::TESTS,
        spoof::TESTS,
        nfdhcpd::TESTS,
        announce::TESTS,
        lifecycle::TESTS,
        ganeti::TESTS,
        node::TESTS,
        plan::TESTS,
        input::TESTS,
        failure::TESTS,
        process::TESTS,
    ];
    themes.into_iter().flatten().copied()
}
