//! Plans against inventories made by hand.

use std::net::IpAddr;

use super::*;
use crate::kernel::nftables::Lacking;
use crate::kernel::rtnetlink::{DEVCONF, LinkState};
use crate::object::RuleSelector;
use crate::object::{
    BridgeVlans, File, Hop, Link, Port, PortFlags, PortState, PortVlan, Route, Rule, Setting, Sysctl, SysctlGroup,
    TABLE_MAIN, Towards, Up,
};
use crate::ruleset::{Comment, TableFamily, Value};
use crate::setup::shared;

fn name(text: &str) -> IfName {
    text.parse().expect("a name")
}

fn link(text: &str, index: u32) -> LinkState {
    LinkState {
        name: name(text),
        index,
        mac: Some("02:00:00:00:00:01".parse().expect("a MAC")),
        mtu: 1500,
        up: true,
        controller: 0,
        group: 0,
        kind: None,
        parent_bus: None,
        vnet_hdr: false,
        bridge: None,
        in_openvswitch: false,
        port: PortState::default(),
        devconf: [Some(0); DEVCONF.len()],
    }
}

/// Two bridges and two TAPs, of which tap0 is a port of br0.
fn observed() -> Observed {
    let mut observed = Observed::default();
    for (name, index) in [("br0", 1), ("br1", 2), ("tap0", 3), ("tap1", 4), ("eth1", 5)] {
        let link = link(name, index);
        observed.links.insert(link.name.clone(), link);
    }
    if let Some(port) = observed.links.get_mut(&name("tap0")) {
        port.controller = 1;
        port.port = PortState { group_fwd_mask: Some(0), mcast_router: Some(1) };
    }
    observed
}

fn nic() -> Owner {
    Owner::Nic(name("tap0"))
}

fn lines(plan: &Plan, observed: &Observed) -> Vec<String> {
    verify(&nic(), plan, observed).iter().map(Drift::to_string).collect()
}

fn line(object: Object, observed: &Observed) -> Option<String> {
    let lines = lines(&Plan { objects: vec![object], ..Plan::default() }, observed);
    assert!(lines.len() < 2, "{lines:?}");
    lines.into_iter().next()
}

fn rule(family: Family, table: u32) -> Rule {
    let selector = RuleSelector::Iif(name("tap0"));
    Rule { family, selector, table, preference: 20_100, protocol: PROTOCOL_NIC, shared: false }
}

fn route(to: &str, device: &str) -> Route {
    let hop = Hop::Device(name(device));
    Route { destination: to.parse().expect("a prefix"), hop, table: 100, metric: None, protocol: PROTOCOL_NIC }
}

fn element(set: &'static str, data: Option<Value>, comment: &str) -> Element {
    let key = vec![Value::IfName(name("tap0"))];
    Element { family: TableFamily::Arp, set: set.into(), key, data, comment: Some(Comment::new(comment)) }
}

#[test]
fn nothing_differs_from_nothing() {
    assert_eq!(lines(&Plan::default(), &observed()), [""; 0]);
}

#[test]
fn rules() {
    let mut observed = observed();
    let (v4, v6) = (rule(Family::V4, 100), rule(Family::V6, 100));
    let plan = Plan { objects: vec![Object::Rule(v4.clone()), Object::Rule(v6.clone())], ..Plan::default() };
    let foreign = Rule { protocol: 3, ..rule(Family::V4, 300) };
    observed.rules.insert(name("tap0"), vec![v4.clone(), rule(Family::V4, 200), foreign]);
    assert_eq!(
        lines(&plan, &observed),
        [
            "missing: ip -6 rule iif tap0 lookup 100 pref 20100 protocol 217",
            "foreign: ip rule iif tap0 lookup 200 pref 20100 protocol 217"
        ]
    );
    observed.rules.insert(name("tap0"), vec![v6, v4]);
    assert_eq!(lines(&plan, &observed), [""; 0]);
    // Another NIC's.
    observed
        .rules
        .insert(name("tap1"), vec![Rule { selector: RuleSelector::Iif(name("tap1")), ..rule(Family::V4, 100) }]);
    assert_eq!(lines(&plan, &observed), [""; 0]);
}

