//! Whom ARP from a guest may speak for: its own MAC and IPv4 address.

use std::net::IpAddr;

use crate::addr::Family;
use crate::nic::Nic;
use crate::ruleset::{Datatype, Element, Field, Rule, Selector, Set, Statement, TableFamily, Value};
use crate::setup;
use crate::setup::shared::{ARP_REQUEST, refuse};

const ARP_SENDERS: &str = "arp_senders";

/// Whether the Ethernet source has to be looked at, too: in a bridge it has been.
fn with_ethernet(family: TableFamily) -> bool {
    family != TableFamily::Bridge
}

/// The set of interface, MACs and IPv4 address.
pub fn set(family: TableFamily) -> Set {
    let mut set = Set::new(ARP_SENDERS, [Datatype::IfName, Datatype::EtherAddr, Datatype::Ipv4Addr]);
    if with_ethernet(family) {
        set.key.insert(1, Datatype::EtherAddr);
    }
    set
}

/// The rules that let ARP pass: with own addresses as the sender, or as a probe for the own address, whose sender is
/// 0.0.0.0 (RFC 5227, 2.1.1). A probe for another's address would make that one give it up.
pub fn rules(family: TableFamily) -> Vec<Rule> {
    let speaks_for = |address: Field| {
        let mut selectors = vec![Field::IifName.into(), Field::ArpSaddrEther.into(), address.into()];
        if with_ethernet(family) {
            selectors.insert(1, Selector::from(Field::EtherSaddr));
        }
        Statement::Lookup { selectors, equality: crate::ruleset::Equality::Equal, set: ARP_SENDERS.into() }
    };
    vec![
        Rule::from([speaks_for(Field::ArpSaddrIp), Statement::Return]),
        Rule::from([
            Statement::equal(Field::ArpOperation, ARP_REQUEST),
            Statement::equal(Field::ArpSaddrIp, Value::V4([0; 4].into())),
            speaks_for(Field::ArpDaddrIp),
            Statement::Return,
        ]),
        refuse([]),
    ]
}

/// The element of a NIC, if it has an IPv4 address.
pub fn element(nic: &Nic, family: TableFamily) -> Option<Element> {
    let IpAddr::V4(address) = nic.endpoint(Family::V4)?.address else { return None };
    let macs = if with_ethernet(family) { 2 } else { 1 };
    let rest = std::iter::repeat_n(Value::Mac(nic.mac), macs).chain([Value::V4(address)]);
    Some(setup::element(nic, family, ARP_SENDERS, rest))
}
