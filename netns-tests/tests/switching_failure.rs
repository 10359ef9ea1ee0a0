//! When the way of routing is changed and something is in the way: a record that cannot be written, a run that was killed.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use super::drift::{reaches_the_outside, reconcile};
use super::status::in_sync;
use super::steering::marks;
use super::switching::{MARK, RULE, under};
use crate::Test;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Site;

pub const TESTS: &[Test] = &[
    ("switching_failure::one_that_cannot_be_recorded", one_that_cannot_be_recorded),
    ("switching_failure::what_a_killed_node_up_left", what_a_killed_node_up_left),
];

/// Who cannot be led over is put right as it was, and named; all others go over. From one mask to another all go, as the chains that
/// mark are of all; and where that is repeated, nothing changes to and fro.
fn one_that_cannot_be_recorded() -> Result<()> {
    let site = under(RULE)?;
    let node = &site.node;
    let netns = &node.netns;
    let guests = [node.guest("tap0", WEB1)?, node.guest("tap1", WEB2)?];
    // In the place of the files in the making.
    let obstacles = ["tap0", "uplinks-by-device/eth1.ipv4"]
        .map(|file| node.files.state().join(format!("{file}.snf-network-making")));
    let in_the_way = || obstacles.iter().try_for_each(fs::create_dir);
    let gone = || obstacles.iter().try_for_each(fs::remove_dir);
    let fails = || -> Result<()> {
        reconcile(node, "")?.fails(&["reconcile: ", "eth1 inet: STATE_DIR: ", "tap0: STATE_DIR: "])?;
        for file in ["tap0", "tap1", "uplinks-by-device/eth1.ipv4"] {
            ensure!(node.files.records(file)? == 1, "{file}");
        }
        guests.iter().try_for_each(reaches_the_outside)
    };
    let list = |set: &str| netns.output(Command::new("nft").args(["list", "set", "arp", "snf-network", set]));
    in_the_way()?;
    netns.output(Command::new("nft").args(["flush", "ruleset"]))?;
    node.files.set(MARK)?;
    fails()?;
    let (steered, guarded) = (list("steered_100")?, list("guarded")?);
    ensure!(!steered.contains("\"tap0\"") && steered.contains("\"tap1\""), "{steered}");
    ensure!(guarded.contains("\"tap0\"") && guarded.contains("\"tap1\""), "{guarded}");
    ensure!(netns.sysctl("ipv4/conf/eth1/src_valid_mark")? == "0");
    gone()?;
    reconcile(node, "")?.succeeds()?;
    in_sync(node)?;
    in_the_way()?;
    node.files.set("ROUTING_MARK_MASK=0xff000000")?;
    fails()?;
    let state = Snapshot::of(netns)?;
    let rule = "20050:\tfrom all fwmark 0x64000000/0xff000000 lookup 100 proto 218";
    ensure!(marks(netns)? == [rule, rule], "{:?}", marks(netns)?);
    in_sync(node)?;
    fails()?;
    state.equals(&Snapshot::of(netns)?)?;
    gone()?;
    reconcile(node, "")?.succeeds()?;
    state.equals(&Snapshot::of(netns)?)?;
    // The rules by the former mark stay until all is right.
    in_the_way()?;
    node.files.set(RULE)?;
    fails()?;
    ensure!(marks(netns)? == [rule, rule], "{:?}", marks(netns)?);
    gone()?;
    reconcile(node, "")?.succeeds()?;
    in_sync(node)?;
    ensure!(marks(netns)?.is_empty() && !list("steered_100")?.contains("tap"));
    guests.iter().try_for_each(reaches_the_outside)
}

/// What a `node up` that was killed left of another table is for the next one to remove: reconcile does not forget it.
fn what_a_killed_node_up_left() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let netns = &node.netns;
    node.files.set(RULE)?;
    let file = node.files.state().join("uplinks-by-device/eth1.ipv4");
    let elsewhere = "--dev eth1 --table 300 --routes 10.77.0.0/16 --gateway 10.77.0.1";
    node.files.run(netns, &["node", "up"], elsewhere)?.succeeds()?;
    let old = fs::read_to_string(&file)?;
    let left = "unreachable 10.77.0.0/16 proto 218 metric 4278198272";
    let stands = || -> Result<bool> { Ok(netns.ip("route show table main")?.contains(left)) };
    ensure!(stands()?);
    node.uplink_up()?;
    ensure!(!stands()?);
    let new = fs::read_to_string(&file)?;
    fs::write(&file, format!("{old}{new}"))?;
    netns.ip(&format!("route add {left}"))?;
    for way in [RULE, MARK] {
        node.files.set(way)?;
        reconcile(node, "")?.succeeds()?;
        in_sync(node)?;
        ensure!(fs::read_to_string(&file)?.starts_with(&old), "what stands of it is not recorded any more");
    }
    node.uplink_up()?;
    ensure!(!stands()? && !fs::read_to_string(&file)?.starts_with(&old));
    Ok(())
}
