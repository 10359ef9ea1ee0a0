//! The node's uplink: `node up` and `node down`, by options and by ifupdown's variables.

use std::net::UdpSocket;

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::guest::WEB1;
use crate::harness::monitor::Monitor;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{ARP_IP, GATEWAY, GATEWAY_MAC, Node, OUTSIDE, OUTSIDE6, Site, Wanted};

pub const TESTS: &[Test] = &[
    ("node::down_leaves_the_state_as_it_was", down_leaves_the_state_as_it_was),
    ("node::one_family_goes_and_the_other_stays", one_family_goes_and_the_other_stays),
    ("node::up_twice_is_up_once", up_twice_is_up_once),
    ("node::what_an_administrator_set_stays", what_an_administrator_set_stays),
    ("node::ifupdowns_variables_say_the_same", ifupdowns_variables_say_the_same),
    ("node::what_stands", what_stands),
    ("node::arp_source", arp_source),
    ("node::wrong_options", wrong_options),
];

/// Where nothing is marked, what belongs to marks is none of ours.
fn what_an_administrator_set_stays() -> Result<()> {
    let site = Site::with(BARE)?;
    let (netns, files) = (&site.node.netns, &site.node.files);
    files.set("ROUTING=rule")?;
    site.node.uplink_up()?;
    netns.set_sysctl("ipv4/conf/eth1/src_valid_mark", "1")?;
    let before = Snapshot::of(netns)?;
    site.node.uplink_up()?;
    before.returns_in(netns, |state| state)?;
    down(&site.node)?;
    ensure!(netns.sysctl("ipv4/conf/eth1/src_valid_mark")? == "1");
    // A record of an earlier version of the program does not know of it.
    netns.set_sysctl("ipv4/conf/eth1/src_valid_mark", "0")?;
    site.node.uplink_up()?;
    let record = files.state().join("uplinks-by-device/eth1.ipv4");
    let text = std::fs::read_to_string(&record)?;
    let old = text.replace(" ipv4.src_valid_mark=0", "");
    ensure!(old != text, "{text}");
    std::fs::write(&record, old)?;
    files.set("ROUTING=mark")?;
    site.node.uplink_up()?;
    ensure!(netns.sysctl("ipv4/conf/eth1/src_valid_mark")? == "1");
    down(&site.node)?;
    ensure!(netns.sysctl("ipv4/conf/eth1/src_valid_mark")? == "0");
    Ok(())
}

const BARE: Wanted = Wanted { nodes: 1, uplink: false, tentative: false };

const INET: &[(&str, &str)] = &[
    ("IFACE", "eth1"),
    ("ADDRFAM", "inet"),
    ("IF_IP_ROUTING_TABLE", "100"),
    ("IF_IP_ROUTES", "10.0.0.0/24"),
    ("IF_IP_GATEWAY", "10.0.0.1"),
    ("IF_IP_FORWARDING", "1"),
    ("IF_IP_PROXY_ARP", "1"),
    ("IF_ARP_IP", "10.0.0.254"),
];
const INET6: &[(&str, &str)] = &[
    ("IFACE", "eth1"),
    ("ADDRFAM", "inet6"),
    ("IF_IP_ROUTING_TABLE", "100"),
    ("IF_IP_ROUTES", "2001:db8:1::/64"),
    ("IF_IP_GATEWAY", "2001:db8:1::1"),
    ("IF_IP_FORWARDING", "1"),
    ("IF_IP_PROXY_NDP", "1"),
];

fn down(node: &Node) -> Result<()> {
    for options in [Node::UPLINK6, Node::UPLINK] {
        node.files.run(&node.netns, &["node", "down"], options)?.succeeds()?;
    }
    Ok(())
}

fn down_leaves_the_state_as_it_was() -> Result<()> {
    let site = Site::with(BARE)?;
    let netns = &site.node.netns;
    let before = Snapshot::of(netns)?;
    site.node.uplink_up()?;
    down(&site.node)?;
    before.returns_in(netns, Snapshot::without_base_tables)?;
    down(&site.node)?;
    before.returns_in(netns, Snapshot::without_base_tables)?;
    // An uplink that the administrator has set up before stays up.
    netns.ip("link set eth1 up")?;
    site.node.settled("eth1")?;
    let before = Snapshot::of(netns)?;
    site.node.uplink_up()?;
    down(&site.node)?;
    before.returns_in(netns, |state| state)
}

