//! What the kernel says of a device: its index, MAC and link-local address.

use std::io;
use std::net::Ipv6Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NlaBuffer, NlasIterator, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::libc;

use super::exchange::exchange;
use crate::addr::{IfName, Mac};

/// Length of `struct ifinfomsg` (linux/rtnetlink.h).
const LINK_HEADER: usize = 16;

/// Between two looks at an address that is still tentative.
const TENTATIVE_POLL: Duration = Duration::from_millis(20);

/// A network device, as it was when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index in the namespace it was found in.
    pub index: u32,
    /// Its Ethernet address, if its addresses have six octets.
    pub mac: Option<Mac>,
    /// Whether it is up, in the administrator's sense (IFF_UP).
    pub up: bool,
}

impl Device {
    /// Looks a device up by name, in the calling thread's network namespace (RTM_GETLINK).
    ///
    /// # Errors
    /// If there is none of this name, or the kernel does not say.
    pub fn find(name: &IfName) -> Result<Self> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_string()));
        let answers = exchange(libc::RTM_GETLINK, 0, &request).map_err(|error| {
            match error.downcast_ref().and_then(io::Error::raw_os_error) {
                Some(libc::ENODEV) => anyhow::anyhow!("no such device: {name}"),
                _ => error.context(format!("device {name}: RTM_GETLINK")),
            }
        })?;
        let answer = answers.first().with_context(|| format!("device {name}: RTM_GETLINK: no answer"))?;
        Self::parse(answer).with_context(|| format!("device {name}: RTM_GETLINK"))
    }

    /// Reads `struct ifinfomsg` and the one attribute that is wanted. (LinkMessage would parse them all, a link's
    /// two hundred kilobytes of code.)
    fn parse(answer: &[u8]) -> Result<Self> {
        let (header, attributes) =
            answer.split_first_chunk::<LINK_HEADER>().context("the answer is shorter than its header")?;
        let [_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
        let mut mac = None;
        for attribute in NlasIterator::new(attributes) {
            let attribute: NlaBuffer<&[u8]> = attribute?;
            if attribute.kind() == libc::IFLA_ADDRESS {
                mac = attribute.value().try_into().ok().map(Mac);
            }
        }
        let up = u32::from_ne_bytes([f0, f1, f2, f3]) & libc::IFF_UP.cast_unsigned() != 0;
        Ok(Self { index: u32::from_ne_bytes([i0, i1, i2, i3]), mac, up })
    }
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
pub fn link_local(index: u32) -> Result<LinkLocal> {
    let mut request = AddressMessage::default();
    request.header = AddressHeader { family: AddressFamily::Inet6, index, ..Default::default() };
    let mut found = LinkLocal::None;
    for answer in exchange(libc::RTM_GETADDR, NLM_F_DUMP, &request).context("RTM_GETADDR")? {
        let message = AddressMessage::parse(&answer).context("RTM_GETADDR")?;
        if message.header.index != index || message.header.scope != AddressScope::Link {
            continue;
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
        let Some(address) = address else { continue };
        if flags.contains(AddressFlags::Dadfailed) {
            continue;
        }
        if !flags.contains(AddressFlags::Tentative) || flags.contains(AddressFlags::Optimistic) {
            return Ok(LinkLocal::Usable(address));
        }
        found = LinkLocal::Tentative(address);
    }
    Ok(found)
}

/// The link-local address of a device, waiting for it while it is tentative.
///
/// # Errors
/// If there is none, or it is still tentative at the deadline.
pub fn usable_link_local(index: u32, deadline: Instant) -> Result<Ipv6Addr> {
    loop {
        match link_local(index)? {
            LinkLocal::Usable(address) => return Ok(address),
            LinkLocal::Tentative(address) if Instant::now() >= deadline => {
                bail!("its link-local address {address} is still tentative")
            }
            LinkLocal::Tentative(_) => sleep(TENTATIVE_POLL),
            LinkLocal::None => bail!("it has no usable link-local address"),
        }
    }
}
