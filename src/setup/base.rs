//! The base objects of our nf_tables tables: what is made once on a node and then serves every NIC.

use std::net::Ipv6Addr;

use crate::addr::{IfName, Mac};
use crate::ruleset::{
    Chain, Datatype, Element, Field, Hook, HookPoint, Rule, Set, Statement, Table, TableFamily, Value,
};

/// Map of the arp table: the sender address of the ARP requests that leave an interface.
pub const ARP_SOURCE: &str = "arp_source";
/// Set of the inet table: the interfaces whose source addresses are checked.
pub const GUARDED: &str = "guarded";
/// Set of the inet table: the IPv4 addresses that may come from an interface.
pub const SOURCES4: &str = "sources4";
/// Set of the inet table: the IPv6 addresses that may come from an interface.
pub const SOURCES6: &str = "sources6";
/// Set of the bridge table: the ports whose frames are filtered.
pub const FILTERED: &str = "filtered";
/// Set of the bridge table: the Ethernet source that a port may send.
pub const FROM: &str = "from";
/// Set of the bridge table: the prefix of the Ethernet sources that a port may receive.
pub const TO: &str = "to";

/// After mangle PREROUTING (-150), where nfdhcpd takes DHCP, RS and NS, whose sources could not pass the check.
const AFTER_MANGLE: i32 = -140;
/// NF_BR_PRI_NAT_DST_BRIDGED of linux/netfilter_bridge.h: before the bridge learns the source and decides.
const BRIDGE_PREROUTING: i32 = -300;
/// NF_BR_PRI_FILTER_BRIDGED: bridge filtering of what is forwarded.
const BRIDGE_FORWARD: i32 = -200;
/// NF_BR_PRI_FILTER_OTHER: bridge filtering of what the node sends.
const BRIDGE_OUTPUT: i32 = 200;

const ARP_REQUEST: Value = Value::ArpOp(1);
const ICMPV6: Value = Value::InetProto(58);

fn base(name: &'static str, point: HookPoint, priority: i32, rule: Rule) -> Chain {
    Chain { name, hook: Some(Hook { point, priority }), rules: vec![rule] }
}

/// ARP requests carry as sender what [`ARP_SOURCE`] holds for the interface they leave through: the gateway towards a
/// guest, an address of the network towards the router.
pub fn arp() -> Table {
    let rewrite = Rule::from([
        Statement::equal(Field::ArpOperation, ARP_REQUEST),
        Statement::Write { field: Field::ArpSaddrIp, selectors: vec![Field::OifName.into()], map: ARP_SOURCE },
    ]);
    Table {
        family: TableFamily::Arp,
        sets: vec![Set { data: Some(Datatype::Ipv4Addr), ..Set::new(ARP_SOURCE, [Datatype::IfName]) }],
        chains: vec![base("output", HookPoint::Output, 0, rewrite)],
    }
}

/// What comes from a [`GUARDED`] interface has a source of [`SOURCES4`] or [`SOURCES6`], or is link-local IPv6: an
/// fe80:: source, or the unspecified one in ICMPv6 to a link-local group (duplicate address detection).
pub fn inet() -> Table {
    let in_set = |source: Field, set| Rule::from([pair(Field::IifName, source, set), Statement::Return]);
    let within = |field: Field, prefix: Ipv6Addr, length| {
        Statement::equal(field.masked(Value::prefix6(length)), Value::V6(prefix))
    };
    let link_local = within(Field::Ip6Saddr, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);
    let to_link_group = within(Field::Ip6Daddr, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16);
    let from_nowhere = Statement::equal(Field::Ip6Saddr, Value::V6(Ipv6Addr::UNSPECIFIED));
    let sources = Chain {
        name: "sources",
        hook: None,
        rules: vec![
            in_set(Field::IpSaddr, SOURCES4),
            in_set(Field::Ip6Saddr, SOURCES6),
            Rule::from([link_local, Statement::Return]),
            Rule::from([from_nowhere, to_link_group, Statement::equal(Field::L4Proto, ICMPV6), Statement::Return]),
            Rule::from([Statement::Counter, Statement::Drop]),
        ],
    };
    Table {
        family: TableFamily::Inet,
        sets: vec![
            Set::new(GUARDED, [Datatype::IfName]),
            Set::new(SOURCES4, [Datatype::IfName, Datatype::Ipv4Addr]),
            Set::new(SOURCES6, [Datatype::IfName, Datatype::Ipv6Addr]),
        ],
        chains: vec![
            base("prerouting", HookPoint::Prerouting, AFTER_MANGLE, members(Field::IifName, GUARDED, "sources")),
            sources,
        ],
    }
}

/// Isolation on a shared bridge: a [`FILTERED`] port sends with its own MAC only ([`FROM`]), and receives only from MACs
/// whose bits under `mask` are those of its network ([`TO`]). The sender is checked in prerouting, before the bridge
/// learns from a forged frame where a MAC is.
pub fn bridge(mask: Mac) -> Table {
    let otherwise_drop = Rule::from([Statement::Counter, Statement::Drop]);
    let prefix = Field::EtherSaddr.masked(Value::Mac(mask));
    let to = Statement::contained([Field::OifName.into(), prefix], TO);
    let chain = |name, first: Statement| Chain {
        name,
        hook: None,
        rules: vec![Rule::from([first, Statement::Return]), otherwise_drop.clone()],
    };
    Table {
        family: TableFamily::Bridge,
        sets: vec![
            Set::new(FILTERED, [Datatype::IfName]),
            Set::new(FROM, [Datatype::IfName, Datatype::EtherAddr]),
            Set::new(TO, [Datatype::IfName, Datatype::EtherAddr]),
        ],
        chains: vec![
            chain("FROMTAP", pair(Field::IifName, Field::EtherSaddr, FROM)),
            chain("TOTAP", to),
            base("prerouting", HookPoint::Prerouting, BRIDGE_PREROUTING, members(Field::IifName, FILTERED, "FROMTAP")),
            base("forward", HookPoint::Forward, BRIDGE_FORWARD, members(Field::OifName, FILTERED, "TOTAP")),
            base("output", HookPoint::Output, BRIDGE_OUTPUT, members(Field::OifName, FILTERED, "TOTAP")),
        ],
    }
}

/// What goes through an interface of `set` goes on in `chain`.
fn members(interface: Field, set: &'static str, chain: &'static str) -> Rule {
    Rule::from([Statement::contained([interface.into()], set), Statement::Jump(chain)])
}

/// An interface and an address, together in `set`.
fn pair(interface: Field, address: Field, set: &'static str) -> Statement {
    Statement::contained([interface.into(), address.into()], set)
}

/// All tables with sets that are keyed by interface.
pub fn tables() -> [Table; 2] {
    [arp(), inet()]
}

/// Elements one of which stands wherever a NIC has any in [`tables`].
pub fn membership(interface: &IfName) -> [Element; 2] {
    [(TableFamily::Arp, ARP_SOURCE), (TableFamily::Inet, GUARDED)].map(|(family, set)| Element {
        family,
        set,
        key: vec![Value::IfName(interface.clone())],
        data: None,
        comment: None,
    })
}
