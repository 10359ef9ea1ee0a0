//! Links: what the kernel reports of them, and the message that changes one.

use netlink_packet_core::NLM_F_DUMP;
use nix::errno::Errno;
use nix::libc::{
    IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MTU, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK,
};

use super::uapi::{
    IFLA_BRPORT_GROUP_FWD_MASK, IFLA_BRPORT_MULTICAST_ROUTER, IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE, INET, INET6,
};
use super::{LinkMessage, LinkState};
use crate::addr::{Family, IfName, Mac};
use crate::kernel::attributes::attribute;
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, Request};
use crate::object::PortFlags;

/// The settings of a link that we look at and change: family, key, IPV4_DEVCONF_* of linux/ip.h or DEVCONF_* of linux/ipv6.h
/// (those of IPv6 cannot be written by number; addr_gen_mode has an attribute of its own).
pub const DEVCONF: [(Family, &str, u16); 14] = [
    (Family::V4, "forwarding", 1),
    (Family::V4, "proxy_arp", 3),
    (Family::V4, "accept_redirects", 4),
    (Family::V4, "rp_filter", 8),
    (Family::V4, "src_valid_mark", 24),
    (Family::V4, "drop_gratuitous_arp", 31),
    (Family::V4, "arp_ignore", 19),
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
    let mut message = LinkMessage::of(index);
    if let Some(up) = change.up {
        message = message.flags(if up { IFF_UP.cast_unsigned() } else { 0 }, IFF_UP.cast_unsigned());
    }
    if let Some(mac) = change.mac {
        message = message.with(IFLA_ADDRESS, &mac.0);
    }
    for (kind, value) in [(IFLA_MTU, change.mtu), (IFLA_MASTER, change.controller)] {
        if let Some(value) = value {
            message = message.number(kind, value);
        }
    }
    let (mut inet, mut inet6) = (Vec::new(), Vec::new());
    for &(family, key, value) in &change.settings {
        match family {
            Family::V4 => {
                let number = DEVCONF.iter().find(|it| it.0 == family && it.1 == key).map_or(0, |it| it.2);
                inet.extend(attribute(number, &value.to_ne_bytes()));
            }
            Family::V6 => inet6.extend(attribute(IFLA_INET6_ADDR_GEN_MODE, &value.to_ne_bytes()[..1])),
        }
    }
    let mut spec = Vec::new();
    if !inet6.is_empty() {
        spec.extend(attribute(INET6, &inet6));
    }
    if !inet.is_empty() {
        spec.extend(attribute(INET, &attribute(IFLA_INET_CONF, &inet)));
    }
    if !spec.is_empty() {
        message = message.with(IFLA_AF_SPEC, &spec);
    }
    message.request(RTM_SETLINK, 0)
}

/// The message that sets what the port with link number `index` may do:
/// `IFLA_LINKINFO { IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA { IFLA_BRPORT_* } }`. As in iproute2 it is an RTM_NEWLINK that makes
/// nothing, as RTM_SETLINK does not look at the data of a port.
pub fn set_port(index: u32, flags: &PortFlags) -> Request {
    let kind = attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0");
    let settings = [
        attribute(IFLA_BRPORT_GROUP_FWD_MASK, &flags.group_fwd_mask.to_ne_bytes()),
        attribute(IFLA_BRPORT_MULTICAST_ROUTER, &[flags.mcast_router]),
    ];
    let data = attribute(IFLA_INFO_SLAVE_DATA, &settings.concat());
    LinkMessage::of(index).with(IFLA_LINKINFO, &[kind, data].concat()).request(RTM_NEWLINK, 0)
}

/// Which link is asked for.
#[derive(Clone, Copy)]
pub enum By<'a> {
    /// By name.
    Name(&'a IfName),
    /// By number.
    Index(u32),
}

/// The question for the link of this name, by itself.
pub fn get_link(name: &IfName) -> Request {
    LinkMessage::named(name).without_statistics().request(RTM_GETLINK, 0)
}

/// Asks for one link; none if there is no such.
///
/// # Errors
/// What the kernel refused, other than that.
pub fn link(netlink: &mut Netlink, by: By<'_>) -> Result<Option<LinkState>, Error> {
    let message = match by {
        By::Name(name) => LinkMessage::named(name),
        By::Index(index) => LinkMessage::of(index),
    };
    let question = message.without_statistics().request(RTM_GETLINK, 0);
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
    let mut links = Vec::new();
    let question = LinkMessage::default().without_statistics().request(RTM_GETLINK, NLM_F_DUMP);
    netlink.each_answer(question, |_, payload| {
        links.extend(LinkState::decode(payload));
        true
    })?;
    Ok(links)
}
