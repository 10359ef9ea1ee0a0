//! Links: what the kernel reports of them, and the message that changes one.

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_DUMP};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use nix::libc::{RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK};

use super::LinkState;
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

/// The settings of a link that we look at and change: family, key, IPV4_DEVCONF_* of linux/ip.h or DEVCONF_* of linux/ipv6.h
/// (those of IPv6 cannot be written by number; addr_gen_mode has an attribute of its own).
pub const DEVCONF: [(Family, &str, u16); 12] = [
    (Family::V4, "forwarding", 1),
    (Family::V4, "proxy_arp", 3),
    (Family::V4, "accept_redirects", 4),
    (Family::V4, "rp_filter", 8),
    (Family::V4, "src_valid_mark", 24),
    (Family::V6, "forwarding", 0),
    (Family::V6, "accept_ra", 3),
    (Family::V6, "accept_redirects", 4),
    (Family::V6, "accept_dad", 27),
    (Family::V6, "proxy_ndp", 22),
    (Family::V6, "disable_ipv6", 26),
    (Family::V6, ADDR_GEN_MODE, 47),
];

/// How link-local addresses are made: 0 is modified EUI-64 (IN6_ADDR_GEN_MODE_EUI64 of linux/if_link.h).
pub const ADDR_GEN_MODE: &str = "addr_gen_mode";

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
    Request::new(RTM_SETLINK, &message, 0)
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
    Request::new(RTM_NEWLINK, &message, 0)
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
    message.attributes.push(without_statistics());
    let question = Request::new(RTM_GETLINK, &message, 0);
    let mut found = None;
    let asked = netlink.each_answer(question, |_, payload| {
        found = LinkState::decode(payload);
        false
    });
    match asked {
        Err(error) if error.errno == Errno::ENODEV as i32 => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

/// All links, those with an unusual name left out.
///
/// # Errors
/// What the kernel refused.
pub fn links(netlink: &mut Netlink) -> Result<Vec<LinkState>, Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(without_statistics());
    let mut links = Vec::new();
    netlink.each_answer(Request::new(RTM_GETLINK, &message, NLM_F_DUMP), |_, payload| {
        links.extend(LinkState::decode(payload));
        true
    })?;
    Ok(links)
}

fn without_statistics() -> LinkAttribute {
    LinkAttribute::Other(DefaultNla::new(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.to_ne_bytes().to_vec()))
}
