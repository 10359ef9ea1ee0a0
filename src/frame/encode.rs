//! Frames to bytes, by pnet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use pnet::packet::arp::{self, ArpHardwareTypes, MutableArpPacket};
use pnet::packet::ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::icmpv6::ndp::{
    MutableNdpOptionPacket, MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NdpOptionPacket, NdpOptionType,
    NdpOptionTypes, NeighborAdvertFlags, NeighborAdvertPacket, NeighborSolicitPacket,
};
use pnet::packet::icmpv6::{Icmpv6Type, echo_request};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::packet::udp::{MutableUdpPacket, UdpPacket};
use pnet::util::{self, MacAddr, core_net};

use super::{
    Arp, ArpOperation, Echo, Frame, Ip, Message, NeighbourAdvertisement, Packet, ether_type, icmp, protocol as proto,
};
use crate::addr::{Family, Mac};

/// The least length of a frame, without the frame check sequence (IEEE 802.3); what is shorter is padded with zeros.
pub const MIN_LEN: usize = 60;

/// Octets of a link-layer address option.
const LINK_LAYER_OPTION: usize = 8;

/// pnet's views answer `None` when the buffer is too short for the header; ours are made to measure.
const TOO_SHORT: &str = "no room for the header";

impl From<Mac> for MacAddr {
    fn from(mac: Mac) -> Self {
        mac.0.into()
    }
}

/// pnet without its `std` feature, which would pull in its sockets, has address types of its own.
pub(super) fn pnet_v4(address: Ipv4Addr) -> core_net::Ipv4Addr {
    address.octets().into()
}

/// The same for IPv6.
pub(super) fn pnet_v6(address: Ipv6Addr) -> core_net::Ipv6Addr {
    address.octets().into()
}

impl Frame {
    /// The bytes of this frame, with all checksums, padded to [`MIN_LEN`].
    ///
    /// # Errors
    /// If addresses of two families are mixed, or a payload is longer than its length field can say.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (ether_type, payload) = match &self.packet {
            Packet::Arp(arp) => (ether_type::ARP, arp.encode()?),
            Packet::Ip(ip) => match Family::of(ip.source) {
                Family::V4 => (ether_type::IPV4, ip.encode()?),
                Family::V6 => (ether_type::IPV6, ip.encode()?),
            },
            Packet::Other { ether_type, payload } => (*ether_type, payload.clone()),
        };
        let header = EthernetPacket::minimum_packet_size();
        let mut bytes = vec![0; (header + payload.len()).max(MIN_LEN)];
        let mut frame = MutableEthernetPacket::new(&mut bytes).context(TOO_SHORT)?;
        frame.set_destination(self.destination.into());
        frame.set_source(self.source.into());
        frame.set_ethertype(EtherType(ether_type));
        bytes[header..header + payload.len()].copy_from_slice(&payload);
        Ok(bytes)
    }
}

impl Arp {
    fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; MutableArpPacket::minimum_packet_size()];
        let mut packet = MutableArpPacket::new(&mut bytes).context(TOO_SHORT)?;
        packet.set_hardware_type(ArpHardwareTypes::Ethernet);
        packet.set_protocol_type(EtherTypes::Ipv4);
        packet.set_hw_addr_len(6);
        packet.set_proto_addr_len(4);
        packet.set_operation(arp::ArpOperation(match self.operation {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
            ArpOperation::Other(other) => other,
        }));
        packet.set_sender_hw_addr(self.sender_mac.into());
        packet.set_sender_proto_addr(pnet_v4(self.sender));
        packet.set_target_hw_addr(self.target_mac.into());
        packet.set_target_proto_addr(pnet_v4(self.target));
        Ok(bytes)
    }
}

impl Ip {
    fn encode(&self) -> Result<Vec<u8>> {
        let (protocol, mut payload) = self.message.encode(Family::of(self.source))?;
        let protocol = IpNextHeaderProtocol(protocol);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                checksum_v4(protocol, &mut payload, source, destination);
                let header = Ipv4Packet::minimum_packet_size();
                let mut bytes = vec![0; header + payload.len()];
                let total = u16::try_from(bytes.len()).with_context(|| too_long(&payload))?;
                let mut packet = MutableIpv4Packet::new(&mut bytes).context(TOO_SHORT)?;
                packet.set_version(4);
                packet.set_header_length(5);
                packet.set_total_length(total);
                packet.set_ttl(self.hop_limit);
                packet.set_next_level_protocol(protocol);
                packet.set_source(pnet_v4(source));
                packet.set_destination(pnet_v4(destination));
                let checksum = ipv4::checksum(&packet.to_immutable());
                packet.set_checksum(checksum);
                bytes[header..].copy_from_slice(&payload);
                Ok(bytes)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                checksum_v6(protocol, &mut payload, source, destination);
                let header = Ipv6Packet::minimum_packet_size();
                let mut bytes = vec![0; header + payload.len()];
                let mut packet = MutableIpv6Packet::new(&mut bytes).context(TOO_SHORT)?;
                packet.set_version(6);
                packet.set_payload_length(u16::try_from(payload.len()).with_context(|| too_long(&payload))?);
                packet.set_next_header(protocol);
                packet.set_hop_limit(self.hop_limit);
                packet.set_source(pnet_v6(source));
                packet.set_destination(pnet_v6(destination));
                bytes[header..].copy_from_slice(&payload);
                Ok(bytes)
            }
            (source, destination) => bail!("{source} and {destination} are of two families"),
        }
    }
}

fn too_long(payload: &[u8]) -> String {
    format!("a payload of {} bytes does not fit an IP packet", payload.len())
}

