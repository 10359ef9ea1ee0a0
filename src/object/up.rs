//! Whether a link is up.

use super::{Key, Kind, Lifetime, Phase, Verb};
use crate::addr::IfName;

/// `ip link set NAME up`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// The link.
    pub name: IfName,
    /// Whether it is set down at the end.
    pub down_after: bool,
}

impl Kind for Up {
    const PHASE: Phase = Phase::Up;

    fn key(&self) -> Key<'_> {
        Key::Up(&self.name)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        if self.down_after { Lifetime::WithLink(&self.name) } else { Lifetime::Shared }
    }

    fn command(&self, verb: Verb) -> String {
        format!("ip link set dev {} {}", self.name, verb.pick("up", "down"))
    }
}
