//! Nexthop objects (`ip nexthop`, Linux 5.3). A route may name one in place of its own hops; with net.ipv4.nexthop_compat_mode 0 the
//! kernel does not tell the hops with the route.
//!
//! ```text
//! RTM_NEWNEXTHOP  struct nhmsg { u8 family, u8 scope, u8 protocol, u8, u32 flags }
//!   NHA_ID     u32
//!   NHA_GROUP  struct nexthop_grp { u32 id, u8 weight, u8, u16 }, one for each member
//!   NHA_OIF    u32
//! ```

use nix::errno::Errno;

use crate::kernel::attributes::{attribute, attributes, number};
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, RTM_GETNEXTHOP, Request};

/// NHA_* of linux/nexthop.h.
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
/// Lengths of struct nhmsg and struct nexthop_grp.
const NHMSG: usize = 8;
const NEXTHOP_GRP: usize = 8;
/// RTNH_F_DEAD of linux/rtnetlink.h.
const RTNH_F_DEAD: u32 = 1;

/// A nexthop: a hop, or a group of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nexthop {
    /// The link (number), unless it is dead; none of a group or a blackhole.
    device: Option<u32>,
    /// The members of a group, by id. A group has no groups as members.
    members: Vec<u32>,
}

impl Nexthop {
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let flags = number(payload.get(4..)?)?;
        let mut nexthop = Self::default();
        for (kind, value) in attributes(payload.get(NHMSG..)?) {
            match kind {
                NHA_OIF => nexthop.device = number(value).filter(|_| flags & RTNH_F_DEAD == 0),
                NHA_GROUP => nexthop.members = value.chunks_exact(NEXTHOP_GRP).filter_map(number).collect(),
                _ => {}
            }
        }
        Some(nexthop)
    }
}

/// The links (numbers) to which a nexthop leads; none where there is no such nexthop any more.
///
/// # Errors
/// What the kernel refused, other than that.
pub(super) fn devices_of_nexthop(netlink: &mut Netlink, id: u32) -> Result<Vec<u32>, Error> {
    let nexthop = ask(netlink, id)?;
    let mut devices: Vec<_> = nexthop.device.into_iter().collect();
    for member in nexthop.members {
        devices.extend(ask(netlink, member)?.device);
    }
    Ok(devices)
}

fn ask(netlink: &mut Netlink, id: u32) -> Result<Nexthop, Error> {
    let payload = [vec![0; NHMSG], attribute(NHA_ID, &id.to_ne_bytes())].concat();
    let mut nexthop = Nexthop::default();
    let asked = netlink.each_answer(Request::of_bytes(RTM_GETNEXTHOP, payload, 0), |_, payload| {
        nexthop = Nexthop::decode(payload).unwrap_or_default();
        false
    });
    match asked {
        Err(error) if error.errno == Errno::ENOENT as i32 => Ok(Nexthop::default()),
        asked => asked.map(|()| nexthop),
    }
}
