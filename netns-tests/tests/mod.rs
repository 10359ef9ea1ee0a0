//! The tests, by theme.

mod announce;
mod bridged;
mod bridges;
mod callers;
mod confinement;
mod crash;
mod dns;
mod dns_failure;
mod dns_hook;
mod drift;
mod failure;
mod faults;
mod ganeti;
mod gc;
mod hook;
mod hostile;
mod ifupdown;
mod input;
mod lifecycle;
mod network_scripts;
mod nfdhcpd;
mod node;
mod ovs;
mod ovs_failure;
mod package;
mod pages;
mod plan;
mod process;
mod qemu;
mod random;
mod reconcile;
mod routed;
mod selftest;
mod spoof;
mod static_binary;
mod status;
mod steering;
mod storms;
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
        steering::TESTS,
        takeover::TESTS,
        nfdhcpd::TESTS,
        announce::TESTS,
        lifecycle::TESTS,
        ganeti::TESTS,
        node::TESTS,
        ifupdown::TESTS,
        plan::TESTS,
        random::TESTS,
        input::TESTS,
        failure::TESTS,
        crash::TESTS,
        faults::TESTS,
        hostile::TESTS,
        confinement::TESTS,
        process::TESTS,
        qemu::TESTS,
        static_binary::TESTS,
        storms::TESTS,
        bridged::TESTS,
        callers::TESTS,
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
        package::TESTS,
        pages::TESTS,
        ovs::TESTS,
        ovs_failure::TESTS,
    ];
    themes.into_iter().flatten().copied()
}

/// The way of routing that is not the default.
pub const OTHER_ROUTING: &str = "ROUTING=rule";

/// Those that run under [`OTHER_ROUTING`] too: all in which a routed NIC has a part.
pub fn routed() -> impl Iterator<Item = Test> {
    let themes =
        [routed::TESTS, spoof::TESTS, takeover::TESTS, lifecycle::TESTS, nfdhcpd::TESTS, node::TESTS, plan::TESTS];
    themes.into_iter().flatten().copied().chain(crate::attack::routed())
}

/// Those that run on Debian's own kernel.
pub fn in_virtual_machine() -> impl Iterator<Item = Test> {
    let themes = [
        bridges::TESTS,
        vlan::TESTS,
        drift::IN_VIRTUAL_MACHINE,
        ovs::IN_VIRTUAL_MACHINE,
        crate::attack::ON_DEBIANS_KERNEL,
    ];
    themes.into_iter().flatten().copied()
}
