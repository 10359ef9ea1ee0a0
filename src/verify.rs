//! The third walk over a Plan: what of it does not stand, and what stands in its name beside it. Pure: it compares a Plan with
//! an [`Observed`].

mod compare;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use self::compare::to_repair;
use crate::addr::{Family, IfName};
use crate::kernel::observed::{FoundProxy, Observed};
use crate::object::{Kind, Lifetime, NeighProxy, Neighbour, Object, PROTOCOL_NIC, PROTOCOL_NODE, Plan, Route, Rule};
use crate::ruleset::{Element, Group, TABLE};
use crate::setup;

/// Something that stands, or should.
#[derive(Clone, Debug, PartialEq)]
pub enum Thing {
    /// Base objects of nf_tables.
    Group(Arc<Group>),
    /// An element of a set.
    Element(Element),
    /// Anything else.
    Object(Object),
}

impl Thing {
    /// The guest's address, of what leads packets for it to its node and its TAP.
    pub fn guest_address(&self) -> Option<IpAddr> {
        match self {
            Self::Object(Object::Route(it)) => guest(it).map(|it| it.0),
            Self::Object(Object::NeighProxy(it)) => Some(it.address),
            _ => None,
        }
    }
}

/// A difference between a Plan and what stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Drift {
    /// It does not stand.
    Missing(Thing),
    /// Something else stands in its place, or it stands in part.
    Different {
        /// What should stand.
        wanted: Thing,
        /// What does.
        found: String,
    },
    /// It stands in the Plan's name, and is not in it.
    Foreign(Thing),
}

impl Drift {
    /// `missing`, `different` or `foreign`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Different { .. } => "different",
            Self::Foreign(_) => "foreign",
        }
    }

    /// What should stand, or should not.
    pub fn thing(&self) -> &Thing {
        match self {
            Self::Missing(thing) | Self::Foreign(thing) | Self::Different { wanted: thing, .. } => thing,
        }
    }

    /// What stands in its place.
    pub fn found(&self) -> Option<&str> {
        match self {
            Self::Different { found, .. } => Some(found),
            Self::Missing(_) | Self::Foreign(_) => None,
        }
    }
}

/// As an administrator says it: `missing: ip rule iif tap3 lookup 100 pref 20100 protocol 217`.
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind(), self.thing())?;
        self.found().map_or(Ok(()), |found| write!(f, ", found: {found}"))
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(table) => {
                write!(f, "nft table {} {TABLE}:", table.family)?;
                table.chains.iter().try_for_each(|chain| write!(f, " {}", chain.name))
            }
            Self::Element(element) => {
                f.write_str("nft ")?;
                element.write_object(f)
            }
            Self::Object(object) => object.fmt(f),
        }
    }
}

/// Whose Plan it is: so far other things that stand in this name are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A NIC, by its TAP.
    Nic(IfName),
    /// One family of the node's uplink.
    Uplink(IfName, Family),
}

impl Owner {
    /// The interface.
    pub fn interface(&self) -> &IfName {
        match self {
            Self::Nic(name) | Self::Uplink(name, _) => name,
        }
    }

    fn protocol(&self) -> u8 {
        match self {
            Self::Nic(_) => PROTOCOL_NIC,
            Self::Uplink(..) => PROTOCOL_NODE,
        }
    }

    fn has(&self, family: Family) -> bool {
        match self {
            Self::Nic(_) => true,
            Self::Uplink(_, own) => *own == family,
        }
    }
}

/// How the Plan of `owner` differs from what stands, in the Plan's order; what stands beside it comes last.
pub fn verify(owner: &Owner, plan: &Plan, observed: &Observed) -> Vec<Drift> {
    let mut drift = Vec::new();
    for table in &plan.tables {
        drift.extend(compare::table(table, observed));
    }
    for element in &plan.elements {
        drift.extend(compare::element(element, observed));
    }
    for object in &plan.objects {
        drift.extend(compare::object(object, observed));
    }
    // What stands in the place of something wanted has been named.
    drift.extend(in_name_of(owner, plan, observed).into_iter().map(Drift::Foreign));
    drift
}

/// What stands in the name of an interface, by its protocol number or in our sets, in no place of a Plan.
pub fn in_name_of(owner: &Owner, plan: &Plan, observed: &Observed) -> Vec<Thing> {
    let (name, protocol) = (owner.interface(), owner.protocol());
    let elements = observed.elements.get(name).into_iter().flatten();
    let elements = elements.filter(|it| owner.has(setup::family_of(it)));
    let elements = elements.filter(|found| !plan.elements.iter().any(|it| compare::same_key(it, found)));
    let mut things: Vec<_> = elements.cloned().map(Thing::Element).collect();
    let rules = observed.rules.get(name).into_iter().flatten();
    let rules = rules.filter(|it| it.protocol == protocol && owner.has(it.family));
    let is = |object: &Object, found: &Rule| matches!(object, Object::Rule(it) if it == found);
    let rules = rules.filter(|found| !plan.objects.iter().any(|it| is(it, found)));
    things.extend(rules.cloned().map(Object::Rule).map(Thing::Object));
    let routes = observed.routes_of(name, protocol).filter(|it| owner.has(Family::of(it.destination.addr())));
    let is = |object: &Object, found: &Route| matches!(object, Object::Route(it) if compare::same_place(it, found));
    let routes = routes.filter(|found| !plan.objects.iter().any(|it| is(it, found)));
    things.extend(routes.cloned().map(Object::Route).map(Thing::Object));
    let neighbours = observed.neighbours.get(name).into_iter().flatten();
    let neighbours = neighbours.filter(|it| it.protocol == protocol && owner.has(Family::of(it.address)));
    let is = |object: &Object, found: &Neighbour| matches!(object, Object::Neighbour(it) if it.key() == found.key());
    let neighbours = neighbours.filter(|found| !plan.objects.iter().any(|it| is(it, found)));
    things.extend(neighbours.cloned().map(Object::Neighbour).map(Thing::Object));
    let port = observed.own_ports.get(name).filter(|_| matches!(owner, Owner::Nic(_)));
    things.extend(port.cloned().map(|it| Thing::Object(it.into())));
    things
}

