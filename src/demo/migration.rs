//! The NIC moves to another node; at the end, everything is taken down.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use super::excerpt;
use super::guest::Direction;
use super::node::Node;
use super::report::Report;
use super::wire::{announces_unasked, is_echo};
use super::world::{Hosted, World, becomes_true, outside, soon, while_serving};
use crate::addr::{Family, Mac};
use crate::object::{TABLE_MAIN, Verb};
use crate::reconcile;

/// Runs the steps of the move.
pub fn steps(report: &mut Report<'_>, world: &mut World) {
    let moved = report.step("The NIC moves to node2: its announcement replaces what the router knew", |report| {
        announcement(report, world)
    });
    if !moved {
        return;
    }
    for family in Family::BOTH {
        report.step(&format!("{family} through node2: the outside and the guest ping each other"), |report| {
            through_node2(report, world, family)
        });
    }
    report.step("ifdown on node1: the guest on node2 does not notice", |report| left_behind(report, world));
    for family in Family::BOTH {
        report.step(&format!("{family} across nodes: guest to guest, and host to a guest elsewhere"), |report| {
            across(report, world, family)
        });
    }
}

/// An entry of the router, in the words of `ip neigh`.
fn neighbour_line(when: &str, address: IpAddr, mac: Mac) -> String {
    format!("router {when}: {address} dev br0 lladdr {mac}")
}

fn announcement(report: &mut Report<'_>, world: &mut World) -> Result<String> {
    let World { router, nodes: [node1, node2], guests: [hosted, _], spare } = world;
    let addresses = [hosted.address(Family::V4)?, hosted.address(Family::V6)?];
    for address in addresses {
        let stale = router.neighbour(address)?;
        ensure!(stale == Some(node1.mac), "the router has {address} at {stale:?}, expected node1's DEV_MAC before");
        report.note(&neighbour_line("before", address, node1.mac));
    }
    node2.wire.clear()?;
    hosted.plan = node2.ifup(&hosted.raw, &hosted.tap).context("ifup on node2")?;
    let old = hosted.guest.replug(spare.take().context("node2 has no TAP for it")?);
    *spare = Some(old);
    report.commands(hosted.plan.announcements.iter().map(ToString::to_string));
    let place = format!("{} {}", node2.name, node2.device);
    for address in addresses {
        let what = format!("an announcement of {address}");
        let (way, frame) = node2
            .wire
            .expect(soon(), &what, |way, frame| way == Direction::Out && announces_unasked(frame, address))?;
        report.frame(&place, way, &frame, true);
        let replaced = becomes_true(|| Ok(router.neighbour(address)? == Some(node2.mac)))?;
        ensure!(replaced, "the router has {address} at {:?}, expected node2's DEV_MAC", router.neighbour(address)?);
        report.note(&neighbour_line("after", address, node2.mac));
    }
    Ok("the router has both addresses at node2's DEV_MAC".to_owned())
}

/// The guest knows its gateway by the MAC it had on node1: no question is asked.
fn through_node2(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let World { router, nodes: [_, node2], guests: [hosted, _], .. } = world;
    let (own, outside) = (hosted.address(family)?, outside(family)?);
    hosted.guest.take_trace();
    node2.wire.clear()?;
    let gateway = hosted.guest.address(family)?.gateway;
    ensure!(hosted.guest.ping(outside, soon())?.is_some(), "{outside} did not answer {own}");
    let asked = hosted.guest.take_trace().iter().any(|(_, frame)| frame.announces(gateway).is_some());
    ensure!(!asked, "the guest had to ask for its gateway again");
    ensure!(while_serving(&mut hosted.guest, || router.ping(own, soon()))?, "{own} did not answer {outside}");
    let place = format!("{} {}", node2.name, node2.device);
    for (wanted, from, to) in [(Direction::Out, own, outside), (Direction::In, outside, own)] {
        let what = format!("the request of {from} on node2's uplink");
        let (way, frame) =
            node2.wire.expect(soon(), &what, |way, frame| way == wanted && is_echo(frame, false, from, to))?;
        report.frame(&place, way, &frame, true);
    }
    Ok("both answer, and the guest's gateway is still at TAP_MAC".to_owned())
}

