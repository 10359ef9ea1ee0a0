//! What may come from a routed NIC's TAP, in the tables arp and inet: own sources, and nothing that only routers and
//! servers send.

use std::sync::Arc;

use crate::addr::Family;
use crate::nic::Nic;
use crate::object::Plan;
use crate::ruleset::{Datatype, Field, Group, HookPoint, Rule, Set, Statement, TableFamily, Value};
use crate::settings::Settings;
use crate::setup::dropped::{Direction, counted};
use crate::setup::shared::{Shared, chain, from, hooked, members, not_from, refuse};
use crate::setup::{arp_senders, element, neighbours};

/// Set of the tables inet and arp: the interfaces whose sources are checked.
pub const GUARDED: &str = "guarded";
/// Set of the inet table: the interfaces behind which are neither routers nor DHCP servers.
pub const ROUTED: &str = "routed";

/// After mangle PREROUTING (-150), where nfdhcpd takes DHCP, RS and NS, whose sources could not pass the check.
const AFTER_MANGLE: i32 = -140;
/// NF_IP_PRI_RAW_BEFORE_DEFRAG of linux/netfilter_ipv4.h: on a node that tracks connections the kernel reassembles fragments
/// at -400, by their addresses and ID, from whichever interface they came.
const BEFORE_REASSEMBLY: i32 = -450;

/// What comes from a [`GUARDED`] interface has a source of [`neighbours::SOURCES4`] or [`neighbours::SOURCES6`], or is
/// link-local IPv6; from one of [`ROUTED`], it is nothing that a router or a DHCP server says. A fragment has its source checked
/// before it can become part of another guest's packet, and must have one of the two.
pub static INET: Shared = Shared::new(|| Arc::new(inet()));

fn inet() -> Group {
    let ipv6 = Statement::equal(Field::NfProto, Value::NfProto(10));
    let mut sources = vec![Rule::from([from(Field::IpSaddr, neighbours::SOURCES4), Statement::Return])];
    sources.extend(neighbours::sources6());
    sources.push(refuse([]));
    let mut servers = vec![Rule::from([ipv6, Statement::Goto("servers6".into())])];
    servers.extend(neighbours::dhcp_replies());
    let prerouting = vec![members(Field::IifName, GUARDED, "sources"), members(Field::IifName, ROUTED, "servers")];
    let mut table = Group {
        family: TableFamily::Inet,
        sets: vec![Set::new(GUARDED, [Datatype::IfName]), Set::new(ROUTED, [Datatype::IfName])],
        chains: vec![
            hooked("fragments", HookPoint::Prerouting, BEFORE_REASSEMBLY, fragments()),
            hooked("prerouting", HookPoint::Prerouting, AFTER_MANGLE, prerouting),
            chain("sources", sources),
            chain("servers", servers),
            neighbours::servers6(),
        ],
    };
    table.sets.extend(neighbours::sets());
    table.chains.extend(neighbours::chains());
    counted(table, Direction::From, "sources_drop")
}

/// The first comparison of each rule lets only fragments on: all other packets pass here.
fn fragments() -> Vec<Rule> {
    let guarded = || Statement::contained([Field::IifName.into()], GUARDED);
    vec![
        refuse([neighbours::fragment4(), guarded(), not_from(Field::IpSaddr, neighbours::SOURCES4)]),
        refuse([neighbours::fragment6(), guarded(), not_from(Field::Ip6Saddr, neighbours::SOURCES6)]),
    ]
}

/// ARP from a [`GUARDED`] interface speaks for the NIC's own addresses.
pub static ARP: Shared = Shared::new(|| Arc::new(arp()));

fn arp() -> Group {
    let group = Group {
        family: TableFamily::Arp,
        sets: vec![Set::new(GUARDED, [Datatype::IfName]), arp_senders::set(TableFamily::Arp)],
        chains: vec![
            hooked("input", HookPoint::Input, 0, vec![members(Field::IifName, GUARDED, "senders")]),
            chain("senders", arp_senders::rules(TableFamily::Arp)),
        ],
    };
    counted(group, Direction::From, "senders_drop")
}

/// Adds the checks of a NIC's sources, unless any may be used (IPSPOOF), and of what it says.
pub fn filters(nic: &Nic, settings: &Settings, plan: &mut Plan) {
    plan.tables.push(Arc::clone(&INET));
    plan.elements.push(element(nic, TableFamily::Inet, ROUTED, []));
    if settings.ipspoof {
        return;
    }
    plan.tables.push(Arc::clone(&ARP));
    plan.elements.push(element(nic, TableFamily::Arp, GUARDED, []));
    plan.elements.push(element(nic, TableFamily::Inet, GUARDED, []));
    if nic.endpoint(Family::V4).is_some() {
        plan.elements.extend(arp_senders::element(nic, TableFamily::Arp));
    }
    neighbours::add_elements(nic, settings, TableFamily::Inet, plan);
}
