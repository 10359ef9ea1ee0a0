//! `status -v`: the way of the packets of a NIC, step by step, by its Plan. Each step tells what of the Plan makes it, and
//! whether that stands.

use crate::addr::IfName;
use crate::commands::inspect::{Condition, Inspection, NicRow, UplinkRow};
use crate::commands::replace::OneKnown;
use crate::kernel::nftables::Drops;
use crate::object::{Object, Plan, RuleSelector, Sysctl, Verb};
use crate::ruleset::{Chain, Element, Field, Group, HookPoint, Name, Statement, TableFamily};
use crate::setup::{dropped, filtered};
use crate::verify::{Drift, Thing};

/// Of mangle PREROUTING (NF_IP_PRI_MANGLE of linux/netfilter_ipv4.h).
const MANGLE: i32 = -150;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    From,
    To,
}

/// A step on the way.
struct Step {
    place: String,
    what: String,
    /// What of the Plan makes it; nothing where it is somebody else's.
    things: Vec<Thing>,
}

/// The ways from and to the guests of all NICs.
pub fn text(inspection: &Inspection) -> String {
    let known = inspection.nics.iter().filter_map(|row| Some((row, row.nic.as_ref().ok()?)));
    let there = known.filter_map(|(row, (recorded, condition))| match condition {
        Condition::There(drift) => Some(of_nic(row, recorded.records.last()?, drift, &inspection.uplinks)),
        // Nothing comes from a TAP that is gone.
        Condition::Gone(_) => None,
    });
    there.collect()
}

fn of_nic(row: &NicRow, known: &OneKnown, drift: &[Drift], uplinks: &[UplinkRow]) -> String {
    let mut text = String::new();
    let passed = |it: &&UplinkRow| known.record.facts.uplinks[it.family as usize].contains(&it.device);
    let uplinks: Vec<_> = uplinks.iter().filter(passed).filter_map(|it| it.uplink.as_ref().ok()).collect();
    let drift: Vec<_> = drift.iter().chain(uplinks.iter().flat_map(|it| &it.1)).cloned().collect();
    let through: Vec<_> = uplinks.iter().map(|it| &it.0.plan).collect();
    for (direction, title) in [(Direction::From, "from the guest"), (Direction::To, "to the guest")] {
        text += &format!("\n{}: {title}\n", row.interface);
        let steps = steps(row, known, direction, &through);
        let width = steps.iter().map(|it| it.place.chars().count()).max().unwrap_or(0);
        for step in &steps {
            text += &format!("  {:<9}  {:<width$}  {}\n", step.state(&drift), step.place, step.what);
            for it in step.drift(&drift) {
                text += &format!("{:15}{it}\n", "");
            }
        }
    }
    for line in filtered::per_tap(&known.plan.elements) {
        text += &format!("  # {line}\n");
    }
    text
}

impl Step {
    fn drift<'d>(&self, drift: &'d [Drift]) -> impl Iterator<Item = &'d Drift> {
        let found = |it: &&Drift| !matches!(it, Drift::Foreign(_)) && self.things.contains(it.thing());
        drift.iter().filter(found)
    }

    fn state(&self, drift: &[Drift]) -> &'static str {
        let mut found = self.drift(drift);
        match found.next() {
            _ if self.things.is_empty() => "-",
            None => "in place",
            Some(Drift::Missing(_)) => "MISSING",
            Some(_) if found.any(|it| matches!(it, Drift::Missing(_))) => "MISSING",
            Some(_) => "DIFFERENT",
        }
    }
}

