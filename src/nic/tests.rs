//! NICs from variables, and what is said of bad ones.

use super::*;
use crate::settings::Setups;

const ROUTED: &[(&str, &str)] = &[
    ("INTERFACE", "tap0"),
    ("INTERFACE_INDEX", "0"),
    ("INTERFACE_NAME", "front door"),
    ("INTERFACE_UUID", "6f1d2a3e-0000-4000-8000-00000000beef"),
    ("INSTANCE", "vm1.example.org"),
    ("MAC", "AA:0:0:12:34:56"),
    ("MODE", "routed"),
    ("LINK", "public"),
    ("IP", "192.0.2.10"),
    ("NETWORK_SUBNET", "192.0.2.5/24"),
    ("NETWORK_GATEWAY", "192.0.2.1"),
    ("NETWORK_SUBNET6", "2001:db8:1::/64"),
    ("NETWORK_GATEWAY6", "2001:db8:1::1"),
    ("NETWORK_TAGS", "ip-less-routed nfdhcpd"),
];
const BRIDGED: &[(&str, &str)] =
    &[("INTERFACE", "tap1"), ("INSTANCE", "vm1"), ("MAC", "aa:00:00:12:34:56"), ("MODE", "bridged"), ("LINK", "br0")];

/// The NIC of `base` with some variables changed; an empty value unsets one.
fn nic(base: &[(&str, &str)], changes: &[(&str, &str)]) -> Result<Nic> {
    let raw = RawNic::from_variables(crate::environment::Unset::Empty, |name| {
        let found = changes.iter().chain(base).find(|(key, _)| *key == name);
        found.map(|(_, value)| value.into())
    })?;
    Nic::new(&raw, &Settings::default(), |name| match name {
        "public" => Ok(100),
        _ => bail!("expected a table"),
    })
}

fn accepted(base: &[(&str, &str)], changes: &[(&str, &str)]) -> Nic {
    nic(base, changes).unwrap_or_else(|e| panic!("{changes:?}: {e:#}"))
}

fn endpoint(nic: &Nic, family: Family) -> Option<[String; 3]> {
    let Endpoint { address, subnet, gateway } = nic.endpoint(family)?;
    let shown = |value: Option<String>| value.unwrap_or_default();
    Some([address.to_string(), shown(subnet.map(|s| s.to_string())), shown(gateway.map(|g| g.to_string()))])
}

#[test]
fn a_filtered_nic_is_of_its_network() {
    let filtered = |changes: &[(&str, &str)]| {
        nic(BRIDGED, &[&[("NETWORK_TAGS", "private-filtered strict-filtered")], changes].concat())
    };
    for (mac, prefix) in [("aa:0:0f:1:2:3", "aa:0:0"), ("aa:0:0:1:2:3", "aa:00:0f"), ("aa:0:10:1:2:3", "")] {
        filtered(&[("MAC", mac), ("NETWORK_MAC_PREFIX", prefix)]).unwrap_or_else(|e| panic!("{mac} {prefix}: {e:#}"));
    }
    let error = filtered(&[("MAC", "aa:0:10:1:2:3"), ("NETWORK_MAC_PREFIX", "aa:0:0")]).expect_err("another network");
    let expected =
        "MAC \"aa:0:10:1:2:3\": expected one inside NETWORK_MAC_PREFIX \"aa:0:0\" (MAC_MASK ff:ff:f0:00:00:00)";
    assert_eq!(format!("{error:#}"), expected);
    assert!(
        nic(BRIDGED, &[("MAC", "aa:0:10:1:2:3"), ("NETWORK_MAC_PREFIX", "aa:0:0")]).is_ok(),
        "no filter, no prefix"
    );
    assert!(filtered(&[("VLAN", ".5")]).is_ok());
    let error = filtered(&[("VLAN", ".5:6")]).expect_err("tagged frames").to_string();
    assert!(error.starts_with("VLAN \".5:6\": expected no tagged VLANs"), "{error}");
}

fn all(setups: Setups) -> Vec<Setup> {
    Setup::ALL.into_iter().filter(|setup| setups.contains(*setup)).collect()
}

