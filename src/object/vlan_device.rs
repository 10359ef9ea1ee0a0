//! VLAN devices.

use super::{GROUP_NODE, Key, Kind, Lifetime, Phase, Verb};
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

impl Kind for VlanDevice {
    const PHASE: Phase = Phase::Devices;

    fn key(&self) -> Key<'_> {
        Key::Device(&self.name)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::Own
    }

    fn command(&self, verb: Verb) -> String {
        let Self { name, lower, vid } = self;
        match verb {
            Verb::Add => format!("ip link add link {lower} name {name} group {GROUP_NODE} type vlan id {vid}"),
            Verb::Remove => format!("ip link del dev {name}"),
        }
    }
}
