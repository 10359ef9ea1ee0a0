//! Who is where: the four numbered steps of the seed's ARP walk, and the same by neighbour discovery.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use super::excerpt;
use super::guest::Direction;
use super::node::Node;
use super::report::Report;
use super::wire::{asker, turned};
use super::world::{ARP_IP, Hosted, World, gateway, link_local, outside, soon, while_serving};
use crate::addr::{Family, Mac};
use crate::object::Object;
use crate::ruleset::TableFamily;
use crate::setup::shared;

/// Runs them.
pub fn steps(report: &mut Report<'_>, world: &mut World, family: Family) {
    let protocol = match family {
        Family::V4 => "ARP",
        Family::V6 => "NDP",
    };
    report.step(&format!("{protocol} 1: the guest asks who has its gateway; it is at TAP_MAC"), |report| {
        guest_asks(report, world, family)
    });
    let title = match family {
        Family::V4 => "ARP 2: the host asks for GW_IP in the name of ARP_IP; it is at GW_MAC",
        Family::V6 => "NDP 2: the host asks for GW_IP; it is at GW_MAC",
    };
    report.step(title, |report| host_asks_for_gateway(report, world, family));
    let title = match family {
        Family::V4 => "ARP 3: the host asks for the guest in the name of GW_IP; it is at MAC",
        Family::V6 => "NDP 3: the host asks for the guest; it is at MAC",
    };
    report.step(title, |report| host_asks_for_guest(report, world, family));
    report.step(&format!("{protocol} 4: the router asks for the guest; it is at DEV_MAC"), |report| {
        router_asks(report, world, family)
    });
}

fn is_at(what: &str, found: Mac, expected: Mac) -> Result<()> {
    ensure!(found == expected, "{what} is said to be at {found}, expected {expected}");
    Ok(())
}

fn guest_asks(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &world.nodes;
    let [Hosted { guest, plan, tap, .. }, _] = &mut world.guests;
    match family {
        Family::V4 => report.commands(excerpt::objects(plan, excerpt::proxying(family, tap))),
        Family::V6 => {
            report.commands(excerpt::objects(plan, excerpt::setting("addr_gen_mode")));
            report.commands(excerpt::objects(plan, |it| matches!(it, Object::Link(_))));
        }
    }
    let router = guest.address(family)?.gateway;
    guest.take_trace();
    let answer = guest.resolve(router, soon())?;
    let place = format!("{} {tap}", node.name);
    for (direction, frame) in guest.take_trace() {
        if asker(&frame, router).is_some() || frame.announces(router).is_some() {
            report.frame(&place, turned(direction), &frame, family == Family::V6);
        }
    }
    let answer = answer.with_context(|| format!("nobody answered for {router}"))?;
    is_at(&router.to_string(), answer.mac, node.tap_mac())?;
    Ok(format!("{router} is at TAP_MAC"))
}

/// Shows the question that left through the uplink, and its answer, and returns who asked.
fn question_on_uplink(
    report: &mut Report<'_>,
    node: &mut Node,
    (from, to): (Direction, Direction),
    target: IpAddr,
    expected: Mac,
) -> Result<IpAddr> {
    let place = format!("{} {}", node.name, node.device);
    let detailed = target.is_ipv6();
    let what = format!("a question who has {target}");
    let (_, question) = node.wire.expect(soon(), &what, |way, it| way == from && asker(it, target).is_some())?;
    report.frame(&place, from, &question, detailed);
    let what = format!("an answer who has {target}");
    let (_, answer) = node.wire.expect(soon(), &what, |way, it| way == to && it.announces(target).is_some())?;
    report.frame(&place, to, &answer, detailed);
    is_at(&target.to_string(), answer.announces(target).context(what)?, expected)?;
    asker(&question, target).context("it has an asker")
}