#[test]
fn a_routed_nic_is_typed_throughout() {
    let nic = accepted(ROUTED, &[("MIGRATION_PHASE", "post"), ("NETWORK_MAC_PREFIX", "aa:00:01")]);
    assert_eq!(nic.interface.as_str(), "tap0");
    assert_eq!(nic.index, Some(0));
    assert_eq!(nic.uuid.as_deref(), Some("6f1d2a3e-0000-4000-8000-00000000beef"));
    assert_eq!((nic.instance.as_str(), nic.mac.to_string().as_str()), ("vm1.example.org", "aa:00:00:12:34:56"));
    assert_eq!(nic.mode, Mode::Routed { table: 100 });
    assert_eq!(all(nic.setups), [Setup::IpLessRouted, Setup::Nfdhcpd]);
    assert_eq!(nic.migration_phase, Some(MigrationPhase::Post));
    assert_eq!(nic.mac_prefix, Some([0xaa, 0, 1]));
    assert_eq!((nic.firewall, nic.tags.as_str()), (None, ""));
    assert_eq!(endpoint(&nic, Family::V4), Some(["192.0.2.10", "192.0.2.0/24", "192.0.2.1"].map(str::to_owned)));
    let v6 = ["2001:db8:1:0:a800:ff:fe12:3456", "2001:db8:1::/64", "2001:db8:1::1"];
    assert_eq!(endpoint(&nic, Family::V6), Some(v6.map(str::to_owned)));
    assert_eq!(accepted(ROUTED, &[("MIGRATION_PHASE", "pre")]).migration_phase, Some(MigrationPhase::Pre));
}

#[test]
fn modes_read_link_each_in_its_way() {
    assert_eq!(accepted(ROUTED, &[("LINK", "")]).mode, Mode::Routed { table: 254 });
    let bridge = |name: &str| name.parse::<IfName>().expect("a name");
    assert_eq!(accepted(BRIDGED, &[]).mode, Mode::Bridged { bridge: bridge("br0"), vlan: None });
    let changes = [("LINK", ""), ("BRIDGE", "br1"), ("VLAN", ".5:6")];
    let vlan = Some(Vlan { untagged: Some(5), tagged: vec![6] });
    assert_eq!(accepted(BRIDGED, &changes).mode, Mode::Bridged { bridge: bridge("br1"), vlan: vlan.clone() });
    let changes = [("MODE", "openvswitch"), ("BRIDGE", "br1"), ("VLAN", ".5:6")];
    assert_eq!(accepted(BRIDGED, &changes).mode, Mode::OpenVswitch { bridge: bridge("br0"), vlan });
    assert_eq!(accepted(BRIDGED, &[("MODE", "ext"), ("LINK", "")]).mode, Mode::Ext);
    assert_eq!(accepted(ROUTED, &[("MODE", "ext"), ("LINK", "")]).mode, Mode::Routed { table: 254 });
}

#[test]
fn an_address_is_in_a_network() {
    let tagged: &[(&str, &str)] = &[("IP", "192.0.2.10"), ("VLAN", ".10:20"), ("NETWORK_MAC_PREFIX", "aa:0:1")];
    for (nic, expected) in [
        (accepted(ROUTED, &[]), "table,100,192.0.2.10 table,100,2001:db8:1:0:a800:ff:fe12:3456"),
        (accepted(BRIDGED, &[("IP", "192.0.2.10")]), "bridge,br0,192.0.2.10"),
        (accepted(BRIDGED, tagged), "bridge,br0,vlan,10,aa:00:01,192.0.2.10"),
        (accepted(BRIDGED, &[("IP", "192.0.2.10"), ("MODE", "openvswitch")]), "openvswitch,br0,192.0.2.10"),
        (accepted(BRIDGED, &[("IP", "192.0.2.10"), ("MODE", "ext")]), ""),
        (accepted(BRIDGED, &[]), ""),
    ] {
        assert_eq!(nic.places().join(" "), expected);
    }
}

