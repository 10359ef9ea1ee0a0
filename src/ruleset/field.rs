//! What a rule can look at: fields of a packet and of its way through the node.

use std::fmt;

use super::{Datatype, Value};

/// A field of a packet, or what the kernel knows about it. What nft asks first to be sure that a packet has the field
/// (`ip saddr` in a bridge: is it IPv4?) is implied here as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Interface the packet came from.
    IifName,
    /// Interface the packet leaves through.
    OifName,
    /// Link type of the interface the packet came from.
    IifType,
    /// EtherType as the kernel took it from the frame (skb->protocol).
    Protocol,
    /// Netfilter's family of the packet, in the inet family.
    NfProto,
    /// Protocol above IPv4 or IPv6, extension headers skipped.
    L4Proto,
    /// Ethernet destination.
    EtherDaddr,
    /// Ethernet source.
    EtherSaddr,
    /// EtherType in the frame's own header.
    EtherType,
    /// IPv4 source.
    IpSaddr,
    /// IPv4 destination.
    IpDaddr,
    /// IPv6 source.
    Ip6Saddr,
    /// IPv6 destination.
    Ip6Daddr,
    /// ARP operation.
    ArpOperation,
    /// Sender hardware address of ARP over Ethernet.
    ArpSaddrEther,
    /// Sender protocol address of ARP for IPv4.
    ArpSaddrIp,
}

impl Field {
    /// What the field holds.
    pub fn datatype(self) -> Datatype {
        match self {
            Self::IifName | Self::OifName => Datatype::IfName,
            Self::IifType => Datatype::IfaceType,
            Self::Protocol | Self::EtherType => Datatype::EtherType,
            Self::NfProto => Datatype::NfProto,
            Self::L4Proto => Datatype::InetProto,
            Self::EtherDaddr | Self::EtherSaddr | Self::ArpSaddrEther => Datatype::EtherAddr,
            Self::IpSaddr | Self::IpDaddr | Self::ArpSaddrIp => Datatype::Ipv4Addr,
            Self::Ip6Saddr | Self::Ip6Daddr => Datatype::Ipv6Addr,
            Self::ArpOperation => Datatype::ArpOp,
        }
    }

    /// The field seen through a mask: `ether saddr & ff:ff:f0:00:00:00`.
    pub fn masked(self, mask: Value) -> Selector {
        Selector { field: self, mask: Some(mask) }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IifName => "iifname",
            Self::OifName => "oifname",
            Self::IifType => "iiftype",
            Self::Protocol => "meta protocol",
            Self::NfProto => "meta nfproto",
            Self::L4Proto => "meta l4proto",
            Self::EtherDaddr => "ether daddr",
            Self::EtherSaddr => "ether saddr",
            Self::EtherType => "ether type",
            Self::IpSaddr => "ip saddr",
            Self::IpDaddr => "ip daddr",
            Self::Ip6Saddr => "ip6 saddr",
            Self::Ip6Daddr => "ip6 daddr",
            Self::ArpOperation => "arp operation",
            Self::ArpSaddrEther => "arp saddr ether",
            Self::ArpSaddrIp => "arp saddr ip",
        })
    }
}

/// A field, or the bits of it that a mask lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The field.
    pub field: Field,
    /// The mask, of the field's data type.
    pub mask: Option<Value>,
}

impl From<Field> for Selector {
    fn from(field: Field) -> Self {
        Self { field, mask: None }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mask {
            None => self.field.fmt(f),
            Some(mask) => write!(f, "{} & {mask}", self.field),
        }
    }
}
