//! What is said of a link to the kernel: struct ifinfomsg (linux/rtnetlink.h) and attributes (linux/if_link.h). Written attribute by
//! attribute: netlink-packet-route's own writer, of one function, knows every kind of device, and takes what reading would take
//! (`link_state.rs`).

use nix::libc::{AF_BRIDGE, IFLA_EXT_MASK, IFLA_IFNAME, RTEXT_FILTER_SKIP_STATS};

use crate::addr::IfName;
use crate::kernel::attributes::attribute;
use crate::kernel::netlink::Request;

/// Length of struct ifinfomsg.
pub(super) const IFINFOMSG: usize = 16;

/// A message about a link, named by its number or by an attribute.
#[derive(Debug, Default)]
pub struct LinkMessage {
    family: u8,
    index: u32,
    flags: u32,
    change: u32,
    attributes: Vec<u8>,
}

impl LinkMessage {
    /// About the link of this number.
    pub fn of(index: u32) -> Self {
        Self { index, ..Self::default() }
    }

    /// About the link of this name.
    pub fn named(name: &IfName) -> Self {
        Self::default().text(IFLA_IFNAME, name.as_str())
    }

    /// About a link as a port of a bridge (AF_BRIDGE).
    pub fn of_port(index: u32) -> Self {
        Self { family: AF_BRIDGE as u8, ..Self::of(index) }
    }

    /// Sets those of its flags (IFF_* of linux/if.h) that are in `change` to what they are in `flags`.
    #[must_use]
    pub fn flags(self, flags: u32, change: u32) -> Self {
        Self { flags, change, ..self }
    }

    /// Adds an attribute, whose value may be attributes.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.attributes.extend(attribute(kind, value));
        self
    }

    /// Adds an attribute that holds text and its final NUL.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.with(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Adds an attribute that holds a number, in the byte order of the machine.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Asks for no counters.
    #[must_use]
    pub fn without_statistics(self) -> Self {
        self.number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.cast_unsigned())
    }

    /// As bytes: struct ifinfomsg { u8 family, u8, u16 type, u32 index, u32 flags, u32 change }, then the attributes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(IFINFOMSG + self.attributes.len());
        bytes.extend([self.family, 0, 0, 0]);
        [self.index, self.flags, self.change].iter().for_each(|it| bytes.extend(it.to_ne_bytes()));
        bytes.extend(&self.attributes);
        bytes
    }

    /// As a request of type `kind` (RTM_*).
    pub fn request(&self, kind: u16, flags: u16) -> Request {
        Request::of_bytes(kind, self.bytes(), flags)
    }
}
