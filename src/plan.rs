//! The Plan: what shall stand in the kernel for one NIC or one uplink, as an ordered list of objects. Making one is pure.
//!
//! apply and remove (src/reconcile.rs) are walks over the same list; displayed, a Plan is the `ip`, `nft` and
//! `echo` commands that would do the same.

mod devices;
mod ovs_port;
mod rule;
mod vlans;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

pub use self::devices::{Bridge, VlanDevice};
pub use self::ovs_port::{OvsPort, OvsVlans};
pub use self::rule::{Mark, Rule, RuleSelector, number};
pub use self::vlans::{PortVlan, PortVlans, Towards};
use crate::addr::{Family, IfName, Mac};
use crate::announce::Announcement;
use crate::ruleset::{Element, Table};

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
/// Preference of each NIC's rule.
pub const PREFERENCE_NIC: u32 = 20_100;
/// The routing table `main` (RT_TABLE_MAIN of linux/rtnetlink.h).
pub const TABLE_MAIN: u32 = 254;

/// What shall stand, filters first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Base objects of nf_tables, shared by all NICs and never removed.
    pub tables: Vec<Arc<Table>>,
    /// Elements of their sets and maps.
    pub elements: Vec<Element>,
    /// Everything else, in the order in which it is made.
    pub objects: Vec<Object>,
    /// What the neighbours are told at the end.
    pub announcements: Vec<Announcement>,
}

/// One thing that stands in the kernel or in the file system.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A VLAN device.
    VlanDevice(VlanDevice),
    /// A bridge.
    Bridge(Bridge),
    /// A file below /proc/sys/net.
    Sysctl(Sysctl),
    /// MAC and MTU of a link.
    Link(Link),
    /// A policy rule.
    Rule(Rule),
    /// Membership in a bridge; without one, in none.
    Port(Port),
    /// Which link-local groups a bridge's port does not treat apart.
    GroupForwarding(GroupForwarding),
    /// The VLANs of a bridge's port.
    PortVlans(PortVlans),
    /// Membership in a bridge of Open vSwitch, with its VLANs. Boxed, as it is twice as large as any other.
    OvsPort(Box<OvsPort>),
    /// The link is administratively up.
    Up(Up),
    /// A route.
    Route(Route),
    /// A proxy neighbour entry.
    Proxy(Proxy),
    /// A file that another daemon reads.
    Binding(Binding),
}

/// A value that is wanted, and what stood there before us, to be put back (none: it is left as it is).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<T> {
    /// What shall stand.
    pub want: T,
    /// What is put back at the end.
    pub before: Option<T>,
}

/// Which half of /proc/sys/net/ipvN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Folder {
    /// `conf`
    Conf,
    /// `neigh`
    Neigh,
}

/// `/proc/sys/net/<family>/<folder>/<interface or all>/<key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// ipv4 or ipv6.
    pub family: Family,
    /// conf or neigh.
    pub folder: Folder,
    /// None is `all`.
    pub interface: Option<IfName>,
    /// The file's name.
    pub key: &'static str,
    /// Its value.
    pub value: Change<u32>,
}

/// What is changed on a link while it is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// Its address.
    pub mac: Option<Change<Mac>>,
    /// In bytes.
    pub mtu: Option<Change<u32>>,
}

/// The port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The link.
    pub name: IfName,
    /// Its bridge, or none.
    pub bridge: Option<IfName>,
}

/// Which of the groups 01:80:c2:00:00:0X the bridge takes for ordinary ones when they come in on a port (X is the bit;
/// IFLA_BRPORT_GROUP_FWD_MASK, Linux 4.15). Frames to the others reach spanning tree and the node, and teach the bridge
/// where their source is, before any rule of nf_tables sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupForwarding {
    /// The port.
    pub name: IfName,
    /// A bit for each group.
    pub groups: u16,
}

impl GroupForwarding {
    /// All but pause frames (01:80:c2:00:00:01), which every bridge drops (br_setport of the kernel's
    /// net/bridge/br_netlink.c refuses them).
    pub const ALL: u16 = 0xfffd;
}

/// `ip link set NAME up`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// The link.
    pub name: IfName,
    /// Whether it is set down at the end.
    pub down_after: bool,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Straight to the neighbours on a device.
    Device(IfName),
    /// Through a gateway on a device; `onlink` where no other route tells that the gateway is there.
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// Its device.
        device: IfName,
        /// RTNH_F_ONLINK.
        onlink: bool,
    },
    /// Nowhere: the sender gets an ICMP unreachable.
    Unreachable,
}

impl Hop {
    /// The device it leads to.
    pub fn device(&self) -> Option<&IfName> {
        match self {
            Self::Device(device) | Self::Gateway { device, .. } => Some(device),
            Self::Unreachable => None,
        }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix.
    pub destination: IpNet,
    /// Where to.
    pub hop: Hop,
    /// In which table.
    pub table: u32,
    /// None is the family's default.
    pub metric: Option<u32>,
    /// Whose it is.
    pub protocol: u8,
}

/// `ip neigh add proxy ADDRESS dev DEVICE`, permanent, or it would vanish when the device loses its carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The address that is answered for.
    pub address: IpAddr,
    /// Where it is answered.
    pub device: IfName,
    /// The TAP that it is behind: the kernel does not know it, but the entry stays while another one has the address.
    pub behind: IfName,
    /// Whose it is.
    pub protocol: u8,
}

/// A file for nfdhcpd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its place.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// What the commands that would do the same are: making it, or removing it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Make it.
    Add,
    /// Put back what was there before.
    Remove,
}

