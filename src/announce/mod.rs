//! What tells the neighbours on a link where an address is now: gratuitous ARP and unsolicited advertisements.
//!
//! A round for an IPv4 address is a request and a reply, since some receivers ignore the one and some the other
//! (RFC 5227, section 3); for an IPv6 address it is one advertisement with the override flag, without which no stale
//! entry would be replaced (RFC 4861, section 7.2.5).

pub mod repeat;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;

use crate::addr::{Family, IfName, Mac};
use crate::frame::{Arp, ArpOperation, BROADCAST, Frame, Message, NeighbourAdvertisement, Packet};

/// How often a round is sent in all: frames get lost (RFC 4861, MAX_NEIGHBOR_ADVERTISEMENT; RFC 5227 asks for two).
pub const ROUNDS: u32 = 3;

/// From one round to the next: a little more than the second for which Linux ignores a second answer
/// (`locktime` of a neighbour table).
pub const INTERVAL: Duration = Duration::from_millis(1100);

/// An address that is to be announced on a link, with the link's own MAC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Announcement {
    /// The address that is reached through us.
    pub address: IpAddr,
    /// The device on whose link the neighbours are.
    pub device: IfName,
}

impl fmt::Display for Announcement {
    /// The command that does the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, device } = self;
        match address {
            IpAddr::V4(_) => write!(f, "arpsend -U -i {address} {device}"),
            IpAddr::V6(_) => write!(f, "ndsend {address} {device}"),
        }
    }
}

impl Announcement {
    /// The bytes of one round, when `mac` is the device's.
    ///
    /// # Errors
    /// None in practice: the sizes are fixed.
    pub fn round(&self, mac: Mac) -> Result<Round> {
        Ok(match self.address {
            IpAddr::V4(address) => Round::Arp([arp_request(address, mac)?, arp_reply(address, mac)?]),
            IpAddr::V6(address) => Round::NeighbourAdvertisement(neighbour_advertisement(address, mac)?),
        })
    }
}

/// One round, in the form in which the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// Ethernet frames, for a packet socket.
    Arp([Vec<u8>; 2]),
    /// An ICMPv6 message whose checksum is still 0, for a raw ICMPv6 socket, to ff02::1 with hop limit 255.
    NeighbourAdvertisement(Vec<u8>),
}

/// The gratuitous request: sender and target address are `address`, the target MAC is 0 (RFC 5227, section 1.1).
///
/// # Errors
/// None in practice.
pub fn arp_request(address: Ipv4Addr, mac: Mac) -> Result<Vec<u8>> {
    gratuitous(ArpOperation::Request, address, mac, Mac([0; 6]))
}

/// The gratuitous reply: the target MAC is our own, as arping -A has it.
///
/// # Errors
/// None in practice.
pub fn arp_reply(address: Ipv4Addr, mac: Mac) -> Result<Vec<u8>> {
    gratuitous(ArpOperation::Reply, address, mac, mac)
}

fn gratuitous(operation: ArpOperation, address: Ipv4Addr, mac: Mac, target_mac: Mac) -> Result<Vec<u8>> {
    let arp = Arp { operation, sender_mac: mac, sender: address, target_mac, target: address };
    Frame { destination: BROADCAST, source: mac, packet: Packet::Arp(arp) }.encode()
}

/// The unsolicited advertisement: R=0 S=0 O=1 and the target link-layer address (RFC 4861, sections 4.4 and 7.2.6),
/// as an ICMPv6 message with the checksum left to the kernel.
///
/// # Errors
/// None in practice.
pub fn neighbour_advertisement(address: Ipv6Addr, mac: Mac) -> Result<Vec<u8>> {
    let message = Message::NeighbourAdvertisement(NeighbourAdvertisement {
        target: address,
        router: false,
        solicited: false,
        override_cache: true,
        target_mac: Some(mac),
    });
    message.encode(Family::V6).map(|(_, bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x0a]);

    /// By hand from RFC 826, with the padding to 60 bytes of IEEE 802.3.
    #[test]
    fn the_gratuitous_request_is_rfc_826s() {
        let mut expected = vec![
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0a, 8, 6, // Ethernet: to all, from MAC, ARP
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, 6 and 4 octets, request
            2, 0, 0, 0, 0, 0x0a, 192, 0, 2, 7, // sender
            0, 0, 0, 0, 0, 0, 192, 0, 2, 7, // target
        ];
        expected.resize(60, 0);
        assert_eq!(arp_request(Ipv4Addr::new(192, 0, 2, 7), MAC).expect("a request"), expected);
    }

    /// By hand from RFC 826; the target MAC is the sender's, as `arping -A` has it.
    #[test]
    fn the_gratuitous_reply_names_our_mac_twice() {
        let mut expected = vec![
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x0a, 8, 6, //
            0, 1, 8, 0, 6, 4, 0, 2, // reply
            2, 0, 0, 0, 0, 0x0a, 192, 0, 2, 7, //
            2, 0, 0, 0, 0, 0x0a, 192, 0, 2, 7,
        ];
        expected.resize(60, 0);
        assert_eq!(arp_reply(Ipv4Addr::new(192, 0, 2, 7), MAC).expect("a reply"), expected);
    }

    /// By hand from RFC 4861, sections 4.4 and 4.6.1.
    #[test]
    fn the_advertisement_overrides_and_names_the_link_layer_address() {
        let expected = [
            136, 0, 0, 0, 0x20, 0, 0, 0, // type, code, checksum (the kernel's), O
            0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, // target 2001:db8::7
            2, 1, 2, 0, 0, 0, 0, 0x0a, // target link-layer address
        ];
        let target = "2001:db8::7".parse().expect("an address");
        assert_eq!(neighbour_advertisement(target, MAC).expect("an advertisement"), expected);
    }

    #[test]
    fn an_announcement_reads_as_the_command_that_sends_it() {
        let device: IfName = "eth1".parse().expect("a name");
        let of = |address: &str| Announcement { address: address.parse().expect("an address"), device: device.clone() };
        assert_eq!(of("192.0.2.7").to_string(), "arpsend -U -i 192.0.2.7 eth1");
        assert_eq!(of("2001:db8::7").to_string(), "ndsend 2001:db8::7 eth1");
        assert!(matches!(of("192.0.2.7").round(MAC), Ok(Round::Arp(_))));
        assert!(matches!(of("2001:db8::7").round(MAC), Ok(Round::NeighbourAdvertisement(_))));
    }
}