#[test]
fn one_family_may_be_missing_or_switched_off() {
    for (changes, v4, v6) in [
        (&[("NETWORK_SUBNET6", ""), ("NETWORK_GATEWAY6", "")][..], true, false),
        (&[("IP", "")], false, true),
        (&[("IP", ""), ("NETWORK_SUBNET", ""), ("NETWORK_GATEWAY", "")], false, true),
        (&[("TAGS", "x disable_ipv4")], false, true),
        (&[("TAGS", "disable_ipv6\n")], true, false),
        (&[("TAGS", "disable_ipv6"), ("NETWORK_SUBNET6", "2001:db8:1::/80")], true, false),
        (&[("TAGS", "Disable_ipv6 disable_ipv6x *")], true, true),
        (&[("NETWORK_TAGS", "nfdhcpd")], true, true),
        (&[("NETWORK_TAGS", "dns")], true, true),
        (&[("NETWORK_TAGS", "")], true, false),
        (&[("NETWORK_TAGS", ""), ("NETWORK_SUBNET6", "2001:db8::/80"), ("NETWORK_GATEWAY6", "")], true, false),
        (&[("NETWORK_TAGS", "masq"), ("IP", "")], false, false),
    ] {
        let nic = accepted(ROUTED, changes);
        let found = Family::BOTH.map(|family| nic.endpoint(family).is_some());
        assert_eq!(found, [v4, v6], "{changes:?}");
    }
}

#[test]
fn addresses_at_the_edges_are_accepted() {
    for (changes, family, address) in [
        (&[("IP", "2001:db8:1::7")][..], Family::V6, "2001:db8:1::7"),
        (
            &[("IP", "2001:db8::7"), ("NETWORK_SUBNET6", "2001:db8::/80"), ("NETWORK_GATEWAY6", "")],
            Family::V6,
            "2001:db8::7",
        ),
        (&[("IP", "192.0.2.0"), ("NETWORK_SUBNET", "192.0.2.0/31")], Family::V4, "192.0.2.0"),
        (&[("IP", "192.0.2.9"), ("NETWORK_SUBNET", "192.0.2.9/32"), ("NETWORK_GATEWAY", "")], Family::V4, "192.0.2.9"),
        (&[("IP", "10.1.2.3"), ("NETWORK_SUBNET", ""), ("NETWORK_GATEWAY", "")], Family::V4, "10.1.2.3"),
        (&[("NETWORK_GATEWAY6", "fe80::1")], Family::V6, "2001:db8:1:0:a800:ff:fe12:3456"),
        (&[("NETWORK_GATEWAY6", "2001:db8:1::")], Family::V6, "2001:db8:1:0:a800:ff:fe12:3456"),
    ] {
        let nic = accepted(ROUTED, changes);
        let found = nic.endpoint(family).map(|e| e.address.to_string());
        assert_eq!(found.as_deref(), Some(address), "{changes:?}");
    }
    let nic = accepted(ROUTED, &[("IP", "2001:db8:1::7")]);
    assert_eq!(nic.endpoint(Family::V4), None);
}

#[test]
fn the_strictest_profile_about_this_nic_wins() {
    for (tags, expected) in [
        ("", None),
        ("protected", Some(Profile::Protected)),
        ("protected limited", Some(Profile::Protected)),
        ("limited protected", Some(Profile::Protected)),
        ("protected synnefo:network:0:unprotected", Some(Profile::Unprotected)),
        ("synnefo:network:0:unprotected synnefo:network:0:limited protected", Some(Profile::Limited)),
        ("synnefo:network:0:unprotected", Some(Profile::Unprotected)),
        ("synnefo:network:6f1d2a3e-0000-4000-8000-00000000beef:limited", Some(Profile::Limited)),
        ("protected synnefo:network:1:unprotected", Some(Profile::Protected)),
        ("protected synnefo:network::unprotected", Some(Profile::Protected)),
        ("synnefo:network:0:protected synnefo:network:0:*", Some(Profile::Protected)),
        ("PROTECTED xprotected synnefo:network:protected", None),
    ] {
        assert_eq!(accepted(ROUTED, &[("TAGS", tags)]).firewall, expected, "{tags}");
    }
    let changes = [("INTERFACE_NAME", "a:b"), ("TAGS", "synnefo:network:a:b:limited")];
    assert_eq!(accepted(ROUTED, &changes).firewall, Some(Profile::Limited));
}

