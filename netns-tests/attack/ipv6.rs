//! Lies in IPv6: sources. Its neighbour discovery is in [`super::discovery`].

use std::net::Ipv6Addr;

use super::context::Verdicts::{Kernel, Seen};
use super::context::{Context, FORGED, HONEST, HONEST_TO_ALL, LISTENING, NOT_FORWARDED, ROUTED, Row, Verdicts, row};
use super::frames::{self, DESTINATION_OPTIONS, HOP_BY_HOP, behind};
use crate::harness::frame::{self, ALL_NODES, ALL_ROUTERS};
use crate::harness::topology::OUTSIDE6;

const NO_ENTRY: Verdicts<2> = Kernel("an advertisement that nobody asked for makes no entry");
const NDP_PROXY: Verdicts<2> = Kernel("proxy_ndp of the TAP is off, as nfdhcpd answers there");
const UNSPECIFIED: Verdicts<2> = Kernel("no router forwards from the unspecified address");
const MARTIAN: Verdicts<2> = Kernel("the kernel takes nothing from a martian source");
const NOWHERE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn link_local(c: &Context) -> Ipv6Addr {
    c.me.mac.link_local()
}

/// An address such as administrators give to routers.
pub fn router(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number)
}

/// The rows.
pub const ROWS: &[Row] = &[
    // What must pass.
    row("own IPv6", |c| vec![c.to_victim(&c.ping(c.me.ip6))], HONEST, Seen(["V", "V"])),
    row(
        "own IPv6 in fragments",
        |c| {
            let packet = frame::udp((c.me.ip6.into(), 7), (c.victim.ip6.into(), 7), b"twenty-four bytes of it");
            frames::fragments6(&packet, 1).map(|it| c.to_victim(&it)).to_vec()
        },
        HONEST,
        Seen(["V", "V"]),
    ),
    row(
        "link-local IPv6 of the own MAC",
        |c| vec![c.to_victim(&frames::echo6(link_local(c), c.victim.mac.link_local()))],
        HONEST,
        NOT_FORWARDED,
    ),
    row(
        "link-local IPv6 of no MAC",
        |c| vec![c.to_victim(&frames::echo6(c.private, c.victim.mac.link_local()))],
        HONEST,
        NOT_FORWARDED,
    ),
    row("router solicitation", |c| vec![frame::router_solicitation(c.me.mac)], HONEST_TO_ALL, NOT_FORWARDED),
    row(
        "router solicitation from ::",
        |c| vec![c.to_group(&frame::icmpv6(NOWHERE, ALL_ROUTERS, 255, vec![133, 0, 0, 0, 0, 0, 0, 0]))],
        HONEST_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "listener report",
        |c| vec![c.to_group(&frames::listener_report(link_local(c), frames::solicited_node(c.me.ip6)))],
        HONEST_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "listener report from ::",
        |c| vec![c.to_group(&frames::listener_report(NOWHERE, frames::solicited_node(c.me.ip6)))],
        HONEST_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "DAD of the own address",
        |c| vec![c.to_group(&frames::solicitation(NOWHERE, c.me.ip6, None))],
        HONEST_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "DAD of the own link-local address",
        |c| vec![c.to_group(&frames::solicitation(NOWHERE, link_local(c), None))],
        HONEST_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "DAD of a link-local address of no MAC",
        |c| vec![c.to_group(&frames::solicitation(NOWHERE, c.private, None))],
        HONEST_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "solicitation for the neighbour",
        |c| vec![c.to_group(&frames::solicitation(c.me.ip6, c.victim.ip6, Some(c.me.mac)))],
        HONEST_TO_ALL,
        NDP_PROXY,
    ),
    row(
        "solicitation for the gateway from link-local",
        |c| vec![c.to_group(&frames::solicitation(link_local(c), c.gateway.ip6, Some(c.me.mac)))],
        HONEST_TO_ALL,
        NDP_PROXY,
    ),
    row(
        "advertisement of the own address, asked for",
        |c| vec![c.to_victim(&frames::advertisement(c.me.ip6, c.victim.ip6, 0x60, c.me.ip6, &[c.me.mac]))],
        HONEST,
        Seen(["V", "V"]),
    ),
    row(
        "advertisement of the own address",
        |c| vec![c.to_group(&frames::advertisement(link_local(c), ALL_NODES, 0x20, c.me.ip6, &[c.me.mac]))],
        HONEST_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "advertisement of a link-local address of no MAC",
        |c| vec![c.to_group(&frames::advertisement(c.private, ALL_NODES, 0x20, c.private, &[c.me.mac]))],
        HONEST_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "DHCPv6 of a client",
        |c| {
            let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
            vec![c.to_group(&frames::dhcp6(1, (link_local(c), 546), (servers, 547)))]
        },
        HONEST_TO_ALL,
        NOT_FORWARDED,
    ),
    // Sources.
    row("IPv6 from the gateway", |c| vec![c.to_victim(&c.ping(c.gateway.ip6))], FORGED, ROUTED),
    row("IPv6 from the neighbour", |c| vec![c.to_victim(&c.ping(c.victim.ip6))], FORGED, ROUTED),
    row(
        "IPv6 from an unused address",
        |c| vec![c.to_victim(&c.ping(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x77)))],
        FORGED,
        ROUTED,
    ),
    row("IPv6 from the outside", |c| vec![c.to_victim(&c.ping(OUTSIDE6))], FORGED, ROUTED),
    row("IPv6 from the node", |c| vec![c.to_victim(&c.ping(c.node.ip6))], FORGED, ROUTED),
    row(
        "IPv6 from the neighbour's link-local address",
        |c| vec![c.to_victim(&frames::echo6(c.victim.mac.link_local(), c.victim.mac.link_local()))],
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "IPv6 from fe80::1",
        |c| vec![c.to_victim(&frames::echo6(router(1), c.victim.mac.link_local()))],
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "to the node from fe80::1",
        |c| vec![c.to_node(&frame::udp((router(1).into(), 7), (c.node.mac.link_local().into(), LISTENING), b"forged"))],
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
    row(
        "to the node from fe80::ffff",
        |c| {
            vec![c.to_node(&frame::udp(
                (router(0xffff).into(), 7),
                (c.node.mac.link_local().into(), LISTENING),
                b"forged",
            ))]
        },
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
    row("IPv6 from ::", |c| vec![c.to_victim(&frames::echo6(NOWHERE, c.victim.ip6))], FORGED, UNSPECIFIED),
    row("IPv6 from ::1", |c| vec![c.to_victim(&frames::echo6(Ipv6Addr::LOCALHOST, c.victim.ip6))], FORGED, MARTIAN),
    row("IPv6 from a group", |c| vec![c.to_victim(&frames::echo6(ALL_NODES, c.victim.ip6))], FORGED, MARTIAN),
    row(
        "IPv6 from a mapped address",
        |c| vec![c.to_victim(&frames::echo6(c.gateway.ip.to_ipv6_mapped(), c.victim.ip6))],
        FORGED,
        ROUTED,
    ),
    row(
        "IPv6 from the gateway behind options",
        |c| {
            vec![c.to_victim(&behind(
                &c.ping(c.gateway.ip6),
                &[(HOP_BY_HOP, frames::options(0, 1)), (DESTINATION_OPTIONS, frames::options(0, 1))],
            ))]
        },
        FORGED,
        ROUTED,
    ),
    row(
        "IPv6 from the gateway in fragments",
        |c| frames::fragments6(&c.ping(c.gateway.ip6), 1).map(|it| c.to_victim(&it)).to_vec(),
        FORGED,
        ROUTED,
    ),
    row(
        "to the node from the neighbour, IPv6",
        |c| vec![c.to_node(&c.tell_node(c.victim.ip6))],
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
    row(
        "to the node from the gateway, IPv6",
        |c| vec![c.to_node(&c.tell_node(c.gateway.ip6))],
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
];
