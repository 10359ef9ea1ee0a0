//! The wires of the demo and the tests: veth pairs between namespaces, addresses and routes, by rtnetlink.
//!
//! Everything acts in the calling thread's network namespace; errors name the `ip` command that does the same.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use nix::libc::{RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_SETLINK};

use super::address::find;
use super::namespace::Netns;
use super::netlink::{Netlink, Request};
use crate::addr::{Family, IfName, Mac};

/// `lo`.
pub(super) fn loopback() -> Result<IfName> {
    "lo".parse()
}

/// Creates a veth pair: `name` here, `peer` in the other namespace. Both are down.
///
/// # Errors
/// EEXIST if there is a device of that name already, and EPERM.
pub fn add_veth((name, mac): (&IfName, Mac), (peer, peer_mac): (&IfName, Mac), namespace: &Netns) -> Result<()> {
    let mut far = named(peer);
    far.attributes.push(LinkAttribute::Address(peer_mac.0.to_vec()));
    far.attributes.push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
    let mut near = named(name);
    near.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    near.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
    ]));
    change(RTM_NEWLINK, &near, NLM_F_CREATE | NLM_F_EXCL)
        .with_context(|| format!("ip link add {name} type veth peer name {peer}"))?;
    Ok(())
}

/// `ip link add name NAME address MAC type bridge`. It is down.
///
/// # Errors
/// EEXIST if there is a device of that name already, EOPNOTSUPP where the kernel has no bridges.
pub fn add_bridge(name: &IfName, mac: Mac) -> Result<()> {
    let mut bridge = named(name);
    bridge.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    bridge.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    change(RTM_NEWLINK, &bridge, NLM_F_CREATE | NLM_F_EXCL)
        .with_context(|| format!("ip link add name {name} address {mac} type bridge"))?;
    Ok(())
}

/// `ip link set master`.
///
/// # Errors
/// ENODEV if there is no such device, EOPNOTSUPP if `bridge` is none.
pub fn join_bridge(name: &IfName, bridge: &IfName) -> Result<()> {
    set(name, LinkAttribute::Controller(find(bridge)?.index))
        .with_context(|| format!("ip link set {name} master {bridge}"))
}

/// `ip link del`.
///
/// # Errors
/// ENODEV if there is none.
pub fn delete(name: &IfName) -> Result<()> {
    change(RTM_DELLINK, &named(name), 0).with_context(|| format!("ip link del {name}"))?;
    Ok(())
}

/// `ip link set up`.
///
/// # Errors
/// ENODEV if there is none.
pub fn set_up(name: &IfName) -> Result<()> {
    set_flags(name, LinkFlags::Up, LinkFlags::Up).with_context(|| format!("ip link set {name} up"))
}

/// `ip link set down`.
///
/// # Errors
/// ENODEV if there is none.
pub fn set_down(name: &IfName) -> Result<()> {
    set_flags(name, LinkFlags::empty(), LinkFlags::Up).with_context(|| format!("ip link set {name} down"))
}

/// `ip link set address`.
///
/// # Errors
/// EADDRNOTAVAIL for a MAC that is none.
pub fn set_mac(name: &IfName, mac: Mac) -> Result<()> {
    set(name, LinkAttribute::Address(mac.0.to_vec())).with_context(|| format!("ip link set {name} address {mac}"))
}

/// `ip link set mtu`.
///
/// # Errors
/// EINVAL for what the driver does not take.
pub fn set_mtu(name: &IfName, mtu: u32) -> Result<()> {
    set(name, LinkAttribute::Mtu(mtu)).with_context(|| format!("ip link set {name} mtu {mtu}"))
}

fn change(kind: u16, message: &impl Emitable, flags: u16) -> Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.queue(Request::new(kind, message, flags));
    netlink.flush()?.into_iter().next().map_or(Ok(()), |(_, error)| Err(error.into()))
}

fn named(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message
}

fn set(name: &IfName, attribute: LinkAttribute) -> Result<()> {
    let mut message = named(name);
    message.attributes.push(attribute);
    change(RTM_SETLINK, &message, 0)
}

fn set_flags(name: &IfName, flags: LinkFlags, mask: LinkFlags) -> Result<()> {
    let mut message = named(name);
    message.header.flags = flags;
    message.header.change_mask = mask;
    change(RTM_SETLINK, &message, 0)
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
    change(RTM_NEWADDR, &message, NLM_F_CREATE | NLM_F_EXCL)
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
    change(RTM_NEWROUTE, &message, NLM_F_CREATE | NLM_F_EXCL).context(command)?;
    Ok(())
}

fn family(address: IpAddr) -> AddressFamily {
    match Family::of(address) {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
