//! Properties of random inputs, drawn anew at every run. What fails is shown as small as proptest can make it; as a file of
//! fuzz/corpus it stays tried.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::nic::{SETTINGS, VARIABLES, facts, planned};
use super::{Choices, text};
use crate::addr::{Family, Mac};
use crate::environment::{RawNic, Unset};
use crate::frame::{Arp, ArpOperation, Echo, Frame, Ip, Message, NDP_HOP_LIMIT, NeighbourAdvertisement, Packet};
use crate::kernel::nftables;
use crate::nic::Nic;
use crate::object::{Object, Plan, Verb};
use crate::settings::Settings;
use crate::setup;

const FILE: &str = "# settings\nSTATE_DIR=/var/lib/x\nexport LOGFILE=\"$STATE_DIR/log\"\nMAC_MASK=ff:ff:f0:0:0:0 # mask\n\
    : ${TAP_CONSTANT_MAC:=cc:47:52:4e:45:54}\n: \"${FZONE:=vm.example.org}\"\nSERVER='ns.example.org'\nTTL=300\n\
    NFDHCPD_STATE_EXTRA='MTU=1400\nPRIVATE=1'\nDNS_TAG=d\\ns\nIPSPOOF=\nKEYFILE=${STATE_DIR:-/x}/k\nCOLOUR=red\n\
    KERBEROS_KSTART_ARGS=\"-H 1 -l 1h\" \\\n  AUTHENTICATION_METHOD=bind9\n";

/// What makes trouble for those who read text.
const SPECIAL: &[&str] = &[
    "$",
    "${",
    "}",
    "$(",
    ")",
    "`",
    "\"",
    "'",
    "\\",
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    "#",
    "=",
    ":",
    ":-",
    ":=",
    ";",
    "|",
    "&",
    "*",
    "/",
    "..",
    "-",
    "+",
    "0",
    "1",
    "9",
    "255",
    "0x",
    "a",
    "A",
    "π",
    "\u{202e}",
    "\u{2028}",
    "\u{1b}[31m",
    "\u{85}",
];

/// Text with a few of its bytes replaced.
fn mutated(text: String) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0..3_usize, select(SPECIAL));
    vec(change, 1..4).prop_map(move |changes| {
        let mut bytes = text.clone().into_bytes();
        for (place, removed, put) in changes {
            let place = place.index(bytes.len() + 1);
            let end = (place + removed).min(bytes.len());
            bytes.splice(place..end, put.bytes());
        }
        bytes
    })
}

