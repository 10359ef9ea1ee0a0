//! Messages of dumps as the objects of a Plan. What has more to it than a Plan could say is none.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::FoundProxy;
use crate::addr::{Family, IfName, Mac};
use crate::model::mark::Mark;
use crate::object::{Hop, LOOPBACK, Neighbour, Route, Rule, RuleSelector};

/// The metric of an IPv6 route that was given none (IP6_RT_PRIO_USER of linux/ipv6_route.h).
const METRIC6: u32 = 1024;

/// A rule by its input interface alone, or by a mark (of all packets, or of what the node itself sends).
pub fn rule(family: Family, message: &RuleMessage) -> Option<Rule> {
    let (mut table, mut preference, mut protocol) = (u32::from(message.header.table), 0, 0);
    let (mut iif, mut value, mut mask) = (None::<IfName>, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Iifname(it) => iif = Some(it.parse().ok()?),
            RuleAttribute::FwMark(it) => value = Some(*it),
            RuleAttribute::FwMask(it) => mask = Some(*it),
            RuleAttribute::Table(it) => table = *it,
            RuleAttribute::Priority(it) => preference = *it,
            RuleAttribute::Protocol(it) => protocol = u8::from(*it),
            // The kernel's way to say that nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => return None,
        }
    }
    let selector = match (iif, value, mask) {
        _ if message.header.action != RuleAction::ToTable => return None,
        (Some(iif), None, None) => RuleSelector::Iif(iif),
        (Some(iif), Some(value), Some(mask)) if iif.as_str() == LOOPBACK => {
            RuleSelector::LocalMark(Mark { value, mask })
        }
        (None, Some(value), Some(mask)) => RuleSelector::Mark(Mark { value, mask }),
        _ => return None,
    };
    Some(Rule { family, selector, table, preference, protocol, shared: false })
}

/// A route with one hop, or an unreachable one. A metric that is the family's default is none.
pub fn route(family: Family, message: &RouteMessage, names: &HashMap<u32, IfName>) -> Option<Route> {
    if message.header.tos != 0 {
        return None;
    }
    let (mut table, mut metric) = (u32::from(message.header.table), None);
    let (mut to, mut gateway, mut device) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(it) => table = *it,
            RouteAttribute::Priority(it) => metric = Some(*it),
            RouteAttribute::Destination(it) => to = Some(address(it)?),
            RouteAttribute::Gateway(it) => gateway = Some(address(it)?),
            RouteAttribute::Oif(it) => device = Some(names.get(it)?.clone()),
            // The kernel's own notes, and what no Plan of ours differs in.
            RouteAttribute::CacheInfo(_) | RouteAttribute::Preference(_) | RouteAttribute::Metrics(_) => {}
            _ => return None,
        }
    }
    let destination = IpNet::new(to.unwrap_or(family.any().addr()), message.header.destination_prefix_length).ok()?;
    let hop = match (message.header.kind, gateway, device) {
        // An unreachable IPv6 route is shown on lo.
        (RouteType::Unreachable, None, _) => Hop::Unreachable,
        (RouteType::Unicast, None, Some(device)) => Hop::Device(device),
        (RouteType::Unicast, Some(gateway), Some(device)) => {
            Hop::Gateway { gateway, device, onlink: message.header.flags.contains(RouteFlags::Onlink) }
        }
        _ => return None,
    };
    let default = match family {
        Family::V4 => 0,
        Family::V6 => METRIC6,
    };
    let metric = metric.filter(|it| *it != default);
    Some(Route { destination, hop, table, metric, protocol: u8::from(message.header.protocol) })
}

/// The table whose packets a route takes to wherever no other one does.
pub fn table_of_default(message: &RouteMessage) -> Option<u32> {
    let is_default = message.header.destination_prefix_length == 0 && message.header.kind == RouteType::Unicast;
    let table = message.attributes.iter().find_map(|it| match it {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    is_default.then(|| table.unwrap_or(message.header.table.into()))
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(it) => Some((*it).into()),
        RouteAddress::Inet6(it) => Some((*it).into()),
        _ => None,
    }
}

/// A permanent entry with an Ethernet address.
pub fn neighbour(message: &NeighbourMessage, names: &HashMap<u32, IfName>) -> Option<Neighbour> {
    let (mut address, mut mac, mut protocol) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => address = Some((*it).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => address = Some((*it).into()),
            NeighbourAttribute::LinkLayerAddress(octets) => mac = octets.as_slice().try_into().ok().map(Mac),
            NeighbourAttribute::Protocol(it) => protocol = u8::from(*it),
            _ => {}
        }
    }
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    Some(Neighbour { address: address?, mac: mac?, device: names.get(&message.header.ifindex)?.clone(), protocol })
}

/// A proxy entry.
pub fn proxy(message: &NeighbourMessage, names: &HashMap<u32, IfName>) -> Option<FoundProxy> {
    let (mut address, mut protocol) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => address = Some((*it).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => address = Some((*it).into()),
            NeighbourAttribute::Protocol(it) => protocol = u8::from(*it),
            _ => {}
        }
    }
    Some(FoundProxy { address: address?, device: names.get(&message.header.ifindex)?.clone(), protocol })
}
