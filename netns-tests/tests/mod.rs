//! The tests, by theme.

mod about_guests;
mod addresses;
mod announce;
mod bridged;
mod bridges;
mod callers;
mod checksum_drift;
mod checksums;
mod confinement;
mod crash;
mod crash_of_node;
mod dns;
mod dns_failure;
mod dns_hook;
mod drift;
mod failure;
mod faults;
mod ganeti;
mod gc;
mod guards;
mod hook;
mod hostile;
mod ifupdown;
mod input;
mod interrupted;
mod lifecycle;
mod masks;
mod network_scripts;
mod nexthop;
mod nfdhcpd;
mod node;
mod node_in_use;
mod node_settings;
mod ovs;
mod ovs_failure;
mod package;
mod pages;
mod plan;
mod process;
mod qemu;
mod random;
mod real_guest;
mod reconcile;
mod routed;
mod selftest;
mod settings;
mod spoof;
mod static_binary;
mod status;
mod steering;
mod storms;
mod surroundings;
mod switching;
mod switching_failure;
mod system_calls;
mod systemd;
mod takeover;
mod two_uplinks;
mod unit;
mod vlan;
mod walk;
mod ways;
mod xen;

use anyhow::Result;

use super::Test;
use crate::harness::setting::{self, Variant};
use crate::vm;

/// Tests of one theme, and where they can run.
struct Theme {
    tests: &'static [Test],
    /// What they need that the virtual machine has not.
    needs: Option<&'static str>,
}

const fn anywhere(tests: &'static [Test]) -> Theme {
    Theme { tests, needs: None }
}

const fn only_here(tests: &'static [Test], needs: &'static str) -> Theme {
    Theme { tests, needs: Some(needs) }
}

const THEMES: &[Theme] = &[
    anywhere(crate::attack::TESTS),
    anywhere(selftest::TESTS),
    anywhere(routed::TESTS),
    anywhere(spoof::TESTS),
    anywhere(about_guests::TESTS),
    anywhere(steering::TESTS),
    anywhere(switching::TESTS),
    anywhere(switching_failure::TESTS),
    anywhere(masks::TESTS),
    anywhere(takeover::TESTS),
    anywhere(addresses::TESTS),
    anywhere(nfdhcpd::TESTS),
    anywhere(announce::TESTS),
    anywhere(lifecycle::TESTS),
    only_here(ganeti::TESTS, "Python and Ganeti's package"),
    anywhere(node::TESTS),
    anywhere(node_in_use::TESTS),
    anywhere(node_settings::TESTS),
    anywhere(nexthop::TESTS),
    anywhere(two_uplinks::TESTS),
    only_here(ifupdown::TESTS, "ifupdown and systemd"),
    anywhere(status::TESTS),
    anywhere(ways::TESTS),
    anywhere(drift::TESTS),
    anywhere(checksums::TESTS),
    anywhere(checksum_drift::TESTS),
    anywhere(gc::TESTS),
    anywhere(reconcile::TESTS),
    anywhere(surroundings::TESTS),
    anywhere(plan::TESTS),
    anywhere(random::TESTS),
    anywhere(input::TESTS),
    anywhere(guards::TESTS),
    only_here(settings::TESTS, "a shell"),
    anywhere(failure::TESTS),
    anywhere(crash::TESTS),
    anywhere(crash_of_node::TESTS),
    anywhere(faults::TESTS),
    anywhere(interrupted::TESTS),
    only_here(storms::TESTS, "processors that are not emulated"),
    anywhere(hostile::TESTS),
    anywhere(confinement::TESTS),
    anywhere(process::TESTS),
    only_here(qemu::TESTS, "QEMU"),
    only_here(real_guest::TESTS, "QEMU"),
    only_here(static_binary::TESTS, "cargo"),
    only_here(system_calls::TESTS, "cargo"),
    anywhere(bridged::TESTS),
    only_here(callers::TESTS, "Python and Ganeti's package"),
    only_here(dns::TESTS, "bind9 and knot"),
    only_here(dns_failure::TESTS, "bind9 and knot"),
    only_here(dns_hook::TESTS, "bind9 and knot"),
    anywhere(hook::TESTS),
    anywhere(xen::TESTS),
    only_here(xen::PACKAGED, "Debian's packages"),
    anywhere(network_scripts::TESTS),
    only_here(unit::TESTS, "systemd and Python"),
    only_here(package::TESTS, "cargo, dpkg and lintian"),
    only_here(pages::TESTS, "cargo, shells, man and logrotate"),
    anywhere(ovs::TESTS),
    anywhere(ovs_failure::TESTS),
];

/// The way of routing that is not the default.
const OTHER_ROUTING: Variant = Variant::Line("ROUTING=rule");

/// Those that run under [`OTHER_ROUTING`] too: all in which a routed NIC has a part.
const ROUTED: &[&[Test]] = &[
    about_guests::TESTS,
    routed::TESTS,
    spoof::TESTS,
    takeover::TESTS,
    lifecycle::TESTS,
    nfdhcpd::TESTS,
    node::TESTS,
    node_in_use::TESTS,
    plan::TESTS,
];

