//! What nfdhcpd needs of us: the guest's questions in its queue, a way for its answers, and the binding file.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::frame::{self, Mac};
use crate::harness::guest::{Guest, WEB1};
use crate::harness::netns::Netns;
use crate::harness::nfqueue::Queue;
use crate::harness::port::Port;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site, TAP_MAC};

pub const TESTS: &[Test] = &[
    ("nfdhcpd::hears_the_guest_and_is_heard", hears_the_guest_and_is_heard),
    ("nfdhcpd::binding_of_a_routed_nic", binding_of_a_routed_nic),
    ("nfdhcpd::binding_of_a_bridged_nic", binding_of_a_bridged_nic),
    ("nfdhcpd::binding_carries_no_hostile_tag", binding_carries_no_hostile_tag),
];

fn index_of(netns: &Netns, interface: &str) -> Result<u32> {
    let line = netns.ip(&format!("-o link show dev {interface}"))?;
    line.split(':').next().and_then(|index| index.parse().ok()).with_context(|| format!("no index in {line:?}"))
}

fn served(site: &Site) -> Result<Guest> {
    let guest = site.node.plug("tap0", WEB1)?;
    site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd").ifup()?.succeeds()?;
    Ok(guest)
}

fn hears_the_guest_and_is_heard() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let mut queue = Queue::of_nfdhcpd(netns)?;
    let guest = served(&site)?;
    let tap = index_of(netns, "tap0")?;
    let gateway: Ipv6Addr = "2001:db8:1::1".parse()?;

    guest.send(&frame::dhcp_discover(WEB1.mac))?;
    guest.send(&frame::router_solicitation(WEB1.mac))?;
    guest.send(&frame::neighbour_solicitation(WEB1.mac, WEB1.ip6, gateway))?;
    guest.send(&frame::neighbour_solicitation(WEB1.mac, WEB1.mac.link_local(), gateway))?;
    guest.send(&frame::neighbour_solicitation(WEB1.mac, Ipv6Addr::UNSPECIFIED, WEB1.ip6))?;
    for question in [
        "IP 0.0.0.0 > 255.255.255.255: UDP 68 > 67 length 244".to_owned(),
        format!("IP6 {} > ff02::2: router solicitation", WEB1.mac.link_local()),
        format!("IP6 {} > ff02::1:ff00:1: neighbor solicitation, who has {gateway}", WEB1.ip6),
        format!("IP6 {} > ff02::1:ff00:1: neighbor solicitation, who has {gateway}", WEB1.mac.link_local()),
        format!("IP6 :: > ff02::1:ff12:3456: neighbor solicitation, who has {}", WEB1.ip6),
    ] {
        let (index, packet) = queue.expect(&question)?;
        ensure!(index == tap && packet.source == WEB1.mac, "from interface {index}, not {tap}: {packet}");
    }
    // The node itself has answered none of them: proxy_ndp is off on the TAP.
    guest.seen.never(&format!("neighbor advertisement, tgt is {gateway}"))?;

    // It answers over a packet socket on the TAP.
    let answers = Port::packet(netns, "tap0", false)?;
    let (router, client): (IpAddr, IpAddr) = (Ipv4Addr::new(10, 0, 0, 1).into(), WEB1.ip.into());
    let offer = frame::udp((router, 67), (client, 68), &[2; 300]);
    answers.send(&frame::ethernet(WEB1.mac, TAP_MAC, frame::IPV4, &offer))?;
    answers.send(&frame::router_advertisement(TAP_MAC, TAP_MAC.link_local()))?;
    answers.send(&frame::neighbour_advertisement((TAP_MAC, gateway), (WEB1.mac, WEB1.ip6), 0xe0))?;
    guest.seen.expect(&format!("{TAP_MAC} > {} IP {router} > {client}: UDP 67 > 68 length 300", WEB1.mac))?;
    guest.seen.expect(&format!("IP6 {} > ff02::1: router advertisement", TAP_MAC.link_local()))?;
    guest.seen.expect(&format!("neighbor advertisement, tgt is {gateway}, flags [RSO], target {TAP_MAC}"))?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;

    // Without the queue nobody hears them, and nothing of them goes on.
    let wire = site.node.wire()?;
    netns.iptables("-t mangle -F PREROUTING")?;
    netns.ip6tables("-t mangle -F PREROUTING")?;
    guest.send(&frame::dhcp_discover(WEB1.mac))?;
    guest.send(&frame::router_solicitation(WEB1.mac))?;
    guest.ping(OUTSIDE)?;
    wire.never("UDP 68 > 67 length 244")?;
    wire.never("router solicitation")
}

