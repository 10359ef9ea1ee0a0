//! Membership of a device in a block of filters.

use super::{Key, Kind, Lifetime, Phase, Verb};
use crate::addr::IfName;

/// What comes in on a device passes the filters of a block, by the qdisc clsact (tc-bpf(8)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clsact {
    /// The device.
    pub device: IfName,
    /// The block.
    pub block: u32,
}

impl Kind for Clsact {
    const PHASE: Phase = Phase::Guard;

    fn key(&self) -> Key<'_> {
        Key::Clsact(&self.device)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::WithLink(&self.device)
    }

    fn command(&self, verb: Verb) -> String {
        let Self { device, block } = self;
        match verb {
            Verb::Add => format!("tc qdisc add dev {device} ingress_block {block} clsact"),
            Verb::Remove => format!("tc qdisc del dev {device} clsact"),
        }
    }
}
