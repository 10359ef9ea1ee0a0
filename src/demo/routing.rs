//! Where packets go: the seed's three L3 lists, guest to guest, and what a guest may not send.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::excerpt;
use super::guest::Direction;
use super::report::Report;
use super::wire::{Seen, asker, is_echo, turned};
use super::world::{Hosted, World, outside, soon, while_serving};
use crate::addr::Family;
use crate::object::TABLE_MAIN;
use crate::ruleset::TableFamily;
use crate::setup::{neighbours, routed_sources};

/// How long an answer may stay out before it counts as none. What proves it is where the question went.
const SILENCE: Duration = Duration::from_millis(250);

/// Runs them.
pub fn steps(report: &mut Report<'_>, world: &mut World, family: Family) {
    report.step(&format!("{family} outgoing: the guest pings the outside"), |report| outgoing(report, world, family));
    report.step(&format!("{family} incoming: the outside pings the guest"), |report| incoming(report, world, family));
    report.step(&format!("{family} host to guest is impossible: table main leads to DEV"), |report| {
        host_to_guest(report, world, family)
    });
    report.step(&format!("{family} guest to guest: the node routes between its TAPs"), |report| {
        guest_to_guest(report, world, family)
    });
    report.step(&format!("{family} a forged source: dropped on the node"), |report| forged(report, world, family));
}

/// The frame of this kind, seen from the node.
fn expect(trace: &[Seen], what: &str, wanted: impl Fn(&Seen) -> bool) -> Result<Seen> {
    trace.iter().find(|it| wanted(it)).cloned().with_context(|| format!("not seen: {what}"))
}

/// A guest's trace from the node's point of view.
fn trace(hosted: &mut Hosted) -> Vec<Seen> {
    hosted.guest.take_trace().into_iter().map(|(direction, frame)| (turned(direction), frame)).collect()
}

fn outgoing(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &mut world.nodes;
    let [hosted, _] = &mut world.guests;
    let (own, outside) = (hosted.address(family)?, outside(family)?);
    report.commands(excerpt::objects(&hosted.plan, excerpt::rule(family)));
    report.commands(excerpt::objects(&node.plans[family as usize], excerpt::default_route));
    node.wire.clear()?;
    trace(hosted);
    let reply = hosted.guest.ping(outside, soon())?;
    let (tap, uplink) = (format!("{} {}", node.name, hosted.tap), format!("{} {}", node.name, node.device));
    let seen = trace(hosted);
    let request = |(way, frame): &Seen, direction| *way == direction && is_echo(frame, false, own, outside);
    let (way, frame) = expect(&seen, "the request from the guest", |it| request(it, Direction::In))?;
    report.frame(&tap, way, &frame, true);
    let (way, frame) = node.wire.expect(soon(), "the request on the uplink", |way, frame| {
        way == Direction::Out && is_echo(frame, false, own, outside)
    })?;
    report.frame(&uplink, way, &frame, true);
    ensure!(
        frame.source == node.mac && frame.destination == world.router.mac,
        "it went from {} to {}, expected DEV_MAC to GW_MAC",
        frame.source,
        frame.destination
    );
    let (way, frame) =
        expect(&seen, "the reply", |(way, frame)| *way == Direction::Out && is_echo(frame, true, outside, own))?;
    report.frame(&tap, way, &frame, true);
    ensure!(reply.is_some(), "{outside} did not answer");
    Ok(format!("{outside} answers {own}; the request went from DEV_MAC to GW_MAC"))
}

fn incoming(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &mut world.nodes;
    let [hosted, _] = &mut world.guests;
    let (own, outside) = (hosted.address(family)?, outside(family)?);
    report.commands(excerpt::objects(&node.plans[family as usize], excerpt::rule(family)));
    report.commands(excerpt::objects(&hosted.plan, excerpt::device_route(family, None)));
    node.wire.clear()?;
    trace(hosted);
    let answered = while_serving(&mut hosted.guest, || world.router.ping(own, soon()))?;
    let (tap, uplink) = (format!("{} {}", node.name, hosted.tap), format!("{} {}", node.name, node.device));
    let (way, frame) = node.wire.expect(soon(), "the request on the uplink", |way, frame| {
        way == Direction::In && is_echo(frame, false, outside, own)
    })?;
    report.frame(&uplink, way, &frame, true);
    ensure!(frame.destination == node.mac, "it went to {}, expected DEV_MAC", frame.destination);
    let seen = trace(hosted);
    for (what, wanted, reply) in [("the request", Direction::Out, false), ("the reply", Direction::In, true)] {
        let (from, to) = if reply { (own, outside) } else { (outside, own) };
        let (way, frame) = expect(&seen, what, |(way, frame)| *way == wanted && is_echo(frame, reply, from, to))?;
        report.frame(&tap, way, &frame, true);
    }
    ensure!(answered, "{own} did not answer");
    Ok(format!("{own} answers {outside}; the router sent to DEV_MAC"))
}

