//! What every kind answers.

use super::*;

fn name(text: &str) -> IfName {
    text.parse().expect("a name")
}

fn route(gateway: &str) -> Object {
    let hop = Hop::Gateway { gateway: gateway.parse().expect("an address"), device: name("eth1"), onlink: false };
    let destination = "0.0.0.0/0".parse().expect("a prefix");
    Route { destination, hop, table: 100, metric: None, protocol: PROTOCOL_NODE }.into()
}

#[test]
fn objects_are_ordered_by_phase_in_whatever_order_they_come() {
    let interface = || name("tap0");
    let objects: [Object; 5] = [
        route("10.0.0.1"),
        Up { name: interface(), down_after: true }.into(),
        Port { name: interface(), bridge: None }.into(),
        route("10.0.0.2"),
        Link { name: interface(), mac: None, mtu: None }.into(),
    ];
    let mut plan = Plan::default();
    plan.extend(objects.clone());
    let [first_route, up, port, second_route, link] = objects;
    assert_eq!(plan.objects, [link, port, up, first_route, second_route]);
}

#[test]
fn one_value_covers_another_of_its_place_and_a_route_only_itself() {
    let port = |bridge: &str| Object::from(Port { name: name("tap0"), bridge: Some(name(bridge)) });
    assert!(port("br0").is_covered_by(&port("br1")));
    assert!(!port("br0").is_covered_by(&Up { name: name("tap0"), down_after: true }.into()));
    // Making one replaces the other; removing one never hits the other.
    assert_eq!(route("10.0.0.1").key(), route("10.0.0.2").key());
    assert!(!route("10.0.0.1").is_covered_by(&route("10.0.0.2")));
}

#[test]
fn settings_without_a_former_value_stay() {
    let sysctl = |interface, before| {
        let value = Setting { want: 1, before };
        Object::from(Sysctl { family: Family::V4, group: SysctlGroup::Conf, interface, key: "forwarding", value })
    };
    assert!(sysctl(Some(name("tap0")), None).stays());
    let own = sysctl(Some(name("tap0")), Some(0));
    assert_eq!(own.lifetime(), Lifetime::WithLink(&name("tap0")));
    assert_eq!(own.command(Verb::Remove), "echo 0 > /proc/sys/net/ipv4/conf/tap0/forwarding");
    assert_eq!(sysctl(None, Some(0)).lifetime(), Lifetime::Own);
}
