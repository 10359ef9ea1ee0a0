//! Frames that pass the filters, and what a guest would have written into them behind these.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::harness::frame::{self, ARP, ICMP, ICMPV6, IPV4, IPV6, Mac, UDP};
use crate::harness::guest::Identity;
use crate::harness::topology::{OUTSIDE, OUTSIDE6};
use crate::harness::virtio::{Header, forged};

/// TCP, and where its header has checksum and flags.
pub const TCP: u8 = 6;
pub const TCP_CHECKSUM: u16 = 16;
pub const TCP_FLAGS: usize = 12;
/// Where IPv4 and IPv6 begin in a frame, and what follows them.
pub const NETWORK: usize = 14;
pub const BEHIND_IPV4: usize = NETWORK + 20;
pub const BEHIND_IPV6: usize = NETWORK + 40;
/// The last two octets of the source address.
const SOURCE4: usize = NETWORK + 14;
const SOURCE6: usize = NETWORK + 22;
/// Where the checksums begin: current kernels take no place before 20, and what a router changes behind it, TTL and checksum of an
/// IPv4 header, keeps the sum.
const START4: usize = 20;
/// Behind the hop limit of IPv6.
const START6: usize = 22;

/// A frame that the filters let pass, and what would be written into it.
#[derive(Clone)]
pub struct Forgery {
    pub name: &'static str,
    pub header: Header,
    pub frame: Vec<u8>,
    wanted: u16,
}

impl Forgery {
    pub fn new(name: &'static str, frame: Vec<u8>, target: usize, wanted: u16) -> Self {
        let spare = frame.len() - 2;
        Self::with_spare(name, frame, target, spare, wanted)
    }

    fn with_spare(name: &'static str, frame: Vec<u8>, target: usize, spare: usize, wanted: u16) -> Self {
        let start = if frame[12..14] == IPV6.to_be_bytes() { START6 } else { START4 };
        let (header, frame) = forged(frame, start, target, spare, wanted);
        Self { name, header, frame, wanted }
    }

    /// Of a TCP segment that the kernel cuts into pieces: the place is that of a checksum of TCP which would begin elsewhere.
    fn gso(name: &'static str, frame: Vec<u8>, target: usize, wanted: u16) -> Self {
        let start = target - usize::from(TCP_CHECKSUM);
        let spare = frame.len() - 2;
        let (header, frame) = forged(frame, start, target, spare, wanted);
        let (gso_type, hdr_len) = if frame[12..14] == [8, 0] { (1, 54) } else { (4, 74) };
        Self { name, header: Header { gso_type, hdr_len, gso_size: 1400, ..header }, frame, wanted }
    }

    /// Whether a frame that arrived from `source` is the forged one, or is to become it.
    pub fn is(&self, source: Mac, (header, frame): &(Header, Vec<u8>)) -> bool {
        let target = self.header.target().unwrap_or_default();
        let written = frame.get(target..target + 2) == Some(&self.wanted.to_be_bytes()[..]);
        frame.get(6..14) == Some(&[&source.0[..], &self.frame[12..14]].concat()[..])
            && (written || header.target() == Some(target))
    }
}

pub fn tcp(data: &[u8]) -> Vec<u8> {
    let mut bytes = [40000_u16.to_be_bytes(), 22_u16.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 4, 0, 0, 0, 0, 0]);
    bytes.extend(data);
    bytes
}

/// Where all packets go to.
pub fn addresses() -> (Ipv4Addr, Ipv6Addr) {
    match (OUTSIDE, OUTSIDE6) {
        (IpAddr::V4(outside), IpAddr::V6(outside6)) => (outside, outside6),
        mixed => panic!("an address of each family: {mixed:?}"),
    }
}

pub fn ip4(id: Identity, to: Mac, protocol: u8, payload: &[u8]) -> Vec<u8> {
    frame::ethernet(to, id.mac, IPV4, &frame::ipv4(id.ip, addresses().0, protocol, payload))
}