/// Those that run on the program for this machine's C library too; all others run on the static one, which is what users install.
const ON_GLIBC: &[&[Test]] = &[routed::TESTS, lifecycle::TESTS, hostile::TESTS, process::TESTS];

/// Those that run as under systemd too, where openat2(2) is refused: all that is about files that others may have put there.
const RESTRICTED: &[&[Test]] = &[hostile::TESTS, reconcile::TESTS, nfdhcpd::TESTS];

/// Those that run with guarded TAPs too: the life of a NIC.
const GUARDED: &[&[Test]] = &[
    routed::TESTS,
    bridged::TESTS,
    spoof::TESTS,
    takeover::TESTS,
    lifecycle::TESTS,
    reconcile::TESTS,
    plan::TESTS,
    confinement::TESTS,
];

/// Every system call of a guarded NIC's life, which takes many minutes: on demand, as all tests on all kernels are.
const GUARDED_ON_DEMAND: &[&[Test]] = &[crash::TESTS, faults::OF_NICS];

/// For what the kernel of the machine that runs the tests may lack.
const ONLY_IN_VIRTUAL_MACHINE: &[&[Test]] = &[
    bridges::TESTS,
    vlan::TESTS,
    drift::IN_VIRTUAL_MACHINE,
    ovs::IN_VIRTUAL_MACHINE,
    crate::attack::ON_DEBIANS_KERNEL,
];

/// The kernel on which every run tests what only runs in a virtual machine.
const USUAL_KERNEL: &str = "6.1";

/// What every run tests on every kernel: something of each setup, of its life and of its filters.
const ON_EVERY_KERNEL: &[&str] = &[
    "routed::two_guests_of_a_node",
    "routed::a_real_stack_as_guest",
    "spoof::to_the_outside",
    "attack::drops_are_counted_on_debians_kernel",
    "lifecycle::ifdown_leaves_the_state_as_it_was",
    "checksums::what_a_checksum_would_forge_is_dropped",
    "checksums::what_a_checksum_would_forge_of_gso_frames_is_dropped",
    "checksums::a_guest_has_no_part_in_what_is_routed_for_it",
    "checksums::honest_frames_pass",
    "vlan::every_notation_gives_exactly_its_vlans",
    "bridges::stand_and_go",
];

/// A test as it is run.
#[derive(Clone)]
pub struct Case {
    /// Its name, with the variant under which it runs.
    pub name: String,
    variant: Variant,
    test: fn() -> Result<()>,
    /// What it needs that the virtual machine has not.
    pub needs: Option<&'static str>,
    /// Does it run in a virtual machine only?
    only_there: bool,
}

impl Case {
    fn of(&(name, test): &Test, needs: Option<&'static str>) -> Self {
        Self { name: name.to_owned(), variant: Variant::Usual, test, needs, only_there: false }
    }

    fn varied(test: &Test, variant: Variant) -> Self {
        // A virtual machine has the static program only.
        let usual = Self::of(test, (variant == Variant::Glibc).then_some("the other program"));
        let name = variant.name().map_or_else(|| usual.name.clone(), |it| format!("{}[{it}]", usual.name));
        Self { name, variant, ..usual }
    }

    /// Runs it.
    pub fn run(&self) -> Result<()> {
        setting::under(self.variant, self.test)
    }

    /// Does every run test it on this kernel?
    pub fn always_on(&self, kernel: &str) -> bool {
        self.only_there && kernel == USUAL_KERNEL || ON_EVERY_KERNEL.contains(&self.name.as_str())
    }
}

/// Those that run in namespaces on this machine's kernel.
pub fn here() -> impl Iterator<Item = Case> {
    let themes = THEMES.iter().flat_map(|theme| theme.tests.iter().map(|test| Case::of(test, theme.needs)));
    let routed = ROUTED.iter().copied().flatten().copied().chain(crate::attack::routed());
    let on_demand = if vm::is_whole() { GUARDED_ON_DEMAND } else { &[] };
    let guarded = GUARDED.iter().chain(on_demand).copied().flatten();
    let guarded = guarded.map(|test| Case::varied(test, Variant::VirtioHeader));
    let restricted = RESTRICTED.iter().copied().flatten();
    let routed = routed.map(|test| Case::varied(&test, OTHER_ROUTING));
    let glibc = ON_GLIBC.iter().copied().flatten().map(|test| Case::varied(test, Variant::Glibc));
    let systems = if vm::is_whole() { systemd::ON_DEMAND } else { &[] };
    let systems = systems.iter().map(|test| Case::of(test, Some("QEMU and mmdebstrap")));
    let restricted = restricted.map(|test| Case::varied(test, Variant::RestrictSuidSgid));
    systems.chain(themes).chain(routed).chain(glibc).chain(guarded).chain(restricted)
}

/// Those that a virtual machine is asked for, the ones that only run there first.
pub fn on_kernels() -> impl Iterator<Item = Case> {
    let only_there = ONLY_IN_VIRTUAL_MACHINE.iter().copied().flatten();
    only_there.map(|test| Case { only_there: true, ..Case::of(test, None) }).chain(here())
}
