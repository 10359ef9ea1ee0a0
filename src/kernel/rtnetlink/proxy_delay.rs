//! How long answers for proxied addresses are put off, of all links at once.
//!
//! ```text
//! RTM_NEWNEIGHTBL  struct ndtmsg { u8 family, u8, u16 }
//!   NDTA_PARMS
//!     NDTPA_IFINDEX      u32, none of the table's own defaults
//!     NDTPA_PROXY_DELAY  u64, milliseconds
//! ```

use nix::libc::RTM_GETNEIGHTBL;
use std::collections::HashMap;

use super::address_family;
use crate::addr::Family;
use crate::kernel::attributes::{attributes, number};
use crate::kernel::error::Error;
use crate::kernel::netlink::Netlink;

/// NDTA_* and NDTPA_* of linux/neighbour.h.
const NDTA_PARMS: u16 = 6;
const NDTPA_IFINDEX: u16 = 1;
const NDTPA_PROXY_DELAY: u16 = 13;
/// Length of struct ndtmsg.
const NDTMSG: usize = 4;
/// Milliseconds in the unit of /proc (USER_HZ).
const USER_HZ: u64 = 10;

/// What stands in /proc/sys/net/ipvN/neigh/*/proxy_delay, by the link's number, in its unit (USER_HZ).
///
/// # Errors
/// What the kernel refused.
pub fn proxy_delays(netlink: &mut Netlink, family: Family) -> Result<HashMap<u32, u32>, Error> {
    let message = [u8::from(address_family(family)), 0, 0, 0];
    let mut delays = HashMap::new();
    netlink.dump(RTM_GETNEIGHTBL, message.to_vec(), |payload| delays.extend(delay_of(payload)))?;
    Ok(delays)
}

pub(super) fn delay_of(payload: &[u8]) -> Option<(u32, u32)> {
    let parameters = attributes(payload.get(NDTMSG..)?).find(|it| it.0 == NDTA_PARMS)?.1;
    let find = |kind| attributes(parameters).find(|it| it.0 == kind).map(|it| it.1);
    let delay = u64::from_ne_bytes(*find(NDTPA_PROXY_DELAY)?.first_chunk()?);
    Some((number(find(NDTPA_IFINDEX)?)?, u32::try_from(delay / USER_HZ).ok()?))
}
