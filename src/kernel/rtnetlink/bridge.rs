//! Bridges: their ports, the VLANs of a port, and the VLAN devices (8021q) that could take frames away from them.
//!
//! ```text
//! RTM_NEWVLAN  struct br_vlan_msg { u8 family, u8, u16, u32 ifindex }
//!   BRIDGE_VLANDB_ENTRY           one per VLAN, or per range of VLANs with the same flags
//!     BRIDGE_VLANDB_ENTRY_INFO    struct bridge_vlan_info { u16 flags, u16 vid }
//!     BRIDGE_VLANDB_ENTRY_RANGE   u16, the last of the range
//! ```

use std::collections::HashMap;

use nix::libc::{
    AF_BRIDGE, IFLA_AF_SPEC, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO,
    IFLA_MASTER, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK,
};

use super::link_message::{IFINFOMSG, LinkMessage};
use super::uapi::{IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL};
use crate::addr::IfName;
use crate::kernel::attributes::{attribute, attributes, number, text};
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, RTM_GETVLAN, Request};
use crate::object::PortVlan;

/// ETH_P_8021Q of linux/if_ether.h.
const ETH_P_8021Q: u16 = 0x8100;
/// Length of struct br_vlan_msg of linux/if_bridge.h.
const BR_VLAN_MSG: usize = 8;
/// BRIDGE_VLANDB_* of linux/if_bridge.h.
const BRIDGE_VLANDB_ENTRY: u16 = 1;
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;
/// IFLA_BRIDGE_VLAN_INFO and BRIDGE_VLAN_INFO_* of linux/if_bridge.h.
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;

/// A port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePort {
    /// Its name.
    pub name: IfName,
    /// Its number.
    pub index: u32,
    /// IFLA_INFO_KIND, such as `tun`; a physical card has none.
    pub kind: Option<String>,
}

/// A VLAN device (8021q).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanDevice {
    /// Its name.
    pub name: String,
    /// The number of the device whose tagged frames it takes.
    pub lower: u32,
    /// The VLAN.
    pub vid: u16,
    /// The ether type of its tags.
    pub protocol: u16,
}

/// The ports of bridge number `bridge`. The kernel picks them out, the cost grows with their number.
///
/// # Errors
/// What the kernel refused.
pub fn ports(netlink: &mut Netlink, bridge: u32) -> Result<Vec<BridgePort>, Error> {
    let mut ports = Vec::new();
    netlink.dump(RTM_GETLINK, links_where(IFLA_MASTER, &bridge.to_ne_bytes()), |payload| {
        ports.extend(port_of(payload, bridge));
    })?;
    Ok(ports)
}

pub(super) fn port_of(payload: &[u8], bridge: u32) -> Option<BridgePort> {
    let find = |kind| attributes(payload.get(IFINFOMSG..)?).find(|it| it.0 == kind).map(|it| it.1);
    // The kernel has picked; an answer is looked at all the same.
    if number(find(IFLA_MASTER)?)? != bridge {
        return None;
    }
    let kind = find(IFLA_LINKINFO).and_then(|info| attributes(info).find(|it| it.0 == IFLA_INFO_KIND));
    let name = text(find(IFLA_IFNAME)?).parse().ok()?;
    Some(BridgePort { name, index: number(payload.get(4..8)?)?, kind: kind.map(|it| text(it.1)) })
}

/// All VLAN devices of this namespace whose lower device is in it too.
///
/// # Errors
/// What the kernel refused.
pub fn vlan_devices(netlink: &mut Netlink) -> Result<Vec<VlanDevice>, Error> {
    let mut devices = Vec::new();
    let kind = attribute(IFLA_INFO_KIND, b"vlan\0");
    netlink.dump(RTM_GETLINK, links_where(IFLA_LINKINFO, &kind), |payload| {
        devices.extend(vlan_device_of(payload));
    })?;
    Ok(devices)
}

pub(super) fn vlan_device_of(payload: &[u8]) -> Option<VlanDevice> {
    let find = |kind| attributes(payload.get(IFINFOMSG..)?).find(|it| it.0 == kind).map(|it| it.1);
    let info = find(IFLA_LINKINFO)?;
    let inside = |kind| attributes(info).find(|it| it.0 == kind).map(|it| it.1);
    // A kernel without the module 8021q answers with links of all kinds.
    if text(inside(IFLA_INFO_KIND)?) != "vlan" || find(IFLA_LINK_NETNSID).is_some() {
        return None;
    }
    let data = inside(IFLA_INFO_DATA)?;
    let of_vlan = |kind| attributes(data).find(|it| it.0 == kind)?.1.first_chunk().copied();
    Some(VlanDevice {
        name: text(find(IFLA_IFNAME)?),
        lower: number(find(IFLA_LINK)?)?,
        vid: u16::from_ne_bytes(of_vlan(IFLA_VLAN_ID)?),
        protocol: of_vlan(IFLA_VLAN_PROTOCOL).map_or(ETH_P_8021Q, u16::from_be_bytes),
    })
}

/// The VLANs of port number `index`, in ascending order; none of what is no port.
///
/// # Errors
/// What the kernel refused.
pub fn vlans(netlink: &mut Netlink, index: u32) -> Result<Vec<PortVlan>, Error> {
    let mut vlans = Vec::new();
    each_vlan(netlink, index, |_, vlan| vlans.push(vlan))?;
    Ok(vlans)
}

