//! Frames that no honest guest sends: tagged, encapsulated, cut short, hidden behind headers, split into fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::harness::frame::{self, ICMPV6, IPV4, IPV6, Mac, UDP};

/// VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// Service tag (IEEE 802.1ad), the outer one of QinQ.
pub const SERVICE_VLAN: u16 = 0x88a8;
/// Reverse ARP (RFC 903), which QEMU sends after a migration.
pub const RARP: u16 = 0x8035;
/// Link layer discovery (IEEE 802.1AB).
pub const LLDP: u16 = 0x88cc;
/// MAC control (IEEE 802.3x), such as pause frames.
pub const MAC_CONTROL: u16 = 0x8808;

/// The group of the spanning tree, of which 01 is that of pause frames and 0e that of LLDP (IEEE 802.1D, table 7-10).
pub const fn bridge_group(last: u8) -> Mac {
    Mac([1, 0x80, 0xc2, 0, 0, last])
}

/// Next header numbers (RFC 8200).
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;
/// TCP.
pub const TCP: u8 = 6;

/// Puts tags (ether type, VLAN) between the addresses and the type of a frame, the outermost first.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(kind, vlan)| [kind.to_be_bytes(), vlan.to_be_bytes()].concat());
    frame[..12].iter().copied().chain(tags).chain(frame[12..].iter().copied()).collect()
}

/// The frame in LLC/SNAP encapsulation (RFC 1042): a length in place of the type, then aa aa 03, organisation 0, type.
pub fn snap(frame: &[u8]) -> Vec<u8> {
    llc(frame, &[&[0xaa, 0xaa, 3, 0, 0, 0], &frame[12..]].concat())
}

/// The addresses of a frame with an LLC payload (IEEE 802.2) and its length.
pub fn llc(frame: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short frame");
    [&frame[..12], &length.to_be_bytes(), payload].concat()
}

/// A configuration BPDU (IEEE 802.1D, 9.3.1) by which `mac`, with priority 0, claims to be the root of the tree.
pub fn bpdu(mac: Mac) -> Vec<u8> {
    let bridge = [&[0, 0][..], &mac.0].concat();
    let mut bytes = vec![0x42, 0x42, 3, 0, 0, 0, 0, 0];
    bytes.extend(&bridge);
    bytes.extend([0; 4]);
    bytes.extend(&bridge);
    // Port; message age, maximum age, hello time, forward delay in 1/256 s.
    bytes.extend([0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]);
    llc(&frame::ethernet(bridge_group(0), mac, 0, &[]), &bytes)
}

/// The frame with another Ethernet source.
pub fn from(source: Mac, mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&source.0);
    frame
}

/// The frame with another Ethernet destination.
pub fn to(destination: Mac, mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&destination.0);
    frame
}

/// The first `length` bytes of a frame.
pub fn cut(length: usize, mut frame: Vec<u8>) -> Vec<u8> {
    frame.truncate(length);
    frame
}

/// An IPv6 extension header of one of the kinds that are made of options (RFC 8200, 4.2), with padding alone.
pub fn options(next: u8, units: u8) -> Vec<u8> {
    let length = usize::from(units) * 8;
    let mut bytes = vec![next, units - 1, 1, u8::try_from(length - 4).expect("a short header")];
    bytes.resize(length, 0);
    bytes
}

/// A routing header of type 0 with no segments left (RFC 8200, 4.4).
pub fn routing(next: u8) -> Vec<u8> {
    vec![next, 0, 0, 0, 0, 0, 0, 0]
}

/// A fragment header (RFC 8200, 4.5); the offset in units of eight bytes.
pub fn fragment_header(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    vec![next, 0, field[0], field[1], 0x5e, 0xed, 0x5e, 0xed]
}

