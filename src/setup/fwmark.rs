//! The mark of a routing table: what comes from its TAPs and uplinks carries it. By it the node sends its own errors about such a packet
//! where the packet came from; and with ROUTING=mark one policy rule by it stands before all rules by interface, so that routing does not
//! grow with the NICs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::{Family, IfName};
use crate::model::mark::Mark;
use crate::nic::Nic;
use crate::object::{
    self, PREFERENCE_LOCAL_MARK, PREFERENCE_MARK, PROTOCOL_NODE, Plan, RuleSelector, Setting, Sysctl, SysctlGroup,
};
use crate::ruleset::{
    Comment, Datatype, Element, Field, Group, HookPoint, Name, Rule, Set, Statement, TableFamily, Value,
};
use crate::settings::{Fwmark, MarkMask, Routing, Settings};
use crate::setup::node_settings::{FWMARK_REFLECT, reflect_mark};
use crate::setup::shared::hooked;
use crate::setup::{Original, element};

/// What the names of sets begin with; the number of their routing table follows.
const STEERED: &str = "steered_";
const UPLINKS: [&str; 2] = ["uplinks_", "uplinks6_"];
/// Likewise of the chains that mark.
const STEER: &str = "steer_";
/// NFPROTO_IPV4 and NFPROTO_IPV6 of linux/netfilter.h.
const NFPROTO: [Value; 2] = [Value::NfProto(2), Value::NfProto(10)];
/// RTN_UNICAST of linux/rtnetlink.h: not an address of the node itself.
const RTN_UNICAST: u32 = 1;
/// Setting of an interface: the sources of what comes in there are looked up with the packet's mark (ip-sysctl.rst of the kernel).
pub const SRC_VALID_MARK: &str = "src_valid_mark";
/// After mangle PREROUTING (-150), where others write marks or restore those of connections: ours stands in its bits then.
const AFTER_MANGLE: i32 = -145;
/// Before mangle FORWARD and INPUT (-150): the packet has its route, and others need not see our bits, nor keep them with a connection.
const BEFORE_MANGLE: i32 = -155;
/// Behind all that others do in postrouting (NF_IP_PRI_CONNTRACK_HELPER of linux/netfilter_ipv4.h is 300).
const LAST: i32 = 310;

/// Name of the set, of the tables inet and arp, that holds the interfaces whose packets `table` routes.
pub fn steered(table: u32) -> Name {
    format!("{STEERED}{table}").into()
}

/// Name of the set, of the table inet, that holds the interfaces through which `table` reaches the outside.
fn uplinks(table: u32, family: Family) -> Name {
    format!("{}{table}", UPLINKS[family as usize]).into()
}

/// The family of an uplink to which an element of such a set belongs; none of another set.
pub fn family_of(element: &Element) -> Option<Family> {
    Family::BOTH.into_iter().find(|family| element.set.starts_with(UPLINKS[*family as usize]))
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
    let [uplinks4, uplinks6] = Family::BOTH.map(|family| uplinks(table, family));
    [of(TableFamily::Inet, &[steered(table), uplinks4, uplinks6]), of(TableFamily::Arp, &[steered(table)])]
}

/// Marks what comes from the TAPs and uplinks of a routing table, in the bits of the mask only, until it is routed. A routing table has
/// its own sets and chains, as the mark is a constant: taking it from a map and keeping the other bits needs Linux 6.13.
///
/// IPv4 from uplinks is also checked by it: the kernel asks the rules whether a source can be reached through the device that a packet
/// will leave by (`__fib_validate_source` of net/ipv4/fib_frontend.c), and would find the answer at the rule of the guest's TAP, behind
/// those of all others. With the mark and the uplink's `src_valid_mark` it finds it at the mark's. What is for the node itself is not
/// marked there, and is checked by table main.
///
/// The mark is cleared in forward and in input, as others need not see it, and what the node answers is not about a guest's packet.
/// Behind postrouting, a packet waits
/// for the address of its neighbour, and when there is none the node reports that to the sender. For this it gets its mark back there,
/// unless others mark it: traffic control would take it for another one.
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
    use Statement::Accept;
    let write =
        |value| Statement::WriteBits { field: Field::Mark, mask: Value::Mark(mark.mask), value: Value::Mark(value) };
    let from = |set| Statement::contained([Field::IifName.into()], set);
    let from_uplinks = |family: Family, rest: &[Statement]| {
        let of = [Statement::equal(Field::NfProto, NFPROTO[family as usize].clone()), from(uplinks(table, family))];
        Rule([&of, rest].concat())
    };
    let unicast = Statement::equal(Field::DaddrType, Value::FibAddrType(RTN_UNICAST));
    let from_all = |uplinks: &[Family], first: &[Statement], value| {
        let of_all = |rest: &[Statement]| Rule([first, rest, &[write(value), Accept]].concat());
        let of_taps = [of_all(&[from(steered(table))])];
        of_taps.into_iter().chain(uplinks.iter().map(|family| of_all(&from_uplinks(*family, &[]).0))).collect()
    };
    let unmarked = Statement::equal(Field::Mark, Value::Mark(0));
    let steer = format!("{STEER}{table}");
    let [mut inet, mut arp] = sets(table);
    inet.chains = vec![
        hooked(
            steer.clone(),
            HookPoint::Prerouting,
            AFTER_MANGLE,
            vec![
                Rule::from([from(steered(table)), write(mark.value), Accept]),
                from_uplinks(Family::V4, &[unicast, write(mark.value)]),
                from_uplinks(Family::V6, &[write(mark.value)]),
            ],
        ),
        hooked(format!("clear_{table}"), HookPoint::Forward, BEFORE_MANGLE, from_all(&Family::BOTH, &[], 0)),
        hooked(format!("clear_input_{table}"), HookPoint::Input, BEFORE_MANGLE, from_all(&[Family::V6], &[], 0)),
        hooked(
            format!("remark_{table}"),
            HookPoint::Postrouting,
            LAST,
            from_all(&Family::BOTH, &[unmarked], mark.value),
        ),
    ];
    arp.chains = vec![hooked(steer, HookPoint::Input, 0, vec![Rule::from([from(steered(table)), write(mark.value)])])];
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
pub fn rule(family: Family, table: u32, selector: RuleSelector, shared: bool) -> object::Rule {
    let preference = preference(&selector);
    object::Rule { family, selector, table, preference, protocol: PROTOCOL_NODE, shared }
}

