//! Strict filtering on a bridge (tag `strict-filtered`): a guest sends IPv4, ARP and IPv6, with its own addresses, and
//! nothing that only routers and servers send.

use std::sync::Arc;

use crate::nic::Nic;
use crate::object::Plan;
use crate::ruleset::{Datatype, Field, Group, HookPoint, Raw, RawHeader, Rule, Set, Statement, TableFamily, Value};
use crate::settings::Settings;
use crate::setup::dropped::{Direction, counted};
use crate::setup::shared::{BRIDGE_PREROUTING, Shared, chain, from, hooked, members, refuse};
use crate::setup::{arp_senders, element, filtered, neighbours};

/// Set of the bridge table: the strict ports.
const STRICT: &str = "strict";
/// Set of the bridge table: the MACs in RARP from a port, sender and target.
const RARP: &str = "rarp";

const ETHERTYPE_RARP: Value = Value::EtherType(0x8035);
/// Sender and target hardware address of ARP, and of RARP, which nft cannot name (RFC 903).
const RARP_SENDER: Raw = Raw { header: RawHeader::Network, offset: 8, length: 6 };
const RARP_TARGET: Raw = Raw { header: RawHeader::Network, offset: 18, length: 6 };
/// Lengths of a MAC and of an IPv4 address in ARP: receivers find the addresses by them.
const ARP_LENGTHS: Raw = Raw { header: RawHeader::Network, offset: 4, length: 2 };

/// What comes from a [`STRICT`] port, by EtherType. Whatever is none of these is dropped: tagged frames (also with VLAN 0),
/// LLC and SNAP, which could hide any of it (CVE-2021-27853 and its kin).
pub static TABLE: Shared = Shared::new(|| Arc::new(table()));

fn table() -> Group {
    let goto = |name: &'static str| Statement::Goto(name.into());
    let ether_type = |value: Value| Statement::equal(Field::EtherType, value);
    let rarp = Statement::contained(
        [Field::IifName.into(), Field::Raw(RARP_SENDER).into(), Field::Raw(RARP_TARGET).into()],
        RARP,
    );
    let strict = vec![
        Rule::from([ether_type(Value::EtherType(0x0800)), goto("strict4")]),
        Rule::from([ether_type(Value::EtherType(0x86dd)), goto("strict6")]),
        Rule::from([ether_type(Value::EtherType(0x0806)), goto("strict_arp")]),
        // QEMU tells the bridges by RARP where a guest is after a migration.
        Rule::from([ether_type(ETHERTYPE_RARP), rarp, Statement::Return]),
        refuse([]),
    ];
    let own = from(Field::IpSaddr, neighbours::SOURCES4);
    let mut strict4 = Vec::from(neighbours::dhcp_replies());
    strict4.extend([
        Rule::from([own, neighbours::protocol_known(), Statement::Return]),
        neighbours::dhcp_request(),
        refuse([]),
    ]);
    let mut strict6 = vec![Rule::from([Statement::Jump("servers6".into())])];
    strict6.extend(neighbours::sources6());
    strict6.push(refuse([]));
    let lengths = Statement::not_equal(Field::Raw(ARP_LENGTHS), Value::Raw(ARP_LENGTHS, 0x0604));
    let mut strict_arp = vec![refuse([lengths])];
    strict_arp.extend(arp_senders::rules(TableFamily::Bridge));
    let mut table = Group {
        family: TableFamily::Bridge,
        sets: vec![
            Set::new(STRICT, [Datatype::IfName]),
            arp_senders::set(TableFamily::Bridge),
            Set::new(RARP, [Datatype::IfName, Datatype::Raw(RARP_SENDER), Datatype::Raw(RARP_TARGET)]),
        ],
        chains: vec![
            hooked(
                "strict_prerouting",
                HookPoint::Prerouting,
                BRIDGE_PREROUTING,
                vec![members(Field::IifName, STRICT, "strict")],
            ),
            chain("strict", strict),
            chain("strict4", strict4),
            chain("strict6", strict6),
            chain("strict_arp", strict_arp),
            neighbours::servers6(),
        ],
    };
    table.sets.extend(neighbours::sets());
    table.chains.extend(neighbours::chains());
    counted(table, Direction::From, "strict_drop")
}

/// Adds the strict filters of a bridged NIC.
pub fn filters(nic: &Nic, settings: &Settings, plan: &mut Plan) {
    filtered::sender(nic, plan);
    plan.tables.push(Arc::clone(&TABLE));
    plan.elements.push(element(nic, TableFamily::Bridge, STRICT, []));
    plan.elements.extend(arp_senders::element(nic, TableFamily::Bridge));
    let mac = nic.mac.0.into_iter().fold(0, |number: u128, octet| number << 8 | u128::from(octet));
    let macs = [Value::Raw(RARP_SENDER, mac), Value::Raw(RARP_TARGET, mac)];
    plan.elements.push(element(nic, TableFamily::Bridge, RARP, macs));
    neighbours::add_elements(nic, settings, TableFamily::Bridge, plan);
}
