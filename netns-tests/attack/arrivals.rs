//! What is sent to a guest, and which of it may arrive: isolation by MAC prefix, and the firewall profiles.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::TRIES;
use super::context::{Context, FOREIGN_MAC, ROUTER, VICTIM};
use super::frames::{self, DESTINATION_OPTIONS, FRAGMENT, VLAN, behind, from, snap, tagged};
use super::testbed::{Bridged, Families, Ground, bridged_nic, nic};
use crate::harness::frame::{self, Mac};
use crate::harness::guest::Identity;
use crate::harness::port::Port;
use crate::harness::topology::{OUTSIDE, OUTSIDE6};

/// From where it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The wire behind the uplink.
    Uplink,
    /// The node itself, which on a bridge never forwards.
    Node,
    /// The TAP of a guest of another network.
    Stranger,
}

/// It arrives.
const P: bool = true;
/// It does not.
const D: bool = false;

/// Something sent to the victim.
struct Arrival {
    name: &'static str,
    from: From,
    frames: fn(&Context) -> Vec<Vec<u8>>,
    /// [plain, private-filtered, protected, limited, unprotected]. What is a packet from the uplink arrives likewise at
    /// a routed guest.
    arrives: [bool; 5],
}

const fn arrival(name: &'static str, from: From, frames: fn(&Context) -> Vec<Vec<u8>>, arrives: [bool; 5]) -> Arrival {
    Arrival { name, from, frames, arrives }
}

/// A packet by way of the gateway; the last router before the victim is the gateway, or the node.
fn deliver(c: &Context, packet: &[u8]) -> Vec<u8> {
    frames::packet(c.router.unwrap_or(c.victim.mac), c.gateway.mac, packet)
}

/// A packet to everybody.
fn shout(source: Mac, id: Identity) -> Vec<u8> {
    let packet = frame::udp((id.ip.into(), 53), (std::net::Ipv4Addr::BROADCAST.into(), 9), b"shouted");
    frames::packet(Mac::BROADCAST, source, &packet)
}

/// A packet to the group of all nodes.
fn multicast(source: Mac) -> Vec<u8> {
    let packet = frames::echo6(source.link_local(), frame::ALL_NODES);
    frames::packet(Mac::of_group(frame::ALL_NODES), source, &packet)
}

fn ping(c: &Context) -> Vec<u8> {
    deliver(c, &frame::echo_request(OUTSIDE, c.victim.ip.into(), 0x5eed, 1))
}

fn outside(c: &Context, v6: bool) -> (IpAddr, IpAddr) {
    if v6 { (OUTSIDE6, c.victim.ip6.into()) } else { (OUTSIDE, c.victim.ip.into()) }
}

fn tcp(c: &Context, v6: bool, port: u16, flags: u8) -> Vec<u8> {
    let (source, destination) = outside(c, v6);
    frames::tcp((source, 40000), (destination, port), flags)
}

