//! Links, rules, routes and proxy neighbours as rtnetlink messages, and the questions about them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::error::Error;
use super::netlink::{Netlink, Request};
use crate::addr::{Family, IfName, Mac};
use crate::plan;

/// RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// IFLA_INET_CONF of linux/if_link.h, whose nested attributes are numbered by IPV4_DEVCONF_* of linux/ip.h.
const IFLA_INET_CONF: u16 = 1;
/// IFLA_EXT_MASK of linux/if_link.h.
const IFLA_EXT_MASK: u16 = 29;
/// IFLA_INET6_ADDR_GEN_MODE of linux/if_link.h.
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;

/// The settings of a link that we look at and change: family, key, IPV4_DEVCONF_* number (IPv6 has none to write).
pub const DEVCONF: [(Family, &str, u16); 11] = [
    (Family::V4, "forwarding", 1),
    (Family::V4, "proxy_arp", 3),
    (Family::V4, "accept_redirects", 4),
    (Family::V4, "rp_filter", 8),
    (Family::V6, "forwarding", 0),
    (Family::V6, "accept_ra", 0),
    (Family::V6, "accept_redirects", 0),
    (Family::V6, "accept_dad", 0),
    (Family::V6, "proxy_ndp", 0),
    (Family::V6, "disable_ipv6", 0),
    (Family::V6, ADDR_GEN_MODE, 0),
];

/// How link-local addresses are made: 0 is modified EUI-64 (IN6_ADDR_GEN_MODE_EUI64 of linux/if_link.h).
pub const ADDR_GEN_MODE: &str = "addr_gen_mode";

/// A link as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its name.
    pub name: IfName,
    /// Its number.
    pub index: u32,
    /// None where it has no Ethernet address.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// Administratively.
    pub up: bool,
    /// The number of its bridge; 0 is none.
    pub controller: u32,
    /// IFLA_INFO_KIND, such as `bridge`.
    pub kind: Option<String>,
    /// IFLA_BRPORT_GROUP_FWD_MASK, of the port of a bridge.
    pub group_forwarding: Option<u16>,
    /// Values of [`DEVCONF`], in its order; none where the family is off on this link.
    pub devconf: [Option<u32>; DEVCONF.len()],
}

impl LinkState {
    /// The value of a setting of [`DEVCONF`].
    pub fn setting(&self, family: Family, key: &str) -> Option<u32> {
        let place = DEVCONF.iter().position(|it| it.0 == family && it.1 == key)?;
        self.devconf[place]
    }
}

/// What one RTM_SETLINK changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// The address.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// The number of the bridge it joins; 0 leaves it.
    pub controller: Option<u32>,
    /// Settings of [`DEVCONF`] that netlink can write: all of IPv4, and addr_gen_mode.
    pub settings: Vec<(Family, &'static str, u32)>,
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Creates, and is content with what is there already where `replace`, else refuses it (EEXIST).
fn creation(replace: bool) -> u16 {
    NLM_F_CREATE | if replace { NLM_F_REPLACE } else { NLM_F_EXCL }
}

/// The message that changes link number `index`.
pub fn set_link(index: u32, change: &LinkChange) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(up) = change.up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    let attributes = &mut message.attributes;
    attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    attributes.extend(change.controller.map(LinkAttribute::Controller));
    // The crate's own DevConf leaves zeros out, so the attributes are given raw.
    let mut inet = Vec::new();
    let mut spec = Vec::new();
    for &(family, key, value) in &change.settings {
        match family {
            Family::V4 => {
                let number = DEVCONF.iter().find(|it| it.0 == family && it.1 == key).map_or(0, |it| it.2);
                inet.push(DefaultNla::new(number, value.to_ne_bytes().to_vec()));
            }
            Family::V6 => {
                let mode = DefaultNla::new(IFLA_INET6_ADDR_GEN_MODE, vec![value.to_ne_bytes()[0]]);
                spec.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::Other(mode)]));
            }
        }
    }
    if !inet.is_empty() {
        let mut bytes = vec![0; inet.as_slice().buffer_len()];
        inet.as_slice().emit(&mut bytes);
        spec.push(AfSpecUnspec::Inet(vec![AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF, bytes))]));
    }
    if !spec.is_empty() {
        attributes.push(LinkAttribute::AfSpecUnspec(spec));
    }
    Request { operation: "RTM_SETLINK", message: RouteNetlinkMessage::SetLink(message), flags: 0 }
}

/// The message that sets which link-local groups the port with link number `index` treats as ordinary ones:
/// `IFLA_LINKINFO { IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA { IFLA_BRPORT_GROUP_FWD_MASK } }`. As in iproute2 it is an
/// RTM_NEWLINK that makes nothing, as RTM_SETLINK does not look at the data of a port.
pub fn set_group_forwarding(index: u32, groups: u16) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let data = InfoPortData::BridgePort(vec![InfoBridgePort::GroupFwdMask(groups)]);
    let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)];
    message.attributes.push(LinkAttribute::LinkInfo(info));
    Request { operation: "RTM_NEWLINK", message: RouteNetlinkMessage::NewLink(message), flags: 0 }
}

