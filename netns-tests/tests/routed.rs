//! ip-less-routed: who reaches whom, and on which way.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};

use super::walk;
use crate::Test;
use crate::harness::frame::{self, ARP, Mac};
use crate::harness::guest::{Guest, WEB1, WEB2};
use crate::harness::netns::Netns;
use crate::harness::packet::Packet;
use crate::harness::port::Capture;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{
    ARP_IP, GATEWAY, GATEWAY_MAC, GATEWAY6, MANAGEMENT, MANAGEMENT6, OUTSIDE, OUTSIDE6, Site, TAP_MAC, Wanted,
};

pub const TESTS: &[Test] = &[
    ("routed::ipv4_follows_the_seeds_walk", ipv4_follows_the_seeds_walk),
    ("routed::ipv6_follows_the_seeds_walk", ipv6_follows_the_seeds_walk),
    ("routed::ipv4_alone", ipv4_alone),
    ("routed::ipv6_alone", ipv6_alone),
    ("routed::an_instance_tag_disables_a_family", an_instance_tag_disables_a_family),
    ("routed::two_guests_of_a_node", two_guests_of_a_node),
    ("routed::guests_of_two_nodes", guests_of_two_nodes),
    ("routed::a_real_stack_as_guest", a_real_stack_as_guest),
    ("routed::from_the_host", from_the_host),
    ("routed::the_proxy_leaves_probes_alone", the_proxy_leaves_probes_alone),
    ("routed::nothing_reaches_the_management_network", nothing_reaches_the_management_network),
    ("routed::nothing_leaks_while_up_and_down", nothing_leaks_while_up_and_down),
    ("routed::a_guest_does_not_configure_the_node", a_guest_does_not_configure_the_node),
];

fn ipv4_follows_the_seeds_walk() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    walk::ipv4(&site, &guest, "tap0")
}

fn ipv6_follows_the_seeds_walk() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    walk::ipv6(&site, &guest, "tap0")
}

fn ipv4_alone() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    site.node.nic("tap0", WEB1).only_v4().ifup()?.succeeds()?;
    only_ipv4_works(&site, &guest)
}

fn only_ipv4_works(site: &Site, guest: &Guest) -> Result<()> {
    let wire = site.node.wire()?;
    guest.send_echo(WEB1.ip6.into(), OUTSIDE6)?;
    guest.ping(OUTSIDE)?;
    wire.never(&format!("IP6 {} > {OUTSIDE6}", WEB1.ip6))?;
    let state = Snapshot::of(&site.node.netns)?;
    ensure!(state.naming(&WEB1.ip6.to_string()).is_empty(), "{:?}", state.naming(&WEB1.ip6.to_string()));
    Ok(())
}

fn ipv6_alone() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    site.node.nic("tap0", WEB1).only_v6().ifup()?.succeeds()?;
    only_ipv6_works(&site, &guest)
}

fn only_ipv6_works(site: &Site, guest: &Guest) -> Result<()> {
    let wire = site.node.wire()?;
    guest.send(&frame::arp_request((WEB1.mac, WEB1.ip), Ipv4Addr::new(10, 0, 0, 1)))?;
    guest.send_echo(WEB1.ip.into(), OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    wire.never(&format!("IP {} > {OUTSIDE}", WEB1.ip))?;
    guest.seen.never("ARP, Reply")?;
    let state = Snapshot::of(&site.node.netns)?;
    ensure!(state.naming(&WEB1.ip.to_string()).is_empty(), "{:?}", state.naming(&WEB1.ip.to_string()));
    Ok(())
}

fn an_instance_tag_disables_a_family() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    let nic = || site.node.nic("tap0", WEB1);
    nic().set("TAGS", "production disable_ipv6").ifup()?.succeeds()?;
    only_ipv4_works(&site, &guest)?;
    nic().ifdown()?.succeeds()?;
    nic().set("TAGS", "disable_ipv4").ifup()?.succeeds()?;
    guest.seen.clear();
    only_ipv6_works(&site, &guest)
}

