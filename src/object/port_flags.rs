//! Settings of a bridge's port.

use super::{Key, Kind, Lifetime, Phase, Verb};
use crate::addr::IfName;

/// Which of the groups 01:80:c2:00:00:0X the bridge forwards like any other when they come in on a port (X is the bit;
/// IFLA_BRPORT_GROUP_FWD_MASK, Linux 4.15). Frames to the others reach spanning tree and the node, and teach the bridge
/// where their source is, before any rule of nf_tables sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFlags {
    /// The port.
    pub name: IfName,
    /// A bit for each group.
    pub groups: u16,
}

impl PortFlags {
    /// All but pause frames (01:80:c2:00:00:01), which every bridge drops (br_setport of the kernel's
    /// net/bridge/br_netlink.c refuses them).
    pub const ALL_GROUPS: u16 = 0xfffd;
}

impl Kind for PortFlags {
    const PHASE: Phase = Phase::PortSettings;

    fn key(&self) -> Key<'_> {
        Key::PortFlags(&self.name)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::WithPort(&self.name)
    }

    fn command(&self, verb: Verb) -> String {
        let groups = verb.pick(self.groups, 0);
        format!("ip link set dev {} type bridge_slave group_fwd_mask {groups:#x}", self.name)
    }
}