/// The message that sets how long (milliseconds) answers for proxied addresses are put off on link number `index`.
pub fn set_proxy_delay(family: Family, index: u32, milliseconds: u64) -> Request {
    let mut message = NeighbourTableMessage::default();
    message.header.family = address_family(family);
    let name = match family {
        Family::V4 => "arp_cache",
        Family::V6 => "ndisc_cache",
    };
    message.attributes = vec![
        NeighbourTableAttribute::Name(name.to_owned()),
        NeighbourTableAttribute::Parms(vec![
            NeighbourTableParameter::Ifindex(index),
            NeighbourTableParameter::ProxyDelay(milliseconds),
        ]),
    ];
    Request {
        operation: "RTM_SETNEIGHTBL",
        message: RouteNetlinkMessage::SetNeighbourTable(message),
        flags: NLM_F_REPLACE,
    }
}

/// The message that makes or removes a rule.
pub fn rule(rule: &plan::Rule, add: bool) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.header.action = RuleAction::ToTable;
    // Tables above 255 do not fit the header: it says 0 (RT_TABLE_UNSPEC) and the attribute holds for all.
    message.attributes = vec![
        RuleAttribute::Iifname(rule.iif.to_string()),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.preference),
        RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)),
    ];
    if add {
        let flags = creation(false);
        Request { operation: "RTM_NEWRULE", message: RouteNetlinkMessage::NewRule(message), flags }
    } else {
        Request { operation: "RTM_DELRULE", message: RouteNetlinkMessage::DelRule(message), flags: 0 }
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
    Request { operation: "RTM_DELRULE", message: RouteNetlinkMessage::DelRule(message), flags: 0 }
}

/// The message that makes or removes a route; `device` is the number of the hop's device.
pub fn route(route: &plan::Route, device: Option<u32>, add: bool) -> Request {
    let mut message = RouteMessage::default();
    let family = Family::of(route.destination.addr());
    message.header.address_family = address_family(family);
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = if route.hop == plan::Hop::Unreachable { RouteType::Unreachable } else { RouteType::Unicast };
    // As iproute2: a host on the device itself is in scope link, one behind a gateway is not; to delete, any scope.
    message.header.scope = match route.hop {
        _ if !add => RouteScope::NoWhere,
        plan::Hop::Device(_) if family == Family::V4 => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let address = |address: IpAddr| match address {
        IpAddr::V4(it) => netlink_packet_route::route::RouteAddress::Inet(it),
        IpAddr::V6(it) => netlink_packet_route::route::RouteAddress::Inet6(it),
    };
    message.attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(address(route.destination.network())));
    }
    message.attributes.extend(device.map(RouteAttribute::Oif));
    if let plan::Hop::Gateway { gateway, onlink, .. } = route.hop {
        message.attributes.push(RouteAttribute::Gateway(address(gateway)));
        if onlink {
            message.header.flags = RouteFlags::Onlink;
        }
    }
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    if add {
        let flags = creation(true);
        Request { operation: "RTM_NEWROUTE", message: RouteNetlinkMessage::NewRoute(message), flags }
    } else {
        Request { operation: "RTM_DELROUTE", message: RouteNetlinkMessage::DelRoute(message), flags: 0 }
    }
}

/// The message that makes or removes a proxy entry on link number `device`.
pub fn proxy(proxy: &plan::Proxy, device: u32, add: bool) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(Family::of(proxy.address));
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes.push(NeighbourAttribute::Destination(proxy.address.into()));
    if add {
        message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(proxy.protocol)));
        let flags = creation(true);
        Request { operation: "RTM_NEWNEIGH", message: RouteNetlinkMessage::NewNeighbour(message), flags }
    } else {
        Request { operation: "RTM_DELNEIGH", message: RouteNetlinkMessage::DelNeighbour(message), flags: 0 }
    }
}

/// Which link is asked for.
#[derive(Clone, Copy)]
pub enum By<'a> {
    /// By name.
    Name(&'a IfName),
    /// By number.
    Index(u32),
}

