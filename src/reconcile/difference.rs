//! What one Plan has and another has not. Pure.

use crate::object::{Lifetime, Link, Object, Plan};
use crate::ruleset::Element;

/// The objects and elements of `old` that `new` has not. What goes with a port is not among them where the port moves.
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
    match (object, new.objects.iter().find(|other| object.is_covered_by(other))) {
        (object, None) => Some(object.clone()),
        // A bridge's MTU is none of the business of a NIC that leaves it, and whose new place has no MTU of its own.
        (Object::Link(Link { name, mtu: Some(mtu), .. }), Some(Object::Link(Link { mtu: None, .. }))) => {
            Some(Object::Link(Link { name: name.clone(), mac: None, mtu: Some(*mtu) }))
        }
        _ => None,
    }
}

/// Whether an object goes with a port that leaves its bridge when `gone` is removed.
pub(super) fn goes_with_port(object: &Object, gone: &Plan) -> bool {
    let Lifetime::WithPort(name) = object.lifetime() else { return false };
    gone.objects.iter().any(|it| matches!(it, Object::Port(port) if port.name == *name))
}
