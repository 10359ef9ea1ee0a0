//! The node itself: what guests and the router's side reach of it, what it believes of ICMP errors, and what it forwards for others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};

use super::context::Verdicts::Seen;
use super::context::{ATTACKER, Context, LISTENING, Row, VICTIM, row};
use super::frames;
use super::testbed::{Families, Ground, nic};
use crate::harness::frame::{self, Mac};
use crate::harness::topology::{GATEWAY_MAC, OUTSIDE, OUTSIDE6};
use crate::harness::until;

/// "Fragmentation needed" or "packet too big" (RFC 792, RFC 4443), about an echo reply of `source` to `destination`: what the
/// kernel itself sends needs no socket to be believed.
fn too_big(from: IpAddr, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let quoted = frame::echo(true, source, destination, [0x5eed, 1], b"snf-network");
    match (from, source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut message = [&[3, 4, 0, 0, 0, 0, 2, 88][..], &quoted[..28]].concat();
            let sum = frame::checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
            frame::ipv4(from, to, frame::ICMP, &message)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame::icmpv6(from, to, 255, [&[2, 0, 0, 0, 0, 0, 5, 0][..], &quoted].concat())
        }
        mixed => panic!("two families: {mixed:?}"),
    }
}

fn own_link(c: &Context) -> Ipv6Addr {
    c.node.mac.link_local()
}

fn tell(from: IpAddr, to: IpAddr) -> Vec<u8> {
    frame::udp((from, 7), (to, LISTENING), b"forged")
}

/// The rows. Filters of bridges leave the node's own addresses to the node's firewall.
pub const ROWS: &[Row] = &[
    row(
        "own IPv4 to the node",
        |c| vec![c.to_node(&c.tell_node(c.me.ip))],
        Seen(["BH", "BH", "BH", "BH"]),
        Seen(["H", ""]),
    ),
    row(
        "own IPv6 to the node",
        |c| vec![c.to_node(&c.tell_node(c.me.ip6))],
        Seen(["BH", "BH", "BH", "BH"]),
        Seen(["H", ""]),
    ),
    row(
        "own IPv6 to the node's link-local address",
        |c| vec![c.to_node(&tell(c.me.ip6.into(), own_link(c).into()))],
        Seen(["BH", "BH", "BH", "BH"]),
        Seen(["H", ""]),
    ),
    row(
        "link-local IPv6 to the node's link-local address",
        |c| vec![c.to_node(&tell(c.me.mac.link_local().into(), own_link(c).into()))],
        Seen(["BH", "BH", "BH", "BH"]),
        Seen(["H", ""]),
    ),
    row(
        "own IPv6 to the node in fragments",
        |c| frames::fragments6(&c.tell_node(c.me.ip6), 1).map(|it| c.to_node(&it)).to_vec(),
        Seen(["BH", "BH", "BH", "BH"]),
        Seen(["H", ""]),
    ),
    row(
        "own IPv6 to the node behind options",
        |c| vec![c.to_node(&frames::behind(&c.tell_node(c.me.ip6), &[(60, frames::options(0, 1))]))],
        Seen(["BH", "BH", "BH", "BH"]),
        Seen(["H", ""]),
    ),
    // On a routed TAP route_localnet is 1.
    row(
        "own IPv4 to 127.0.0.1",
        |c| vec![c.to_node(&tell(c.me.ip.into(), Ipv4Addr::LOCALHOST.into()))],
        Seen(["B", "B", "B", "B"]),
        Seen(["H", ""]),
    ),
    row(
        "own IPv4 to 127.9.9.9",
        |c| vec![c.to_node(&tell(c.me.ip.into(), Ipv4Addr::new(127, 9, 9, 9).into()))],
        Seen(["B", "B", "B", "B"]),
        Seen(["H", ""]),
    ),
    row(
        "own IPv4 to everybody on the node",
        |c| vec![c.to_all(&tell(c.me.ip.into(), Ipv4Addr::BROADCAST.into()))],
        Seen(["VUBSH", "VUBH", "VUBSH", "VUBH"]),
        Seen(["H", ""]),
    ),
    row(
        "too big, about a packet of the node to the outside",
        |c| vec![c.to_node(&too_big(c.me.ip.into(), c.node.ip.into(), OUTSIDE))],
        Seen(["BR", "BR", "BR", "BR"]),
        Seen(["R", ""]),
    ),
    row(
        "too big, about an IPv6 packet of the node to the outside",
        |c| vec![c.to_node(&too_big(c.me.ip6.into(), c.node.ip6.into(), OUTSIDE6))],
        Seen(["BR", "BR", "BR", "BR"]),
        Seen(["R", ""]),
    ),
    row(
        "too big, from the link-local address about an IPv6 packet of the node to the outside",
        |c| vec![c.to_node(&too_big_from_link(c))],
        Seen(["BR", "BR", "BR", "BR"]),
        Seen(["R", ""]),
    ),
];

