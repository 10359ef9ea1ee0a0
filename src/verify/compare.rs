//! Each kind of object against what stands.

use std::sync::Arc;

use super::{Drift, Thing};
use crate::addr::{Family, IfName};
use crate::kernel::guard::GuardState;
use crate::kernel::observed::Observed;
use crate::kernel::rtnetlink::LinkState;
use crate::object::{
    BridgeVlans, Kind, NeighProxy, Neighbour, Object, OvsPort, Plan, Port, Route, Sysctl, SysctlGroup, Towards, Verb,
    vlan_list,
};
use crate::ruleset::{Element, Group, Name};

/// Base objects of nf_tables.
pub fn table(table: &Arc<Group>, observed: &Observed) -> Option<Drift> {
    let (_, lacking) = observed.lacking.iter().find(|it| it.0 == *table)?;
    let wanted = Thing::Group(Arc::clone(table));
    if lacking.entirely {
        return Some(Drift::Missing(wanted));
    }
    let list = |names: &[Name]| names.join(" ");
    let parts = [
        ("no set", &lacking.sets),
        ("no chain", &lacking.chains),
        ("other rules (of another version, or changed) in chain", &lacking.different),
    ];
    let parts = parts.into_iter().filter(|it| !it.1.is_empty()).map(|(what, names)| format!("{what} {}", list(names)));
    Some(Drift::Different { wanted, found: parts.collect::<Vec<_>>().join("; ") })
}

/// Whether two elements are of one place.
pub fn same_key(one: &Element, other: &Element) -> bool {
    (one.family, &one.set, &one.key) == (other.family, &other.set, &other.key)
}

/// What stands under an element's key.
pub fn stored<'i>(element: &Element, observed: &'i Observed) -> Option<&'i Element> {
    let Some(crate::ruleset::Value::IfName(name)) = element.key.first() else { return None };
    observed.elements.get(name)?.iter().find(|it| same_key(it, element))
}

/// An element, with its data and comment.
pub fn element(element: &Element, observed: &Observed) -> Option<Drift> {
    let thing = |element: &Element| Thing::Element(element.clone());
    match stored(element, observed) {
        None => Some(Drift::Missing(thing(element))),
        Some(found) if found == element => None,
        Some(found) => Some(Drift::Different { wanted: thing(element), found: thing(found).to_string() }),
    }
}

/// What an object found in its place, if not itself.
enum Seen {
    Itself,
    Nothing,
    Other(String),
}

impl Seen {
    fn of<T: PartialEq + ToString>(want: T, found: Option<T>) -> Self {
        match found {
            Some(found) if found == want => Self::Itself,
            Some(found) => Self::Other(found.to_string()),
            None => Self::Nothing,
        }
    }
}

