//! The port of a bridge of Open vSwitch.

use std::path::{Path, PathBuf};

use super::{Key, Kind, Lifetime, Phase, Verb, shell_quoted};
use crate::addr::IfName;

/// Columns of table Port that say what VLANs a port has (ovs-vswitchd.conf.db(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OvsVlans {
    /// `access`, `trunk` or `native-untagged`. None leaves it to the others: an access port if there is a tag, else a trunk.
    pub mode: Option<String>,
    /// The VLAN of untagged frames.
    pub tag: Option<u16>,
    /// The VLANs that pass with their tags, ascending; none on a trunk are all of them.
    pub trunks: Vec<u16>,
}

impl OvsVlans {
    /// Whether untagged frames share the port with tagged ones.
    pub fn is_native(&self) -> bool {
        self.mode.as_deref().is_some_and(|mode| mode.starts_with("native-"))
    }
}

/// A port in Open vSwitch's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvsPort {
    /// Where ovsdb-server listens.
    pub socket: PathBuf,
    /// The link, and the port's name.
    pub name: IfName,
    /// Its bridge.
    pub bridge: IfName,
    /// Its VLANs.
    pub vlans: OvsVlans,
    /// What the interface says of itself to others (Interface.external_ids), by which it is known to be ours, too.
    pub external_ids: Vec<(&'static str, String)>,
}

impl OvsPort {
    /// The key in `external_ids` of who made it.
    pub const OWNER: &str = "owner";
    /// And that of the number of the link it was made for.
    pub const IFINDEX: &str = "tap-ifindex";
    /// What keeps a guest out of the bridge's spanning tree (Port.other_config): its BPDUs could make it the root.
    pub const NO_SPANNING_TREE: [(&str, &str); 2] = [("rstp-enable", "false"), ("stp-enable", "false")];
    /// The boot in which that link has the number.
    pub const BOOT: &str = "boot-id";

    /// What [`OvsPort::OWNER`] says of ports of ours.
    pub const US: &str = "snf-network";
    /// All keys in `external_ids` that a port of ours may have.
    pub const KEYS: [&str; 6] = [Self::OWNER, Self::IFINDEX, Self::BOOT, "attached-mac", "vm-id", "iface-id"];

    /// Where ovsdb-server listens in Debian's packages.
    pub const SOCKET: &str = "/run/openvswitch/db.sock";
}

impl Kind for OvsPort {
    const PHASE: Phase = Phase::Port;

    fn key(&self) -> Key<'_> {
        Key::OvsPort(&self.socket, &self.name)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::Own
    }

    fn command(&self, verb: Verb) -> String {
        let mut command = "ovs-vsctl".to_owned();
        if self.socket != Path::new(Self::SOCKET) {
            command += &format!(" --db={}", shell_quoted(&format!("unix:{}", self.socket.display())));
        }
        command += &format!(" --if-exists del-port {}", self.name);
        if verb == Verb::Remove {
            return command;
        }
        command += &format!(" -- add-port {} {}", self.bridge, self.name);
        command.extend(self.vlans.mode.iter().map(|mode| format!(" vlan_mode={mode}")));
        command.extend(self.vlans.tag.iter().map(|tag| format!(" tag={tag}")));
        if !self.vlans.trunks.is_empty() {
            let trunks: Vec<_> = self.vlans.trunks.iter().map(ToString::to_string).collect();
            command += &format!(" trunks={}", trunks.join(","));
        }
        for (key, value) in Self::NO_SPANNING_TREE {
            command += &format!(" other_config:{key}={value}");
        }
        command += &format!(" -- set Interface {}", self.name);
        for (key, value) in &self.external_ids {
            command += &format!(" {}", shell_quoted(&format!("external_ids:{key}=\"{value}\"")));
        }
        command
    }
}