#[test]
fn routes() {
    let mut observed = observed();
    let plan = Plan { objects: vec![Object::Route(route("10.0.0.2/32", "tap0"))], ..Plan::default() };
    let missing = "missing: ip route 10.0.0.2/32 dev tap0 table 100 proto 217";
    assert_eq!(lines(&plan, &observed), [missing]);
    observed.add_route(Route { table: TABLE_MAIN, protocol: 2, ..route("10.0.0.2/32", "tap0") });
    observed.add_route(Route { metric: Some(7), protocol: 2, ..route("10.0.0.2/32", "tap0") });
    assert_eq!(lines(&plan, &observed), [missing]);
    observed.add_route(Route { protocol: 2, ..route("10.0.0.2/32", "tap0") });
    let other = "ip route 10.0.0.2/32 dev tap0 table 100 proto 2";
    assert_eq!(lines(&plan, &observed), [format!("different: {}, found: {other}", &missing[9..])]);
    observed.add_route(route("10.0.0.9/32", "tap0"));
    observed.add_route(route("10.0.0.8/32", "tap1"));
    assert_eq!(lines(&plan, &observed)[1..], ["foreign: ip route 10.0.0.9/32 dev tap0 table 100 proto 217"]);
    // Of several of the same metric the first one counts.
    observed.add_route(route("10.0.0.2/32", "tap0"));
    assert_eq!(lines(&plan, &observed)[0], format!("different: {}, found: {other}", &missing[9..]));
    let mut observed = self::observed();
    observed.add_route(route("10.0.0.2/32", "tap0"));
    observed.add_route(Route { protocol: 2, ..route("10.0.0.2/32", "tap0") });
    assert_eq!(lines(&plan, &observed), [""; 0]);
}

#[test]
fn what_is_in_the_place_of_something_wanted_is_named_once() {
    let mut observed = observed();
    observed.add_route(Route { hop: Hop::Device(name("tap0")), ..route("10.0.0.2/32", "tap0") });
    let wanted = Route { hop: Hop::Unreachable, ..route("10.0.0.2/32", "tap0") };
    let plan = Plan { objects: vec![Object::Route(wanted)], ..Plan::default() };
    assert_eq!(lines(&plan, &observed).len(), 1);
}

#[test]
fn proxies() {
    let mut observed = observed();
    let address: IpAddr = "2001:db8::2".parse().expect("an address");
    let proxy = NeighProxy { address, device: name("eth1"), behind: name("tap0"), protocol: PROTOCOL_NIC };
    let mut line = |found: Option<(&str, u8)>| {
        let found = found.map(|(device, protocol)| FoundProxy { address, device: name(device), protocol });
        observed.proxies.insert(address, found.into_iter().collect());
        line(Object::NeighProxy(proxy.clone()), &observed)
    };
    let wanted = "ip -6 neigh proxy 2001:db8::2 dev eth1 protocol 217";
    assert_eq!(line(None), Some(format!("missing: {wanted}")));
    assert_eq!(line(Some(("br0", 217))), Some(format!("missing: {wanted}")));
    assert_eq!(line(Some(("eth1", 0))), Some(format!("different: {wanted}, found: protocol 0")));
    assert_eq!(line(Some(("eth1", 217))), None);
}

#[test]
fn links() {
    let observed = observed();
    let mac = |text: &str| Some(Setting { want: text.parse().expect("a MAC"), before: None });
    let object = |text: &str, mac, mtu: Option<u32>| {
        let mtu = mtu.map(|want| Setting { want, before: None });
        Object::Link(Link { name: name(text), mac, mtu })
    };
    assert_eq!(line(object("tap0", mac("02:00:00:00:00:01"), Some(1500)), &observed), None);
    assert_eq!(line(object("tap0", None, None), &observed), None);
    assert_eq!(
        line(object("tap0", mac("fe:00:00:00:00:01"), Some(1400)), &observed).as_deref(),
        Some(
            "different: ip link set dev tap0 address fe:00:00:00:00:01 mtu 1400, found: address 02:00:00:00:00:01 mtu 1500"
        )
    );
    assert_eq!(
        line(object("tap9", None, Some(1400)), &observed).as_deref(),
        Some("missing: ip link set dev tap9 mtu 1400")
    );
}

