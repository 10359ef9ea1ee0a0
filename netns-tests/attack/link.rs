//! Frames that lie about who sends them, and frames that are not what they seem.

use super::context::Verdicts::{Kernel, Seen};
use super::context::{
    CLAIM, Context, FOREIGN_MAC, FORGED, FORGED_TO_ALL, HONEST, HONEST_TO_ALL, NOT_FORWARDED, ROUTE, ROUTED, Row,
    UNUSED_MAC, Verdicts, row,
};
use super::frames::{self, LLDP, MAC_CONTROL, RARP, SERVICE_VLAN, VLAN, from, snap, tagged, to};
use crate::harness::frame::{self, ARP, IPV4, IPV6, Mac};

/// A datagram to everybody, from the attacker's own address.
fn shout(c: &Context) -> Vec<u8> {
    c.to_all(&frame::udp((c.me.ip.into(), 7), (std::net::Ipv4Addr::BROADCAST.into(), 7), b"shout"))
}

/// An echo request to the victim, from the attacker's own address.
fn ping(c: &Context) -> Vec<u8> {
    c.to_victim(&c.ping(c.me.ip))
}

/// One whose IPv4 source is the gateway's.
fn forged(c: &Context) -> Vec<u8> {
    c.to_victim(&c.ping(c.gateway.ip))
}

/// An ARP reply by which the attacker claims the gateway's address.
fn claim(c: &Context) -> Vec<u8> {
    c.arp(2, (c.me.mac, c.gateway.ip), (c.victim.mac, c.victim.ip))
}

fn rarp(c: &Context, operation: u16, sender: Mac, target: Mac) -> Vec<u8> {
    let nobody = std::net::Ipv4Addr::UNSPECIFIED;
    frame::ethernet(Mac::BROADCAST, c.me.mac, RARP, &frame::arp(operation, (sender, nobody), (target, nobody)))
}

const MARTIAN_MAC: &str = "a bridge takes no frame from a multicast address or from none";
const OWN_LINK: &str = "a bridge keeps these to the link, whatever its group_fwd_mask";
const NO_ADDRESSES: &str = "a TAP takes no frame shorter than an Ethernet header";
const NO_SUCH_PROTOCOL: Verdicts<2> = Kernel("the node does not speak it");

