//! Routing that does not grow with the NICs: what comes from the TAPs of a routing table carries a mark, and one policy rule by
//! it stands before all rules by interface.

use crate::addr::Family;
use crate::nic::Nic;
use crate::plan::{Mark, Object, PREFERENCE_MARK, PROTOCOL_NODE, Plan, Rule, RuleSelector};
use crate::ruleset::{self, Datatype, Field, HookPoint, Name, Set, Statement, Table, TableFamily, Value};
use crate::settings::Settings;
use crate::setup::base::hooked;
use crate::setup::element;

/// What the name of a set begins with; the number of its routing table follows.
const STEERED: &str = "steered_";
/// After mangle PREROUTING (-150), where others write marks or restore those of connections: ours stands in its bits then.
const AFTER_MANGLE: i32 = -145;
/// Before mangle FORWARD (-150): the packet has its route, and others need not see our bits, nor keep them with a connection.
const BEFORE_MANGLE: i32 = -155;

/// Name of the set, of the tables inet and arp, that holds the interfaces whose packets `table` routes.
pub fn steered(table: u32) -> Name {
    format!("{STEERED}{table}").into()
}

/// The routing tables that have a set, by the names of all sets of the table inet.
pub fn steered_tables(sets: &[String]) -> Vec<u32> {
    sets.iter().filter_map(|set| set.strip_prefix(STEERED)?.parse().ok()).collect()
}

/// The sets of a routing table, without the chains: these depend on its mark.
pub fn sets(table: u32) -> [Table; 2] {
    [TableFamily::Inet, TableFamily::Arp].map(|family| Table {
        family,
        sets: vec![Set::new(steered(table), [Datatype::IfName])],
        chains: Vec::new(),
    })
}

/// Marks what comes from the TAPs of a routing table, in the bits of the mask only, until it is routed. A routing table has its own
/// set and chains, as the mark is a constant: taking it from a map and keeping the other bits needs Linux 6.13.
///
/// In the arp table what the node is asked on a TAP: its own answer to a request goes by the routes (arp_process of the
/// kernel's net/ipv4/arp.c).
pub fn tables(table: u32, mark: Mark) -> [Table; 2] {
    let from_taps = |value| {
        let write =
            Statement::WriteBits { field: Field::Mark, mask: Value::Mark(mark.mask), value: Value::Mark(value) };
        vec![ruleset::Rule::from([Statement::contained([Field::IifName.into()], steered(table)), write])]
    };
    let steer = |point, priority| hooked(format!("steer_{table}"), point, priority, from_taps(mark.value));
    let clear = hooked(format!("clear_{table}"), HookPoint::Forward, BEFORE_MANGLE, from_taps(0));
    let [mut inet, mut arp] = sets(table);
    inet.chains = vec![steer(HookPoint::Prerouting, AFTER_MANGLE), clear];
    arp.chains = vec![steer(HookPoint::Input, 0)];
    [inet, arp]
}

/// The rule by the mark. It is the table's, not a NIC's: `shared` where a NIC's Plan only makes sure of it.
pub fn rule(family: Family, table: u32, mark: Mark, shared: bool) -> Rule {
    let selector = RuleSelector::Mark(mark);
    Rule { family, selector, table, preference: PREFERENCE_MARK, protocol: PROTOCOL_NODE, shared }
}

/// Adds the mark of a NIC's packets, where the settings want one.
pub fn add(nic: &Nic, table: u32, settings: &Settings, plan: &mut Plan) {
    let Some(mark) = settings.mark(table) else { return };
    let [inet, arp] = tables(table, mark);
    let has = |family| nic.endpoint(family).is_some();
    if has(Family::V4) || has(Family::V6) {
        plan.tables.push(inet);
        plan.elements.push(element(nic, TableFamily::Inet, steered(table), []));
    }
    if has(Family::V4) {
        plan.tables.push(arp);
        plan.elements.push(element(nic, TableFamily::Arp, steered(table), []));
    }
    let families = Family::BOTH.into_iter().filter(|family| has(*family));
    plan.objects.extend(families.map(|family| Object::Rule(rule(family, table, mark, true))));
}
