//! Another instance gets the TAP of one that is still set up: what fails leaves it to the old one, or to nobody.

use anyhow::{Result, ensure};

use super::{Part, fine, in_part, is_left};
use crate::harness::nic::Nic;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Node;
use crate::tests::crash::{bridged, old_bridged, old_routed, other_bridged, other_routed, routed, settled};

fn takeover(node: &Node, old: &Nic, new: &Nic) -> Result<()> {
    let nobody = Snapshot::of(&node.netns)?;
    fine(new.ifup()?)?;
    let after = settled(node)?;
    let record = || std::fs::read_to_string(node.files.state().join("tap0")).unwrap_or_default();
    fine(old.ifup()?)?;
    let (before, of_old) = (settled(node)?, record());
    in_part(node, Part::BY_TURNS, &|| new.command("ifup"), &|| fine(old.ifup()?), &|case| {
        if !case.succeeded()? {
            if is_left(node) {
                let left = record();
                let new: Vec<_> = left.lines().filter(|line| !of_old.lines().any(|it| it == *line)).collect();
                ensure!(left == of_old, "another record is left: {new:?}");
                before.returns_in(&node.netns, |state| state)?;
            } else {
                nobody.returns_in(&node.netns, |state| state)?;
            }
            fine(new.ifup()?)?;
        }
        after.returns_in(&node.netns, |state| state)
    })
}

pub(super) fn of_a_routed_tap() -> Result<()> {
    let (site, _guest) = routed()?;
    takeover(&site.node, &old_routed(&site.node), &other_routed(&site.node))
}

pub(super) fn of_a_bridged_tap() -> Result<()> {
    let (node, _guest) = bridged()?;
    takeover(&node, &old_bridged(&node), &other_bridged(&node))
}