fn two_guests_of_a_node() -> Result<()> {
    let site = Site::new()?;
    let one = site.node.guest("tap0", WEB1)?;
    let two = site.node.guest("tap1", WEB2)?;
    // For the one the other is behind the gateway.
    one.send(&frame::arp_request((WEB1.mac, WEB1.ip), WEB2.ip))?;
    one.seen.expect(&format!("{TAP_MAC} > {} ARP, Reply {} is-at {TAP_MAC}", WEB1.mac, WEB2.ip))?;
    for address in WEB2.addresses() {
        one.ping(address)?;
    }
    for address in WEB1.addresses() {
        two.ping(address)?;
    }
    for guest in [&one, &two] {
        guest.ping(OUTSIDE)?;
        guest.ping(OUTSIDE6)?;
        for packet in guest.seen.seen() {
            ensure!(packet.source == TAP_MAC, "a guest sees more than its gateway: {packet}");
        }
    }
    Ok(())
}

fn guests_of_two_nodes() -> Result<()> {
    let site = Site::with(Wanted { nodes: 2, uplink: true, tentative: false })?;
    let second = site.second()?;
    let one = site.node.guest("tap0", WEB1)?;
    let two = second.guest("tap0", WEB2)?;
    let wire = site.node.wire()?;
    for address in WEB2.addresses() {
        one.ping(address)?;
    }
    for address in WEB1.addresses() {
        two.ping(address)?;
    }
    // Straight from node to node: the guests' network is on the uplink's link.
    let (from, to) = (site.node.uplink_mac(), second.uplink_mac());
    wire.expect(&format!("{from} > {to} IP {} > {}: echo request", WEB1.ip, WEB2.ip))?;
    wire.expect(&format!("{from} > {to} IP6 {} > {}: echo request", WEB1.ip6, WEB2.ip6))?;
    Ok(())
}

fn a_real_stack_as_guest() -> Result<()> {
    let site = Site::new()?;
    // Its card is a veth pair, as a container's is.
    let machine = Netns::new()?;
    // Solicitations for its gateway are nfdhcpd's to answer: here it knows.
    machine.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
    site.node.netns.ip(&format!("link add tap0 type veth peer name eth0 netns {}", machine.path()))?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    machine.ip_batch(&format!(
        "link set eth0 address {mac} up\n\
         addr add {ip}/24 dev eth0\n\
         addr add {ip6}/64 dev eth0 nodad\n\
         route add default via {GATEWAY}\n\
         -6 route add default via {link} dev eth0\n\
         -6 neigh add {GATEWAY6} lladdr {TAP_MAC} dev eth0\n",
        mac = WEB1.mac,
        ip = WEB1.ip,
        ip6 = WEB1.ip6,
        link = TAP_MAC.link_local(),
    ))?;
    for destination in [OUTSIDE, OUTSIDE6, GATEWAY] {
        machine.output(std::process::Command::new("ping").args(["-c1", "-W15", &destination.to_string()]))?;
    }
    let neighbours = machine.ip("-4 neigh show dev eth0")?;
    ensure!(neighbours.contains(&format!("{GATEWAY} lladdr {TAP_MAC}")), "{neighbours}");
    for address in WEB1.addresses() {
        site.router.output(std::process::Command::new("ping").args(["-c1", "-W15", &address.to_string()]))?;
    }
    Ok(())
}

/// "Host to VM traffic: impossible if the VM resides in the host, otherwise there is a route for it".
fn from_the_host() -> Result<()> {
    let site = Site::with(Wanted { nodes: 2, uplink: true, tentative: false })?;
    let one = site.node.guest("tap0", WEB1)?;
    let two = site.second()?.guest("tap0", WEB2)?;
    let wire = site.node.wire()?;
    for (unspecified, address) in [("0.0.0.0:0", 0), ("[::]:0", 1)] {
        site.node.netns.run(|| -> Result<()> {
            let socket = UdpSocket::bind(unspecified)?;
            for guest in [WEB1, WEB2] {
                socket.send_to(b"from the host", (guest.addresses()[address], 9))?;
            }
            Ok(())
        })?;
    }
    // Its own guest is asked for on the uplink, where nobody is it.
    wire.expect(&format!("ARP, Request who-has {} tell {ARP_IP}", WEB1.ip))?;
    wire.expect(&format!("neighbor solicitation, who has {}", WEB1.ip6))?;
    two.seen.expect(&format!("IP 192.0.2.11 > {}: UDP", WEB2.ip))?;
    two.seen.expect(&format!("IP6 2001:db8:2::11 > {}: UDP", WEB2.ip6))?;
    one.ping(OUTSIDE)?;
    one.seen.never("length 13")
}