/// An object of any other kind.
pub fn object(object: &Object, observed: &Observed) -> Option<Drift> {
    let link = |name: &IfName| observed.links.get(name);
    let seen = match object {
        Object::Sysctl(it) => sysctl(it, observed),
        Object::Link(it) => match link(&it.name) {
            None => Seen::Nothing,
            Some(found) => {
                let mac = it.mac.filter(|mac| Some(mac.want) != found.mac);
                let mac = mac.map(|_| format!("address {}", found.mac.map_or("none".to_owned(), |it| it.to_string())));
                let mtu = it.mtu.filter(|mtu| mtu.want != found.mtu).map(|_| format!("mtu {}", found.mtu));
                let other: Vec<_> = [mac, mtu].into_iter().flatten().collect();
                if other.is_empty() { Seen::Itself } else { Seen::Other(other.join(" ")) }
            }
        },
        Object::ChecksumGuard(_) => match observed.guard.as_ref().map(GuardState::guard) {
            // One that asks more or less of the kernel is as good.
            Some(Ok(_)) => Seen::Itself,
            Some(Err(wrong)) => Seen::Other(wrong),
            None => Seen::Nothing,
        },
        Object::Clsact(it) => {
            let found = link(&it.device).and_then(|link| observed.ingress.as_ref()?.get(&link.index));
            match found {
                Some(found) if found.ingress_block == Some(it.block) => Seen::Itself,
                Some(found) => Seen::Other(found.to_string()),
                None => Seen::Nothing,
            }
        }
        Object::Rule(it) => {
            if observed.has_rule(it) {
                Seen::Itself
            } else {
                Seen::Nothing
            }
        }
        Object::VlanDevice(it) => device(&it.name, observed),
        Object::Bridge(it) => device(&it.name, observed),
        Object::Port(it) => port(it, observed),
        Object::OvsPort(it) => ovs_port(it, observed),
        Object::PortFlags(it) => {
            match link(&it.name).filter(|link| link.controller != 0 && link.port.group_fwd_mask.is_some()) {
                None => Seen::Nothing,
                Some(link) => match it.differences(&link.port) {
                    nothing if nothing.is_empty() => Seen::Itself,
                    other => Seen::Other(other),
                },
            }
        }
        Object::BridgeVlans(it) => port_vlans(it, observed),
        Object::Up(it) => match link(&it.name) {
            Some(link) if link.up => Seen::Itself,
            Some(_) => Seen::Other("down".to_owned()),
            None => Seen::Nothing,
        },
        Object::Route(it) => route(it, observed),
        Object::Neighbour(it) => neighbour(it, observed),
        Object::NeighProxy(it) => proxy(it, observed),
        Object::File(it) => match observed.files.get(&it.path) {
            Some(Some(text)) if text == it.text.as_bytes() => Seen::Itself,
            Some(Some(_)) => Seen::Other("other content".to_owned()),
            Some(None) | None => Seen::Nothing,
        },
    };
    let wanted = || Thing::Object(object.clone());
    match seen {
        Seen::Itself => None,
        Seen::Nothing => Some(Drift::Missing(wanted())),
        Seen::Other(found) => Some(Drift::Different { wanted: wanted(), found }),
    }
}

/// Whether there is something of an object to remove, also where it differs.
pub fn remains(object: &Object, observed: &Observed) -> bool {
    if let Object::File(it) = object {
        return observed.files.get(&it.path).is_some_and(Option::is_some);
    }
    if let Object::OvsPort(it) = object {
        let found = observed.ovs_ports.get(&(it.socket.clone(), it.name.clone()));
        return matches!(found, Some(Ok(Some(found))) if found.is_of(it));
    }
    self::object(object, observed).is_none()
}

fn sysctl(sysctl: &Sysctl, observed: &Observed) -> Seen {
    let found = setting(sysctl, observed);
    match &sysctl.interface {
        // IPv6 is off here: there is nothing to restrain, and what needs it is missed by name (rule, route).
        Some(name)
            if (sysctl.group, sysctl.family) == (SysctlGroup::Conf, Family::V6)
                && found.is_none()
                && observed.links.contains_key(name) =>
        {
            Seen::Itself
        }
        _ => Seen::of(sysctl.value.want, found),
    }
}

/// What stands in the place of a setting.
pub fn setting(sysctl: &Sysctl, observed: &Observed) -> Option<u32> {
    let Some(name) = &sysctl.interface else { return observed.sysctls.get(&sysctl.place()).copied().flatten() };
    let link = observed.links.get(name)?;
    match sysctl.group {
        SysctlGroup::Node => None,
        SysctlGroup::Neigh => observed.proxy_delays[sysctl.family as usize].get(&link.index).copied(),
        SysctlGroup::Conf => link.setting(sysctl.family, sysctl.key),
    }
}

/// A device of the node: what it is like, its own command says.
fn device(name: &IfName, observed: &Observed) -> Seen {
    if observed.links.contains_key(name) { Seen::Itself } else { Seen::Nothing }
}

fn ovs_port(port: &OvsPort, observed: &Observed) -> Seen {
    match observed.ovs_ports.get(&(port.socket.clone(), port.name.clone())) {
        Some(Ok(Some(found))) if found.stands_as(port) => Seen::Itself,
        Some(Ok(Some(found))) => Seen::Other(format!("a port of {} that differs", found.bridge)),
        Some(Err(error)) => Seen::Other(error.clone()),
        Some(Ok(None)) | None => Seen::Nothing,
    }
}