/// `through`: the Plans of the uplinks that the packets pass.
fn steps(row: &NicRow, known: &OneKnown, direction: Direction, through: &[&Plan]) -> Vec<Step> {
    let OneKnown { record, plan } = known;
    let mut uplinks: Vec<_> = record.facts.uplinks.iter().flatten().collect();
    uplinks.sort_unstable();
    uplinks.dedup();
    let of_uplinks = |place: &IfName, of_it: &dyn Fn(&Object) -> bool, of_others: &str| {
        let step = objects(through, place.as_str(), of_it);
        step.unwrap_or_else(|| others(place.as_str(), of_others))
    };
    let mut steps = Vec::new();
    let filters = |steps: &mut Vec<Step>, at: &[(TableFamily, HookPoint)]| {
        at.iter().for_each(|at| steps.extend(filters(row, plan, direction, *at)));
    };
    use HookPoint::{Forward, Input, Output, Prerouting};
    use TableFamily::{Arp, Bridge, Inet};
    let tap = own_link(row, plan);
    match direction {
        Direction::From => {
            steps.push(tap);
            filters(&mut steps, &[(Bridge, Prerouting), (Arp, Input), (Inet, Prerouting)]);
            steps.extend(objects(&[plan], "nfdhcpd", |it| matches!(it, Object::File(_))));
            steps.extend(rules(plan));
            steps.extend(switch(plan));
            filters(&mut steps, &[(Inet, Forward)]);
            if uplinks.is_empty() && plan.objects.iter().any(|it| matches!(it, Object::Route(_))) {
                steps.push(others("route", "out by what the table says, whose routes are of others"));
            }
            for uplink in uplinks {
                let default = |it: &Object| match it {
                    Object::Route(it) => it.destination.prefix_len() == 0 && it.hop.device() == Some(uplink),
                    _ => false,
                };
                steps.push(of_uplinks(
                    uplink,
                    &default,
                    "out by the table's default route, which node up did not make",
                ));
            }
        }
        Direction::To => {
            for uplink in uplinks {
                steps.extend(objects(&[plan], uplink.as_str(), |it| match it {
                    Object::Sysctl(Sysctl { interface, .. }) => interface.as_ref() == Some(uplink),
                    Object::NeighProxy(it) => it.device == *uplink,
                    _ => false,
                }));
                let rule = |it: &Object| match it {
                    Object::Rule(it) => it.selector == RuleSelector::Iif(uplink.clone()),
                    _ => false,
                };
                steps.push(of_uplinks(uplink, &rule, "in to the table, by no rule of node up"));
            }
            steps.extend(objects(&[plan], "route", |it| matches!(it, Object::Route(_))));
            steps.extend(switch(plan));
            filters(&mut steps, &[(Bridge, Forward), (Bridge, Output), (Inet, Forward), (Arp, Output)]);
            steps.push(tap);
        }
    }
    steps
}

fn others(place: &str, what: &str) -> Step {
    Step { place: place.to_string(), what: what.to_owned(), things: Vec::new() }
}

/// The TAP itself, with all that is set on it.
fn own_link(row: &NicRow, plan: &Plan) -> Step {
    let own = &row.interface;
    let is_set = |it: &Object| matches!(it, Object::Sysctl(it) if it.interface.as_ref() == Some(own));
    let of_it = |it: &&Object| it.lifetime().link() == Some(own) || is_set(it);
    let objects: Vec<_> = plan.objects.iter().filter(of_it).collect();
    if objects.is_empty() {
        return others(own.as_str(), "set up and connected by others");
    }
    let (mut words, mut settings) = (Vec::new(), Vec::new());
    for object in &objects {
        match object {
            Object::Link(it) => {
                words.extend(it.mac.map(|mac| format!("MAC {}", mac.want)));
                words.extend(it.mtu.map(|mtu| format!("MTU {}", mtu.want)));
            }
            Object::Up(_) => words.push("up".to_owned()),
            Object::Sysctl(it) => settings.push(format!("{}.{}={}", it.family.sysctl(), it.key, it.value.want)),
            Object::Port(it) => words.extend(it.bridge.as_ref().map(|bridge| format!("port of {bridge}"))),
            other => words.push(other.to_string()),
        }
    }
    words.append(&mut settings);
    let things = objects.into_iter().cloned().map(Thing::Object).collect();
    Step { place: own.to_string(), what: words.join(", "), things }
}

/// A step of all objects of a kind, unless there are none.
fn objects(plans: &[&Plan], place: &str, of_it: impl Fn(&Object) -> bool) -> Option<Step> {
    let all = plans.iter().flat_map(|it| &it.objects);
    let things: Vec<_> = all.filter(|it| of_it(it)).cloned().map(Thing::Object).collect();
    let words: Vec<_> = things.iter().map(Thing::to_string).collect();
    (!things.is_empty()).then(|| Step { place: place.to_owned(), what: words.join("; "), things })
}

