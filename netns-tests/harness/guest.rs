//! A virtual machine's network card, and just enough of a stack behind it to be talked to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;

use super::frame::{self, IPV4, IPV6, Mac};
use super::netns::Netns;
use super::packet::{Content, Packet, Payload};
use super::port::{Capture, Port};
use super::setting;
use super::topology::TAP_MAC;
use super::virtio::Header;

/// The addresses of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// INSTANCE.
    pub name: &'static str,
    /// MAC.
    pub mac: Mac,
    /// IP.
    pub ip: Ipv4Addr,
    /// What it makes of NETWORK_SUBNET6 and MAC (SLAAC).
    pub ip6: Ipv6Addr,
}

/// The first guest: 10.0.0.2.
pub const WEB1: Identity = Identity {
    name: "web1.example.org",
    mac: Mac([0xaa, 0, 0, 0x12, 0x34, 0x56]),
    ip: Ipv4Addr::new(10, 0, 0, 2),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0xa800, 0xff, 0xfe12, 0x3456),
};

/// The second guest: 10.0.0.3.
pub const WEB2: Identity = Identity {
    name: "web2.example.org",
    mac: Mac([0xaa, 0, 0, 0x12, 0x34, 0x57]),
    ip: Ipv4Addr::new(10, 0, 0, 3),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0xa800, 0xff, 0xfe12, 0x3457),
};

impl Identity {
    /// Both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ip.into(), self.ip6.into()]
    }

    /// The one of the family of `other`.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.ip.into() } else { self.ip6.into() }
    }

    /// What its stack answers to a frame: ARP and neighbour solicitations for its addresses, and echo requests.
    pub fn answer(&self, packet: &Packet) -> Option<Vec<u8>> {
        let to_us = packet.destination == self.mac;
        match &packet.content {
            Content::Arp(1, asker, (_, target)) if *target == self.ip => {
                let reply = frame::arp(2, (self.mac, self.ip), *asker);
                Some(frame::ethernet(packet.source, self.mac, frame::ARP, &reply))
            }
            Content::Ipv4(from, to, _, Payload::Echo(false, fields, data)) if to_us && *to == self.ip => {
                let reply = frame::echo(true, (*to).into(), (*from).into(), *fields, data);
                Some(frame::ethernet(packet.source, self.mac, IPV4, &reply))
            }
            Content::Ipv6(from, _, _, Payload::NeighbourSolicitation(target, _))
                if [self.ip6, self.mac.link_local()].contains(target) && !from.is_unspecified() =>
            {
                Some(frame::neighbour_advertisement((self.mac, *target), (packet.source, *from), 0x60))
            }
            Content::Ipv6(from, to, _, Payload::Echo(false, fields, data)) if to_us && *to == self.ip6 => {
                let reply = frame::echo(true, (*to).into(), (*from).into(), *fields, data);
                Some(frame::ethernet(packet.source, self.mac, IPV6, &reply))
            }
            _ => None,
        }
    }
}

/// A guest: it sees all that its card receives, answers for itself, and sends what it is told to.
pub struct Guest {
    /// Who it is.
    pub id: Identity,
    /// What its card received.
    pub seen: Capture,
    port: Arc<Port>,
    _card: Option<Netns>,
}

/// Numbers the echo requests of all tests, so that none is taken for another.
static ECHO: AtomicU16 = AtomicU16::new(1);

impl Guest {
    /// Plugs a new card into `node`: a TAP, down, as Ganeti makes it; where /dev/net/tun is closed to us a veth pair,
    /// whose other end is the card.
    pub fn plug(node: &Netns, tap: &str, id: Identity) -> Result<Self> {
        Self::plug_card(node, tap, id, setting::virtio_header())
    }

    /// The same with a virtio header before each frame.
    pub fn plug_virtio(node: &Netns, tap: &str, id: Identity) -> Result<Self> {
        Self::plug_card(node, tap, id, true)
    }

    fn plug_card(node: &Netns, tap: &str, id: Identity, virtio: bool) -> Result<Self> {
        let closed = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_err();
        let (port, card) = if virtio {
            (Port::virtio_tap(node, tap)?, None)
        } else if closed {
            let card = Netns::new()?;
            card.set_sysctl("ipv6/conf/default/disable_ipv6", "1")?;
            node.ip(&format!("link add {tap} type veth peer name card netns {}", card.path()))?;
            card.ip("link set card arp off up")?;
            (Port::packet(&card, "card", false)?, Some(card))
        } else {
            (Port::tap(node, tap)?, None)
        };
        let port = Arc::new(port);
        let seen = Capture::of(Arc::clone(&port), id.name, move |packet| id.answer(packet))?;
        Ok(Self { id, seen, port, _card: card })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.port.send(frame)
    }

    /// Sends a frame of which some is left to the kernel.
    pub fn send_with(&self, header: Header, frame: &[u8]) -> Result<()> {
        self.port.send_with(header, frame)
    }

    /// Sends an IP packet through its gateway, whose MAC is that of the TAP.
    pub fn send_packet(&self, packet: &[u8]) -> Result<()> {
        let ether_type = if packet[0] >> 4 == 4 { IPV4 } else { IPV6 };
        self.send(&frame::ethernet(TAP_MAC, self.id.mac, ether_type, packet))
    }

    /// Sends an echo request with the source address that is given, and says how to recognise it: `id N seq 1`.
    pub fn send_echo(&self, source: IpAddr, destination: IpAddr) -> Result<String> {
        let id = ECHO.fetch_add(1, Ordering::Relaxed);
        self.send_packet(&frame::echo_request(source, destination, id, 1))?;
        Ok(format!("id {id} seq 1"))
    }

    /// Sends an echo request under its own address, and waits for the reply.
    pub fn ping(&self, destination: IpAddr) -> Result<Packet> {
        let source = self.id.address_like(destination);
        let mark = self.send_echo(source, destination)?;
        self.seen.expect(&format!("{destination} > {source}: echo reply {mark}"))
    }
}
