//! Rules on what a guest may say to its neighbours, the same on a bridge and behind a router: whose addresses it speaks
//! for, and nothing that only routers and servers say.

use std::net::{IpAddr, Ipv6Addr};

use crate::addr::{Family, Mac};
use crate::nic::Nic;
use crate::object::Plan;
use crate::ruleset::{Chain, Datatype, Field, Raw, RawHeader, Rule, Set, Statement, TableFamily, Value};
use crate::settings::Settings;
use crate::setup::element;
use crate::setup::shared::{chain, from, refuse};

/// Set: the IPv4 addresses that may come from an interface.
pub const SOURCES4: &str = "sources4";
/// Set: the IPv6 addresses that may come from an interface.
pub const SOURCES6: &str = "sources6";
/// Set: the link-local addresses that may not, though their form does not tell: those of routers.
pub const STRANGERS: &str = "strangers";
/// Set: the interfaces from which no link-local address may come but those of [`SOURCES6`].
pub const EUI64_ONLY: &str = "eui64_only";
/// Set: [`SOURCES6`] as the targets of neighbour discovery.
pub const TARGETS: &str = "targets";
/// Set: [`STRANGERS`] as the targets of neighbour discovery.
pub const STRANGE_TARGETS: &str = "strange_targets";

/// Set: the one option that an advertisement may carry, the target link-layer address with the interface's MAC.
pub const OWN_OPTIONS: &str = "own_options";

/// The first option of a neighbour advertisement, and the places of its type and of the next one's (RFC 4861, 4.4 and 4.6).
const OPTION: Raw = Raw { header: RawHeader::Transport, offset: 24, length: 8 };
const OPTION_TYPE: Raw = Raw { header: RawHeader::Transport, offset: 24, length: 1 };
const SECOND_TYPE: Raw = Raw { header: RawHeader::Transport, offset: 32, length: 1 };
/// A target link-layer address option of 8 octets, without the address (RFC 4861, 4.6.1).
const TARGET_LINK_LAYER: u128 = 0x0201 << 48;
/// Target of a neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4).
const TARGET: Raw = Raw { header: RawHeader::Transport, offset: 8, length: 16 };
/// The first 64 bits of the target.
const TARGET_PREFIX: Raw = Raw { header: RawHeader::Transport, offset: 8, length: 8 };
/// The octets of the target that are ff:fe in a modified EUI-64 address.
const TARGET_MIDDLE: Raw = Raw { header: RawHeader::Transport, offset: 19, length: 2 };
/// The first 112 bits of the target.
const TARGET_BEFORE_LAST: Raw = Raw { header: RawHeader::Transport, offset: 8, length: 14 };
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
/// The octets of an address that are ff:fe in a modified EUI-64 one (RFC 4291, appendix A).
const MIDDLE_MASK: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xff, 0xff00, 0);
const MIDDLE: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xff, 0xfe00, 0);

const UDP: Value = Value::InetProto(17);
const ICMPV6: Value = Value::InetProto(58);
const ROUTER_ADVERTISEMENT: Value = Value::Icmp6Type(134);
const NEIGHBOUR_SOLICITATION: Value = Value::Icmp6Type(135);
const NEIGHBOUR_ADVERTISEMENT: Value = Value::Icmp6Type(136);
/// Multicast listener reports (RFC 2710, RFC 3810) and the end of listening; router solicitations.
const FROM_NOWHERE: [Value; 4] =
    [Value::Icmp6Type(131), Value::Icmp6Type(132), Value::Icmp6Type(143), Value::Icmp6Type(133)];
const REDIRECT: Value = Value::Icmp6Type(137);
/// Ports of DHCP and DHCPv6.
pub(super) const DHCP_SERVER: Value = Value::Port(67);
pub(super) const DHCP_CLIENT: Value = Value::Port(68);
pub(super) const DHCPV6_CLIENT: Value = Value::Port(546);
pub(super) const DHCPV6_SERVER: Value = Value::Port(547);

/// The sets of [`chains`].
pub fn sets() -> Vec<Set> {
    vec![
        Set::new(SOURCES4, [Datatype::IfName, Datatype::Ipv4Addr]),
        Set::new(SOURCES6, [Datatype::IfName, Datatype::Ipv6Addr]),
        Set::new(STRANGERS, [Datatype::IfName, Datatype::Ipv6Addr]),
        Set::new(EUI64_ONLY, [Datatype::IfName]),
        Set::new(TARGETS, [Datatype::IfName, Datatype::Raw(TARGET)]),
        Set::new(STRANGE_TARGETS, [Datatype::IfName, Datatype::Raw(TARGET)]),
        Set::new(OWN_OPTIONS, [Datatype::IfName, Datatype::Raw(OPTION)]),
    ]
}

