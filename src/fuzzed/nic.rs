//! NICs: from Ganeti's variables and files to the Plan, and to the record and back.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use anyhow::Result;

use super::{Choices, check_error, variables};
use crate::addr::{Family, IfName, is_domain_name};
use crate::environment::{RawNic, Unset};
use crate::kernel::rtnetlink::DEVCONF;
use crate::nic::{Endpoint, Identity, Mode, Nic};
use crate::object::{ChecksumGuard, Object, Plan, TABLE_MAIN, Verb};
use crate::printable::is_printable;
use crate::record::Record;
use crate::routing_tables;
use crate::settings::{Settings, Setup};
use crate::setup::{self, Facts, Original, VlanFiltering};
use crate::state;

/// Variables and values that are right, at least with some others.
pub(super) const VARIABLES: &[(&str, &[&str])] = &[
    ("INTERFACE", &["tap0", "vif1.0", "gnt.com.0"]),
    ("INTERFACE_INDEX", &["0", "7"]),
    ("INTERFACE_NAME", &["front", "näme"]),
    ("INTERFACE_UUID", &["6f1d2a3e-0000-4000-8000-00000000beef", ""]),
    ("INSTANCE", &["vm1", "vm1.example.org"]),
    ("MAC", &["aa:00:00:12:34:56", "AA:0:0:0:0:1"]),
    ("MODE", &["routed", "bridged", "openvswitch", "ext"]),
    ("LINK", &["100", "0x64", "main", "br0", "254"]),
    ("VLAN", &["", "5", ".5", ":5:6", ".5:6"]),
    ("BRIDGE", &["", "br0"]),
    ("IP", &["", "192.0.2.10", "192.0.2.0", "2001:db8::7", "10.0.0.1"]),
    ("TAGS", &["", "protected", "limited", "disable_ipv4", "disable_ipv6", "synnefo:network:0:limited x*"]),
    ("MIGRATION_PHASE", &["", "pre", "post"]),
    ("NETWORK_NAME", &["net"]),
    ("NETWORK_UUID", &["aa-bb"]),
    (
        "NETWORK_TAGS",
        &[
            "",
            "ip-less-routed nfdhcpd",
            "ip-less-routed",
            "private-filtered",
            "strict-filtered",
            "private-filtered strict-filtered nfdhcpd",
            "dns public",
            "masq",
        ],
    ),
    ("NETWORK_SUBNET", &["", "192.0.2.0/24", "192.0.2.0/31", "192.0.2.10/32", "10.0.0.0/8"]),
    ("NETWORK_GATEWAY", &["", "192.0.2.1", "10.0.0.1"]),
    ("NETWORK_SUBNET6", &["", "2001:db8::/64", "2001:db8::/80"]),
    ("NETWORK_GATEWAY6", &["", "2001:db8::1", "fe80::1"]),
    ("NETWORK_MAC_PREFIX", &["", "aa:00:01", "aa:00:00"]),
];

/// Lines of a settings file that change Plans.
pub(super) const SETTINGS: &[&str] = &[
    "",
    "ROUTING=rule\n",
    "ROUTING_MARK_MASK=0xff00\n",
    "MAC_MASK=ff:ff:ff:0:0:0\n",
    "TAP_CONSTANT_MAC=2:0:0:0:0:1\n",
    "IPSPOOF=yes\n",
    "GUEST_LINK_LOCAL=eui64\n",
    "ROUTER_LINK_LOCAL='fe80::2:1 fe80::1'\n",
    "NFDHCPD_STATE_DIR='/it is'\\''s'\n",
    "STRICT_FILTERED_TAG=private-filtered\n",
    "OVSDB_SOCKET='/a b/db.sock'\n",
    "FZONE=vm.example.org.\n",
];

/// A NIC whose values come from [`VARIABLES`], but for a few that are the fuzzer's own bytes.
pub(super) fn nic(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let values: Vec<_> = VARIABLES
        .iter()
        .filter_map(|(name, good)| {
            let value = match choices.byte() {
                255 => return None,
                254 => choices.bytes().to_vec(),
                choice => good[usize::from(choice) % good.len()].as_bytes().to_vec(),
            };
            Some((*name, OsString::from_vec(value)))
        })
        .collect();
    let text: String = (0..choices.below(4)).map(|_| choices.of(SETTINGS)).collect();
    let (settings, _) = Settings::parse(text.as_bytes(), "FILE").expect("lines that are right");
    let value = |name: &str| values.iter().find(|it| it.0 == name).map(|it| it.1.clone());
    planned(RawNic::from_variables(Unset::Empty, value), &settings, &facts(&mut choices));
}

