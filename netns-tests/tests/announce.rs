//! Announcements: the frames, byte for byte, and what they do to those who hear them.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::frame::{self, ALL_NODES, ARP, Mac};
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::netns::Netns;
use crate::harness::topology::{ARP_IP, OUTSIDE, OUTSIDE6, Site, Wanted};
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("announce::frames_are_those_of_the_standards", frames_are_those_of_the_standards),
    ("announce::three_rounds_without_the_caller", three_rounds_without_the_caller),
    ("announce::a_stale_neighbour_entry_is_replaced", a_stale_neighbour_entry_is_replaced),
    ("announce::nothing_while_the_guest_is_elsewhere", nothing_while_the_guest_is_elsewhere),
    ("announce::a_tentative_uplink_is_waited_for", a_tentative_uplink_is_waited_for),
    ("announce::stops_when_the_nic_is_gone", stops_when_the_nic_is_gone),
    ("announce::stops_when_the_tap_is_handed_over", stops_when_the_tap_is_handed_over),
    ("announce::arpsend_and_ndsend", arpsend_and_ndsend),
    ("announce::mac2eui64", mac2eui64),
];

/// The gratuitous ARP request, the reply and the unsolicited advertisement of WEB1's addresses, from `device`.
fn announcements(device: Mac) -> [Vec<u8>; 3] {
    let arp = |operation, target| {
        let packet = frame::arp(operation, (device, WEB1.ip), (target, WEB1.ip));
        let mut bytes = frame::ethernet(Mac::BROADCAST, device, ARP, &packet);
        bytes.resize(60, 0);
        bytes
    };
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(WEB1.ip6.octets());
    message.extend([2, 1]);
    message.extend(device.0);
    let packet = frame::icmpv6(device.link_local(), ALL_NODES, 255, message);
    let advertisement = frame::ethernet(Mac::of_group(ALL_NODES), device, frame::IPV6, &packet);
    [arp(1, Mac::ZERO), arp(2, device), advertisement]
}

fn request(device: Mac) -> String {
    format!("{device} > {} ARP, Request who-has {ip} tell {ip}", Mac::BROADCAST, ip = WEB1.ip)
}

fn reply(device: Mac) -> String {
    format!("{device} > {} ARP, Reply {} is-at {device}", Mac::BROADCAST, WEB1.ip)
}

fn advertisement(device: Mac) -> String {
    let source = device.link_local();
    format!("IP6 {source} > ff02::1: neighbor advertisement, tgt is {}", WEB1.ip6)
}

fn frames_are_those_of_the_standards() -> Result<()> {
    let site = Site::new()?;
    let addresses = site.node.netns.ip("-4 addr show dev eth1")?;
    ensure!(addresses.is_empty(), "the uplink is to have no address: {addresses}");
    let wire = site.wire()?;
    let _guest = site.node.guest("tap0", WEB1)?;
    let device = site.node.uplink_mac();
    let patterns = [request(device), reply(device), advertisement(device)];
    for (pattern, mut expected) in patterns.iter().zip(announcements(device)) {
        let packet = wire.expect(pattern)?;
        if pattern.contains("neighbor") {
            // The kernel gives raw sockets' packets a flow label by its own choice.
            expected[15..18].copy_from_slice(&packet.bytes[15..18]);
            ensure!(packet.icmpv6_checksum_holds(), "checksum: {packet}");
        }
        ensure!(packet.bytes == expected, "{packet}\n  sent     {:02x?}\n  expected {expected:02x?}", packet.bytes);
    }
    // Nobody is asked about duplicates, and nothing is announced towards the guest or the management network.
    wire.never(&format!("who-has {} tell {ARP_IP}", WEB1.ip))
}

