//! The kinds of objects that the program makes in the kernel and the file system, a file for each kind.
//!
//! A kind answers in its own file what tells its objects apart, when one is made, what removes it, and how it is printed. A new kind
//! is a file and a word in the list below; [`Object`] and its dispatch are made of that list, without a wildcard.

mod bridge;
mod bridge_vlans;
mod checksum_guard;
mod clsact;
mod file;
mod link;
mod neigh_proxy;
mod neighbour;
mod ovs_port;
mod plan;
mod port;
mod port_flags;
mod route;
mod rule;
mod sysctl;
#[cfg(test)]
mod tests;
mod up;
mod vlan_device;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

pub use self::bridge::Bridge;
pub use self::bridge_vlans::{BridgeVlans, PortVlan, Towards, vlan_list};
pub use self::checksum_guard::{ChecksumGuard, Filter, FilterAction, Word};
pub use self::clsact::Clsact;
pub use self::file::File;
pub use self::link::Link;
pub use self::neigh_proxy::NeighProxy;
pub use self::neighbour::Neighbour;
pub use self::ovs_port::{OvsPort, OvsVlans};
pub use self::plan::Plan;
pub use self::port::Port;
pub use self::port_flags::{PortFlags, PortState};
pub use self::route::{Hop, Route};
pub use self::rule::{LOOPBACK, Rule, RuleSelector};
pub use self::sysctl::{Sysctl, SysctlGroup};
pub use self::up::Up;
pub use self::vlan_device::VlanDevice;
use crate::addr::{Family, IfName};

/// Protocol number (RTA_PROTOCOL, FRA_PROTOCOL, NDA_PROTOCOL) of what belongs to a NIC: `ip route show proto 217`.
pub const PROTOCOL_NIC: u8 = 217;
/// Protocol number of what belongs to the node's uplink.
pub const PROTOCOL_NODE: u8 = 218;
/// Group (IFLA_GROUP) of the devices that we made for the node: `ip link show group 218`.
pub const GROUP_NODE: u32 = 218;
/// Preference of the uplink's rule: looked at before those of the NICs, so that inbound packets match first.
pub const PREFERENCE_NODE: u32 = 20_000;
/// Preference of the rules by mark: before those of the NICs, so that a marked packet passes none of them.
pub const PREFERENCE_MARK: u32 = 20_050;
/// Preference of the rules by mark for what the node itself sends. Not that of the rules by mark: the kernel takes a request to delete
/// one without an input interface for any of that preference (rule_find of net/core/fib_rules.c).
pub const PREFERENCE_LOCAL_MARK: u32 = 20_060;
/// Preference of each NIC's rule.
pub const PREFERENCE_NIC: u32 = 20_100;
/// The routing table `main` (RT_TABLE_MAIN of linux/rtnetlink.h).
pub const TABLE_MAIN: u32 = 254;

/// What every kind of object answers.
pub trait Kind: Clone + PartialEq + Into<Object> {
    /// When it is made. Removal is the reverse order, except that links go down first.
    const PHASE: Phase;

    /// Identity in the kernel: of two objects with one key, making one replaces the other.
    fn key(&self) -> Key<'_>;

    /// What removes it.
    fn lifetime(&self) -> Lifetime<'_>;

    /// The commands of iproute2 or the shell that make or remove it, one a line; empty where there is nothing to do.
    fn command(&self, verb: Verb) -> String;

    /// What it is called in a message that neither makes nor removes it.
    fn describe(&self) -> String {
        self.line(Verb::Add)
    }

    /// One line for logs and errors about making or removing it.
    fn line(&self, verb: Verb) -> String {
        self.command(verb).replace('\n', "; ")
    }

    /// Whether it need not, or must not, be removed where `other` exists.
    fn is_covered_by(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

/// Makes [`Object`], with a variant for each kind and its dispatch. A kind whose objects are large is kept in a box.
macro_rules! kinds {
    ($($kind:ident $(in $container:ident)?),* $(,)?) => {
        /// An object of any kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $($kind(kinds!(@held $kind $($container)?))),*
        }

        impl Object {
            /// See [`Kind::PHASE`].
            pub fn phase(&self) -> Phase {
                match self { $(Self::$kind(_) => <$kind as Kind>::PHASE),* }
            }

            /// See [`Kind::key`].
            pub fn key(&self) -> Key<'_> {
                match self { $(Self::$kind(it) => it.key()),* }
            }

            /// See [`Kind::lifetime`].
            pub fn lifetime(&self) -> Lifetime<'_> {
                match self { $(Self::$kind(it) => it.lifetime()),* }
            }

            /// See [`Kind::line`].
            pub fn line(&self, verb: Verb) -> String {
                match self { $(Self::$kind(it) => it.line(verb)),* }
            }

            fn own_command(&self, verb: Verb) -> String {
                match self { $(Self::$kind(it) => it.command(verb)),* }
            }

            /// See [`Kind::is_covered_by`]. No kind covers another.
            pub fn is_covered_by(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$kind(one), Self::$kind(other)) => one.is_covered_by(other),)*
                    _ => false,
                }
            }
        }

        impl fmt::Display for Object {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$kind(it) => f.write_str(&it.describe())),* }
            }
        }

        $(impl From<$kind> for Object {
            fn from(it: $kind) -> Self {
                Self::$kind(it.into())
            }
        })*
    };
    (@held $kind:ident) => { $kind };
    (@held $kind:ident $container:ident) => { $container<$kind> };
}