#[test]
fn hostile_tags_select_nothing_and_are_not_kept() {
    let tags = "$(reboot) `id` * /../ π a=b \"q\" ;x <y> \u{202e}z \u{1b}[31m ok:1@a+b_c.d-e\n tail\n";
    let nic = accepted(ROUTED, &[("TAGS", tags), ("NETWORK_TAGS", &format!("{tags} nfdhcp* NFDHCPD"))]);
    assert_eq!(nic.tags, "* /../ ok:1@a+b_c.d-e tail");
    assert!(nic.setups.is_empty());
    assert_eq!(nic.firewall, None);
}

#[test]
fn control_characters_part_no_tags_and_the_record_means_the_same() {
    let tags = "nfdhcpd\u{1}ip-less-routed\u{b}\u{85}dns";
    let of = |tags: &str| {
        let nic = accepted(ROUTED, &[("NETWORK_TAGS", tags), ("TAGS", tags)]);
        (nic.setups, nic.tags)
    };
    assert_eq!(of(tags), of(&crate::state::one_line(tags)));
    assert_eq!(of(tags).0, of("").0);
}

#[test]
fn tags_are_those_that_the_settings_name() {
    let (settings, _) = Settings::parse(b"DNS_TAG=nfdhcpd BRIDGED_TAG=x", "FILE").expect("settings");
    let found = tags::setups("nfdhcpd  x\tbridged", &settings);
    assert_eq!(all(found), [Setup::Nfdhcpd, Setup::Dns, Setup::Bridged]);
}