/// The policy rules by mark, and those by interface, which take what has no mark.
fn rules(plan: &Plan) -> impl Iterator<Item = Step> {
    let by_mark = |mark: bool| move |it: &Object| matches!(it, Object::Rule(it) if mark != matches!(it.selector, RuleSelector::Iif(_)));
    [objects(&[plan], "rule", by_mark(true)), objects(&[plan], "rule", by_mark(false))].into_iter().flatten()
}

/// The bridge, or that of Open vSwitch.
fn switch(plan: &Plan) -> Option<Step> {
    plan.objects.iter().find_map(|it| match it {
        Object::Port(it) => Some(others(it.bridge.as_ref()?.as_str(), "the bridge forwards by MAC")),
        Object::OvsPort(port) => {
            let things = vec![Thing::Object(it.clone())];
            Some(Step { place: port.bridge.to_string(), what: it.line(Verb::Add), things })
        }
        _ => None,
    })
}

/// The base chains of the Plan at one hook that look at what goes in this direction, each with the elements that its group has of the
/// NIC, and what was dropped there.
fn filters(row: &NicRow, plan: &Plan, direction: Direction, (family, point): (TableFamily, HookPoint)) -> Vec<Step> {
    let mut chains: Vec<_> = plan
        .tables
        .iter()
        .filter(|table| table.family == family)
        .flat_map(|table| table.chains.iter().map(move |chain| (table, chain)))
        .filter_map(|(table, chain)| Some((chain.hook.filter(|it| it.point == point)?.priority, table, chain)))
        .filter(|it| self::direction(it.2) == direction)
        .collect();
    chains.sort_by_key(|it| it.0);
    let mut steps = Vec::new();
    let mut mangle = None;
    if (family, point, direction) == (TableFamily::Inet, HookPoint::Prerouting, Direction::From) && !chains.is_empty() {
        let what = "mangle, of others: nfdhcpd takes DHCP, router and neighbour solicitations here";
        mangle = Some(others(&format!("{family} {point} {MANGLE}"), what));
    }
    for (priority, table, chain) in &chains {
        if *priority > MANGLE {
            steps.extend(mangle.take());
        }
        let sets = table.looked_up(chain);
        let of_it = |it: &&Element| it.family == family && has_set(table, &it.set, false) && sets.contains(&&it.set);
        let elements: Vec<_> = plan.elements.iter().filter(of_it).collect();
        let words: Vec<_> = elements.iter().map(|it| short(it)).collect();
        let things = elements.into_iter().cloned().map(Thing::Element);
        steps.push(Step {
            place: format!("{family} {point} {priority}"),
            what: format!("chain {}: {}", chain.name, words.join("; ")),
            things: [Thing::Group((*table).clone())].into_iter().chain(things).collect(),
        });
    }
    // All groups of a family count in one set for each direction.
    let counting = plan
        .elements
        .iter()
        .find(|it| it.family == family && chains.iter().any(|(_, table, _)| has_set(table, &it.set, true)));
    steps.extend(counting.map(|element| Step {
        place: format!("{family} dropped"),
        what: count(row, element),
        things: vec![Thing::Element(element.clone())],
    }));
    steps
}

fn has_set(table: &Group, name: &Name, counter: bool) -> bool {
    table.sets.iter().any(|set| set.name == *name && set.counter == counter)
}

/// What comes from an interface is known by it; whatever else is looked at leaves.
fn direction(chain: &Chain) -> Direction {
    let incoming = |it: &Statement| matches!(it, Statement::Lookup { selectors, .. } if selectors.contains(&Field::IifName.into()));
    let from = chain.rules.iter().flat_map(|rule| &rule.0).any(incoming);
    if from { Direction::From } else { Direction::To }
}

/// `sources4 { "tap0" . 10.0.0.2 }`
fn short(element: &Element) -> String {
    let key: Vec<_> = element.key.iter().map(ToString::to_string).collect();
    let data = element.data.as_ref().map(|data| format!(" : {data}")).unwrap_or_default();
    format!("{} {{ {}{data} }}", element.set, key.join(" . "))
}

fn count(row: &NicRow, element: &Element) -> String {
    let of_it = |it: &&Drops| it.family == element.family && it.set == element.set;
    let whose = if element.set == dropped::DROPPED_FROM { "from" } else { "to" };
    match row.drops.iter().find(of_it) {
        Some(it) => format!("{} packets, {} bytes {whose} {}", it.packets, it.bytes, row.interface),
        None => "not counted".to_owned(),
    }
}