/// A NIC as the environment of the process has it.
pub(super) fn environment(bytes: &[u8]) {
    let variables = variables(bytes);
    let value = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.clone());
    let unset = if bytes.len().is_multiple_of(2) { Unset::Empty } else { Unset::EmptyOrNone };
    let raw = RawNic::from_variables(unset, value).and_then(|mut raw| {
        raw.complete_interface(value("ARGUMENT").as_deref())?;
        Ok(raw)
    });
    planned(raw, &Settings::default(), &facts(&mut Choices::new(&[])));
}

/// Ganeti's NIC file for Xen, to which the hotplug script adds the instance and the interface.
pub(super) fn xen_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let raw = RawNic::from_xen_text(text).map(|raw| {
        assert_eq!((&raw.instance, &raw.interface), (&None, &None));
        RawNic { instance: Some("vm1".to_owned()), interface: Some("vif1.0".to_owned()), ..raw }
    });
    planned(raw, &Settings::default(), &facts(&mut Choices::new(&[])));
}

/// A state file, whoever wrote it.
pub(super) fn state(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let records = match state::parse(text) {
        Err(error) => return check_error(&error),
        Ok(records) => records,
    };
    let written = state::text(&records);
    let again = state::parse(&written).expect("what we wrote");
    assert_eq!(state::text(&again), written);
    for variables in &records {
        for family in Family::BOTH {
            match crate::commands::fuzzed::recorded_uplink(variables, family) {
                Err(error) => check_error(&error),
                Ok(plan) => check_plan(&plan),
            }
        }
        match Record::from_variables(variables).and_then(|record| Ok((record.plan()?, record))) {
            Err(error) => check_error(&error),
            Ok((plan, record)) => {
                check_plan(&plan);
                same_after_recording(&record, &plan);
            }
        }
    }
}

/// What a kernel could say of the TAP and its surroundings.
pub(super) fn facts(choices: &mut Choices<'_>) -> Facts {
    let name = |name: &str| -> IfName { name.parse().expect("a name") };
    let mut some = |value: u32| (choices.below(2) == 1).then_some(value);
    let (mtu, bridge_mtu, mac, pvid) = (some(1500), some(9000), some(2), some(1));
    let before = Original {
        mac: mac.map(|last| crate::addr::Mac([2, 0, 0, 0, 0, last as u8])),
        mtu,
        up: choices.below(2) == 1,
        settings: DEVCONF.iter().filter(|_| choices.below(2) == 1).map(|it| (it.0, it.1, 1)).collect(),
    };
    let uplinks = [(); 2].map(|()| ["eth0", "bond0.5"][..choices.below(3)].iter().map(|it| name(it)).collect());
    let bridge_vlans = pvid.map(|pvid| VlanFiltering {
        default_pvid: pvid as u16,
        lacking: vec![(name("eth1"), vec![5, 6]); choices.below(2)],
    });
    let guard = [None, Some(true), Some(false)][choices.below(3)].map(|act_csum| ChecksumGuard { act_csum });
    let link = crate::model::link_id::LinkId { index: 7, namespace: None };
    Facts { link, before, uplinks, bridge_mtu, bridge_vlans, guard, nftables: true }
}

/// What must hold of a NIC, whatever it was made of, and of its Plan.
pub(super) fn planned(raw: Result<RawNic>, settings: &Settings, facts: &Facts) {
    let raw = match raw {
        Err(error) => return check_error(&error),
        Ok(raw) => raw,
    };
    // No file of this machine is asked for a table: a number as it is printed is looked for in none.
    let table = |name: &str| {
        let number = if name == "main" { TABLE_MAIN } else { name.parse()? };
        routing_tables::resolve(&number.to_string())
    };
    let nic = match Nic::new(&raw, settings, table) {
        Err(error) => return check_error(&error),
        Ok(nic) => nic,
    };
    assert_eq!(Identity::new(&raw).expect("a NIC has one").interface, nic.interface);
    check_nic(&nic);
    let plan = match setup::plan(&nic, settings, facts) {
        Err(error) => return check_error(&error),
        Ok(plan) => plan,
    };
    assert_eq!(setup::plan(&nic, settings, facts).expect("once more"), plan);
    check_plan(&plan);
    same_after_recording(&Record::new(&raw, &nic, settings, facts.clone()), &plan);
}

