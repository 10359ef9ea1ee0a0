//! Traffic control (tc-filter(5), linux/pkt_sched.h, linux/pkt_cls.h): the qdisc by which a device joins a block of filters, and the
//! filters of a block.
//!
//! ```text
//! struct tcmsg { u8 family, u8, u16, i32 ifindex, u32 handle, u32 parent, u32 info }
//!   TCA_KIND
//!   TCA_OPTIONS
//!   TCA_INGRESS_BLOCK   u32, of a qdisc
//! ```

mod action;
mod filter;
mod qdisc;

use nix::errno::Errno;

pub use self::action::asks_for_csum;
pub use self::filter::{FoundFilter, add_filter, delete_filter, filters, get_filter};
pub use self::qdisc::{FoundQdisc, add_clsact, delete_clsact, get_ingress, ingress_qdiscs};
use crate::kernel::attributes::number;
use crate::kernel::error::Error;

/// Length of struct tcmsg of linux/rtnetlink.h.
const TCMSG: usize = 20;
/// TCA_* of linux/rtnetlink.h.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_INGRESS_BLOCK: u16 = 13;

/// struct tcmsg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    /// Of a device; of a block TCM_IFINDEX_MAGIC_BLOCK, and the block's number is the parent.
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl Header {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        [self.ifindex, self.handle, self.parent, self.info].iter().for_each(|it| bytes.extend(it.to_ne_bytes()));
        bytes
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let field = |place: usize| number(payload.get(place..)?);
        payload.get(..TCMSG)?;
        Some(Self { ifindex: field(4)?, handle: field(8)?, parent: field(12)?, info: field(16)? })
    }
}

/// Whether it was refused because there is no such qdisc, filter or block: ENOENT and, where there was one before or no block, EINVAL.
pub fn is_absent(error: &Error) -> bool {
    [Errno::ENOENT, Errno::EINVAL].into_iter().any(|it| it as i32 == error.errno)
}

#[cfg(test)]
mod tests;
