//! Lies in IPv6 and its neighbour discovery.

use std::net::Ipv6Addr;

use super::context::Verdicts::{Kernel, Seen};
use super::context::{Context, NOT_FORWARDED, Row, Verdicts, row};
use super::frames::{self, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, behind};
use crate::harness::frame::{self, ALL_NODES, ALL_ROUTERS, Mac};
use crate::harness::topology::OUTSIDE6;

const HONEST: Verdicts<4> = Seen(["V", "V", "V", "V"]);
const HONEST_TO_ALL: Verdicts<4> = Seen(["VUBS", "VUB", "VUBS", "VUB"]);
const FORGED: Verdicts<4> = Seen(["V", "V", "", ""]);
const FORGED_TO_ALL: Verdicts<4> = Seen(["VUBS", "VUB", "", ""]);
/// The node itself believes it.
const CLAIM: Verdicts<4> = Seen(["VUBSN", "VUBN", "", ""]);
const ROUTER: Verdicts<4> = Seen(["VUBSR", "VUBR", "", ""]);
const ROUTED: Verdicts<2> = Seen(["V", ""]);
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
    // What must pass.
    row("own IPv6", |c| vec![c.to_victim(&c.ping(c.me.ip6))], HONEST, Seen(["V", "V"])),
    row(
        "own IPv6 to the node",
        |c| vec![c.to_node(&c.tell_node(c.me.ip6))],
        Seen(["BH", "BH", "BH", "BH"]),
        Seen(["H", "H"]),
    ),
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
        |c| vec![c.to_group(&claim(c, c.me.ip6, &[c.me.mac]))],
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
    row("router advertisement", |c| vec![c.to_group(&advertisement(c, ALL_NODES))], ROUTER, NOT_FORWARDED),
    row(
        "router advertisement to the victim alone",
        |c| vec![c.to_victim(&advertisement(c, c.victim.mac.link_local()))],
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement as the gateway",
        |c| vec![c.to_group(&frames::router_advertisement(c.gateway.mac.link_local(), ALL_NODES, c.me.mac))],
        ROUTER,
        Seen(["N", ""]),
    ),
    row(
        "router advertisement to the broadcast MAC",
        |c| vec![c.to_all(&advertisement(c, ALL_NODES))],
        ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement behind hop-by-hop options",
        |c| hidden(c, &[(HOP_BY_HOP, frames::options(0, 1))]),
        ROUTER,
        NOT_FORWARDED,
    ),
    row(
        "router advertisement behind destination options",
        |c| hidden(c, &[(DESTINATION_OPTIONS, frames::options(0, 1))]),
        ROUTER,
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
        FORGED_TO_ALL,
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

/// The tagless setup proxies neighbour discovery; of an ip-less-routed guest nfdhcpd does.
const NDP_PROXY: Verdicts<2> = Kernel("the node has no route back to itself to answer for");
const UNSPECIFIED: Verdicts<2> = Kernel("no router forwards from the unspecified address");
const MARTIAN: Verdicts<2> = Kernel("the kernel takes nothing from a martian source");
