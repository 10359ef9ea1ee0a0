//! Crashes at every step of what is done for the node: its uplink, reconcile and gc.

use std::fs;

use anyhow::{Result, ensure};

use super::crash::{Next, damage, everywhere, fine, old_routed, other_routed, program, routed, tool, uplink};
use super::switching::RECORDS;
use crate::Test;
use crate::harness::guest::WEB1;
use crate::harness::topology::Node;

pub const TESTS: &[Test] = &[
    ("crash_of_node::node_up", node_up),
    ("crash_of_node::node_down", node_down),
    ("crash_of_node::reconcile", reconcile),
    ("crash_of_node::reconcile_switches", reconcile_switches),
    ("crash_of_node::gc", gc),
];

fn uplinks(verb: &'static str) -> Result<()> {
    let (site, _guest) = routed()?;
    let node = &site.node;
    let (up, down) = (|| uplink(node, "up"), || uplink(node, "down"));
    let [up_next, down_next] = [Next::clean(node, "node up", &up)?, Next::clean(node, "node down", &down)?];
    let (begin, nexts): (&dyn Fn() -> Result<()>, _) = match verb {
        "up" => (&down, [up_next, down_next]),
        _ => (&up, [down_next, up_next]),
    };
    for options in [Node::UPLINK, Node::UPLINK6] {
        let rest = || {
            begin()?;
            // That of the other family is as it shall be.
            let other = if options == Node::UPLINK { Node::UPLINK6 } else { Node::UPLINK };
            fine(node.files.run(&node.netns, &["node", verb], other)?)
        };
        everywhere(node, &rest, &|| program(node, &["node", verb], options), &nexts)?;
    }
    Ok(())
}

fn node_up() -> Result<()> {
    uplinks("up")
}

fn node_down() -> Result<()> {
    uplinks("down")
}

fn reconcile() -> Result<()> {
    let (site, _guest) = routed()?;
    let node = &site.node;
    let (nic, other) = (old_routed(node), other_routed(node));
    let up = || fine(nic.ifup()?);
    let again = || {
        tool(node, "reconcile")?;
        tool(node, "reconcile")
    };
    let begin = || {
        for nic in [&nic, &other] {
            fine(nic.ifdown()?)?;
        }
        up()?;
        damage(&site)
    };
    up()?;
    let nexts = [Next::clean(node, "reconcile", &again)?];
    everywhere(node, &begin, &|| program(node, &["reconcile"], ""), &nexts)
}

/// On the way to ROUTING=mark, to a mask that has bits in common with the first, and back.
fn reconcile_switches() -> Result<()> {
    let (site, _guest) = routed()?;
    let node = &site.node;
    let nic = old_routed(node);
    let again = || {
        tool(node, "reconcile")?;
        fine(node.files.run(&node.netns, &["status"], "")?)?;
        for file in RECORDS {
            ensure!(node.files.records(file)? == 1, "{file}");
        }
        Ok(())
    };
    let by_hand = || {
        uplink(node, "up")?;
        fine(nic.ifup()?)
    };
    let down = || {
        fine(nic.ifdown()?)?;
        uplink(node, "down")
    };
    // So often that the file would grow too long.
    let settings = fs::read_to_string(node.files.settings())?;
    let set = |line: &str| Ok(fs::write(node.files.settings(), format!("{settings}{line}\n"))?);
    let [rule, mark, other_mask] =
        ["ROUTING=rule", "ROUTING=mark\nROUTING_MARK_MASK=0xfff00000", "ROUTING=mark\nROUTING_MARK_MASK=0xff000000"];
    for (from, to) in [(rule, mark), (mark, other_mask), (other_mask, rule)] {
        let begin = || {
            set(from)?;
            if node.files.state().join("tap0").exists() {
                again()?
            } else {
                by_hand()?
            }
            set(to)
        };
        begin()?;
        let mut nexts = vec![Next::clean(node, "reconcile", &again)?];
        if to == mark {
            nexts.push(Next::clean(node, "node up and ifup", &by_hand)?);
            nexts.push(Next::clean(node, "ifdown", &down)?);
        }
        everywhere(node, &begin, &|| program(node, &["reconcile"], ""), &nexts)?;
    }
    Ok(())
}

fn gc() -> Result<()> {
    let (site, guest) = routed()?;
    let node = &site.node;
    node.unplug(guest, "tap0")?;
    let nic = old_routed(node);
    let collected = || tool(node, "gc");
    let down = || fine(nic.ifdown()?);
    let nexts = [Next::clean(node, "gc", &collected)?, Next::clean(node, "ifdown", &down)?];
    let begin = || {
        let guest = node.plug("tap0", WEB1)?;
        fine(nic.ifup()?)?;
        node.unplug(guest, "tap0")
    };
    everywhere(node, &begin, &|| program(node, &["gc"], ""), &nexts)
}
