//! What one Plan has and another has not. Pure.

use crate::plan::{Link, Object, Plan};
use crate::ruleset::Element;

/// The objects and elements of `old` that `new` has not. VLANs of a port that moves are none: they go when it leaves.
pub fn difference(old: &Plan, new: &Plan) -> Plan {
    let moves = Plan {
        objects: old
            .objects
            .iter()
            .filter(|it| matches!(it, Object::Port(_)) && !new.objects.contains(it))
            .cloned()
            .collect(),
        ..Plan::default()
    };
    Plan {
        tables: Vec::new(),
        elements: old.elements.iter().filter(|it| !new.elements.contains(it)).cloned().collect(),
        objects: old.objects.iter().filter(|it| !goes_with_port(it, &moves)).filter_map(|it| less(it, new)).collect(),
        announcements: Vec::new(),
    }
}

/// What of `old` nobody needs while `other` stays as it is: its elements go alone, not in one transaction with new ones, so
/// that none may have the key of an element which stays.
pub fn leftover(old: &Plan, other: &Plan) -> Plan {
    let mut leftover = difference(old, other);
    let same_key = |a: &Element, b: &Element| (a.family, &a.set, &a.key) == (b.family, &b.set, &b.key);
    leftover.elements.retain(|it| !other.elements.iter().any(|stays| same_key(it, stays)));
    leftover
}

/// What of an object another Plan does not replace.
fn less(object: &Object, new: &Plan) -> Option<Object> {
    match (object, new.objects.iter().find(|other| same_place(object, other))) {
        (object, None) => Some(object.clone()),
        // A bridge's MTU is none of the business of a NIC that leaves it, and whose new place has no MTU of its own.
        (Object::Link(Link { name, mtu: Some(mtu), .. }), Some(Object::Link(Link { mtu: None, .. }))) => {
            Some(Object::Link(Link { name: name.clone(), mac: None, mtu: Some(*mtu) }))
        }
        _ => None,
    }
}

/// Whether two objects are one place in the kernel that holds one value: making the one replaces the other.
fn same_place(one: &Object, other: &Object) -> bool {
    match (one, other) {
        (Object::Sysctl(a), Object::Sysctl(b)) => a.path() == b.path(),
        (Object::Link(a), Object::Link(b)) => a.name == b.name,
        (Object::Port(a), Object::Port(b)) => a.name == b.name,
        (Object::GroupForwarding(a), Object::GroupForwarding(b)) => a.name == b.name,
        (Object::PortVlans(a), Object::PortVlans(b)) => a.port == b.port,
        (Object::OvsPort(a), Object::OvsPort(b)) => (&a.socket, &a.name) == (&b.socket, &b.name),
        (Object::Up(a), Object::Up(b)) => a.name == b.name,
        (Object::Binding(a), Object::Binding(b)) => a.path == b.path,
        (a, b) => a == b,
    }
}

/// Whether an object is the VLANs of a port that leaves its bridge when `gone` is removed: they go with it.
pub(super) fn goes_with_port(object: &Object, gone: &Plan) -> bool {
    let Object::PortVlans(vlans) = object else { return false };
    gone.objects.iter().any(|it| matches!(it, Object::Port(port) if port.name == vlans.port))
}