fn preference(selector: &RuleSelector) -> u32 {
    if matches!(selector, RuleSelector::LocalMark(_)) { PREFERENCE_LOCAL_MARK } else { PREFERENCE_MARK }
}

/// The rules of ours by marks that, by the settings, their tables have no more.
pub fn former_rules<'r>(rules: &'r [object::Rule], settings: &Settings) -> impl Iterator<Item = &'r object::Rule> {
    let is_former = |rule: &object::Rule| settings.fwmark(rule.table).is_none_or(|it| it.selector() != rule.selector);
    rules.iter().filter(move |rule| own_mark(rule).is_some() && is_former(rule))
}

/// The mark of a rule of ours.
pub fn own_mark(rule: &object::Rule) -> Option<Mark> {
    match rule.selector {
        RuleSelector::Mark(mark) | RuleSelector::LocalMark(mark) => {
            Some(mark).filter(|_| (rule.preference, rule.protocol) == (preference(&rule.selector), PROTOCOL_NODE))
        }
        RuleSelector::Iif(_) => None,
    }
}

/// That what the node reports about a packet of this table is routed by it.
pub fn for_errors(family: Family, table: u32, fwmark: Fwmark, before: &Original) -> (Sysctl, object::Rule) {
    (reflect_mark(family, before.setting(family, FWMARK_REFLECT)), rule(family, table, fwmark.selector(), false))
}

/// Adds the mark of what comes in on one family of an uplink, and the rule by it; with ROUTING=mark also that the check of IPv4 sources
/// goes by it.
pub fn add_uplink(device: &IfName, family: Family, table: u32, fwmark: Fwmark, before: &Original, plan: &mut Plan) {
    let [inet, _] = tables(table, fwmark.mark);
    plan.tables.push(inet);
    plan.elements.push(Element {
        family: TableFamily::Inet,
        set: uplinks(table, family),
        key: vec![Value::IfName(device.clone())],
        data: None,
        comment: Some(Comment::new("uplink")),
    });
    let (reflect, rule) = for_errors(family, table, fwmark, before);
    plan.push(reflect);
    plan.push(rule);
    if (family, fwmark.routing) == (Family::V4, Routing::Mark) {
        let value = Setting { want: 1, before: before.setting(Family::V4, SRC_VALID_MARK) };
        let interface = Some(device.clone());
        plan.push(Sysctl { family, group: SysctlGroup::Conf, interface, key: SRC_VALID_MARK, value });
    }
}

/// Adds the mark of a NIC's packets, where its table has one.
pub fn add(nic: &Nic, table: u32, settings: &Settings, plan: &mut Plan) {
    let Some(fwmark) = settings.fwmark(table) else { return };
    let [inet, arp] = tables(table, fwmark.mark);
    let has = |family| nic.endpoint(family).is_some();
    let families = || Family::BOTH.into_iter().filter(|family| has(*family));
    if families().next().is_some() {
        plan.tables.push(inet);
        plan.elements.push(element(nic, TableFamily::Inet, steered(table), []));
    }
    if has(Family::V4) && fwmark.routing == Routing::Mark {
        plan.tables.push(arp);
        plan.elements.push(element(nic, TableFamily::Arp, steered(table), []));
    }
    for family in families() {
        plan.push(reflect_mark(family, None));
        plan.push(rule(family, table, fwmark.selector(), true));
    }
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
        let ours = |table, text| rule(Family::V4, table, RuleSelector::Mark(mark(text)), false);
        let local = |table, text| rule(Family::V4, table, RuleSelector::LocalMark(mark(text)), false);
        let rules = [
            local(100, "0x6400000/0xfff00000"),
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
        assert_eq!(former(&settings), [0, 2, 3]);
        settings.routing_mark_mask = "0xff00".parse().expect("a mask");
        assert_eq!(former(&settings), [0, 1, 3]);
        settings.routing = Routing::Rule;
        assert_eq!(former(&settings), [0, 1, 2, 3]);
        settings.routing_mark_mask = MarkMask::DEFAULT;
        assert_eq!(former(&settings), [1, 2, 3]);
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
