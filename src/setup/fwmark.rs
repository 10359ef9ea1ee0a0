//! Routing that does not grow with the NICs: what comes from the TAPs of a routing table, and what comes in for them, carries a mark,
//! and one policy rule by it stands before all rules by interface.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::{Family, IfName};
use crate::model::mark::Mark;
use crate::nic::Nic;
use crate::object::{self, PREFERENCE_MARK, PROTOCOL_NODE, Plan, RuleSelector, Setting, Sysctl, SysctlGroup};
use crate::ruleset::{
    Comment, Datatype, Element, Field, Group, HookPoint, Name, Rule, Set, Statement, TableFamily, Value,
};
use crate::settings::{MarkMask, Settings};
use crate::setup::shared::hooked;
use crate::setup::{Original, element};

/// What the names of sets begin with; the number of their routing table follows.
const STEERED: &str = "steered_";
const UPLINKS: &str = "uplinks_";
/// Likewise of the chains that mark.
const STEER: &str = "steer_";
/// NFPROTO_IPV4 of linux/netfilter.h.
const IPV4: Value = Value::NfProto(2);
/// RTN_UNICAST of linux/rtnetlink.h: not an address of the node itself.
const RTN_UNICAST: u32 = 1;
/// Setting of an interface: the sources of what comes in there are looked up with the packet's mark (ip-sysctl.rst of the kernel).
pub const SRC_VALID_MARK: &str = "src_valid_mark";
/// After mangle PREROUTING (-150), where others write marks or restore those of connections: ours stands in its bits then.
const AFTER_MANGLE: i32 = -145;
/// Before mangle FORWARD (-150): the packet has its route, and others need not see our bits, nor keep them with a connection.
const BEFORE_MANGLE: i32 = -155;

/// Name of the set, of the tables inet and arp, that holds the interfaces whose packets `table` routes.
pub fn steered(table: u32) -> Name {
    format!("{STEERED}{table}").into()
}

/// Name of the set, of the table inet, that holds the interfaces through which `table` reaches the outside by IPv4.
fn uplinks(table: u32) -> Name {
    format!("{UPLINKS}{table}").into()
}

/// The routing tables that have a set, by the names of all sets of the table inet.
pub fn steered_tables(sets: &[String]) -> Vec<u32> {
    sets.iter().filter_map(|set| set.strip_prefix(STEERED)?.parse().ok()).collect()
}

/// The sets of a routing table, without the chains: these depend on its mark.
pub fn sets(table: u32) -> [Group; 2] {
    let of = |family, names: &[Name]| {
        let sets = names.iter().map(|name| Set::new(name.clone(), [Datatype::IfName])).collect();
        Group { family, sets, chains: Vec::new() }
    };
    [of(TableFamily::Inet, &[steered(table), uplinks(table)]), of(TableFamily::Arp, &[steered(table)])]
}

/// Marks what comes from the TAPs of a routing table, in the bits of the mask only, until it is routed. A routing table has its own
/// sets and chains, as the mark is a constant: taking it from a map and keeping the other bits needs Linux 6.13.
///
/// And IPv4 from its uplinks: the kernel asks the rules whether a source can be reached through the device that a packet will leave
/// by (`__fib_validate_source` of net/ipv4/fib_frontend.c), and would find the answer at the rule of the guest's TAP, behind those of
/// all others. With the mark and the uplink's `src_valid_mark` it finds it at the mark's. What is for the node itself stays as it is, and
/// is checked by table main.
///
/// In the arp table what the node is asked on a TAP: its own answer to a request goes by the routes (arp_process of the
/// kernel's net/ipv4/arp.c).
///
/// Made once in a run for all NICs of the routing table.
pub fn tables(table: u32, mark: Mark) -> [Arc<Group>; 2] {
    type Made = BTreeMap<(u32, Mark), [Arc<Group>; 2]>;
    static MADE: Mutex<Made> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry((table, mark)).or_insert_with(|| make(table, mark).map(Arc::new)).clone()
}

fn make(table: u32, mark: Mark) -> [Group; 2] {
    let write =
        |value| Statement::WriteBits { field: Field::Mark, mask: Value::Mark(mark.mask), value: Value::Mark(value) };
    let from = |set| Statement::contained([Field::IifName.into()], set);
    let from_taps = |value| Rule::from([from(steered(table)), write(value)]);
    let from_uplinks = |rest: &[Statement]| {
        let ipv4 = [Statement::equal(Field::NfProto, IPV4), from(uplinks(table))];
        Rule([&ipv4, rest].concat())
    };
    let in_passing = Statement::equal(Field::DaddrType, Value::FibAddrType(RTN_UNICAST));
    let steer = format!("{STEER}{table}");
    let [mut inet, mut arp] = sets(table);
    inet.chains = vec![
        hooked(
            steer.clone(),
            HookPoint::Prerouting,
            AFTER_MANGLE,
            vec![from_taps(mark.value), from_uplinks(&[in_passing, write(mark.value)])],
        ),
        hooked(
            format!("clear_{table}"),
            HookPoint::Forward,
            BEFORE_MANGLE,
            vec![from_taps(0), from_uplinks(&[write(0)])],
        ),
    ];
    arp.chains = vec![hooked(steer, HookPoint::Input, 0, vec![from_taps(mark.value)])];
    [inet, arp]
}

