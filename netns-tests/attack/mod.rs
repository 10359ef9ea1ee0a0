//! What a guest will try, as tables of named frames, and what becomes of each in every setup.

mod arp;
mod arrivals;
mod capture;
mod context;
mod discovery;
mod drops;
mod fragments;
mod frames;
mod gaps;
mod host;
mod ipv4;
mod ipv6;
mod link;
mod multicast;
mod neighbours;
pub mod real;
mod scenarios;
mod steering;
mod testbed;
mod worlds;

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::Test;
use context::{Row, Verdict};
use testbed::{Bridged, Families, Ground};

/// The tests.
pub const TESTS: &[Test] = &[
    ("attack::from_a_plain_port", || bridged(Bridged::Plain)),
    ("attack::from_a_private_filtered_port", || bridged(Bridged::Filtered)),
    ("attack::from_a_strict_filtered_port", || bridged(Bridged::Strict)),
    ("attack::from_a_port_with_both_filters", || bridged(Bridged::StrictFiltered)),
    ("attack::from_a_routed_tap_without_filters", || {
        judge(|_| Ground::routed_unfiltered(), |row| row.routed.column(0))
    }),
    ("attack::from_an_ip_less_routed_tap", || judge(Ground::routed, |row| row.routed.column(1))),
    ("attack::no_row_is_vacuous", no_row_is_vacuous),
    ("attack::to_a_plain_port", || arrivals::bridged(0)),
    ("attack::to_a_private_filtered_port", || arrivals::bridged(1)),
    ("attack::to_a_protected_port", || arrivals::bridged(2)),
    ("attack::to_a_limited_port", || arrivals::bridged(3)),
    ("attack::to_an_unprotected_port", || arrivals::bridged(4)),
    ("attack::to_a_routed_guest_without_a_profile", || arrivals::routed(0)),
    ("attack::to_a_protected_routed_guest", || arrivals::routed(2)),
    ("attack::to_a_limited_routed_guest", || arrivals::routed(3)),
    ("attack::to_an_unprotected_routed_guest", || arrivals::routed(4)),
    ("attack::forward_alone_does_not_isolate", scenarios::forward_alone_does_not_isolate),
    ("attack::theft_of_a_forwarding_entry", scenarios::theft_of_a_forwarding_entry),
    ("attack::leftovers_of_ebtables", scenarios::leftovers_of_ebtables),
    ("attack::from_filtered_ports_of_a_node_in_use", worlds::bridged),
    ("attack::from_a_routed_tap_of_a_node_in_use", worlds::routed),
    ("attack::spanning_tree", scenarios::spanning_tree),
    ("attack::link_local_gateway", scenarios::link_local_gateway),
    ("attack::link_local_addresses_of_macs_alone", scenarios::link_local_addresses_of_macs_alone),
    ("attack::node_believes_no_router_advertisement", scenarios::node_believes_no_router_advertisement),
    ("attack::no_way_to_the_management_network", scenarios::no_way_to_the_management_network),
    ("attack::fragments_of_two_routed_nics", fragments::of_two_routed_nics),
    ("attack::fragments_of_forged_sources_take_no_memory", fragments::of_forged_sources_take_no_memory),
    ("attack::fragments_of_two_strict_ports_with_br_netfilter", fragments::of_two_strict_ports_with_br_netfilter),
    ("attack::routed_after_a_foreign_flush", steering::after_a_foreign_flush),
    ("attack::routed_by_either_rule_alone", steering::by_either_rule_alone),
    ("attack::routed_among_the_marks_of_others", steering::among_the_marks_of_others),
    ("attack::routed_under_source_validation", steering::under_source_validation),
    ("attack::routed_growth_of_the_neighbour_table", neighbours::growth_of_the_table),
    ("attack::no_guest_is_a_multicast_router", multicast::no_guest_is_a_multicast_router),
    (
        "attack::no_port_of_a_guest_becomes_a_multicast_router_s",
        multicast::no_port_of_a_guest_becomes_a_multicast_router_s,
    ),
    ("attack::routed_errors_about_own_packets", host::errors_about_own_packets),
    ("attack::routed_what_stays_open_of_the_node", host::what_stays_open),
    ("attack::routed_from_the_uplink_to_the_node", host::from_the_uplink),
    ("attack::routed_from_other_interfaces", host::from_other_interfaces),
    ("attack::poured_into_plain_ports", gaps::poured_into_plain_ports),
    ("attack::poured_into_private_filtered_ports", gaps::poured_into_private_filtered_ports),
    ("attack::poured_into_strict_filtered_ports", gaps::poured_into_strict_filtered_ports),
    ("attack::poured_into_ports_with_both_filters", gaps::poured_into_ports_with_both_filters),
    ("attack::drops_are_counted_for_their_nic", drops::are_counted_for_their_nic),
    ("attack::drops_are_drops_without_an_element", drops::are_drops_without_an_element),
    ("attack::drops_are_counted_as_long_as_the_nic_is_there", drops::are_counted_as_long_as_the_nic_is_there),
    ("attack::drops_are_drops_while_chains_are_replaced", drops::are_drops_while_chains_are_replaced),
];