/// A header whose protocol the kernel could tell: it walked all extension headers, and the packet is not cut short among
/// them. Protocol 255 is reserved (RFC 5237).
pub fn protocol_known() -> Statement {
    Statement::not_equal(Field::L4Proto, Value::InetProto(255))
}

/// A fragment of an IPv4 packet: more follow, or it is not the first (RFC 791, 3.1).
pub fn fragment4() -> Statement {
    Statement::not_equal(Field::IpFragmentOffset.masked(Value::IpFragmentOffset(0x3fff)), Value::IpFragmentOffset(0))
}

/// A fragment of an IPv6 packet.
pub fn fragment6() -> Statement {
    Statement::equal(Field::Ip6FragmentHeader, Value::Exists(true))
}

/// A fragment of an IPv6 packet other than its first, so without what is above IPv6.
pub fn later_fragment6() -> Statement {
    Statement::not_equal(Field::Ip6FragmentOffset, Value::Ip6FragmentOffset(0))
}

fn within(field: Field, prefix: Ipv6Addr, length: u8) -> Statement {
    Statement::equal(field.masked(Value::prefix6(length)), Value::V6(prefix))
}

/// The rules that let IPv6 pass by its source: an address of the interface; a link-local one, unless it is known to be
/// another's; none at all, in ICMPv6 to a link-local group (duplicate address detection, MLD, router solicitations).
pub fn sources6() -> [Rule; 3] {
    let to_link_group = within(Field::Ip6Daddr, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16);
    let from_nowhere = Statement::equal(Field::Ip6Saddr, Value::V6(Ipv6Addr::UNSPECIFIED));
    let goto = |name: &'static str| Statement::Goto(name.into());
    [
        [from(Field::Ip6Saddr, SOURCES6), goto("advertised")].into(),
        [within(Field::Ip6Saddr, LINK_LOCAL, 64), goto("linklocal")].into(),
        [from_nowhere, to_link_group, Statement::equal(Field::L4Proto, ICMPV6), goto("unspecified")].into(),
    ]
}

/// The chains that [`sources6`] leads to.
///
/// A link-local address of the modified EUI-64 form is somebody's MAC, so only the NIC's own may be used; this protects all
/// guests and routers that have such addresses, wherever they are, without a list of them. No guest makes itself one from fe80:: to
/// fe80::ffff (RFC 7217): administrators give them to routers. Neighbour advertisements, and the
/// solicitations of duplicate address detection, are for own addresses only: an advertisement would steal another's traffic,
/// a solicitation from :: would make it give up its address.
pub fn chains() -> [Chain; 5] {
    let icmp = |kind: &Value| Statement::equal(Field::Icmp6Type, kind.clone());
    let goto = |name: &'static str| Statement::Goto(name.into());
    let raw = |raw, value| Statement::equal(Field::Raw(raw), Value::Raw(raw, value));
    let eui64_only = || Statement::contained([Field::IifName.into()], EUI64_ONLY);
    let eui64 = Statement::equal(Field::Ip6Saddr.masked(Value::V6(MIDDLE_MASK)), Value::V6(MIDDLE));
    [
        chain(
            "linklocal",
            vec![
                refuse([eui64]),
                refuse([eui64_only()]),
                refuse([within(Field::Ip6Saddr, LINK_LOCAL, 112)]),
                refuse([from(Field::Ip6Saddr, STRANGERS)]),
                Rule::from([goto("advertised")]),
            ],
        ),
        chain("unspecified", {
            let mut rules = vec![Rule::from([icmp(&NEIGHBOUR_SOLICITATION), goto("target")])];
            rules.extend(FROM_NOWHERE.iter().map(|kind| Rule::from([icmp(kind), Statement::Return])));
            rules.push(refuse([]));
            rules
        }),
        chain("advertised", vec![Rule::from([icmp(&NEIGHBOUR_ADVERTISEMENT), goto("options")])]),
        // No option, or the own MAC and nothing behind it: whoever reads another one of the same address would be led astray.
        // What is not there matches neither == nor !=.
        chain(
            "options",
            vec![
                refuse([raw(SECOND_TYPE, 0)]),
                refuse([Statement::not_equal(Field::Raw(SECOND_TYPE), Value::Raw(SECOND_TYPE, 0))]),
                Rule::from([from(Field::Raw(OPTION), OWN_OPTIONS), goto("target")]),
                refuse([raw(OPTION_TYPE, 0)]),
                refuse([Statement::not_equal(Field::Raw(OPTION_TYPE), Value::Raw(OPTION_TYPE, 0))]),
                Rule::from([goto("target")]),
            ],
        ),
        chain(
            "target",
            vec![
                Rule::from([from(Field::Raw(TARGET), TARGETS), Statement::Return]),
                refuse([raw(TARGET_MIDDLE, 0xfffe)]),
                refuse([eui64_only()]),
                refuse([raw(TARGET_BEFORE_LAST, LINK_LOCAL.to_bits() >> 16)]),
                refuse([from(Field::Raw(TARGET), STRANGE_TARGETS)]),
                Rule::from([raw(TARGET_PREFIX, 0xfe80_0000_0000_0000), Statement::Return]),
                refuse([]),
            ],
        ),
    ]
}

