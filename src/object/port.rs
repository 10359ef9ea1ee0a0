//! Membership in a bridge.

use super::{Key, Kind, Lifetime, Phase, Verb};
use crate::addr::IfName;

/// The port of a bridge, or that a link is no port of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The link.
    pub name: IfName,
    /// Its bridge, or none.
    pub bridge: Option<IfName>,
}

impl Kind for Port {
    const PHASE: Phase = Phase::Port;

    fn key(&self) -> Key<'_> {
        Key::Port(&self.name)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::WithLink(&self.name)
    }

    fn command(&self, verb: Verb) -> String {
        match (&self.bridge, verb) {
            (Some(bridge), Verb::Add) => format!("ip link set dev {} master {bridge}", self.name),
            _ => format!("ip link set dev {} nomaster", self.name),
        }
    }
}