/// The packet with extension headers between the IPv6 header and what follows it. `headers` are of kind and bytes; the
/// first byte of each is filled in here.
pub fn behind(packet: &[u8], headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let (source, destination) = addresses6(packet);
    let mut next = packet[6];
    let mut payload = packet[40..].to_vec();
    for (kind, header) in headers.iter().rev() {
        let mut header = header.clone();
        header[0] = next;
        payload = [header, payload].concat();
        next = *kind;
    }
    frame::ipv6(source, destination, next, packet[7], &payload)
}

/// An IPv6 packet in two fragments, the first with `units` times eight bytes of its payload.
pub fn fragments6(packet: &[u8], units: u16) -> [Vec<u8>; 2] {
    let (source, destination) = addresses6(packet);
    let (first, second) = packet[40..].split_at(usize::from(units) * 8);
    let part = |offset, more, bytes: &[u8]| {
        let payload = [&fragment_header(packet[6], offset, more)[..], bytes].concat();
        frame::ipv6(source, destination, FRAGMENT, packet[7], &payload)
    };
    [part(0, true, first), part(units, false, second)]
}

/// An IPv4 packet in two fragments, the first with `units` times eight bytes of its payload.
pub fn fragments4(packet: &[u8], units: u16) -> [Vec<u8>; 2] {
    let (first, second) = packet[20..].split_at(usize::from(units) * 8);
    [fragment4(packet, 0x2000, first), fragment4(packet, units, second)]
}

/// The header of an IPv4 packet, with flags and offset, and other bytes behind it.
pub fn fragment4(packet: &[u8], flags_and_offset: u16, bytes: &[u8]) -> Vec<u8> {
    let (source, destination) = (address4(packet, 12), address4(packet, 16));
    let mut part = frame::ipv4(source, destination, packet[9], bytes);
    part[4..6].copy_from_slice(&[0x5e, 0xed]);
    part[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    part[10..12].copy_from_slice(&[0, 0]);
    let sum = frame::checksum(&part[..20]).to_be_bytes();
    part[10..12].copy_from_slice(&sum);
    part
}

/// An IPv4 packet with four bytes of options (no operation) in its header.
pub fn with_options4(packet: &[u8]) -> Vec<u8> {
    let mut bytes = [&packet[..20], &[1, 1, 1, 0], &packet[20..]].concat();
    bytes[0] = 0x46;
    let length = u16::try_from(bytes.len()).expect("a short packet").to_be_bytes();
    bytes[2..4].copy_from_slice(&length);
    bytes[10..12].copy_from_slice(&[0, 0]);
    let sum = frame::checksum(&bytes[..24]).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes
}

fn address4(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

fn addresses6(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
    let at = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("16 bytes"));
    (at(8), at(24))
}

/// A frame for an IP packet; its family decides the type.
pub fn packet(destination: Mac, source: Mac, packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 4 { IPV4 } else { IPV6 };
    frame::ethernet(destination, source, ether_type, packet)
}

/// A router advertisement of a default route, with a prefix for addresses (RFC 4861, 4.2 and 4.6.2), as a packet.
pub fn router_advertisement(source: Ipv6Addr, destination: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([1, 1]);
    bytes.extend(mac.0);
    bytes.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0).octets());
    frame::icmpv6(source, destination, 255, bytes)
}

