//! What changes around a NIC that runs: its bridge, its uplink, the routes of others, the boot.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::drift::{reaches_the_outside, reconcile};
use super::status::{finds, in_sync};
use crate::Test;
use crate::harness::frame;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::monitor::Monitor;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[
    ("surroundings::the_mtu_is_the_bridges", the_mtu_is_the_bridges),
    ("surroundings::proxy_entries_follow_the_uplink", proxy_entries_follow_the_uplink),
    ("surroundings::a_record_of_another_boot", a_record_of_another_boot),
    ("surroundings::a_record_of_another_namespace", a_record_of_another_namespace),
    ("surroundings::a_record_of_version_1_0_0", a_record_of_version_1_0_0),
    ("surroundings::no_route_to_a_guest_is_better", no_route_to_a_guest_is_better),
    ("surroundings::a_guest_is_not_told_of_its_own_address", a_guest_is_not_told_of_its_own_address),
];

fn mtu(node: &Node, name: &str) -> Result<String> {
    let shown = node.netns.ip(&format!("link show dev {name}"))?;
    let mut words = shown.split_whitespace().skip_while(|it| *it != "mtu");
    Ok(words.nth(1).context("no MTU")?.to_owned())
}

fn the_mtu_is_the_bridges() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    node.netns
        .ip_batch("link add br0 type bridge\nlink set br0 up\nlink add port type veth peer name other\nlink set port master br0 up")?;
    let _guest = node.plug("tap0", WEB1)?;
    node.nic("tap0", WEB1).bridged("br0").unset(&["NETWORK_TAGS"]).ifup()?.succeeds()?;
    ensure!(mtu(node, "tap0")? == "1500");
    // The administrator raises all of it.
    node.netns.ip_batch("link set port mtu 9000\nlink set tap0 mtu 9000\nlink set br0 mtu 9000")?;
    in_sync(node)?;
    reconcile(node, "")?.succeeds()?;
    ensure!(
        mtu(node, "tap0")? == "9000" && mtu(node, "br0")? == "9000",
        "{} {}",
        mtu(node, "tap0")?,
        mtu(node, "br0")?
    );
    // Only the bridge and its other ports.
    node.netns.ip_batch("link set tap0 mtu 1500\nlink set br0 mtu 9000")?;
    finds(node, &["different: ip link set dev tap0 "])?;
    reconcile(node, "")?.succeeds()?;
    ensure!(mtu(node, "tap0")? == "9000");
    // A bridge takes the smallest MTU of its ports, unless it was given one.
    node.netns.ip_batch(
        "link set tap0 mtu 1500\nlink del br0\nlink add br0 type bridge\nlink set br0 up\nlink set port master br0",
    )?;
    ensure!(mtu(node, "br0")? == "9000", "{}", mtu(node, "br0")?);
    reconcile(node, "")?.succeeds()?;
    ensure!(
        mtu(node, "tap0")? == "9000" && mtu(node, "br0")? == "9000",
        "{} {}",
        mtu(node, "tap0")?,
        mtu(node, "br0")?
    );
    node.netns.ip_batch(
        "link del br0\nlink set port mtu 1400\nlink add br0 type bridge\nlink set br0 up\nlink set port master br0",
    )?;
    reconcile(node, "")?.succeeds()?;
    ensure!(
        mtu(node, "tap0")? == "1400" && mtu(node, "br0")? == "1400",
        "{} {}",
        mtu(node, "tap0")?,
        mtu(node, "br0")?
    );
    in_sync(node)
}

/// The default route of the table goes through another device now.
fn proxy_entries_follow_the_uplink() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _guest = node.guest("tap0", WEB1)?;
    node.settled("tap0")?;
    node.netns.ip_batch("link add bond9 type veth peer name other\nlink set other up\nlink set bond9 up")?;
    node.settled("bond9")?;
    let entry = |device: &str| -> Result<bool> {
        Ok(node.netns.ip("-6 neigh show proxy")?.contains(&format!("{} dev {device}", WEB1.ip6)))
    };
    ensure!(entry("eth1")? && !entry("bond9")?);
    node.files.run(&node.netns, &["node", "down"], "--dev eth1 --table 100 --family inet6 --force")?.succeeds()?;
    let up = "--dev bond9 --table 100 --family inet6 --gateway 2001:db8:1::1 --routes 2001:db8:1::/64 --force";
    node.files.run(&node.netns, &["node", "up"], up)?.succeeds()?;
    // `node up` makes them anew there, as reconcile would.
    reconcile(node, "tap0")?.succeeds()?;
    ensure!(!entry("eth1")? && entry("bond9")?, "{}", node.netns.ip("-6 neigh show proxy")?);
    node.files.run(&node.netns, &["status"], "tap0")?.succeeds()?;
    let monitor = Monitor::of(&node.netns)?;
    reconcile(node, "tap0")?.succeeds()?;
    ensure!(monitor.heard()?.is_empty());
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    ensure!(!entry("bond9")?);
    Ok(())
}

