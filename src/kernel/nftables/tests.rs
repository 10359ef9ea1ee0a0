//! Golden bytes beside the command that made them, and answers that are cut short or garbled.

mod marks;

use super::*;
use crate::addr::Mac;
use crate::ruleset::{Chain, Comment, Datatype, Field, Hook, HookPoint, Raw, RawHeader, Rule, Selector, Statement};

fn mac(text: &str) -> Value {
    Value::Mac(text.parse::<Mac>().expect("a MAC"))
}

fn name(text: &str) -> Value {
    Value::IfName(text.parse().expect("an interface name"))
}

fn v4(text: &str) -> Value {
    Value::V4(text.parse().expect("an IPv4 address"))
}

fn v6(text: &str) -> Value {
    Value::V6(text.parse().expect("an IPv6 address"))
}

/// One rule at least for each kind of statement, each field and each family's way to be sure of a header.
fn tables() -> [Table; 3] {
    use Statement::{Accept, Counter, Drop, Goto, Jump, Return, Write};
    let map = Set {
        data: Some(Datatype::Ipv4Addr),
        comment: Some(Comment::new("who asks")),
        ..Set::new("arp_source", [Datatype::IfName])
    };
    let arp = Table {
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
    let inet = Table {
        family: TableFamily::Inet,
        sets: vec![
            Set::new("guarded", [Datatype::IfName]),
            Set::new("sources4", [Datatype::IfName, Datatype::Ipv4Addr]),
            Set::new("sources6", [Datatype::IfName, Datatype::Ipv6Addr]),
            Set::new("senders", [Datatype::Ipv4Addr, Datatype::IfName]),
            Set::new("macs", [Datatype::EtherAddr]),
        ],
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
            marks::chain(),
        ],
    };
    let prefix = Field::EtherSaddr.masked(mac("ff:ff:f0:0:0:0"));
    let bridge = Table {
        family: TableFamily::Bridge,
        sets: vec![
            Set::new("filtered", [Datatype::IfName]),
            Set::new("to", [Datatype::IfName, Datatype::EtherAddr]),
            Set::new("senders", [Datatype::IfName, Datatype::Ipv4Addr]),
            Set::new("targets", [Datatype::IfName, Datatype::Raw(TARGET)]),
            Set::new("rarp", [Datatype::IfName, Datatype::Raw(RARP_SENDER), Datatype::Raw(RARP_TARGET)]),
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
    ]
}

fn elements() -> [Element; 7] {
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
    ]
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("two digits")).collect()
}

/// `request` as a line of golden.txt.
fn line(request: Request) -> String {
    let kind = uapi::operation(request.kind).trim_start_matches("NFT_MSG_").to_owned();
    let mut bytes = Vec::new();
    request.write(1, &mut bytes).expect("a message");
    let length = u32::from_ne_bytes(*bytes.first_chunk().expect("a header"));
    assert_eq!(usize::try_from(length).expect("a length"), bytes.len());
    let attributes: String = bytes[20..].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{kind} {:02x} {attributes}", bytes[16])
}

/// Lines of a file of this folder, without its comments.
fn lines(file: &str) -> impl Iterator<Item = &str> {
    file.lines().filter(|line| !line.starts_with('#'))
}

#[test]
fn displayed_it_is_what_nft_reads() {
    let tables: String = tables().iter().map(Table::to_string).collect();
    let elements: String = elements().iter().map(|element| format!("{element}\n")).collect();
    assert_eq!(tables + &elements, include_str!("tests/golden.nft"));
}