/// What of a Plan stands and would not go with its link: for one whose link is gone.
pub fn leftovers(plan: &Plan, observed: &Observed) -> Vec<Thing> {
    let mut things = Vec::new();
    for element in &plan.elements {
        // Whatever its data: the key is what would go.
        if compare::stored(element, observed).is_some() {
            things.push(Thing::Element(element.clone()));
        }
    }
    let left = |it: &&Object| it.lifetime() == Lifetime::Own && compare::remains(it, observed);
    things.extend(plan.objects.iter().filter(left).cloned().map(Thing::Object));
    things
}

/// The settings of a device that stand as a Plan had them, and not as they were before it: for one that stays when the Plan goes.
pub fn left_settings(device: &IfName, plan: &Plan, observed: &Observed) -> Vec<Thing> {
    let is_left = |it: &&Object| {
        let Object::Sysctl(it) = it else { return false };
        let changed = it.value.before.is_some_and(|before| before != it.value.want);
        changed && it.interface.as_ref() == Some(device) && compare::setting(it, observed) == Some(it.value.want)
    };
    plan.objects.iter().filter(is_left).cloned().map(Thing::Object).collect()
}

/// The things of a NIC that stand though no Plan among `plans` knows them, by interface: those in the name of one that is not
/// `known`; and proxy entries. The kernel does not tell whose a proxy entry is, but the route to its address does.
pub fn orphans<'a>(
    observed: &Observed,
    known: impl Fn(&IfName) -> bool,
    plans: impl Iterator<Item = &'a Plan>,
) -> Vec<(Option<IfName>, Thing)> {
    let rules = observed.rules.iter();
    let by_rule = rules.filter(|(_, rules)| rules.iter().any(|it| it.protocol == PROTOCOL_NIC)).map(|it| it.0);
    let routes = observed.routes.values().flatten().filter(|it| it.protocol == PROTOCOL_NIC);
    let by_route = routes.filter_map(|it| it.hop.device());
    let neighbours = observed.neighbours.iter();
    let by_neighbour =
        neighbours.filter(|(_, neighbours)| neighbours.iter().any(|it| it.protocol == PROTOCOL_NIC)).map(|it| it.0);
    let names = observed.elements.keys().chain(by_rule).chain(by_route).chain(by_neighbour);
    let names = names.chain(observed.own_ports.keys());
    let mut names: Vec<_> = names.filter(|it| !known(it)).collect();
    names.sort_unstable();
    names.dedup();
    let mut orphans = Vec::new();
    for name in names {
        let things = in_name_of(&Owner::Nic(name.clone()), &Plan::default(), observed);
        orphans.extend(things.into_iter().map(|thing| (Some(name.clone()), thing)));
    }
    let wanted: HashSet<_> = plans
        .flat_map(|plan| &plan.objects)
        .filter_map(|it| if let Object::NeighProxy(it) = it { Some((it.address, &it.device)) } else { None })
        .collect();
    let mut proxies: Vec<_> = observed.proxies.values().flatten().filter(|it| it.protocol == PROTOCOL_NIC).collect();
    proxies.retain(|it| !wanted.contains(&(it.address, &it.device)));
    if proxies.is_empty() {
        return orphans;
    }
    proxies.sort_by(|a, b| (a.address, &a.device).cmp(&(b.address, &b.device)));
    let behind: HashMap<_, _> = observed.routes.values().flatten().filter_map(guest).collect();
    orphans.extend(proxies.into_iter().map(|found| {
        let FoundProxy { address, device, protocol } = found.clone();
        let owner = behind.get(&address).filter(|it| !known(it)).map(|it| (*it).clone());
        let behind = owner.clone().unwrap_or_else(|| device.clone());
        (owner, Thing::Object(Object::NeighProxy(NeighProxy { address, behind, device, protocol })))
    }));
    orphans
}

/// The address that a NIC's host route leads to, and the TAP.
fn guest(route: &Route) -> Option<(IpAddr, &IfName)> {
    let is_host = route.destination.prefix_len() == route.destination.max_prefix_len();
    let device = route.hop.device().filter(|_| is_host && route.protocol == PROTOCOL_NIC)?;
    Some((route.destination.addr(), device))
}

#[cfg(test)]
mod tests;
