//! An address is of one NIC in each network: the second ifup is refused, and reconcile takes it from nobody.

use std::fs;

use anyhow::{Result, ensure};

use super::drift::reconcile;
use super::status::in_sync;
use crate::Test;
use crate::harness::guest::{Identity, WEB1, WEB2};
use crate::harness::nic::Nic;
use crate::harness::rounds;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[
    ("addresses::one_nic_in_each_routing_table", one_nic_in_each_routing_table),
    ("addresses::one_nic_in_each_network_of_a_bridge", one_nic_in_each_network_of_a_bridge),
    ("addresses::ipv6_alone", ipv6_alone),
    ("addresses::two_ifups_at_once", two_ifups_at_once),
    ("addresses::reconcile_takes_them_from_nobody", reconcile_takes_them_from_nobody),
];

/// Another NIC, with the address of WEB1.
fn second<'a>(node: &'a Node, tap: &str) -> Nic<'a> {
    node.nic(tap, Identity { ip: WEB1.ip, ..WEB2 })
}

const REFUSED: &str = "10.0.0.2: expected an address that no other NIC in table 100 has, \
                       but tap0 of web1.example.org has it";

fn links(node: &Node) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(node.files.state().join("interfaces-by-address"))? {
        let entry = entry?;
        let target = fs::read_link(entry.path())?;
        names.push(format!("{} {}", entry.file_name().display(), target.display()));
    }
    names.sort();
    Ok(names)
}

fn one_nic_in_each_routing_table() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let one = node.guest("tap0", WEB1)?;
    let _two = node.plug("tap1", WEB2)?;
    node.settled("tap0")?;
    node.netns.settle()?;
    let before = (Snapshot::of(&node.netns)?, links(node)?);
    ensure!(before.1 == ["table,100,10.0.0.2 ../tap0".to_owned(), format!("table,100,{} ../tap0", WEB1.ip6)]);
    for _ in 0..2 {
        second(node, "tap1").ifup()?.fails(&["ifup tap1: ", REFUSED])?;
        before.0.returns_in(&node.netns, |state| state)?;
        ensure!(links(node)? == before.1 && !node.files.state().join("tap1").exists(), "{:#?}", links(node)?);
    }
    in_sync(node)?;
    one.ping(OUTSIDE)?;
    // A NIC that has another address already keeps that.
    node.nic("tap1", WEB2).ifup()?.succeeds()?;
    let record = fs::read_to_string(node.files.state().join("tap1"))?;
    second(node, "tap1").ifup()?.fails(&["ifup tap1: ", REFUSED])?;
    ensure!(fs::read_to_string(node.files.state().join("tap1"))? == record);
    in_sync(node)?;
    // Another table is another network.
    second(node, "tap1").only_v4().set("LINK", "200").set("NETWORK_TAGS", "").ifup()?.succeeds()?;
    ensure!(node.netns.ip("route show table 200")?.contains("10.0.0.2 dev tap1"));
    ensure!(node.netns.ip("route show table 100")?.contains("10.0.0.2 dev tap0"));
    in_sync(node)?;
    one.ping(OUTSIDE)?;
    // Its former addresses are free, and so are those of a TAP that is gone.
    ensure!(!links(node)?.iter().any(|it| it.contains("table,100") && it.ends_with("tap1")), "{:#?}", links(node)?);
    node.unplug(one, "tap0")?;
    second(node, "tap1").ifup()?.succeeds()?;
    ensure!(links(node)?.contains(&"table,100,10.0.0.2 ../tap1".to_owned()), "{:#?}", links(node)?);
    // The same NIC on another TAP takes them along, and they go with it.
    let _three = node.plug("tap3", WEB2)?;
    second(node, "tap3").ifup()?.succeeds()?;
    ensure!(links(node)?.contains(&"table,100,10.0.0.2 ../tap3".to_owned()), "{:#?}", links(node)?);
    second(node, "tap3").ifdown()?.succeeds()?;
    second(node, "tap1").ifdown()?.succeeds()?;
    reconcile(node, "")?.succeeds()?;
    ensure!(links(node)?.is_empty(), "{:#?}", links(node)?);
    Ok(())
}

fn one_nic_in_each_network_of_a_bridge() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    node.netns.ip_batch("link add br0 type bridge\nlink set br0 up")?;
    node.netns.ip_batch("link add br1 type bridge\nlink set br1 up")?;
    let _guests = [node.plug("tap0", WEB1)?, node.plug("tap1", WEB2)?];
    let one = || node.nic("tap0", WEB1).bridged("br0").unset(&["NETWORK_TAGS"]);
    let two = || second(node, "tap1").bridged("br0").unset(&["NETWORK_TAGS"]);
    let refused = |network: &str| {
        format!(
            "10.0.0.2: expected an address that no other NIC in bridge br0{network} has, but tap0 of web1.example.org"
        )
    };
    one().ifup()?.succeeds()?;
    two().ifup()?.fails(&["ifup tap1: ", &refused("")])?;
    ensure!(!node.netns.ip("link show tap1")?.contains("master"), "the refused NIC is in the bridge");
    for other in [two().bridged("br1"), two().set("NETWORK_MAC_PREFIX", "aa:00:00")] {
        other.ifup()?.succeeds()?;
        other.ifdown()?.succeeds()?;
    }
    one().set("NETWORK_MAC_PREFIX", "aa:00:00").ifup()?.succeeds()?;
    two().set("NETWORK_MAC_PREFIX", "aa:00:00").ifup()?.fails(&[&refused(" aa:00:00")])?;
    Ok(())
}