fn too_big_from_link(c: &Context) -> Vec<u8> {
    let mut packet = too_big(c.me.ip6.into(), c.node.ip6.into(), OUTSIDE6);
    packet[8..24].copy_from_slice(&c.me.mac.link_local().octets());
    let message = packet.split_off(40);
    frame::icmpv6(c.me.mac.link_local(), c.node.ip6, 255, [&message[..2], &[0, 0], &message[4..]].concat())
}

/// The path MTU that the node believes in, to an address.
fn path_mtu(ground: &Ground, to: IpAddr) -> Result<String> {
    ground.node.netns.ip(&format!("route get {to}"))
}

/// A guest reports errors about packets that the node sent to itself.
pub fn errors_about_own_packets() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    let c = &ground.context;
    for (own, of_node, victim, mtu) in [
        (IpAddr::V4(c.me.ip), IpAddr::V4(c.node.ip), IpAddr::V4(c.victim.ip), "mtu 600"),
        (c.me.ip6.into(), c.node.ip6.into(), c.victim.ip6.into(), "mtu 1280"),
    ] {
        for (about, believed) in [(victim, false), (own, true)] {
            ground.attacker.send(&c.to_node(&too_big(own, of_node, about)))?;
            let route = path_mtu(&ground, about)?;
            ensure!(route.contains(mtu) == believed, "about {about}: {route}");
        }
    }
    Ok(())
}

/// What a guest needs of the node goes on: neighbour discovery of its TAP and echoes of its address, and what HOST_ACCESS opens.
pub fn what_stays_open() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    let c = &ground.context;
    let own = c.me.mac.link_local();
    let tap = own_link(c);
    ensure!(ground.attack(&[c.to_group(&frames::solicitation(own, tap, Some(c.me.mac)))])? == "A");
    let answers = |packet: &[u8], kind: u8| -> Result<bool> {
        ground.empty();
        ground.attacker.send(&c.to_node(packet))?;
        Ok(ground
            .attacker
            .drain()
            .iter()
            .any(|frame| frame.get(54) == Some(&kind) && frame.get(20) == Some(&frame::ICMPV6)))
    };
    const ECHO_REPLY: u8 = 129;
    // The guest's entry is there from the solicitation.
    ensure!(answers(&frame::echo_request(own.into(), tap.into(), 0x5eed, 1), ECHO_REPLY)?, "no echo reply");
    ensure!(!answers(&frame::echo_request(c.me.ip6.into(), c.node.ip6.into(), 0x5eed, 1), ECHO_REPLY)?);
    for (setting, port, expected) in [
        ("HOST_ACCESS=udp/10", 9, ""),
        ("HOST_ACCESS='tcp/9'", 9, ""),
        ("HOST_ACCESS='tcp/22,udp/9'", 9, "H"),
        ("HOST_ACCESS=", 9, ""),
    ] {
        ground.node.files.set(setting)?;
        nic(&ground.node, "tap0", ATTACKER).ifup()?.succeeds()?;
        ground.node.files.run(&ground.node.netns, &["status"], "")?.succeeds()?;
        for to in [c.node.ip.into(), c.node.ip6.into(), IpAddr::V6(tap)] {
            let packet = frame::udp((c.me.address_like(to), 7), (to, port), b"forged");
            let seen = ground.attack(&[c.to_node(&packet)])?;
            ensure!(seen == expected, "{setting}, to {to}: seen {seen:?}");
        }
        // Never to loopback addresses, and never for a neighbour.
        ground.node.netns.set_sysctl("ipv4/conf/tap0/route_localnet", "1")?;
        let seen = ground.attack(&[c.to_node(&tell(c.me.ip.into(), Ipv4Addr::LOCALHOST.into()))])?;
        ensure!(seen.is_empty(), "{setting}, to 127.0.0.1: seen {seen:?}");
        ground.empty();
        ground.victim.send(&frames::packet(c.node.mac, VICTIM.mac, &tell(VICTIM.ip.into(), c.node.ip.into())))?;
        ensure!(ground.arrived(&[vec![0; 60]]).is_empty(), "{setting}: the neighbour reaches the node");
    }
    Ok(())
}

