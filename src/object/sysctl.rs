//! Settings below /proc/sys/net.

use super::{Key, Kind, Lifetime, Phase, Setting, Verb};
use crate::addr::{Family, IfName};

/// Which half of /proc/sys/net/ipvN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SysctlGroup {
    /// `conf`
    Conf,
    /// `neigh`
    Neigh,
}

/// `/proc/sys/net/<family>/<group>/<interface or all>/<key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// ipv4 or ipv6.
    pub family: Family,
    /// conf or neigh.
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
        let group = match self.group {
            SysctlGroup::Conf => "conf",
            SysctlGroup::Neigh => "neigh",
        };
        let interface = self.interface.as_ref().map_or("all", IfName::as_str);
        format!("/proc/sys/net/{}/{group}/{interface}/{}", self.family.sysctl(), self.key)
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
