//! The wires of the demo and the tests: veth pairs between namespaces, addresses and routes, by rtnetlink.
//!
//! Everything acts in the calling thread's network namespace; errors name the `ip` command that does the same.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use nix::libc::{
    IFF_UP, IFLA_ADDRESS, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_NET_NS_FD,
    RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_SETLINK,
};

use super::address::find;
use super::attributes::attribute;
use super::namespace::Netns;
use super::netlink::{Netlink, Request};
use super::rtnetlink::{self, LinkMessage};
use crate::addr::{Family, IfName, Mac};
use crate::object::{Kind, Neighbour, Verb};

/// VETH_INFO_PEER of linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
/// IFF_UP of linux/if.h.
const UP: u32 = IFF_UP.cast_unsigned();

/// `lo`.
pub(super) fn loopback() -> Result<IfName> {
    "lo".parse()
}

/// Creates a veth pair: `name` here, `peer` in the other namespace. Both are down.
///
/// # Errors
/// EEXIST if there is a device of that name already, and EPERM.
pub fn add_veth((name, mac): (&IfName, Mac), (peer, peer_mac): (&IfName, Mac), namespace: &Netns) -> Result<()> {
    let namespace = namespace.as_fd().as_raw_fd().to_ne_bytes();
    let far = LinkMessage::named(peer).with(IFLA_ADDRESS, &peer_mac.0).with(IFLA_NET_NS_FD, &namespace);
    let data = attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &far.bytes()));
    let info = [attribute(IFLA_INFO_KIND, b"veth"), data].concat();
    let near = LinkMessage::named(name).with(IFLA_ADDRESS, &mac.0).with(IFLA_LINKINFO, &info);
    change(near.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL))
        .with_context(|| format!("ip link add {name} type veth peer name {peer}"))?;
    Ok(())
}

/// `ip link add name NAME address MAC type bridge`. It is down.
///
/// # Errors
/// EEXIST if there is a device of that name already, EOPNOTSUPP where the kernel has no bridges.
pub fn add_bridge(name: &IfName, mac: Mac) -> Result<()> {
    let info = attribute(IFLA_INFO_KIND, b"bridge");
    let bridge = LinkMessage::named(name).with(IFLA_ADDRESS, &mac.0).with(IFLA_LINKINFO, &info);
    change(bridge.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL))
        .with_context(|| format!("ip link add name {name} address {mac} type bridge"))?;
    Ok(())
}

/// `ip link set master`.
///
/// # Errors
/// ENODEV if there is no such device, EOPNOTSUPP if `bridge` is none.
pub fn join_bridge(name: &IfName, bridge: &IfName) -> Result<()> {
    set(LinkMessage::named(name).number(IFLA_MASTER, find(bridge)?.index))
        .with_context(|| format!("ip link set {name} master {bridge}"))
}

/// `ip link del`.
///
/// # Errors
/// ENODEV if there is none.
pub fn delete(name: &IfName) -> Result<()> {
    change(LinkMessage::named(name).request(RTM_DELLINK, 0)).with_context(|| format!("ip link del {name}"))?;
    Ok(())
}

/// `ip link set up`.
///
/// # Errors
/// ENODEV if there is none.
pub fn set_up(name: &IfName) -> Result<()> {
    set(LinkMessage::named(name).flags(UP, UP)).with_context(|| format!("ip link set {name} up"))
}

/// `ip link set down`.
///
/// # Errors
/// ENODEV if there is none.
pub fn set_down(name: &IfName) -> Result<()> {
    set(LinkMessage::named(name).flags(0, UP)).with_context(|| format!("ip link set {name} down"))
}

/// `ip link set address`.
///
/// # Errors
/// EADDRNOTAVAIL for a MAC that is none.
pub fn set_mac(name: &IfName, mac: Mac) -> Result<()> {
    set(LinkMessage::named(name).with(IFLA_ADDRESS, &mac.0))
        .with_context(|| format!("ip link set {name} address {mac}"))
}

/// `ip link set mtu`.
///
/// # Errors
/// EINVAL for what the driver does not take.
pub fn set_mtu(name: &IfName, mtu: u32) -> Result<()> {
    set(LinkMessage::named(name).number(IFLA_MTU, mtu)).with_context(|| format!("ip link set {name} mtu {mtu}"))
}

fn change(request: Request) -> Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.queue(request);
    netlink.flush()?.into_iter().next().map_or(Ok(()), |(_, error)| Err(error.into()))
}

fn set(message: LinkMessage) -> Result<()> {
    change(message.request(RTM_SETLINK, 0))
}

/// `ip addr add`, for IPv6 without duplicate address detection: nobody else is on these wires.
///
/// # Errors
/// EEXIST if it is there already.
pub fn add_address(name: &IfName, address: IpNet) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: family(address.addr()),
        prefix_len: address.prefix_len(),
        flags: AddressHeaderFlags::Nodad,
        index: find(name)?.index,
        ..Default::default()
    };
    // IPv4 has both: the peer's address and our own, here the same.
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    change(Request::new(RTM_NEWADDR, &message, NLM_F_CREATE | NLM_F_EXCL))
        .with_context(|| format!("ip addr add {address} dev {name}"))?;
    Ok(())
}

/// `ip route add` to the main table, through a gateway or directly on a device's link.
///
/// # Errors
/// ENETUNREACH for a gateway that is not on a link of ours, ENETDOWN for a device that is down, EEXIST.
pub fn add_route(destination: IpNet, gateway: Option<IpAddr>, device: Option<&IfName>) -> Result<()> {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(destination.addr()),
        destination_prefix_length: destination.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: match (Family::of(destination.addr()), gateway) {
            (Family::V4, None) => RouteScope::Link,
            _ => RouteScope::Universe,
        },
        kind: RouteType::Unicast,
        ..Default::default()
    };
    message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    let mut command = format!("ip route add {destination}");
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        command += &format!(" via {gateway}");
    }
    if let Some(device) = device {
        message.attributes.push(RouteAttribute::Oif(find(device)?.index));
        command += &format!(" dev {device}");
    }
    change(Request::new(RTM_NEWROUTE, &message, NLM_F_CREATE | NLM_F_EXCL)).context(command)?;
    Ok(())
}

/// `ip neigh replace ... nud permanent`.
///
/// # Errors
/// ENODEV for a device that is not there.
pub fn add_neighbour(address: IpAddr, mac: Mac, device: &IfName) -> Result<()> {
    let neighbour = Neighbour { address, mac, device: device.clone(), protocol: RouteProtocol::Boot.into() };
    change(rtnetlink::neighbour(&neighbour, find(device)?.index, true)).with_context(|| neighbour.line(Verb::Add))?;
    Ok(())
}

fn family(address: IpAddr) -> AddressFamily {
    match Family::of(address) {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
