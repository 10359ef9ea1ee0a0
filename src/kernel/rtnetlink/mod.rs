//! rtnetlink: messages, and questions with their answers, by what they are about.

mod bridge;
mod default_route;
mod device;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod link;
mod link_message;
mod link_state;
pub mod monitor;
mod nexthop;
mod own_address;
mod proxy_delay;
mod route;
mod uapi;

use netlink_packet_route::AddressFamily;

pub use self::bridge::{BridgePort, VlanDevice, all_vlans, change_vlans, ports, vlan_devices, vlans};
pub use self::default_route::{DefaultRoute, Packets, default_route_by_dump, default_route_of_packets};
pub use self::device::{delete_link, new_bridge, new_ifb, new_vlan_device};
pub use self::link::{ADDR_GEN_MODE, By, DEVCONF, LinkChange, get_link, link, links, set_link, set_port};
pub use self::link_message::LinkMessage;
pub use self::link_state::{BridgeState, LinkState};
pub use self::own_address::own_addresses;
pub use self::proxy_delay::proxy_delays;
pub use self::route::{any_rule, neighbour, proxy, route, rule};
use crate::addr::Family;

pub(in crate::kernel) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
