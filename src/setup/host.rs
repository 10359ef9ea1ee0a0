//! The node itself among its guests and uplinks: what reaches its own services, what it forwards for others, and as whom it reports
//! errors.
//!
//! Packets between guests and uplinks meet the forward chain only; all other chains are for packets to and from the node itself.

use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::{Family, IfName};
use crate::nic::{Mode, Nic};
use crate::object::{Plan, TABLE_MAIN};
use crate::ruleset::{
    Chain, Comment, Datatype, Element, Field, Group, HookPoint, Raw, RawHeader, Rule, Selector, Set, Statement,
    TableFamily, Value,
};
use crate::settings::Settings;
use crate::setup::dropped::{Direction, counted};
use crate::setup::firewall::no_request;
use crate::setup::shared::{Shared, chain, from, hooked, members, refuse};
use crate::setup::{element, neighbours};

/// Set: the TAPs of routed guests.
pub const GUESTS: &str = "guests";
/// Set: the uplinks of guests' tables, by family.
pub const UPLINKS: &str = "uplinks";
/// Set: the services of the node that the guest behind an interface may reach.
const HOST_ACCESS: &str = "host_access";
/// Set: the interfaces of guests that the node reaches, as they are in table main: their answers arrive.
const REACHED: &str = "reached";
/// Sets: the address of the guest behind an interface, as the destination of the packet that an ICMP error quotes.
const QUOTED4: &str = "quoted4";
const QUOTED6: &str = "quoted6";
/// Set: uplink, family, and the interface from which packets are forwarded there.
const FORWARD_FROM: &str = "forward_from";
/// Maps: the source of the ICMP errors that leave through an interface.
const ERROR_SOURCE4: &str = "error_source4";
const ERROR_SOURCE6: &str = "error_source6";

/// Destination of the packet that an ICMP error quotes (RFC 792; RFC 4443, 3.1), behind the eight octets of the error's own header.
const QUOTED_DADDR4: Raw = Raw { header: RawHeader::Transport, offset: 8 + 16, length: 4 };
const QUOTED_DADDR6: Raw = Raw { header: RawHeader::Transport, offset: 8 + 24, length: 16 };

/// Types of ICMP errors: destination unreachable (also fragmentation needed), time exceeded, parameter problem (RFC 792).
const ERRORS4: [Value; 3] = [Value::IcmpType(3), Value::IcmpType(11), Value::IcmpType(12)];
/// Types of ICMPv6 errors: destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443).
const ERRORS6: [Value; 4] = [Value::Icmp6Type(1), Value::Icmp6Type(2), Value::Icmp6Type(3), Value::Icmp6Type(4)];
const ECHO_REQUEST: Value = Value::Icmp6Type(128);
const ECHO_REPLY4: Value = Value::IcmpType(0);
const ECHO_REPLY6: Value = Value::Icmp6Type(129);
const ROUTER_SOLICITATION: Value = Value::Icmp6Type(133);
const NEIGHBOUR_SOLICITATION: Value = Value::Icmp6Type(135);
const NEIGHBOUR_ADVERTISEMENT: Value = Value::Icmp6Type(136);

const LOOPBACK_NET: Value = Value::V4(std::net::Ipv4Addr::new(127, 0, 0, 0));
const LINK_LOCAL: Value = Value::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));

/// RTN_LOCAL, RTN_BROADCAST and RTN_MULTICAST of linux/rtnetlink.h.
const LOCAL: Value = Value::FibAddrType(2);
const BROADCAST: Value = Value::FibAddrType(3);
const MULTICAST: Value = Value::FibAddrType(5);

/// Everything of this page.
pub static TABLE: Shared = Shared::new(|| Arc::new(table()));

