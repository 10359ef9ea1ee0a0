//! A NIC as the port of a bridge.

use anyhow::{Context, Result};

use crate::addr::{IfName, Mac};
use crate::nic::{Nic, Vlan};
use crate::object::{BridgeVlans, Link, Plan, Port, PortFlags, PortVlan, Setting, Towards, Up};
use crate::settings::Setup;
use crate::setup::Facts;

/// What Ganeti's own script does for a bridged NIC, in an order that leaves no gap: the port has its VLANs before it is up.
///
/// # Errors
/// If VLANs are asked for and nothing is known of the bridge's.
pub fn plain(nic: &Nic, bridge: &IfName, vlan: Option<&Vlan>, facts: &Facts, plan: &mut Plan) -> Result<()> {
    let name = || nic.interface.clone();
    plan.push(link(nic, facts));
    plan.push(Port { name: name(), bridge: Some(bridge.clone()) });
    if let Some(vlan) = vlan {
        plan.extend(vlans(nic, vlan, facts)?);
    }
    if nic.has(Setup::PrivateFiltered) || nic.has(Setup::StrictFiltered) {
        plan.push(PortFlags::of_guest(name()));
    }
    plan.push(Up { name: name(), down_after: true });
    Ok(())
}

/// MAC and MTU of the link as a bridge's port.
pub(super) fn link(nic: &Nic, facts: &Facts) -> Link {
    // A bridge adopts the lowest MAC of its ports: the first octet fe keeps it from adopting this one.
    let mac = facts.before.mac.map(|Mac([_, rest @ ..])| {
        let mut want = [0xfe; 6];
        want[1..].copy_from_slice(&rest);
        Setting { want: Mac(want), before: facts.before.mac }
    });
    let mtu = facts.bridge_mtu.map(|want| Setting { want, before: facts.before.mtu });
    Link { name: nic.interface.clone(), mac, mtu }
}

/// The VLANs of the NIC, and those of them that the ports to the outside lack.
fn vlans(nic: &Nic, vlan: &Vlan, facts: &Facts) -> Result<Vec<BridgeVlans>> {
    let bridge = facts.bridge_vlans.as_ref().with_context(|| format!("VLAN {vlan}: the bridge's VLANs are unknown"))?;
    let untagged = vlan.untagged.map(PortVlan::untagged);
    // A VLAN that is named both ways is the one of the untagged frames.
    let tagged = vlan.tagged.iter().filter(|vid| vlan.untagged != Some(**vid)).map(|vid| PortVlan::tagged(*vid));
    let own = BridgeVlans {
        port: nic.interface.clone(),
        towards: Towards::Guest { default_pvid: bridge.default_pvid },
        vlans: untagged.into_iter().chain(tagged).collect(),
    };
    let outside = bridge.lacking.iter().map(|(port, lacking)| BridgeVlans {
        port: port.clone(),
        towards: Towards::Outside,
        vlans: lacking.iter().map(|vid| PortVlan::tagged(*vid)).collect(),
    });
    Ok([own].into_iter().chain(outside).collect())
}
