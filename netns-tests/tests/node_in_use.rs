//! The uplink changes or goes while guests use it: what they lose is refused or said, and nothing of theirs takes another way.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::guest::{Guest, WEB1};
use crate::harness::nic::Outcome;
use crate::harness::ping::Pinging;
use crate::harness::port::Capture;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{GATEWAY_MAC, MANAGEMENT, MANAGEMENT6, Node, OUTSIDE, OUTSIDE6, Site};
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("node_in_use::nothing_leaks_while_the_uplink_is_down", nothing_leaks_while_the_uplink_is_down),
    ("node_in_use::nothing_leaks_in_a_restart", nothing_leaks_in_a_restart),
    ("node_in_use::nothing_leaks_without_the_device", nothing_leaks_without_the_device),
    ("node_in_use::what_remains_goes_with_the_last_nic", what_remains_goes_with_the_last_nic),
    ("node_in_use::changes_that_cut_guests_off_are_refused", changes_that_cut_guests_off_are_refused),
    ("node_in_use::another_table", another_table),
    ("node_in_use::it_comes_back_with_what_is_of_its_nics", it_comes_back_with_what_is_of_its_nics),
];

const BOTH: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(WEB1.ip), IpAddr::V4(MANAGEMENT)), (IpAddr::V6(WEB1.ip6), IpAddr::V6(MANAGEMENT6))];

fn node(site: &Site, verb: &str, options: &str) -> Result<Outcome> {
    site.node.files.run(&site.node.netns, &["node", verb], options)
}

fn status(site: &Site, code: i32) -> Result<String> {
    let outcome = site.node.files.run(&site.node.netns, &["status"], "")?;
    ensure!(outcome.code == Some(code), "expected exit {code}: {outcome:#?}");
    Ok(outcome.stdout)
}

/// Sends echo requests of both families to the management network.
fn send(guest: &Guest) -> Result<Vec<String>> {
    BOTH.into_iter().map(|(source, destination)| guest.send_echo(source, destination)).collect()
}

/// That neither a packet of the guest nor an answer to one got there.
fn nothing_of_the_guest(management: &Capture) -> Result<()> {
    management.never(&WEB1.ip.to_string())?;
    management.never(&WEB1.ip6.to_string())
}

/// That what the guest sends is refused. What is seen later on the management network would have come by then.
fn is_refused(site: &Site, guest: &Guest, management: &Capture) -> Result<()> {
    for _ in 0..20 {
        send(guest)?;
    }
    // The node's own come behind the last one of the guest.
    for (_, destination) in BOTH {
        Pinging::start(&site.node.netns, destination)?.goes_on(1)?;
    }
    nothing_of_the_guest(management)
}

fn nothing_leaks_while_the_uplink_is_down() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    site.node.settled("tap0")?;
    let management = Capture::on(&site.management, "lan")?;
    for options in ["--dev eth1", "--dev eth1 --family inet", "--dev eth1 --family inet6"] {
        let before = Snapshot::of(&site.node.netns)?;
        node(&site, "down", options)?.fails(&["NICs use", "table 100 (tap0)", "expected --force"])?;
        before.equals(&Snapshot::of(&site.node.netns)?)?;
    }
    guest.ping(OUTSIDE)?;
    let down = node(&site, "down", "--dev eth1 --force")?.succeeds()?;
    for family in ["IPv4", "IPv6"] {
        let said =
            format!("node down eth1: warning: NICs use {family} table 100 (tap0): they are cut off until node up");
        ensure!(down.stderr.contains(&said), "{down:#?}");
    }
    is_refused(&site, &guest, &management)?;
    let text = status(&site, 3)?;
    for part in ["cut off: table 100 has no IPv4 default route", "cut off: table 100 has no IPv6 default route"] {
        ensure!(text.contains(part), "{text}");
    }
    ensure!(text.lines().filter(|it| it.starts_with("eth1") && it.ends_with(" down")).count() == 2, "{text}");
    // What is down stays down.
    site.node.files.run(&site.node.netns, &["reconcile"], "")?.succeeds()?;
    node(&site, "down", "--dev eth1")?.succeeds()?;
    is_refused(&site, &guest, &management)?;
    site.node.uplink_up()?;
    site.node.settled("eth1")?;
    site.node.files.run(&site.node.netns, &["reconcile"], "")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    status(&site, 0)?;
    // Without the routes that remained, the same packets pass.
    node(&site, "down", "--dev eth1 --force")?.succeeds()?;
    site.node.netns.set_sysctl("ipv6/conf/all/forwarding", "1")?;
    site.node.netns.ip_batch("route del unreachable default table 100\n-6 route flush table 100 proto 218")?;
    for ((source, destination), mark) in BOTH.into_iter().zip(send(&guest)?) {
        management.expect(&format!("{source} > {destination}: echo request {mark}"))?;
    }
    Ok(())
}