fn host_to_guest(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &mut world.nodes;
    let [hosted, _] = &mut world.guests;
    let own = hosted.address(family)?;
    report.commands(excerpt::objects(&node.plans[family as usize], excerpt::device_route(family, Some(TABLE_MAIN))));
    node.wire.clear()?;
    trace(hosted);
    let answered = while_serving(&mut hosted.guest, || node.ping(own, Instant::now() + SILENCE))?;
    let what = format!("a question who has {own} on the uplink");
    let (way, frame) =
        node.wire.expect(soon(), &what, |way, frame| way == Direction::Out && asker(frame, own).is_some())?;
    report.frame(&format!("{} {}", node.name, node.device), way, &frame, family == Family::V6);
    ensure!(!answered, "{own} answered its host");
    let source = node.address(family);
    let reached = trace(hosted).iter().any(|(_, frame)| is_echo(frame, false, source, own));
    ensure!(!reached, "the request of {source} reached the guest");
    Ok(format!("the node asks for {own} on its uplink, where nobody answers"))
}

fn guest_to_guest(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &mut world.nodes;
    let [first, second] = &mut world.guests;
    let (from, to) = (first.address(family)?, second.address(family)?);
    for plan in [&first.plan, &second.plan] {
        report.commands(excerpt::objects(plan, excerpt::device_route(family, None)));
    }
    node.wire.clear()?;
    trace(first);
    trace(second);
    let data = b"snf-network";
    let (reply, echoed) = while_serving(&mut second.guest, || {
        let reply = first.guest.ping(to, soon())?;
        Ok((reply, first.guest.udp_echo(to, data, soon())?))
    })?;
    for (hosted, request_goes) in [(&mut *first, Direction::In), (&mut *second, Direction::Out)] {
        let place = format!("{} {}", node.name, hosted.tap);
        let (way, frame) = expect(&trace(hosted), &format!("the request on {}", hosted.tap), |(way, frame)| {
            *way == request_goes && is_echo(frame, false, from, to)
        })?;
        report.frame(&place, way, &frame, true);
    }
    ensure!(reply.is_some(), "{to} did not answer {from}");
    ensure!(echoed.as_deref() == Some(&data[..]), "{to} did not echo a UDP datagram of {from}");
    let leaked = node.wire.find(Instant::now(), |_, frame| is_echo(frame, false, from, to))?;
    ensure!(leaked.is_none(), "the request was seen on the uplink, too");
    Ok(format!("{to} answers {from}, ICMP and UDP, and the uplink sees nothing of it"))
}

/// The frames of one guest keep their order, so the forged one would have come before the honest one behind it.
fn forged(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &mut world.nodes;
    let [hosted, other] = &mut world.guests;
    let (own, forged, outside) = (hosted.address(family)?, other.address(family)?, outside(family)?);
    let set = [neighbours::SOURCES4, neighbours::SOURCES6][family as usize];
    report.commands(excerpt::filters(&hosted.plan, TableFamily::Inet, &[routed_sources::GUARDED, set]));
    let (tap, uplink) = (format!("{} {}", node.name, hosted.tap), format!("{} {}", node.name, node.device));
    node.wire.clear()?;
    trace(hosted);
    // What send_spoofed sends passes if nothing but the source is different.
    let honest = hosted.guest.send_spoofed(own, outside, soon())?;
    report.frame(&tap, Direction::In, &honest, true);
    let (way, frame) = node.wire.expect(soon(), "the honest request on the uplink", |way, frame| {
        way == Direction::Out && is_echo(frame, false, own, outside)
    })?;
    report.frame(&uplink, way, &frame, true);
    let frame = hosted.guest.send_spoofed(forged, outside, soon())?;
    report.frame(&tap, Direction::In, &frame, true);
    ensure!(hosted.guest.ping(outside, soon())?.is_some(), "{outside} did not answer {own} after it");
    let passed = node.wire.find(Instant::now(), |_, frame| is_echo(frame, false, forged, outside))?;
    if let Some((way, frame)) = &passed {
        report.frame(&uplink, *way, frame, true);
    }
    ensure!(passed.is_none(), "the packet from {forged} left through the uplink");
    Ok(format!("from {own} it passes, from {forged} it is dropped"))
}
