//! The tests, by theme.

mod announce;
mod bridged;
mod dns;
mod dns_failure;
mod dns_hook;
mod drift;
mod failure;
mod faults;
mod ganeti;
mod gc;
mod hook;
mod input;
mod lifecycle;
mod network_scripts;
mod nfdhcpd;
mod node;
mod plan;
mod process;
mod reconcile;
mod routed;
mod selftest;
mod spoof;
mod status;
mod takeover;
mod vlan;
mod walk;
mod xen;

use super::Test;

/// Those that run in namespaces on this machine's kernel.
pub fn all() -> impl Iterator<Item = Test> {
    let themes = [
        crate::attack::TESTS,
        selftest::TESTS,
        routed::TESTS,
        spoof::TESTS,
        takeover::TESTS,
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
        bridged::TESTS,
        dns::TESTS,
        dns_failure::TESTS,
        dns_hook::TESTS,
        hook::TESTS,
        status::TESTS,
        drift::TESTS,
        gc::TESTS,
        reconcile::TESTS,
        xen::TESTS,
        network_scripts::TESTS,
    ];
    themes.into_iter().flatten().copied()
}

/// Those that run on Debian's own kernel.
pub fn in_virtual_machine() -> impl Iterator<Item = Test> {
    [vlan::TESTS, drift::IN_VIRTUAL_MACHINE].into_iter().flatten().copied()
}
