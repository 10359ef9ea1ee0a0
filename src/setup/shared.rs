//! The base objects of our nf_tables tables, made once on a node and then serving every NIC: those of the node's own
//! table arp, and what the objects of all setups have in common.

use std::sync::{Arc, LazyLock};

use crate::addr::IfName;
use crate::ruleset::{
    Chain, Datatype, Element, Field, Group, Hook, HookPoint, Name, Rule, Selector, Set, Statement, TableFamily, Value,
};
use crate::settings::Settings;
use crate::setup::{filtered, firewall, fwmark, host, routed_sources, strict};

/// A table that is the same for every NIC: made once in a run, as `status` and `reconcile` make the Plans of all.
pub type Shared = LazyLock<Arc<Group>>;

/// Map of the arp table: the sender address of the ARP requests that leave an interface.
pub const ARP_SOURCE: &str = "arp_source";

/// An ARP request (linux/if_arp.h).
pub(super) const ARP_REQUEST: Value = Value::ArpOp(1);
/// NF_BR_PRI_NAT_DST_BRIDGED of linux/netfilter_bridge.h: before the bridge learns the source and decides.
pub(super) const BRIDGE_PREROUTING: i32 = -300;
/// NF_BR_PRI_FILTER_BRIDGED: bridge filtering of what is forwarded.
pub(super) const BRIDGE_FORWARD: i32 = -200;
/// NF_BR_PRI_FILTER_OTHER: bridge filtering of what the node sends.
pub(super) const BRIDGE_OUTPUT: i32 = 200;

/// ARP requests carry as sender what [`ARP_SOURCE`] holds for the interface they leave through: the gateway towards a
/// guest, an address of the network towards the router.
pub static ARP: Shared = Shared::new(|| Arc::new(arp()));

fn arp() -> Group {
    let rewrite = Rule::from([
        Statement::equal(Field::ArpOperation, ARP_REQUEST),
        Statement::Write { field: Field::ArpSaddrIp, selectors: vec![Field::OifName.into()], map: ARP_SOURCE.into() },
    ]);
    Group {
        family: TableFamily::Arp,
        sets: vec![Set { data: Some(Datatype::Ipv4Addr), ..Set::new(ARP_SOURCE, [Datatype::IfName]) }],
        chains: vec![hooked("output", HookPoint::Output, 0, vec![rewrite])],
    }
}

/// A base chain.
pub(super) fn hooked(name: impl Into<Name>, point: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), hook: Some(Hook { point, priority }), rules }
}

/// A chain that others lead to.
pub(super) fn chain(name: impl Into<Name>, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), hook: None, rules }
}

/// What goes through an interface of `set` goes on in `chain`.
pub(super) fn members(interface: Field, set: impl Into<Name>, chain: impl Into<Name>) -> Rule {
    Rule::from([Statement::contained([interface.into()], set), Statement::Jump(chain.into())])
}

/// The interface a packet came from and a field, together in `set`.
pub(super) fn from(field: impl Into<Selector>, set: &'static str) -> Statement {
    Statement::contained([Field::IifName.into(), field.into()], set)
}

/// The interface a packet came from and a field, together not in `set`.
pub(super) fn not_from(field: impl Into<Selector>, set: &'static str) -> Statement {
    Statement::not_contained([Field::IifName.into(), field.into()], set)
}

/// A rule that drops what `statements` match, and counts it. In a group of chains, [`super::dropped::counted`] leads it by the NIC's
/// own counter.
pub(super) fn refuse<const LENGTH: usize>(statements: [Statement; LENGTH]) -> Rule {
    Rule(statements.into_iter().chain([Statement::Counter, Statement::Drop]).collect())
}

/// All tables with sets that are keyed by interface. Of the sets that depend on MAC_MASK, those of the mask in force and of
/// the default one; of those of the routing tables (`steered`), [`fwmark::sets`] knows which there are.
pub fn tables(settings: &Settings, steered: &[u32]) -> Vec<Arc<Group>> {
    let shared = [&ARP, &routed_sources::ARP, &routed_sources::INET, &firewall::INET, &firewall::BRIDGE, &host::TABLE];
    let mut tables: Vec<Arc<Group>> =
        shared.into_iter().chain([&filtered::SENDERS, &strict::TABLE]).map(|it| Arc::clone(it)).collect();
    tables.extend(filtered::masks(settings).into_iter().map(|mask| filtered::receivers(mask).into()));
    tables.extend(steered.iter().flat_map(|table| fwmark::sets(*table)).map(Arc::new));
    tables
}

/// Elements one of which stands wherever a NIC has any in [`tables`].
pub fn membership(interface: &IfName, settings: &Settings, steered: &[u32]) -> Vec<Element> {
    let element = |family, set: Name| Element {
        family,
        set,
        key: vec![Value::IfName(interface.clone())],
        data: None,
        comment: None,
    };
    let mut elements = vec![
        element(TableFamily::Arp, ARP_SOURCE.into()),
        element(TableFamily::Arp, routed_sources::GUARDED.into()),
        element(TableFamily::Inet, routed_sources::GUARDED.into()),
        element(TableFamily::Inet, routed_sources::ROUTED.into()),
        element(TableFamily::Inet, host::GUESTS.into()),
        element(TableFamily::Bridge, filtered::FILTERED.into()),
    ];
    for family in [TableFamily::Inet, TableFamily::Bridge] {
        elements.extend([firewall::PROTECTED, firewall::LIMITED].map(|set| element(family, set.into())));
    }
    // strict NICs are filtered ones, too.
    let isolated = filtered::masks(settings).into_iter().map(filtered::isolated);
    elements.extend(isolated.map(|set| element(TableFamily::Bridge, set)));
    elements.extend(steered.iter().map(|table| element(TableFamily::Inet, fwmark::steered(*table))));
    elements
}