impl Sysctl {
    /// What tells it from others of the same interface.
    pub fn place(&self) -> (Family, Folder, &'static str) {
        (self.family, self.folder, self.key)
    }

    /// Its path.
    pub fn path(&self) -> String {
        let folder = match self.folder {
            Folder::Conf => "conf",
            Folder::Neigh => "neigh",
        };
        let interface = self.interface.as_ref().map_or("all", IfName::as_str);
        format!("/proc/sys/net/{}/{folder}/{interface}/{}", self.family.sysctl(), self.key)
    }
}

impl Object {
    /// The command of iproute2 or the shell that does the same; empty where there is nothing to do.
    pub fn command(&self, verb: Verb) -> String {
        let remove = verb == Verb::Remove;
        let either = |add: &'static str, del: &'static str| if remove { del } else { add };
        match self {
            Self::VlanDevice(it) => it.command(verb),
            Self::Bridge(it) => it.command(verb),
            _ if remove && self.stays() => String::new(),
            Self::Sysctl(it) => {
                let value = it.value.before.filter(|_| remove).unwrap_or(it.value.want);
                format!("echo {value} > {}", it.path())
            }
            Self::Link(it) => {
                let pick = |change: Change<String>| if remove { change.before } else { Some(change.want) };
                let mac = it.mac.map(|c| Change { want: c.want.to_string(), before: c.before.map(|v| v.to_string()) });
                let mtu = it.mtu.map(|c| Change { want: c.want.to_string(), before: c.before.map(|v| v.to_string()) });
                let mut command = String::new();
                for (word, value) in [("address", mac.and_then(pick)), ("mtu", mtu.and_then(pick))] {
                    if let Some(value) = value {
                        command += &format!(" {word} {value}");
                    }
                }
                if command.is_empty() { command } else { format!("ip link set dev {}{command}", it.name) }
            }
            Self::Rule(it) => it.command(verb),
            Self::Port(it) => match &it.bridge {
                Some(bridge) if !remove => format!("ip link set dev {} master {bridge}", it.name),
                _ => format!("ip link set dev {} nomaster", it.name),
            },
            Self::GroupForwarding(it) => {
                let groups = if remove { 0 } else { it.groups };
                format!("ip link set dev {} type bridge_slave group_fwd_mask {groups:#x}", it.name)
            }
            Self::PortVlans(it) => it.command(verb),
            Self::OvsPort(it) => it.command(verb),
            Self::Up(it) => format!("ip link set dev {} {}", it.name, either("up", "down")),
            Self::Route(it) => {
                let family = Family::of(it.destination.addr()).ip_option();
                let kind = if it.hop == Hop::Unreachable { "unreachable " } else { "" };
                let destination =
                    if it.destination.prefix_len() == 0 { "default".to_owned() } else { it.destination.to_string() };
                let mut command = format!("ip {family} route {} {kind}{destination}", either("replace", "del"));
                match &it.hop {
                    Hop::Device(device) => command += &format!(" dev {device}"),
                    Hop::Gateway { gateway, device, onlink } => {
                        command += &format!(" via {gateway} dev {device}{}", if *onlink { " onlink" } else { "" });
                    }
                    Hop::Unreachable => {}
                }
                command += &format!(" table {} proto {}", it.table, it.protocol);
                if let Some(metric) = it.metric {
                    command += &format!(" metric {metric}");
                }
                command
            }
            Self::Proxy(it) => {
                let family = Family::of(it.address).ip_option();
                let mut command =
                    format!("ip {family} neigh {} proxy {} dev {}", either("replace", "del"), it.address, it.device);
                if !remove {
                    command += &format!(" protocol {}", it.protocol);
                }
                command
            }
            Self::Binding(it) => {
                let path = shell_quoted(&it.path.to_string_lossy());
                if remove {
                    format!("rm -f {path}")
                } else {
                    format!("cat > {path} <<'EOF'\n{}EOF\nchmod 644 {path}", it.text)
                }
            }
        }
    }
}

impl Object {
    /// Whether removal leaves it as it is: it belongs to others too, was so before us, or nobody knows what was there.
    pub fn stays(&self) -> bool {
        match self {
            Self::Sysctl(it) => it.value.before.is_none(),
            Self::Rule(it) => it.shared,
            Self::PortVlans(it) => it.towards == Towards::Outside,
            Self::Up(it) => !it.down_after,
            _ => false,
        }
    }

    /// One line for logs and errors: the commands that make or remove it, or of a file its path.
    pub fn line(&self, verb: Verb) -> String {
        match self {
            Self::Binding(it) if verb == Verb::Add => format!("binding {}", it.path.display()),
            _ => self.command(verb).replace('\n', "; "),
        }
    }
}

/// A word that a POSIX shell reads as exactly `text`.
pub fn shell_quoted(text: &str) -> String {
    ["'", &text.replace('\'', r"'\''"), "'"].concat()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tables.is_empty() || !self.elements.is_empty() {
            writeln!(f, "nft -f - <<'EOF'")?;
            for table in &self.tables {
                write!(f, "{}{table}", table.emptying())?;
            }
            for element in &self.elements {
                writeln!(f, "{element}")?;
            }
            writeln!(f, "EOF")?;
        }
        for object in &self.objects {
            let command = object.command(Verb::Add);
            match object {
                _ if command.is_empty() => {}
                // Where it stands already, iproute2 says so and fails.
                Object::Rule(Rule { shared: true, .. }) => writeln!(f, "{command} || :")?,
                _ => writeln!(f, "{command}")?,
            }
        }
        for announcement in &self.announcements {
            writeln!(f, "# announce {announcement}")?;
        }
        Ok(())
    }
}
