//! Links: what the kernel reports of them, and the message that changes one.

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_REPLACE, Parseable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoPortKind,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter};
use nix::errno::Errno;

use super::address_family;
use crate::addr::{Family, IfName, Mac};
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, Request};

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
    /// IFLA_GROUP.
    pub group: u32,
    /// IFLA_INFO_KIND, such as `bridge`.
    pub kind: Option<String>,
    /// Of a bridge.
    pub bridge: Option<BridgeState>,
    /// Whether it is a port of Open vSwitch's datapath in the kernel (IFLA_INFO_SLAVE_KIND).
    pub in_openvswitch: bool,
    /// IFLA_BRPORT_GROUP_FWD_MASK, of the port of a bridge.
    pub group_forwarding: Option<u16>,
    /// Values of [`DEVCONF`], in its order; none where the family is off on this link.
    pub devconf: [Option<u32>; DEVCONF.len()],
}

/// What VLANs are to a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeState {
    /// IFLA_BR_VLAN_FILTERING; none where the kernel is built without it (CONFIG_BRIDGE_VLAN_FILTERING).
    pub vlan_filtering: Option<bool>,
    /// IFLA_BR_VLAN_DEFAULT_PVID: the VLAN of the untagged frames of every new port; 0 is none.
    pub default_pvid: u16,
    /// IFLA_BR_VLAN_PROTOCOL: the ether type of its tags.
    pub vlan_protocol: u16,
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

pub(super) fn link_state(message: &LinkMessage) -> Option<LinkState> {
    let mut name = None;
    let mut state = LinkState {
        name: "unnamed".parse().ok()?,
        index: message.header.index,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        controller: 0,
        group: 0,
        kind: None,
        bridge: None,
        in_openvswitch: false,
        group_forwarding: None,
        devconf: [None; DEVCONF.len()],
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(it) => name = it.parse().ok(),
            LinkAttribute::Address(it) => state.mac = it.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Mtu(it) => state.mtu = *it,
            LinkAttribute::Controller(it) => state.controller = *it,
            LinkAttribute::Group(it) => state.group = *it,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => state.kind = Some(kind.to_string()),
                        LinkInfo::PortKind(InfoPortKind::Other(kind)) => state.in_openvswitch = kind == "openvswitch",
                        LinkInfo::Data(InfoData::Bridge(data)) => state.bridge = Some(bridge_state(data)),
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

fn bridge_state(data: &[InfoBridge]) -> BridgeState {
    let mut state = BridgeState { vlan_filtering: None, default_pvid: 0, vlan_protocol: 0 };
    for attribute in data {
        match attribute {
            InfoBridge::VlanFiltering(it) => state.vlan_filtering = Some(*it),
            InfoBridge::VlanDefaultPvid(it) => state.default_pvid = *it,
            InfoBridge::VlanProtocol(it) => state.vlan_protocol = u16::from(*it),
            _ => {}
        }
    }
    state
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