/// The binding as lines; and that nfdhcpd, which runs as nobody, can read it.
fn binding(node: &Node, tap: &str) -> Result<Vec<String>> {
    let path = node.files.bindings().join(tap);
    let text = fs::read_to_string(&path).context("the binding")?;
    let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o644, "mode {mode:o}");
    Ok(text.lines().map(str::to_owned).collect())
}

fn expect_lines(lines: &[String], expected: &[&str]) -> Result<()> {
    for line in expected {
        ensure!(lines.iter().any(|seen| seen == line), "expected {line:?} in {lines:#?}");
    }
    Ok(())
}

fn binding_of_a_routed_nic() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let nic = || site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "nfdhcpd ip-less-routed").set("TAGS", "a b");
    // An upper-case MAC would make nfdhcpd drop DHCP as spoofed.
    nic().set("MAC", Mac(WEB1.mac.0).to_string().to_uppercase()).ifup()?.succeeds()?;
    expect_lines(
        &binding(&site.node, "tap0")?,
        &[
            "INDEV=tap0",
            "IP=10.0.0.2",
            "MAC=aa:00:00:12:34:56",
            "HOSTNAME=web1.example.org",
            "TAGS=a b",
            "GATEWAY=10.0.0.1",
            "SUBNET=10.0.0.0/24",
            "GATEWAY6=2001:db8:1::1",
            "SUBNET6=2001:db8:1::/64",
            "EUI64=2001:db8:1:0:a800:ff:fe12:3456",
        ],
    )?;
    // A second ifup leaves it in place.
    let before = fs::metadata(site.node.files.bindings().join("tap0"))?.modified()?;
    nic().ifup()?.succeeds()?;
    ensure!(fs::metadata(site.node.files.bindings().join("tap0"))?.modified()? == before, "it was written again");
    nic().ifdown()?.succeeds()?;
    let left: Vec<_> = fs::read_dir(site.node.files.bindings())?.collect();
    ensure!(left.is_empty(), "left: {left:?}");
    nic().only_v6().ifup()?.succeeds()?;
    expect_lines(
        &binding(&site.node, "tap0")?,
        &["IP=", "GATEWAY=", "SUBNET=", "EUI64=2001:db8:1:0:a800:ff:fe12:3456"],
    )?;
    nic().ifdown()?.succeeds()?;
    nic().only_v4().ifup()?.succeeds()?;
    expect_lines(&binding(&site.node, "tap0")?, &["IP=10.0.0.2", "GATEWAY6=", "SUBNET6=", "EUI64="])
}

fn binding_of_a_bridged_nic() -> Result<()> {
    let site = Site::new()?;
    site.node.netns.ip("link add br0 type bridge")?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let nic = site.node.nic("tap0", WEB1).bridged("br0").set("NETWORK_TAGS", "nfdhcpd");
    nic.ifup()?.succeeds()?;
    expect_lines(&binding(&site.node, "tap0")?, &["INDEV=br0", "IP=10.0.0.2", "MAC=aa:00:00:12:34:56"])
}

fn binding_carries_no_hostile_tag() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let nic = site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    nic.set("TAGS", "good \nMAC=aa:00:00:00:00:66 IP=10.0.0.66").ifup()?.succeeds()?;
    let lines = binding(&site.node, "tap0")?;
    for key in ["MAC", "IP"] {
        let count = lines.iter().filter(|line| line.split('=').next() == Some(key)).count();
        ensure!(count == 1, "{key} stands there {count} times: {lines:#?}");
    }
    expect_lines(&lines, &["MAC=aa:00:00:12:34:56", "IP=10.0.0.2"])
}
