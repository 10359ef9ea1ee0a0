//! Values of the vocabulary as bytes: how long they are, in which byte order, and which number nft gives their type.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::uapi::*;
use crate::addr::{IfName, Mac};
use crate::ruleset::{Datatype, Value};

/// Who reads the bytes of a value: nft wants to know, to print it.
#[derive(Clone, Copy)]
pub(super) enum Byteorder {
    /// As numbers of this machine (BYTEORDER_HOST_ENDIAN of nft's include/datatype.h).
    Host = 1,
    /// As on the wire (BYTEORDER_BIG_ENDIAN).
    Big = 2,
}

/// What a data type is to nf_tables: nft's number of it, its length in bytes and byte order.
pub(super) fn layout(datatype: Datatype) -> (u32, usize, Byteorder) {
    match datatype {
        Datatype::IfName => (TYPE_IFNAME, 16, Byteorder::Host),
        Datatype::Ipv4Addr => (TYPE_IPADDR, 4, Byteorder::Big),
        Datatype::Ipv6Addr => (TYPE_IP6ADDR, 16, Byteorder::Big),
        Datatype::EtherAddr => (TYPE_ETHERADDR, 6, Byteorder::Big),
        Datatype::EtherType => (TYPE_ETHERTYPE, 2, Byteorder::Big),
        Datatype::ArpOp => (TYPE_ARPOP, 2, Byteorder::Big),
        Datatype::InetProto => (TYPE_INET_PROTOCOL, 1, Byteorder::Big),
        Datatype::NfProto => (TYPE_NFPROTO, 1, Byteorder::Host),
        Datatype::IfaceType => (TYPE_ARPHRD, 2, Byteorder::Host),
        Datatype::Mark => (TYPE_MARK, 4, Byteorder::Host),
        Datatype::FibAddrType => (TYPE_FIB_ADDR, 4, Byteorder::Host),
        Datatype::TcpFlag => (TYPE_TCP_FLAG, 1, Byteorder::Host),
        Datatype::InetService => (TYPE_INET_SERVICE, 2, Byteorder::Big),
        Datatype::IcmpType => (TYPE_ICMP_TYPE, 1, Byteorder::Big),
        Datatype::Icmp6Type => (TYPE_ICMP6_TYPE, 1, Byteorder::Big),
        Datatype::IpFragmentOffset | Datatype::Ip6FragmentOffset => (TYPE_INTEGER, 2, Byteorder::Big),
        Datatype::Boolean => (TYPE_BOOLEAN, 1, Byteorder::Host),
        Datatype::Raw(raw) => (TYPE_INTEGER, usize::from(raw.length), Byteorder::Big),
    }
}

/// The number and the length of a key: parts are padded to 32 bits, their numbers six bits each.
pub(super) fn key_layout(key: &[Datatype]) -> (u32, usize) {
    key.iter().fold((0, 0), |(number, length), part| {
        let (part_number, part_length, _) = layout(*part);
        match key.len() {
            1 => (part_number, part_length),
            _ => (number << 6 | part_number, length + part_length.next_multiple_of(4)),
        }
    })
}

/// A value as it stands in a register or an element.
pub(super) fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::IfName(name) => {
            let mut padded = name.as_str().as_bytes().to_vec();
            padded.resize(16, 0);
            padded
        }
        Value::V4(address) => address.octets().into(),
        Value::V6(address) => address.octets().into(),
        Value::Mac(mac) => mac.0.into(),
        Value::EtherType(number) | Value::ArpOp(number) | Value::Port(number) | Value::IpFragmentOffset(number) => {
            number.to_be_bytes().into()
        }
        Value::InetProto(number) | Value::NfProto(number) => vec![*number],
        Value::TcpFlags(number) | Value::IcmpType(number) | Value::Icmp6Type(number) => vec![*number],
        Value::Exists(exists) => vec![(*exists).into()],
        // In the upper 13 bits of its field.
        Value::Ip6FragmentOffset(number) => (number << 3).to_be_bytes().into(),
        Value::Raw(raw, number) => number.to_be_bytes()[16_usize.saturating_sub(raw.length.into())..].into(),
        Value::IfaceType(number) => number.to_ne_bytes().into(),
        Value::Mark(number) | Value::FibAddrType(number) => number.to_ne_bytes().into(),
    }
}

/// The key of an element: its parts, each padded to 32 bits where there are several.
pub(super) fn key_bytes(key: &[Value]) -> Vec<u8> {
    let mut all = Vec::with_capacity(36);
    for part in key {
        all.extend(bytes(part));
        if key.len() > 1 {
            all.resize(all.len().next_multiple_of(4), 0);
        }
    }
    all
}

/// The value that `bytes` are, or nothing where they are no such value.
pub(super) fn parse(datatype: Datatype, bytes: &[u8]) -> Option<Value> {
    Some(match datatype {
        Datatype::IfName => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            Value::IfName(std::str::from_utf8(&bytes[..end]).ok()?.parse::<IfName>().ok()?)
        }
        Datatype::Ipv4Addr => Value::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        Datatype::Ipv6Addr => Value::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        Datatype::EtherAddr => Value::Mac(Mac(bytes.try_into().ok()?)),
        Datatype::EtherType => Value::EtherType(u16::from_be_bytes(bytes.try_into().ok()?)),
        Datatype::ArpOp => Value::ArpOp(u16::from_be_bytes(bytes.try_into().ok()?)),
        Datatype::InetProto => Value::InetProto(*bytes.first()?),
        Datatype::NfProto => Value::NfProto(*bytes.first()?),
        Datatype::IfaceType => Value::IfaceType(u16::from_ne_bytes(bytes.try_into().ok()?)),
        Datatype::Mark => Value::Mark(u32::from_ne_bytes(bytes.try_into().ok()?)),
        Datatype::FibAddrType => Value::FibAddrType(u32::from_ne_bytes(bytes.try_into().ok()?)),
        Datatype::TcpFlag => Value::TcpFlags(*bytes.first()?),
        Datatype::InetService => Value::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
        Datatype::IcmpType => Value::IcmpType(*bytes.first()?),
        Datatype::Icmp6Type => Value::Icmp6Type(*bytes.first()?),
        Datatype::IpFragmentOffset => Value::IpFragmentOffset(u16::from_be_bytes(bytes.try_into().ok()?)),
        Datatype::Ip6FragmentOffset => Value::Ip6FragmentOffset(u16::from_be_bytes(bytes.try_into().ok()?) >> 3),
        Datatype::Boolean => Value::Exists(*bytes.first()? != 0),
        Datatype::Raw(raw) => {
            let number = bytes.iter().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
            Value::Raw(raw, number)
        }
    })
}

/// The parts of a key, or nothing where `bytes` are no such key.
pub(super) fn parse_key(key: &[Datatype], bytes: &[u8]) -> Option<Vec<Value>> {
    let mut rest = bytes;
    key.iter()
        .map(|part| {
            let (_, length, _) = layout(*part);
            let value = parse(*part, rest.get(..length)?)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(value)
        })
        .collect()
}
