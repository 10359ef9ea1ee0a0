//! Constants of a ruleset and their data types, as nft names and prints them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Raw;
use crate::addr::{IfName, Mac};

/// What a field or a part of a set's key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datatype {
    /// An interface name.
    IfName,
    /// An IPv4 address.
    Ipv4Addr,
    /// An IPv6 address.
    Ipv6Addr,
    /// An Ethernet address.
    EtherAddr,
    /// An EtherType.
    EtherType,
    /// An ARP operation.
    ArpOp,
    /// A protocol above IP.
    InetProto,
    /// A netfilter protocol family.
    NfProto,
    /// A link type (ARPHRD_*).
    IfaceType,
    /// A packet's mark.
    Mark,
    /// What an address is to the node.
    FibAddrType,
    /// Flags of TCP.
    TcpFlag,
    /// A port of TCP or UDP.
    InetService,
    /// A type of ICMP.
    IcmpType,
    /// A type of ICMPv6.
    Icmp6Type,
    /// Place of a fragment in its IPv4 packet.
    IpFragmentOffset,
    /// Place of a fragment in its IPv6 packet.
    Ip6FragmentOffset,
    /// Whether something is there.
    Boolean,
    /// Bits without a type of their own: displayed, an example of them.
    Raw(Raw),
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw(raw) => return raw.fmt(f),
            Self::IfName => "ifname",
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::EtherAddr => "ether_addr",
            Self::EtherType => "ether_type",
            Self::ArpOp => "arp_op",
            Self::InetProto => "inet_proto",
            Self::NfProto => "nf_proto",
            Self::IfaceType => "iface_type",
            Self::Mark => "mark",
            Self::FibAddrType => "fib_addrtype",
            Self::TcpFlag => "tcp_flag",
            Self::InetService => "inet_service",
            Self::IcmpType => "icmp_type",
            Self::Icmp6Type => "icmpv6_type",
            Self::IpFragmentOffset | Self::Ip6FragmentOffset => "integer",
            Self::Boolean => "boolean",
        })
    }
}

/// A constant: what a field is compared with, a mask, or a part of an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An interface name.
    IfName(IfName),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// An Ethernet address.
    Mac(Mac),
    /// An EtherType (linux/if_ether.h).
    EtherType(u16),
    /// An ARP operation (1 request, 2 reply; linux/if_arp.h).
    ArpOp(u16),
    /// A protocol above IP (6 TCP, 17 UDP, 58 ICMPv6; linux/in.h).
    InetProto(u8),
    /// A netfilter protocol family (2 IPv4, 10 IPv6; linux/netfilter.h).
    NfProto(u8),
    /// A link type (1 Ethernet; linux/if_arp.h).
    IfaceType(u16),
    /// A packet's mark.
    Mark(u32),
    /// What an address is to the node (RTN_*: 1 unicast of another host, 2 local, 3 broadcast, 5 multicast; linux/rtnetlink.h).
    FibAddrType(u32),
    /// Flags of TCP (0x02 SYN, 0x10 ACK; RFC 9293, 3.1).
    TcpFlags(u8),
    /// A port of TCP or UDP.
    Port(u16),
    /// A type of ICMP (3 destination unreachable; linux/icmp.h).
    IcmpType(u8),
    /// A type of ICMPv6 (134 router advertisement; linux/icmpv6.h and net/ndisc.h).
    Icmp6Type(u8),
    /// Flags and place of a fragment in its IPv4 packet (3 and 13 bits; RFC 791, 3.1).
    IpFragmentOffset(u16),
    /// Place of a fragment in its IPv6 packet, in units of eight bytes (13 bits; RFC 8200, 4.5).
    Ip6FragmentOffset(u16),
    /// Whether something is there.
    Exists(bool),
    /// What raw bits hold, as a number in the order of transmission; no more bits than they are.
    Raw(Raw, u128),
}