#[test]
fn ups() {
    let mut observed = observed();
    let up = || Object::Up(Up { name: name("tap0"), down_after: true });
    assert_eq!(line(up(), &observed), None);
    observed.links.values_mut().for_each(|it| it.up = false);
    assert_eq!(line(up(), &observed).as_deref(), Some("different: ip link set dev tap0 up, found: down"));
    observed.links.clear();
    assert_eq!(line(up(), &observed).as_deref(), Some("missing: ip link set dev tap0 up"));
}

#[test]
fn ports() {
    let mut observed = observed();
    let port = |bridge: Option<&str>| Object::Port(Port { name: name("tap0"), bridge: bridge.map(name) });
    for (bridge, expected) in [
        (Some("br0"), None),
        (Some("br1"), Some("different: ip link set dev tap0 master br1, found: master br0")),
        (Some("br9"), Some("different: ip link set dev tap0 master br9, found: master br0")),
        (None, Some("different: ip link set dev tap0 nomaster, found: master br0")),
    ] {
        assert_eq!(line(port(bridge), &observed).as_deref(), expected);
    }
    observed.links.values_mut().for_each(|it| it.controller = 0);
    assert_eq!(line(port(None), &observed), None);
    assert_eq!(line(port(Some("br0")), &observed).as_deref(), Some("missing: ip link set dev tap0 master br0"));
}

#[test]
fn port_flags() {
    let mut observed = observed();
    let wanted = "ip link set dev tap0 type bridge_slave group_fwd_mask 0xfffd mcast_router 0";
    let found = "found: group_fwd_mask 0x0 mcast_router 1";
    assert_eq!(line(flags_object(), &observed), Some(format!("different: {wanted}, {found}")));
    let mut set = |group_fwd_mask, mcast_router, controller| {
        let port = observed.links.get_mut(&name("tap0")).expect("the port");
        port.port = PortState { group_fwd_mask, mcast_router };
        port.controller = controller;
        line(flags_object(), &observed)
    };
    assert_eq!(set(Some(0xfffd), Some(0), 1), None);
    // What a kernel does not know is no drift.
    assert_eq!(set(Some(0xfffd), None, 1), None);
    assert_eq!(set(Some(0xfffd), Some(0), 0), Some(format!("missing: {wanted}")));
    assert_eq!(set(None, None, 1), Some(format!("missing: {wanted}")));
}

fn flags_object() -> Object {
    Object::PortFlags(PortFlags::of_guest(name("tap0")))
}

#[test]
fn vlans() {
    let mut observed = observed();
    let object = |towards| {
        let vlans = vec![PortVlan::untagged(10), PortVlan::tagged(20)];
        Object::BridgeVlans(BridgeVlans { port: name("tap0"), towards, vlans })
    };
    let (guest, outside) = (Towards::Guest { default_pvid: 1 }, Towards::Outside);
    let wanted = "bridge vlan dev tap0: 10 pvid untagged, 20";
    assert_eq!(line(object(guest), &observed), Some(format!("missing: {wanted}")));
    observed.vlans.insert(3, vec![PortVlan::untagged(1), PortVlan::tagged(20)]);
    assert_eq!(line(object(guest), &observed), Some(format!("different: {wanted}, found: 1 pvid untagged, 20")));
    assert_eq!(line(object(outside), &observed), Some(format!("different: {wanted}, found: 1 pvid untagged, 20")));
    // What is there keeps its flags where it leads outside.
    observed.vlans.insert(3, vec![PortVlan::tagged(10), PortVlan::tagged(20), PortVlan::tagged(30)]);
    assert_eq!(line(object(outside), &observed), None);
    assert!(line(object(guest), &observed).is_some());
    observed.vlans.insert(3, vec![PortVlan::untagged(10), PortVlan::tagged(20)]);
    assert_eq!(line(object(guest), &observed), None);
    observed.links.values_mut().for_each(|it| it.controller = 0);
    assert_eq!(line(object(outside), &observed), None);
    assert_eq!(line(object(guest), &observed), Some(format!("missing: {wanted}")));
}

