//! Devices that are made by a message, and the message that removes one.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoBridge, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage};
use nix::libc::{RTM_DELLINK, RTM_NEWLINK};

use crate::kernel::netlink::Request;
use crate::plan::{Bridge, GROUP_NODE, VlanDevice};

/// The message that makes a bridge. Its forward delay is zero: a port forwards at once, also should STP be switched on.
pub fn new_bridge(bridge: &Bridge) -> Request {
    let data = InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)]);
    made(bridge.name.as_str(), InfoKind::Bridge, data, None)
}

/// The message that makes a VLAN device on link number `lower`.
pub fn new_vlan_device(device: &VlanDevice, lower: u32) -> Request {
    let data = InfoData::Vlan(vec![InfoVlan::Id(device.vid)]);
    made(device.name.as_str(), InfoKind::Vlan, data, Some(LinkAttribute::Link(lower)))
}

/// IFLA_GROUP is of the same message, so that nothing of ours ever stands without its mark.
fn made(name: &str, kind: InfoKind, data: InfoData, more: Option<LinkAttribute>) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Group(GROUP_NODE)];
    message.attributes.extend(more);
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    Request::new(RTM_NEWLINK, &message, flags)
}

/// The message that removes link number `index`.
pub fn delete_link(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request::new(RTM_DELLINK, &message, 0)
}
