//! Lies in ARP.

use std::net::Ipv4Addr;

use super::context::Verdicts::{Kernel, Seen};
use super::context::{CLAIM, FOREIGN_MAC, FORGED_TO_ALL, HONEST_TO_ALL, Row, Verdicts, row};
use super::frames::{from, to};
use crate::harness::frame::Mac;

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const NO_ANNOUNCEMENT: Verdicts<2> = Kernel("drop_gratuitous_arp of the TAP is 1");
const NO_ENTRY: Verdicts<2> = Kernel("a reply that nobody asked for makes no entry");

/// The rows.
pub const ROWS: &[Row] = &[
    // What must pass.
    row(
        "ARP request for the neighbour",
        |c| vec![c.arp(1, (c.me.mac, c.me.ip), (Mac::ZERO, c.victim.ip))],
        HONEST_TO_ALL,
        Seen(["A", "A"]),
    ),
    row(
        "ARP request for the gateway",
        |c| vec![c.arp(1, (c.me.mac, c.me.ip), (Mac::ZERO, c.gateway.ip))],
        HONEST_TO_ALL,
        Seen(["A", "A"]),
    ),
    row(
        "ARP reply to the neighbour",
        |c| vec![to(c.victim.mac, c.arp(2, (c.me.mac, c.me.ip), (c.victim.mac, c.victim.ip)))],
        Seen(["V", "V", "V", "V"]),
        NO_ENTRY,
    ),
    row("ARP announcement", |c| vec![c.arp(1, (c.me.mac, c.me.ip), (Mac::ZERO, c.me.ip))], HONEST_TO_ALL, OWN_ADDRESS),
    row(
        "ARP probe for the own address",
        |c| vec![c.arp(1, (c.me.mac, NOBODY), (Mac::ZERO, c.me.ip))],
        HONEST_TO_ALL,
        OWN_ADDRESS,
    ),
    // What must not.
    row(
        "ARP probe for the neighbour's address",
        |c| vec![c.arp(1, (c.me.mac, NOBODY), (Mac::ZERO, c.victim.ip))],
        FORGED_TO_ALL,
        Kernel("no proxy answers a probe"),
    ),
    row(
        "ARP request as the gateway",
        |c| vec![c.arp(1, (c.me.mac, c.gateway.ip), (Mac::ZERO, c.victim.ip))],
        CLAIM,
        Seen(["AN", ""]),
    ),
    row(
        "ARP request as the neighbour",
        |c| vec![c.arp(1, (c.me.mac, c.victim.ip), (Mac::ZERO, c.gateway.ip))],
        CLAIM,
        Seen(["AN", ""]),
    ),
    row(
        "ARP request as a stranger",
        |c| vec![c.arp(1, (c.me.mac, Ipv4Addr::new(198, 51, 100, 77)), (Mac::ZERO, c.gateway.ip))],
        FORGED_TO_ALL,
        Seen(["AN", ""]),
    ),
    row(
        "ARP request for the node as the gateway",
        |c| vec![to(c.router.unwrap_or(c.node.mac), c.arp(1, (c.me.mac, c.gateway.ip), (Mac::ZERO, c.node.ip)))],
        Seen(["BAN", "BN", "", ""]),
        Seen(["AN", ""]),
    ),
    row(
        "ARP reply as the gateway",
        |c| vec![c.arp(2, (c.me.mac, c.gateway.ip), (c.victim.mac, c.victim.ip))],
        CLAIM,
        NO_ENTRY,
    ),
    row(
        "ARP reply as the gateway to the victim alone",
        |c| vec![to(c.victim.mac, c.arp(2, (c.me.mac, c.gateway.ip), (c.victim.mac, c.victim.ip)))],
        Seen(["V", "V", "", ""]),
        NO_ENTRY,
    ),
    row(
        "gratuitous ARP request as the gateway",
        |c| vec![c.arp(1, (c.me.mac, c.gateway.ip), (Mac::ZERO, c.gateway.ip))],
        CLAIM,
        NO_ANNOUNCEMENT,
    ),
    row(
        "gratuitous ARP reply as the gateway",
        |c| vec![c.arp(2, (c.me.mac, c.gateway.ip), (Mac::BROADCAST, c.gateway.ip))],
        CLAIM,
        NO_ENTRY,
    ),
    row(
        "gratuitous ARP request as the neighbour",
        |c| vec![c.arp(1, (c.me.mac, c.victim.ip), (Mac::ZERO, c.victim.ip))],
        CLAIM,
        NO_ANNOUNCEMENT,
    ),
    row(
        "gratuitous ARP reply as the neighbour",
        |c| vec![c.arp(2, (c.me.mac, c.victim.ip), (Mac::BROADCAST, c.victim.ip))],
        CLAIM,
        NO_ENTRY,
    ),
    row(
        "ARP as the node",
        |c| vec![c.arp(2, (c.me.mac, c.node.ip), (Mac::BROADCAST, c.node.ip))],
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "ARP announcement of the own address with another sender MAC",
        |c| vec![c.arp(1, (FOREIGN_MAC, c.me.ip), (Mac::ZERO, c.me.ip))],
        FORGED_TO_ALL,
        OWN_ADDRESS,
    ),
    row(
        "ARP request with another sender MAC",
        |c| vec![c.arp(1, (FOREIGN_MAC, c.me.ip), (Mac::ZERO, c.gateway.ip))],
        FORGED_TO_ALL,
        Seen(["A", ""]),
    ),
    row(
        "ARP reply with the gateway's MAC as sender",
        |c| vec![c.arp(2, (c.gateway.mac, c.me.ip), (c.victim.mac, c.victim.ip))],
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "ARP probe with another sender MAC",
        |c| vec![c.arp(1, (FOREIGN_MAC, NOBODY), (Mac::ZERO, c.me.ip))],
        FORGED_TO_ALL,
        OWN_ADDRESS,
    ),
    row(
        "ARP reply of another Ethernet source",
        |c| vec![from(c.gateway.mac, c.arp(2, (c.me.mac, c.me.ip), (c.victim.mac, c.victim.ip)))],
        Seen(["VUBST", "", "", ""]),
        NO_ENTRY,
    ),
    row(
        "ARP reply as the gateway, hardware type of IEEE 802",
        |c| {
            let mut frame = c.arp(2, (c.me.mac, c.gateway.ip), (c.victim.mac, c.victim.ip));
            frame[15] = 6;
            vec![frame]
        },
        CLAIM,
        NO_ENTRY,
    ),
    row(
        "ARP as the gateway with a longer hardware address",
        |c| {
            let mut frame = c.arp(2, (c.me.mac, c.gateway.ip), (c.victim.mac, c.victim.ip));
            frame[18] = 8;
            vec![frame]
        },
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
    row(
        "ARP probe answered by itself",
        |c| vec![c.arp(2, (c.me.mac, NOBODY), (c.victim.mac, c.victim.ip))],
        FORGED_TO_ALL,
        NO_ENTRY,
    ),
];

/// A proxy that answered a guest's probe for its own address would make it give the address up.
const OWN_ADDRESS: Verdicts<2> = Kernel("the route to the guest's own address leads back to its TAP");