fn port(port: &Port, observed: &Observed) -> Seen {
    let Some(link) = observed.links.get(&port.name) else { return Seen::Nothing };
    let wanted = port.bridge.as_ref().map(|bridge| observed.links.get(bridge).map_or(u32::MAX, |it| it.index));
    match link.controller {
        controller if controller == wanted.unwrap_or(0) => Seen::Itself,
        0 => Seen::Nothing,
        other => {
            let name = observed.name_of(other).map_or_else(|| format!("if{other}"), IfName::to_string);
            Seen::Other(format!("master {name}"))
        }
    }
}

fn port_vlans(vlans: &BridgeVlans, observed: &Observed) -> Seen {
    let is_port = |link: &&LinkState| link.controller != 0;
    let Some(link) = observed.links.get(&vlans.port).filter(is_port) else {
        // An uplink that left the bridge needs nothing.
        return if vlans.towards == Towards::Outside { Seen::Itself } else { Seen::Nothing };
    };
    let present = observed.vlans.get(&link.index).map_or(&[][..], Vec::as_slice);
    if vlans.changes(present, Verb::Add).iter().all(Vec::is_empty) {
        Seen::Itself
    } else if present.is_empty() {
        Seen::Nothing
    } else {
        Seen::Other(vlan_list(present))
    }
}

/// Whether two routes exclude each other: one prefix of one table with one metric.
pub fn same_place(one: &Route, other: &Route) -> bool {
    (one.table, one.destination, one.metric) == (other.table, other.destination, other.metric)
}

fn route(route: &Route, observed: &Observed) -> Seen {
    let found = observed.routes.get(&(route.table, route.destination)).map_or(&[][..], Vec::as_slice);
    let in_place: Vec<_> = found.iter().filter(|it| same_place(it, route)).collect();
    match in_place.as_slice() {
        [] => Seen::Nothing,
        found if found.contains(&route) => {
            better(route, observed).map_or(Seen::Itself, |it| Seen::Other(it.describe()))
        }
        [found, ..] => Seen::Other(Thing::Object(Object::Route((*found).clone())).to_string()),
    }
}

fn neighbour(neighbour: &Neighbour, observed: &Observed) -> Seen {
    let found = observed.neighbours.get(&neighbour.device).map_or(&[][..], Vec::as_slice);
    match found.iter().find(|it| it.key() == neighbour.key()) {
        None => Seen::Nothing,
        Some(found) if found == neighbour => Seen::Itself,
        Some(found) => Seen::Other(found.describe()),
    }
}

/// A route to the same guest that the kernel prefers. It lists the best one first.
fn better<'o>(route: &Route, observed: &'o Observed) -> Option<&'o Route> {
    let found = observed.routes.get(&(route.table, route.destination))?;
    let metric = |it: &Route| it.metric.unwrap_or_else(|| Route::default_metric(Family::of(it.destination.addr())));
    let is_host = route.destination.prefix_len() == route.destination.max_prefix_len();
    let best = found.iter().min_by_key(|it| metric(it))?;
    (is_host && best != route).then_some(best)
}

fn proxy(proxy: &NeighProxy, observed: &Observed) -> Seen {
    let found = observed.proxies.get(&proxy.address).map_or(&[][..], Vec::as_slice);
    match found.iter().find(|it| it.device == proxy.device) {
        None => Seen::Nothing,
        Some(found) if found.protocol == proxy.protocol => Seen::Itself,
        Some(found) => Seen::Other(format!("protocol {}", found.protocol)),
    }
}

/// What mends the drift of a Plan: what to make of it, in its order, and what stands beside it and must go.
pub fn to_repair(plan: &Plan, drift: Vec<Drift>) -> [Plan; 2] {
    let (mut make, mut gone) = (Plan::default(), Plan::default());
    for drift in drift {
        let (part, thing) = match drift {
            Drift::Missing(thing) | Drift::Different { wanted: thing, .. } => (&mut make, thing),
            Drift::Foreign(thing) => (&mut gone, thing),
        };
        match thing {
            Thing::Group(table) => part.tables.push(table),
            Thing::Element(element) => part.elements.push(element),
            Thing::Object(object) => part.objects.push(object),
        }
    }
    // Whoever joins or leaves a bridge goes down for it, and loses what a port and a link that is up have.
    if make.objects.iter().any(|it| matches!(it, Object::Port(_))) {
        make.objects.clone_from(&plan.objects);
    }
    [make, gone]
}
