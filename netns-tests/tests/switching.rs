//! `reconcile` after ROUTING or ROUTING_MARK_MASK changed: running NICs and uplinks go over to the other way.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::drift::{reaches_the_outside, reconcile};
use super::status::{finds, in_sync};
use super::steering::{marks, steered, while_packets_pass};
use crate::Test;
use crate::harness::guest::{Guest, WEB1, WEB2};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, Site};

pub const TESTS: &[Test] = &[
    ("switching::while_packets_pass", under_traffic),
    ("switching::ends_as_node_up_and_ifup_do", ends_as_node_up_and_ifup_do),
    ("switching::only_the_nics_that_are_named", only_the_nics_that_are_named),
    ("switching::back_again_after_a_crash", back_again_after_a_crash),
    ("switching::rules_that_no_node_up_made", rules_that_no_node_up_made),
    ("switching::taps_that_are_gone", taps_that_are_gone),
    ("switching::others_stay_as_they_are", others_stay_as_they_are),
];

pub const RULE: &str = "ROUTING=rule";
pub const MARK: &str = "ROUTING=mark\nROUTING_MARK_MASK=0xfff00000";
pub const OTHER_MASK: &str = "ROUTING=mark\nROUTING_MARK_MASK=0xff00";

/// The files of what is recorded of a NIC, and of the families of its uplink.
pub const RECORDS: [&str; 3] = ["tap0", "uplinks-by-device/eth1.ipv4", "uplinks-by-device/eth1.ipv6"];

/// A site whose uplink is set up this way.
pub fn under(way: &str) -> Result<Site> {
    let site = Site::new()?;
    site.node.files.set(way)?;
    site.node.uplink_up()?;
    Ok(site)
}

/// What is recorded: of the NIC, and of the uplink's families.
fn records(node: &Node) -> Result<Vec<String>> {
    let read = |file: &str| fs::read_to_string(node.files.state().join(file)).context(file.to_owned());
    RECORDS.into_iter().map(read).collect()
}

fn under_traffic() -> Result<()> {
    let site = under(RULE)?;
    let node = &site.node;
    let guest = node.guest("tap0", WEB1)?;
    while_packets_pass(&site, &guest, || {
        for (way, mark) in [
            (MARK, Some("0x6400000/0xfff00000")),
            (OTHER_MASK, Some("0x6400/0xff00")),
            (RULE, None),
            (OTHER_MASK, Some("0x6400/0xff00")),
            (MARK, Some("0x6400000/0xfff00000")),
            (RULE, None),
        ] {
            node.files.set(way)?;
            reconcile(node, "")?.succeeds()?;
            let rule = mark.map(|mark| format!("20050:\tfrom all fwmark {mark} lookup 100 proto 218"));
            let rules: Vec<_> = [&rule, &rule].into_iter().flatten().cloned().collect();
            ensure!(marks(&node.netns)? == rules, "{way}: {:?}", marks(&node.netns)?);
            ensure!(steered(&node.netns, 100)?.contains("tap0") == mark.is_some(), "{way}");
            in_sync(node)?;
        }
        Ok(())
    })
}

