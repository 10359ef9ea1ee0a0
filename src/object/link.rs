//! MAC and MTU of a link.

use std::fmt::Display;

use super::{Key, Kind, Lifetime, Phase, Setting, Verb};
use crate::addr::{IfName, Mac};

/// What is changed on a link while it is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// Its address.
    pub mac: Option<Setting<Mac>>,
    /// In bytes.
    pub mtu: Option<Setting<u32>>,
}

impl Kind for Link {
    const PHASE: Phase = Phase::LinkDown;

    fn key(&self) -> Key<'_> {
        Key::Link(&self.name)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::WithLink(&self.name)
    }

    fn command(&self, verb: Verb) -> String {
        let words = word("address", self.mac, verb) + &word("mtu", self.mtu, verb);
        if words.is_empty() { words } else { format!("ip link set dev {}{words}", self.name) }
    }
}

fn word<T: Display>(name: &str, setting: Option<Setting<T>>, verb: Verb) -> String {
    let value = setting.and_then(|it| verb.pick(Some(it.want), it.before));
    value.map_or_else(String::new, |value| format!(" {name} {value}"))
}
