//! The seed's "PING from an instance": its numbered ARP walk and its lists of L3 steps, each line found on the wire;
//! and the same of IPv6.

use anyhow::{Result, ensure};

use crate::harness::frame::{self, Mac};
use crate::harness::guest::Guest;
use crate::harness::topology::{ARP_IP, GATEWAY, GATEWAY_MAC, GATEWAY6, OUTSIDE, OUTSIDE6, Site, TAP_MAC};

/// Lets a guest whom nobody knows yet ping the outside, and finds every line of the walk.
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
    // The node knows the guest by a permanent entry; without it, it asks.
    site.node.netns.ip(&format!("neigh del {ip} dev {tap}"))?;
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
    sees_only_the_gateway(guest)?;

    // "So `arp -na` shows": the gateway on the uplink, the guest on the TAP.
    knows(site, "-4", &[(gateway.to_string(), "eth1", GATEWAY_MAC), (ip.to_string(), tap, mac)])
}

/// The same with neighbour discovery; solicitations of the guest itself are nfdhcpd's to answer.
pub fn ipv6(site: &Site, guest: &Guest, tap: &str) -> Result<()> {
    let (mac, ip) = (guest.id.mac, guest.id.ip6);
    let wire = site.node.wire()?;
    let device = site.node.uplink_mac();
    let (uplink, link) = (device.link_local(), TAP_MAC.link_local());
    site.router.ip("-6 neigh flush dev lan")?;
    site.node.netns.ip("-6 neigh flush dev eth1")?;
    site.node.netns.ip(&format!("-6 neigh flush dev {tap}"))?;
    site.node.netns.ip(&format!("-6 neigh del {ip} dev {tap}"))?;

    let mark = guest.send_echo(ip.into(), OUTSIDE6)?;
    wire.expect(&format!("neighbor solicitation, who has {GATEWAY6}, source {device}"))?;
    wire.expect(&format!(
        "{GATEWAY_MAC} > {device} IP6 {GATEWAY6} > {uplink}: neighbor advertisement, tgt is {GATEWAY6}"
    ))?;
    wire.expect(&format!("{device} > {GATEWAY_MAC} IP6 {ip} > {OUTSIDE6}: echo request {mark}, hlim 63"))?;

    // The node answers for the guest on the uplink.
    wire.expect(&format!("neighbor solicitation, who has {ip}, source {GATEWAY_MAC}"))?;
    let answer = format!("neighbor advertisement, tgt is {ip}, flags [S], target {device}");
    wire.expect(&answer)?;
    wire.expect(&format!("{GATEWAY_MAC} > {device} IP6 {OUTSIDE6} > {ip}: echo reply {mark}"))?;

    let group = "ff02::1:ff12:3456";
    guest.seen.expect(&format!("IP6 {link} > {group}: neighbor solicitation, who has {ip}, source {TAP_MAC}"))?;
    guest.seen.expect(&format!("{TAP_MAC} > {mac} IP6 {OUTSIDE6} > {ip}: echo reply {mark}, hlim 63"))?;
    sees_only_the_gateway(guest)?;
    knows(site, "-6", &[(GATEWAY6.to_string(), "eth1", GATEWAY_MAC), (ip.to_string(), tap, mac)])
}

fn sees_only_the_gateway(guest: &Guest) -> Result<()> {
    for packet in guest.seen.seen() {
        ensure!(packet.source == TAP_MAC, "the guest sees more than its gateway: {packet}");
    }
    Ok(())
}

fn knows(site: &Site, family: &str, expected: &[(String, &str, Mac)]) -> Result<()> {
    let neighbours = site.node.netns.ip(&format!("{family} neigh show"))?;
    for (address, interface, mac) in expected {
        let line = format!("{address} dev {interface} lladdr {mac}");
        ensure!(neighbours.contains(&line), "expected {line:?} in {neighbours:?}");
    }
    Ok(())
}
