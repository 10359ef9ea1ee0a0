//! What stands in the calling thread's network namespace, whoever made it, in iproute2's words: for comparisons.
//!
//! These are dumps, whose cost grows with what stands; nothing on the way of a NIC uses them.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::Result;
use netlink_packet_core::{NLM_F_DUMP, Parseable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use nix::errno::Errno;

use super::netlink::{Netlink, Request};
use super::rtnetlink::address_family;
use crate::addr::{Family, Mac};

/// All rules, all routes of all tables and all proxy entries of both families, a line each.
///
/// # Errors
/// What the kernel refused.
pub fn lines() -> Result<Vec<String>> {
    let names = names()?;
    let mut lines = Vec::new();
    for family in Family::BOTH {
        let mut rule = RuleMessage::default();
        rule.header.family = address_family(family);
        for payload in dump("RTM_GETRULE", RouteNetlinkMessage::GetRule(rule))? {
            lines.extend(RuleMessage::parse(&payload).ok().map(|it| rule_line(family, &it)));
        }
        let mut route = RouteMessage::default();
        route.header.address_family = address_family(family);
        for payload in dump("RTM_GETROUTE", RouteNetlinkMessage::GetRoute(route))? {
            lines.extend(RouteMessage::parse(&payload).ok().map(|it| route_line(family, &it, &names)));
        }
        let mut proxy = NeighbourMessage::default();
        proxy.header.family = address_family(family);
        proxy.header.flags = NeighbourFlags::Proxy;
        for payload in dump("RTM_GETNEIGH", RouteNetlinkMessage::GetNeighbour(proxy))? {
            lines.extend(NeighbourMessage::parse(&payload).ok().map(|it| proxy_line(family, &it, &names)));
        }
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
    let message = RouteNetlinkMessage::GetNeighbour(message);
    let asked = Netlink::open()?.each_answer(Request { operation: "RTM_GETNEIGH", message, flags: 0 }, |_, payload| {
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

fn dump(operation: &'static str, message: RouteNetlinkMessage) -> Result<Vec<Vec<u8>>> {
    let answers = Netlink::open()?.ask(Request { operation, message, flags: NLM_F_DUMP })?;
    Ok(answers.into_iter().map(|(_, payload)| payload).collect())
}

/// Names of all devices by number.
fn names() -> Result<HashMap<u32, String>> {
    let mut names = HashMap::new();
    for payload in dump("RTM_GETLINK", RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        let Ok(link) = LinkMessage::parse(&payload) else { continue };
        for attribute in link.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                names.insert(link.header.index, name);
            }
        }
    }
    Ok(names)
}

fn name(names: &HashMap<u32, String>, index: u32) -> String {
    names.get(&index).cloned().unwrap_or_else(|| format!("if{index}"))
}

pub(super) fn rule_line(family: Family, rule: &RuleMessage) -> String {
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

pub(super) fn route_line(family: Family, route: &RouteMessage, names: &HashMap<u32, String>) -> String {
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

pub(super) fn proxy_line(family: Family, proxy: &NeighbourMessage, names: &HashMap<u32, String>) -> String {
    let address = proxy.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => Some(it.to_string()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => Some(it.to_string()),
        _ => None,
    });
    let device = name(names, proxy.header.ifindex);
    format!("ip {} neigh proxy {} dev {device}", family.ip_option(), address.unwrap_or_default())
}