/// A redirect (RFC 4861, 4.5) of `target` to `better`, as a packet.
pub fn redirect6(source: Ipv6Addr, destination: Ipv6Addr, better: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![137, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(better.octets());
    bytes.extend(target.octets());
    frame::icmpv6(source, destination, 255, bytes)
}

/// A redirect for a host (RFC 792) of `target` to `better`, as a packet, for a datagram that the listener may have sent.
pub fn redirect4(source: Ipv4Addr, destination: Ipv4Addr, better: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 0];
    bytes.extend(better.octets());
    bytes.extend(frame::ipv4(destination, target, UDP, &[0, 9, 0, 7, 0, 8, 0, 0]));
    let sum = frame::checksum(&bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    frame::ipv4(source, destination, frame::ICMP, &bytes)
}

/// A neighbour advertisement as a packet: whose address it speaks of, and what its link-layer options say.
pub fn advertisement(source: Ipv6Addr, destination: Ipv6Addr, flags: u8, target: Ipv6Addr, options: &[Mac]) -> Vec<u8> {
    let mut bytes = vec![136, 0, 0, 0, flags, 0, 0, 0];
    bytes.extend(target.octets());
    bytes.extend(options.iter().flat_map(|mac| [&[2, 1][..], &mac.0].concat()));
    frame::icmpv6(source, destination, 255, bytes)
}

/// A neighbour solicitation as a packet to the target's solicited-node group, with a source link-layer option or none.
pub fn solicitation(source: Ipv6Addr, target: Ipv6Addr, option: Option<Mac>) -> Vec<u8> {
    let mut bytes = vec![135, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(target.octets());
    if let Some(mac) = option {
        bytes.extend([1, 1]);
        bytes.extend(mac.0);
    }
    frame::icmpv6(source, solicited_node(target), 255, bytes)
}

/// The solicited-node group of an address (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// A report of a listener to a group (RFC 3810, 5.2), behind the router alert that it always has.
pub fn listener_report(source: Ipv6Addr, group: Ipv6Addr) -> Vec<u8> {
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
    let mut bytes = vec![143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0];
    bytes.extend(group.octets());
    let packet = frame::icmpv6(source, all_routers, 1, bytes);
    behind(&packet, &[(HOP_BY_HOP, vec![0, 0, 5, 2, 0, 0, 1, 0])])
}

/// What a DHCP server (RFC 2131) says in its offer, or a client when it renews: `operation` 2 or 1.
pub fn dhcp(operation: u8, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), mac: Mac) -> Vec<u8> {
    let mut bytes = vec![operation, 1, 6, 0, 0x5e, 0xed, 0x5e, 0xed];
    bytes.resize(28, 0);
    bytes.extend(mac.0);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, if operation == 2 { 2 } else { 3 }, 255]);
    let ends = |(address, port): (Ipv4Addr, u16)| (IpAddr::V4(address), port);
    frame::udp(ends(source), ends(destination), &bytes)
}

/// A DHCPv6 message (RFC 8415): 2 is a server's advertisement, 1 a client's solicitation.
pub fn dhcp6(kind: u8, source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16)) -> Vec<u8> {
    let ends = |(address, port): (Ipv6Addr, u16)| (IpAddr::V6(address), port);
    frame::udp(ends(source), ends(destination), &[kind, 0x5e, 0xed, 0x5e, 0, 1, 0, 4, 0, 3, 0, 1])
}

/// A TCP segment without data, in its packet; `flags` as in byte 13 (RFC 9293, 3.1).
pub fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.1.to_be_bytes());
    bytes.extend(destination.1.to_be_bytes());
    bytes.extend([0x5e, 0xed, 0x5e, 0xed, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    match (source.0, destination.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u8::try_from(bytes.len()).expect("a header");
            let pseudo = [&from.octets()[..], &to.octets(), &[0, TCP, 0, length]].concat();
            let sum = frame::checksum(&[pseudo, bytes.clone()].concat()).to_be_bytes();
            bytes[16..18].copy_from_slice(&sum);
            frame::ipv4(from, to, TCP, &bytes)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let pseudo = frame::pseudo_header(from, to, TCP, bytes.len());
            let sum = frame::checksum(&[pseudo, bytes.clone()].concat()).to_be_bytes();
            bytes[16..18].copy_from_slice(&sum);
            frame::ipv6(from, to, TCP, 64, &bytes)
        }
        mixed => panic!("two families: {mixed:?}"),
    }
}

/// An ICMPv6 message that is neither an error nor of neighbour discovery, for where any would do.
pub fn echo6(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let packet = frame::echo_request(source.into(), destination.into(), 0x5eed, 1);
    debug_assert_eq!(packet[6], ICMPV6);
    packet
}