/// Fills in the checksum that the protocol puts over an IPv4 packet, at its 16-bit word `word`.
fn checksum_v4(protocol: IpNextHeaderProtocol, payload: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    let (word, sum) = match protocol {
        IpNextHeaderProtocols::Icmp => (1, util::checksum(payload, 1)),
        IpNextHeaderProtocols::Udp => {
            (3, util::ipv4_checksum(payload, 3, &[], &pnet_v4(source), &pnet_v4(destination), protocol))
        }
        _ => return,
    };
    set_checksum(payload, word, sum);
}

/// The same for IPv6.
fn checksum_v6(protocol: IpNextHeaderProtocol, payload: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr) {
    let word = match protocol {
        IpNextHeaderProtocols::Icmpv6 => 1,
        IpNextHeaderProtocols::Udp => 3,
        _ => return,
    };
    let sum = util::ipv6_checksum(payload, word, &[], &pnet_v6(source), &pnet_v6(destination), protocol);
    set_checksum(payload, word, sum);
}

fn set_checksum(payload: &mut [u8], word: usize, sum: u16) {
    // 0 means "none" to UDP, which sends its other form (RFC 768); to ICMP both are the same.
    let sum = if sum == 0 && word == 3 { 0xffff } else { sum };
    if let Some(field) = payload.get_mut(word * 2..word * 2 + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

impl Message {
    /// Protocol number and bytes, the checksum still 0: the raw ICMPv6 socket fills it in, or [`Ip::encode`].
    pub(crate) fn encode(&self, family: Family) -> Result<(u8, Vec<u8>)> {
        let icmp_protocol = match family {
            Family::V4 => proto::ICMP,
            Family::V6 => proto::ICMPV6,
        };
        Ok(match self {
            Self::Echo(echo) => (icmp_protocol, echo.encode(family)?),
            Self::NeighbourSolicitation { target, source_mac } => {
                (proto::ICMPV6, neighbour_solicitation(*target, *source_mac)?)
            }
            Self::NeighbourAdvertisement(advertisement) => (proto::ICMPV6, advertisement.encode()?),
            Self::Icmp { kind, code, body } => (icmp_protocol, [&[*kind, *code, 0, 0], body.as_slice()].concat()),
            Self::Udp { source_port, destination_port, data } => {
                (proto::UDP, udp(*source_port, *destination_port, data)?)
            }
            Self::Other { protocol, payload } => (*protocol, payload.clone()),
        })
    }
}

impl Echo {
    /// ICMP and ICMPv6 differ in the type alone.
    fn encode(&self, family: Family) -> Result<Vec<u8>> {
        let mut bytes = vec![0; echo_request::EchoRequestPacket::minimum_packet_size() + self.data.len()];
        let mut packet = echo_request::MutableEchoRequestPacket::new(&mut bytes).context(TOO_SHORT)?;
        packet.set_icmpv6_type(Icmpv6Type(match (family, self.reply) {
            (Family::V4, false) => icmp::ECHO_REQUEST,
            (Family::V4, true) => icmp::ECHO_REPLY,
            (Family::V6, false) => icmp::V6_ECHO_REQUEST,
            (Family::V6, true) => icmp::V6_ECHO_REPLY,
        }));
        packet.set_identifier(self.id);
        packet.set_sequence_number(self.sequence);
        packet.set_payload(&self.data);
        Ok(bytes)
    }
}

impl NeighbourAdvertisement {
    fn encode(&self) -> Result<Vec<u8>> {
        let header = NeighborAdvertPacket::minimum_packet_size();
        let mut bytes = vec![0; header];
        let mut packet = MutableNeighborAdvertPacket::new(&mut bytes).context(TOO_SHORT)?;
        packet.set_icmpv6_type(Icmpv6Type(icmp::NEIGHBOUR_ADVERTISEMENT));
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        packet.set_flags(
            flag(self.router, NeighborAdvertFlags::Router)
                | flag(self.solicited, NeighborAdvertFlags::Solicited)
                | flag(self.override_cache, NeighborAdvertFlags::Override),
        );
        packet.set_target_addr(pnet_v6(self.target));
        append_option(bytes, NdpOptionTypes::TargetLLAddr, self.target_mac)
    }
}

fn neighbour_solicitation(target: Ipv6Addr, source_mac: Option<Mac>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; NeighborSolicitPacket::minimum_packet_size()];
    let mut packet = MutableNeighborSolicitPacket::new(&mut bytes).context(TOO_SHORT)?;
    packet.set_icmpv6_type(Icmpv6Type(icmp::NEIGHBOUR_SOLICITATION));
    packet.set_target_addr(pnet_v6(target));
    append_option(bytes, NdpOptionTypes::SourceLLAddr, source_mac)
}

fn append_option(mut bytes: Vec<u8>, kind: NdpOptionType, mac: Option<Mac>) -> Result<Vec<u8>> {
    let Some(mac) = mac else { return Ok(bytes) };
    let start = bytes.len();
    bytes.resize(start + LINK_LAYER_OPTION, 0);
    let mut option = MutableNdpOptionPacket::new(&mut bytes[start..]).context(TOO_SHORT)?;
    option.set_option_type(kind);
    option.set_length(1);
    bytes[start + NdpOptionPacket::minimum_packet_size()..].copy_from_slice(&mac.0);
    Ok(bytes)
}

fn udp(source_port: u16, destination_port: u16, data: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; UdpPacket::minimum_packet_size() + data.len()];
    let length = u16::try_from(bytes.len()).with_context(|| too_long(data))?;
    let mut packet = MutableUdpPacket::new(&mut bytes).context(TOO_SHORT)?;
    packet.set_source(source_port);
    packet.set_destination(destination_port);
    packet.set_length(length);
    packet.set_payload(data);
    Ok(bytes)
}
