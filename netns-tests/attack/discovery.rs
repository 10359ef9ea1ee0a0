//! Lies in IPv6 neighbour discovery, and what only routers and servers say, however it is hidden.

use std::net::Ipv6Addr;

use super::context::Verdicts::{Kernel, Seen};
use super::context::{
    AS_A_ROUTER, CLAIM, Context, FORGED, FORGED_TO_ALL, NOT_FORWARDED, ROUTE, ROUTED, Row, Verdicts, row,
};
use super::frames::{self, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, behind};
use super::ipv6::router;
use crate::harness::frame::{ALL_NODES, Mac};
use crate::harness::topology::OUTSIDE6;

const NO_ENTRY: Verdicts<2> = Kernel("an advertisement that nobody asked for makes no entry");
const NOWHERE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn link_local(c: &Context) -> Ipv6Addr {
    c.me.mac.link_local()
}

/// A router advertisement, to everybody or to the victim alone.
fn advertisement(c: &Context, destination: Ipv6Addr) -> Vec<u8> {
    frames::router_advertisement(link_local(c), destination, c.me.mac)
}

fn hidden(c: &Context, headers: &[(u8, Vec<u8>)]) -> Vec<Vec<u8>> {
    vec![c.to_group(&behind(&advertisement(c, ALL_NODES), headers))]
}

/// In two fragments, whose first one ends with the destination options before the message.
fn split(packet: &[u8]) -> [Vec<u8>; 2] {
    frames::fragments6(&behind(packet, &[(DESTINATION_OPTIONS, frames::options(0, 8))]), 8)
}

fn claim(c: &Context, target: Ipv6Addr, options: &[Mac]) -> Vec<u8> {
    frames::advertisement(link_local(c), ALL_NODES, 0x20, target, options)
}

fn redirect(c: &Context) -> Vec<u8> {
    let std::net::IpAddr::V6(outside) = OUTSIDE6 else { unreachable!("an IPv6 constant") };
    frames::redirect6(c.gateway.mac.link_local(), c.victim.mac.link_local(), link_local(c), outside)
}

fn offer6(c: &Context) -> Vec<u8> {
    frames::dhcp6(2, (link_local(c), 547), (c.victim.mac.link_local(), 546))
}