fn three_rounds_without_the_caller() -> Result<()> {
    let site = Site::new()?;
    let wire = site.wire()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    // Returns when the program has ended and nobody holds its output any more.
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    for process in site.node.netns.processes()? {
        // One that is gone by now holds nothing.
        let Ok(entries) = fs::read_dir(process.join("fd")) else { continue };
        for held in entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()) {
            let held = held.display().to_string();
            ensure!(held == "/dev/null" || held.starts_with("socket:"), "the announcer holds {held}");
        }
    }
    let device = site.node.uplink_mac();
    for pattern in [request(device), reply(device), advertisement(device)] {
        wire.expect_count(&pattern, 3)?;
    }
    site.node.netns.settle()?;
    for pattern in [request(device), reply(device), advertisement(device)] {
        let count = wire.matching(&pattern).len();
        ensure!(count == 3, "{count} times {pattern}");
    }
    Ok(())
}

/// What the router believes of an address.
fn believes(router: &Netns, address: &str, mac: Mac) -> Result<bool> {
    Ok(router.ip(&format!("neigh show {address}"))?.contains(&format!("lladdr {mac}")))
}

/// Two nodes, WEB1 on the first, and a router that knows it and asks again only after an hour.
fn before_the_move() -> Result<(Site, crate::harness::guest::Guest)> {
    let site = Site::with(Wanted { nodes: 2, uplink: true, tentative: false })?;
    for family in ["ipv4", "ipv6"] {
        site.router.set_sysctl(&format!("{family}/neigh/lan/base_reachable_time_ms"), "3600000")?;
    }
    let guest = site.node.guest("tap0", WEB1)?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    site.node.netns.settle()?;
    for address in WEB1.addresses() {
        ensure!(believes(&site.router, &address.to_string(), site.node.uplink_mac())?, "{address} is unknown");
    }
    Ok((site, guest))
}

fn a_stale_neighbour_entry_is_replaced() -> Result<()> {
    let (site, before) = before_the_move()?;
    // As in a migration, the source side is not told before the target is up.
    let second = site.second()?;
    let after = second.guest("tap5", WEB1)?;
    for address in WEB1.addresses() {
        let address = address.to_string();
        until("the router to believe the second node", || believes(&site.router, &address, second.uplink_mac()))?;
    }
    drop(before);
    after.ping(OUTSIDE)?;
    after.ping(OUTSIDE6)?;
    Ok(())
}

fn nothing_while_the_guest_is_elsewhere() -> Result<()> {
    let (site, _before) = before_the_move()?;
    let wire = site.wire()?;
    let second = site.second()?;
    let _after = second.plug("tap5", WEB1)?;
    second.nic("tap5", WEB1).set("MIGRATION_PHASE", "pre").ifup()?.succeeds()?;
    second.netns.settle()?;
    for pattern in [request(second.uplink_mac()), reply(second.uplink_mac()), advertisement(second.uplink_mac())] {
        wire.never(&pattern)?;
    }
    for address in WEB1.addresses() {
        ensure!(believes(&site.router, &address.to_string(), site.node.uplink_mac())?, "{address} went over");
    }
    second.nic("tap5", WEB1).set("MIGRATION_PHASE", "post").ifup()?.succeeds()?;
    wire.expect(&request(second.uplink_mac()))?;
    wire.expect(&advertisement(second.uplink_mac()))?;
    Ok(())
}

fn a_tentative_uplink_is_waited_for() -> Result<()> {
    let site = Site::with(Wanted { nodes: 1, uplink: false, tentative: true })?;
    let netns = &site.node.netns;
    // Three probes, a second apart: the address stays tentative for longer than ifup takes.
    netns.set_sysctl("ipv6/conf/eth1/dad_transmits", "3")?;
    let wire = site.wire()?;
    site.node.uplink_up()?;
    let _guest = site.node.guest("tap0", WEB1)?;
    let device = site.node.uplink_mac();
    let link_local = device.link_local();
    wire.expect_count(&format!("IP6 :: > ff02::1:ff00:101: neighbor solicitation, who has {link_local}"), 3)?;
    let packet = wire.expect(&advertisement(device))?;
    ensure!(packet.icmpv6_checksum_holds(), "{packet}");
    let addresses = netns.ip("-6 addr show dev eth1 -tentative")?;
    ensure!(addresses.contains(&link_local.to_string()), "sent under a tentative address");
    for seen in wire.matching(&format!("neighbor advertisement, tgt is {}", WEB1.ip6)) {
        ensure!(seen.matches(&format!("IP6 {link_local} > ff02::1:")), "{seen}");
    }
    Ok(())
}