fn host_asks_for_gateway(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &mut world.nodes;
    let [Hosted { guest, .. }, _] = &mut world.guests;
    let plan = &node.plans[family as usize];
    report.commands(excerpt::filters(plan, TableFamily::Arp, &[shared::ARP_SOURCE]));
    report.commands(excerpt::objects(plan, excerpt::default_route));
    node.wire.clear()?;
    let reply = guest.ping(outside(family)?, soon())?;
    let (gateway, mac) = (gateway(family)?, world.router.mac);
    let asked_by = question_on_uplink(report, node, (Direction::Out, Direction::In), gateway, mac)?;
    let expected = match family {
        Family::V4 => ARP_IP.into(),
        Family::V6 => node.link_local()?,
    };
    ensure!(asked_by == expected, "{asked_by} asked, expected {expected}");
    ensure!(reply.is_some(), "{} did not answer", outside(family)?);
    Ok(match family {
        Family::V4 => format!("{gateway} is at GW_MAC, asked for by ARP_IP"),
        Family::V6 => format!("{gateway} is at GW_MAC, asked for by DEV's link-local address"),
    })
}

/// The second guest has said nothing until now, and the node's neighbour entry for it is removed, so nobody knows where it is: a ping
/// from outside makes both the router and the node ask.
fn host_asks_for_guest(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &mut world.nodes;
    let [_, Hosted { guest, plan, tap, .. }] = &mut world.guests;
    let address = guest.address(family)?;
    report.commands(excerpt::filters(
        plan,
        TableFamily::Arp,
        if family == Family::V4 { &[shared::ARP_SOURCE] } else { &[] },
    ));
    report.commands(excerpt::objects(plan, excerpt::device_route(family, None)));
    report.commands(excerpt::objects(plan, |it| matches!(it, Object::Neighbour(it) if it.address == address.address)));
    report.note(&format!("{}: with this entry it need not ask, so it is removed for this step", node.name));
    node.forget(plan, address.address)?;
    node.wire.clear()?;
    guest.take_trace();
    let answered = while_serving(guest, || world.router.ping(address.address, soon()))?;
    let mac = guest.mac();
    let place = format!("{} {tap}", node.name);
    let mut asked_by = None;
    for (direction, frame) in guest.take_trace() {
        let question = asker(&frame, address.address);
        let answer = frame.announces(address.address);
        if question.is_some() || answer.is_some() {
            report.frame(&place, turned(direction), &frame, family == Family::V6);
        }
        asked_by = asked_by.or(question);
        answer.map_or(Ok(()), |it| is_at("the guest", it, mac))?;
    }
    let asked_by = asked_by.with_context(|| format!("not seen: a question who has {}", address.address))?;
    let expected = match family {
        Family::V4 => gateway(family)?,
        Family::V6 => link_local(node.tap_mac())?.into(),
    };
    ensure!(asked_by == expected, "{asked_by} asked, expected {expected}");
    ensure!(answered, "{} did not answer the router", address.address);
    Ok(match family {
        Family::V4 => format!("{} is at MAC, asked for by GW_IP", address.address),
        Family::V6 => format!("{} is at MAC, asked for by its router's link-local address", address.address),
    })
}

fn router_asks(report: &mut Report<'_>, world: &mut World, family: Family) -> Result<String> {
    let [node, _] = &mut world.nodes;
    let [_, hosted] = &world.guests;
    let address = hosted.address(family)?;
    report.commands(excerpt::objects(&node.plans[family as usize], excerpt::proxying(family, &node.device)));
    report.commands(excerpt::objects(&hosted.plan, |it| matches!(it, Object::NeighProxy(it) if it.address == address)));
    let mac = node.mac;
    let asked_by = question_on_uplink(report, node, (Direction::In, Direction::Out), address, mac)?;
    let expected = match family {
        Family::V4 => gateway(family)?,
        Family::V6 => link_local(world.router.mac)?.into(),
    };
    ensure!(asked_by == expected, "{asked_by} asked, expected {expected}");
    Ok(match family {
        Family::V4 => format!("{address} is at DEV_MAC, asked for by GW_IP"),
        Family::V6 => format!("{address} is at DEV_MAC, asked for by the router's link-local address"),
    })
}