impl Value {
    /// The data type of this value.
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::IfName(_) => Datatype::IfName,
            Self::V4(_) => Datatype::Ipv4Addr,
            Self::V6(_) => Datatype::Ipv6Addr,
            Self::Mac(_) => Datatype::EtherAddr,
            Self::EtherType(_) => Datatype::EtherType,
            Self::ArpOp(_) => Datatype::ArpOp,
            Self::InetProto(_) => Datatype::InetProto,
            Self::NfProto(_) => Datatype::NfProto,
            Self::IfaceType(_) => Datatype::IfaceType,
            Self::Mark(_) => Datatype::Mark,
            Self::FibAddrType(_) => Datatype::FibAddrType,
            Self::TcpFlags(_) => Datatype::TcpFlag,
            Self::Port(_) => Datatype::InetService,
            Self::IcmpType(_) => Datatype::IcmpType,
            Self::Icmp6Type(_) => Datatype::Icmp6Type,
            Self::IpFragmentOffset(_) => Datatype::IpFragmentOffset,
            Self::Ip6FragmentOffset(_) => Datatype::Ip6FragmentOffset,
            Self::Exists(_) => Datatype::Boolean,
            Self::Raw(raw, _) => Datatype::Raw(*raw),
        }
    }

    /// The mask of a prefix of IPv4 addresses (`length` above 32 counts as 32).
    pub fn prefix4(length: u8) -> Self {
        let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        Self::V4(Ipv4Addr::from_bits(!host))
    }

    /// The mask of a prefix of IPv6 addresses (`length` above 128 counts as 128).
    pub fn prefix6(length: u8) -> Self {
        let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
        Self::V6(Ipv6Addr::from_bits(!host))
    }

    /// The length of the prefix this address is the mask of, if it is one.
    pub fn prefix_length(&self) -> Option<u32> {
        match self {
            Self::V4(mask) => {
                let ones = mask.to_bits().leading_ones();
                (ones == mask.to_bits().count_ones()).then_some(ones)
            }
            Self::V6(mask) => {
                let ones = mask.to_bits().leading_ones();
                (ones == mask.to_bits().count_ones()).then_some(ones)
            }
            _ => None,
        }
    }

    /// This value without the bits that `mask` lacks. Only addresses, marks, TCP's flags and IPv4's fragment offset can be
    /// masked: anything else stays as it is.
    #[must_use]
    pub fn masked(&self, mask: &Self) -> Self {
        match (self, mask) {
            (Self::V4(value), Self::V4(mask)) => Self::V4(*value & *mask),
            (Self::V6(value), Self::V6(mask)) => Self::V6(*value & *mask),
            (Self::Mac(value), Self::Mac(mask)) => {
                Self::Mac(Mac(std::array::from_fn(|octet| value.0[octet] & mask.0[octet])))
            }
            (Self::Mark(value), Self::Mark(mask)) => Self::Mark(value & mask),
            (Self::TcpFlags(value), Self::TcpFlags(mask)) => Self::TcpFlags(value & mask),
            (Self::IpFragmentOffset(value), Self::IpFragmentOffset(mask)) => Self::IpFragmentOffset(value & mask),
            _ => self.clone(),
        }
    }

    /// The other bits: of marks only, anything else stays as it is.
    #[must_use]
    pub fn inverted(&self) -> Self {
        match self {
            Self::Mark(value) => Self::Mark(!value),
            _ => self.clone(),
        }
    }
}