kinds! {
    ChecksumGuard,
    Clsact,
    VlanDevice,
    Bridge,
    Sysctl,
    Link,
    Port,
    BridgeVlans,
    PortFlags,
    OvsPort in Box,
    Rule,
    Up,
    Neighbour,
    Route,
    NeighProxy,
    File,
}

/// When an object is made. Filters, which are no objects here yet, come before all of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// What frames pass before all other checks.
    Guard,
    /// Devices that others are made on.
    Devices,
    /// What is set while the link is down.
    LinkDown,
    /// Membership in a bridge.
    Port,
    /// What only a bridge's port has.
    PortSettings,
    /// Policy rules.
    Rules,
    /// From here on the link passes packets.
    Up,
    /// What needs a link that is up, and makes the guest reachable.
    Reach,
    /// What other daemons read.
    Files,
}

/// Identity of an object in the kernel or the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// What finishes checksums, one on a node.
    ChecksumGuard,
    /// The qdisc of what comes in on a device.
    Clsact(&'a IfName),
    /// A device that is made.
    Device(&'a IfName),
    /// A file below /proc/sys/net; no interface is `all`.
    Sysctl(Family, SysctlGroup, Option<&'a IfName>, &'static str),
    /// MAC and MTU of a link.
    Link(&'a IfName),
    /// The bridge of a link.
    Port(&'a IfName),
    /// The settings of a bridge's port.
    PortFlags(&'a IfName),
    /// The VLANs of a bridge's port.
    BridgeVlans(&'a IfName),
    /// A port in the database behind this socket.
    OvsPort(&'a Path, &'a IfName),
    /// A rule is all that it says.
    Rule(Family, &'a RuleSelector, u32, u32, u8),
    /// Whether a link is up.
    Up(&'a IfName),
    /// An address on a device.
    Neighbour(IpAddr, &'a IfName),
    /// One route of this table, prefix and metric.
    Route(u32, IpNet, u32),
    /// A proxied address on a device.
    NeighProxy(IpAddr, &'a IfName),
    /// A path.
    File(&'a Path),
}

/// What removes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime<'a> {
    /// Only we do.
    Own,
    /// The kernel does when this link is gone; before that, we do.
    WithLink(&'a IfName),
    /// The kernel does when this port leaves its bridge or is gone; before that, we do.
    WithPort(&'a IfName),
    /// Nothing: others rely on it, or it is not known what there was before.
    Shared,
}

impl<'a> Lifetime<'a> {
    /// The link without which it does not exist.
    pub fn link(self) -> Option<&'a IfName> {
        match self {
            Self::WithLink(name) | Self::WithPort(name) => Some(name),
            Self::Own | Self::Shared => None,
        }
    }
}

/// A value that is wanted, and the one before us, which is put back at the end (none: it is left as it is).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// What we set.
    pub want: T,
    /// What is put back at the end.
    pub before: Option<T>,
}

/// Whether an object is made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make it.
    Add,
    /// Remove it, or put back what there was before.
    Remove,
}

impl Verb {
    /// One of two words.
    fn pick<T>(self, add: T, remove: T) -> T {
        match self {
            Self::Add => add,
            Self::Remove => remove,
        }
    }
}

impl Object {
    /// See [`Kind::command`]; empty where removal leaves it as it is.
    pub fn command(&self, verb: Verb) -> String {
        if verb == Verb::Remove && self.stays() { String::new() } else { self.own_command(verb) }
    }

    /// Whether removal leaves it as it is.
    pub fn stays(&self) -> bool {
        self.lifetime() == Lifetime::Shared
    }
}

/// `ip`, and for IPv6 `ip -6`, as messages name an object.
fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip -6",
    }
}

/// A word that a POSIX shell reads as exactly `text`.
pub fn shell_quoted(text: &str) -> String {
    ["'", &text.replace('\'', r"'\''"), "'"].concat()
}
