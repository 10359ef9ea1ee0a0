//! The tests, by theme.

mod announce;
mod dns;
mod dns_failure;
mod dns_hook;
mod failure;
mod faults;
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
        faults::TESTS,
        process::TESTS,
        dns::TESTS,
        dns_failure::TESTS,
        dns_hook::TESTS,
    ];
    themes.into_iter().flatten().copied()
}
