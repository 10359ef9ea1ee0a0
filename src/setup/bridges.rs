//! Bridges of the node for private networks: each has a VLAN of one device, and all that joins it is in that VLAN.

use crate::addr::{Family, IfName};
use crate::object::{Bridge, Plan, Port, Setting, Sysctl, SysctlGroup, Up, VlanDevice};

/// A bridge and its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateBridge {
    /// The bridge.
    pub bridge: Bridge,
    /// Its port.
    pub port: VlanDevice,
}

/// The Plan of bridges whose VLANs are on the link of `parent`.
pub fn plan(parent: &IfName, bridges: &[PrivateBridge]) -> Plan {
    let mut plan = Plan::default();
    // A VLAN device cannot be up without it.
    plan.push(up(parent));
    for PrivateBridge { bridge, port } in bridges {
        plan.push(port.clone());
        plan.push(bridge.clone());
        plan.extend(guard_node(&bridge.name));
        plan.push(Port { name: port.name.clone(), bridge: Some(bridge.name.clone()) });
        plan.push(up(&port.name));
        plan.push(up(&bridge.name));
    }
    plan
}

fn up(name: &IfName) -> Up {
    Up { name: name.clone(), down_after: false }
}

/// Guests reach the node itself through the bridge, and must not reconfigure it.
fn guard_node(bridge: &IfName) -> impl Iterator<Item = Sysctl> {
    let keys = [(Family::V4, "accept_redirects"), (Family::V6, "accept_ra"), (Family::V6, "accept_redirects")];
    keys.into_iter().map(|(family, key)| {
        let (interface, value) = (Some(bridge.clone()), Setting { want: 0, before: None });
        Sysctl { family, group: SysctlGroup::Conf, interface, key, value }
    })
}
