//! Bridges of the node for private networks: each has a VLAN of one device, and all that joins it is in that VLAN.

use crate::addr::{Family, IfName};
use crate::plan::{Bridge, Change, Folder, Object, Plan, Port, Sysctl, Up, VlanDevice};

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
    // A VLAN device cannot be up without it.
    let mut objects = vec![up(parent)];
    for it in bridges {
        objects.extend([Object::VlanDevice(it.port.clone()), Object::Bridge(it.bridge.clone())]);
    }
    objects.extend(bridges.iter().flat_map(|it| guard_node(&it.bridge.name)));
    for PrivateBridge { bridge, port } in bridges {
        objects.push(Object::Port(Port { name: port.name.clone(), bridge: Some(bridge.name.clone()) }));
    }
    objects.extend(bridges.iter().flat_map(|it| [up(&it.port.name), up(&it.bridge.name)]));
    Plan { objects, ..Plan::default() }
}

fn up(name: &IfName) -> Object {
    Object::Up(Up { name: name.clone(), down_after: false })
}

/// Guests reach the node itself through the bridge, and must not reconfigure it.
fn guard_node(bridge: &IfName) -> impl Iterator<Item = Object> {
    let keys = [(Family::V4, "accept_redirects"), (Family::V6, "accept_ra"), (Family::V6, "accept_redirects")];
    keys.into_iter().map(|(family, key)| {
        let (interface, value) = (Some(bridge.clone()), Change { want: 0, before: None });
        Object::Sysctl(Sysctl { family, folder: Folder::Conf, interface, key, value })
    })
}
