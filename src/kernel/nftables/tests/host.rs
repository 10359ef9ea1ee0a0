//! What reaches the node itself: addresses by interface, ports of any protocol, what an ICMP error quotes; and the source of a packet,
//! written.

use crate::ruleset::{Chain, Datatype, Field, Raw, RawHeader, Set, Statement, Value};

const QUOTED: Raw = Raw { header: RawHeader::Transport, offset: 24, length: 4 };

/// Sets of the golden table inet.
pub(super) fn sets() -> [Set; 5] {
    let map = |name, data| Set { data: Some(data), ..Set::new(name, [Datatype::IfName]) };
    [
        Set::new("uplinks", [Datatype::IfName, Datatype::NfProto]),
        Set::new("services", [Datatype::IfName, Datatype::InetProto, Datatype::InetService]),
        Set::new("quoted", [Datatype::IfName, Datatype::Raw(QUOTED)]),
        map("source4", Datatype::Ipv4Addr),
        map("source6", Datatype::Ipv6Addr),
    ]
}

/// A chain of that table.
pub(super) fn chain() -> Chain {
    use Statement::{Accept, Drop, Return};
    let on = |field: Field, kind| Statement::equal(field, Value::FibAddrType(kind));
    let write =
        |field, map: &'static str| Statement::Write { field, selectors: vec![Field::OifName.into()], map: map.into() };
    let services = [Field::IifName.into(), Field::L4Proto.into(), Field::ThDport.into()];
    Chain {
        name: "host".into(),
        hook: None,
        rules: vec![
            [Statement::contained([Field::IifName.into(), Field::NfProto.into()], "uplinks"), Accept].into(),
            [on(Field::DaddrTypeOnIif, 2), Accept].into(),
            [on(Field::DaddrTypeOnIif, 3), Accept].into(),
            [on(Field::SaddrTypeOnOif, 5), Return].into(),
            [Statement::contained(services, "services"), Accept].into(),
            [Statement::equal(Field::IcmpType, Value::IcmpType(11)), Drop].into(),
            [Statement::equal(Field::Icmp6Type, Value::Icmp6Type(2)), Drop].into(),
            [
                Statement::equal(Field::IcmpType, Value::IcmpType(3)),
                Statement::contained([Field::IifName.into(), Field::Raw(QUOTED).into()], "quoted"),
                Accept,
            ]
            .into(),
            [write(Field::IpSaddr, "source4")].into(),
            [write(Field::Ip6Saddr, "source6")].into(),
        ],
    }
}