/// The rows.
pub const ROWS: &[Row] = &[
    // What must pass.
    row("own unicast", |c| vec![ping(c)], HONEST, Seen(["V", "V"])),
    row("own broadcast", |c| vec![shout(c)], HONEST_TO_ALL, NOT_FORWARDED),
    row(
        "RARP announcement as QEMU makes it",
        |c| vec![rarp(c, 3, c.me.mac, c.me.mac)],
        HONEST_TO_ALL,
        NO_SUCH_PROTOCOL,
    ),
    // Source MACs.
    row("foreign source MAC", |c| vec![from(FOREIGN_MAC, ping(c))], Seen(["V", "", "", ""]), OWN_PACKET),
    row("unused MAC of the prefix", |c| vec![from(UNUSED_MAC, ping(c))], Seen(["V", "", "", ""]), OWN_PACKET),
    row("victim's source MAC", |c| vec![from(c.victim.mac, shout(c))], Seen(["VUBST", "", "", ""]), NOT_FORWARDED),
    row("gateway's source MAC", |c| vec![from(c.gateway.mac, shout(c))], Seen(["VUBST", "", "", ""]), NOT_FORWARDED),
    row("bridge's source MAC", |c| vec![from(c.node.mac, shout(c))], Seen(["VUBS", "", "", ""]), NOT_FORWARDED),
    row("stranger's source MAC", |c| vec![from(c.stranger.mac, shout(c))], Seen(["VUBS", "", "", ""]), NOT_FORWARDED),
    row("multicast source MAC", |c| vec![from(Mac([3, 0, 0, 0, 0, 1]), ping(c))], Kernel(MARTIAN_MAC), OWN_PACKET),
    row("broadcast source MAC", |c| vec![from(Mac::BROADCAST, ping(c))], Kernel(MARTIAN_MAC), OWN_PACKET),
    row("zero source MAC", |c| vec![from(Mac::ZERO, ping(c))], Kernel(MARTIAN_MAC), OWN_PACKET),
    row(
        "victim's source MAC behind a VLAN tag",
        |c| vec![tagged(&from(c.victim.mac, shout(c)), &[(VLAN, 0)])],
        Seen(["VUBST", "", "", ""]),
        NOT_FORWARDED,
    ),
    // Protocols of bridges and switches.
    row("BPDU", |c| vec![frames::bpdu(c.me.mac)], Seen(["VUBS", "", "", ""]), NOT_FORWARDED),
    row(
        "LLDP",
        |c| {
            vec![frame::ethernet(
                frames::bridge_group(0xe),
                c.me.mac,
                LLDP,
                &[2, 2, 7, b'x', 4, 2, 7, b'y', 6, 2, 0, 120],
            )]
        },
        Seen(["VUBS", "", "", ""]),
        NOT_FORWARDED,
    ),
    row(
        "BPDU of provider bridges",
        |c| vec![to(frames::bridge_group(8), frames::bpdu(c.me.mac))],
        Seen(["VUBS", "", "", ""]),
        NOT_FORWARDED,
    ),
    row(
        "BPDU of a VLAN (PVST+)",
        |c| {
            let frame = to(Mac([1, 0, 0xc, 0xcc, 0xcc, 0xcd]), frames::bpdu(c.me.mac));
            let payload = [&[0xaa, 0xaa, 3, 0, 0, 0xc, 1, 0xb], &frame[17..]].concat();
            vec![frames::llc(&frame, &payload)]
        },
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "VLAN registration (MVRP)",
        |c| vec![frame::ethernet(frames::bridge_group(0x21), c.me.mac, 0x88f5, &[0, 1, 2, 0, 1, 0, 5, 36, 0, 0, 0, 0])],
        FORGED_TO_ALL,
        NOT_FORWARDED,
    ),
    row(
        "pause frame",
        |c| vec![frame::ethernet(frames::bridge_group(1), c.me.mac, MAC_CONTROL, &[0, 1, 0xff, 0xff, 0, 0, 0, 0])],
        Kernel(OWN_LINK),
        NOT_FORWARDED,
    ),
    row(
        "pause frame to the victim",
        |c| vec![frame::ethernet(c.victim.mac, c.me.mac, MAC_CONTROL, &[0, 1, 0xff, 0xff, 0, 0, 0, 0])],
        FORGED,
        NOT_FORWARDED,
    ),
    row(
        "LACP",
        |c| vec![frame::ethernet(frames::bridge_group(2), c.me.mac, 0x8809, &[1, 1, 1, 20, 0xff, 0xff, 0, 0])],
        Kernel(OWN_LINK),
        NOT_FORWARDED,
    ),
    // Tags and encapsulations, which hide what is inside from rules that look at a fixed place.
    row("VLAN 5", |c| vec![tagged(&ping(c), &[(VLAN, 5)])], FORGED, NO_SUCH_PROTOCOL),
    row("forged IPv4 in VLAN 5", |c| vec![tagged(&forged(c), &[(VLAN, 5)])], FORGED, NO_SUCH_PROTOCOL),
    row("IPv4 in VLAN 0", |c| vec![tagged(&ping(c), &[(VLAN, 0)])], FORGED, OWN_PACKET),
    row("forged IPv4 in VLAN 0", |c| vec![tagged(&forged(c), &[(VLAN, 0)])], FORGED, ROUTED),
    row("forged IPv4 in VLAN 0 twice", |c| vec![tagged(&forged(c), &[(VLAN, 0), (VLAN, 0)])], FORGED, ROUTED),
    row("forged IPv4 in QinQ", |c| vec![tagged(&forged(c), &[(SERVICE_VLAN, 5), (VLAN, 6)])], FORGED, NO_SUCH_PROTOCOL),
    row("forged IPv4 in QinQ of VLAN 0", |c| vec![tagged(&forged(c), &[(SERVICE_VLAN, 0), (VLAN, 0)])], FORGED, ROUTED),
    row("forged IPv4 in LLC/SNAP", |c| vec![snap(&forged(c))], FORGED, NO_SUCH_PROTOCOL),
    row(
        "forged IPv4 in LLC/SNAP in VLAN 0",
        |c| vec![tagged(&snap(&forged(c)), &[(VLAN, 0)])],
        FORGED,
        NO_SUCH_PROTOCOL,
    ),
    row("ARP claim in VLAN 0", |c| vec![tagged(&claim(c), &[(VLAN, 0)])], CLAIM, NO_CLAIM),
    row("ARP claim in VLAN 0 twice", |c| vec![tagged(&claim(c), &[(VLAN, 0), (VLAN, 0)])], CLAIM, NO_CLAIM),
    row("ARP claim in QinQ", |c| vec![tagged(&claim(c), &[(SERVICE_VLAN, 5), (VLAN, 6)])], FORGED_TO_ALL, NO_CLAIM),
    row("ARP claim in LLC/SNAP", |c| vec![snap(&claim(c))], FORGED_TO_ALL, NO_CLAIM),
    row("router advertisement in VLAN 0", |c| vec![tagged(&advertise(c), &[(VLAN, 0)])], ROUTE, NOT_FORWARDED),
    row("router advertisement in LLC/SNAP", |c| vec![snap(&advertise(c))], FORGED_TO_ALL, NOT_FORWARDED),
    row(
        "IPX in LLC",
        |c| vec![frames::llc(&ping(c), &[0xe0, 0xe0, 3, 0xff, 0xff, 0, 3, 0, 0])],
        FORGED,
        NO_SUCH_PROTOCOL,
    ),
    row(
        "unknown ether type",
        |c| vec![frame::ethernet(c.victim.mac, c.me.mac, 0x88b5, b"a local experiment")],
        FORGED,
        NO_SUCH_PROTOCOL,
    ),
    row(
        "PPPoE discovery",
        |c| vec![frame::ethernet(Mac::BROADCAST, c.me.mac, 0x8863, &[0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0])],
        FORGED_TO_ALL,
        NO_SUCH_PROTOCOL,
    ),
    row(
        "PPPoE session with forged IPv4",
        |c| {
            let inner = &forged(c)[14..];
            let length = u16::try_from(inner.len() + 2).expect("a short packet").to_be_bytes();
            let header = [0x11, 0, 0, 1, length[0], length[1], 0, 0x21];
            vec![frame::ethernet(c.victim.mac, c.me.mac, 0x8864, &[&header, inner].concat())]
        },
        FORGED,
        NO_SUCH_PROTOCOL,
    ),
    // RARP of which a field is not the sender's.
    row("RARP of the victim's MAC", |c| vec![rarp(c, 3, c.victim.mac, c.victim.mac)], FORGED_TO_ALL, NO_SUCH_PROTOCOL),
    row("RARP with another target", |c| vec![rarp(c, 3, c.me.mac, c.victim.mac)], FORGED_TO_ALL, NO_SUCH_PROTOCOL),
    row("RARP with another sender", |c| vec![rarp(c, 3, c.victim.mac, c.me.mac)], FORGED_TO_ALL, NO_SUCH_PROTOCOL),
    row(
        "RARP of another Ethernet source",
        |c| vec![from(c.victim.mac, rarp(c, 3, c.me.mac, c.me.mac))],
        Seen(["VUBST", "", "", ""]),
        NO_SUCH_PROTOCOL,
    ),
    // Frames cut short.
    row("13 bytes", |c| vec![frames::cut(13, ping(c))], Kernel(NO_ADDRESSES), Kernel(NO_ADDRESSES)),
    row("header of IPv4 alone", |c| vec![frame::ethernet(c.victim.mac, c.me.mac, IPV4, &[])], FORGED, NO_SUCH_PROTOCOL),
    row("header of ARP alone", |c| vec![frame::ethernet(c.victim.mac, c.me.mac, ARP, &[])], FORGED, NO_SUCH_PROTOCOL),
    row("header of IPv6 alone", |c| vec![frame::ethernet(c.victim.mac, c.me.mac, IPV6, &[])], FORGED, NO_SUCH_PROTOCOL),
    row("IPv4 cut before its source", |c| vec![frames::cut(14 + 12, ping(c))], FORGED, NO_SUCH_PROTOCOL),
    row(
        "IPv6 cut before its source",
        |c| vec![frames::cut(14 + 8, c.to_victim(&c.ping(c.me.ip6)))],
        FORGED,
        NO_SUCH_PROTOCOL,
    ),
    row("ARP cut in its sender", |c| vec![frames::cut(14 + 10, claim(c))], FORGED_TO_ALL, NO_SUCH_PROTOCOL),
];

/// A router asks neither for the source MAC nor for the tag of priority: it answers to the MAC that ARP told it, and only
/// ARP and neighbour discovery must not lie about that.
const OWN_PACKET: Verdicts<2> = Seen(["V", "V"]);

/// The node has no entry of the gateway's on the attacker's TAP that could be overwritten.
const NO_CLAIM: Verdicts<2> = Kernel("a reply that nobody asked for makes no entry");

fn advertise(c: &Context) -> Vec<u8> {
    c.to_group(&frames::router_advertisement(c.me.mac.link_local(), frame::ALL_NODES, c.me.mac))
}
