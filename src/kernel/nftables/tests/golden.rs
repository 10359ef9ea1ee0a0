//! Tables and elements of which nft's own bytes are known: golden.nft, golden.txt.

use crate::addr::Mac;
use crate::ruleset::{
    Chain, Comment, Datatype, Element, Field, Group, Hook, HookPoint, Raw, RawHeader, Rule, Selector, Set, Statement,
    TableFamily, Value,
};

fn mac(text: &str) -> Value {
    Value::Mac(text.parse::<Mac>().expect("a MAC"))
}

pub(super) fn name(text: &str) -> Value {
    Value::IfName(text.parse().expect("an interface name"))
}

pub(super) fn v4(text: &str) -> Value {
    Value::V4(text.parse().expect("an IPv4 address"))
}

pub(super) fn v6(text: &str) -> Value {
    Value::V6(text.parse().expect("an IPv6 address"))
}

/// One rule at least for each kind of statement, each field and each family's way to be sure of a header.
pub(super) fn tables() -> [Group; 3] {
    use Statement::{Accept, Counter, Drop, Goto, Jump, Return, Write};
    let map = Set {
        data: Some(Datatype::Ipv4Addr),
        comment: Some(Comment::new("who asks")),
        ..Set::new("arp_source", [Datatype::IfName])
    };
    let arp = Group {
        family: TableFamily::Arp,
        sets: vec![map],
        chains: vec![Chain {
            name: "output".into(),
            hook: Some(Hook { point: HookPoint::Output, priority: 0 }),
            rules: vec![
                [
                    Statement::equal(Field::ArpOperation, Value::ArpOp(1)),
                    Write {
                        field: Field::ArpSaddrIp,
                        selectors: vec![Field::OifName.into()],
                        map: "arp_source".into(),
                    },
                ]
                .into(),
                [Statement::equal(Field::EtherSaddr, mac("aa:55:60:0:0:1")), Accept].into(),
            ],
        }],
    };
    let inet = Group {
        family: TableFamily::Inet,
        sets: [
            Set::new("guarded", [Datatype::IfName]),
            Set::new("sources4", [Datatype::IfName, Datatype::Ipv4Addr]),
            Set::new("sources6", [Datatype::IfName, Datatype::Ipv6Addr]),
            Set::new("senders", [Datatype::Ipv4Addr, Datatype::IfName]),
            Set::new("macs", [Datatype::EtherAddr]),
        ]
        .into_iter()
        .chain(super::host::sets())
        .collect(),
        chains: vec![
            Chain {
                name: "prerouting".into(),
                hook: Some(Hook { point: HookPoint::Prerouting, priority: -140 }),
                rules: vec![
                    [Statement::contained([Field::IifName.into()], "guarded"), Jump("sources".into())].into(),
                    [Statement::equal(Field::IifName, name("tap0")), Goto("sources".into())].into(),
                    [Statement::not_equal(Field::OifName, name("tap1")), Counter].into(),
                ],
            },
            Chain {
                name: "sources".into(),
                hook: None,
                rules: vec![
                    [Statement::contained([Field::IifName.into(), Field::IpSaddr.into()], "sources4"), Return].into(),
                    [Statement::contained([Field::IifName.into(), Field::Ip6Saddr.into()], "sources6"), Return].into(),
                    [Statement::not_contained([Field::IpSaddr.into(), Field::IifName.into()], "senders"), Drop].into(),
                    [Statement::equal(Field::Ip6FragmentHeader, Value::Exists(true)), Drop].into(),
                    [Statement::contained([Field::EtherDaddr.into()], "macs"), Accept].into(),
                    [Statement::equal(Field::Ip6Saddr.masked(Value::prefix6(64)), v6("fe80::")), Return].into(),
                    [
                        Statement::equal(Field::Ip6Saddr, v6("::")),
                        Statement::equal(Field::Ip6Daddr.masked(Value::prefix6(16)), v6("ff02::1")),
                        Statement::equal(Field::L4Proto, Value::InetProto(58)),
                        Return,
                    ]
                    .into(),
                    [
                        Statement::equal(Field::IpSaddr.masked(Value::prefix4(8)), v4("10.0.0.0")),
                        Statement::not_equal(Field::IpDaddr.masked(Value::prefix4(20)), v4("10.1.0.0")),
                        Accept,
                    ]
                    .into(),
                    [Counter, Drop].into(),
                ],
            },
            super::marks::chain(),
            super::host::chain(),
        ],
    };
    let prefix = Field::EtherSaddr.masked(mac("ff:ff:f0:0:0:0"));
    let bridge = Group {
        family: TableFamily::Bridge,
        sets: vec![
            Set::new("filtered", [Datatype::IfName]),
            Set::new("to", [Datatype::IfName, Datatype::EtherAddr]),
            Set::new("senders", [Datatype::IfName, Datatype::Ipv4Addr]),
            Set::new("targets", [Datatype::IfName, Datatype::Raw(TARGET)]),
            Set::new("rarp", [Datatype::IfName, Datatype::Raw(RARP_SENDER), Datatype::Raw(RARP_TARGET)]),
            counted(),
        ],
        chains: vec![
            Chain { name: "guests".into(), hook: None, rules: guests() },
            Chain {
                name: "TOTAP".into(),
                hook: None,
                rules: vec![
                    [Statement::contained([Field::OifName.into(), prefix.clone()], "to"), Return].into(),
                    [Statement::not_equal(prefix, mac("aa:55:60:0:0:1")), Drop].into(),
                    [Statement::contained([Field::IifName.into(), Field::ArpSaddrIp.into()], "senders"), Accept].into(),
                    [Statement::equal(Field::ArpOperation, Value::ArpOp(2)), Accept].into(),
                    [Statement::equal(Field::ArpSaddrEther, mac("aa:55:60:0:0:1")), Accept].into(),
                    [Statement::equal(Field::IpSaddr, v4("10.0.0.1")), Accept].into(),
                    [Statement::equal(Field::Ip6Daddr, v6("2001:db8::1")), Accept].into(),
                    [Statement::not_equal(Field::EtherType, Value::EtherType(0x8035)), Drop].into(),
                ],
            },
            Chain {
                name: "forward".into(),
                hook: Some(Hook { point: HookPoint::Forward, priority: -200 }),
                rules: vec![[Statement::contained([Field::OifName.into()], "filtered"), Jump("TOTAP".into())].into()],
            },
        ],
    };
    [arp, inet, bridge]
}