fn stops_when_the_nic_is_gone() -> Result<()> {
    let site = Site::new()?;
    let wire = site.wire()?;
    let nic = site.node.nic("tap0", WEB1);
    let _guest = site.node.guest("tap0", WEB1)?;
    nic.ifdown()?.succeeds()?;
    // What was sent before that has arrived once this has: both go the same way.
    let _other = site.node.guest("tap1", WEB2)?;
    wire.expect(&format!("ARP, Request who-has {ip} tell {ip}", ip = WEB2.ip))?;
    let sent = wire.matching(&request(site.node.uplink_mac())).len();
    site.node.netns.settle()?;
    let all = wire.matching(&request(site.node.uplink_mac())).len();
    ensure!(all == sent, "{sent} announcements before ifdown ended, {all} in all");
    Ok(())
}

fn stops_when_the_tap_is_handed_over() -> Result<()> {
    let site = Site::new()?;
    let wire = site.wire()?;
    site.node.unplug(site.node.guest("tap0", WEB1)?, "tap0")?;
    // Ganeti 3.0 calls no ifdown: the name is simply used again.
    let _other = site.node.guest("tap0", WEB2)?;
    wire.expect(&format!("ARP, Request who-has {ip} tell {ip}", ip = WEB2.ip))?;
    let sent = wire.matching(&request(site.node.uplink_mac())).len();
    site.node.netns.settle()?;
    let all = wire.matching(&request(site.node.uplink_mac())).len();
    ensure!(all == sent, "{sent} announcements before the TAP was another's, {all} in all");
    Ok(())
}

fn arpsend_and_ndsend() -> Result<()> {
    let site = Site::new()?;
    let (files, netns) = (&site.node.files, &site.node.netns);
    let wire = site.wire()?;
    let device = site.node.uplink_mac();
    files.run(netns, &["arpsend"], "-U -i 10.0.0.2 eth1")?.succeeds()?;
    wire.expect(&request(device))?;
    files.run(netns, &["arpsend"], "-U -c 2 -i 10.0.0.2 eth1")?.succeeds()?;
    wire.expect_count(&request(device), 3)?;
    files.run(netns, &["ndsend"], &format!("{} eth1", WEB1.ip6))?.succeeds()?;
    let packet = wire.expect(&advertisement(device))?;
    ensure!(packet.icmpv6_checksum_holds(), "{packet}");
    for (words, options, parts) in [
        ("arpsend", "-U -i 10.0.0.2 eth9", ["eth9", ""]),
        ("arpsend", "-U -i 10.0.0 eth1", ["10.0.0", ""]),
        ("ndsend", "10.0.0.2 eth1", ["10.0.0.2", ""]),
        ("ndsend", "", ["", ""]),
    ] {
        files.run(netns, &[words], options)?.fails(&parts).with_context(|| format!("{words} {options}"))?;
    }
    Ok(())
}

fn mac2eui64() -> Result<()> {
    let site = Site::with(Wanted { nodes: 1, uplink: false, tentative: false })?;
    let run = |options| site.node.files.run(&site.node.netns, &["mac2eui64"], options);
    let outcome = run("aa:00:00:12:34:56 2001:db8:1::/64")?.succeeds()?;
    ensure!(outcome.stdout.trim() == "2001:db8:1:0:a800:ff:fe12:3456", "{outcome:?}");
    run("aa:00:00:12:34:56 2001:db8:1::/80")?.fails(&["/80"])?;
    run("aa:00 2001:db8:1::/64")?.fails(&["aa:00"])?;
    Ok(())
}