/// The same name and number, and another TAP: as a record that outlived a reboot has it.
fn of_another(variable: &str, value: &str) -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _other = node.guest("tap1", WEB2)?;
    let _guest = node.guest("tap0", WEB1)?;
    node.settled("tap0")?;
    let path = node.files.state().join("tap0");
    let record = fs::read_to_string(&path)?;
    let own = record.lines().find(|it| it.starts_with(variable)).context("not recorded")?;
    if variable == "BOOT_ID" {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        ensure!(own == format!("BOOT_ID='{}'", boot.trim()), "{own}");
    }
    fs::write(&path, record.replace(own, &format!("{variable}='{value}'")))?;
    node.netns.ip_batch("link set tap0 down\nlink set tap0 address 02:00:00:00:09:09\nlink set tap0 up")?;
    node.settled("tap0")?;
    finds(
        node,
        &["tap0 ", "foreign: ip rule iif tap0 lookup 100", "foreign: nft element inet snf-network guarded { \"tap0\""],
    )?;
    let link = || node.netns.ip("link show dev tap0");
    let before = link()?;
    reconcile(node, "")?.succeeds()?;
    ensure!(link()? == before, "{before} became {}", link()?);
    ensure!(!path.exists(), "the record is still there");
    let left = Snapshot::of(&node.netns)?;
    let left: Vec<_> =
        left.naming("tap0").into_iter().filter(|it| it.starts_with("nft") || it.contains("rule")).collect();
    ensure!(left.is_empty(), "{left:#?}");
    ensure!(!node.netns.ip("route show table 100")?.contains("dev tap0"));
    in_sync(node)
}

fn a_record_of_another_boot() -> Result<()> {
    of_another("BOOT_ID", "6f1d2a3e-0000-4000-8000-00000000beef")
}

fn a_record_of_another_namespace() -> Result<()> {
    of_another("NETNS", "18446744073709551615")
}

/// It says neither the boot nor the namespace: the guest runs since before the upgrade.
fn a_record_of_version_1_0_0() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let guest = node.guest("tap0", WEB1)?;
    node.settled("tap0")?;
    let path = node.files.state().join("tap0");
    let record = fs::read_to_string(&path)?;
    let added = ["BOOT_ID=", "NETNS=", "PROGRAM_VERSION=", "ADDRESSES="];
    ensure!(
        added.iter().all(|key| record.lines().any(|it| it.starts_with(key) && it.len() > key.len() + 2)),
        "{record}"
    );
    let lines = record.lines().filter(|it| !added.iter().any(|key| it.starts_with(key)));
    let former = lines.fold(String::new(), |all, it| all + it + "\n");
    fs::write(&path, &former)?;
    in_sync(node)?;
    let before = Snapshot::of(&node.netns)?;
    reconcile(node, "")?.succeeds()?;
    before.equals(&Snapshot::of(&node.netns)?)?;
    ensure!(fs::read_to_string(&path)? == former);
    reaches_the_outside(&guest)?;
    node.nic("tap0", WEB1).ifup()?.succeeds()?;
    ensure!(fs::read_to_string(&path)? == record);
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    ensure!(Snapshot::of(&node.netns)?.naming("tap0").iter().all(|it| !it.starts_with("nft")));
    Ok(())
}

fn no_route_to_a_guest_is_better() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let guest = node.guest("tap0", WEB1)?;
    node.settled("tap0")?;
    let bgp = format!("-6 route add {} via 2001:db8:1::1 dev eth1 table 100 proto bgp metric 20", WEB1.ip6);
    node.netns.ip(&bgp)?;
    guest.ping(OUTSIDE6)?;
    in_sync(node)?;
    // As version 1.0.0 had it: the other route is better, and the guest is not reached.
    node.netns.ip_batch(&format!(
        "-6 route add {0} dev tap0 table 100 proto 217 metric 1024\n-6 route del {0} dev tap0 table 100 proto 217 metric 1",
        WEB1.ip6
    ))?;
    ensure!(guest.ping(OUTSIDE6).is_err(), "the other route is not better");
    let own = format!("ip -6 route {}/128 dev tap0 table 100 proto 217", WEB1.ip6);
    finds(node, &[&format!("missing: {own} metric 1"), &format!("foreign: {own}")])?;
    reconcile(node, "")?.succeeds()?;
    let routes = node.netns.ip(&format!("-6 route show table 100 {}", WEB1.ip6))?;
    ensure!(routes.contains("metric 1 ") && !routes.contains("metric 1024"), "{routes}");
    in_sync(node)?;
    guest.ping(OUTSIDE6)?;
    // Of IPv4, one of the same metric can come before it.
    node.netns.ip("route prepend 10.0.0.2 via 10.0.0.1 dev eth1 onlink table 100 proto bgp")?;
    let line = "different: ip route 10.0.0.2/32 dev tap0 table 100 proto 217, found: ip route 10.0.0.2/32 via 10.0.0.1 dev eth1 onlink table 100 proto 186";
    finds(node, &[line])
}

/// Proxy ARP answers for what is routed elsewhere, which the guest's own address is while its route is missing.
fn a_guest_is_not_told_of_its_own_address() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    for tags in ["ip-less-routed", ""] {
        let guest = node.plug("tap0", WEB1)?;
        node.nic("tap0", WEB1).set("NETWORK_TAGS", tags).ifup()?.succeeds()?;
        node.netns.ip("route del 10.0.0.2 table 100")?;
        let replies = format!("ARP, Reply {}", WEB1.ip);
        let announce = || guest.send(&frame::arp_request((WEB1.mac, WEB1.ip), WEB1.ip));
        announce()?;
        // What is sent behind it is answered.
        guest.send(&frame::arp_request((WEB1.mac, WEB1.ip), WEB2.ip))?;
        guest.seen.expect(&format!("ARP, Reply {}", WEB2.ip))?;
        ensure!(guest.seen.matching(&replies).is_empty(), "{tags}: the node has the guest's address");
        node.netns.set_sysctl("ipv4/conf/tap0/drop_gratuitous_arp", "0")?;
        announce()?;
        guest.seen.expect(&replies)?;
        reconcile(node, "")?.succeeds()?;
        if !tags.is_empty() {
            guest.ping(OUTSIDE)?;
        }
        in_sync(node)?;
        node.nic("tap0", WEB1).ifdown()?.succeeds()?;
        ensure!(node.netns.sysctl("ipv4/conf/tap0/drop_gratuitous_arp")? == "0");
        node.unplug(guest, "tap0")?;
    }
    Ok(())
}