/// A value of a variable: mostly a good one.
fn value(good: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<u8>>> {
    let good = select(good).prop_map(str::to_owned);
    prop_oneof![
        60 => good.clone().prop_map(|it| Some(it.into_bytes())),
        1 => good.prop_flat_map(mutated).prop_map(Some),
        1 => vec(any::<u8>(), 0..40).prop_map(Some),
        1 => Just(None),
    ]
}

fn variables() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    VARIABLES.iter().map(|(_, good)| value(good).boxed()).collect::<Vec<_>>()
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

fn frame() -> impl Strategy<Value = Frame> {
    let data = || vec(any::<u8>(), 0..80);
    let echo = (any::<bool>(), any::<u16>(), any::<u16>(), data())
        .prop_map(|(reply, id, sequence, data)| Message::Echo(Echo { reply, id, sequence, data }));
    let udp = (any::<u16>(), any::<u16>(), data()).prop_map(|(source_port, destination_port, data)| Message::Udp {
        source_port,
        destination_port,
        data,
    });
    let ndp = prop_oneof![
        (any::<Ipv6Addr>(), prop::option::of(mac()))
            .prop_map(|(target, source_mac)| Message::NeighbourSolicitation { target, source_mac }),
        (any::<Ipv6Addr>(), any::<[bool; 3]>(), prop::option::of(mac())).prop_map(|(target, flags, target_mac)| {
            let [router, solicited, override_cache] = flags;
            Message::NeighbourAdvertisement(NeighbourAdvertisement {
                target,
                router,
                solicited,
                override_cache,
                target_mac,
            })
        }),
    ];
    let ip = |source: IpAddr, destination: IpAddr, hop_limit, message| {
        Packet::Ip(Ip { source, destination, hop_limit, message })
    };
    let both = || prop_oneof![echo.clone(), udp.clone()];
    let packet = prop_oneof![
        (any::<u16>(), mac(), any::<Ipv4Addr>(), mac(), any::<Ipv4Addr>()).prop_map(
            |(operation, sender_mac, sender, target_mac, target)| {
                let operation = match operation {
                    1 => ArpOperation::Request,
                    2 => ArpOperation::Reply,
                    other => ArpOperation::Other(other),
                };
                Packet::Arp(Arp { operation, sender_mac, sender, target_mac, target })
            }
        ),
        (any::<[Ipv4Addr; 2]>(), any::<u8>(), both()).prop_map(move |([a, b], hops, it)| ip(
            a.into(),
            b.into(),
            hops,
            it
        )),
        (any::<[Ipv6Addr; 2]>(), any::<u8>(), both()).prop_map(move |([a, b], hops, it)| ip(
            a.into(),
            b.into(),
            hops,
            it
        )),
        (any::<[Ipv6Addr; 2]>(), ndp).prop_map(move |([a, b], it)| ip(a.into(), b.into(), NDP_HOP_LIMIT, it)),
    ];
    (mac(), mac(), packet).prop_map(|(destination, source, packet)| Frame { destination, source, packet })
}

/// A routed NIC of one family.
fn plan(family: Family, variables: &[(&str, &str)], settings: &Settings, choices: &[u8]) -> Plan {
    let both = [("INTERFACE", "tap0"), ("INSTANCE", "vm1"), ("MAC", "aa:00:00:12:34:56"), ("MODE", "routed")];
    let endpoint: &[_] = match family {
        Family::V4 => &[("IP", "192.0.2.10"), ("NETWORK_SUBNET", "192.0.2.0/24"), ("NETWORK_GATEWAY", "192.0.2.1")],
        Family::V6 => &[("NETWORK_SUBNET6", "2001:db8::/64"), ("NETWORK_GATEWAY6", "2001:db8::1")],
    };
    let all: Vec<_> = both.iter().chain(endpoint).chain(variables).collect();
    let value = |name: &str| all.iter().find(|it| it.0 == name).map(|it| OsString::from(it.1));
    let raw = RawNic::from_variables(Unset::Empty, value).expect("UTF-8");
    let nic = Nic::new(&raw, settings, |table| Ok(table.parse()?)).expect("a NIC");
    let mut facts = facts(&mut Choices::new(choices));
    facts.uplinks = [(); 2].map(|()| vec!["eth1".parse().expect("a name")]);
    setup::plan(&nic, settings, &facts).expect("a Plan")
}

/// What one family has and the other has not, by the words of its line, and why.
const UNMIRRORED: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/", "IPv6 has switches of the whole node, without which a link's have no effect"),
    ("tap0/proxy_arp", "the node answers ARP on the TAP"),
    ("tap0/drop_gratuitous_arp", "as above"),
    ("tap0/proxy_ndp", "nfdhcpd answers solicitations there, and not the node"),
    ("neigh/tap0/proxy_delay", "so only answers to ARP can be put off"),
    ("neigh replace proxy", "proxy ARP asks the routes, proxy NDP needs entries"),
    ("neigh del proxy", "as above"),
    (" arp_source ", "the node has no address for its ARP requests; its solicitations have a link-local one"),
    ("\"arp_source\"", "the map of the above"),
    ("arp snf-network steered_", "what proxy ARP asks the routes for is marked, too"),
    ("family: Arp, sets: [Set { name: \"steered_", "the set of the above"),
    (" arp_senders ", "what a guest says by ARP"),
    (" targets { \"tap0\" . 0x20010db8", "and by neighbour discovery"),
];

/// Lines of all that makes up a Plan, but for what lists and lines do not tell apart: the order of elements.
fn all_lines(plan: &Plan) -> Vec<String> {
    // What settings were before, and whether they are put back, is drawn by lot, and not alike for both families.
    let verbs = |object: &Object| match object {
        Object::Sysctl(_) => &[Verb::Add][..],
        _ => &[Verb::Add, Verb::Remove],
    };
    let objects = plan.objects.iter().flat_map(|it| verbs(it).iter().map(|verb| it.line(*verb)));
    let mut elements: Vec<_> = plan.elements.iter().map(|it| in_no_family(it.to_string())).collect();
    elements.sort();
    let others = objects.chain(plan.announcements.iter().map(ToString::to_string)).map(in_no_family);
    others.chain(elements).chain(plan.tables.iter().map(|it| format!("{it:?}"))).collect()
}