#[test]
fn bad_variables_are_named_with_their_value_and_what_was_expected() {
    const NAME: &str = "expected an interface name: 1 to 15 letters, digits, or any of _ . - @ +";
    const SUBNET: &str = "expected a unicast IPv4 prefix such as 192.0.2.0/24";
    const SUBNET6: &str = "expected a unicast IPv6 prefix such as 2001:db8::/64";
    const HOST: &str = "expected a unicast address that is neither loopback nor link-local";
    const INSIDE: &str = "expected an address inside NETWORK_SUBNET 192.0.2.0/24";
    const RESERVED: &str =
        "expected a host's address inside NETWORK_SUBNET 192.0.2.0/24, neither its first nor its broadcast address";
    const MODES: &str = "expected routed, bridged, openvswitch or ext";
    const VLAN: &str = "expected N, .N, :N:M or .N:M with numbers of 1 to 4094";
    const ROUTE: &str = "expected it or NETWORK_SUBNET6 with the network's tag \"ip-less-routed\"";
    const OWN: &str = "expected another address than the NIC's own";
    let long = "x".repeat(5000);
    for (base, variable, value, expected) in [
        (ROUTED, "INTERFACE", "", "INTERFACE is not set, expected the TAP's name".to_owned()),
        (ROUTED, "INTERFACE", "../x", format!("INTERFACE \"../x\": {NAME}")),
        (ROUTED, "INTERFACE", "b'tap0'", format!("INTERFACE \"b'tap0'\": {NAME}")),
        (ROUTED, "INTERFACE", &long, format!("INTERFACE \"{}\"... (5000 bytes): {NAME}", &long[..64])),
        (ROUTED, "INTERFACE_INDEX", "-1", "INTERFACE_INDEX \"-1\": expected a number from 0".into()),
        (ROUTED, "INTERFACE_INDEX", "+1", "INTERFACE_INDEX \"+1\": expected a number from 0".into()),
        (ROUTED, "INTERFACE_NAME", "a\u{1b}b", "INTERFACE_NAME \"a\\u{1b}b\": expected printable text".into()),
        (ROUTED, "INTERFACE_UUID", "a'b", "INTERFACE_UUID \"a'b\": expected a UUID: hexadecimal digits and -".into()),
        (ROUTED, "INSTANCE", "", "INSTANCE is not set, expected the instance's host name".into()),
        (ROUTED, "INSTANCE", "vm\"1\n", "INSTANCE \"vm\\\"1\\n\": expected a host name".into()),
        (ROUTED, "MAC", "", "MAC is not set, expected the guest's MAC".into()),
        (ROUTED, "MAC", "aa:bb", "MAC \"aa:bb\": expected six octets such as aa:00:00:12:34:56".into()),
        (ROUTED, "MAC", "01:0:0:0:0:0", "MAC \"01:0:0:0:0:0\": expected a unicast MAC".into()),
        (ROUTED, "MAC", "0:0:0:0:0:0", "MAC \"0:0:0:0:0:0\": expected a unicast MAC".into()),
        (ROUTED, "MODE", "", format!("MODE is not set, {MODES}")),
        (ROUTED, "MODE", "Routed", format!("MODE \"Routed\": {MODES}")),
        (
            ROUTED,
            "MODE",
            "bridged",
            "MODE \"bridged\": expected routed with the network's tag \"ip-less-routed\"".into(),
        ),
        (ROUTED, "LINK", "nosuch", "LINK \"nosuch\": expected a table".into()),
        (ROUTED, "MIGRATION_PHASE", "mid", "MIGRATION_PHASE \"mid\": expected pre or post".into()),
        (
            ROUTED,
            "NETWORK_MAC_PREFIX",
            "aa:00",
            "NETWORK_MAC_PREFIX \"aa:00\": expected three octets such as aa:00:01".into(),
        ),
        (ROUTED, "IP", "192.0.2", "IP \"192.0.2\": expected an address".into()),
        (ROUTED, "IP", "192.0.2.10/24", "IP \"192.0.2.10/24\": expected an address".into()),
        (ROUTED, "IP", "198.51.100.1", format!("IP \"198.51.100.1\": {INSIDE}")),
        (ROUTED, "IP", "192.0.2.0", format!("IP \"192.0.2.0\": {RESERVED}")),
        (ROUTED, "IP", "192.0.2.255", format!("IP \"192.0.2.255\": {RESERVED}")),
        (ROUTED, "IP", "224.0.0.1", format!("IP \"224.0.0.1\": {HOST}")),
        (ROUTED, "IP", "127.0.0.1", format!("IP \"127.0.0.1\": {HOST}")),
        (ROUTED, "IP", "0.0.0.0", format!("IP \"0.0.0.0\": {HOST}")),
        (ROUTED, "IP", "169.254.0.1", format!("IP \"169.254.0.1\": {HOST}")),
        (ROUTED, "IP", "255.255.255.255", format!("IP \"255.255.255.255\": {HOST}")),
        (ROUTED, "IP", "::1", format!("IP \"::1\": {HOST}")),
        (ROUTED, "IP", "::", format!("IP \"::\": {HOST}")),
        (ROUTED, "IP", "ff02::1", format!("IP \"ff02::1\": {HOST}")),
        (ROUTED, "IP", "fe80::1", format!("IP \"fe80::1\": {HOST}")),
        (ROUTED, "IP", "::ffff:192.0.2.10", format!("IP \"::ffff:192.0.2.10\": {HOST}")),
        (
            ROUTED,
            "IP",
            "2001:db8::7",
            "IP \"2001:db8::7\": expected an address inside NETWORK_SUBNET6 2001:db8:1::/64".into(),
        ),
        (ROUTED, "IP", "192.0.2.1", format!("NETWORK_GATEWAY \"192.0.2.1\": {OWN}")),
        (ROUTED, "NETWORK_SUBNET", "192.0.2.0", format!("NETWORK_SUBNET \"192.0.2.0\": {SUBNET}")),
        (ROUTED, "NETWORK_SUBNET", "2001:db8::/64", format!("NETWORK_SUBNET \"2001:db8::/64\": {SUBNET}")),
        (ROUTED, "NETWORK_SUBNET", "0.0.0.0/0", format!("NETWORK_SUBNET \"0.0.0.0/0\": {SUBNET}")),
        (ROUTED, "NETWORK_SUBNET", "192.0.2.0/33", format!("NETWORK_SUBNET \"192.0.2.0/33\": {SUBNET}")),
        (ROUTED, "NETWORK_GATEWAY", "x", "NETWORK_GATEWAY \"x\": expected an IPv4 address".into()),
        (ROUTED, "NETWORK_GATEWAY", "::1", "NETWORK_GATEWAY \"::1\": expected an IPv4 address".into()),
        (ROUTED, "NETWORK_GATEWAY", "198.51.100.1", format!("NETWORK_GATEWAY \"198.51.100.1\": {INSIDE}")),
        (ROUTED, "NETWORK_GATEWAY", "192.0.2.255", format!("NETWORK_GATEWAY \"192.0.2.255\": {RESERVED}")),
        (ROUTED, "NETWORK_SUBNET6", "192.0.2.0/24", format!("NETWORK_SUBNET6 \"192.0.2.0/24\": {SUBNET6}")),
        (ROUTED, "NETWORK_SUBNET6", "fe80::/64", format!("NETWORK_SUBNET6 \"fe80::/64\": {SUBNET6}")),
        (
            ROUTED,
            "NETWORK_SUBNET6",
            "2001:db8:1::/60",
            "NETWORK_SUBNET6 \"2001:db8:1::/60\": expected a /64, for a modified EUI-64 address".into(),
        ),
        (ROUTED, "NETWORK_GATEWAY6", "192.0.2.1", "NETWORK_GATEWAY6 \"192.0.2.1\": expected an IPv6 address".into()),
        (
            ROUTED,
            "NETWORK_GATEWAY6",
            "2001:db8:2::1",
            "NETWORK_GATEWAY6 \"2001:db8:2::1\": expected an address inside NETWORK_SUBNET6 2001:db8:1::/64".into(),
        ),
        (
            ROUTED,
            "NETWORK_GATEWAY6",
            "2001:db8:1:0:a800:ff:fe12:3456",
            format!("NETWORK_GATEWAY6 \"2001:db8:1:0:a800:ff:fe12:3456\": {OWN}"),
        ),
        (
            ROUTED,
            "TAGS",
            "disable_ipv4 disable_ipv6",
            "TAGS \"disable_ipv4 disable_ipv6\": expected an address to be left with the network's tag \"ip-less-routed\""
                .into(),
        ),
        (BRIDGED, "LINK", "", "LINK is not set, expected the bridge's name".into()),
        (BRIDGED, "LINK", "br/0", format!("LINK \"br/0\": {NAME}")),
        (BRIDGED, "LINK", "tap1", "LINK \"tap1\": expected a bridge other than INTERFACE itself".into()),
        (BRIDGED, "VLAN", "4095", format!("VLAN \"4095\": {VLAN}")),
    ] {
        let error = nic(base, &[(variable, value)]).map_or_else(|e| format!("{e:#}"), |nic| format!("{nic:?}"));
        assert_eq!(error, expected);
    }
    for (base, changes, expected) in [
        (
            ROUTED,
            &[("IP", ""), ("NETWORK_TAGS", "x")][..],
            "IP is not set, expected an address in mode routed without a tag that selects a setup".to_owned(),
        ),
        (ROUTED, &[("IP", ""), ("NETWORK_SUBNET6", ""), ("NETWORK_GATEWAY6", "")], format!("IP is not set, {ROUTE}")),
        (
            ROUTED,
            &[("NETWORK_TAGS", "private-filtered")],
            "MODE \"routed\": expected bridged with the network's tag \"private-filtered\"".into(),
        ),
        (
            BRIDGED,
            &[("MODE", "openvswitch"), ("NETWORK_TAGS", "private-filtered")],
            "MODE \"openvswitch\": expected bridged with the network's tag \"private-filtered\"".into(),
        ),
        (
            BRIDGED,
            &[("MODE", "openvswitch"), ("NETWORK_TAGS", "strict-filtered"), ("VLAN", ":5")],
            "MODE \"openvswitch\": expected bridged or routed with the network's tag \"strict-filtered\"".into(),
        ),
        (
            BRIDGED,
            &[("MODE", "openvswitch"), ("TAGS", "x limited")],
            "MODE \"openvswitch\": expected bridged or routed with the firewall profile that TAGS \"x limited\" select"
                .into(),
        ),
        (BRIDGED, &[("LINK", ""), ("BRIDGE", "a b")], format!("BRIDGE \"a b\": {NAME}")),
    ] {
        let error = nic(base, changes).map_or_else(|e| format!("{e:#}"), |nic| format!("{nic:?}"));
        assert_eq!(error, expected);
    }
}

#[test]
fn tearing_down_needs_the_identity_only() {
    for instance in [Some("vm1".to_owned()), None] {
        let raw = RawNic { interface: Some("tap0".into()), instance: instance.clone(), ..RawNic::default() };
        let identity = Identity::new(&raw).expect("an identity");
        assert_eq!((identity.interface.as_str(), identity.uuid, identity.instance), ("tap0", None, instance));
    }
}
