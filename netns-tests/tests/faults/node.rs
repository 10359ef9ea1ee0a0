//! `node up` and `node down`, one family after the other.

use anyhow::{Result, ensure};

use super::{Case, Part, fine, in_part};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, Site};
use crate::tests::crash::{program, routed, settled, uplink};

const FAMILIES: [(&str, &str); 2] = [(Node::UPLINK, Node::UPLINK6), (Node::UPLINK6, Node::UPLINK)];

/// The state in which a command leaves the uplink of both families, and that with the second family as `verb` leaves it.
struct Ends {
    begin: Snapshot,
    end: Snapshot,
}

fn run(node: &Node, verb: &str, options: &str) -> Result<()> {
    fine(node.files.run(&node.netns, &["node", verb], options)?)
}

/// Lets each call of `verb` fail for each family, while the other one is as `verb` leaves it.
fn uplinks(verb: &str, judge: &dyn Fn(&Site, &Case, &Ends, &str) -> Result<()>) -> Result<()> {
    let (site, _guest) = routed()?;
    let node = &site.node;
    let inverse = if verb == "up" { "down" } else { "up" };
    uplink(node, verb)?;
    for (options, other) in FAMILIES {
        uplink(node, inverse)?;
        run(node, verb, other)?;
        let begin = settled(node)?;
        run(node, verb, options)?;
        let ends = Ends { begin, end: settled(node)? };
        let back = || run(node, inverse, options);
        in_part(node, Part::BY_TURNS, &|| program(node, &["node", verb], options), &back, &|case| {
            judge(&site, case, &ends, options)
        })?;
        run(node, verb, options)?;
    }
    Ok(())
}

/// It is as it was before, or as it shall be: what fails at the end is what makes nothing.
pub(super) fn up() -> Result<()> {
    uplinks("up", &|site, case, ends, options| {
        let node = &site.node;
        if !case.succeeded()? {
            let now = settled(node)?;
            if now != ends.begin && now != ends.end {
                ends.begin.returns_in(&node.netns, |state| state)?;
            }
            run(node, "up", options)?;
        }
        ends.end.returns_in(&node.netns, |state| state)
    })
}

/// Nothing is there that was not there before, and what could not be removed is gone with the next run.
pub(super) fn down() -> Result<()> {
    uplinks("down", &|site, case, ends, options| {
        let node = &site.node;
        if !case.succeeded()? {
            let now = settled(node)?;
            let new: Vec<_> = now.beyond(&[&ends.begin, &ends.end]).collect();
            ensure!(new.is_empty(), "neither before nor after there is {new:#?}");
            run(node, "down", options)?;
        }
        ends.end.returns_in(&node.netns, |state| state)
    })
}