/// The VLANs of all ports, and of the bridges themselves, by the link's number.
///
/// # Errors
/// What the kernel refused.
pub fn all_vlans(netlink: &mut Netlink) -> Result<HashMap<u32, Vec<PortVlan>>, Error> {
    let mut vlans: HashMap<u32, Vec<PortVlan>> = HashMap::new();
    each_vlan(netlink, 0, |index, vlan| vlans.entry(index).or_default().push(vlan))?;
    Ok(vlans)
}

/// Of link number `index`, or of all if that is 0.
fn each_vlan(netlink: &mut Netlink, index: u32, mut take: impl FnMut(u32, PortVlan)) -> Result<(), Error> {
    let mut message = [0; BR_VLAN_MSG];
    message[0] = AF_BRIDGE as u8;
    message[4..].copy_from_slice(&index.to_ne_bytes());
    netlink.dump(RTM_GETVLAN, message.to_vec(), |payload| {
        let Some(index) = payload.get(4..).and_then(number) else { return };
        for (kind, entry) in payload.get(BR_VLAN_MSG..).into_iter().flat_map(attributes) {
            if kind == BRIDGE_VLANDB_ENTRY {
                entry_of(entry).into_iter().flatten().for_each(|vlan| take(index, vlan));
            }
        }
    })
}

pub(super) fn entry_of(entry: &[u8]) -> Option<impl Iterator<Item = PortVlan>> {
    let find = |kind| attributes(entry).find(|it| it.0 == kind).map(|it| it.1);
    let (flags, vid) = find(BRIDGE_VLANDB_ENTRY_INFO)?.split_first_chunk()?;
    let (flags, vid) = (u16::from_ne_bytes(*flags), u16::from_ne_bytes(*vid.first_chunk()?));
    let last = find(BRIDGE_VLANDB_ENTRY_RANGE).and_then(|it| it.first_chunk().copied()).map_or(vid, u16::from_ne_bytes);
    let (pvid, untagged) = (flags & BRIDGE_VLAN_INFO_PVID != 0, flags & BRIDGE_VLAN_INFO_UNTAGGED != 0);
    Some((vid..=last).map(move |vid| PortVlan { vid, pvid, untagged }))
}

/// The message that adds VLANs to a port, or removes them.
pub fn change_vlans(index: u32, vlans: &[PortVlan], add: bool) -> Request {
    let mut spec = Vec::new();
    for vlan in vlans {
        let flag = |set: bool, flag: u16| if add && set { flag } else { 0 };
        let flags = flag(vlan.pvid, BRIDGE_VLAN_INFO_PVID) | flag(vlan.untagged, BRIDGE_VLAN_INFO_UNTAGGED);
        spec.extend(attribute(IFLA_BRIDGE_VLAN_INFO, &[flags.to_ne_bytes(), vlan.vid.to_ne_bytes()].concat()));
    }
    LinkMessage::of_port(index).with(IFLA_AF_SPEC, &spec).request(if add { RTM_SETLINK } else { RTM_DELLINK }, 0)
}

/// The payload of a RTM_GETLINK dump of the links that have this attribute.
fn links_where(kind: u16, value: &[u8]) -> Vec<u8> {
    LinkMessage::default().with(kind, value).without_statistics().bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kernel 6.1 answers for a port after `bridge vlan add dev eth1 vid 20-22`: 1 is PVID and untagged.
    fn answer() -> Vec<u8> {
        let entry = |flags: u16, vid: u16, last: Option<u16>| {
            let info = [flags.to_ne_bytes(), vid.to_ne_bytes()].concat();
            let mut nested = attribute(BRIDGE_VLANDB_ENTRY_INFO, &info);
            nested.extend(last.map(|it| attribute(BRIDGE_VLANDB_ENTRY_RANGE, &it.to_ne_bytes())).unwrap_or_default());
            attribute(BRIDGE_VLANDB_ENTRY | 0x8000, &nested)
        };
        [entry(6, 1, None), entry(0, 20, Some(22))].concat()
    }

    fn read(bytes: &[u8]) -> Vec<PortVlan> {
        attributes(bytes).filter_map(|(_, entry)| entry_of(entry)).flatten().collect()
    }

    #[test]
    fn ranges_are_spread() {
        let tagged = |vid| PortVlan { vid, pvid: false, untagged: false };
        let first = PortVlan { vid: 1, pvid: true, untagged: true };
        assert_eq!(read(&answer()), [first, tagged(20), tagged(21), tagged(22)]);
    }

    #[test]
    fn answers_that_are_cut_short_or_garbled_are_survived() {
        let bytes = answer();
        for length in 0..bytes.len() {
            read(&bytes[..length]);
            port_of(&bytes[..length], 1);
            vlan_device_of(&bytes[..length]);
        }
        for place in 0..bytes.len() {
            for value in [0, 1, 4, 127, 255] {
                let mut bytes = bytes.clone();
                bytes[place] = value;
                read(&bytes);
                port_of(&[&[0; IFINFOMSG], &bytes[..]].concat(), 1);
                vlan_device_of(&[&[0; IFINFOMSG], &bytes[..]].concat());
            }
        }
    }
}
