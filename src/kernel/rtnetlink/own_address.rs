//! Questions whether an address is the node's own.

use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType};
use nix::libc::RTM_GETROUTE;

use super::address_family;
use crate::addr::Family;
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, Request};

/// Those of the addresses for which the node takes packets itself, each with the number of the device that has it: its own,
/// IPv4 broadcast and IPv6 anycast addresses (table local). One round trip.
///
/// # Errors
/// If the socket itself fails.
pub fn own_addresses(netlink: &mut Netlink, addresses: &[IpAddr]) -> Result<Vec<(IpAddr, u32)>, Error> {
    let question = |address: &IpAddr| {
        let family = Family::of(*address);
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.header.destination_prefix_length = family.bits();
        // Else the answer for an address of the node's own has the device lo.
        message.header.flags = RouteFlags::FibMatch;
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(*address))];
        Request::new(RTM_GETROUTE, &message, 0)
    };
    let questions: Vec<_> = addresses.iter().map(question).collect();
    let mut own = Vec::new();
    for (address, answer) in addresses.iter().zip(netlink.ask_together(&questions)?) {
        // A refusal says that it leads nowhere.
        let Some(route) = answer.ok().and_then(|it| RouteMessage::parse(&it).ok()) else { continue };
        if !matches!(route.header.kind, RouteType::Local | RouteType::Broadcast | RouteType::Anycast) {
            continue;
        }
        let device = route.attributes.iter().find_map(|it| match it {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        own.push((*address, device.unwrap_or_default()));
    }
    Ok(own)
}