fn udp(c: &Context, v6: bool, from: u16, to: u16) -> Vec<u8> {
    let (source, destination) = outside(c, v6);
    frame::udp((source, from), (destination, to), b"a datagram")
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN_ACK: u8 = 17;
const RST: u8 = 4;
const SYN_ACK: u8 = 18;
/// With explicit congestion notification (RFC 3168).
const SYN_ECE_CWR: u8 = 0xc2;
const SYN_PSH: u8 = 10;

/// In any of the profiles.
const ALWAYS: [bool; 5] = [P, P, P, P, P];
const OPEN: [bool; 5] = [P, P, D, D, P];
const REMOTE_LOGIN: [bool; 5] = [P, P, D, P, P];
/// Another prefix: what a profile allows is not the question.
const ISOLATED: [bool; 5] = [P, D, P, P, P];

const ARRIVALS: &[Arrival] = &[
    // The MAC prefix.
    arrival("unicast of the same prefix", From::Uplink, |c| vec![ping(c)], ALWAYS),
    arrival(
        "unicast of the prefix's last MAC",
        From::Uplink,
        |c| vec![from(Mac([0xaa, 0x55, 0x6f, 255, 255, 255]), ping(c))],
        ALWAYS,
    ),
    arrival(
        "unicast of the next prefix's first MAC",
        From::Uplink,
        |c| vec![from(Mac([0xaa, 0x55, 0x70, 0, 0, 0]), ping(c))],
        ISOLATED,
    ),
    arrival(
        "unicast of the prefix before",
        From::Uplink,
        |c| vec![from(Mac([0xaa, 0x55, 0x5f, 255, 255, 255]), ping(c))],
        ISOLATED,
    ),
    arrival("unicast of a foreign MAC", From::Uplink, |c| vec![from(FOREIGN_MAC, ping(c))], ISOLATED),
    arrival(
        "unicast of a foreign MAC in a VLAN tag",
        From::Uplink,
        |c| vec![tagged(&from(FOREIGN_MAC, ping(c)), &[(VLAN, 5)])],
        ISOLATED,
    ),
    arrival("broadcast of the same prefix", From::Uplink, |c| vec![shout(c.gateway.mac, c.gateway)], ALWAYS),
    arrival("broadcast of a foreign MAC", From::Uplink, |_| vec![shout(FOREIGN_MAC, ROUTER)], ISOLATED),
    arrival("multicast of the same prefix", From::Uplink, |c| vec![multicast(c.gateway.mac)], ALWAYS),
    arrival("multicast of a foreign MAC", From::Uplink, |_| vec![multicast(FOREIGN_MAC)], ISOLATED),
    arrival("stranger's unicast", From::Stranger, |c| vec![from(c.stranger.mac, ping(c))], ISOLATED),
    arrival("stranger's broadcast", From::Stranger, |c| vec![shout(c.stranger.mac, c.stranger)], ISOLATED),
    arrival("stranger's multicast", From::Stranger, |c| vec![multicast(c.stranger.mac)], ISOLATED),
    arrival("node's unicast", From::Node, |c| vec![from(c.node.mac, ping(c))], ISOLATED),
    arrival("node's broadcast", From::Node, |c| vec![shout(c.node.mac, c.node)], ISOLATED),
    arrival("node's multicast", From::Node, |c| vec![multicast(c.node.mac)], ISOLATED),
    // The profiles, IPv4.
    arrival("TCP request to 80", From::Uplink, |c| vec![deliver(c, &tcp(c, false, 80, SYN))], OPEN),
    arrival("TCP request to 22", From::Uplink, |c| vec![deliver(c, &tcp(c, false, 22, SYN))], REMOTE_LOGIN),
    arrival("TCP request to 3389", From::Uplink, |c| vec![deliver(c, &tcp(c, false, 3389, SYN))], REMOTE_LOGIN),
    arrival(
        "TCP request with congestion notification",
        From::Uplink,
        |c| vec![deliver(c, &tcp(c, false, 80, SYN_ECE_CWR))],
        OPEN,
    ),
    arrival("TCP request with a push", From::Uplink, |c| vec![deliver(c, &tcp(c, false, 80, SYN_PSH))], OPEN),
    arrival(
        "TCP request with IPv4 options",
        From::Uplink,
        |c| vec![deliver(c, &frames::with_options4(&tcp(c, false, 80, SYN)))],
        OPEN,
    ),
    arrival("TCP answer", From::Uplink, |c| vec![deliver(c, &tcp(c, false, 40001, SYN_ACK))], ALWAYS),
    arrival("TCP acknowledgement", From::Uplink, |c| vec![deliver(c, &tcp(c, false, 40001, ACK))], ALWAYS),
    arrival("TCP end", From::Uplink, |c| vec![deliver(c, &tcp(c, false, 40001, FIN_ACK))], ALWAYS),
    arrival("TCP reset", From::Uplink, |c| vec![deliver(c, &tcp(c, false, 40001, RST))], ALWAYS),
    arrival(
        "TCP request in fragments, the first without its flags",
        From::Uplink,
        |c| frames::fragments4(&tcp(c, false, 80, SYN), 1).map(|it| deliver(c, &it)).to_vec(),
        OPEN,
    ),
    arrival(
        "first fragment of TCP without its flags",
        From::Uplink,
        |c| vec![deliver(c, &frames::fragments4(&tcp(c, false, 80, SYN), 1)[0])],
        OPEN,
    ),
    arrival(
        "fragment that overwrites the flags of TCP",
        From::Uplink,
        |c| vec![deliver(c, &frames::fragments4(&tcp(c, false, 80, SYN), 1)[1])],
        OPEN,
    ),
    arrival(
        "later fragment of TCP that looks like an acknowledgement",
        From::Uplink,
        |c| {
            let packet = tcp(c, false, 40001, ACK);
            vec![deliver(c, &frames::fragment4(&packet, 1, &packet[20..]))]
        },
        OPEN,
    ),
    arrival("UDP", From::Uplink, |c| vec![deliver(c, &udp(c, false, 40000, 9))], OPEN),
    arrival("UDP to 53", From::Uplink, |c| vec![deliver(c, &udp(c, false, 40000, 53))], OPEN),
    arrival("UDP to 22", From::Uplink, |c| vec![deliver(c, &udp(c, false, 40000, 22))], OPEN),
    arrival("DNS answer", From::Uplink, |c| vec![deliver(c, &udp(c, false, 53, 40000))], ALWAYS),
    arrival(
        "TCP request from port 53",
        From::Uplink,
        |c| {
            let (source, destination) = outside(c, false);
            vec![deliver(c, &frames::tcp((source, 53), (destination, 80), SYN))]
        },
        OPEN,
    ),
    arrival(
        "SCTP",
        From::Uplink,
        |c| vec![deliver(c, &frame::ipv4([198, 51, 100, 1].into(), c.victim.ip, 132, &[0; 16]))],
        OPEN,
    ),
    arrival(
        "GRE",
        From::Uplink,
        |c| vec![deliver(c, &frame::ipv4([198, 51, 100, 1].into(), c.victim.ip, 47, &[0; 16]))],
        OPEN,
    ),
    // The same, IPv6.
    arrival(
        "echo request, IPv6",
        From::Uplink,
        |c| vec![deliver(c, &frame::echo_request(OUTSIDE6, c.victim.ip6.into(), 0x5eed, 1))],
        ALWAYS,
    ),
    arrival("TCP request to 80, IPv6", From::Uplink, |c| vec![deliver(c, &tcp(c, true, 80, SYN))], OPEN),
    arrival("TCP request to 22, IPv6", From::Uplink, |c| vec![deliver(c, &tcp(c, true, 22, SYN))], REMOTE_LOGIN),
    arrival("TCP request to 3389, IPv6", From::Uplink, |c| vec![deliver(c, &tcp(c, true, 3389, SYN))], REMOTE_LOGIN),
    arrival(
        "TCP request with congestion notification, IPv6",
        From::Uplink,
        |c| vec![deliver(c, &tcp(c, true, 80, SYN_ECE_CWR))],
        OPEN,
    ),
    arrival("TCP answer, IPv6", From::Uplink, |c| vec![deliver(c, &tcp(c, true, 40001, SYN_ACK))], ALWAYS),
    arrival(
        "TCP request behind destination options",
        From::Uplink,
        |c| vec![deliver(c, &behind(&tcp(c, true, 80, SYN), &[(DESTINATION_OPTIONS, frames::options(0, 1))]))],
        OPEN,
    ),
    arrival(
        "TCP request to 22 behind destination options",
        From::Uplink,
        |c| vec![deliver(c, &behind(&tcp(c, true, 22, SYN), &[(DESTINATION_OPTIONS, frames::options(0, 1))]))],
        REMOTE_LOGIN,
    ),
    arrival(
        "TCP request in IPv6 fragments, the first without its flags",
        From::Uplink,
        |c| frames::fragments6(&tcp(c, true, 80, SYN), 1).map(|it| deliver(c, &it)).to_vec(),
        OPEN,
    ),
    arrival(
        "TCP request in IPv6 fragments behind destination options",
        From::Uplink,
        |c| {
            let packet = behind(&tcp(c, true, 80, SYN), &[(DESTINATION_OPTIONS, frames::options(0, 2))]);
            frames::fragments6(&packet, 2).map(|it| deliver(c, &it)).to_vec()
        },
        OPEN,
    ),
    arrival(
        "later IPv6 fragment of TCP that looks like an acknowledgement",
        From::Uplink,
        |c| {
            let packet = tcp(c, true, 40001, ACK);
            vec![deliver(c, &behind(&packet, &[(FRAGMENT, frames::fragment_header(0, 1, false))]))]
        },
        OPEN,
    ),
    arrival("UDP, IPv6", From::Uplink, |c| vec![deliver(c, &udp(c, true, 40000, 9))], OPEN),
    arrival(
        "UDP behind destination options",
        From::Uplink,
        |c| vec![deliver(c, &behind(&udp(c, true, 40000, 9), &[(DESTINATION_OPTIONS, frames::options(0, 1))]))],
        OPEN,
    ),
    arrival("DNS answer, IPv6", From::Uplink, |c| vec![deliver(c, &udp(c, true, 53, 40000))], ALWAYS),
    // Tags and encapsulations.
    arrival(
        "TCP request in VLAN 5",
        From::Uplink,
        |c| vec![tagged(&deliver(c, &tcp(c, false, 80, SYN)), &[(VLAN, 5)])],
        OPEN,
    ),
    arrival(
        "TCP request in VLAN 0",
        From::Uplink,
        |c| vec![tagged(&deliver(c, &tcp(c, false, 80, SYN)), &[(VLAN, 0)])],
        OPEN,
    ),
    arrival(
        "TCP request in VLAN 0 twice",
        From::Uplink,
        |c| vec![tagged(&deliver(c, &tcp(c, false, 80, SYN)), &[(VLAN, 0), (VLAN, 0)])],
        OPEN,
    ),
    // ARP and neighbour discovery.
    arrival(
        "ARP request",
        From::Uplink,
        |c| vec![frame::arp_request((c.gateway.mac, c.gateway.ip), c.victim.ip)],
        ALWAYS,
    ),
    arrival(
        "ARP reply",
        From::Uplink,
        |c| {
            let reply = frame::arp(2, (c.gateway.mac, c.gateway.ip), (c.victim.mac, c.victim.ip));
            vec![frame::ethernet(c.victim.mac, c.gateway.mac, frame::ARP, &reply)]
        },
        ALWAYS,
    ),
    arrival(
        "neighbour solicitation",
        From::Uplink,
        |c| vec![frame::neighbour_solicitation(c.gateway.mac, c.gateway.ip6, c.victim.ip6)],
        ALWAYS,
    ),
    arrival(
        "neighbour advertisement",
        From::Uplink,
        |c| vec![frame::neighbour_advertisement((c.gateway.mac, c.gateway.ip6), (c.victim.mac, c.victim.ip6), 0xe0)],
        ALWAYS,
    ),
    arrival(
        "router advertisement",
        From::Uplink,
        |c| vec![frame::router_advertisement(c.gateway.mac, c.gateway.mac.link_local())],
        ALWAYS,
    ),
    arrival("LLC/SNAP", From::Uplink, |c| vec![snap(&deliver(c, &tcp(c, false, 80, SYN)))], OPEN),
];

/// The node's TAP of a victim with a profile, or with private-filtered.
pub fn bridged(column: usize) -> Result<()> {
    let ground = Ground::bridge()?;
    let profile = PROFILES[column];
    ground.nic("tap0", super::context::ATTACKER, Bridged::Plain).ifup()?.succeeds()?;
    for (tap, id) in [("tap1", VICTIM), ("tap2", super::context::STRANGER)] {
        let tags = if column == 1 { Bridged::Filtered.tags() } else { "" };
        let nic = bridged_nic(&ground.node, tap, id, tags);
        // The stranger is a guest like any other; only the victim has a profile.
        let nic = if tap == "tap1" { nic.set("TAGS", profile) } else { nic };
        nic.ifup()?.succeeds()?;
    }
    let node = Port::packet(&ground.node.netns, "br0", false)?;
    judge(&ground, column, |arrival| match arrival.from {
        From::Uplink => Some(&ground.uplink),
        From::Stranger => ground.stranger.as_ref(),
        From::Node => Some(&node),
    })
}

/// A routed victim with a profile.
pub fn routed(column: usize) -> Result<()> {
    let mut ground = Ground::routed(Families::Both)?;
    nic(&ground.node, "tap1", VICTIM).set("TAGS", PROFILES[column]).ifup()?.succeeds()?;
    ground.context.router = Some(ground.node.uplink_mac());
    judge(&ground, column, |arrival| {
        let frames = (arrival.frames)(&ground.context);
        // Only what is addressed to the node, as a packet that it can route.
        let packets = frames.iter().all(|frame| {
            frame[..6] == ground.node.uplink_mac().0 && matches!(frame[12..14], [8, 0] | [0x86, 0xdd] | [0x81, 0])
        });
        let routable = packets && frames.iter().all(|frame| frame[12..16] != [0x81, 0, 0, 5]);
        (arrival.from == From::Uplink && routable).then_some(&ground.uplink)
    })
}

/// TAGS of each column.
const PROFILES: [&str; 5] =
    ["", "", "synnefo:network:0:protected", "synnefo:network:0:limited", "synnefo:network:0:unprotected"];

fn judge<'a>(ground: &'a Ground, column: usize, port: impl Fn(&Arrival) -> Option<&'a Port>) -> Result<()> {
    let mut wrong = String::new();
    let mut tried = 0;
    for arrival in ARRIVALS {
        let Some(port) = port(arrival) else { continue };
        tried += 1;
        if ground.bridge.is_some() {
            ground.teach()?;
        }
        let frames = (arrival.frames)(&ground.context);
        let expected = arrival.arrives[column];
        let mut arrived = false;
        // On a loaded machine another processor may carry a frame, which is then not there yet: what should arrive is sent again.
        for _ in 0..if expected { TRIES } else { 1 } {
            ground.empty();
            for frame in &frames {
                port.send(frame)?;
            }
            arrived = ground.arrived(&frames).contains('V');
            if arrived == expected {
                break;
            }
        }
        if arrived != expected {
            wrong += &format!("\n  {}: expected to {}", arrival.name, if expected { "arrive" } else { "be dropped" });
        }
    }
    ensure!(wrong.is_empty(), "{tried} tried, of which went another way:{wrong}");
    ensure!(tried > 20, "only {tried} tried");
    Ok(())
}