/// Duplicate address detection of a guest must not meet an answer (RFC 5227): not the proxy's either.
fn the_proxy_leaves_probes_alone() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    let probe = frame::arp(1, (WEB1.mac, Ipv4Addr::UNSPECIFIED), (Mac::ZERO, WEB1.ip));
    guest.send(&frame::ethernet(Mac::BROADCAST, WEB1.mac, ARP, &probe))?;
    guest.send(&frame::arp_request((WEB1.mac, WEB1.ip), Ipv4Addr::new(10, 0, 0, 1)))?;
    guest.seen.expect(&format!("ARP, Reply {GATEWAY}"))?;
    guest.seen.never(&format!("ARP, Reply {}", WEB1.ip))
}

fn management(site: &Site) -> Result<Capture> {
    Capture::on(&site.management, "lan")
}

fn nothing_reaches_the_management_network() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    let (wire, management) = (site.node.wire()?, management(&site)?);
    let both: [(IpAddr, IpAddr); 2] = [(WEB1.ip.into(), MANAGEMENT.into()), (WEB1.ip6.into(), MANAGEMENT6.into())];
    for (source, destination) in both {
        let mark = guest.send_echo(source, destination)?;
        wire.expect(&format!("> {GATEWAY_MAC} {}", request(source, destination, &mark)))?;
        management.never(&request(source, destination, &mark))?;
    }
    // Not even when the guests' table has lost its default route.
    site.node
        .netns
        .ip_batch("route del default via 10.0.0.1 table 100\n-6 route del default via 2001:db8:1::1 table 100")?;
    for (source, destination) in both {
        let mark = guest.send_echo(source, destination)?;
        let refused = if source.is_ipv4() { "protocol 1 type 3" } else { "destination unreachable" };
        guest.seen.expect(refused)?;
        management.never(&request(source, destination, &mark))?;
    }
    // The same packets pass where the rules are missing: that by the interface, and that by a mark if there is one.
    site.node.netns.delete_rules(&["iif tap0", "fwmark"])?;
    for (source, destination) in both {
        let mark = guest.send_echo(source, destination)?;
        management.expect(&request(source, destination, &mark))?;
    }
    Ok(())
}

fn request(source: IpAddr, destination: IpAddr, mark: &str) -> String {
    let ip = if source.is_ipv4() { "IP" } else { "IP6" };
    format!("{ip} {source} > {destination}: echo request {mark}")
}

fn nothing_leaks_while_up_and_down() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    let (wire, management) = (site.node.wire()?, management(&site)?);
    let spoofed = Ipv4Addr::new(10, 0, 0, 77);
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Refused while the TAP is down.
                let _ = guest.send_echo(WEB1.ip.into(), MANAGEMENT.into());
                let _ = guest.send_echo(WEB1.ip6.into(), MANAGEMENT6.into());
                let _ = guest.send_echo(spoofed.into(), OUTSIDE);
            }
        });
        let nic = site.node.nic("tap0", WEB1);
        let rounds = (0..10).try_for_each(|_| {
            nic.ifup()?.succeeds()?;
            nic.ifup()?.succeeds()?;
            nic.ifdown()?.succeeds().map(drop)
        });
        done.store(true, Ordering::Relaxed);
        rounds
    })?;
    let passed = |packet: &Packet| packet.matches(&format!("IP {} > {MANAGEMENT}: echo request", WEB1.ip));
    ensure!(wire.seen().iter().any(passed), "the guest was never up");
    management.never("echo request")?;
    wire.never(&format!("IP {spoofed} > {OUTSIDE}: echo request"))
}

fn a_guest_does_not_configure_the_node() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    // A node that is no IPv6 router would take a router advertisement for its own.
    site.node.nic("tap0", WEB1).only_v4().ifup()?.succeeds()?;
    let before = site.node.netns.ip("-6 route show table all")?;
    guest.send(&frame::router_advertisement(WEB1.mac, WEB1.mac.link_local()))?;
    guest.ping(OUTSIDE)?;
    let after = site.node.netns.ip("-6 route show table all")?;
    ensure!(!after.contains("proto ra"), "before:\n{before}after:\n{after}");
    for name in ["ipv6/conf/tap0/accept_ra", "ipv6/conf/tap0/accept_redirects", "ipv4/conf/tap0/accept_redirects"] {
        let value = site.node.netns.sysctl(name)?;
        ensure!(value == "0", "{name} = {value}");
    }
    Ok(())
}