fn ipv6_alone() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let one = node.guest("tap0", WEB1)?;
    let _two = node.plug("tap1", WEB1)?;
    let uuid = "0c2a1a4e-0000-4000-8000-000000000009";
    let second = node.nic("tap1", WEB1).only_v6().set("INSTANCE", "web9.example.org").set("INTERFACE_UUID", uuid);
    let refused = format!("{}: expected an address that no other NIC in table 100 has, but tap0", WEB1.ip6);
    second.ifup()?.fails(&["ifup tap1: ", &refused])?;
    one.ping(OUTSIDE6)?;
    // What was free and is not taken after all stays free.
    let both = second.set("IP", "10.0.0.9").set("NETWORK_SUBNET", "10.0.0.0/24").set("NETWORK_GATEWAY", "10.0.0.1");
    both.ifup()?.fails(&["ifup tap1: ", &refused])?;
    ensure!(!links(node)?.iter().any(|it| it.ends_with("tap1")), "{:#?}", links(node)?);
    Ok(())
}

fn two_ifups_at_once() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _guests = [node.plug("tap0", WEB1)?, node.plug("tap1", WEB2)?];
    for round in 0..rounds(20) {
        let runs = [node.nic("tap0", WEB1).start("ifup")?, second(node, "tap1").start("ifup")?];
        let codes: Vec<_> = runs.into_iter().map(|it| it.finish()).collect::<Result<_>>()?;
        let won = codes.iter().position(|it| it.code == Some(0));
        let won = won.ok_or_else(|| anyhow::anyhow!("round {round}: nobody has it: {codes:#?}"))?;
        ensure!(codes[1 - won].code == Some(1), "round {round}: both have it: {codes:#?}");
        let route = node.netns.ip("route show table 100 10.0.0.2")?;
        ensure!(route.contains(&format!("dev tap{won}")), "round {round}: {route}");
        node.files.run(&node.netns, &["status"], &format!("tap{won}"))?.succeeds()?;
        let winner = if won == 0 { node.nic("tap0", WEB1) } else { second(node, "tap1") };
        // Without any ifdown, its link is stale.
        if round % 2 == 0 {
            winner.ifdown()?.succeeds()?;
        } else {
            fs::remove_file(node.files.state().join(format!("tap{won}")))?;
            node.netns.ip(&format!("link set tap{won} down"))?;
        }
    }
    Ok(())
}

/// Records of a version that did not know of this.
fn reconcile_takes_them_from_nobody() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let guests = [node.guest("tap0", WEB1)?, node.guest("tap1", WEB2)?];
    for tap in ["tap0", "tap1"] {
        node.settled(tap)?;
    }
    fs::remove_dir_all(node.files.state().join("interfaces-by-address"))?;
    let path = node.files.state().join("tap1");
    let record = fs::read_to_string(&path)?;
    let of_former = |text: &str| {
        text.lines().filter(|it| !it.starts_with("ADDRESSES=")).fold(String::new(), |all, it| all + it + "\n")
    };
    fs::write(&path, of_former(&record).replace("IP='10.0.0.3'", "IP='10.0.0.2'"))?;
    let first = node.files.state().join("tap0");
    fs::write(&first, of_former(&fs::read_to_string(&first)?))?;
    let refused = "10.0.0.2: expected an address that no other NIC in table 100 has, but tap";
    for owner in ["tap0", "tap1"] {
        node.netns.ip(&format!("route replace 10.0.0.2 dev {owner} table 100 proto 217"))?;
        for _ in 0..2 {
            reconcile(node, "")?.fails(&["reconcile: tap", refused])?;
            let routes = node.netns.ip("route show table 100")?;
            ensure!(routes.contains(&format!("10.0.0.2 dev {owner}")), "{routes}");
        }
    }
    // All else is repaired.
    node.netns.ip("-6 rule del iif tap1")?;
    reconcile(node, "")?.fails(&[refused])?;
    ensure!(node.netns.ip("-6 rule show")?.contains("iif tap1"));
    guests[0].ping(OUTSIDE6)?;
    fs::write(&path, record)?;
    reconcile(node, "")?.succeeds()?;
    in_sync(node)?;
    guests.iter().try_for_each(|guest| guest.ping(OUTSIDE).map(drop))
}
