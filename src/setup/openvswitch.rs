//! A NIC as the port of a bridge of Open vSwitch.

use crate::addr::IfName;
use crate::nic::{Nic, Vlan};
use crate::object::{OvsPort, OvsVlans, Plan, Up};
use crate::settings::Settings;
use crate::setup::{Facts, bridged};

/// What Ganeti's own script does for such a NIC, in an order that leaves no gap: the port has its VLANs before it is up.
pub fn plain(nic: &Nic, bridge: &IfName, vlan: Option<&Vlan>, settings: &Settings, facts: &Facts, plan: &mut Plan) {
    // The names are those of Open vSwitch's integration guide, but for the first two.
    let mut external_ids = vec![
        (OvsPort::OWNER, OvsPort::US.to_owned()),
        (OvsPort::IFINDEX, facts.link.index.to_string()),
        ("attached-mac", nic.mac.to_string()),
        ("vm-id", nic.instance.clone()),
    ];
    // The database outlives a boot, and numbers come again.
    external_ids.extend(facts.link.namespace.map(|it| (OvsPort::BOOT, it.boot.to_string())));
    external_ids.extend(nic.uuid.clone().map(|uuid| ("iface-id", uuid)));
    // This bridge, too, takes the lowest MAC and the smallest MTU of its ports for its own device.
    plan.push(bridged::link(nic, facts));
    plan.push(OvsPort {
        socket: settings.ovsdb_socket.clone(),
        name: nic.interface.clone(),
        bridge: bridge.clone(),
        vlans: vlan.map(vlans).unwrap_or_default(),
        external_ids,
    });
    plan.push(Up { name: nic.interface.clone(), down_after: true });
}

/// The mode is always said: with a tag and without a mode, the port would be an access port whatever its trunks. Trunks are
/// never left out of a mode that has them, as none would mean all.
fn vlans(vlan: &Vlan) -> OvsVlans {
    let (mode, trunks) = match (vlan.untagged, vlan.tagged.as_slice()) {
        (Some(_), []) => ("access", Vec::new()),
        (None, tagged) => ("trunk", tagged.to_vec()),
        (Some(_), tagged) => ("native-untagged", tagged.to_vec()),
    };
    OvsVlans { mode: Some(mode.to_owned()), tag: vlan.untagged, trunks }
}
