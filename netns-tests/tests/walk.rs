//! The seed's "PING from an instance": its numbered ARP walk and its lists of L3 steps, each line found on the wire.

use anyhow::Result;

use crate::harness::frame::{self, Mac};
use crate::harness::guest::Guest;
use crate::harness::topology::{ARP_IP, GATEWAY, GATEWAY_MAC, OUTSIDE, Site, TAP_MAC};

/// Lets a guest that nobody knows yet ping the outside, and finds every line of the walk.
pub fn ipv4(site: &Site, guest: &Guest, tap: &str) -> Result<()> {
    let (mac, ip) = (guest.id.mac, guest.id.ip);
    let std::net::IpAddr::V4(gateway) = GATEWAY else { unreachable!("an IPv4 constant") };
    let wire = site.node.wire()?;
    let device = site.node.uplink_mac();
    site.router.ip("neigh flush dev lan")?;

    // 1) The guest wants to know the gateway's MAC: the node answers for it.
    guest.send(&frame::arp_request((mac, ip), gateway))?;
    guest.seen.expect(&format!("{TAP_MAC} > {mac} ARP, Reply {gateway} is-at {TAP_MAC}"))?;

    // Outgoing traffic: what comes out of the TAP is routed by the table, whose default route is the gateway.
    // The node has learned the guest's MAC from its question; let it forget that, to see it ask.
    site.node.netns.ip(&format!("neigh flush dev {tap}"))?;
    let mark = guest.send_echo(ip.into(), OUTSIDE)?;

    // 2) The node wants to know the gateway's MAC, and has no address of its own to ask with.
    wire.expect(&format!("{device} > {} ARP, Request who-has {gateway} tell {ARP_IP}", Mac::BROADCAST))?;
    wire.expect(&format!("{GATEWAY_MAC} > {device} ARP, Reply {gateway} is-at {GATEWAY_MAC}"))?;
    wire.expect(&format!("{device} > {GATEWAY_MAC} IP {ip} > {OUTSIDE}: echo request {mark}, ttl 63"))?;

    // 4) The gateway wants to know who does proxy for the guest.
    wire.expect(&format!("{GATEWAY_MAC} > {} ARP, Request who-has {ip} tell {gateway}", Mac::BROADCAST))?;
    wire.expect(&format!("{device} > {GATEWAY_MAC} ARP, Reply {ip} is-at {device}"))?;

    // Incoming traffic: to the node's MAC, routed by the table too, to the TAP.
    wire.expect(&format!("{GATEWAY_MAC} > {device} IP {OUTSIDE} > {ip}: echo reply {mark}"))?;

    // 3) The node wants to know the guest's MAC; the guest sees only the gateway on its link.
    guest.seen.expect(&format!("{TAP_MAC} > {} ARP, Request who-has {ip} tell {gateway}", Mac::BROADCAST))?;
    guest.seen.expect(&format!("{TAP_MAC} > {mac} IP {OUTSIDE} > {ip}: echo reply {mark}, ttl 63"))?;
    for packet in guest.seen.seen() {
        anyhow::ensure!(packet.source == TAP_MAC, "the guest sees more than its gateway: {packet}");
    }

    // "So `arp -na` shows": the gateway on the uplink, the guest on the TAP.
    let neighbours = site.node.netns.ip("-4 neigh show")?;
    for (address, interface, mac) in [(gateway, "eth1", GATEWAY_MAC), (ip, tap, mac)] {
        let line = format!("{address} dev {interface} lladdr {mac}");
        anyhow::ensure!(neighbours.contains(&line), "expected {line:?} in {neighbours:?}");
    }
    Ok(())
}
