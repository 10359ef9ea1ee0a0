//! Frames in tcpdump's words.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::{Arp, ArpOperation, Echo, Frame, Ip, Message, NeighbourAdvertisement, Packet};
use crate::addr::{Family, Mac};

impl Display for Frame {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            write!(f, "{} > {}, ", self.source, self.destination)?;
        }
        match &self.packet {
            Packet::Arp(arp) => arp.fmt(f),
            Packet::Ip(ip) => ip.fmt(f),
            Packet::Other { ether_type, payload } => {
                write!(f, "ethertype 0x{ether_type:04x}, length {}", payload.len())
            }
        }
    }
}

impl Display for Arp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { operation, sender_mac, sender, target_mac, target } = self;
        match operation {
            ArpOperation::Request if *target_mac == Mac([0; 6]) => {
                write!(f, "ARP, Request who-has {target} tell {sender}")
            }
            ArpOperation::Request => write!(f, "ARP, Request who-has {target} ({target_mac}) tell {sender}"),
            ArpOperation::Reply => write!(f, "ARP, Reply {sender} is-at {sender_mac}"),
            ArpOperation::Other(other) => write!(f, "ARP, Unknown ({other})"),
        }
    }
}

impl Display for Ip {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { source, destination, message, .. } = self;
        let (ip, icmp, family) = match source {
            IpAddr::V4(_) => ("IP", "ICMP", Family::V4),
            IpAddr::V6(_) => ("IP6", "ICMP6,", Family::V6),
        };
        match message {
            Message::Udp { source_port, destination_port, data } => {
                write!(f, "{ip} {source}.{source_port} > {destination}.{destination_port}: UDP, length {}", data.len())
            }
            Message::Other { protocol, payload } => {
                write!(f, "{ip} {source} > {destination}: ip-proto-{protocol} {}", payload.len())
            }
            Message::Echo(Echo { reply, id, sequence, .. }) => {
                let kind = if *reply { "reply" } else { "request" };
                write!(f, "{ip} {source} > {destination}: {icmp} echo {kind}, id {id}, seq {sequence}")
            }
            Message::NeighbourSolicitation { target, .. } => {
                write!(f, "{ip} {source} > {destination}: {icmp} neighbor solicitation, who has {target}")
            }
            Message::NeighbourAdvertisement(NeighbourAdvertisement { target, .. }) => {
                write!(f, "{ip} {source} > {destination}: {icmp} neighbor advertisement, tgt is {target}")
            }
            Message::Icmp { kind, code, .. } => {
                write!(f, "{ip} {source} > {destination}: {icmp} ")?;
                match icmp_name(family, *kind) {
                    Some(name) => write!(f, "{name}, code {code}"),
                    None => write!(f, "type {kind}, code {code}"),
                }
            }
        }
    }
}

/// The messages a router or a guest sends on its own, by the names that tcpdump gives them.
fn icmp_name(family: Family, kind: u8) -> Option<&'static str> {
    Some(match (family, kind) {
        (Family::V4, 3) | (Family::V6, 1) => "destination unreachable",
        (Family::V4, 5) | (Family::V6, 137) => "redirect",
        (Family::V4, 11) | (Family::V6, 3) => "time exceeded",
        (Family::V6, 2) => "packet too big",
        (Family::V6, 133) => "router solicitation",
        (Family::V6, 134) => "router advertisement",
        (Family::V6, 143) => "multicast listener report v2",
        _ => return None,
    })
}
