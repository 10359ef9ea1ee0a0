//! What is sent: a message and its type.

use netlink_packet_core::{Emitable, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader};
use nix::libc::{
    RTM_DELLINK, RTM_DELNEIGH, RTM_DELQDISC, RTM_DELROUTE, RTM_DELRULE, RTM_DELTFILTER, RTM_GETADDR, RTM_GETLINK,
    RTM_GETNEIGH, RTM_GETNEIGHTBL, RTM_GETQDISC, RTM_GETROUTE, RTM_GETRULE, RTM_GETTFILTER, RTM_NEWACTION, RTM_NEWADDR,
    RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWQDISC, RTM_NEWROUTE, RTM_NEWRULE, RTM_NEWTFILTER, RTM_SETLINK,
};

use super::HEADER;

/// RTM_GETVLAN of linux/rtnetlink.h (Linux 5.6).
pub const RTM_GETVLAN: u16 = 114;
/// RTM_GETNEXTHOP of linux/rtnetlink.h (Linux 5.3).
pub const RTM_GETNEXTHOP: u16 = 106;

/// A request.
pub struct Request {
    /// RTM_* of linux/rtnetlink.h.
    kind: u16,
    /// What is behind the header.
    payload: Vec<u8>,
    /// NLM_F_DUMP, NLM_F_CREATE and its kin; NLM_F_REQUEST is added.
    pub(super) flags: u16,
}

impl Request {
    /// Of a message of netlink-packet-route: by itself, as the crate's enumeration of all messages would bring the code of all of
    /// them into the program.
    pub fn new(kind: u16, message: &impl Emitable, flags: u16) -> Self {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        Self { kind, payload, flags }
    }

    /// Of a message that the crate does not know.
    pub fn of_bytes(kind: u16, payload: Vec<u8>, flags: u16) -> Self {
        Self { kind, payload, flags }
    }

    /// The same request, refused (EEXIST) where there is such an object already.
    pub fn exclusive(mut self) -> Self {
        self.flags = self.flags & !NLM_F_REPLACE | NLM_F_EXCL;
        self
    }

    /// Its name in the kernel's headers.
    pub(super) fn operation(&self) -> &'static str {
        match self.kind {
            RTM_NEWLINK => "RTM_NEWLINK",
            RTM_DELLINK => "RTM_DELLINK",
            RTM_GETLINK => "RTM_GETLINK",
            RTM_SETLINK => "RTM_SETLINK",
            RTM_NEWADDR => "RTM_NEWADDR",
            RTM_GETADDR => "RTM_GETADDR",
            RTM_NEWROUTE => "RTM_NEWROUTE",
            RTM_DELROUTE => "RTM_DELROUTE",
            RTM_GETROUTE => "RTM_GETROUTE",
            RTM_NEWNEIGH => "RTM_NEWNEIGH",
            RTM_DELNEIGH => "RTM_DELNEIGH",
            RTM_GETNEIGH => "RTM_GETNEIGH",
            RTM_NEWRULE => "RTM_NEWRULE",
            RTM_DELRULE => "RTM_DELRULE",
            RTM_GETRULE => "RTM_GETRULE",
            RTM_GETNEIGHTBL => "RTM_GETNEIGHTBL",
            RTM_GETNEXTHOP => "RTM_GETNEXTHOP",
            RTM_NEWQDISC => "RTM_NEWQDISC",
            RTM_DELQDISC => "RTM_DELQDISC",
            RTM_GETQDISC => "RTM_GETQDISC",
            RTM_NEWTFILTER => "RTM_NEWTFILTER",
            RTM_DELTFILTER => "RTM_DELTFILTER",
            RTM_GETTFILTER => "RTM_GETTFILTER",
            RTM_NEWACTION => "RTM_NEWACTION",
            RTM_GETVLAN => "RTM_GETVLAN",
            _ => "rtnetlink",
        }
    }

    /// Encodes it behind what `out` holds.
    pub(in crate::kernel) fn append(&self, out: &mut Vec<u8>, sequence: u32) {
        let offset = out.len();
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(HEADER + self.payload.len()).unwrap_or(u32::MAX);
        header.message_type = self.kind;
        header.flags = NLM_F_REQUEST | self.flags;
        header.sequence_number = sequence;
        out.resize(offset + HEADER, 0);
        header.emit(&mut out[offset..]);
        out.extend(&self.payload);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}