pub fn ip6(id: Identity, to: Mac, next: u8, payload: &[u8]) -> Vec<u8> {
    frame::ethernet(to, id.mac, IPV6, &frame::ipv6(id.ip6, addresses().1, next, 64, payload))
}

/// Ports, a length that may lie, and a checksum.
pub fn udp(length: Option<u16>, check: u16) -> Vec<u8> {
    let data = [0; 20];
    let mut bytes: Vec<u8> =
        [5000, 6000, length.unwrap_or(28), check].iter().flat_map(|field: &u16| field.to_be_bytes()).collect();
    bytes.extend(data);
    bytes
}

/// What a strictly filtered guest must not send, each made of what it may.
pub fn forgeries(id: Identity, to: Mac) -> Vec<Forgery> {
    let arp = frame::arp(2, (id.mac, id.ip), (to, addresses().0));
    let arp = frame::ethernet(to, id.mac, ARP, &[arp, vec![0; 18]].concat());
    let echo = |kind: u8| [&[kind, 0, 0, 0][..], &[7; 20]].concat();
    let advertisement = frame::neighbour_advertisement((id.mac, id.ip6), (to, addresses().1), 0x60);
    // Its reserved octets.
    let reserved = BEHIND_IPV6 + 6;
    let options = [[UDP, 0, 1, 4, 0, 0, 0, 0].to_vec(), udp(None, 0x1234)].concat();
    // Of the IPv4 address that of the gateway is made.
    let other = 0x0001;
    vec![
        Forgery::new("ARP of another source", arp, NETWORK + 16, other),
        Forgery::new("UDP of another source", ip4(id, to, UDP, &udp(None, 0)), SOURCE4, other),
        Forgery::new("TCP of another source", ip4(id, to, TCP, &tcp(&[0; 20])), SOURCE4, other),
        Forgery::new("ICMP of another source", ip4(id, to, ICMP, &echo(0)), SOURCE4, other),
        Forgery::new("UDP of another length", ip4(id, to, UDP, &udp(Some(20), 0x1234)), SOURCE4, other),
        Forgery::new("UDP of another length without a checksum", ip4(id, to, UDP, &udp(Some(20), 0)), SOURCE4, other),
        Forgery::new("UDP of a length beyond the frame", ip4(id, to, UDP, &udp(Some(200), 0x1234)), SOURCE4, other),
        Forgery::new("an answer of DHCP", ip4(id, to, UDP, &udp(None, 0)), BEHIND_IPV4, 67),
        Forgery::new("UDP over IPv6 of another source", ip6(id, to, UDP, &udp(None, 0x1234)), SOURCE6, other),
        Forgery::new("TCP over IPv6 of another source", ip6(id, to, TCP, &tcp(&[0; 20])), SOURCE6, other),
        Forgery::new("UDP over IPv6 of another length", ip6(id, to, UDP, &udp(Some(20), 0x1234)), SOURCE6, other),
        Forgery::new("UDP behind an extension header", ip6(id, to, 60, &options), SOURCE6, other),
        Forgery::new("a router advertisement", ip6(id, to, ICMPV6, &echo(129)), BEHIND_IPV6, 0x8600),
        Forgery::with_spare("an advertisement of a neighbour", advertisement, BEHIND_IPV6 + 22, reserved, 0x9999),
    ]
}

/// The same of frames that the kernel, or a card, cuts into pieces.
pub fn gso_forgeries(id: Identity, to: Mac) -> Vec<Forgery> {
    let data = vec![0; 6000];
    vec![
        Forgery::gso("TCP over IPv6 of another source", ip6(id, to, TCP, &tcp(&data)), SOURCE6, 0x0001),
        Forgery::gso("a request of TCP", ip4(id, to, TCP, &tcp(&data)), BEHIND_IPV4 + TCP_FLAGS, 0x5002),
    ]
}