/// `syn`, or `(syn | ack)`.
fn tcp_flags(flags: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let set: Vec<_> = (0..8).filter(|bit| flags & (1 << bit) != 0).map(|bit| NAMES[bit]).collect();
    match set.as_slice() {
        [] => f.write_str("0"),
        [name] => f.write_str(name),
        names => write!(f, "({})", names.join(" | ")),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IfName(name) => {
                f.write_str("\"")?;
                f.write_str(name.as_str())?;
                f.write_str("\"")
            }
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
            Self::EtherType(0x0800) => f.write_str("ip"),
            Self::EtherType(0x0806) => f.write_str("arp"),
            Self::EtherType(0x86dd) => f.write_str("ip6"),
            Self::EtherType(0x8100) => f.write_str("8021q"),
            Self::EtherType(0x88a8) => f.write_str("8021ad"),
            Self::EtherType(number) => write!(f, "0x{number:04x}"),
            Self::ArpOp(1) => f.write_str("request"),
            Self::ArpOp(2) => f.write_str("reply"),
            Self::InetProto(1) => f.write_str("icmp"),
            Self::InetProto(2) => f.write_str("igmp"),
            Self::InetProto(6) => f.write_str("tcp"),
            Self::InetProto(17) => f.write_str("udp"),
            Self::InetProto(58) => f.write_str("ipv6-icmp"),
            Self::NfProto(2) => f.write_str("ipv4"),
            Self::NfProto(10) => f.write_str("ipv6"),
            Self::IfaceType(1) => f.write_str("ether"),
            Self::Mark(mark) => write!(f, "0x{mark:08x}"),
            Self::FibAddrType(1) => f.write_str("unicast"),
            Self::FibAddrType(2) => f.write_str("local"),
            Self::FibAddrType(3) => f.write_str("broadcast"),
            Self::FibAddrType(5) => f.write_str("multicast"),
            Self::FibAddrType(number) => number.fmt(f),
            Self::TcpFlags(flags) => tcp_flags(*flags, f),
            Self::IcmpType(0) | Self::Icmp6Type(129) => f.write_str("echo-reply"),
            Self::IcmpType(3) => f.write_str("destination-unreachable"),
            Self::IcmpType(11) => f.write_str("time-exceeded"),
            Self::IcmpType(12) => f.write_str("parameter-problem"),
            Self::Icmp6Type(1) => f.write_str("destination-unreachable"),
            Self::Icmp6Type(2) => f.write_str("packet-too-big"),
            Self::Icmp6Type(3) => f.write_str("time-exceeded"),
            Self::Icmp6Type(4) => f.write_str("parameter-problem"),
            Self::Icmp6Type(128) => f.write_str("echo-request"),
            Self::Icmp6Type(133) => f.write_str("nd-router-solicit"),
            Self::Icmp6Type(134) => f.write_str("nd-router-advert"),
            Self::Icmp6Type(135) => f.write_str("nd-neighbor-solicit"),
            Self::Icmp6Type(136) => f.write_str("nd-neighbor-advert"),
            Self::Icmp6Type(137) => f.write_str("nd-redirect"),
            Self::InetProto(number) | Self::NfProto(number) | Self::IcmpType(number) | Self::Icmp6Type(number) => {
                number.fmt(f)
            }
            Self::Exists(true) => f.write_str("exists"),
            Self::Exists(false) => f.write_str("missing"),
            Self::IpFragmentOffset(number @ 1..) => write!(f, "{number:#x}"),
            Self::ArpOp(number)
            | Self::IfaceType(number)
            | Self::Port(number)
            | Self::IpFragmentOffset(number)
            | Self::Ip6FragmentOffset(number) => number.fmt(f),
            Self::Raw(raw, number) => write!(f, "0x{number:0digits$x}", digits = usize::from(raw.length) * 2),
        }
    }
}

/// Free text on a set or an element. Only what nft can print and read again stays in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Comment(String);

impl Comment {
    /// Longest comment in bytes that nft accepts (NFTNL_UDATA_COMMENT_MAXLEN of libnftnl).
    pub const MAX: usize = 127;

    /// A comment of the printable ASCII in `text`, of [`Self::MAX`] bytes at most; quotes, backslashes and anything else
    /// become `_`.
    pub fn new(text: &str) -> Self {
        let plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if text.len() <= Self::MAX && text.bytes().all(plain) {
            return Self(text.to_owned());
        }
        let shown = |c| if u8::try_from(c).is_ok_and(plain) { c } else { '_' };
        Self(text.chars().take(Self::MAX).map(shown).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "comment \"{}\"", self.0)
    }
}