fn nothing_leaks_in_a_restart() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    let (wire, management) = (site.node.wire()?, Capture::on(&site.management, "lan")?);
    let done = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = send(&guest);
            }
        });
        let rounds = (0..5).try_for_each(|_| {
            for (verb, options) in [("down", "--dev eth1 --force"), ("up", Node::UPLINK), ("up", Node::UPLINK6)] {
                node(&site, verb, options)?.succeeds()?;
            }
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        rounds
    })?;
    let (source, destination) = BOTH[0];
    let passed = format!("> {GATEWAY_MAC} IP {source} > {destination}: echo request");
    ensure!(!wire.matching(&passed).is_empty(), "the guest never sent anything");
    nothing_of_the_guest(&management)
}

/// Its device is unplugged and plugged again: what systemd and ifupdown do then.
fn nothing_leaks_without_the_device() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    let management = Capture::on(&site.management, "lan")?;
    site.node.netns.ip("link del eth1")?;
    is_refused(&site, &guest, &management)?;
    node(&site, "down", "--dev eth1")?.succeeds()?;
    is_refused(&site, &guest, &management)?;
    status(&site, 3).map(drop)
}

fn what_remains_goes_with_the_last_nic() -> Result<()> {
    let site = Site::new()?;
    node(&site, "down", "--dev eth1")?.succeeds()?;
    let before = Snapshot::of(&site.node.netns)?;
    for last in [&["gc"][..], &["reconcile"], &["node", "down", "--dev", "eth1"]] {
        site.node.uplink_up()?;
        site.node.settled("eth1")?;
        let guest = site.node.guest("tap0", WEB1)?;
        node(&site, "down", "--dev eth1 --force")?.succeeds()?;
        site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
        site.node.unplug(guest, "tap0")?;
        site.node.files.run(&site.node.netns, last, "")?.succeeds()?;
        before.returns_in(&site.node.netns, Snapshot::without_base_tables).with_context(|| format!("{last:?}"))?;
        status(&site, 0)?;
    }
    Ok(())
}

