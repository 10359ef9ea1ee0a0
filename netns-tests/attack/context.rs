//! Who is on the scene, and what a row of the tables is made of.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frames;
use crate::harness::frame::{self, Mac};
use crate::harness::guest::Identity;
use crate::harness::topology::OUTSIDE;

/// The attacker, a guest.
pub const ATTACKER: Identity = Identity {
    name: "attacker.example.org",
    mac: Mac([0xaa, 0x55, 0x60, 0, 0, 2]),
    ip: Ipv4Addr::new(10, 0, 0, 2),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0xa855, 0x60ff, 0xfe00, 2),
};

/// A guest in the attacker's network, whose MAC has the same prefix.
pub const VICTIM: Identity = Identity {
    name: "victim.example.org",
    mac: Mac([0xaa, 0x55, 0x61, 0, 0, 3]),
    ip: Ipv4Addr::new(10, 0, 0, 3),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0xa855, 0x61ff, 0xfe00, 3),
};

/// A guest of another network on the same bridge: another prefix.
pub const STRANGER: Identity = Identity {
    name: "stranger.example.org",
    mac: Mac([0xaa, 0x55, 0x70, 0, 0, 4]),
    ip: Ipv4Addr::new(10, 0, 0, 4),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0xa855, 0x70ff, 0xfe00, 4),
};

/// The network's gateway, behind the uplink.
pub const ROUTER: Identity = Identity {
    name: "gateway.example.org",
    mac: Mac([0xaa, 0x55, 0x6f, 0, 0, 1]),
    ip: Ipv4Addr::new(10, 0, 0, 1),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
};

/// The node, by its bridge.
pub const BRIDGE: Identity = Identity {
    name: "node1.example.org",
    mac: Mac([2, 0, 0, 0, 0, 9]),
    ip: Ipv4Addr::new(10, 0, 0, 9),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9),
};

/// A MAC that nobody has, in the prefix of the attacker's network.
pub const UNUSED_MAC: Mac = Mac([0xaa, 0x55, 0x6e, 0, 0, 7]);
/// And one outside of it.
pub const FOREIGN_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 8]);

/// The port on which the node listens (discard).
pub const LISTENING: u16 = 9;

/// What the builder of a row's frames knows.
#[derive(Clone, Copy)]
pub struct Context {
    /// The attacker.
    pub me: Identity,
    /// Its neighbour.
    pub victim: Identity,
    /// Their gateway.
    pub gateway: Identity,
    /// The node, with an address that it has itself.
    pub node: Identity,
    /// A guest of another network.
    pub stranger: Identity,
    /// A link-local address that is not made of a MAC (RFC 7217).
    pub private: Ipv6Addr,
    /// Where the attacker's IP packets go, if the node is its router: the MAC of its TAP.
    pub router: Option<Mac>,
}

impl Context {
    /// A packet to the victim in the frame that reaches it.
    pub fn to_victim(self, packet: &[u8]) -> Vec<u8> {
        frames::packet(self.router.unwrap_or(self.victim.mac), self.me.mac, packet)
    }

    /// A packet by way of the gateway.
    pub fn to_gateway(self, packet: &[u8]) -> Vec<u8> {
        frames::packet(self.router.unwrap_or(self.gateway.mac), self.me.mac, packet)
    }

    /// A packet to the node itself.
    pub fn to_node(self, packet: &[u8]) -> Vec<u8> {
        frames::packet(self.router.unwrap_or(self.node.mac), self.me.mac, packet)
    }

    /// A packet to everybody on the link.
    pub fn to_all(self, packet: &[u8]) -> Vec<u8> {
        frames::packet(Mac::BROADCAST, self.me.mac, packet)
    }

