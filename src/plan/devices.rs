//! Devices that a Plan makes, and unmakes when it is removed: VLAN devices and bridges.

use super::{GROUP_NODE, Verb};
use crate::addr::IfName;

/// A VLAN device (8021q): the frames of one VLAN on the link of another device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanDevice {
    /// Its name.
    pub name: IfName,
    /// The device whose tagged frames it takes.
    pub lower: IfName,
    /// The VLAN, 1 to 4094.
    pub vid: u16,
}

/// A bridge that forwards from the moment it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: IfName,
}

impl VlanDevice {
    pub(super) fn command(&self, verb: Verb) -> String {
        let Self { name, lower, vid } = self;
        match verb {
            Verb::Add => format!("ip link add link {lower} name {name} group {GROUP_NODE} type vlan id {vid}"),
            Verb::Remove => format!("ip link del dev {name}"),
        }
    }
}

impl Bridge {
    pub(super) fn command(&self, verb: Verb) -> String {
        let Self { name } = self;
        match verb {
            Verb::Add => format!("ip link add name {name} group {GROUP_NODE} type bridge forward_delay 0"),
            Verb::Remove => format!("ip link del dev {name}"),
        }
    }
}
