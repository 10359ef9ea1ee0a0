//! What a guest leaves to the kernel by the virtio header: a checksum, which is written behind all rules where the guest says. A
//! guarded TAP has every checksum written before the rules look; each forgery here also goes out of one that is not guarded,
//! through the same filters, where it must arrive.

mod forgeries;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use self::forgeries::{
    BEHIND_IPV4, BEHIND_IPV6, Forgery, NETWORK, TCP, TCP_CHECKSUM, TCP_FLAGS, addresses, forgeries, gso_forgeries, ip4,
    ip6, tcp, udp,
};
use crate::Test;
use crate::harness::frame::{self, ARP, IPV4, IPV6, Mac, UDP};
use crate::harness::guest::{Guest, WEB1, WEB2};
use crate::harness::netns::Netns;
use crate::harness::nic::Nic;
use crate::harness::port::Port;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site, TAP_MAC};
use crate::harness::until;
use crate::harness::virtio::Header;

pub const TESTS: &[Test] = &[
    ("checksums::what_a_checksum_would_forge_is_dropped", what_a_checksum_would_forge_is_dropped),
    (
        "checksums::what_a_checksum_would_forge_of_gso_frames_is_dropped",
        what_a_checksum_would_forge_of_gso_frames_is_dropped,
    ),
    ("checksums::a_guest_has_no_part_in_what_is_routed_for_it", a_guest_has_no_part_in_what_is_routed_for_it),
    ("checksums::no_request_reaches_a_protected_guest", no_request_reaches_a_protected_guest),
    ("checksums::honest_frames_pass", honest_frames_pass),
];

/// The neighbour's card.
const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

/// A guest on a bridge and a neighbour outside.
pub struct World {
    pub node: Node,
    pub guest: Guest,
    outside: Port,
    _netns: Netns,
}

impl World {
    pub fn new(settings: &str) -> Result<Self> {
        let node = Node::alone()?;
        node.files.set(settings)?;
        let netns = Netns::new()?;
        node.netns.ip_batch(&format!(
            "link add br0 type bridge mcast_snooping 0\n\
             link add port0 type veth peer name card netns {}\n\
             link set port0 up master br0 addrgenmode none\n\
             link set br0 up addrgenmode none\n",
            netns.path()
        ))?;
        netns.ip("link set card up addrgenmode none")?;
        without_br_netfilter(&node.netns);
        let outside = Port::headed_packet(&netns, "card")?;
        let guest = Guest::plug_virtio(&node.netns, "tap0", WEB1)?;
        Ok(Self { node, guest, outside, _netns: netns })
    }

    /// The NIC of the guest in a strictly filtered network.
    pub fn nic(&self) -> Nic<'_> {
        self.node.nic("tap0", WEB1).bridged("br0").set("NETWORK_TAGS", "strict-filtered")
    }

    /// What of the forgeries arrives.
    fn arrived(&self, forgeries: &[Forgery]) -> Result<Vec<&'static str>> {
        arrived(&self.guest, (WEB1.mac, NEIGHBOUR), &self.outside, forgeries)
    }

    /// That everything that would be forged is dropped.
    pub fn is_guarded(&self) -> Result<()> {
        let arrived = self.arrived(&forgeries(WEB1, NEIGHBOUR))?;
        ensure!(arrived.is_empty(), "arrived: {arrived:?}");
        Ok(())
    }
}

/// Its hooks take frames of the bridge through IP, where checksums may be finished.
fn without_br_netfilter(netns: &Netns) {
    for name in ["iptables", "ip6tables", "arptables"] {
        // There is no such file where it is not loaded.
        let _ = netns.set_sysctl(&format!("bridge/bridge-nf-call-{name}"), "0");
    }
}

/// Switches the offload of checksums of a device on or off; off, the kernel writes them as a frame leaves.
fn offload(netns: &Netns, device: &str, tx: &str) -> Result<()> {
    netns.output(Command::new("ethtool").args(["-K", device, "tx", tx])).map(drop)
}

/// An honest datagram, as an answer of DNS, which every profile lets pass. Its checksum is none, so that no kernel takes it through
/// faster than a forged one before it.
fn marker(from: Mac, to: Mac, text: &str) -> Vec<u8> {
    frame::ethernet(to, from, IPV4, &frame::udp((WEB1.ip.into(), 53), (OUTSIDE, 6000), text.as_bytes()))
}

