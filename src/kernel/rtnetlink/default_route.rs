//! Questions for the default route of a table.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_DUMP, Parseable};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType,
};
use nix::errno::Errno;
use nix::libc::RTM_GETROUTE;

use super::address_family;
use super::nexthop::devices_of_nexthop;
use crate::addr::Family;
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, Request};

/// The devices (numbers) of the default route of a table, the one of the lowest metric; none if it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Lower is preferred.
    metric: u32,
    /// One, or several of a multipath route.
    pub devices: Vec<u32>,
    /// The nexthop object that has them, where the kernel tells only of that.
    nexthop: Option<u32>,
}

impl DefaultRoute {
    /// Asks for the devices of its nexthop object.
    fn resolve(mut self, netlink: &mut Netlink) -> Result<Self, Error> {
        if let Some(id) = self.nexthop.filter(|_| self.devices.is_empty()) {
            self.devices = devices_of_nexthop(netlink, id)?;
            self.devices.sort_unstable();
            self.devices.dedup();
        }
        Ok(self)
    }
}

/// By what the rules know the packets whose route is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Packets {
    /// Their mark.
    Marked(u32),
    /// The link (number) they come in on. Of IPv6 only: IPv4 would have to look up their source as well.
    From(u32),
}

/// Asks which route these packets take to an address that no ordinary route covers. It is one question whatever the number of
/// routes, and its answer counts only if it is the default route of `table`.
pub fn default_route_of_packets(
    netlink: &mut Netlink,
    family: Family,
    packets: Packets,
    table: u32,
) -> Option<DefaultRoute> {
    let nowhere = match family {
        // Reserved for future use (RFC 1112 section 4).
        Family::V4 => RouteAddress::Inet(Ipv4Addr::new(240, 0, 0, 1)),
        // 3ffe::/16 went back to IANA in 2006 (RFC 3701) and is routed nowhere.
        Family::V6 => RouteAddress::Inet6(Ipv6Addr::new(0x3ffe, 0xffff, 0, 0, 0, 0, 0, 1)),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    // Without RTM_F_LOOKUP_TABLE IPv4 calls every table main (inet_rtm_getroute of net/ipv4/route.c); IPv6 refuses the flag.
    (message.header.destination_prefix_length, message.header.flags) = match family {
        Family::V4 => (32, RouteFlags::FibMatch | RouteFlags::LookupTable),
        Family::V6 => (128, RouteFlags::FibMatch),
    };
    let selector = match packets {
        Packets::Marked(mark) => RouteAttribute::Mark(mark),
        Packets::From(link) => RouteAttribute::Iif(link),
    };
    message.attributes = vec![RouteAttribute::Destination(nowhere), selector];
    let question = Request::new(RTM_GETROUTE, &message, 0);
    let mut found = None;
    let asked = netlink.each_answer(question, |_, payload| {
        found = RouteMessage::parse(payload).ok().and_then(|it| default_route_of(&it, table));
        false
    });
    // ENETUNREACH and its kin only say that this way of asking did not help.
    asked.ok().and(found)?.resolve(netlink).ok().filter(|it| !it.devices.is_empty())
}

/// Reads the default route of a table from a dump. Of IPv4 one datagram will do, as the kernel walks the prefixes in
/// ascending order (fib_table_dump of net/ipv4/fib_trie.c), of IPv6 the default comes last (net/ipv6/ip6_fib.c).
///
/// # Errors
/// What the kernel refused; a table that does not exist is an empty one.
pub fn default_route_by_dump(family: Family, table: u32) -> Result<Option<DefaultRoute>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.attributes.push(RouteAttribute::Table(table));
    let question = Request::new(RTM_GETROUTE, &message, NLM_F_DUMP);
    let mut best: Option<DefaultRoute> = None;
    let mut netlink = match family {
        Family::V4 => Netlink::for_the_beginning()?,
        Family::V6 => Netlink::open()?,
    };
    let asked = netlink.each_answer(question, |_, payload| {
        let Ok(route) = RouteMessage::parse(payload) else { return true };
        if let Some(found) = default_route_of(&route, table)
            && best.as_ref().is_none_or(|best| found.metric < best.metric)
        {
            best = Some(found);
        }
        family == Family::V6 || route.header.destination_prefix_length == 0 || is_zero(&route)
    });
    match asked {
        Err(error) if error.errno == Errno::ENOENT as i32 => Ok(None),
        Err(error) => Err(error),
        // The rest of the dump is still to come on that socket.
        Ok(()) => best.map(|it| it.resolve(&mut Netlink::open()?)).transpose(),
    }
}

/// Whether an IPv4 route is still one below 0.0.0.0, behind which a default may come.
pub(super) fn is_zero(route: &RouteMessage) -> bool {
    !route.attributes.iter().any(|it| {
        matches!(it, RouteAttribute::Destination(RouteAddress::Inet(to))
            if *to != Ipv4Addr::UNSPECIFIED)
    })
}

pub(super) fn default_route_of(route: &RouteMessage, table: u32) -> Option<DefaultRoute> {
    if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut found = DefaultRoute::default();
    let mut in_table = u32::from(route.header.table);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(it) => in_table = *it,
            RouteAttribute::Priority(it) => found.metric = *it,
            RouteAttribute::NhId(it) => found.nexthop = Some(*it),
            RouteAttribute::Oif(it) => found.devices.push(*it),
            RouteAttribute::MultiPath(hops) => found.devices.extend(
                hops.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead)).map(|hop| hop.interface_index),
            ),
            _ => {}
        }
    }
    found.devices.sort_unstable();
    found.devices.dedup();
    (in_table == table && (found.nexthop.is_some() || !found.devices.is_empty())).then_some(found)
}