/// Those that run on Debian's own kernel.
pub const ON_DEBIANS_KERNEL: &[Test] =
    &[("attack::drops_are_counted_on_debians_kernel", drops::are_counted_on_debians_kernel)];
/// Those of routed guests.
pub fn routed() -> impl Iterator<Item = Test> {
    let words = ["routed", "management", "router_advertisement"];
    TESTS.iter().copied().filter(move |(name, _)| words.iter().any(|word| name.contains(word)))
}

/// The tables, and the families of the NIC from which they are sent.
const TABLES: [(Families, &[&[Row]]); 3] = [
    (
        Families::Both,
        &[
            link::ROWS,
            arp::ROWS,
            ipv4::ROWS,
            ipv6::ROWS,
            discovery::ROWS,
            multicast::REPORTS,
            multicast::ROWS,
            host::ROWS,
        ],
    ),
    (Families::OnlyV4, &[ipv4::ONLY_V4]),
    (Families::OnlyV6, &[ipv4::ONLY_V6]),
];

/// How often a row is tried that should be seen and is not.
const TRIES: usize = 10;

fn bridged(setup: Bridged) -> Result<()> {
    judge(|families| Ground::bridged(setup, families), |row| row.bridged.column(setup as usize))
}

/// Sends all rows, and compares what is seen of each with its verdict.
fn judge(ground: impl Fn(Families) -> Result<Ground>, verdict: impl Fn(&Row) -> Verdict) -> Result<()> {
    let mut wrong = String::new();
    for (families, tables) in TABLES {
        let ground = ground(families)?;
        for row in tables.iter().copied().flatten() {
            let verdict = verdict(row);
            let mut seen = String::new();
            // On a loaded machine another processor may carry a frame, which is then not there yet: where less was seen than
            // should be, and nothing that should not, it is sent again.
            for _ in 0..TRIES {
                seen = ground.attack(&(row.frames)(&ground.context))?;
                if seen == verdict.seen || !seen.chars().all(|it| verdict.seen.contains(it)) {
                    break;
                }
            }
            if seen != verdict.seen {
                let _infallible = write!(wrong, "\n  {}: seen {seen:?}, expected {verdict}", row.name);
            }
        }
    }
    ensure!(wrong.is_empty(), "rows that went another way:{wrong}");
    Ok(())
}

/// Where nothing filters, every row is seen somewhere, unless it says why not; so no filter is praised for what it never met.
fn no_row_is_vacuous() -> Result<()> {
    for (_, tables) in TABLES {
        for row in tables.iter().copied().flatten() {
            for verdict in [row.bridged.column(Bridged::Plain as usize), row.routed.column(0)] {
                ensure!(verdict.seen.is_empty() == verdict.why.is_some(), "{}: {verdict}", row.name);
            }
        }
    }
    Ok(())
}
