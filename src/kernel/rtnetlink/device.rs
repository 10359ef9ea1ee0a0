//! Devices that are made by a message, and the message that removes one.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use nix::libc::{IFLA_GROUP, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINKINFO, RTM_DELLINK, RTM_NEWLINK};

use super::LinkMessage;
use super::uapi::{IFLA_BR_FORWARD_DELAY, IFLA_VLAN_ID};
use crate::addr::IfName;
use crate::kernel::attributes::attribute;
use crate::kernel::netlink::Request;
use crate::object::{Bridge, GROUP_NODE, VlanDevice};

/// The message that makes a bridge. Its forward delay is zero: a port forwards at once, also should STP be switched on.
pub fn new_bridge(bridge: &Bridge) -> Request {
    made(&bridge.name, "bridge", &attribute(IFLA_BR_FORWARD_DELAY, &0_u32.to_ne_bytes()), None)
}

/// The message that makes an ifb.
pub fn new_ifb(name: &IfName) -> Request {
    made(name, "ifb", &[], None)
}

/// The message that makes a VLAN device on link number `lower`.
pub fn new_vlan_device(device: &VlanDevice, lower: u32) -> Request {
    made(&device.name, "vlan", &attribute(IFLA_VLAN_ID, &device.vid.to_ne_bytes()), Some(lower))
}

/// IFLA_GROUP is of the same message, so that nothing of ours ever stands without its mark.
fn made(name: &IfName, kind: &str, data: &[u8], lower: Option<u32>) -> Request {
    let mut message = LinkMessage::named(name).number(IFLA_GROUP, GROUP_NODE);
    if let Some(lower) = lower {
        message = message.number(IFLA_LINK, lower);
    }
    let mut info = attribute(IFLA_INFO_KIND, kind.as_bytes());
    if !data.is_empty() {
        info.extend(attribute(IFLA_INFO_DATA, data));
    }
    message.with(IFLA_LINKINFO, &info).request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
}

/// The message that removes link number `index`.
pub fn delete_link(index: u32) -> Request {
    LinkMessage::of(index).request(RTM_DELLINK, 0)
}