/// From the router's side the node has the addresses of its uplink and no others.
pub fn from_the_uplink() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    let netns = &ground.node.netns;
    let c = &ground.context;
    netns.ip_batch(
        "addr add 10.0.0.200/24 dev eth1 noprefixroute\naddr add 2001:db8:1::200/64 dev eth1 nodad noprefixroute\n",
    )?;
    let own: [IpAddr; 2] = ["10.0.0.200".parse()?, "2001:db8:1::200".parse()?];
    let on_link = |to: IpAddr| c.gateway.address_like(to);
    let once = |packet: &[u8]| -> Result<String> {
        ground.empty();
        let frame = frames::packet(ground.node.uplink_mac(), c.gateway.mac, packet);
        ground.uplink.send(&frame)?;
        Ok(ground.arrived(&[frame]))
    };
    until("the uplink's own address", || Ok(once(&tell(on_link(own[1]), own[1]))? == "H"))?;
    // On a loaded machine another processor may carry a frame, which is then not there yet.
    let seen_of = |packet: &[u8]| -> Result<String> {
        (1..10).try_fold(once(packet)?, |seen, _| if seen.is_empty() { once(packet) } else { Ok(seen) })
    };
    netns.set_sysctl("ipv4/conf/eth1/route_localnet", "1")?;
    for strong in [true, false] {
        if !strong {
            ground.nft("delete table inet snf-network")?;
            netns.set_sysctl("ipv4/conf/eth1/arp_ignore", "0")?;
        }
        let others = if strong { "" } else { "H" };
        for to in own {
            ensure!(seen_of(&tell(on_link(to), to))? == "H", "{to}");
        }
        for to in [c.node.ip.into(), c.node.ip6.into(), Ipv4Addr::LOCALHOST.into()] {
            let seen = seen_of(&tell(on_link(to), to))?;
            ensure!(seen == others, "{to}, strong host {strong}: {seen:?}");
        }
        ensure!(seen_of(&tell(on_link(own[0]), Ipv4Addr::BROADCAST.into()))? == "H");
        ensure!(seen_of(&tell(c.gateway.mac.link_local().into(), frame::ALL_NODES.into()))? == "H");
        for (target, answered) in [(c.node.ip, !strong), ("10.0.0.200".parse()?, true), (c.victim.ip, true)] {
            ground.empty();
            ground.uplink.send(&frame::arp_request((c.gateway.mac, c.gateway.ip), target))?;
            let replies = ground.uplink.drain();
            let reply = |it: &Vec<u8>| it.get(12..14) == Some(&[8, 6]) && it.get(20..22) == Some(&[0, 2]);
            ensure!(replies.iter().any(reply) == answered, "ARP for {target}, strong host {strong}");
        }
        // By group and, as to see whether it is still there, by its own address.
        for (source, target, group) in
            [(c.gateway.mac.link_local(), c.victim.ip6, true), (c.gateway.mac.link_local(), c.victim.ip6, false)]
        {
            let mut packet = frames::solicitation(source, target, Some(c.gateway.mac));
            if !group {
                let message = packet.split_off(40);
                packet = frame::icmpv6(source, target, 255, [&message[..2], &[0, 0], &message[4..]].concat());
            }
            ground.empty();
            ground.uplink.send(&frames::packet(ground.node.uplink_mac(), c.gateway.mac, &packet))?;
            let advertised = |it: &Vec<u8>| it.get(54) == Some(&136);
            ensure!(ground.uplink.drain().iter().any(advertised), "{target}, by group {group}, strong host {strong}");
        }
    }
    Ok(())
}

/// What the management side sends to the guests' prefix does not leave by the uplink, unless the administrator wants it to.
pub fn from_other_interfaces() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    let netns = &ground.node.netns;
    // IPv4 is forwarded by interface, IPv6 by the whole node.
    netns.set_sysctl("ipv4/conf/eth0/forwarding", "1")?;
    netns.ip("neigh replace 10.0.0.77 lladdr 02:00:00:00:00:77 dev eth1 nud permanent")?;
    netns.ip("neigh replace 2001:db8:1::77 lladdr 02:00:00:00:00:77 dev eth1 nud permanent")?;
    let management = ground.management.as_ref().context("no management network")?;
    let seen_of = |to: IpAddr| -> Result<String> {
        let from: IpAddr = if to.is_ipv4() { "192.0.2.1".parse()? } else { "2001:db8:2::1".parse()? };
        ground.empty();
        let frame = frames::packet(Mac([2, 0, 0, 0, 0, 1]), GATEWAY_MAC, &frame::echo_request(from, to, 0x5eed, 1));
        management.send(&frame)?;
        Ok(ground.arrived(&[frame]).replace('M', ""))
    };
    let to: [IpAddr; 2] = ["10.0.0.77".parse()?, "2001:db8:1::77".parse()?];
    for (setting, expected) in [("FORWARD_FROM=", ""), ("FORWARD_FROM='lan7 eth0'", "U"), ("FORWARD_FROM=lan7", "")] {
        ground.node.files.set(setting)?;
        ground.node.uplink_up()?;
        ground.node.files.run(netns, &["status"], "")?.succeeds()?;
        for to in to {
            let seen = seen_of(to)?;
            ensure!(seen == expected, "{setting}, to {to}: seen {seen:?}");
        }
    }
    // And where the rule is missing.
    ground.nft("flush chain inet snf-network host_forward")?;
    for to in to {
        ensure!(seen_of(to)? == "U", "{to}");
    }
    Ok(())
}
