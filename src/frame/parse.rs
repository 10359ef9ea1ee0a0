//! Bytes to frames. Every read is checked: what is too short is an error that names the layer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use pnet::packet::ip::IpNextHeaderProtocols::Icmpv6;
use pnet::util;

use super::encode::pnet_v6;
use super::{
    Arp, ArpOperation, Echo, Frame, Ip, Message, NeighbourAdvertisement, Packet, ether_type, icmp, protocol as proto,
};
use crate::addr::Mac;

/// What is left of a frame.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next `N` bytes.
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) =
            self.0.split_first_chunk().with_context(|| format!("{} bytes, expected {N} or more", self.0.len()))?;
        self.0 = rest;
        Ok(*head)
    }

    /// The next `count` bytes.
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .with_context(|| format!("{} bytes, expected {count} or more", self.0.len()))?;
        self.0 = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// In network byte order, as all of these protocols have it.
    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn mac(&mut self) -> Result<Mac> {
        self.array().map(Mac)
    }

    fn ipv4(&mut self) -> Result<Ipv4Addr> {
        self.array().map(|octets: [u8; 4]| octets.into())
    }

    fn ipv6(&mut self) -> Result<Ipv6Addr> {
        self.array().map(|octets: [u8; 16]| octets.into())
    }
}

impl Frame {
    /// Reads a frame. Checksums of IPv4 headers, ICMP and ICMPv6 are verified; those of UDP are not, since the
    /// kernel leaves them to the hardware and a frame of a veth shows them unfinished.
    ///
    /// # Errors
    /// If it is cut short or contradicts itself; the message names the layer.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader(bytes);
        let mut header = || Ok::<_, anyhow::Error>((reader.mac()?, reader.mac()?, reader.u16()?));
        let (destination, source, ether_type) = header().context("Ethernet header")?;
        let packet = match ether_type {
            ether_type::ARP => Packet::Arp(arp(reader).context("ARP")?),
            ether_type::IPV4 => Packet::Ip(ipv4(reader).context("IPv4")?),
            ether_type::IPV6 => Packet::Ip(ipv6(reader).context("IPv6")?),
            _ => Packet::Other { ether_type, payload: reader.0.to_vec() },
        };
        Ok(Self { destination, source, packet })
    }
}

fn arp(mut reader: Reader) -> Result<Arp> {
    let space: [u8; 6] = reader.array()?;
    ensure!(space == [0, 1, 8, 0, 6, 4], "hardware and protocol {space:02x?}, expected Ethernet and IPv4");
    let operation = match reader.u16()? {
        1 => ArpOperation::Request,
        2 => ArpOperation::Reply,
        other => ArpOperation::Other(other),
    };
    Ok(Arp {
        operation,
        sender_mac: reader.mac()?,
        sender: reader.ipv4()?,
        target_mac: reader.mac()?,
        target: reader.ipv4()?,
    })
}

fn ipv4(mut reader: Reader) -> Result<Ip> {
    let all = reader.0;
    let [version_length, _, length_high, length_low, _, _, fragment_high, fragment_low, hop_limit, protocol, _, _] =
        reader.array()?;
    let (source, destination) = (reader.ipv4()?, reader.ipv4()?);
    ensure!(version_length >> 4 == 4, "version {}, expected 4", version_length >> 4);
    let header = usize::from(version_length & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([length_high, length_low]));
    ensure!(header >= 20 && total >= header, "header of {header} bytes in a packet of {total}");
    let options = reader.bytes(header - 20).context("options")?;
    let payload = reader.bytes(total - header).context("payload")?;
    ensure!(util::checksum(&all[..20 + options.len()], usize::MAX) == 0, "header checksum is wrong");
    // RFC 791: the flag "more fragments" and the offset; neither part of a fragment can be read alone.
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff != 0;
    let message = match protocol {
        _ if fragment => Message::Other { protocol, payload: payload.to_vec() },
        proto::ICMP => {
            ensure!(util::checksum(payload, usize::MAX) == 0, "ICMP checksum is wrong");
            icmp(Reader(payload)).context("ICMP")?
        }
        proto::UDP => udp(Reader(payload)).context("UDP")?,
        _ => Message::Other { protocol, payload: payload.to_vec() },
    };
    Ok(Ip { source: source.into(), destination: destination.into(), hop_limit, message })
}