/// In words that do not name the family, where both have the like.
fn in_no_family(line: String) -> String {
    if UNMIRRORED.iter().any(|(words, _)| line.contains(words)) {
        return line;
    }
    let words = [
        ("192.0.2.10/32", "ADDRESS"),
        ("2001:db8::a800:ff:fe12:3456/128", "ADDRESS"),
        ("192.0.2.10", "ADDRESS"),
        ("2001:db8::a800:ff:fe12:3456", "ADDRESS"),
        ("192.0.2.1", "GATEWAY"),
        ("2001:db8::1", "GATEWAY"),
        ("0xc000020a", "ADDRESS"),
        ("0x20010db800000000a80000fffe123456", "ADDRESS"),
        ("ip -4", "ip"),
        ("ip -6", "ip"),
        ("net/ipv4/", "net/ip/"),
        ("net/ipv6/", "net/ip/"),
        ("proxy_arp", "proxy"),
        ("proxy_ndp", "proxy"),
        ("sources4", "sources"),
        ("sources6", "sources"),
        // None is 0 in IPv4, and another number in IPv6.
        (" metric 1", ""),
        ("quoted4", "quoted"),
        ("quoted6", "quoted"),
        ("error_source4", "error_source"),
        ("error_source6", "error_source"),
        ("arpsend -U -i", "announce"),
        ("ndsend", "announce"),
    ];
    words.iter().fold(line, |line, (from, to)| line.replace(from, to))
}

/// What both families have.
fn mirrored(plan: &Plan) -> Vec<String> {
    all_lines(plan).into_iter().filter(|line| !UNMIRRORED.iter().any(|(words, _)| line.contains(words))).collect()
}

/// No exception is one that nothing needs.
#[test]
fn what_is_unmirrored_is_there() {
    let (settings, _) = Settings::parse(b"", "FILE").expect("no line");
    let variables = [("LINK", "100"), ("NETWORK_TAGS", "ip-less-routed"), ("TAGS", ""), ("MIGRATION_PHASE", "")];
    let [v4, v6] = Family::BOTH.map(|family| all_lines(&plan(family, &variables, &settings, &[0; 40])));
    for (words, why) in UNMIRRORED {
        let [in_v4, in_v6] = [&v4, &v6].map(|lines| lines.iter().any(|line| line.contains(words)));
        assert!(in_v4 != in_v6, "{words:?} ({why}): IPv4 {in_v4}, IPv6 {in_v6}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_nic_is_an_error_or_a_plan_that_its_record_makes_again(
        values in variables(),
        argument in select(&["", "tap9", "b'tap9'"][..]),
        lines in vec(select(SETTINGS), 0..4),
        choices in vec(any::<u8>(), 40),
        unset in select(&[Unset::Empty, Unset::EmptyOrNone][..]),
    ) {
        use std::os::unix::ffi::OsStringExt;
        let (settings, _) = Settings::parse(lines.concat().as_bytes(), "FILE").expect("lines that are right");
        let named: Vec<_> = VARIABLES.iter().map(|it| it.0).zip(values).collect();
        let value = |name: &str| named.iter().find(|it| it.0 == name)?.1.clone().map(OsString::from_vec);
        let raw = RawNic::from_variables(unset, value).and_then(|mut raw| {
            raw.complete_interface(Some(argument.as_ref()))?;
            Ok(raw)
        });
        planned(raw, &settings, &facts(&mut Choices::new(&choices)));
    }

    #[test]
    fn settings_are_an_error_or_come_back(bytes in mutated(FILE.to_owned())) {
        text::settings(&bytes);
    }

    #[test]
    fn frames_come_back(frame in frame()) {
        let bytes = frame.encode().expect("it fits");
        prop_assert_eq!(Frame::parse(&bytes).expect("what we sent"), frame);
        text::frame(&bytes);
    }

    #[test]
    fn elements_come_back(choices in vec(any::<u8>(), 0..60)) {
        nftables::fuzzed::datagram(&[&[1][..], &choices].concat());
    }

    #[test]
    fn both_families_are_planned_alike(
        table in prop_oneof![1..=252_u32, 256..=5000_u32],
        tags in select(&["ip-less-routed", "ip-less-routed nfdhcpd"][..]),
        profile in select(&["", "protected", "limited"][..]),
        phase in select(&["", "pre", "post"][..]),
        lines in vec(select(&["ROUTING=rule\n", "ROUTING_MARK_MASK=0xff00\n", "IPSPOOF=yes\n"][..]), 0..3),
        choices in vec(any::<u8>(), 40),
    ) {
        let (settings, _) = Settings::parse(lines.concat().as_bytes(), "FILE").expect("lines that are right");
        let table = table.to_string();
        let variables =
            [("LINK", table.as_str()), ("NETWORK_TAGS", tags), ("TAGS", profile), ("MIGRATION_PHASE", phase)];
        let [v4, v6] = Family::BOTH.map(|family| mirrored(&plan(family, &variables, &settings, &choices)));
        for (of_v4, of_v6) in v4.iter().zip(&v6) {
            prop_assert_eq!(of_v4, of_v6);
        }
        prop_assert_eq!(v4.len(), v6.len());
    }
}
