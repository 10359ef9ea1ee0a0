//! Does the harness itself tell the truth? Here the seed's own commands, run by the real tools, set the NIC up.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::frame;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::monitor::Monitor;
use crate::harness::nfqueue::Queue;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{ARP_IP, GATEWAY, OUTSIDE, OUTSIDE6, Site, TAP_MAC, Wanted};
use crate::tests::walk;

pub const TESTS: &[Test] = &[
    ("selftest::the_seeds_own_commands_pass_the_walk", the_seeds_own_commands_pass_the_walk),
    ("selftest::snapshots_show_every_change", snapshots_show_every_change),
    ("selftest::the_monitor_hears_every_change", the_monitor_hears_every_change),
    ("selftest::the_queue_hears_a_guest", the_queue_hears_a_guest),
    ("selftest::a_capture_says_what_it_saw_instead", a_capture_says_what_it_saw_instead),
];

/// A site whose first node has its uplink and one NIC set up by hand, as the seed says.
fn by_hand() -> Result<Site> {
    let site = Site::with(Wanted { nodes: 1, uplink: false, tentative: false })?;
    let netns = &site.node.netns;
    netns.ip_batch(
        "link set eth1 up\n\
         rule add iif eth1 lookup 100\n\
         route add 10.0.0.0/24 dev eth1\n\
         route add 10.0.0.0/24 dev eth1 table 100\n\
         route add default via 10.0.0.1 dev eth1 table 100\n\
         -6 rule add iif eth1 lookup 100\n\
         -6 route add 2001:db8:1::/64 dev eth1\n\
         -6 route add 2001:db8:1::/64 dev eth1 table 100\n\
         -6 route add default via 2001:db8:1::1 dev eth1 table 100\n",
    )?;
    let rules = format!(
        "table arp by-hand {{ chain output {{ type filter hook output priority 0;\n\
         oifname eth1 arp operation request arp saddr ip set {ARP_IP}\n\
         oifname tap0 arp operation request arp saddr ip set {GATEWAY}\n}}\n}}\n"
    );
    netns.fed(Command::new("nft").args(["-f", "-"]), &rules)?;
    for (name, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/all/proxy_ndp", "1"),
        ("ipv6/conf/eth1/proxy_ndp", "1"),
        ("ipv4/conf/eth1/proxy_arp", "1"),
        ("ipv4/neigh/eth1/proxy_delay", "0"),
        ("ipv6/neigh/eth1/proxy_delay", "0"),
    ] {
        netns.set_sysctl(name, value)?;
    }
    Ok(site)
}

fn the_seeds_own_commands_pass_the_walk() -> Result<()> {
    let site = by_hand()?;
    let netns = &site.node.netns;
    let guest = site.node.plug("tap0", WEB1)?;
    netns.set_sysctl("ipv4/conf/tap0/proxy_arp", "1")?;
    netns.set_sysctl("ipv4/neigh/tap0/proxy_delay", "0")?;
    netns.ip_batch(&format!(
        "link set tap0 address {TAP_MAC}\n\
         rule add iif tap0 lookup 100\n\
         -6 rule add iif tap0 lookup 100\n\
         link set tap0 up\n\
         route add {ip} dev tap0 table 100\n\
         -6 route add {ip6} dev tap0 table 100\n\
         -6 neigh add proxy {ip6} dev eth1\n",
        ip = WEB1.ip,
        ip6 = WEB1.ip6,
    ))?;
    walk::ipv4(&site, &guest, "tap0")?;
    guest.ping(OUTSIDE6)?;
    guest.send_echo(WEB1.ip.into(), OUTSIDE)?;
    ensure!(netns.mac_of("tap0")? == TAP_MAC.to_string(), "{}", netns.mac_of("tap0")?);
    Ok(())
}