#[test]
fn sysctls() {
    let mut observed = observed();
    let object = |family, group, interface: Option<&str>, key, want| {
        let value = Setting { want, before: None };
        Object::Sysctl(Sysctl { family, group, interface: interface.map(name), key, value })
    };
    let proxy_arp = |want| object(Family::V4, SysctlGroup::Conf, Some("tap0"), "proxy_arp", want);
    assert_eq!(line(proxy_arp(0), &observed), None);
    let expected = "different: echo 1 > /proc/sys/net/ipv4/conf/tap0/proxy_arp, found: 0";
    assert_eq!(line(proxy_arp(1), &observed).as_deref(), Some(expected));
    // IPv6 may be off on a link; IPv4 is not.
    observed.links.values_mut().for_each(|it| it.devconf = [None; DEVCONF.len()]);
    assert_eq!(line(object(Family::V6, SysctlGroup::Conf, Some("tap0"), "accept_ra", 0), &observed), None);
    let expected = "missing: echo 0 > /proc/sys/net/ipv4/conf/tap0/proxy_arp";
    assert_eq!(line(proxy_arp(0), &observed).as_deref(), Some(expected));
    let delay = || object(Family::V4, SysctlGroup::Neigh, Some("tap0"), "proxy_delay", 0);
    observed.proxy_delays = [[(3, 80), (4, 0)].into(), [(3, 0)].into()];
    let expected = "different: echo 0 > /proc/sys/net/ipv4/neigh/tap0/proxy_delay, found: 80";
    assert_eq!(line(delay(), &observed).as_deref(), Some(expected));
    observed.proxy_delays[0].insert(3, 0);
    assert_eq!(line(delay(), &observed), None);
    let all = || object(Family::V6, SysctlGroup::Conf, None, "proxy_ndp", 1);
    let path = "/proc/sys/net/ipv6/conf/all/proxy_ndp";
    assert_eq!(line(all(), &observed), Some(format!("missing: echo 1 > {path}")));
    let place = (Family::V6, SysctlGroup::Conf, "proxy_ndp");
    observed.sysctls.insert(place, Some(0));
    assert_eq!(line(all(), &observed), Some(format!("different: echo 1 > {path}, found: 0")));
    observed.sysctls.insert(place, Some(1));
    assert_eq!(line(all(), &observed), None);
}

#[test]
fn bindings() {
    let mut observed = observed();
    let binding = || Object::File(File { path: "/b/tap0".into(), text: "IP=10.0.0.2\n".to_owned() });
    assert_eq!(line(binding(), &observed).as_deref(), Some("missing: binding /b/tap0"));
    for (text, expected) in [
        (None, Some("missing: binding /b/tap0")),
        (Some("IP=10.0.0.2"), Some("different: binding /b/tap0, found: other content")),
        (Some("IP=10.0.0.2\n"), None),
    ] {
        observed.files.insert("/b/tap0".into(), text.map(|it| it.as_bytes().to_vec()));
        assert_eq!(line(binding(), &observed).as_deref(), expected);
    }
}