fn left_behind(report: &mut Report<'_>, world: &mut World) -> Result<String> {
    let World { router, nodes: [node1, node2], guests: [hosted, _], .. } = world;
    take_down(report, node1, hosted)?;
    let place = format!("{} {}", node2.name, node2.device);
    for family in Family::BOTH {
        let (own, outside) = (hosted.address(family)?, outside(family)?);
        node2.wire.clear()?;
        let answered = while_serving(&mut hosted.guest, || router.ping(own, soon()))?;
        ensure!(answered, "{own} does not answer {outside} any more");
        let what = format!("the reply of {own} on node2's uplink");
        let (way, frame) = node2.wire.expect(soon(), &what, |_, frame| is_echo(frame, true, own, outside))?;
        report.frame(&place, way, &frame, true);
    }
    Ok("it still answers".to_owned())
}

/// `ifdown`, with the commands that do the same.
fn take_down(report: &mut Report<'_>, node: &Node, hosted: &Hosted) -> Result<()> {
    let objects = reconcile::removal_order(&hosted.plan).concat();
    let commands = objects.iter().map(|it| it.command(Verb::Remove)).filter(|it| !it.is_empty());
    report.commands(commands.chain(hosted.plan.elements.iter().map(|it| format!("nft {}", it.deletion()))));
    node.ifdown(&hosted.raw).with_context(|| format!("ifdown {} on {}", hosted.tap, node.name))
}

fn across(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let World { nodes: [node1, node2], guests: [hosted, other], .. } = world;
    let (own, peer, host) = (hosted.address(family)?, other.address(family)?, node1.address(family));
    report.commands(excerpt::objects(&node1.plans[family as usize], excerpt::device_route(family, None)));
    node2.wire.clear()?;
    let (guests, hosts) =
        while_serving(&mut hosted.guest, || Ok((other.guest.ping(own, soon())?, node1.ping(own, soon())?)))?;
    let place = format!("{} {}", node2.name, node2.device);
    for from in [peer, host] {
        let what = format!("the request of {from} on node2's uplink");
        let (way, frame) =
            node2.wire.expect(soon(), &what, |way, frame| way == Direction::In && is_echo(frame, false, from, own))?;
        report.frame(&place, way, &frame, true);
    }
    ensure!(guests.is_some(), "{own} did not answer {peer}");
    ensure!(hosts, "{own} did not answer {host}");
    Ok(format!("{own} on node2 answers {peer} on node1, and node1 itself by its route in table {TABLE_MAIN}"))
}

/// Takes everything down that was set up, however far that got, and looks what is left.
pub fn tear_down(report: &mut Report<'_>, world: &mut World) {
    let World { nodes, guests, .. } = world;
    report.step("ifdown of both guests, node down on both nodes: nothing is left", |report| {
        for node in &*nodes {
            let there = node.difference()?.iter().filter(|it| it.starts_with('+')).count();
            report.note(&format!("{} before: {there} entries more than at first", node.name));
        }
        for (node, hosted) in [(&nodes[1], &guests[0]), (&nodes[0], &guests[0]), (&nodes[0], &guests[1])] {
            // Where nothing is recorded of it any more, there is nothing to do.
            node.ifdown(&hosted.raw).with_context(|| format!("ifdown {} on {}", hosted.tap, node.name))?;
        }
        for node in &*nodes {
            node.down().with_context(|| format!("node down on {}", node.name))?;
        }
        for node in &*nodes {
            let left = node.difference()?;
            ensure!(left.is_empty(), "{} is not as before: {}", node.name, left.join("; "));
            report.note(&format!("{} after: none more, none less", node.name));
        }
        Ok("rules, routes, proxy entries, sets, links and settings are as they were".to_owned())
    });
}