/// The link is of both, whichever came first.
fn one_family_goes_and_the_other_stays() -> Result<()> {
    let site = Site::with(BARE)?;
    let (node, netns) = (&site.node, &site.node.netns);
    let before = Snapshot::of(netns)?;
    let guest = node.plug("tap0", WEB1)?;
    let run = |verb, options: &str| node.files.run(netns, &["node", verb], options)?.succeeds().map(drop);
    let both = [(Node::UPLINK, OUTSIDE), (Node::UPLINK6, OUTSIDE6)];
    for (order, place) in [(both, 0), (both, 1), ([both[1], both[0]], 0), ([both[1], both[0]], 1)] {
        order.iter().try_for_each(|(options, _)| run("up", options))?;
        node.settled("eth1")?;
        node.nic("tap0", WEB1).ifup()?.succeeds()?;
        let (goes, stays) = (order[place], order[1 - place]);
        run("down", &format!("{} --force", goes.0))?;
        guest.ping(stays.1)?;
        node.nic("tap0", WEB1).ifdown()?.succeeds()?;
        run("down", stays.0)?;
        // What remained of the one that went while a guest used it.
        node.files.run(netns, &["gc"], "")?.succeeds()?;
        let link = netns.ip("link show dev eth1")?;
        ensure!(!link.contains(",UP") && !link.contains("<UP"), "{link}");
    }
    node.unplug(guest, "tap0")?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

fn up_twice_is_up_once() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    netns.settle()?;
    let before = Snapshot::of(netns)?;
    let monitor = Monitor::of(netns)?;
    site.node.uplink_up()?;
    let heard = monitor.heard()?;
    ensure!(heard.is_empty(), "the second node up changed something: {heard:#?}");
    before.equals(&Snapshot::of(netns)?)
}

fn ifupdowns_variables_say_the_same() -> Result<()> {
    let by_options = Site::new()?;
    let site = Site::with(BARE)?;
    let (files, netns) = (&site.node.files, &site.node.netns);
    let before = Snapshot::of(netns)?;
    for variables in [INET, INET6] {
        files.run_with(netns, &["node", "up"], variables)?.succeeds()?;
    }
    Snapshot::of(&by_options.node.netns)?.returns_in(netns, |state| state)?;
    for variables in [INET6, INET] {
        files.run_with(netns, &["node", "down"], variables)?.succeeds()?;
    }
    before.returns_in(netns, Snapshot::without_base_tables)?;
    // ifupdown runs its scripts for every interface.
    for interface in ["lo", "eth0"] {
        let variables = [("IFACE", interface), ("ADDRFAM", "inet"), ("MODE", "start")];
        files.run_with(netns, &["node", "up"], &variables)?.succeeds()?;
    }
    before.returns_in(netns, Snapshot::without_base_tables)
}

fn what_stands() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    for (command, expected) in [
        ("-4 rule show", "20000:\tfrom all iif eth1 lookup 100 proto 218"),
        ("-6 rule show", "20000:\tfrom all iif eth1 lookup 100 proto 218"),
        ("-4 route show table 100", "default via 10.0.0.1 dev eth1 proto 218"),
        ("-4 route show table 100", "unreachable default proto 218 metric 4278198272"),
        ("-4 route show table 100", "10.0.0.0/24 dev eth1 proto 218"),
        ("-4 route show table main", "10.0.0.0/24 dev eth1 proto 218"),
        ("-6 route show table 100", "default via 2001:db8:1::1 dev eth1 proto 218"),
        ("-6 route show table 100", "unreachable default dev lo proto 218 metric 4278198272"),
        ("-6 route show table 100", "2001:db8:1::/64 dev eth1 proto 218"),
        ("-6 route show table main", "2001:db8:1::/64 dev eth1 proto 218"),
    ] {
        let text = netns.ip(command)?;
        ensure!(text.contains(expected), "expected {expected:?} in {command}:\n{text}");
    }
    for (name, expected) in [
        ("ipv4/conf/eth1/forwarding", "1"),
        ("ipv4/conf/eth1/proxy_arp", "1"),
        ("ipv4/neigh/eth1/proxy_delay", "0"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/all/proxy_ndp", "1"),
        ("ipv6/conf/eth1/proxy_ndp", "1"),
        ("ipv6/neigh/eth1/proxy_delay", "0"),
    ] {
        let value = netns.sysctl(name)?;
        ensure!(value == expected, "{name} = {value}");
    }
    Ok(())
}