fn snapshots_show_every_change() -> Result<()> {
    let site = by_hand()?;
    let netns = &site.node.netns;
    let before = Snapshot::of(netns)?;
    before.equals(&Snapshot::of(netns)?)?;
    let changes = [
        ("link set eth1 mtu 1400", "link set eth1 mtu 1500", "1400"),
        ("rule add iif tap9 lookup 7 pref 9", "rule del pref 9", "tap9"),
        ("-6 rule add iif tap9 lookup 7 pref 9", "-6 rule del pref 9", "tap9"),
        ("route add 10.9.9.9 dev eth1 table 100", "route del 10.9.9.9 table 100", "10.9.9.9"),
        ("-6 route add 2001:db8:9::9 dev eth1", "-6 route del 2001:db8:9::9", "2001:db8:9::9"),
        ("-6 neigh add proxy 2001:db8:9::9 dev eth1", "-6 neigh del proxy 2001:db8:9::9 dev eth1", "2001:db8:9::9"),
        ("addr add 10.9.9.9/32 dev lo", "addr del 10.9.9.9/32 dev lo", "10.9.9.9"),
    ];
    for (change, undo, word) in changes {
        netns.ip(change)?;
        let difference = before.difference(&Snapshot::of(netns)?);
        ensure!(difference.contains(word), "after {change}: {difference:?}");
        netns.ip(undo)?;
        before.returns_in(netns, |state| state)?;
    }
    netns.set_sysctl("ipv4/conf/eth1/proxy_arp", "0")?;
    let difference = before.difference(&Snapshot::of(netns)?);
    ensure!(difference.contains("- /proc/sys/net/ipv4/conf/eth1/proxy_arp = 1"), "{difference:?}");
    let nft = |line: &str| netns.output(Command::new("nft").args(line.split(' ')));
    nft("add table inet snf-network")?;
    nft("add set inet snf-network guarded { type ifname ; }")?;
    let empty = Snapshot::of(netns)?;
    nft("add element inet snf-network guarded { tap9 }")?;
    let full = Snapshot::of(netns)?;
    ensure!(empty.difference(&full).contains("tap9"), "{}", empty.difference(&full));
    ensure!(full.naming("tap9").len() == 1, "{:?}", full.naming("tap9"));
    ensure!(full.clone().without_base_tables() != empty.clone().without_base_tables(), "an element went unseen");
    ensure!(!empty.without_base_tables().difference(&full).is_empty(), "the empty tables are still there");
    Ok(())
}

fn the_monitor_hears_every_change() -> Result<()> {
    let site = by_hand()?;
    let netns = &site.node.netns;
    let monitor = Monitor::of(netns)?;
    for (change, word) in [
        ("link set eth1 mtu 1400", "RTM_NEWLINK"),
        ("rule add iif tap9 lookup 7 pref 9", "RTM_NEWRULE"),
        ("route add 10.9.9.9 dev eth1 table 100", "RTM_NEWROUTE"),
        ("-6 route add 2001:db8:9::9 dev eth1", "RTM_NEWROUTE"),
    ] {
        monitor.heard()?;
        netns.ip(change)?;
        let heard = monitor.heard()?;
        ensure!(heard.iter().any(|line| line.starts_with(word)), "after {change}: {heard:?}");
    }
    netns.output(Command::new("nft").args(["add", "table", "inet", "snf-network"]))?;
    let heard = monitor.heard()?;
    ensure!(heard.iter().any(|line| line.contains("nf_tables") && line.contains("snf-network")), "{heard:?}");
    Ok(())
}

fn the_queue_hears_a_guest() -> Result<()> {
    let site = by_hand()?;
    let guest = site.node.plug("tap0", WEB1)?;
    site.node.netns.ip("link set tap0 up")?;
    let mut queue = Queue::of_nfdhcpd(&site.node.netns)?;
    guest.send(&frame::dhcp_discover(WEB1.mac))?;
    let (index, packet) = queue.expect("IP 0.0.0.0 > 255.255.255.255: UDP 68 > 67")?;
    ensure!(index > 1 && packet.source == WEB1.mac, "interface {index}, {packet}");
    Ok(())
}

fn a_capture_says_what_it_saw_instead() -> Result<()> {
    let site = by_hand()?;
    let wire = site.node.wire()?;
    let guest = site.node.plug("tap0", WEB2)?;
    site.node.netns.ip("link set tap0 up")?;
    let tap = crate::harness::port::Capture::on(&site.node.netns, "tap0")?;
    guest.send(&frame::neighbour_solicitation(WEB2.mac, WEB2.ip6, WEB1.ip6))?;
    let packet = tap.expect(&format!("neighbor solicitation, who has {}, source {}", WEB1.ip6, WEB2.mac))?;
    ensure!(packet.icmpv6_checksum_holds(), "{packet}");
    let error = tap.never("neighbor solicitation").expect_err("it was seen").to_string();
    ensure!(error.contains(&packet.to_string()), "{error}");
    wire.never("neighbor solicitation, who has 2001:db8:1:0:a800:ff:fe12:3456")?;
    Ok(())
}