    /// An IPv6 packet to a group.
    pub fn to_group(self, packet: &[u8]) -> Vec<u8> {
        let group = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).expect("16 bytes"));
        frames::packet(Mac::of_group(group), self.me.mac, packet)
    }

    /// An echo request to the victim.
    pub fn ping(self, source: impl Into<IpAddr>) -> Vec<u8> {
        let source = source.into();
        frame::echo_request(source, self.victim.address_like(source), 0x5eed, 1)
    }

    /// An echo request to the outside.
    pub fn ping_outside(self, source: Ipv4Addr) -> Vec<u8> {
        frame::echo_request(source.into(), OUTSIDE, 0x5eed, 1)
    }

    /// A datagram to the listener on the node.
    pub fn tell_node(self, source: impl Into<IpAddr>) -> Vec<u8> {
        let source = source.into();
        frame::udp((source, 7), (self.node.address_like(source), LISTENING), b"forged")
    }

    /// An ARP packet from the attacker's own Ethernet address to everybody.
    pub fn arp(self, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
        frame::ethernet(Mac::BROADCAST, self.me.mac, frame::ARP, &frame::arp(operation, sender, target))
    }
}

/// What must be seen of a row's frames in each column, or why the kernel itself stops them in all.
#[derive(Clone, Copy, Debug)]
pub enum Verdicts<const COLUMNS: usize> {
    /// By column: where the frames arrive and what they bring about, as letters; see [`super::capture::Seen`].
    Seen([&'static str; COLUMNS]),
    /// They arrive nowhere, whatever the setup, because.
    Kernel(&'static str),
}

/// What must be seen in one column.
pub struct Verdict {
    /// The letters of [`super::capture::Seen`].
    pub seen: &'static str,
    /// Why the kernel lets nothing through.
    pub why: Option<&'static str>,
}

impl<const COLUMNS: usize> Verdicts<COLUMNS> {
    /// That of a column.
    pub fn column(&self, column: usize) -> Verdict {
        match self {
            Self::Seen(columns) => Verdict { seen: columns[column], why: None },
            Self::Kernel(why) => Verdict { seen: "", why: Some(why) },
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}{}", self.seen, self.why.map(|why| format!(", as {why}")).unwrap_or_default())
    }
}

/// A thing a guest will try.
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// The frames, in the order in which they are sent. Only if all of them arrive, the row does.
    pub frames: fn(&Context) -> Vec<Vec<u8>>,
    /// On a bridge: [plain, private-filtered, strict-filtered, both tags].
    pub bridged: Verdicts<4>,
    /// On a routed TAP: [without our filters, ip-less-routed].
    pub routed: Verdicts<2>,
}

/// A row.
pub const fn row(
    name: &'static str,
    frames: fn(&Context) -> Vec<Vec<u8>>,
    bridged: Verdicts<4>,
    routed: Verdicts<2>,
) -> Row {
    Row { name, frames, bridged, routed }
}

/// To the victim, and it must pass.
pub const HONEST: Verdicts<4> = Verdicts::Seen(["V", "V", "V", "V"]);
/// To everybody, and it must pass; but not to another network of private-filtered.
pub const HONEST_TO_ALL: Verdicts<4> = Verdicts::Seen(["VUBS", "VUB", "VUBS", "VUB"]);
/// To the victim. private-filtered by itself says nothing of what is in a frame, as the seed's rules did not.
pub const FORGED: Verdicts<4> = Verdicts::Seen(["V", "V", "", ""]);
/// To everybody.
pub const FORGED_TO_ALL: Verdicts<4> = Verdicts::Seen(["VUBS", "VUB", "", ""]);
/// To everybody, and of a kind that only a multicast router sends.
pub const AS_A_ROUTER: Verdicts<4> = Verdicts::Seen(["VUBS", "", "", ""]);
/// To everybody, and the node believes it of a neighbour.
pub const CLAIM: Verdicts<4> = Verdicts::Seen(["VUBSN", "VUBN", "", ""]);
/// To everybody, and the node takes a route from it.
pub const ROUTE: Verdicts<4> = Verdicts::Seen(["VUBSR", "VUBR", "", ""]);
/// A packet to the victim that a router would pass on, and must not.
pub const ROUTED: Verdicts<2> = Verdicts::Seen(["V", ""]);

/// Nothing of it can pass a router.
pub const NOT_FORWARDED: Verdicts<2> = Verdicts::Kernel("no router forwards it");