/// Sends each forgery and then an honest frame, and names those of which something had arrived when that did. `source` is
/// whom frames come from where they are seen, `to` whom they are sent to.
fn arrived(
    guest: &Guest,
    (source, to): (Mac, Mac),
    outside: &Port,
    forgeries: &[Forgery],
) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    for forgery in forgeries {
        // A kernel may refuse it, which is as good.
        let _ = guest.send_with(forgery.header, &forgery.frame);
        let text = format!("honest datagram behind {}", forgery.name);
        guest.send(&marker(guest.id.mac, to, &text))?;
        let mut seen = Vec::new();
        until(&text, || {
            seen.extend(outside.drain_headed());
            Ok(seen.iter().any(|it| it.1.ends_with(text.as_bytes())))
        })?;
        names.extend(seen.iter().any(|it| forgery.is(source, it)).then_some(forgery.name));
    }
    Ok(names)
}

fn names(forgeries: &[Forgery]) -> Vec<&'static str> {
    forgeries.iter().map(|it| it.name).collect()
}

fn what_a_checksum_would_forge_is_dropped() -> Result<()> {
    let all = forgeries(WEB1, NEIGHBOUR);
    for (settings, expected) in [("VNET_HDR_GUARD=off", names(&all)), ("", Vec::new())] {
        let world = World::new(settings)?;
        offload(&world.node.netns, "port0", "off")?;
        world.nic().ifup()?.succeeds()?;
        let arrived = world.arrived(&all)?;
        ensure!(arrived == expected, "{settings:?}: arrived {arrived:?}, expected {expected:?}");
    }
    Ok(())
}

/// Without a guard a kernel that checks such frames drops them by itself.
fn what_a_checksum_would_forge_of_gso_frames_is_dropped() -> Result<()> {
    for tx in ["off", "on"] {
        let world = World::new("")?;
        offload(&world.node.netns, "port0", tx)?;
        world.nic().ifup()?.succeeds()?;
        let arrived = world.arrived(&gso_forgeries(WEB1, NEIGHBOUR))?;
        ensure!(arrived.is_empty(), "tx {tx}: arrived {arrived:?}");
    }
    Ok(())
}

fn a_guest_has_no_part_in_what_is_routed_for_it() -> Result<()> {
    let of_packets = |it: &Forgery| it.name.ends_with("of another source") && !it.name.starts_with("ARP");
    let all: Vec<_> = forgeries(WEB1, TAP_MAC).into_iter().filter(of_packets).collect();
    for (settings, expected) in [("VNET_HDR_GUARD=off", names(&all)), ("", Vec::new())] {
        let site = Site::new()?;
        let node = &site.node;
        node.files.set(settings)?;
        offload(&node.netns, "eth1", "off")?;
        let guest = Guest::plug_virtio(&node.netns, "tap0", WEB1)?;
        node.nic("tap0", WEB1).ifup()?.succeeds()?;
        // From then on the node knows its router.
        guest.ping(OUTSIDE)?;
        guest.ping(OUTSIDE6)?;
        let outside = Port::headed_packet(&site.router, "node1")?;
        let arrived = arrived(&guest, (node.uplink_mac(), TAP_MAC), &outside, &all)?;
        ensure!(arrived == expected, "{settings:?}: arrived {arrived:?}, expected {expected:?}");
    }
    Ok(())
}

/// Whoever sends them: here a NIC without any filter.
fn no_request_reaches_a_protected_guest() -> Result<()> {
    let request = Forgery::new("a request", ip4(WEB1, WEB2.mac, TCP, &tcp(&[0; 20])), BEHIND_IPV4 + TCP_FLAGS, 0x5002);
    for (settings, expected) in [("VNET_HDR_GUARD=off", vec!["a request"]), ("", Vec::new())] {
        let world = World::new(settings)?;
        let node = &world.node;
        let victim = Port::tap(&node.netns, "tap1")?;
        node.nic("tap0", WEB1).without_network().bridged("br0").ifup()?.succeeds()?;
        node.nic("tap1", WEB2).without_network().bridged("br0").set("TAGS", "protected").ifup()?.succeeds()?;
        let arrived = arrived(&world.guest, (WEB1.mac, WEB2.mac), &victim, std::slice::from_ref(&request))?;
        ensure!(arrived == expected, "{settings:?}: arrived {arrived:?}, expected {expected:?}");
    }
    Ok(())
}

/// What a guest's own stack leaves to the kernel: the sum of the pseudo header is where the checksum is to be.
fn left(ether_type: u16, protocol: u8, mut payload: Vec<u8>) -> (Header, Vec<u8>) {
    let (place, offset) = if protocol == TCP { (16, TCP_CHECKSUM) } else { (6, 6) };
    let (outside, outside6) = addresses();
    let (begin, pseudo) = if ether_type == IPV4 {
        let length = u16::try_from(payload.len()).expect("a packet").to_be_bytes();
        let addresses = [WEB1.ip.octets(), outside.octets()].concat();
        (BEHIND_IPV4, [&addresses[..], &[0, protocol], &length].concat())
    } else {
        (BEHIND_IPV6, frame::pseudo_header(WEB1.ip6, outside6, protocol, payload.len()))
    };
    payload[place..place + 2].copy_from_slice(&(!frame::checksum(&pseudo)).to_be_bytes());
    let frame = if ether_type == IPV4 {
        ip4(WEB1, NEIGHBOUR, protocol, &payload)
    } else {
        ip6(WEB1, NEIGHBOUR, protocol, &payload)
    };
    let hdr_len = u16::try_from(begin).expect("a place") + if protocol == TCP { 20 } else { 8 };
    (Header { hdr_len, ..Header::csum(u16::try_from(begin).expect("a place"), offset) }, frame)
}

