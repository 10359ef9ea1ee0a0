//! Settings of a bridge's port.

use super::{Key, Kind, Lifetime, Phase, Verb};
use crate::addr::IfName;

/// What a bridge lets a guest's port do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFlags {
    /// The port.
    pub name: IfName,
    /// Which of the groups 01:80:c2:00:00:0X the bridge forwards like any other when they come in on the port (X is the bit;
    /// IFLA_BRPORT_GROUP_FWD_MASK, Linux 4.15). Frames to the others reach spanning tree and the node, and teach the bridge
    /// where their source is, before any rule of nf_tables sees them.
    pub group_fwd_mask: u16,
    /// Whether the port can become one of a multicast router, to which all groups are sent (MDB_RTR_TYPE_* of linux/if_bridge.h:
    /// 0 never, 1 when something there says it is one; IFLA_BRPORT_MULTICAST_ROUTER).
    pub mcast_router: u8,
}

/// The same as the kernel reports it: none of what it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortState {
    /// See [`PortFlags::group_fwd_mask`].
    pub group_fwd_mask: Option<u16>,
    /// See [`PortFlags::mcast_router`]; none without CONFIG_BRIDGE_IGMP_SNOOPING.
    pub mcast_router: Option<u8>,
}

impl PortFlags {
    /// Those of a guest that is neither a bridge nor a multicast router.
    pub fn of_guest(name: IfName) -> Self {
        // All but pause frames (01:80:c2:00:00:01), which every bridge drops (br_setport of the kernel's net/bridge/br_netlink.c
        // refuses them).
        Self { name, group_fwd_mask: 0xfffd, mcast_router: 0 }
    }

    /// Those of a new port.
    pub fn default_of(name: IfName) -> Self {
        Self { name, group_fwd_mask: 0, mcast_router: 1 }
    }

    /// What differs, as `ip -d link` prints it; nothing where all that the kernel knows is the same.
    pub fn differences(&self, found: &PortState) -> String {
        let differs = |word, found: Option<u32>, want: u32| {
            found.filter(|found| *found != want).map(|found| match word {
                "group_fwd_mask" => format!("{word} {found:#x}"),
                _ => format!("{word} {found}"),
            })
        };
        let differences = [
            differs("group_fwd_mask", found.group_fwd_mask.map(Into::into), self.group_fwd_mask.into()),
            differs("mcast_router", found.mcast_router.map(Into::into), self.mcast_router.into()),
        ];
        differences.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
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
        let Self { name, group_fwd_mask, mcast_router } = verb.pick(self.clone(), Self::default_of(self.name.clone()));
        format!(
            "ip link set dev {name} type bridge_slave group_fwd_mask {group_fwd_mask:#x} mcast_router {mcast_router}"
        )
    }
}