fn table() -> Group {
    let is = |protocol| {
        Rule::from([Statement::equal(Field::L4Proto, Value::InetProto(protocol)), Statement::Jump("error".into())])
    };
    let map = |name, data| Set { data: Some(data), ..Set::new(name, [Datatype::IfName]) };
    let mut chains = vec![
        hooked(
            "host_input",
            HookPoint::Input,
            0,
            vec![
                members(Field::IifName, GUESTS, "from_guest"),
                Rule::from([from_uplink(), Statement::Jump("from_uplink".into())]),
            ],
        ),
        hooked("host_forward", HookPoint::Forward, 0, forward()),
        hooked("host_output", HookPoint::Output, 0, vec![is(1), is(58)]),
    ];
    chains.extend(from_guest());
    chains.push(chain("from_uplink", to_own_addresses()));
    chains.push(chain("error", errors(|| Statement::Goto("error_source".into()))));
    chains.push(chain("error_source", error_source()));
    let table = Group {
        family: TableFamily::Inet,
        sets: vec![
            Set::new(GUESTS, [Datatype::IfName]),
            Set::new(REACHED, [Datatype::IfName]),
            Set::new(UPLINKS, [Datatype::IfName, Datatype::NfProto]),
            Set::new(HOST_ACCESS, [Datatype::IfName, Datatype::InetProto, Datatype::InetService]),
            Set::new(QUOTED4, [Datatype::IfName, Datatype::Raw(QUOTED_DADDR4)]),
            Set::new(QUOTED6, [Datatype::IfName, Datatype::Raw(QUOTED_DADDR6)]),
            Set::new(FORWARD_FROM, [Datatype::IfName, Datatype::NfProto, Datatype::IfName]),
            map(ERROR_SOURCE4, Datatype::Ipv4Addr),
            map(ERROR_SOURCE6, Datatype::Ipv6Addr),
        ],
        chains,
    };
    counted(table, Direction::From, "host_drop")
}

fn from_uplink() -> Statement {
    from(Field::NfProto, UPLINKS)
}

fn icmp4(kind: &Value) -> Statement {
    Statement::equal(Field::IcmpType, kind.clone())
}

fn icmp6(kind: &Value) -> Statement {
    Statement::equal(Field::Icmp6Type, kind.clone())
}

/// Rules that do `then` with ICMP errors.
fn errors(then: impl Fn() -> Statement) -> Vec<Rule> {
    let kinds = ERRORS4.iter().map(icmp4).chain(ERRORS6.iter().map(icmp6));
    kinds.map(|kind| Rule::from([kind, then()])).collect()
}

/// What a guest may say to the node itself: services that are opened; errors about packets that the node sent to this guest, and no
/// others, as they change routes; neighbour discovery, and echo requests to the TAP's own address.
fn from_guest() -> Vec<Chain> {
    let goto = |name: &'static str| Statement::Goto(name.into());
    let opened = || {
        let selectors: [Selector; 3] = [Field::IifName.into(), Field::L4Proto.into(), Field::ThDport.into()];
        Rule::from([Statement::contained(selectors, HOST_ACCESS), Statement::Accept])
    };
    let loopback = Statement::equal(Field::IpDaddr.masked(Value::prefix4(8)), LOOPBACK_NET);
    let own_link = Statement::equal(Field::Ip6Daddr.masked(Value::prefix6(64)), LINK_LOCAL);
    // A later fragment has no type and no port of its own. Of IPv4 the kernel has put fragments together before.
    let mut rules = vec![refuse([loopback]), refuse([neighbours::later_fragment6()]), opened()];
    let discovery = [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT];
    rules.extend(discovery.iter().map(|kind| Rule::from([icmp6(kind), Statement::Accept])));
    rules.push(Rule::from([icmp6(&ECHO_REQUEST), own_link, Statement::Accept]));
    rules.extend(errors(|| goto("quoted")));
    let reached = Statement::contained([Field::IifName.into()], REACHED);
    rules.extend(answers().map(|it| Rule::from([reached.clone(), it, Statement::Accept])));
    rules.push(refuse([]));
    let ipv6 = Statement::equal(Field::NfProto, Value::NfProto(10));
    let quoted = |raw, set| Rule::from([from(Field::Raw(raw), set), Statement::Accept]);
    let quoting =
        chain("quoted", vec![Rule::from([ipv6, goto("quoted6")]), quoted(QUOTED_DADDR4, QUOTED4), refuse([])]);
    vec![chain("from_guest", rules), quoting, chain("quoted6", vec![quoted(QUOTED_DADDR6, QUOTED6), refuse([])])]
}

/// What answers a question of the node's own: echo, and TCP that asks for no connection.
fn answers() -> [Statement; 3] {
    [icmp4(&ECHO_REPLY4), icmp6(&ECHO_REPLY6), no_request()]
}

/// From an uplink the node has the addresses of that interface only. What the kernel takes for itself of neighbour discovery is
/// often for a guest that it answers for. Of other addresses the node gets answers alone, as it reaches guests elsewhere from
/// these.
fn to_own_addresses() -> Vec<Rule> {
    let own = [LOCAL, MULTICAST, BROADCAST].map(|kind| Statement::equal(Field::DaddrTypeOnIif, kind));
    let discovery = [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT];
    let accepted = own.into_iter().chain(discovery.iter().map(icmp6)).chain(answers());
    accepted.map(|it| Rule::from([it, Statement::Accept])).chain([refuse([])]).collect()
}