/// From each way to each other one: status tells, a dry run changes nothing, and kernel and records are then what `node up` and
/// ifup would have made of them.
fn ends_as_node_up_and_ifup_do() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let guest = node.guest("tap0", WEB1)?;
    let by_hand = |way: &str| -> Result<()> {
        node.files.set(way)?;
        node.uplink_up()?;
        node.nic("tap0", WEB1).ifup()?.succeeds()?;
        node.settled("tap0")
    };
    // The sets that both ways have.
    by_hand(RULE)?;
    by_hand(MARK)?;
    for (from, to) in
        [(RULE, MARK), (MARK, OTHER_MASK), (OTHER_MASK, RULE), (RULE, OTHER_MASK), (OTHER_MASK, MARK), (MARK, RULE)]
    {
        let switches = || -> Result<()> {
            by_hand(from)?;
            by_hand(to)?;
            let expected = (Snapshot::of(&node.netns)?, records(node)?);
            by_hand(from)?;
            node.files.set(to)?;
            let before = (Snapshot::of(&node.netns)?, records(node)?);
            finds(node, &[])?;
            let dry_run = reconcile(node, "--dry-run")?;
            ensure!(dry_run.code == Some(3), "{dry_run:#?}");
            let concerns = |name: &str| dry_run.stdout.lines().any(|line| line.starts_with(name));
            // With another mask the sets of NIC and uplink stay, and the chain that they share changes.
            ensure!(concerns("tap0: ") && concerns("eth1: "), "{dry_run:#?}");
            let leaves_mark = from != RULE;
            ensure!(concerns("-: foreign: ip rule fwmark ") == leaves_mark, "{dry_run:#?}");
            before.0.equals(&Snapshot::of(&node.netns)?)?;
            ensure!(records(node)? == before.1, "a dry run changed a record");
            reconcile(node, "")?.succeeds()?;
            expected.0.returns_in(&node.netns, |state| state)?;
            ensure!(records(node)? == expected.1, "{:#?}\nexpected {:#?}", records(node)?, expected.1);
            in_sync(node)?;
            reaches_the_outside(&guest)
        };
        switches().with_context(|| format!("{from:?} to {to:?}"))?;
    }
    // What was there before `node up` comes back all the same.
    for way in [RULE, MARK] {
        node.files.set(way)?;
        reconcile(node, "")?.succeeds()?;
        ensure!(node.netns.sysctl("ipv4/conf/eth1/src_valid_mark")? == if way == MARK { "1" } else { "0" }, "{way}");
    }
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    for family in ["inet", "inet6"] {
        node.files.run(&node.netns, &["node", "down"], &format!("--dev eth1 --family {family}"))?.succeeds()?;
    }
    ensure!(node.netns.sysctl("ipv4/conf/eth1/src_valid_mark")? == "0");
    ensure!(marks(&node.netns)?.is_empty(), "{:?}", marks(&node.netns)?);
    Ok(())
}

fn only_the_nics_that_are_named() -> Result<()> {
    let site = under(MARK)?;
    let node = &site.node;
    let guests = [node.guest("tap0", WEB1)?, node.guest("tap1", WEB2)?];
    node.files.set(RULE)?;
    reconcile(node, "tap0")?.succeeds()?;
    let set = steered(&node.netns, 100)?;
    ensure!(!set.contains("\"tap0\"") && set.contains("\"tap1\""), "{set}");
    // The other one still needs the rule.
    ensure!(marks(&node.netns)?.len() == 2, "{:?}", marks(&node.netns)?);
    let outcome = node.files.run(&node.netns, &["status", "tap0"], "")?.succeeds()?;
    ensure!(outcome.stdout.contains("in sync"), "{}", outcome.stdout);
    finds(
        node,
        &["foreign: nft element arp snf-network steered_100 { \"tap1\"", "-: foreign: ip rule fwmark 0x6400000"],
    )?;
    guests.iter().try_for_each(reaches_the_outside)?;
    reconcile(node, "")?.succeeds()?;
    in_sync(node)?;
    ensure!(!steered(&node.netns, 100)?.contains("tap") && marks(&node.netns)?.is_empty());
    guests.iter().try_for_each(reaches_the_outside)
}

/// Killed between the record and the kernel, and the setting taken back: what the second record names goes.
fn back_again_after_a_crash() -> Result<()> {
    let site = under(RULE)?;
    let node = &site.node;
    let guest = node.guest("tap0", WEB1)?;
    node.netns.settle()?;
    let (before, old) = (Snapshot::of(&node.netns)?, records(node)?);
    node.files.set(MARK)?;
    reconcile(node, "")?.succeeds()?;
    let new = records(node)?;
    let write = |texts: Vec<String>| -> Result<()> {
        RECORDS.iter().zip(texts).try_for_each(|(file, text)| Ok(fs::write(node.files.state().join(file), text)?))
    };
    let both = || old.iter().zip(&new).map(|(old, new)| format!("{old}{new}")).collect::<Vec<_>>();
    write(both())?;
    node.files.set(RULE)?;
    finds(
        node,
        &[
            "missing: ip rule iif lo fwmark 0x6400000/0xfff00000 lookup 100 pref 20060 protocol 218",
            "foreign: nft element arp snf-network steered_100 { \"tap0\"",
            "foreign: echo 1 > /proc/sys/net/ipv4/conf/eth1/src_valid_mark",
            "-: foreign: ip rule fwmark 0x6400000/0xfff00000 lookup 100 pref 20050 protocol 218",
            "-: foreign: ip -6 rule fwmark 0x6400000/0xfff00000 lookup 100 pref 20050 protocol 218",
        ],
    )?;
    reconcile(node, "")?.succeeds()?;
    in_sync(node)?;
    ensure!(records(node)? == old, "{:#?}", records(node)?);
    ensure!(marks(&node.netns)?.is_empty() && !steered(&node.netns, 100)?.contains("tap0"));
    ensure!(node.netns.sysctl("ipv4/conf/eth1/src_valid_mark")? == "0");
    reaches_the_outside(&guest)?;
    // And whole: nothing but the empty sets is new.
    let by_rule = Snapshot::of(&node.netns)?;
    let lost: Vec<_> = before.beyond(&[&by_rule]).collect();
    ensure!(lost.is_empty(), "{lost:#?}");
    // A crash before the kernel was touched: ifup and ifdown find their way as well.
    write(both())?;
    node.nic("tap0", WEB1).ifup()?.succeeds()?;
    reconcile(node, "")?.succeeds()?;
    ensure!(records(node)? == old, "{:#?}", records(node)?);
    write(both())?;
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    ensure!(!steered(&node.netns, 100)?.contains("tap0"));
    Ok(())
}

