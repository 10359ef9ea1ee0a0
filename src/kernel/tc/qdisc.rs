//! The qdisc clsact (tc-bpf(8), "clsact"), by which a device joins a block of filters, and who is in its place.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use nix::libc::{RTM_DELQDISC, RTM_GETQDISC, RTM_NEWQDISC};

use super::{Header, TCA_INGRESS_BLOCK, TCA_KIND, TCMSG};
use crate::kernel::attributes::{attribute, attributes, number, text};
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, Request};

/// TC_H_CLSACT, which TC_H_INGRESS equals, of linux/pkt_sched.h: a device has one qdisc there, clsact or ingress.
const TC_H_CLSACT: u32 = 0xffff_fff1;
/// Its handle, `ffff:`.
const HANDLE: u32 = 0xffff_0000;

/// The qdisc in the place of clsact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundQdisc {
    /// The number of its device.
    pub device: u32,
    /// `clsact` or `ingress`.
    pub kind: String,
    /// The block whose filters what comes in on the device passes; none: they are the device's own.
    pub ingress_block: Option<u32>,
}

fn clsact(device: u32) -> Header {
    Header { ifindex: device, handle: HANDLE, parent: TC_H_CLSACT, info: 0 }
}

/// The message that gives device number `device` a clsact whose ingress filters are those of `block`, which is made with its first
/// device. Refused (EEXIST) where the device has such a qdisc.
pub fn add_clsact(device: u32, block: u32) -> Request {
    let attributes = [attribute(TCA_KIND, b"clsact\0"), attribute(TCA_INGRESS_BLOCK, &block.to_ne_bytes())].concat();
    let payload = [clsact(device).bytes(), attributes].concat();
    Request::of_bytes(RTM_NEWQDISC, payload, NLM_F_CREATE | NLM_F_EXCL)
}

/// The message that removes it. A block is gone with its last device.
pub fn delete_clsact(device: u32) -> Request {
    let payload = [clsact(device).bytes(), attribute(TCA_KIND, b"clsact\0")].concat();
    Request::of_bytes(RTM_DELQDISC, payload, 0)
}

/// Asks for the qdisc in the place of clsact. Refused as [`super::is_absent`] says where there is none. The kernel tells it to its
/// listeners, and to who asked only as their echo (qdisc_get_notify of net/sched/sch_api.c).
pub fn get_ingress(device: u32) -> Request {
    Request::of_bytes(RTM_GETQDISC, clsact(device).bytes(), NLM_F_ECHO)
}

/// The qdiscs in that place, of all devices.
///
/// # Errors
/// What the kernel refused.
pub fn ingress_qdiscs(netlink: &mut Netlink) -> Result<Vec<FoundQdisc>, Error> {
    let mut all = Vec::new();
    netlink.dump(RTM_GETQDISC, Header::default().bytes(), |payload| all.extend(FoundQdisc::decode(payload)))?;
    Ok(all)
}

impl FoundQdisc {
    /// Reads the payload of an RTM_NEWQDISC; none of a qdisc in another place.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let header = Header::decode(payload)?;
        if header.parent != TC_H_CLSACT {
            return None;
        }
        let mut found = Self { device: header.ifindex, kind: String::new(), ingress_block: None };
        for (kind, value) in attributes(&payload[TCMSG..]) {
            match kind {
                TCA_KIND => found.kind = text(value),
                TCA_INGRESS_BLOCK => found.ingress_block = number(value),
                _ => {}
            }
        }
        Some(found)
    }
}

/// As tc names it.
impl fmt::Display for FoundQdisc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        self.ingress_block.map_or(Ok(()), |block| write!(f, " with ingress block {block}"))
    }
}
