//! Bridges.

use super::{GROUP_NODE, Key, Kind, Lifetime, Phase, Verb};
use crate::addr::IfName;

/// A bridge that forwards from the moment it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: IfName,
}

impl Kind for Bridge {
    const PHASE: Phase = Phase::Devices;

    fn key(&self) -> Key<'_> {
        Key::Device(&self.name)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::Own
    }

    fn command(&self, verb: Verb) -> String {
        let Self { name } = self;
        match verb {
            Verb::Add => format!("ip link add name {name} group {GROUP_NODE} type bridge forward_delay 0"),
            Verb::Remove => format!("ip link del dev {name}"),
        }
    }
}