fn arp_source() -> Result<()> {
    let ask = |site: &Site| -> Result<()> {
        site.node.netns.run(|| -> Result<()> {
            // Bound to the management address, or the kernel would find no source on the uplink.
            UdpSocket::bind("192.0.2.11:0")?.send_to(b"?", (GATEWAY, 9))?;
            Ok(())
        })
    };
    let site = Site::new()?;
    let (wire, device) = (site.wire()?, site.node.uplink_mac());
    ask(&site)?;
    wire.expect(&format!("{device} > ff:ff:ff:ff:ff:ff ARP, Request who-has {GATEWAY} tell {ARP_IP}"))?;
    wire.expect(&format!("{GATEWAY_MAC} > {device} ARP, Reply {GATEWAY} is-at {GATEWAY_MAC}"))?;
    // Without it the node asks under an address of its own, of another network.
    let site = Site::with(BARE)?;
    let (wire, device) = (site.wire()?, site.node.uplink_mac());
    let options = "--dev eth1 --table 100 --gateway 10.0.0.1 --routes 10.0.0.0/24";
    site.node.files.run(&site.node.netns, &["node", "up"], options)?.succeeds()?;
    ask(&site)?;
    wire.expect(&format!("{device} > ff:ff:ff:ff:ff:ff ARP, Request who-has {GATEWAY} tell 192.0.2.11"))?;
    Ok(())
}

fn wrong_options() -> Result<()> {
    let site = Site::with(BARE)?;
    let netns = &site.node.netns;
    let before = Snapshot::of(netns)?;
    for (verb, options, parts) in [
        ("up", "--dev eth9 --table 100 --gateway 10.0.0.1", ["eth9", "no such"]),
        ("up", "--dev ../x --table 100 --gateway 10.0.0.1", ["--dev", "../x"]),
        ("up", "--dev eth1 --table no-such-table --gateway 10.0.0.1", ["--table", "no-such-table"]),
        ("up", "--dev eth1 --table 100 --gateway 10.0.0", ["--gateway", "10.0.0"]),
        ("up", "--dev eth1 --table 100 --routes 10.0.0.0/33", ["--routes", "10.0.0.0/33"]),
        (
            "up",
            "--dev eth1 --table 100 --routes 10.0.0.5/24",
            ["--routes: 10.0.0.5/24 has host bits", "expected 10.0.0.0/24"],
        ),
        ("up", "--dev eth1 --table 100 --gateway 10.0.1.1 --routes 10.0.0.0/24", ["--gateway 10.0.1.1", "--onlink"]),
        ("up", "--dev eth1 --table local --gateway 10.0.0.1", ["--table", "other than local"]),
        ("up", "--dev eth1 --table 100 --routes 10.0.0.0/24 --arp-ip x", ["--arp-ip", "x"]),
        ("up", "--dev eth1 --gateway 10.0.0.1 --gateway 10.0.0.2", ["eth1", "two gateways"]),
        ("up", "--dev eth1 --frobnicate", ["--frobnicate", ""]),
        ("up", "--dev", ["--dev", ""]),
        ("up", "", ["", ""]),
        ("sideways", "--dev eth1", ["sideways", ""]),
    ] {
        site.node.files.run(netns, &["node", verb], options)?.fails(&parts)?;
        before.equals(&Snapshot::of(netns)?)?;
    }
    Ok(())
}
