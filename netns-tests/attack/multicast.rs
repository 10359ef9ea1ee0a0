//! What only multicast routers say. A bridge that snoops believes it: after a query it forwards to nobody who does not report, and
//! to a multicast router it forwards all groups.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};

use super::capture::holds;
use super::context::{AS_A_ROUTER, ATTACKER, Context, HONEST_TO_ALL, NOT_FORWARDED, ROUTER, Row, VICTIM, row};
use super::frames::{self, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, SERVICE_VLAN, VLAN, behind, tagged};
use super::testbed::{Bridged, Ground};
use crate::harness::frame::{self, ALL_NODES, Mac};
use crate::harness::until;

const IGMP: u8 = 2;
const AUTHENTICATION: u8 = 51;
const PIM: u8 = 103;
const ALL_PIM_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 13);
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// The groups of those who look for multicast routers (RFC 4286).
const ALL_SNOOPERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 106);
const ALL_SNOOPERS6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6a);

/// A packet to an IPv4 group, in its frame.
fn to_group4(c: &Context, packet: &[u8]) -> Vec<u8> {
    let group = Mac([1, 0, 0x5e, packet[17] & 0x7f, packet[18], packet[19]]);
    frames::packet(group, c.me.mac, packet)
}

/// An IGMP message as a packet.
fn igmp(c: &Context, group: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = frame::checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    frame::ipv4(c.me.ip, group, IGMP, &message)
}

/// A general query of IGMPv1, v2 or v3 (RFC 2236, RFC 3376), to be answered within a tenth of a second.
fn query4(c: &Context, version: u8) -> Vec<u8> {
    let mut message = vec![0x11, u8::from(version > 1), 0, 0, 0, 0, 0, 0];
    message.resize(if version == 3 { 12 } else { 8 }, 0);
    igmp(c, ALL_SYSTEMS, &message)
}

/// An ICMPv6 message behind a router alert and other headers.
fn alert6(c: &Context, group: std::net::Ipv6Addr, message: Vec<u8>, headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let packet = frame::icmpv6(c.me.mac.link_local(), group, 1, message);
    let alert = (HOP_BY_HOP, vec![0, 0, 5, 2, 0, 0, 1, 0]);
    behind(&packet, &[&[alert], headers].concat())
}

/// A general query of MLDv1 or v2 (RFC 2710, RFC 3810), to be answered within a millisecond.
fn query6(c: &Context, version: u8, headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut message = vec![130, 0, 0, 0, 0, 1];
    message.resize(if version == 2 { 28 } else { 24 }, 0);
    alert6(c, ALL_NODES, message, headers)
}

fn mld(c: &Context, kind: u8) -> Vec<Vec<u8>> {
    let group = frames::solicited_node(c.me.ip6);
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat();
    vec![c.to_group(&alert6(c, group, message, &[]))]
}

fn report4(c: &Context, kind: u8) -> Vec<Vec<u8>> {
    let group = Ipv4Addr::new(239, 1, 2, 3);
    vec![to_group4(c, &igmp(c, group, &[kind, 0, 0, 0, 239, 1, 2, 3]))]
}

/// A hello by which a router of PIM (RFC 7761, 4.9) says that it is there.
fn pim_hello(c: &Context) -> Vec<u8> {
    let mut message = vec![0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105];
    let sum = frame::checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    to_group4(c, &frame::ipv4(c.me.ip, ALL_PIM_ROUTERS, PIM, &message))
}

/// What hosts say of their groups must pass, and PIM, as guests may route among themselves.
pub const REPORTS: &[Row] = &[
    row("PIM hello", |c| vec![pim_hello(c)], HONEST_TO_ALL, NOT_FORWARDED),
    row("IGMPv1 report", |c| report4(c, 0x12), HONEST_TO_ALL, NOT_FORWARDED),
    row("IGMPv2 report", |c| report4(c, 0x16), HONEST_TO_ALL, NOT_FORWARDED),
    row("IGMP leave", |c| report4(c, 0x17), HONEST_TO_ALL, NOT_FORWARDED),
    row("MLDv1 report", |c| mld(c, 131), HONEST_TO_ALL, NOT_FORWARDED),
    row("MLD done", |c| mld(c, 132), HONEST_TO_ALL, NOT_FORWARDED),
];