/// A set whose elements count.
pub(super) fn counted() -> Set {
    Set { counter: true, comment: Some(Comment::new("drops")), ..Set::new("dropped_from", [Datatype::IfName]) }
}

const TARGET: Raw = Raw { header: RawHeader::Transport, offset: 8, length: 16 };
const RARP_SENDER: Raw = Raw { header: RawHeader::Network, offset: 8, length: 6 };
const RARP_TARGET: Raw = Raw { header: RawHeader::Network, offset: 18, length: 6 };

/// Rules on what lies above IP, on raw bits, on flags and fragments; they can stand in a bridge only.
fn guests() -> Vec<Rule> {
    use Statement::{Accept, Drop, Return};
    let middle = Raw { header: RawHeader::Transport, offset: 19, length: 2 };
    let raw = |raw: Raw| Selector::from(Field::Raw(raw));
    let syn = Field::TcpFlags.masked(Value::TcpFlags(0x12));
    let group = Field::EtherDaddr.masked(mac("ff:ff:ff:ff:ff:f0"));
    let offset = Field::IpFragmentOffset.masked(Value::IpFragmentOffset(0x1fff));
    let nowhere = Statement::equal(Field::Ip6Saddr, v6("::"));
    vec![
        [Statement::equal(group, mac("1:80:c2:0:0:0")), Drop].into(),
        [Statement::not_equal(syn, Value::TcpFlags(0x02)), Return].into(),
        [Statement::equal(Field::TcpDport, Value::Port(3389)), Accept].into(),
        [Statement::equal(Field::UdpSport, Value::Port(53)), Return].into(),
        [Statement::equal(Field::IpSaddr, v4("0.0.0.0")), Statement::equal(Field::UdpDport, Value::Port(67)), Return]
            .into(),
        [Statement::equal(Field::Icmp6Type, Value::Icmp6Type(134)), Drop].into(),
        [nowhere, Statement::equal(Field::Icmp6Type, Value::Icmp6Type(135)), Accept].into(),
        [Statement::not_equal(Field::Icmp6Type, Value::Icmp6Type(255)), Return].into(),
        [
            Statement::not_equal(Field::Ip6FragmentOffset, Value::Ip6FragmentOffset(0)),
            Statement::not_equal(Field::L4Proto, Value::InetProto(255)),
            Return,
        ]
        .into(),
        [Statement::equal(Field::Ip6Saddr.masked(v6("::ff:ff00:0")), v6("::ff:fe00:0")), Drop].into(),
        [Statement::contained([Field::IifName.into(), raw(TARGET)], "targets"), Return].into(),
        [Statement::equal(raw(middle), Value::Raw(middle, 0xfffe)), Drop].into(),
        [
            Statement::equal(Field::EtherType, Value::EtherType(0x8035)),
            Statement::contained([Field::IifName.into(), raw(RARP_SENDER), raw(RARP_TARGET)], "rarp"),
            Return,
        ]
        .into(),
        [Statement::equal(Field::ArpDaddrIp, v4("10.0.0.1")), Drop].into(),
        [Statement::not_equal(offset, Value::IpFragmentOffset(0)), Drop].into(),
        [Statement::equal(Field::IpProtocol, Value::InetProto(2)), Drop].into(),
        [Statement::equal(Field::Ip6NextHeader, Value::InetProto(0)), Drop].into(),
    ]
}

pub(super) fn elements() -> [Element; 8] {
    let tap = || name("tap0");
    let element = |family, set: &'static str, key| Element { family, set: set.into(), key, data: None, comment: None };
    [
        Element { data: Some(v4("10.0.0.1")), ..element(TableFamily::Arp, "arp_source", vec![tap()]) },
        element(TableFamily::Inet, "guarded", vec![tap()]),
        Element {
            comment: Some(Comment::new("hello")),
            ..element(TableFamily::Inet, "sources4", vec![tap(), v4("10.0.0.2")])
        },
        element(TableFamily::Inet, "sources6", vec![tap(), v6("2001:db8::1")]),
        element(TableFamily::Bridge, "to", vec![tap(), mac("aa:55:60:0:0:0")]),
        element(TableFamily::Bridge, "targets", vec![tap(), Value::Raw(TARGET, 0xfe80 << 112 | 1)]),
        element(
            TableFamily::Bridge,
            "rarp",
            vec![tap(), Value::Raw(RARP_SENDER, 0xaa), Value::Raw(RARP_TARGET, 0x0a00_0000_0000)],
        ),
        Element { comment: Some(Comment::new("vm1")), ..element(TableFamily::Bridge, "dropped_from", vec![tap()]) },
    ]
}