/// Their chains alone, under a mask; where the number of the routing table does not fit into it, they mark nothing.
pub fn chains_under(mask: MarkMask, table: u32) -> [Group; 2] {
    let mark = mask.of_table(table);
    make(table, mark.unwrap_or(Mark { value: 0, mask: 0 })).map(|mut tables| {
        tables.sets.clear();
        if mark.is_none() {
            tables.chains.iter_mut().for_each(|chain| chain.rules.clear());
        }
        tables
    })
}

/// The mask under which chains of these tables mark, if any does.
pub fn mask_of(tables: &[Arc<Group>]) -> Option<MarkMask> {
    let chains = tables.iter().flat_map(|table| &table.chains).filter(|chain| chain.name.starts_with(STEER));
    chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.0).find_map(|statement| match *statement {
        Statement::WriteBits { mask: Value::Mark(mask), value: Value::Mark(value), .. } => {
            Some(MarkMask::of(Mark { value, mask }))
        }
        _ => None,
    })
}

/// The rule by the mark. It is the table's, not a NIC's: `shared` where a NIC's Plan only makes sure of it.
pub fn rule(family: Family, table: u32, mark: Mark, shared: bool) -> object::Rule {
    let selector = RuleSelector::Mark(mark);
    object::Rule { family, selector, table, preference: PREFERENCE_MARK, protocol: PROTOCOL_NODE, shared }
}

/// The rules of ours by marks that, by the settings, their tables have no more.
pub fn former_rules<'r>(rules: &'r [object::Rule], settings: &Settings) -> impl Iterator<Item = &'r object::Rule> {
    rules.iter().filter(|rule| own_mark(rule).is_some_and(|mark| settings.mark(rule.table) != Some(mark)))
}

/// The mark of a rule of ours.
pub fn own_mark(rule: &object::Rule) -> Option<Mark> {
    match rule.selector {
        RuleSelector::Mark(mark) => {
            Some(mark).filter(|_| (rule.preference, rule.protocol) == (PREFERENCE_MARK, PROTOCOL_NODE))
        }
        RuleSelector::Iif(_) => None,
    }
}

/// Adds the rule by the mark, for one family of an uplink; and of IPv4, the mark of the packets that come in there, and that the check
/// of their source goes by it.
pub fn add_uplink(device: &IfName, family: Family, table: u32, mark: Mark, before: &Original, plan: &mut Plan) {
    plan.push(rule(family, table, mark, false));
    // Of IPv6, so that no rule by a mark stands beside chains that mark under another mask.
    let [inet, _] = tables(table, mark);
    plan.tables.push(inet);
    if family == Family::V6 {
        return;
    }
    plan.elements.push(Element {
        family: TableFamily::Inet,
        set: uplinks(table),
        key: vec![Value::IfName(device.clone())],
        data: None,
        comment: Some(Comment::new("uplink")),
    });
    let value = Setting { want: 1, before: before.setting(Family::V4, SRC_VALID_MARK) };
    let interface = Some(device.clone());
    plan.push(Sysctl { family: Family::V4, group: SysctlGroup::Conf, interface, key: SRC_VALID_MARK, value });
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
    plan.extend(families.map(|family| rule(family, table, mark, true)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Routing;

    fn mark(text: &str) -> Mark {
        text.parse().expect("a mark")
    }

    #[test]
    fn rules_are_former_by_the_settings_alone() {
        let ours = |table, text| rule(Family::V4, table, mark(text), false);
        let rules = [
            ours(100, "0x6400000/0xfff00000"),
            ours(100, "0x6400/0xff00"),
            ours(5000, "0x6400000/0xfff00000"),
            object::Rule { preference: 20_049, ..ours(100, "0x1/0x1") },
            object::Rule { protocol: 99, ..ours(100, "0x1/0x1") },
            object::Rule { selector: RuleSelector::Iif("tap0".parse().expect("a name")), ..ours(100, "0x1/0x1") },
        ];
        let former = |settings: &Settings| {
            let former = former_rules(&rules, settings);
            former.filter_map(|it| rules.iter().position(|rule| rule == it)).collect::<Vec<_>>()
        };
        let mut settings = Settings::default();
        assert_eq!(former(&settings), [1, 2]);
        settings.routing_mark_mask = "0xff00".parse().expect("a mask");
        assert_eq!(former(&settings), [0, 2]);
        settings.routing = Routing::Rule;
        assert_eq!(former(&settings), [0, 1, 2]);
    }

    #[test]
    fn the_mask_of_tables_is_that_of_their_marks() {
        let mask: MarkMask = "0xff000000".parse().expect("a mask");
        let of = |tables: [Group; 2]| mask_of(&tables.map(Arc::new));
        assert_eq!(of(chains_under(mask, 6)), Some(mask));
        assert!(chains_under(mask, 6).iter().all(|it| it.sets.is_empty() && !it.chains.is_empty()));
        // A number that does not fit: the chains are there, and mark nothing.
        assert_eq!(of(chains_under(mask, 256)), None);
        assert!(chains_under(mask, 256).iter().flat_map(|it| &it.chains).all(|it| it.rules.is_empty()));
        assert_eq!(mask_of(&tables(6, mark("0x600000/0xfff00000"))), Some(MarkMask::DEFAULT));
        assert_eq!(of(sets(6)), None);
    }
}