/// The rows.
pub const ROWS: &[Row] = &[
    // Neighbour advertisements and solicitations.
    row("advertisement of the gateway", |c| vec![c.to_group(&claim(c, c.gateway.ip6, &[c.me.mac]))], CLAIM, NO_ENTRY),
    row(
        "advertisement of the gateway to the victim alone",
        |c| vec![c.to_victim(&frames::advertisement(c.me.ip6, c.victim.ip6, 0x60, c.gateway.ip6, &[c.me.mac]))],
        FORGED,
        ROUTED,
    ),
    row(
        "advertisement of the gateway from its address",
        |c| vec![c.to_group(&frames::advertisement(c.gateway.ip6, ALL_NODES, 0x20, c.gateway.ip6, &[c.me.mac]))],
        CLAIM,
        NO_ENTRY,
    ),
    row(
        "advertisement of the neighbour (DAD denial)",
        |c| vec![c.to_group(&claim(c, c.victim.ip6, &[c.me.mac]))],
        CLAIM,
        NO_ENTRY,
    ),
    row(
        "advertisement of the neighbour's link-local address",
        |c| vec![c.to_group(&claim(c, c.victim.mac.link_local(), &[c.me.mac]))],
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row("advertisement of fe80::1", |c| vec![c.to_group(&claim(c, router(1), &[c.me.mac]))], FORGED_TO_ALL, NO_ENTRY),
    row(
        "solicitation from :: for fe80::1 (DAD denial)",
        |c| vec![c.to_group(&frames::solicitation(NOWHERE, router(1), None))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "solicitation for the node as fe80::1",
        |c| vec![c.to_group(&frames::solicitation(router(1), c.node.mac.link_local(), Some(c.me.mac)))],
        Seen(["VUBSA", "VUB", "", ""]),
        Seen(["AN", ""]),
    ),
    row("advertisement of the node", |c| vec![c.to_group(&claim(c, c.node.ip6, &[c.me.mac]))], FORGED_TO_ALL, NO_ENTRY),
    row(
        "advertisement of the own address with another MAC",
        |c| vec![c.to_group(&claim(c, c.me.ip6, &[c.gateway.mac]))],
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "advertisement of the own address with a second MAC",
        |c| vec![c.to_group(&claim(c, c.me.ip6, &[c.me.mac, c.gateway.mac]))],
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "advertisement of the gateway behind options",
        |c| {
            vec![c.to_group(&behind(
                &claim(c, c.gateway.ip6, &[c.me.mac]),
                &[(DESTINATION_OPTIONS, frames::options(0, 1))],
            ))]
        },
        CLAIM,
        NO_ENTRY,
    ),
    row(
        "advertisement of the gateway in fragments",
        |c| split(&claim(c, c.gateway.ip6, &[c.me.mac])).map(|it| c.to_group(&it)).to_vec(),
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "advertisement of the gateway, split before its target",
        |c| frames::fragments6(&claim(c, c.gateway.ip6, &[c.me.mac]), 1).map(|it| c.to_group(&it)).to_vec(),
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "solicitation from :: for the neighbour, split before its target",
        |c| {
            let packet = frames::solicitation(NOWHERE, c.victim.ip6, None);
            frames::fragments6(&packet, 1).map(|it| c.to_group(&it)).to_vec()
        },
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "solicitation as the neighbour",
        |c| vec![c.to_group(&frames::solicitation(c.victim.ip6, c.gateway.ip6, Some(c.me.mac)))],
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "solicitation for the node as the neighbour",
        |c| vec![c.to_group(&frames::solicitation(c.victim.ip6, c.node.ip6, Some(c.me.mac)))],
        Seen(["VUBSAN", "VUBN", "", ""]),
        NO_ENTRY,
    ),
    row(
        "solicitation from :: for the neighbour (DAD denial)",
        |c| vec![c.to_group(&frames::solicitation(NOWHERE, c.victim.ip6, None))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "solicitation from :: for the gateway (DAD denial)",
        |c| vec![c.to_group(&frames::solicitation(NOWHERE, c.gateway.ip6, None))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "echo request from :: to everybody",
        |c| vec![c.to_group(&frames::echo6(NOWHERE, ALL_NODES))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    // Routers.
    row("router advertisement", |c| vec![c.to_group(&advertisement(c, ALL_NODES))], ROUTE, NOT_FORWARDED),
    row(
        "router advertisement to the victim alone",
        |c| vec![c.to_victim(&advertisement(c, c.victim.mac.link_local()))],
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement as the gateway",
        |c| vec![c.to_group(&frames::router_advertisement(c.gateway.mac.link_local(), ALL_NODES, c.me.mac))],
        ROUTE,
        Seen(["N", ""]),
    ),
    row(
        "router advertisement to the broadcast MAC",
        |c| vec![c.to_all(&advertisement(c, ALL_NODES))],
        ROUTE,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement behind hop-by-hop options",
        |c| hidden(c, &[(HOP_BY_HOP, frames::options(0, 1))]),
        Seen(["VUBSR", "", "", ""]),
        NOT_FORWARDED,
    ),
    row(
        "router advertisement behind destination options",
        |c| hidden(c, &[(DESTINATION_OPTIONS, frames::options(0, 1))]),
        ROUTE,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement behind many options",
        |c| {
            hidden(
                c,
                &[
                    (HOP_BY_HOP, frames::options(0, 2)),
                    (DESTINATION_OPTIONS, frames::options(0, 16)),
                    (DESTINATION_OPTIONS, frames::options(0, 16)),
                ],
            )
        },
        AS_A_ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement behind a routing header",
        |c| hidden(c, &[(ROUTING, frames::routing(0))]),
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement as a fragment of its own",
        |c| hidden(c, &[(FRAGMENT, frames::fragment_header(0, 0, false))]),
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement in two fragments",
        |c| frames::fragments6(&advertisement(c, ALL_NODES), 2).map(|it| c.to_group(&it)).to_vec(),
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement in two fragments behind destination options",
        |c| split(&advertisement(c, ALL_NODES)).map(|it| c.to_group(&it)).to_vec(),
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement to the victim in two fragments behind destination options",
        |c| split(&advertisement(c, c.victim.mac.link_local())).map(|it| c.to_victim(&it)).to_vec(),
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement to the victim in fragments of a fragment",
        |c| {
            let inner = behind(
                &advertisement(c, c.victim.mac.link_local()),
                &[(FRAGMENT, frames::fragment_header(0, 0, false))],
            );
            frames::fragments6(&inner, 1).map(|it| c.to_victim(&it)).to_vec()
        },
        FORGED,
        NOT_FORWARDED,
    ),
    row("redirect", |c| vec![c.to_victim(&redirect(c))], FORGED, NOT_FORWARDED),
    row(
        "redirect from the own address",
        |c| {
            let own = frames::redirect6(link_local(c), c.victim.mac.link_local(), c.private, c.victim.ip6);
            vec![c.to_victim(&own)]
        },
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "redirect to the node, IPv6",
        |c| {
            let std::net::IpAddr::V6(outside) = OUTSIDE6 else { unreachable!("an IPv6 constant") };
            let (gateway, node) = (c.gateway.mac.link_local(), c.node.mac.link_local());
            vec![c.to_node(&frames::redirect6(gateway, node, link_local(c), outside))]
        },
        Seen(["BR", "BR", "", ""]),
        NOT_FORWARDED,
    ),
    row(
        "redirect behind destination options",
        |c| vec![c.to_victim(&behind(&redirect(c), &[(DESTINATION_OPTIONS, frames::options(0, 1))]))],
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "redirect in two fragments behind destination options",
        |c| split(&redirect(c)).map(|it| c.to_victim(&it)).to_vec(),
        FORGED,
        NOT_FORWARDED,
    ),
    // Servers.
    row("DHCPv6 of a server", |c| vec![c.to_victim(&offer6(c))], FORGED, NOT_FORWARDED),
    row(
        "DHCPv6 of a server from the global address",
        |c| vec![c.to_victim(&frames::dhcp6(2, (c.me.ip6, 547), (c.victim.ip6, 546)))],
        FORGED,
        ROUTED,
    ),
    row(
        "DHCPv6 of a server to everybody",
        |c| vec![c.to_group(&frames::dhcp6(2, (link_local(c), 547), (ALL_NODES, 546)))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "DHCPv6 of a server behind destination options",
        |c| vec![c.to_victim(&behind(&offer6(c), &[(DESTINATION_OPTIONS, frames::options(0, 1))]))],
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "DHCPv6 of a server in two fragments",
        |c| frames::fragments6(&offer6(c), 1).map(|it| c.to_victim(&it)).to_vec(),
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "DHCPv6 of a server in two fragments behind destination options",
        |c| split(&offer6(c)).map(|it| c.to_victim(&it)).to_vec(),
        FORGED,
        NOT_FORWARDED,
    ),
];
