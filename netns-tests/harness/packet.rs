//! Frames read back: decoded as far as the tests need it, and printed as `tcpdump -en` would.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::frame::{self, ICMP, ICMPV6, Mac, UDP};

/// A frame as it was seen, and what it says.
#[derive(Clone, Debug)]
pub struct Packet {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// Where it goes.
    pub destination: Mac,
    /// Where it comes from.
    pub source: Mac,
    /// What it holds.
    pub content: Content,
}

/// What a frame holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// Operation, sender, target.
    Arp(u16, (Mac, Ipv4Addr), (Mac, Ipv4Addr)),
    /// Source, destination, time to live.
    Ipv4(Ipv4Addr, Ipv4Addr, u8, Payload),
    /// Source, destination, hop limit.
    Ipv6(Ipv6Addr, Ipv6Addr, u8, Payload),
    /// Ether type.
    Other(u16),
}

/// What an IP packet holds.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Is it a reply; identifier and sequence number; data.
    Echo(bool, [u16; 2], Vec<u8>),
    /// Source port, destination port, data.
    Udp(u16, u16, Vec<u8>),
    /// Target, source link-layer address.
    NeighbourSolicitation(Ipv6Addr, Option<Mac>),
    /// Target, flags byte, target link-layer address.
    NeighbourAdvertisement(Ipv6Addr, u8, Option<Mac>),
    /// The name of another ICMPv6 message.
    Icmpv6(&'static str),
    /// Protocol, first byte.
    Other(u8, u8),
}

impl Packet {
    /// Decodes a frame; `None` if it is cut short.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let ether_type = be16(bytes, 12)?;
        let body = bytes.get(14..)?;
        let content = match ether_type {
            frame::ARP => Content::Arp(
                be16(body, 6)?,
                (mac(body, 8)?, address4(body, 14)?),
                (mac(body, 18)?, address4(body, 24)?),
            ),
            frame::IPV4 => {
                let header = usize::from(body.first()? & 0xf) * 4;
                let payload = body.get(header..usize::from(be16(body, 2)?))?;
                let protocol = *body.get(9)?;
                Content::Ipv4(address4(body, 12)?, address4(body, 16)?, *body.get(8)?, payload_of(protocol, payload)?)
            }
            frame::IPV6 => {
                let payload = body.get(40..40 + usize::from(be16(body, 4)?))?;
                let next = *body.get(6)?;
                Content::Ipv6(address6(body, 8)?, address6(body, 24)?, *body.get(7)?, payload_of(next, payload)?)
            }
            other => Content::Other(other),
        };
        Some(Self { bytes: bytes.to_vec(), destination: mac(bytes, 0)?, source: mac(bytes, 6)?, content })
    }

    /// Does the text of this frame hold `pattern`, ending where a word or an address ends?
    pub fn matches(&self, pattern: &str) -> bool {
        let line = self.to_string();
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == ':');
        line.match_indices(pattern).any(|(at, _)| ends(&line[at + pattern.len()..]))
    }

    /// Is the ICMPv6 checksum of this frame right? (Only a frame that really left an interface must have one.)
    pub fn icmpv6_checksum_holds(&self) -> bool {
        let Content::Ipv6(source, destination, ..) = self.content else { return false };
        let message = &self.bytes[54..];
        frame::checksum(&[frame::pseudo_header(source, destination, ICMPV6, message.len()), message.to_vec()].concat())
            == 0
    }
}

fn payload_of(protocol: u8, bytes: &[u8]) -> Option<Payload> {
    let kind = bytes.first().copied().unwrap_or_default();
    let echo = |reply| Some(Payload::Echo(reply, [be16(bytes, 4)?, be16(bytes, 6)?], bytes.get(8..)?.to_vec()));
    match (protocol, kind) {
        (ICMP, 8) | (ICMPV6, 128) => echo(false),
        (ICMP, 0) | (ICMPV6, 129) => echo(true),
        (ICMPV6, 135) => Some(Payload::NeighbourSolicitation(address6(bytes, 8)?, link_layer_option(bytes, 24, 1))),
        (ICMPV6, 136) => {
            let flags = *bytes.get(4)?;
            Some(Payload::NeighbourAdvertisement(address6(bytes, 8)?, flags, link_layer_option(bytes, 24, 2)))
        }
        (ICMPV6, 1) => Some(Payload::Icmpv6("destination unreachable")),
        (ICMPV6, 133) => Some(Payload::Icmpv6("router solicitation")),
        (ICMPV6, 134) => Some(Payload::Icmpv6("router advertisement")),
        (ICMPV6, 143) => Some(Payload::Icmpv6("multicast listener report")),
        (UDP, _) => Some(Payload::Udp(be16(bytes, 0)?, be16(bytes, 2)?, bytes.get(8..)?.to_vec())),
        _ => Some(Payload::Other(protocol, kind)),
    }
}

/// The link-layer address option of type `kind`, if it is the first option (RFC 4861, section 4.6.1).
fn link_layer_option(bytes: &[u8], at: usize, kind: u8) -> Option<Mac> {
    (*bytes.get(at)? == kind && *bytes.get(at + 1)? == 1).then(|| mac(bytes, at + 2)).flatten()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn mac(bytes: &[u8], at: usize) -> Option<Mac> {
    array(bytes, at).map(Mac)
}

fn address4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    array::<4>(bytes, at).map(Ipv4Addr::from)
}

fn address6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    array::<16>(bytes, at).map(Ipv6Addr::from)
}

impl fmt::Display for Packet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} > {} ", self.source, self.destination)?;
        match &self.content {
            Content::Arp(1, (_, sender), (_, target)) => write!(out, "ARP, Request who-has {target} tell {sender}"),
            Content::Arp(2, (mac, sender), _) => write!(out, "ARP, Reply {sender} is-at {mac}"),
            Content::Arp(other, ..) => write!(out, "ARP, operation {other}"),
            Content::Ipv4(from, to, hops, payload) => write!(out, "IP {from} > {to}: {payload}, ttl {hops}"),
            Content::Ipv6(from, to, hops, payload) => write!(out, "IP6 {from} > {to}: {payload}, hlim {hops}"),
            Content::Other(ether_type) => write!(out, "ether type 0x{ether_type:04x}"),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let option = |mac: &Option<Mac>| mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
        match self {
            Self::Echo(reply, [id, sequence], _) => {
                write!(out, "echo {} id {id} seq {sequence}", if *reply { "reply" } else { "request" })
            }
            Self::Udp(from, to, data) => write!(out, "UDP {from} > {to} length {}", data.len()),
            Self::NeighbourSolicitation(target, mac) => {
                write!(out, "neighbor solicitation, who has {target}, source {}", option(mac))
            }
            Self::NeighbourAdvertisement(target, flags, mac) => {
                let letter = |bit: u8, letter| if flags & bit == 0 { "" } else { letter };
                let flags = [letter(0x80, "R"), letter(0x40, "S"), letter(0x20, "O")].concat();
                write!(out, "neighbor advertisement, tgt is {target}, flags [{flags}], target {}", option(mac))
            }
            Self::Icmpv6(name) => out.write_str(name),
            Self::Other(protocol, kind) => write!(out, "protocol {protocol} type {kind}"),
        }
    }
}