/// The rows. A bridge that snoops believes each, also behind a tag.
pub const ROWS: &[Row] = &[
    row("IGMPv1 query", |c| vec![to_group4(c, &query4(c, 1))], AS_A_ROUTER, NOT_FORWARDED),
    row("IGMPv2 query", |c| vec![to_group4(c, &query4(c, 2))], AS_A_ROUTER, NOT_FORWARDED),
    row("IGMPv3 query", |c| vec![to_group4(c, &query4(c, 3))], AS_A_ROUTER, NOT_FORWARDED),
    row(
        "IGMPv2 query with IPv4 options",
        |c| vec![to_group4(c, &frames::with_options4(&query4(c, 2)))],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "IGMPv2 query that says it is a later fragment",
        |c| {
            let packet = query4(c, 2);
            vec![to_group4(c, &frames::fragment4(&packet, 1, &packet[20..]))]
        },
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "IGMPv2 query in VLAN 0",
        |c| vec![tagged(&to_group4(c, &query4(c, 2)), &[(VLAN, 0)])],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "IGMPv3 query in VLAN 5",
        |c| vec![tagged(&to_group4(c, &query4(c, 3)), &[(VLAN, 5)])],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row("MLDv1 query", |c| vec![c.to_group(&query6(c, 1, &[]))], AS_A_ROUTER, NOT_FORWARDED),
    row("MLDv2 query", |c| vec![c.to_group(&query6(c, 2, &[]))], AS_A_ROUTER, NOT_FORWARDED),
    row(
        "MLDv2 query in VLAN 0",
        |c| vec![tagged(&c.to_group(&query6(c, 2, &[])), &[(VLAN, 0)])],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "MLDv1 query in VLAN 5",
        |c| vec![tagged(&c.to_group(&query6(c, 1, &[])), &[(VLAN, 5)])],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "MLDv2 query in a service VLAN",
        |c| vec![tagged(&c.to_group(&query6(c, 2, &[])), &[(SERVICE_VLAN, 5)])],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "MLDv2 query behind destination options",
        |c| vec![c.to_group(&query6(c, 2, &[(DESTINATION_OPTIONS, frames::options(0, 1))]))],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "MLDv2 query behind an authentication header",
        |c| {
            let header = vec![0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
            vec![c.to_group(&query6(c, 2, &[(AUTHENTICATION, header)]))]
        },
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "MLDv2 query as a first fragment",
        |c| vec![c.to_group(&query6(c, 2, &[(FRAGMENT, frames::fragment_header(0, 0, true))]))],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "multicast router advertisement, IPv4",
        |c| vec![to_group4(c, &igmp(c, ALL_SNOOPERS, &[0x30, 20, 0, 0, 0, 125, 0, 2]))],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "multicast router advertisement, IPv6",
        |c| vec![c.to_group(&alert6(c, ALL_SNOOPERS6, vec![151, 20, 0, 0, 0, 125, 0, 2], &[]))],
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
];

/// A bridge that snoops, on which the attacker's and the victim's NICs are set up.
fn snooping(setup: Bridged) -> Result<Ground> {
    let ground = Ground::bridge()?;
    ground.node.netns.ip("link set br0 type bridge mcast_snooping 1")?;
    for (tap, id) in [("tap0", ATTACKER), ("tap1", VICTIM)] {
        ground.nic(tap, id, setup).ifup()?.succeeds()?;
    }
    Ok(ground)
}

impl Ground {
    /// Does the bridge take somebody for a querier, or a port for that of a multicast router?
    fn knows_multicast_router(&self) -> Result<bool> {
        let link = self.node.netns.ip("-d -j link show dev br0")?;
        let ports = self.node.netns.output(std::process::Command::new("bridge").args(["-d", "-j", "mdb", "show"]))?;
        let (_, routers) = ports.split_once("\"router\":").context("no \"router\" in what bridge prints")?;
        Ok(link.contains("\"mcast_querier_ipv") || !routers.starts_with("{}"))
    }

    /// Does what comes from the uplink for the victim's solicited-node group reach it?
    fn victim_can_be_found(&self) -> Result<bool> {
        let question = frames::solicitation(ROUTER.ip6, VICTIM.ip6, Some(ROUTER.mac));
        let frame = frames::packet(Mac::of_group(frames::solicited_node(VICTIM.ip6)), ROUTER.mac, &question);
        self.victim.drain();
        self.uplink.send(&frame)?;
        Ok(self.victim.drain().iter().any(|seen| holds(seen, &frame)))
    }
}

/// No guest cuts off its neighbours by a query, nor has all groups sent to it.
pub fn no_guest_is_a_multicast_router() -> Result<()> {
    for row in ROWS {
        let ground = snooping(Bridged::Plain)?;
        ensure!(!ground.knows_multicast_router()?, "the bridge knew a multicast router before {}", row.name);
        ground.attacker.send(&(row.frames)(&ground.context)[0])?;
        ensure!(ground.knows_multicast_router()?, "the bridge did not read {}", row.name);
    }
    for setup in [Bridged::Filtered, Bridged::Strict, Bridged::StrictFiltered] {
        let ground = snooping(setup)?;
        for row in ROWS {
            ground.attacker.send(&(row.frames)(&ground.context)[0])?;
            ensure!(!ground.knows_multicast_router()?, "{setup:?}: the bridge believes {}", row.name);
        }
        ensure!(ground.victim_can_be_found()?, "{setup:?}: the victim hears nothing");
    }
    // What it is about: after a query, who never reported is not found.
    let ground = snooping(Bridged::Plain)?;
    ensure!(ground.victim_can_be_found()?, "the victim hears nothing before the query");
    ground.attacker.send(&ground.context.to_group(&query6(&ground.context, 2, &[])))?;
    until("the victim not to be found", || Ok(!ground.victim_can_be_found()?))
}

/// A hello of PIM passes, and no group is sent to the guest for it. Nor for router discovery, even while the rules are gone.
pub fn no_port_of_a_guest_becomes_a_multicast_router_s() -> Result<()> {
    let plain = snooping(Bridged::Plain)?;
    plain.attacker.send(&pim_hello(&plain.context))?;
    ensure!(plain.knows_multicast_router()?, "the bridge did not read the hello");
    for setup in [Bridged::Filtered, Bridged::Strict, Bridged::StrictFiltered] {
        let ground = snooping(setup)?;
        ground.attacker.send(&pim_hello(&ground.context))?;
        ensure!(!ground.knows_multicast_router()?, "{setup:?}: the bridge believes a hello of PIM");
        ground.nft("flush chain bridge snf-network prerouting")?;
        for row in ROWS.iter().filter(|row| row.name.contains("router advertisement")) {
            ground.attacker.send(&(row.frames)(&ground.context)[0])?;
            ensure!(!ground.knows_multicast_router()?, "{setup:?}: the bridge believes {}", row.name);
        }
        ground.node.netns.ip("link set tap0 type bridge_slave mcast_router 1")?;
        ground.attacker.send(&pim_hello(&ground.context))?;
        ensure!(ground.knows_multicast_router()?, "{setup:?}: without the setting the bridge did not read the hello");
    }
    Ok(())
}
