//! Policy rules: which routing table a packet is looked up in.

use std::fmt;

use super::{Key, Kind, Lifetime, Phase, Verb, ip};
use crate::addr::{Family, IfName};
use crate::model::mark::Mark;

/// `ip rule add iif IIF lookup TABLE`, or `... fwmark VALUE/MASK lookup TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rules are kept per family.
    pub family: Family,
    /// Which packets.
    pub selector: RuleSelector,
    /// The table it selects.
    pub table: u32,
    /// Lower is looked at earlier.
    pub preference: u32,
    /// Whose it is.
    pub protocol: u8,
    /// Others rely on it too: it is made where it is missing, and stays.
    pub shared: bool,
}

/// Which packets a rule takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RuleSelector {
    /// By their input interface, by name: the rule survives the interface.
    Iif(IfName),
    /// By their mark.
    Mark(Mark),
    /// By their mark, what the node itself sends.
    LocalMark(Mark),
}

/// The input interface of what the node itself sends, to the policy rules (LOOPBACK_IFINDEX of linux/net.h).
pub const LOOPBACK: &str = "lo";

impl Rule {
    /// As `ip rule` takes it, from the selector on.
    fn words(&self) -> String {
        let Self { selector, table, preference, protocol, .. } = self;
        format!("{selector} lookup {table} pref {preference} protocol {protocol}")
    }
}

impl Kind for Rule {
    const PHASE: Phase = Phase::Rules;

    fn key(&self) -> Key<'_> {
        Key::Rule(self.family, &self.selector, self.table, self.preference, self.protocol)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        if self.shared { Lifetime::Shared } else { Lifetime::Own }
    }

    fn command(&self, verb: Verb) -> String {
        format!("ip {} rule {} {}", self.family.ip_option(), verb.pick("add", "del"), self.words())
    }

    fn describe(&self) -> String {
        format!("{} rule {}", ip(self.family), self.words())
    }
}

impl fmt::Display for RuleSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iif(name) => write!(f, "iif {name}"),
            Self::Mark(mark) => write!(f, "fwmark {mark}"),
            Self::LocalMark(mark) => write!(f, "iif {LOOPBACK} fwmark {mark}"),
        }
    }
}