/// What a record keeps, by way of its file: all that its Plan is made from.
fn same_after_recording(record: &Record, plan: &Plan) {
    let variables = record.variables();
    let mut read = state::parse(&state::text(std::slice::from_ref(&variables))).expect("what we wrote");
    assert_eq!(read, std::slice::from_ref(&variables));
    let again = Record::from_variables(&read.remove(0)).expect("what we wrote");
    assert_eq!(again.variables(), variables);
    assert_eq!(again.facts, record.facts);
    assert_eq!(&again.plan().expect("what we wrote"), plan);
}

/// A Plan can be printed, and every line of it is one command.
fn check_plan(plan: &Plan) {
    let text = plan.to_string();
    assert!(text.chars().all(|it| !it.is_control() || it == '\n' || it == '\t'), "{text:?}");
    for object in &plan.objects {
        for verb in [Verb::Add, Verb::Remove] {
            assert!(is_printable(&object.line(verb)), "{object:?}");
        }
    }
    let up = plan.objects.iter().position(|it| matches!(it, Object::Up(_))).unwrap_or(plan.objects.len());
    let is_reachable = |it: &Object| matches!(it, Object::Neighbour(_) | Object::Route(_) | Object::NeighProxy(_));
    let reachable = plan.objects.iter().position(is_reachable);
    assert!(reachable.is_none_or(|it| it > up), "a route before the link is up: {text}");
    let restrained = plan.objects.iter().rposition(|it| matches!(it, Object::Port(_) | Object::Link(_)));
    assert!(restrained.is_none_or(|it| it < up), "a port or a link is changed while it is up: {text}");
}

/// A NIC keeps its own promises.
pub(super) fn check_nic(nic: &Nic) {
    assert!(nic.mac.is_unicast(), "{nic:?}");
    assert_eq!(nic.interface.as_str().parse::<IfName>().ok().as_ref(), Some(&nic.interface));
    assert!(is_domain_name(&nic.instance), "{nic:?}");
    let texts = [nic.uuid.as_deref(), Some(nic.tags.as_str())];
    assert!(texts.iter().flatten().all(|text| is_printable(text)), "{nic:?}");
    assert!(nic.tags.is_ascii() && !nic.tags.contains(['$', '`', '"', '\'', '\\', '=', ';']), "{nic:?}");
    match &nic.mode {
        Mode::Routed { .. } | Mode::Ext => {}
        Mode::Bridged { bridge, vlan } | Mode::OpenVswitch { bridge, vlan } => {
            assert_ne!(*bridge, nic.interface);
            for number in vlan.iter().flat_map(|vlan| vlan.tagged.iter().chain(&vlan.untagged)) {
                assert!((1..=4094).contains(number), "{nic:?}");
            }
        }
    }
    for family in Family::BOTH {
        let Some(Endpoint { address, subnet, gateway }) = nic.endpoint(family) else { continue };
        assert_eq!(Family::of(*address), family, "{nic:?}");
        assert!(!address.is_multicast() && !address.is_loopback() && !address.is_unspecified(), "{nic:?}");
        assert_ne!(Some(*address), *gateway, "{nic:?}");
        if let Some(subnet) = subnet {
            assert_eq!(subnet.trunc(), *subnet, "{nic:?}");
            assert!(subnet.contains(address), "{nic:?}");
        }
        assert!(gateway.is_none_or(|gateway| Family::of(gateway) == family), "{nic:?}");
    }
    if nic.has(Setup::IpLessRouted) {
        assert!(matches!(nic.mode, Mode::Routed { .. }), "{nic:?}");
        assert!(Family::BOTH.iter().any(|family| nic.endpoint(*family).is_some()), "{nic:?}");
    }
}
