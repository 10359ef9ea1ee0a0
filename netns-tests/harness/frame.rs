//! Frames as bytes: what guests and attackers send. Written out by hand, so that it shares nothing with the program.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The target of an ARP question.
    pub const ZERO: Self = Self([0; 6]);

    /// The one of an IPv6 multicast group (RFC 2464, section 7).
    pub fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }

    /// The link-local address of an interface with this MAC (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        self.in_prefix("fe80::".parse().expect("an address"))
    }

    /// The modified EUI-64 address in the /64 that `prefix` is in.
    pub fn in_prefix(self, prefix: Ipv6Addr) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let mut octets = prefix.octets();
        octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        octets.into()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Ether type of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ether type of ARP.
pub const ARP: u16 = 0x0806;
/// Ether type of IPv6.
pub const IPV6: u16 = 0x86dd;

/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// The group of all nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The group of all routers on the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// An Ethernet frame, without padding.
pub fn ethernet(destination: Mac, source: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&destination.0[..], &source.0, &ether_type.to_be_bytes(), payload].concat()
}

/// An ARP packet (RFC 826): `operation` 1 asks, 2 answers; then sender and target.
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend(operation.to_be_bytes());
    for (mac, ip) in [sender, target] {
        bytes.extend(mac.0);
        bytes.extend(ip.octets());
    }
    bytes
}

/// The frame of an ARP question, to everybody.
pub fn arp_request(sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    ethernet(Mac::BROADCAST, sender.0, ARP, &arp(1, sender, (Mac::ZERO, target)))
}

/// An IPv4 packet of 64 hops.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short packet").to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [header, payload.to_vec()].concat()
}

/// An IPv6 packet.
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short packet").to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, length[0], length[1], next, hops];
    header.extend(source.octets());
    header.extend(destination.octets());
    [header, payload.to_vec()].concat()
}

/// A UDP datagram in its IPv4 or IPv6 packet.
///
/// # Panics
/// If the addresses are of two families.
pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).expect("a short datagram");
    let mut bytes = Vec::new();
    for field in [source.1, destination.1, length, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(data);
    match (source.0, destination.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, UDP, &bytes),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let sum = checksum(&[pseudo_header(from, to, UDP, bytes.len()), bytes.clone()].concat()).to_be_bytes();
            bytes[6..8].copy_from_slice(&sum);
            ipv6(from, to, UDP, 64, &bytes)
        }
        mixed => panic!("two families: {mixed:?}"),
    }
}

/// An echo request in its IPv4 or IPv6 packet.
pub fn echo_request(source: IpAddr, destination: IpAddr, id: u16, sequence: u16) -> Vec<u8> {
    echo(false, source, destination, [id, sequence], b"snf-network")
}

/// An echo request or reply (RFC 792, RFC 4443) in its packet.
///
/// # Panics
/// If the addresses are of two families.
pub fn echo(reply: bool, source: IpAddr, destination: IpAddr, id_sequence: [u16; 2], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(id_sequence.iter().flat_map(|field| field.to_be_bytes()));
    bytes.extend(data);
    match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes[0] = if reply { 0 } else { 8 };
            let sum = checksum(&bytes).to_be_bytes();
            bytes[2..4].copy_from_slice(&sum);
            ipv4(from, to, ICMP, &bytes)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes[0] = if reply { 129 } else { 128 };
            icmpv6(from, to, 64, bytes)
        }
        mixed => panic!("two families: {mixed:?}"),
    }
}

/// A neighbour solicitation (RFC 4861, section 4.3) to the target's solicited-node group, as a frame.
pub fn neighbour_solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut bytes = vec![135, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(target.octets());
    bytes.extend([1, 1]);
    bytes.extend(mac.0);
    ethernet(Mac::of_group(group), mac, IPV6, &icmpv6(source, group, 255, bytes))
}

/// A neighbour advertisement (RFC 4861, section 4.4) with the target's link-layer address, as a frame. `flags` are
/// those of its fifth byte: router 0x80, solicited 0x40, override 0x20.
pub fn neighbour_advertisement(source: (Mac, Ipv6Addr), destination: (Mac, Ipv6Addr), flags: u8) -> Vec<u8> {
    let mut bytes = vec![136, 0, 0, 0, flags, 0, 0, 0];
    bytes.extend(source.1.octets());
    bytes.extend([2, 1]);
    bytes.extend(source.0.0);
    ethernet(destination.0, source.0, IPV6, &icmpv6(source.1, destination.1, 255, bytes))
}

/// A router solicitation (RFC 4861, section 4.1), as a frame.
pub fn router_solicitation(mac: Mac) -> Vec<u8> {
    let mut bytes = vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    bytes.extend(mac.0);
    let packet = icmpv6(mac.link_local(), ALL_ROUTERS, 255, bytes);
    ethernet(Mac::of_group(ALL_ROUTERS), mac, IPV6, &packet)
}

/// A router advertisement (RFC 4861, section 4.2) of a lifetime of 1800 s and no option, as a frame.
pub fn router_advertisement(mac: Mac, source: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, 0, 7, 8];
    bytes.extend([0; 8]);
    ethernet(Mac::of_group(ALL_NODES), mac, IPV6, &icmpv6(source, ALL_NODES, 255, bytes))
}

/// A DHCPDISCOVER (RFC 2131), as a frame.
pub fn dhcp_discover(mac: Mac) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(0x1234_5678_u32.to_be_bytes());
    bytes.resize(28, 0);
    bytes.extend(mac.0);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    let packet = udp((Ipv4Addr::UNSPECIFIED.into(), 68), (Ipv4Addr::BROADCAST.into(), 67), &bytes);
    ethernet(Mac::BROADCAST, mac, IPV4, &packet)
}

/// An ICMPv6 message in its packet; fills in the checksum.
pub fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, hops: u8, mut message: Vec<u8>) -> Vec<u8> {
    let pseudo = pseudo_header(source, destination, ICMPV6, message.len());
    let sum = checksum(&[pseudo, message.clone()].concat()).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ipv6(source, destination, ICMPV6, hops, &message)
}

/// What an upper-layer checksum over IPv6 also covers (RFC 8200, section 8.1).
pub fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, next: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).expect("a short packet").to_be_bytes();
    [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, next]].concat()
}

/// The Internet checksum (RFC 1071). Over bytes that hold a right one it is 0.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum = words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}
