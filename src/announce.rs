//! What the neighbours are told of a guest's address.

use std::fmt;
use std::net::IpAddr;

use crate::addr::IfName;

/// An address, and the device on which it is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The guest's address.
    pub address: IpAddr,
    /// The uplink.
    pub device: IfName,
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.address, self.device)
    }
}
