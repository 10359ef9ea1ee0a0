//! Lies in IPv4.

use std::net::Ipv4Addr;

use super::context::Verdicts::{Kernel, Seen};
use super::context::{
    Context, FORGED, FORGED_TO_ALL, HONEST, HONEST_TO_ALL, NOT_FORWARDED, ROUTED, Row, Verdicts, row,
};
use super::frames::{self, VLAN, tagged};
use crate::harness::frame::{self, Mac, UDP};

const MARTIAN: Verdicts<2> = Kernel("the kernel routes nothing from a martian source");
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;

fn offer(c: &Context) -> Vec<u8> {
    frames::dhcp(2, (c.me.ip, 67), (c.victim.ip, 68), c.victim.mac)
}

/// The rows.
pub const ROWS: &[Row] = &[
    // What must pass.
    row(
        "own IPv4 to the outside",
        |c| vec![c.to_gateway(&c.ping_outside(c.me.ip))],
        Seen(["U", "U", "U", "U"]),
        Seen(["U", "U"]),
    ),
    row(
        "own IPv4 in fragments",
        |c| frames::fragments4(&c.ping(c.me.ip), 1).map(|it| c.to_victim(&it)).to_vec(),
        HONEST,
        Seen(["V", "V"]),
    ),
    row("DHCP request of a client", |c| vec![frame::dhcp_discover(c.me.mac)], HONEST_TO_ALL, NOT_FORWARDED),
    row(
        "DHCP renewal",
        |c| vec![c.to_gateway(&frames::dhcp(1, (c.me.ip, 68), (c.gateway.ip, 67), c.me.mac))],
        Seen(["U", "U", "U", "U"]),
        Seen(["U", "U"]),
    ),
    row(
        "IGMP report",
        |c| {
            let group = Ipv4Addr::new(224, 0, 0, 22);
            let packet = frame::ipv4(c.me.ip, group, 2, &[0x22, 0, 0xdd, 0xff, 0, 0, 0, 0]);
            vec![frames::to(Mac([1, 0, 0x5e, 0, 0, 22]), c.to_all(&packet))]
        },
        HONEST_TO_ALL,
        NOT_FORWARDED,
    ),
    // Sources.
    row("IPv4 from the gateway", |c| vec![c.to_victim(&c.ping(c.gateway.ip))], FORGED, ROUTED),
    row(
        "IPv4 from the neighbour",
        |c| vec![c.to_gateway(&c.ping_outside(c.victim.ip))],
        Seen(["U", "U", "", ""]),
        Seen(["U", ""]),
    ),
    row("IPv4 from an unused address", |c| vec![c.to_victim(&c.ping(Ipv4Addr::new(10, 0, 0, 77)))], FORGED, ROUTED),
    row("IPv4 from the outside", |c| vec![c.to_victim(&c.ping(Ipv4Addr::new(198, 51, 100, 1)))], FORGED, ROUTED),
    row("IPv4 from the node", |c| vec![c.to_victim(&c.ping(c.node.ip))], FORGED, MARTIAN),
    row("IPv4 from the victim to itself", |c| vec![c.to_victim(&c.ping(c.victim.ip))], FORGED, ROUTED),
    row("IPv4 from 0.0.0.0", |c| vec![c.to_victim(&c.ping(NOBODY))], FORGED, MARTIAN),
    row("IPv4 from 127.0.0.1", |c| vec![c.to_victim(&c.ping(Ipv4Addr::LOCALHOST))], FORGED, MARTIAN),
    row("IPv4 from 255.255.255.255", |c| vec![c.to_victim(&c.ping(ALL))], FORGED, MARTIAN),
    row("IPv4 from a group", |c| vec![c.to_victim(&c.ping(Ipv4Addr::new(224, 0, 0, 5)))], FORGED, MARTIAN),
    row("IPv4 from 169.254.0.0/16", |c| vec![c.to_victim(&c.ping(Ipv4Addr::new(169, 254, 1, 1)))], FORGED, ROUTED),
    row(
        "IPv4 from the gateway in fragments",
        |c| frames::fragments4(&c.ping(c.gateway.ip), 1).map(|it| c.to_victim(&it)).to_vec(),
        FORGED,
        ROUTED,
    ),
    row(
        "IPv4 from the gateway with options",
        |c| vec![c.to_victim(&frames::with_options4(&c.ping(c.gateway.ip)))],
        FORGED,
        ROUTED,
    ),
    // The node itself.
    row(
        "to the node from the neighbour",
        |c| vec![c.to_node(&c.tell_node(c.victim.ip))],
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
    row(
        "to the node from the gateway",
        |c| vec![c.to_node(&c.tell_node(c.gateway.ip))],
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
    row(
        "to the node from the outside",
        |c| vec![c.to_node(&c.tell_node(Ipv4Addr::new(198, 51, 100, 1)))],
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
    row("to the node from itself", |c| vec![c.to_node(&c.tell_node(c.node.ip))], Seen(["B", "B", "", ""]), MARTIAN),
    row(
        "to the node from 127.0.0.1",
        |c| vec![c.to_node(&c.tell_node(Ipv4Addr::LOCALHOST))],
        Seen(["B", "B", "", ""]),
        MARTIAN,
    ),
    row("to the node from 0.0.0.0", |c| vec![c.to_node(&c.tell_node(NOBODY))], Seen(["B", "B", "", ""]), MARTIAN),
    row(
        "redirect to the node",
        |c| {
            let packet = frames::redirect4(c.gateway.ip, c.node.ip, c.me.ip, Ipv4Addr::new(198, 51, 100, 1));
            vec![c.to_node(&packet)]
        },
        Seen(["BR", "BR", "", ""]),
        NOT_FORWARDED,
    ),
    // Servers.
    row("DHCP offer", |c| vec![c.to_victim(&offer(c))], FORGED, ROUTED),
    row(
        "DHCP offer to everybody",
        |c| vec![c.to_all(&frames::dhcp(2, (c.me.ip, 67), (ALL, 68), c.victim.mac))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "DHCP offer as the gateway",
        |c| vec![c.to_all(&frames::dhcp(2, (c.gateway.ip, 67), (ALL, 68), c.victim.mac))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "DHCP offer from 0.0.0.0",
        |c| vec![c.to_all(&frames::dhcp(2, (NOBODY, 67), (ALL, 68), c.victim.mac))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row("DHCP offer with IPv4 options", |c| vec![c.to_victim(&frames::with_options4(&offer(c)))], FORGED, ROUTED),
    row(
        "DHCP offer in fragments",
        |c| frames::fragments4(&offer(c), 1).map(|it| c.to_victim(&it)).to_vec(),
        FORGED,
        ROUTED,
    ),
    row("DHCP offer in VLAN 0", |c| vec![tagged(&c.to_victim(&offer(c)), &[(VLAN, 0)])], FORGED, ROUTED),
    row(
        "UDP from 0.0.0.0 that is no DHCP request",
        |c| vec![c.to_all(&frame::udp((NOBODY.into(), 68), (ALL.into(), 7), b"nobody"))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "ICMP from 0.0.0.0 to everybody",
        |c| vec![c.to_all(&frame::echo_request(NOBODY.into(), ALL.into(), 0x5eed, 1))],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "second fragment from 0.0.0.0",
        |c| {
            let packet = frame::ipv4(NOBODY, ALL, UDP, &[0, 68, 0, 67, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
            vec![c.to_all(&frames::fragment4(&packet, 1, &packet[20..]))]
        },
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
];

/// What an IPv6-only NIC must not send: its EUI-64 address is all that it has.
pub const ONLY_V6: &[Row] = &[
    row("IPv4 from a NIC without it", |c| vec![c.to_victim(&c.ping(c.me.ip))], FORGED, ROUTED),
    row(
        "IPv4 from a NIC without it to the node",
        |c| vec![c.to_node(&c.tell_node(c.me.ip))],
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
    row("IPv6 from a NIC with it alone", |c| vec![c.to_victim(&c.ping(c.me.ip6))], HONEST, Seen(["V", "V"])),
];

/// What an IPv4-only NIC must not send.
pub const ONLY_V4: &[Row] = &[
    row("IPv6 from a NIC without it", |c| vec![c.to_victim(&c.ping(c.me.ip6))], FORGED, ROUTED),
    row(
        "IPv6 from a NIC without it to the node",
        |c| vec![c.to_node(&c.tell_node(c.me.ip6))],
        Seen(["BH", "BH", "", ""]),
        Seen(["H", ""]),
    ),
    row("IPv4 from a NIC with it alone", |c| vec![c.to_victim(&c.ping(c.me.ip))], HONEST, Seen(["V", "V"])),
];
