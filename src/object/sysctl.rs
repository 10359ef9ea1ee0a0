//! Settings below /proc/sys/net.

use super::{Key, Kind, Lifetime, Phase, Setting, Verb};
use crate::addr::{Family, IfName};

/// Which part of /proc/sys/net/ipvN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SysctlGroup {
    /// The folder itself: settings of the whole node.
    Node,
    /// `conf`
    Conf,
    /// `neigh`
    Neigh,
}

/// `/proc/sys/net/<family>/<group>/<interface or all>/<key>`, or `/proc/sys/net/<family>/<key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// ipv4 or ipv6.
    pub family: Family,
    /// Where below it.
    pub group: SysctlGroup,
    /// None is `all`.
    pub interface: Option<IfName>,
    /// The file's name.
    pub key: &'static str,
    /// Its value.
    pub value: Setting<u32>,
}

impl Sysctl {
    /// What tells it from others of the same interface.
    pub fn place(&self) -> (Family, SysctlGroup, &'static str) {
        (self.family, self.group, self.key)
    }

    /// Its path.
    pub fn path(&self) -> String {
        let interface = self.interface.as_ref().map_or("all", IfName::as_str);
        let group = match self.group {
            SysctlGroup::Node => String::new(),
            SysctlGroup::Conf => format!("conf/{interface}/"),
            SysctlGroup::Neigh => format!("neigh/{interface}/"),
        };
        format!("/proc/sys/net/{}/{group}{}", self.family.sysctl(), self.key)
    }
}

impl Kind for Sysctl {
    const PHASE: Phase = Phase::LinkDown;

    fn key(&self) -> Key<'_> {
        Key::Sysctl(self.family, self.group, self.interface.as_ref(), self.key)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        match (&self.interface, self.value.before) {
            (_, None) => Lifetime::Shared,
            (Some(name), Some(_)) => Lifetime::WithLink(name),
            (None, Some(_)) => Lifetime::Own,
        }
    }

    fn command(&self, verb: Verb) -> String {
        let value = self.value.before.filter(|_| verb == Verb::Remove).unwrap_or(self.value.want);
        format!("echo {value} > {}", self.path())
    }
}
