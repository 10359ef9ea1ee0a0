//! `reconcile` after losses, and `gc`: what fails takes nothing away that is asked for, makes nothing that is not, and no NIC
//! is within reach before its filters stand. The next run puts everything right.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Case, Part, fine, in_part};
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Node;
use crate::tests::crash::{bridged, damage, old_bridged, old_routed, program, routed, settled, tool};

/// What the program makes: the rest of a state comes and goes with a link's being up.
fn is_ours(line: &str) -> bool {
    line.starts_with("nft ")
        || line.starts_with("/proc/sys/")
        || line.contains("neigh show proxy ")
        || ["217", "218"].iter().any(|number| line.contains(&format!("\"protocol\":\"{number}\"")))
}

/// That a run which failed left nothing but what stood or shall stand, and all that stood and shall stand.
fn between(now: &Snapshot, before: &Snapshot, right: &Snapshot) -> Result<()> {
    let new: Vec<_> = now.beyond(&[before, right]).filter(|it| is_ours(it)).collect();
    ensure!(new.is_empty(), "nobody asked for {new:#?}");
    let lost: Vec<_> = before.common(right).filter(|it| is_ours(it) && !now.has(it)).collect();
    ensure!(lost.is_empty(), "it lost {lost:#?}");
    Ok(())
}

/// That all filters of the NIC stand if the run made anything by which it is reached.
fn filtered(now: &Snapshot, before: &Snapshot, right: &Snapshot) -> Result<()> {
    let way = |line: &str| {
        let leads = is_ours(line) && !line.starts_with("nft ") && !line.starts_with("/proc/sys/");
        line.contains("\"tap0\"") && (leads || line.contains("link show ") && line.contains("\"master\":"))
    };
    let of_uplink = |line: &str| line.contains("\"eth1\"");
    let lacking: Vec<_> = right.beyond(&[now]).filter(|it| it.starts_with("nft ") && !of_uplink(it)).collect();
    let reached: Vec<_> = now.beyond(&[before]).filter(|it| way(it)).collect();
    ensure!(lacking.is_empty() || reached.is_empty(), "{reached:#?} without {lacking:#?}");
    Ok(())
}

/// Lets calls of a tool fail from what `begin` makes of the right state.
fn tool_in_part(node: &Node, verb: &str, part: Part, right: &Snapshot, begin: &dyn Fn() -> Result<()>) -> Result<()> {
    begin()?;
    let before = Snapshot::of(&node.netns)?;
    ensure!(before != *right, "nothing was to be done");
    let (before, wanted) = (before.by_element()?, right.clone().by_element()?);
    let judge = |case: &Case| {
        if !case.succeeded()? {
            let now = Snapshot::of(&node.netns)?.by_element()?;
            between(&now, &before, &wanted)?;
            filtered(&now, &before, &wanted)?;
            tool(node, verb).context("then again")?;
        }
        right.returns_in(&node.netns, |state| state)
    };
    let command = || -> Command { program(node, &[verb], "") };
    in_part(node, part, &command, begin, &judge)
}

pub(super) fn reconcile_routed(part: Part) -> Result<()> {
    let (site, _guest) = routed()?;
    let node = &site.node;
    fine(old_routed(node).ifup()?)?;
    let right = settled(node)?;
    tool_in_part(node, "reconcile", part, &right, &|| damage(&site))
}

/// Takes a NIC's filters away, and it out of its bridge.
fn damage_bridged(node: &Node) -> Result<()> {
    node.netns.output(Command::new("nft").args(["flush", "ruleset"]))?;
    node.netns.ip("link set dev tap0 nomaster mtu 1400")?;
    std::fs::write(node.files.bindings().join("tap0"), "IP=\n").context("tap0's binding")
}

pub(super) fn reconcile_bridged(part: Part) -> Result<()> {
    let (node, _guest) = bridged()?;
    fine(old_bridged(&node).ifup()?)?;
    let right = settled(&node)?;
    tool_in_part(&node, "reconcile", part, &right, &|| damage_bridged(&node))
}

/// One NIC that is gone is recorded and one is not, while a third one stands.
pub(super) fn gc(part: Part) -> Result<()> {
    let (site, guest) = routed()?;
    let node = &site.node;
    node.unplug(guest, "tap0")?;
    let _guest = node.guest("tap1", WEB2)?;
    node.settled("tap1")?;
    let right = settled(node)?;
    let begin = || {
        for tap in ["tap0", "tap2"] {
            let guest = node.plug(tap, WEB1)?;
            fine(node.nic(tap, WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd").ifup()?)?;
            node.unplug(guest, tap)?;
        }
        std::fs::remove_file(node.files.bindings().join("tap2"))?;
        std::fs::remove_file(node.files.state().join("tap2")).context("tap2's record")
    };
    tool_in_part(node, "gc", part, &right, &begin)?;
    ensure!(!node.files.state().join("tap0").exists(), "tap0's record is left");
    ensure!(!node.files.bindings().join("tap0").exists(), "tap0's binding is left");
    Ok(())
}