/// Drops what DHCP servers send. Its ports stand in the first eight bytes, so the first fragment always shows them.
pub fn dhcp_replies() -> [Rule; 2] {
    [refuse([Statement::equal(Field::UdpSport, DHCP_SERVER)]), refuse([Statement::equal(Field::UdpDport, DHCP_CLIENT)])]
}

/// A chain for IPv6 that drops what only routers and DHCPv6 servers send, and what may be such: a first fragment, or a whole
/// packet, whose chain of headers ends before the ICMPv6 type or the UDP ports (RFC 7112). The other fragments of a packet
/// pass, as they are nothing without the first.
pub fn servers6() -> Chain {
    let icmp = |kind: &Value| Statement::equal(Field::Icmp6Type, kind.clone());
    chain(
        "servers6",
        vec![
            // First of all: Linux 6.18 takes the start of the IPv6 header for the transport header of later fragments.
            Rule::from([later_fragment6(), protocol_known(), Statement::Return]),
            refuse([Statement::equal(Field::UdpSport, DHCPV6_SERVER)]),
            refuse([Statement::equal(Field::UdpDport, DHCPV6_CLIENT)]),
            refuse([icmp(&ROUTER_ADVERTISEMENT)]),
            refuse([icmp(&REDIRECT)]),
            // Whatever type, whatever port: it can be read. Type 255 and port 0 are reserved.
            Rule::from([Statement::not_equal(Field::Icmp6Type, Value::Icmp6Type(255)), Statement::Return]),
            Rule::from([Statement::not_equal(Field::UdpDport, Value::Port(0)), Statement::Return]),
            refuse([Statement::equal(Field::L4Proto, ICMPV6)]),
            refuse([Statement::equal(Field::L4Proto, UDP)]),
            Rule::from([protocol_known(), Statement::Return]),
            refuse([]),
        ],
    )
}

/// DHCP requests of a guest that has no address yet.
pub fn dhcp_request() -> Rule {
    let from_nowhere = Statement::equal(Field::IpSaddr, Value::V4([0; 4].into()));
    // Linux 6.18 takes the start of later fragments for a transport header.
    let offset = Field::IpFragmentOffset.masked(Value::IpFragmentOffset(0x1fff));
    let first = Statement::equal(offset, Value::IpFragmentOffset(0));
    Rule::from([from_nowhere, first, Statement::equal(Field::UdpDport, DHCP_SERVER), Statement::Return])
}

/// Adds the elements of a NIC in the sets of [`sets`].
pub fn add_elements(nic: &Nic, settings: &Settings, family: TableFamily, plan: &mut Plan) {
    let mut own6 = vec![link_local(nic.mac)];
    for endpoint in Family::BOTH.into_iter().filter_map(|family| nic.endpoint(family)) {
        match endpoint.address {
            IpAddr::V4(address) => plan.elements.push(element(nic, family, SOURCES4, [Value::V4(address)])),
            IpAddr::V6(address) => own6.insert(0, address),
        }
    }
    let [a, b, c, d, e, f] = nic.mac.0.map(u128::from);
    let mac = a << 40 | b << 32 | c << 24 | d << 16 | e << 8 | f;
    plan.elements.push(element(nic, family, OWN_OPTIONS, [Value::Raw(OPTION, TARGET_LINK_LAYER | mac)]));
    if settings.eui64_only {
        plan.elements.push(element(nic, family, EUI64_ONLY, []));
    }
    let mut routers = settings.router_link_local.clone();
    if let Some(IpAddr::V6(gateway)) = nic.endpoint(Family::V6).and_then(|endpoint| endpoint.gateway)
        && gateway.is_unicast_link_local()
        && !routers.contains(&gateway)
    {
        routers.push(gateway);
    }
    for (addresses, sources, targets) in [(own6, SOURCES6, TARGETS), (routers, STRANGERS, STRANGE_TARGETS)] {
        for address in addresses {
            plan.elements.push(element(nic, family, sources, [Value::V6(address)]));
            plan.elements.push(element(nic, family, targets, [Value::Raw(TARGET, address.to_bits())]));
        }
    }
}

/// The link-local address that a guest makes of its MAC.
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let bits = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(LINK_LOCAL.to_bits() | u128::from(bits))
}
