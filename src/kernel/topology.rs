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
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use nix::libc;

use super::address::Device;
use super::exchange::exchange;
use super::namespace::Netns;
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
    exchange(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &near)
        .with_context(|| format!("ip link add {name} type veth peer name {peer}"))?;
    Ok(())
}

/// `ip link del`.
///
/// # Errors
/// ENODEV if there is none.
pub fn delete(name: &IfName) -> Result<()> {
    exchange(libc::RTM_DELLINK, 0, &named(name)).with_context(|| format!("ip link del {name}"))?;
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

fn named(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message
}

fn set(name: &IfName, attribute: LinkAttribute) -> Result<()> {
    let mut message = named(name);
    message.attributes.push(attribute);
    exchange(libc::RTM_SETLINK, 0, &message).map(drop)
}

fn set_flags(name: &IfName, flags: LinkFlags, mask: LinkFlags) -> Result<()> {
    let mut message = named(name);
    message.header.flags = flags;
    message.header.change_mask = mask;
    exchange(libc::RTM_SETLINK, 0, &message).map(drop)
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
        index: Device::find(name)?.index,
        ..Default::default()
    };
    // IPv4 has both: the peer's address and our own, here the same.
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    exchange(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message)
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
        message.attributes.push(RouteAttribute::Oif(Device::find(device)?.index));
        command += &format!(" dev {device}");
    }
    exchange(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &message).context(command)?;
    Ok(())
}

fn family(address: IpAddr) -> AddressFamily {
    match Family::of(address) {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
