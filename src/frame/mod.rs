//! Ethernet frames as data: what the announcements and the demo's guests send, and what is read off the wire.
//!
//! [`Frame::parse`] and [`Frame::encode`] are inverses for all but what is kept as opaque bytes; displayed, a frame is
//! the line `tcpdump -n -t` prints (`{:#}` is `tcpdump -e`'s, with the Ethernet addresses first). A frame read from
//! the wire is anybody's bytes: the parser is our own, checks every bound and never panics.

mod display;
mod encode;
mod parse;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Mac;

pub use encode::MIN_LEN;

/// Ether types (IEEE 802 numbers).
pub(crate) mod ether_type {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
}

/// Protocol and next-header numbers.
pub(crate) mod protocol {
    pub const ICMP: u8 = 1;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// Types of ICMP (RFC 792) and ICMPv6 messages (RFC 4443, RFC 4861).
pub(crate) mod icmp {
    pub const ECHO_REPLY: u8 = 0;
    pub const ECHO_REQUEST: u8 = 8;
    pub const V6_ECHO_REQUEST: u8 = 128;
    pub const V6_ECHO_REPLY: u8 = 129;
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// The hop limit that proves a neighbour discovery message was not forwarded (RFC 4861, section 7.1).
pub const NDP_HOP_LIMIT: u8 = 255;

/// ff:ff:ff:ff:ff:ff.
pub const BROADCAST: Mac = Mac([0xff; 6]);

/// ff02::1.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group in which the owner of `address` listens for solicitations (RFC 4291, section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 multicast group (RFC 2464, section 7).
pub fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// An Ethernet II frame, without its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where to.
    pub destination: Mac,
    /// Where from.
    pub source: Mac,
    /// What it carries.
    pub packet: Packet,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// ARP for IPv4 on Ethernet (RFC 826).
    Arp(Arp),
    /// IPv4 or IPv6.
    Ip(Ip),
    /// Any other ether type, tagged frames included.
    Other {
        /// The ether type, or the length field of an 802.3 frame.
        ether_type: u16,
        /// All that follows, padding included.
        payload: Vec<u8>,
    },
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// What is asked or answered.
    pub operation: ArpOperation,
    /// The sender's Ethernet address, `ar$sha`.
    pub sender_mac: Mac,
    /// The sender's address, `ar$spa`.
    pub sender: Ipv4Addr,
    /// The target's Ethernet address, `ar$tha`.
    pub target_mac: Mac,
    /// The target's address, `ar$tpa`.
    pub target: Ipv4Addr,
}

/// What an ARP packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// 1: who has the target address?
    Request,
    /// 2: the sender address is at the sender's Ethernet address.
    Reply,
    /// Any other number.
    Other(u16),
}

/// An IPv4 or IPv6 packet. Options, traffic class and flow label are neither kept nor written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Where from.
    pub source: IpAddr,
    /// Where to, of the same family.
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// What it carries.
    pub message: Message,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An echo request or reply of ICMP or ICMPv6.
    Echo(Echo),
    /// A neighbour solicitation (RFC 4861, section 4.3).
    NeighbourSolicitation {
        /// The address in question.
        target: Ipv6Addr,
        /// The source link-layer address option.
        source_mac: Option<Mac>,
    },
    /// A neighbour advertisement (RFC 4861, section 4.4).
    NeighbourAdvertisement(NeighbourAdvertisement),
    /// Any other message of ICMP or ICMPv6.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// All that follows the checksum.
        body: Vec<u8>,
    },
    /// A UDP datagram.
    Udp {
        /// Where from.
        source_port: u16,
        /// Where to.
        destination_port: u16,
        /// The payload.
        data: Vec<u8>,
    },
    /// Any other protocol, IPv6 extension header or IPv4 fragment.
    Other {
        /// Protocol or next header.
        protocol: u8,
        /// All that follows the IP header.
        payload: Vec<u8>,
    },
}

/// An echo request or reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Whether it is the reply.
    pub reply: bool,
    /// Names the asking process.
    pub id: u16,
    /// Counts its requests.
    pub sequence: u16,
    /// Comes back unchanged.
    pub data: Vec<u8>,
}

/// A neighbour advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourAdvertisement {
    /// The address that is advertised.
    pub target: Ipv6Addr,
    /// R: the sender is a router.
    pub router: bool,
    /// S: it answers a solicitation.
    pub solicited: bool,
    /// O: it replaces what the receiver has cached.
    pub override_cache: bool,
    /// The target link-layer address option.
    pub target_mac: Option<Mac>,
}

impl Frame {
    /// The Ethernet address that this frame announces for `address`, if it is an ARP reply or an advertisement for it.
    pub fn announces(&self, address: IpAddr) -> Option<Mac> {
        match (&self.packet, address) {
            (Packet::Arp(arp), IpAddr::V4(wanted)) => {
                (arp.operation == ArpOperation::Reply && arp.sender == wanted).then_some(arp.sender_mac)
            }
            (Packet::Ip(Ip { message: Message::NeighbourAdvertisement(na), .. }), IpAddr::V6(wanted)) => {
                (na.target == wanted).then(|| na.target_mac.unwrap_or(self.source))
            }
            _ => None,
        }
    }
}