/// Whether the checksum of TCP or UDP in a frame is right, and the length of what it covers.
fn checked(frame: &[u8]) -> (bool, usize) {
    let (begin, protocol, addresses) = if frame[12..14] == IPV4.to_be_bytes() {
        (BEHIND_IPV4, frame[NETWORK + 9], &frame[NETWORK + 12..BEHIND_IPV4])
    } else {
        (BEHIND_IPV6, frame[NETWORK + 6], &frame[NETWORK + 8..BEHIND_IPV6])
    };
    let length = frame.len() - begin;
    let pseudo = [addresses, &[0, protocol], &u16::try_from(length).expect("a packet").to_be_bytes()].concat();
    (frame::checksum(&[&pseudo, &frame[begin..]].concat()) == 0, length)
}

/// Single ones and those that are cut into pieces; whole where the kernel can finish them so.
fn honest_frames_pass() -> Result<()> {
    for tx in ["off", "on"] {
        let world = World::new("")?;
        offload(&world.node.netns, "port0", tx)?;
        world.nic().ifup()?.succeeds()?;
        let filters = world.node.netns.output(Command::new("tc").args(["filter", "show", "block", "218"]))?;
        for (ether_type, protocol) in [(IPV4, TCP), (IPV4, UDP), (IPV6, TCP), (IPV6, UDP)] {
            let payload = if protocol == TCP { tcp(b"honest data") } else { udp(None, 0) };
            let (header, frame) = left(ether_type, protocol, payload);
            let seen = world.passed(header, &frame).with_context(|| format!("{ether_type:#x} {protocol}, tx {tx}"))?;
            ensure!(seen.len() == 1 && seen[0].1.len() == frame.len(), "{ether_type:#x} {protocol}: {seen:?}");
        }
        for (ether_type, gso_type) in [(IPV4, 1), (IPV6, 4)] {
            let (header, frame) = left(ether_type, TCP, tcp(&vec![b'x'; 60_000]));
            let header = Header { gso_type, gso_size: 1400, ..header };
            let seen = world.passed(header, &frame).with_context(|| format!("GSO of {ether_type:#x}, tx {tx}"))?;
            let whole = tx == "on" && filters.contains("csum (tcp)");
            ensure!(!whole || seen.len() == 1, "{ether_type:#x}, whole {whole}: {} frames", seen.len());
        }
    }
    Ok(())
}

impl World {
    /// Whether an honest datagram without a checksum arrives, before a frame that nobody guards does.
    pub fn passes(&self) -> Result<bool> {
        self.outside.drain();
        let datagram = marker(WEB1.mac, NEIGHBOUR, "honest");
        self.guest.send(&datagram)?;
        let others = Port::packet(&self.node.netns, "port0", false)?;
        others.send(&frame::ethernet(NEIGHBOUR, TAP_MAC, ARP, &[0; 46]))?;
        let mut seen = Vec::new();
        until("a frame of another card", || {
            seen.extend(self.outside.drain());
            Ok(seen.iter().any(|it| it[6..12] == TAP_MAC.0))
        })?;
        Ok(seen.contains(&datagram))
    }

    /// Sends a frame; those of it that arrive, whose data has the same length together, and whose checksums are right or left to the
    /// receiver.
    fn passed(&self, header: Header, frame: &[u8]) -> Result<Vec<(Header, Vec<u8>)>> {
        self.outside.drain();
        self.guest.send_with(header, frame)?;
        let mut seen: Vec<(Header, Vec<u8>)> = Vec::new();
        let headers = usize::from(header.hdr_len);
        until("a frame to pass", || {
            let new = self.outside.drain_headed();
            seen.extend(new.into_iter().filter(|it| it.1[6..12] == WEB1.mac.0));
            Ok(seen.iter().map(|it| it.1.len() - headers).sum::<usize>() >= frame.len() - headers)
        })?;
        for (left, frame) in &seen {
            ensure!(
                left.csum == header.csum || checked(frame).0,
                "a wrong checksum: {left:?} {:?}",
                &frame[..80.min(frame.len())]
            );
        }
        Ok(seen)
    }
}