/// Into the network of an uplink is forwarded what comes from guests, from uplinks, and from where the settings say.
fn forward() -> Vec<Rule> {
    let oif = Selector::from(Field::OifName);
    let forward_from = [oif.clone(), Field::NfProto.into(), Field::IifName.into()];
    vec![
        Rule::from([Statement::contained([Field::IifName.into()], GUESTS), Statement::Accept]),
        Rule::from([from_uplink(), Statement::Accept]),
        Rule::from([Statement::contained(forward_from, FORWARD_FROM), Statement::Accept]),
        refuse([Statement::contained([oif, Field::NfProto.into()], UPLINKS)]),
    ]
}

/// The kernel takes any address of the node as the source of an error: that of the management network, where interfaces of guests
/// have none. An address of the interface itself stays.
fn error_source() -> Vec<Rule> {
    let write = |field, map: &'static str| {
        Rule::from([Statement::Write { field, selectors: vec![Field::OifName.into()], map: map.into() }])
    };
    vec![
        Rule::from([Statement::equal(Field::SaddrTypeOnOif, LOCAL), Statement::Return]),
        write(Field::IpSaddr, ERROR_SOURCE4),
        write(Field::Ip6Saddr, ERROR_SOURCE6),
    ]
}

/// The source of errors that leave through an interface, as an element without a comment.
fn source(interface: &IfName, address: IpAddr) -> Element {
    let (set, data) = match address {
        IpAddr::V4(address) => (ERROR_SOURCE4, Value::V4(address)),
        IpAddr::V6(address) => (ERROR_SOURCE6, Value::V6(address)),
    };
    let key = vec![Value::IfName(interface.clone())];
    Element { family: TableFamily::Inet, set: set.into(), key, data: Some(data), comment: None }
}

/// Adds the elements of a routed NIC.
pub fn add(nic: &Nic, settings: &Settings, plan: &mut Plan) {
    let family = TableFamily::Inet;
    plan.tables.push(Arc::clone(&TABLE));
    plan.elements.push(element(nic, family, GUESTS, []));
    if matches!(nic.mode, Mode::Routed { table: TABLE_MAIN }) {
        plan.elements.push(element(nic, family, REACHED, []));
    }
    for service in &settings.host_access {
        let rest = [Value::InetProto(service.protocol), Value::Port(service.port)];
        plan.elements.push(element(nic, family, HOST_ACCESS, rest));
    }
    for endpoint in Family::BOTH.into_iter().filter_map(|family| nic.endpoint(family)) {
        let (set, quoted) = match endpoint.address {
            IpAddr::V4(address) => (QUOTED4, Value::Raw(QUOTED_DADDR4, address.to_bits().into())),
            IpAddr::V6(address) => (QUOTED6, Value::Raw(QUOTED_DADDR6, address.to_bits())),
        };
        plan.elements.push(element(nic, family, set, [quoted]));
        if let Some(gateway) = endpoint.gateway {
            let comment = element(nic, family, set, []).comment;
            plan.elements.push(Element { comment, ..source(&nic.interface, gateway) });
        }
    }
}

/// Adds one family of an uplink of a table other than main. `error_source` is the source of the errors that leave there.
pub fn add_uplink(
    device: &IfName,
    family: Family,
    forward_from: &[IfName],
    error_source: Option<IpAddr>,
    plan: &mut Plan,
) {
    plan.tables.push(Arc::clone(&TABLE));
    let number = Value::NfProto(match family {
        Family::V4 => 2,
        Family::V6 => 10,
    });
    let of = |set: &'static str, rest: Option<&IfName>| Element {
        family: TableFamily::Inet,
        set: set.into(),
        key: [Value::IfName(device.clone()), number.clone()]
            .into_iter()
            .chain(rest.map(|it| Value::IfName(it.clone())))
            .collect(),
        data: None,
        comment: Some(Comment::new("uplink")),
    };
    plan.elements.push(of(UPLINKS, None));
    plan.elements.extend(forward_from.iter().map(|it| of(FORWARD_FROM, Some(it))));
    if let Some(address) = error_source {
        plan.elements.push(Element { comment: Some(Comment::new("uplink")), ..source(device, address) });
    }
}

/// The family of an uplink to which an element belongs; none where it does not tell.
pub fn family_of(element: &Element) -> Option<Family> {
    match (element.key.get(1), element.set.as_ref()) {
        (Some(Value::NfProto(2)), _) | (_, ERROR_SOURCE4) => Some(Family::V4),
        (Some(Value::NfProto(10)), _) | (_, ERROR_SOURCE6) => Some(Family::V6),
        _ => None,
    }
}
