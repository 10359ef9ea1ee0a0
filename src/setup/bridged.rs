//! A NIC as the port of a bridge.

use anyhow::{Result, bail};

use crate::addr::{IfName, Mac};
use crate::nic::{Nic, Vlan};
use crate::plan::{Change, GroupForwarding, Link, Object, Plan, Port, Up};
use crate::settings::Setup;
use crate::setup::Facts;

/// What Ganeti's own script does for a bridged NIC.
///
/// # Errors
/// If VLANs are asked for.
pub fn plain(nic: &Nic, bridge: &IfName, vlan: Option<&Vlan>, facts: &Facts, plan: &mut Plan) -> Result<()> {
    if let Some(vlan) = vlan {
        bail!("VLAN: {vlan:?}: VLANs on a bridge are not built in yet");
    }
    let name = || nic.interface.clone();
    // A bridge adopts the lowest MAC of its ports: the first octet fe keeps it from adopting this one.
    let mac = facts.before.mac.map(|Mac([_, rest @ ..])| {
        let mut want = [0xfe; 6];
        want[1..].copy_from_slice(&rest);
        Change { want: Mac(want), before: facts.before.mac }
    });
    let mtu = facts.bridge_mtu.map(|want| Change { want, before: facts.before.mtu });
    plan.objects.extend([
        Object::Link(Link { name: name(), mac, mtu }),
        Object::Port(Port { name: name(), bridge: Some(bridge.clone()) }),
    ]);
    if nic.has(Setup::PrivateFiltered) || nic.has(Setup::StrictFiltered) {
        plan.objects.push(Object::GroupForwarding(GroupForwarding { name: name(), groups: GroupForwarding::ALL }));
    }
    plan.objects.push(Object::Up(Up { name: name(), down_after: true }));
    Ok(())
}