/// A table that the administrator made: its rule by the mark is of the first ifup, and goes with the setting. What others make
/// stays. gc takes nothing from NICs that run.
fn rules_that_no_node_up_made() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let netns = &node.netns;
    let wire = node.wire()?;
    let leaves = |guest: &Guest| {
        let mark = guest.send_echo(WEB1.ip.into(), OUTSIDE)?;
        wire.expect(&format!("> {OUTSIDE}: echo request {mark}"))
    };
    netns.ip_batch(
        "route add 10.0.0.0/24 dev eth1 table 200\nroute add default via 10.0.0.1 dev eth1 table 200\n\
         rule add fwmark 0xc800000/0xfff00000 lookup 200 pref 20050 proto 99\n\
         rule add fwmark 0xc800000/0xfff00000 lookup 200 pref 20049 proto 218",
    )?;
    node.files.set(RULE)?;
    node.uplink_up()?;
    let of_others = marks(netns)?;
    node.files.set(MARK)?;
    let guest = node.plug("tap0", WEB1)?;
    node.nic("tap0", WEB1).set("LINK", "200").only_v4().ifup()?.succeeds()?;
    leaves(&guest)?;
    node.files.set(RULE)?;
    node.uplink_up()?;
    let foreign = "-: foreign: ip rule fwmark 0xc800000/0xfff00000 lookup 200 pref 20050 protocol 218";
    finds(node, &[foreign])?;
    let before = marks(netns)?;
    node.files.run(netns, &["gc"], "")?.succeeds()?;
    ensure!(marks(netns)? == before, "{:?}", marks(netns)?);
    let outcome = reconcile(node, "--dry-run")?;
    ensure!(outcome.stdout.lines().filter(|line| *line == foreign).count() == 1, "{outcome:#?}");
    reconcile(node, "")?.succeeds()?;
    ensure!(marks(netns)? == of_others && before.len() == of_others.len() + 1, "{:?}", marks(netns)?);
    in_sync(node)?;
    leaves(&guest).map(drop)
}

/// A TAP that is gone at the time of the switch leaves nothing.
fn taps_that_are_gone() -> Result<()> {
    let site = under(MARK)?;
    let node = &site.node;
    let (guest, _other) = (node.guest("tap0", WEB1)?, node.guest("tap1", WEB2)?);
    node.unplug(guest, "tap0")?;
    ensure!(steered(&node.netns, 100)?.contains("\"tap0\""));
    node.files.set(RULE)?;
    reconcile(node, "")?.succeeds()?;
    in_sync(node)?;
    ensure!(!steered(&node.netns, 100)?.contains("tap"));
    ensure!(!node.files.state().join("tap0").exists());
    Ok(())
}

/// Of NICs whose packets no mark routes, nothing is written again.
fn others_stay_as_they_are() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    node.files.set(MARK)?;
    node.netns.ip_batch("link add br0 type bridge\nlink set br0 up")?;
    let _guests = [node.plug("tap0", WEB1)?, node.plug("tap1", WEB2)?];
    node.nic("tap0", WEB1).bridged("br0").set("NETWORK_TAGS", "private-filtered").ifup()?.succeeds()?;
    node.nic("tap1", WEB2).without_network().set("LINK", "main").ifup()?.succeeds()?;
    let written = |tap: &str| -> Result<_> { Ok(fs::metadata(node.files.state().join(tap))?.modified()?) };
    let before = [written("tap0")?, written("tap1")?];
    node.files.set(RULE)?;
    reconcile(node, "")?.succeeds()?;
    in_sync(node)?;
    ensure!([written("tap0")?, written("tap1")?] == before, "a record was written again");
    Ok(())
}