#[test]
fn elements() {
    let mut observed = observed();
    let gateway = |last: u8| Some(Value::V4([10, 0, 0, last].into()));
    let plan = Plan { elements: vec![element("arp_source", gateway(1), "web1")], ..Plan::default() };
    let wanted = r#"nft element arp snf-network arp_source { "tap0" comment "web1" : 10.0.0.1 }"#;
    assert_eq!(lines(&plan, &observed), [format!("missing: {wanted}")]);
    for (data, comment, found) in [(1, "web2", "web2\" : 10.0.0.1"), (2, "web1", "web1\" : 10.0.0.2")] {
        observed.elements.insert(name("tap0"), vec![element("arp_source", gateway(data), comment)]);
        let found = format!(r#"nft element arp snf-network arp_source {{ "tap0" comment "{found} }}"#);
        assert_eq!(lines(&plan, &observed), [format!("different: {wanted}, found: {found}")]);
    }
    let stands = vec![element("guarded", None, "web1"), element("arp_source", gateway(1), "web1")];
    observed.elements.insert(name("tap0"), stands);
    let foreign = r#"foreign: nft element arp snf-network guarded { "tap0" comment "web1" }"#;
    assert_eq!(lines(&plan, &observed), [foreign]);
    // An uplink has no others of IPv6, and none in other tables.
    let uplink = Owner::Uplink(name("tap0"), Family::V6);
    assert_eq!(verify(&uplink, &Plan::default(), &observed), []);
}

#[test]
fn tables() {
    let mut observed = observed();
    let plan = Plan { tables: vec![Arc::clone(&shared::ARP)], ..Plan::default() };
    assert_eq!(lines(&plan, &observed), [""; 0]);
    let names = |name: &'static str| vec![name.into()];
    let lacking = Lacking { chains: names("output"), ..Lacking::default() };
    observed.lacking = vec![(Arc::clone(&shared::ARP), lacking.clone())];
    assert_eq!(lines(&plan, &observed), ["different: nft table arp snf-network: output, found: no chain output"]);
    observed.lacking[0].1 = Lacking { sets: names("arp_source"), entirely: true, ..lacking };
    assert_eq!(lines(&plan, &observed), ["missing: nft table arp snf-network: output"]);
}

#[test]
fn a_port_that_goes_elsewhere_is_made_whole() {
    let observed = observed();
    let objects = vec![
        Object::Port(Port { name: name("tap0"), bridge: Some(name("br1")) }),
        Object::Up(Up { name: name("tap0"), down_after: true }),
    ];
    let plan = Plan { objects, ..Plan::default() };
    let drift = verify(&nic(), &plan, &observed);
    assert_eq!(drift.len(), 1);
    // It goes down on its way, so it must come up again.
    assert_eq!(to_repair(&plan, drift), [plan, Plan::default()]);
}

#[test]
fn strays_are_of_nobody() {
    let mut observed = observed();
    let address: IpAddr = "2001:db8::2".parse().expect("an address");
    let proxy = |protocol| FoundProxy { address, device: name("eth1"), protocol };
    observed.proxies.insert(address, vec![proxy(PROTOCOL_NIC)]);
    observed.rules.insert(name("tap0"), vec![rule(Family::V4, 100)]);
    observed.rules.insert(
        name("tap7"),
        vec![Rule { selector: RuleSelector::Iif(name("tap7")), protocol: 3, ..rule(Family::V4, 100) }],
    );
    observed.add_route(route("10.0.0.8/32", "tap1"));
    let orphans = |known: &[&str], plans: &[Plan], observed: &Observed| -> Vec<String> {
        let orphans = orphans(observed, |it| known.contains(&it.as_str()), plans.iter());
        orphans
            .into_iter()
            .map(|it| format!("{}: {}", it.0.map_or("-".to_owned(), |it| it.to_string()), it.1))
            .collect()
    };
    let all = [
        "tap0: ip rule iif tap0 lookup 100 pref 20100 protocol 217",
        "tap1: ip route 10.0.0.8/32 dev tap1 table 100 proto 217",
        "-: ip -6 neigh proxy 2001:db8::2 dev eth1 protocol 217",
    ];
    assert_eq!(orphans(&[], &[], &observed), all);
    assert_eq!(orphans(&["tap0"], &[], &observed), all[1..]);
    let owner = NeighProxy { address, device: name("eth1"), behind: name("tap3"), protocol: PROTOCOL_NIC };
    let plan = Plan { objects: vec![Object::NeighProxy(owner)], ..Plan::default() };
    assert_eq!(orphans(&["tap0", "tap1"], &[plan], &observed), [""; 0]);
    observed.proxies.insert(address, vec![proxy(0)]);
    assert_eq!(orphans(&["tap0", "tap1"], &[], &observed), [""; 0]);
}
