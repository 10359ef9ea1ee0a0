//! What stands as lines in iproute2's words, whoever made it: for comparisons.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::Result;
use netlink_packet_core::Parseable;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use nix::errno::Errno;
use nix::libc::RTM_GETNEIGH;

use super::dumps;
use crate::addr::{Family, IfName, Mac};
use crate::kernel::netlink::{Netlink, Request};
use crate::kernel::rtnetlink::{self, address_family};

/// All rules, all routes of all tables and all proxy entries of both families, a line each.
///
/// # Errors
/// What the kernel refused.
pub fn lines() -> Result<Vec<String>> {
    let mut netlink = Netlink::open()?;
    let links = dumps::whole(&mut netlink, rtnetlink::links)?;
    let names: HashMap<u32, IfName> = links.into_iter().map(|link| (link.index, link.name)).collect();
    let mut lines = Vec::new();
    for family in Family::BOTH {
        lines.extend(dumps::rules(&mut netlink, family)?.iter().map(|it| rule_line(family, it)));
        lines.extend(dumps::routes(&mut netlink, family)?.iter().map(|it| route_line(family, it, &names)));
        lines.extend(dumps::proxies(&mut netlink, family)?.iter().map(|it| proxy_line(family, it, &names)));
    }
    Ok(lines)
}

/// Who the neighbour with this address is, on the device with this index; none if it is not known or did not answer.
///
/// # Errors
/// What the kernel refused.
pub fn neighbour(index: u32, address: IpAddr) -> Result<Option<Mac>> {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(Family::of(address));
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    let mut found = None;
    let asked = Netlink::open()?.each_answer(Request::new(RTM_GETNEIGH, &message, 0), |_, payload| {
        let attributes = NeighbourMessage::parse(payload).map(|it| it.attributes).unwrap_or_default();
        found = attributes.into_iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => octets.try_into().ok().map(Mac),
            _ => None,
        });
        false
    });
    match asked {
        Err(error) if error.errno == Errno::ENOENT as i32 => Ok(None),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(found),
    }
}

fn name(names: &HashMap<u32, IfName>, index: u32) -> String {
    names.get(&index).map_or_else(|| format!("if{index}"), IfName::to_string)
}

fn rule_line(family: Family, rule: &RuleMessage) -> String {
    let mut line = format!("ip {} rule", family.ip_option());
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Iifname(it) => line += &format!(" iif {it}"),
            RuleAttribute::Oifname(it) => line += &format!(" oif {it}"),
            RuleAttribute::FwMark(it) => line += &format!(" fwmark {it:#x}"),
            RuleAttribute::FwMask(it) => line += &format!("/{it:#x}"),
            RuleAttribute::Table(it) => line += &format!(" lookup {it}"),
            RuleAttribute::Priority(it) => line += &format!(" pref {it}"),
            RuleAttribute::Protocol(it) => line += &format!(" protocol {}", u8::from(*it)),
            RuleAttribute::SuppressPrefixLen(_) => {}
            other => line += &format!(" {other:?}"),
        }
    }
    line
}

fn route_line(family: Family, route: &RouteMessage, names: &HashMap<u32, IfName>) -> String {
    let header = &route.header;
    let destination = route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Destination(it) => Some(address(it)),
        _ => None,
    });
    let destination = match destination {
        Some(address) => format!("{address}/{}", header.destination_prefix_length),
        None => "default".to_owned(),
    };
    let kind = if header.kind == RouteType::Unicast { String::new() } else { format!("{:?} ", header.kind) };
    let mut line = format!("ip {} route {}{destination}", family.ip_option(), kind.to_lowercase());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(it) => line += &format!(" via {}", address(it)),
            RouteAttribute::Oif(it) => line += &format!(" dev {}", name(names, *it)),
            RouteAttribute::PrefSource(it) => line += &format!(" src {}", address(it)),
            RouteAttribute::Table(it) => line += &format!(" table {it}"),
            RouteAttribute::Priority(it) => line += &format!(" metric {it}"),
            RouteAttribute::MultiPath(it) => line += &format!(" {it:?}"),
            // The rest are the kernel's own notes, such as when it was used.
            _ => {}
        }
    }
    line + &format!(" proto {}", u8::from(header.protocol))
}

fn address(address: &RouteAddress) -> String {
    match address {
        RouteAddress::Inet(it) => it.to_string(),
        RouteAddress::Inet6(it) => it.to_string(),
        other => format!("{other:?}"),
    }
}

fn proxy_line(family: Family, proxy: &NeighbourMessage, names: &HashMap<u32, IfName>) -> String {
    let address = proxy.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => Some(it.to_string()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => Some(it.to_string()),
        _ => None,
    });
    let device = name(names, proxy.header.ifindex);
    format!("ip {} neigh proxy {} dev {device}", family.ip_option(), address.unwrap_or_default())
}
