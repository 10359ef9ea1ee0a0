//! Rules, routes and neighbours as messages.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use nix::libc::{RTM_DELNEIGH, RTM_DELROUTE, RTM_DELRULE, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_NEWRULE};

use super::address_family;
use crate::addr::{Family, IfName};
use crate::kernel::netlink::Request;
use crate::model::mark::Mark;
use crate::object;

/// Creates, and is content with what is there already where `replace`, else refuses it (EEXIST).
fn creation(replace: bool) -> u16 {
    NLM_F_CREATE | if replace { NLM_F_REPLACE } else { NLM_F_EXCL }
}

/// The message that makes or removes a rule.
pub fn rule(rule: &object::Rule, add: bool) -> Request {
    let by_mark = |mark: &Mark| vec![RuleAttribute::FwMark(mark.value), RuleAttribute::FwMask(mark.mask)];
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.header.action = RuleAction::ToTable;
    // Tables above 255 do not fit the header: it says 0 (RT_TABLE_UNSPEC) and the attribute holds for all.
    message.attributes = match &rule.selector {
        object::RuleSelector::Iif(name) => vec![RuleAttribute::Iifname(name.to_string())],
        object::RuleSelector::Mark(mark) => by_mark(mark),
        object::RuleSelector::LocalMark(mark) => {
            [vec![RuleAttribute::Iifname(object::LOOPBACK.to_owned())], by_mark(mark)].concat()
        }
    };
    message.attributes.extend([
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.preference),
        RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)),
    ]);
    if add {
        let flags = creation(false);
        Request::new(RTM_NEWRULE, &message, flags)
    } else {
        Request::new(RTM_DELRULE, &message, 0)
    }
}

/// The message that removes the first rule by this input interface, whatever table it selects.
pub fn any_rule(family: Family, iif: &IfName, preference: u32, protocol: u8) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.attributes = vec![
        RuleAttribute::Iifname(iif.to_string()),
        RuleAttribute::Priority(preference),
        RuleAttribute::Protocol(RouteProtocol::from(protocol)),
    ];
    Request::new(RTM_DELRULE, &message, 0)
}

/// The message that makes or removes a route; `device` is the number of the hop's device.
pub fn route(route: &object::Route, device: Option<u32>, add: bool) -> Request {
    let mut message = RouteMessage::default();
    let family = Family::of(route.destination.addr());
    message.header.address_family = address_family(family);
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind =
        if route.hop == object::Hop::Unreachable { RouteType::Unreachable } else { RouteType::Unicast };
    // As iproute2: a host on the device itself is in scope link, one behind a gateway is not; to delete, any scope.
    message.header.scope = match route.hop {
        _ if !add => RouteScope::NoWhere,
        object::Hop::Device(_) if family == Family::V4 => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let address = |address: IpAddr| match address {
        IpAddr::V4(it) => RouteAddress::Inet(it),
        IpAddr::V6(it) => RouteAddress::Inet6(it),
    };
    message.attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(address(route.destination.network())));
    }
    message.attributes.extend(device.map(RouteAttribute::Oif));
    if let object::Hop::Gateway { gateway, onlink, .. } = route.hop {
        message.attributes.push(RouteAttribute::Gateway(address(gateway)));
        if onlink {
            message.header.flags = RouteFlags::Onlink;
        }
    }
    // To delete without a metric would remove the best of the routes to this prefix.
    let metric = route.metric.or((!add).then(|| object::Route::default_metric(family)));
    message.attributes.extend(metric.map(RouteAttribute::Priority));
    if add {
        let flags = creation(true);
        Request::new(RTM_NEWROUTE, &message, flags)
    } else {
        Request::new(RTM_DELROUTE, &message, 0)
    }
}

/// The message that makes or removes a permanent neighbour entry on link number `device`.
pub fn neighbour(neighbour: &object::Neighbour, device: u32, add: bool) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(Family::of(neighbour.address));
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(neighbour.address.into()));
    if add {
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.0.to_vec()));
        message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(neighbour.protocol)));
        Request::new(RTM_NEWNEIGH, &message, creation(true))
    } else {
        Request::new(RTM_DELNEIGH, &message, 0)
    }
}

/// The message that makes or removes a proxy entry on link number `device`.
pub fn proxy(proxy: &object::NeighProxy, device: u32, add: bool) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(Family::of(proxy.address));
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes.push(NeighbourAttribute::Destination(proxy.address.into()));
    if add {
        message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(proxy.protocol)));
        let flags = creation(true);
        Request::new(RTM_NEWNEIGH, &message, flags)
    } else {
        Request::new(RTM_DELNEIGH, &message, 0)
    }
}
