//! What the kernel says of a device: its index, MAC and link-local address.

use std::net::Ipv6Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressScope};
use nix::libc::RTM_GETADDR;

use super::netlink::{Netlink, Request};
use super::rtnetlink::{self, By, LinkState};
use crate::addr::IfName;

/// Between two looks at an address that is still tentative.
const TENTATIVE_POLL: Duration = Duration::from_millis(20);

/// Looks a device up by name, in the calling thread's network namespace.
///
/// # Errors
/// If there is none of this name, or the kernel does not say.
pub fn find(name: &IfName) -> Result<LinkState> {
    let link = Netlink::open().and_then(|mut netlink| rtnetlink::link(&mut netlink, By::Name(name)));
    link.with_context(|| format!("device {name}"))?.with_context(|| format!("no such device: {name}"))
}

/// A device's link-local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLocal {
    /// Can be sent from.
    Usable(Ipv6Addr),
    /// Duplicate address detection is still under way.
    Tentative(Ipv6Addr),
    /// There is none, or only one that somebody else has too.
    None,
}

/// The link-local address of the device with this index (RTM_GETADDR, filtered by the kernel).
///
/// # Errors
/// If the kernel refuses the question, as it does when there is no such device.
pub fn link_local(netlink: &mut Netlink, index: u32) -> Result<LinkLocal> {
    let mut message = AddressMessage::default();
    message.header = AddressHeader { family: AddressFamily::Inet6, index, ..Default::default() };
    let mut found = LinkLocal::None;
    netlink.each_answer(Request::new(RTM_GETADDR, &message, NLM_F_DUMP), |_, payload| {
        match AddressMessage::parse(payload).ok().and_then(|it| state_of(index, it)) {
            Some(usable @ LinkLocal::Usable(_)) => found = usable,
            Some(other) if found == LinkLocal::None => found = other,
            _ => {}
        }
        true
    })?;
    Ok(found)
}

/// What an address is to its device: none unless it is a link-local one that nobody else has.
pub(super) fn state_of(index: u32, message: AddressMessage) -> Option<LinkLocal> {
    if message.header.index != index || message.header.scope != AddressScope::Link {
        return None;
    }
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let mut address = None;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Address(std::net::IpAddr::V6(v6)) => address = Some(v6),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let address = address.filter(|_| !flags.contains(AddressFlags::Dadfailed))?;
    let tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    Some(if tentative { LinkLocal::Tentative(address) } else { LinkLocal::Usable(address) })
}

/// The link-local address of a device, waiting for it while it is tentative.
///
/// # Errors
/// If there is none, or it is still tentative at the deadline.
pub fn usable_link_local(index: u32, deadline: Instant) -> Result<Ipv6Addr> {
    let mut netlink = Netlink::open()?;
    loop {
        match link_local(&mut netlink, index)? {
            LinkLocal::Usable(address) => return Ok(address),
            LinkLocal::Tentative(address) if Instant::now() >= deadline => {
                bail!("its link-local address {address} is still tentative")
            }
            LinkLocal::Tentative(_) => sleep(TENTATIVE_POLL),
            LinkLocal::None => bail!("it has no usable link-local address"),
        }
    }
}