#[test]
#[cfg(target_endian = "little")]
fn the_messages_are_those_of_nft() {
    let tables = tables();
    let seen: Vec<_> = tables.iter().map(base::SeenTable::nothing).collect();
    let mut requests = base::completion(&tables, &seen).expect("messages").requests;
    let elements = elements();
    requests.extend(encode::new_elements(&elements.each_ref()).expect("messages"));
    let mut ours: Vec<_> = requests.into_iter().map(line).collect();
    let mut theirs: Vec<_> = lines(include_str!("tests/golden.txt")).collect();
    // nft has its own order of sets and chains; that of rules must be ours.
    let place = |line: &str| if line.starts_with("NEWRULE") { "NEWRULE".to_owned() } else { line.to_owned() };
    ours.sort_by_key(|line| place(line));
    theirs.sort_by_key(|line| place(line));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn many_elements_share_messages_that_fit() {
    let many: Vec<_> = (0..4000_u32)
        .map(|number| Element {
            key: vec![name(&format!("tap{number}")), Value::V4(number.into())],
            comment: Some(Comment::new(&"x".repeat(200))),
            ..elements()[2].clone()
        })
        .collect();
    let requests = encode::new_elements(&many.iter().collect::<Vec<_>>()).expect("messages");
    assert!(requests.len() < 20, "{} messages", requests.len());
    for request in requests {
        let mut bytes = Vec::new();
        request.write(1, &mut bytes).expect("a message");
        assert!(bytes.len() < usize::from(u16::MAX), "{} bytes", bytes.len());
    }
}

#[test]
fn what_no_packet_has_is_an_error() {
    let rule = |statement| Rule::from([statement]);
    for (family, statement, expected) in [
        (TableFamily::Arp, Statement::equal(Field::IpSaddr, v4("10.0.0.1")), "family arp"),
        (TableFamily::Inet, Statement::equal(Field::IpSaddr, v6("::1")), "type ipv4_addr"),
        (TableFamily::Inet, Statement::equal(Field::IpSaddr.masked(v6("::")), v4("10.0.0.1")), "type ipv4_addr"),
        (
            TableFamily::Inet,
            Statement::Write { field: Field::IpSaddr, selectors: vec![Field::IifName.into()], map: "m".into() },
            "cannot be written",
        ),
        (
            TableFamily::Inet,
            Statement::WriteBits { field: Field::IpSaddr, mask: v4("255.0.0.0"), value: v4("10.0.0.0") },
            "in part",
        ),
    ] {
        let error = expression::expressions(family, &rule(statement)).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
#[cfg(target_endian = "little")]
fn answers_are_read() {
    let answers: Vec<_> = lines(include_str!("tests/answers.txt"))
        .flat_map(|line| message::answers(&hex(line)).expect("answers"))
        .collect();
    let objects = answers.iter().filter_map(|(_, answer)| match answer {
        Answer::Object(object) => Some(&object.attributes),
        _ => None,
    });
    let objects: Vec<_> = objects.collect();
    let mapped = query::stored_elements(objects[0]).pop();
    assert_eq!(query::presence(&elements()[0], mapped.as_ref()), Presence::Present);
    let different = Element { data: Some(v4("10.9.9.9")), ..elements()[0].clone() };
    assert_eq!(query::presence(&different, mapped.as_ref()), Presence::Different);
    let commented = query::stored_elements(objects[1]).pop();
    assert_eq!(query::presence(&elements()[2], commented.as_ref()), Presence::Present);
    let other = Element { comment: None, ..elements()[2].clone() };
    assert_eq!(query::presence(&other, commented.as_ref()), Presence::Different);
    assert_eq!(query::presence(&other, None), Presence::Absent);
    let [arp, inet, _] = tables();
    let dumped: Vec<_> = query::stored_elements(objects[2]);
    let decoded = dumped.into_iter().filter_map(|stored| query::decode(TableFamily::Inet, &inet.sets[1], stored));
    assert_eq!(decoded.collect::<Vec<_>>(), [elements()[2].clone()]);
    assert_eq!(objects[4].number(uapi::NFTA_GEN_ID), Some(2));
    base::check_set(TableFamily::Arp, &arp.sets[0], objects[5]).expect("our set");
    let error = base::check_set(TableFamily::Inet, &inet.sets[1], objects[5]).expect_err("another type").to_string();
    assert!(error.contains("expected: type ifname . ipv4_addr;"), "{error}");
    assert_eq!(base::seen_chain(&arp, &arp.chains[0], objects[6]), base::SeenChain::Complete);
    let other = |name, rules| Chain { name, hook: None, rules };
    let mut jumping = arp.clone();
    jumping.chains.push(other("jumper".into(), vec![[Statement::Jump("output".into())].into()]));
    assert_eq!(base::seen_chain(&jumping, &arp.chains[0], objects[6]), base::SeenChain::Different);
    let rules = arp.chains[0].rules.clone();
    assert_eq!(base::seen_chain(&arp, &other("output".into(), rules), objects[6]), base::SeenChain::Different);
    let refused = answers.iter().find_map(|(_, answer)| match answer {
        Answer::Refused(refusal) => Some(refusal),
        _ => None,
    });
    let refused = refused.expect("a refusal");
    assert_eq!((refused.family, refused.error.errno), (1, ENOENT));
    assert_eq!(refused.error.to_string(), "NFT_MSG_GETSETELEM: No such file or directory (os error 2)");
}

#[test]
fn a_refusal_says_what_is_missing() {
    let explain = |operation, errno, family| {
        let error = Error { operation, errno, text: None };
        format!("{:#}", Refusal { error, family }.explain())
    };
    assert_eq!(
        explain("NFT_MSG_NEWCHAIN", ENOENT, 3),
        "nf_tables: expected a kernel with CONFIG_NF_TABLES_ARP: \
         NFT_MSG_NEWCHAIN: No such file or directory (os error 2)"
    );
    assert!(explain("NFT_MSG_NEWTABLE", nix::libc::EAFNOSUPPORT, 1).contains("CONFIG_NF_TABLES_INET"));
    assert!(explain("NFT_MSG_NEWCHAIN", nix::libc::EOPNOTSUPP, 7).contains("CONFIG_NF_TABLES_BRIDGE"));
    assert!(explain("NFT_MSG_GETGEN", nix::libc::EINVAL, 0).contains("CONFIG_NF_TABLES:"));
    assert!(explain("NFT_MSG_GETGEN", nix::libc::EPERM, 0).contains("CAP_NET_ADMIN"));
}

/// Xorshift (Marsaglia 2003): the same numbers in each run.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).expect("31 bits")
}

#[test]
fn garbled_answers_do_no_harm() {
    let [arp, inet, _] = tables();
    let originals: Vec<_> = lines(include_str!("tests/answers.txt")).map(hex).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..20_000 {
        let mut bytes = originals[random(&mut state) % originals.len()].clone();
        for _ in 0..=random(&mut state) % 4 {
            let at = random(&mut state) % bytes.len();
            bytes[at] = [0, 1, 3, 4, 0x7f, 0x80, 0xff, bytes[at].wrapping_add(1)][random(&mut state) % 8];
        }
        if random(&mut state).is_multiple_of(3) {
            bytes.truncate(random(&mut state) % bytes.len());
        }
        for (_, answer) in message::answers(&bytes).unwrap_or_default() {
            match answer {
                Answer::Object(message::Object { attributes, .. }) => {
                    for stored in query::stored_elements(&attributes) {
                        query::presence(&elements()[0], Some(&stored));
                        query::decode(TableFamily::Inet, &inet.sets[1], stored);
                    }
                    let _ = base::check_set(TableFamily::Arp, &arp.sets[0], &attributes);
                    base::seen_chain(&arp, &arp.chains[0], &attributes);
                }
                Answer::Refused(refusal) => drop(refusal.explain().to_string()),
                Answer::Done | Answer::Acknowledged => {}
            }
        }
    }
}

#[test]
fn each_key_is_changed_once_and_adding_wins() {
    let [mapped, guarded, ..] = elements();
    let add = [mapped.clone(), mapped.clone()];
    let remove = [Element { data: None, ..mapped.clone() }, guarded.clone(), guarded.clone()];
    let change = Change { tables: &[], add: &add, remove: &remove };
    assert_eq!(consolidate(&change).expect("a change"), (vec![&mapped], vec![&guarded]));
    let add = [mapped.clone(), Element { data: Some(v4("10.9.9.9")), ..mapped }];
    let change = Change { add: &add, ..Change::default() };
    assert!(consolidate(&change).is_err());
}