fn ipv6(mut reader: Reader) -> Result<Ip> {
    let [version_class, _, _, _] = reader.array()?;
    let length = reader.u16()?;
    let (protocol, hop_limit) = (reader.u8()?, reader.u8()?);
    let (source, destination) = (reader.ipv6()?, reader.ipv6()?);
    ensure!(version_class >> 4 == 6, "version {}, expected 6", version_class >> 4);
    let payload = reader.bytes(length.into()).context("payload")?;
    let message = match protocol {
        proto::ICMPV6 => {
            let sum = util::ipv6_checksum(payload, usize::MAX, &[], &pnet_v6(source), &pnet_v6(destination), Icmpv6);
            ensure!(sum == 0, "ICMPv6 checksum is wrong");
            icmpv6(Reader(payload)).context("ICMPv6")?
        }
        proto::UDP => udp(Reader(payload)).context("UDP")?,
        _ => Message::Other { protocol, payload: payload.to_vec() },
    };
    Ok(Ip { source: IpAddr::V6(source), destination: IpAddr::V6(destination), hop_limit, message })
}

fn icmp(mut reader: Reader) -> Result<Message> {
    let [kind, code, _, _] = reader.array()?;
    match kind {
        icmp::ECHO_REQUEST | icmp::ECHO_REPLY => echo(reader, kind == icmp::ECHO_REPLY),
        _ => Ok(Message::Icmp { kind, code, body: reader.0.to_vec() }),
    }
}

fn icmpv6(mut reader: Reader) -> Result<Message> {
    let [kind, code, _, _] = reader.array()?;
    match kind {
        icmp::V6_ECHO_REQUEST | icmp::V6_ECHO_REPLY => echo(reader, kind == icmp::V6_ECHO_REPLY),
        icmp::NEIGHBOUR_SOLICITATION => {
            let _reserved: [u8; 4] = reader.array()?;
            let target = reader.ipv6()?;
            // Option 1: source link-layer address (RFC 4861, section 4.6.1).
            Ok(Message::NeighbourSolicitation { target, source_mac: link_layer_option(reader, 1)? })
        }
        icmp::NEIGHBOUR_ADVERTISEMENT => {
            let [flags, _, _, _] = reader.array()?;
            let target = reader.ipv6()?;
            Ok(Message::NeighbourAdvertisement(NeighbourAdvertisement {
                target,
                router: flags & 0x80 != 0,
                solicited: flags & 0x40 != 0,
                override_cache: flags & 0x20 != 0,
                // Option 2: target link-layer address.
                target_mac: link_layer_option(reader, 2)?,
            }))
        }
        _ => Ok(Message::Icmp { kind, code, body: reader.0.to_vec() }),
    }
}

fn echo(mut reader: Reader, reply: bool) -> Result<Message> {
    Ok(Message::Echo(Echo { reply, id: reader.u16()?, sequence: reader.u16()?, data: reader.0.to_vec() }))
}

/// The first option of type `wanted`; lengths count 8 bytes (RFC 4861, section 4.6).
fn link_layer_option(mut reader: Reader, wanted: u8) -> Result<Option<Mac>> {
    while !reader.0.is_empty() {
        let [kind, units] = reader.array().context("option")?;
        let Some(length) = (usize::from(units) * 8).checked_sub(2) else { bail!("option {kind} of length 0") };
        let mut option = Reader(reader.bytes(length).context("option")?);
        if kind == wanted {
            return option.mac().map(Some);
        }
    }
    Ok(None)
}

fn udp(mut reader: Reader) -> Result<Message> {
    let (source_port, destination_port, length) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let _checksum = reader.u16()?;
    let length = usize::from(length).checked_sub(8).context("shorter than its header")?;
    Ok(Message::Udp { source_port, destination_port, data: reader.bytes(length)?.to_vec() })
}