/// Asks for one link; none if there is no such.
///
/// # Errors
/// What the kernel refused, other than that.
pub fn link(netlink: &mut Netlink, by: By<'_>) -> Result<Option<LinkState>, Error> {
    let mut message = LinkMessage::default();
    match by {
        By::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_string())),
        By::Index(index) => message.header.index = index,
    }
    let skip = RTEXT_FILTER_SKIP_STATS.to_ne_bytes().to_vec();
    message.attributes.push(LinkAttribute::Other(DefaultNla::new(IFLA_EXT_MASK, skip)));
    let question = Request { operation: "RTM_GETLINK", message: RouteNetlinkMessage::GetLink(message), flags: 0 };
    let mut found = None;
    let asked = netlink.each_answer(question, |_, payload| {
        found = LinkMessage::parse(payload).ok().and_then(|it| link_state(&it));
        false
    });
    match asked {
        Err(error) if error.errno == Errno::ENODEV as i32 => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

fn link_state(message: &LinkMessage) -> Option<LinkState> {
    let mut name = None;
    let mut state = LinkState {
        name: "unnamed".parse().ok()?,
        index: message.header.index,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        controller: 0,
        kind: None,
        group_forwarding: None,
        devconf: [None; DEVCONF.len()],
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(it) => name = it.parse().ok(),
            LinkAttribute::Address(it) => state.mac = it.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Mtu(it) => state.mtu = *it,
            LinkAttribute::Controller(it) => state.controller = *it,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => state.kind = Some(kind.to_string()),
                        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                            state.group_forwarding = port.iter().find_map(|it| match it {
                                InfoBridgePort::GroupFwdMask(groups) => Some(*groups),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            LinkAttribute::AfSpecUnspec(specs) => read_devconf(specs, &mut state.devconf),
            _ => {}
        }
    }
    state.name = name?;
    Some(state)
}

fn read_devconf(specs: &[AfSpecUnspec], devconf: &mut [Option<u32>; DEVCONF.len()]) {
    let mut set = |family: Family, key: &str, value: i32| {
        if let Some(place) = DEVCONF.iter().position(|it| it.0 == family && it.1 == key) {
            devconf[place] = u32::try_from(value).ok();
        }
    };
    for spec in specs {
        match spec {
            AfSpecUnspec::Inet(attributes) => {
                for attribute in attributes {
                    if let AfSpecInet::DevConf(conf) = attribute {
                        set(Family::V4, "forwarding", conf.forwarding);
                        set(Family::V4, "proxy_arp", conf.proxy_arp);
                        set(Family::V4, "accept_redirects", conf.accept_redirects);
                        set(Family::V4, "rp_filter", conf.rp_filter);
                    }
                }
            }
            AfSpecUnspec::Inet6(attributes) => {
                for attribute in attributes {
                    match attribute {
                        AfSpecInet6::DevConf(conf) => {
                            set(Family::V6, "forwarding", conf.forwarding);
                            set(Family::V6, "accept_ra", conf.accept_ra);
                            set(Family::V6, "accept_redirects", conf.accept_redirects);
                            set(Family::V6, "accept_dad", conf.accept_dad);
                            set(Family::V6, "proxy_ndp", conf.proxy_ndp);
                            set(Family::V6, "disable_ipv6", conf.disable_ipv6);
                        }
                        AfSpecInet6::AddrGenMode(mode) => {
                            set(Family::V6, ADDR_GEN_MODE, i32::from(u8::from(mode)));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// The devices (numbers) of the default route of a table, the one of the lowest metric; none if it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Lower is preferred.
    metric: u32,
    /// One, or several of a multipath route.
    pub devices: Vec<u32>,
}

/// Asks which route packets that come in on link `iif` take to an address that no ordinary route covers. It is one question
/// whatever the number of routes, and its answer counts only if it is the default route of `table`.
///
/// # Errors
/// What the kernel refused.
pub fn default_route_from(netlink: &mut Netlink, iif: u32, table: u32) -> Result<Option<DefaultRoute>, Error> {
    // 3ffe::/16 went back to IANA in 2006 (RFC 3701) and is routed nowhere.
    let nowhere = Ipv6Addr::new(0x3ffe, 0xffff, 0, 0, 0, 0, 0, 1);
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 128;
    message.header.flags = RouteFlags::FibMatch;
    message.attributes = vec![
        RouteAttribute::Destination(netlink_packet_route::route::RouteAddress::Inet6(nowhere)),
        RouteAttribute::Iif(iif),
    ];
    let question = Request { operation: "RTM_GETROUTE", message: RouteNetlinkMessage::GetRoute(message), flags: 0 };
    let mut found = None;
    let asked = netlink.each_answer(question, |_, payload| {
        found = RouteMessage::parse(payload).ok().and_then(|it| default_route_of(&it, table));
        false
    });
    // ENETUNREACH and its kin only say that this way of asking did not help.
    Ok(asked.ok().and(found))
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
    let question =
        Request { operation: "RTM_GETROUTE", message: RouteNetlinkMessage::GetRoute(message), flags: NLM_F_DUMP };
    let mut best: Option<DefaultRoute> = None;
    let asked = Netlink::open()?.each_answer(question, |_, payload| {
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
        Ok(()) => Ok(best),
    }
}

/// Whether an IPv4 route is still one below 0.0.0.0, behind which a default may come.
fn is_zero(route: &RouteMessage) -> bool {
    !route.attributes.iter().any(|it| {
        matches!(it, RouteAttribute::Destination(netlink_packet_route::route::RouteAddress::Inet(to))
            if *to != Ipv4Addr::UNSPECIFIED)
    })
}

fn default_route_of(route: &RouteMessage, table: u32) -> Option<DefaultRoute> {
    if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut found = DefaultRoute::default();
    let mut in_table = u32::from(route.header.table);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(it) => in_table = *it,
            RouteAttribute::Priority(it) => found.metric = *it,
            RouteAttribute::Oif(it) => found.devices.push(*it),
            RouteAttribute::MultiPath(hops) => found.devices.extend(
                hops.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead)).map(|hop| hop.interface_index),
            ),
            _ => {}
        }
    }
    found.devices.sort_unstable();
    found.devices.dedup();
    (in_table == table && !found.devices.is_empty()).then_some(found)
}