fn changes_that_cut_guests_off_are_refused() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    site.node.settled("tap0")?;
    let management = Capture::on(&site.management, "lan")?;
    for (options, change) in [
        ("--dev eth1 --table 100 --routes 10.0.0.0/24", "gateway 10.0.0.1 -> none"),
        ("--dev eth1 --table 100 --gateway 10.0.0.9 --routes 10.0.0.0/24", "gateway 10.0.0.1 -> 10.0.0.9"),
        ("--dev eth1 --table 100 --gateway 10.0.0.1", "routes 10.0.0.0/24 -> none"),
        ("--dev eth1 --table 200 --gateway 10.0.0.1 --routes 10.0.0.0/24", "table 100 -> 200"),
        ("--dev eth1 --gateway 10.0.0.1 --routes 10.0.0.0/24", "table 100 -> 254"),
        ("--dev eth1 --table 100 --gateway 10.0.0.1 --routes 10.0.0.0/24 --no-proxy", "proxy on -> off"),
        ("--dev eth1 --table 100 --gateway 10.0.0.1 --routes 10.0.0.0/24 --no-forwarding", "forwarding on -> off"),
        ("--dev eth1 --table 100 --routes 2001:db8:1::/64", "gateway 2001:db8:1::1 -> none"),
    ] {
        let before = Snapshot::of(&site.node.netns)?;
        node(&site, "up", options)?.fails(&[change, "NICs use table 100 (tap0)", "expected --force"])?;
        before.equals(&Snapshot::of(&site.node.netns)?).with_context(|| options.to_owned())?;
    }
    // What guests do not lose is said.
    let more = "--dev eth1 --table 100 --gateway 10.0.0.1 --routes 10.0.0.0/24,10.1.0.0/24 --arp-ip 10.0.0.254";
    let up = node(&site, "up", more)?.succeeds()?;
    ensure!(up.stderr.contains("IPv4 changes: routes 10.0.0.0/24 -> 10.0.0.0/24,10.1.0.0/24"), "{up:#?}");
    guest.ping(OUTSIDE)?;
    let up = node(&site, "up", "--dev eth1 --table 100 --routes 10.0.0.0/24 --force")?.succeeds()?;
    ensure!(up.stderr.contains("warning: IPv4 changes: gateway 10.0.0.1 -> none, "), "{up:#?}");
    ensure!(status(&site, 3)?.contains("cut off: table 100 has no IPv4 default route"));
    is_refused(&site, &guest, &management)?;
    node(&site, "up", Node::UPLINK)?.succeeds()?;
    guest.ping(OUTSIDE).map(drop)
}

/// The NICs keep the table that they have.
fn another_table() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    let management = Capture::on(&site.management, "lan")?;
    for options in [Node::UPLINK, Node::UPLINK6] {
        let options = format!("{} --force", options.replace("--table 100", "--table 200"));
        node(&site, "up", &options)?.succeeds()?;
        // Again is fine.
        node(&site, "up", &options)?.succeeds()?;
    }
    is_refused(&site, &guest, &management)?;
    for options in [Node::UPLINK, Node::UPLINK6] {
        node(&site, "up", options)?.succeeds()?;
    }
    let reaches = || Ok(guest.ping(OUTSIDE).is_ok() && guest.ping(OUTSIDE6).is_ok());
    until("the guest to reach the outside again", reaches)?;
    status(&site, 0).map(drop)
}

/// After it went down and up, or its device was plugged anew.
fn it_comes_back_with_what_is_of_its_nics() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = site.node.guest("tap0", WEB1)?;
    let proxy = || -> Result<bool> { Ok(netns.ip("-6 neigh show proxy")?.contains(&WEB1.ip6.to_string())) };
    ensure!(proxy()?);
    let restart = || node(&site, "down", "--dev eth1 --force")?.succeeds().map(drop);
    let carrier = || netns.ip_batch("link set eth1 down\nlink set eth1 up");
    let replug = || -> Result<()> {
        let (mac, router) = (site.node.uplink_mac(), site.router.path());
        netns.ip("link del eth1")?;
        node(&site, "down", "--dev eth1")?.succeeds()?;
        netns.ip(&format!("link add eth1 address {mac} type veth peer name node1 netns {router}"))?;
        site.router.ip("link set node1 up master lan addrgenmode none").map(drop)
    };
    let ways: [(&str, &dyn Fn() -> Result<()>); 3] =
        [("restart", &restart), ("carrier", &carrier), ("replug", &replug)];
    for (name, way) in ways {
        way().with_context(|| name.to_owned())?;
        ensure!(!proxy()?, "{name}");
        site.node.uplink_up()?;
        site.node.settled("eth1")?;
        ensure!(proxy()?, "{name}");
        guest.ping(OUTSIDE).with_context(|| name.to_owned())?;
        guest.ping(OUTSIDE6).with_context(|| name.to_owned())?;
        status(&site, 0)?;
    }
    Ok(())
}
