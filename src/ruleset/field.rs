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
    /// The number that the packet carries within the node (skb->mark), for policy rules and others to go by.
    Mark,
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
    /// Protocol in the header of IPv4.
    IpProtocol,
    /// IPv4 source.
    IpSaddr,
    /// IPv4 destination.
    IpDaddr,
    /// What the table local says of the destination of IPv4 or IPv6: is it the node's own?
    DaddrType,
    /// The same, and only the addresses of the interface that the packet came from are the node's own.
    DaddrTypeOnIif,
    /// What the table local says of the source: is it an address of the interface that the packet leaves through?
    SaddrTypeOnOif,
    /// Next header in the header of IPv6 itself: the protocol, or the kind of the first extension header.
    Ip6NextHeader,
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
    /// Target protocol address of ARP for IPv4.
    ArpDaddrIp,
    /// Flags of TCP.
    TcpFlags,
    /// Destination port of TCP.
    TcpDport,
    /// Source port of UDP.
    UdpSport,
    /// Destination port of UDP.
    UdpDport,
    /// Octets 2 and 3 of the header above IP, whatever protocol it is: the destination port of all those that have ports.
    ThDport,
    /// Type of an ICMP message.
    IcmpType,
    /// Type of an ICMPv6 message.
    Icmp6Type,
    /// Place of a fragment in its IPv4 packet (13 bits, in units of eight bytes), below three flags.
    IpFragmentOffset,
    /// Place of a fragment in its IPv6 packet, in units of eight bytes. No other packet has it.
    Ip6FragmentOffset,
    /// Whether an IPv6 packet has a fragment header.
    Ip6FragmentHeader,
    /// Bits of any packet.
    Raw(Raw),
}

/// The header from which raw bits are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RawHeader {
    /// IPv4, IPv6, ARP or whatever follows the Ethernet header: `@nh`.
    Network,
    /// What follows IPv4 or IPv6 and its extension headers: `@th`.
    Transport,
}

/// Bits of a packet for which nft 1.0.6 has no name: `@th,64,128`. Of a packet that is too short for them, no
/// comparison holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Raw {
    /// Where they are counted from.
    pub header: RawHeader,
    /// In bytes.
    pub offset: u8,
    /// In bytes, 16 at most.
    pub length: u8,
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = match self.header {
            RawHeader::Network => "nh",
            RawHeader::Transport => "th",
        };
        write!(f, "@{header},{},{}", u32::from(self.offset) * 8, u32::from(self.length) * 8)
    }
}

impl Field {
    /// What the field holds.
    pub fn datatype(self) -> Datatype {
        match self {
            Self::IifName | Self::OifName => Datatype::IfName,
            Self::IifType => Datatype::IfaceType,
            Self::Mark => Datatype::Mark,
            Self::DaddrType | Self::DaddrTypeOnIif | Self::SaddrTypeOnOif => Datatype::FibAddrType,
            Self::Protocol | Self::EtherType => Datatype::EtherType,
            Self::NfProto => Datatype::NfProto,
            Self::L4Proto | Self::IpProtocol | Self::Ip6NextHeader => Datatype::InetProto,
            Self::EtherDaddr | Self::EtherSaddr | Self::ArpSaddrEther => Datatype::EtherAddr,
            Self::IpSaddr | Self::IpDaddr | Self::ArpSaddrIp | Self::ArpDaddrIp => Datatype::Ipv4Addr,
            Self::Ip6Saddr | Self::Ip6Daddr => Datatype::Ipv6Addr,
            Self::ArpOperation => Datatype::ArpOp,
            Self::TcpFlags => Datatype::TcpFlag,
            Self::TcpDport | Self::UdpSport | Self::UdpDport | Self::ThDport => Datatype::InetService,
            Self::IcmpType => Datatype::IcmpType,
            Self::Icmp6Type => Datatype::Icmp6Type,
            Self::IpFragmentOffset => Datatype::IpFragmentOffset,
            Self::Ip6FragmentOffset => Datatype::Ip6FragmentOffset,
            Self::Ip6FragmentHeader => Datatype::Boolean,
            Self::Raw(raw) => Datatype::Raw(raw),
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
            Self::Raw(raw) => return raw.fmt(f),
            Self::IifName => "iifname",
            Self::OifName => "oifname",
            Self::IifType => "iiftype",
            Self::Mark => "meta mark",
            Self::DaddrType => "fib daddr type",
            Self::DaddrTypeOnIif => "fib daddr . iif type",
            Self::SaddrTypeOnOif => "fib saddr . oif type",
            Self::Protocol => "meta protocol",
            Self::NfProto => "meta nfproto",
            Self::L4Proto => "meta l4proto",
            Self::EtherDaddr => "ether daddr",
            Self::EtherSaddr => "ether saddr",
            Self::EtherType => "ether type",
            Self::IpProtocol => "ip protocol",
            Self::IpSaddr => "ip saddr",
            Self::IpDaddr => "ip daddr",
            Self::Ip6NextHeader => "ip6 nexthdr",
            Self::Ip6Saddr => "ip6 saddr",
            Self::Ip6Daddr => "ip6 daddr",
            Self::ArpOperation => "arp operation",
            Self::ArpSaddrEther => "arp saddr ether",
            Self::ArpSaddrIp => "arp saddr ip",
            Self::ArpDaddrIp => "arp daddr ip",
            Self::TcpFlags => "tcp flags",
            Self::TcpDport => "tcp dport",
            Self::UdpSport => "udp sport",
            Self::UdpDport => "udp dport",
            Self::ThDport => "th dport",
            Self::IcmpType => "icmp type",
            Self::Icmp6Type => "icmpv6 type",
            Self::IpFragmentOffset => "ip frag-off",
            Self::Ip6FragmentOffset => "frag frag-off",
            Self::Ip6FragmentHeader => "exthdr frag",
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
