//! Where routes lead, and whether one stands already: IPv6 announces the replacement of a route by itself to everybody (RTM_NEWROUTE), IPv4 does
//! not, so of IPv6 only what differs is replaced.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType};
use nix::libc::RTM_GETROUTE;

use super::error::Error;
use super::netlink::{Netlink, Request};
use crate::object::{Hop, NeighProxy, Route};

/// The metric of an IPv6 route that was given none (IP6_RT_PRIO_USER of linux/ipv6_route.h).
const METRIC: u32 = 1024;

/// Whether this very IPv6 route stands; `device` is the number of its hop's device. Of a guest's route the rule by its TAP
/// makes it one question; of another one the table's routes of that protocol are read.
///
/// # Errors
/// What the kernel refused.
pub fn stands(netlink: &mut Netlink, route: &Route, device: Option<u32>) -> Result<bool, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    let (Hop::Device(_), Some(index), 128) = (&route.hop, device, route.destination.prefix_len()) else {
        message.header.protocol = RouteProtocol::from(route.protocol);
        message.attributes.push(RouteAttribute::Table(route.table));
        return is_among(netlink, message, NLM_F_DUMP, route, device);
    };
    message.header.destination_prefix_length = 128;
    message.header.flags = RouteFlags::FibMatch;
    message.attributes = vec![RouteAttribute::Destination(address(route)), RouteAttribute::Iif(index)];
    // A refusal (ENETUNREACH and its kin) only says that it does not stand.
    Ok(is_among(netlink, message, 0, route, device).unwrap_or(false))
}

fn is_among(
    netlink: &mut Netlink,
    message: RouteMessage,
    flags: u16,
    route: &Route,
    device: Option<u32>,
) -> Result<bool, Error> {
    let mut found = false;
    let request = Request::new(RTM_GETROUTE, &message, flags);
    netlink.each_answer(request, |_, payload| {
        found |= RouteMessage::parse(payload).is_ok_and(|it| is_same(&it, route, device));
        true
    })?;
    Ok(found)
}

fn address(route: &Route) -> RouteAddress {
    match route.destination.network() {
        IpAddr::V4(it) => RouteAddress::Inet(it),
        IpAddr::V6(it) => RouteAddress::Inet6(it),
    }
}

fn is_same(found: &RouteMessage, route: &Route, device: Option<u32>) -> bool {
    let kind = if route.hop == Hop::Unreachable { RouteType::Unreachable } else { RouteType::Unicast };
    let (mut table, mut metric) = (u32::from(found.header.table), METRIC);
    let (mut to, mut via, mut index) = (None, None, None);
    for attribute in &found.attributes {
        match attribute {
            RouteAttribute::Table(it) => table = *it,
            RouteAttribute::Priority(it) => metric = *it,
            RouteAttribute::Destination(it) => to = Some(it),
            RouteAttribute::Gateway(it) => via = Some(it),
            RouteAttribute::Oif(it) => index = Some(*it),
            _ => {}
        }
    }
    let gateway = match route.hop {
        Hop::Gateway { gateway, .. } => Some(RouteAddress::from(gateway)),
        _ => None,
    };
    let any = route.destination.prefix_len() == 0;
    found.header.kind == kind
        && found.header.destination_prefix_length == route.destination.prefix_len()
        && found.header.protocol == RouteProtocol::from(route.protocol)
        && (table, metric) == (route.table, route.metric.unwrap_or(METRIC))
        && to == Some(&address(route)).filter(|_| !any)
        && via == gateway.as_ref()
        // An unreachable IPv6 route is shown on lo.
        && (index == device || route.hop == Hop::Unreachable)
}

/// The links (numbers) with IPv6 routes by router advertisement, each once.
///
/// # Errors
/// What the kernel refused.
pub fn by_advertisement(netlink: &mut Netlink) -> Result<Vec<u32>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.protocol = RouteProtocol::Ra;
    let mut links = Vec::new();
    netlink.each_answer(Request::new(RTM_GETROUTE, &message, NLM_F_DUMP), |_, payload| {
        let route = RouteMessage::parse(payload).ok().filter(|it| it.header.protocol == RouteProtocol::Ra);
        links.extend(route.iter().flat_map(|it| &it.attributes).filter_map(|it| match it {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        }));
        true
    })?;
    links.sort_unstable();
    links.dedup();
    Ok(links)
}

/// Whether a proxied address is by now another interface's: packets that come in on the uplink (number `uplink`) for it go
/// to a device that is not number `behind`, by a host route of a NIC. A migrated or restarted guest may have come back before
/// its former interface is cleared away.
pub fn leads_elsewhere(netlink: &mut Netlink, proxy: &NeighProxy, uplink: u32, behind: Option<u32>) -> bool {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 128;
    message.header.flags = RouteFlags::FibMatch;
    let destination = RouteAttribute::Destination(RouteAddress::from(proxy.address));
    message.attributes = vec![destination, RouteAttribute::Iif(uplink)];
    let mut elsewhere = false;
    let asked = netlink.each_answer(Request::new(RTM_GETROUTE, &message, 0), |_, payload| {
        let Ok(found) = RouteMessage::parse(payload) else { return false };
        let device = found.attributes.iter().find_map(|it| match it {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        elsewhere = found.header.destination_prefix_length == 128
            && found.header.protocol == RouteProtocol::from(proxy.protocol)
            && device != behind;
        false
    });
    // A refusal says that it leads nowhere.
    asked.is_ok() && elsewhere
}
