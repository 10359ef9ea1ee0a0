//! What stands in nf_tables for a NIC, as nft reads it.

use std::collections::HashMap;

use super::*;
use crate::environment::{RawNic, Unset};
use crate::object::{Object, Verb};
use crate::ruleset::{Chain, Statement};

const PRIVATE: &[(&str, &str)] = &[
    ("INTERFACE", "tap5"),
    ("INTERFACE_INDEX", "0"),
    ("INSTANCE", "vm1.example.org"),
    ("MAC", "aa:55:66:1a:ae:82"),
    ("MODE", "bridged"),
    ("LINK", "prv0"),
    ("NETWORK_MAC_PREFIX", "aa:55:60"),
    ("NETWORK_TAGS", "private-filtered"),
];
const STRICT: &[(&str, &str)] = &[
    ("NETWORK_TAGS", "private-filtered strict-filtered"),
    ("IP", "10.0.0.2"),
    ("NETWORK_SUBNET", "10.0.0.0/24"),
    ("NETWORK_SUBNET6", "2001:db8:1::/64"),
    ("NETWORK_GATEWAY6", "fe80::1"),
    ("TAGS", "limited"),
];

fn plan_of(variables: &[&[(&'static str, &str)]], settings: &Settings) -> Result<Plan> {
    let variables: HashMap<_, _> = variables.iter().copied().flatten().copied().collect();
    let raw = RawNic::from_variables(Unset::Empty, |name| variables.get(name).map(Into::into))?;
    let uplinks = [vec![], vec![]];
    let facts = Facts {
        link: LinkId { index: 5, namespace: None },
        before: Original::default(),
        uplinks,
        bridge_mtu: None,
        bridge_vlans: None,
        guard: None,
        nftables: true,
    };
    plan(&Nic::new(&raw, settings, |_| Ok(100))?, settings, &facts)
}

fn settings(text: &str) -> Settings {
    Settings::parse(text.as_bytes(), "settings").expect("settings").0
}

/// Tables and elements, as nft reads them.
fn nft(plan: &Plan) -> String {
    let tables = plan.tables.iter().map(ToString::to_string);
    tables.chain(plan.elements.iter().map(|element| format!("{element}\n"))).collect()
}

#[test]
fn private_filtered() {
    let plan = plan_of(&[PRIVATE], &Settings::default()).expect("a plan");
    assert_eq!(nft(&plan), include_str!("tests/private.nft"));
    let objects: Vec<_> = plan.objects.iter().map(|it| it.command(Verb::Add)).collect();
    assert_eq!(
        objects.iter().filter(|it| !it.is_empty()).collect::<Vec<_>>(),
        [
            "ip link set dev tap5 master prv0",
            "ip link set dev tap5 type bridge_slave group_fwd_mask 0xfffd mcast_router 0",
            "ip link set dev tap5 up"
        ]
    );
}

#[test]
fn strict_filtered_and_a_profile_on_a_bridge() {
    let plan = plan_of(&[PRIVATE, STRICT], &Settings::default()).expect("a plan");
    assert_eq!(nft(&plan), include_str!("tests/strict.nft"));
}

#[test]
fn what_a_routed_nic_always_gets_and_a_profile() {
    let routed = [("MODE", "routed"), ("LINK", ""), ("NETWORK_TAGS", "ip-less-routed")];
    let gateway = [("NETWORK_GATEWAY", "10.0.0.1")];
    let plan = plan_of(&[PRIVATE, STRICT, &routed, &gateway], &settings("HOST_ACCESS=tcp/22\n")).expect("a plan");
    assert_eq!(nft(&plan), include_str!("tests/routed.nft"));
    // Unchecked sources still are no routers and no servers.
    let unchecked = plan_of(&[PRIVATE, STRICT, &routed], &settings("IPSPOOF=yes\n")).expect("a plan");
    let sets: Vec<_> = unchecked.elements.iter().map(|element| element.set.as_ref()).collect();
    assert_eq!(
        sets,
        ["limited", "routed", "guests", "reached", "quoted4", "quoted6", "error_source6", "dropped_to", "dropped_from"]
    );
}

#[test]
fn a_plain_nic_needs_no_table() {
    let plain = [("NETWORK_TAGS", ""), ("NETWORK_MAC_PREFIX", "")];
    let plan =
        plan_of(&[PRIVATE, &plain, &[("TAGS", "protected synnefo:network:0:unprotected")]], &Settings::default());
    assert_eq!(nft(&plan.expect("a plan")), "");
}

#[test]
fn strict_without_addresses_lets_only_dhcp_and_link_local_pass() {
    let plan = plan_of(&[PRIVATE, &[("NETWORK_TAGS", "strict-filtered")]], &Settings::default()).expect("a plan");
    let sets: Vec<_> = plan.elements.iter().map(|element| element.set.as_ref()).collect();
    assert_eq!(sets, ["filtered", "from", "strict", "rarp", "own_options", "sources6", "targets", "dropped_from"]);
}

#[test]
fn the_view_of_one_tap_is_the_seeds() {
    let seen = |settings| {
        filtered::per_tap(&plan_of(&[PRIVATE, &[("NETWORK_MAC_PREFIX", "")]], &settings).expect("a plan").elements)
    };
    let rules = |mask: &str, prefix: &str| {
        [
            "FROMTAP5: ether saddr != aa:55:66:1a:ae:82 drop".to_owned(),
            format!("TOTAP5: ether saddr & {mask} != {prefix} drop"),
            "prerouting: iifname \"tap5\" jump FROMTAP5".to_owned(),
            "forward: oifname \"tap5\" jump TOTAP5".to_owned(),
            "output: oifname \"tap5\" jump TOTAP5".to_owned(),
        ]
    };
    assert_eq!(seen(Settings::default()), rules("ff:ff:f0:00:00:00", "aa:55:60:00:00:00"));
    assert_eq!(seen(settings("MAC_MASK=ff:ff:ff:ff:0:0\n")), rules("ff:ff:ff:ff:00:00", "aa:55:66:1a:00:00"));
}

#[test]
fn another_mask_has_objects_of_its_own() {
    let plans = ["", "MAC_MASK=ff:ff:0:0:0:0\n"].map(|text| plan_of(&[PRIVATE], &settings(text)).expect("a plan"));
    let names = |plan: &Plan| -> Vec<String> {
        let table = plan.tables.last().expect("a table");
        let chains = table.chains.iter().map(|chain| chain.name.to_string());
        // That of the drops is every mask's.
        chains.chain(table.sets.iter().filter(|set| !set.counter).map(|set| set.name.to_string())).collect()
    };
    let [default, other] = plans.each_ref().map(names);
    assert_eq!(other, default.iter().map(|name| format!("{name}_ffff00000000")).collect::<Vec<_>>());
    assert_eq!(plans[0].tables[0], plans[1].tables[0], "FROMTAP knows no mask");
}

#[test]
fn a_routed_nic_by_mark() {
    let by = |text: &str, changes: &[(&'static str, &str)]| {
        let plain =
            [("MODE", "routed"), ("LINK", "100"), ("NETWORK_TAGS", ""), ("NETWORK_MAC_PREFIX", ""), ("TAGS", "")];
        plan_of(&[PRIVATE, &plain, &[("IP", "10.0.0.2")], changes], &settings(text)).expect("a plan")
    };
    let rules = |plan: &Plan, verb| -> Vec<String> {
        let rules = plan.objects.iter().filter(|it| matches!(it, Object::Rule(_))).map(|it| it.command(verb));
        rules.filter(|command| !command.is_empty()).collect()
    };
    // Without what each routed NIC has.
    let nft = |plan: &Plan| {
        let mut plan = plan.clone();
        plan.tables.retain(|it| *it != *host::TABLE);
        plan.elements
            .retain(|it| !host::TABLE.sets.iter().any(|set| (it.family, &it.set) == (TableFamily::Inet, &set.name)));
        nft(&plan)
    };
    let (rule, mark) = (by("ROUTING=rule\n", &[]), by("ROUTING=mark\n", &[]));
    assert_eq!(nft(&mark), include_str!("tests/mark.nft"));
    let by_interface = "ip -4 rule add iif tap5 lookup 100 pref 20100 protocol 217";
    let by_mark = "ip -4 rule add fwmark 0x6400000/0xfff00000 lookup 100 pref 20050 protocol 218";
    let of_the_node = "ip -4 rule add iif lo fwmark 0x6400000/0xfff00000 lookup 100 pref 20060 protocol 218";
    assert_eq!(rules(&rule, Verb::Add), [of_the_node, by_interface]);
    // The rule by the interface stands behind that by the mark, which stays when the NIC goes.
    assert_eq!(rules(&mark, Verb::Add), [by_mark, by_interface]);
    assert_eq!(rules(&mark, Verb::Remove), rules(&rule, Verb::Remove));
    assert!(mark.to_string().contains("pref 20050 protocol 218 || :\n"));
    // From the one way to the other, only the mark of ARP requests goes.
    let gone = crate::reconcile::difference(&mark, &rule);
    assert_eq!(gone.elements.iter().map(|it| it.family).collect::<Vec<_>>(), [TableFamily::Arp]);
    assert!(gone.objects.iter().all(|it| it.command(Verb::Remove).is_empty()), "{:?}", gone.objects);
    // IPv6 is asked for its neighbours in inet prerouting.
    let arp = |plan: &Plan| plan.elements.iter().filter(|it| it.set == "steered_100").count();
    assert_eq!((arp(&mark), arp(&by("ROUTING=mark\n", &[("IP", "2001:db8::7")]))), (2, 1));
    // Where there is no mark: a table whose number the mask has no room for, and main.
    let unmarked = by("ROUTING=mark\nROUTING_MARK_MASK=0xf\n", &[]);
    assert_eq!((nft(&unmarked), rules(&unmarked, Verb::Add)), (String::new(), vec![by_interface.to_owned()]));
    let main = by("ROUTING=mark\n", &[("LINK", "")]);
    assert_eq!((nft(&main), rules(&main, Verb::Add)), (String::new(), Vec::new()));
}

#[test]
fn recovery_knows_every_set() {
    let settings = settings("MAC_MASK=ff:ff:0:0:0:0\nROUTING=mark\n");
    let steered = fwmark::steered_tables(&["guarded", "steered_100", "steered_"].map(str::to_owned));
    assert_eq!(steered, [100]);
    let known = shared::tables(&settings, &steered);
    let members = shared::membership(&"tap5".parse().expect("a name"), &settings, &steered);
    for variables in
        [&[PRIVATE, STRICT][..], &[PRIVATE, STRICT, &[("MODE", "routed"), ("NETWORK_TAGS", "ip-less-routed")]]]
    {
        let plan = plan_of(variables, &settings).expect("a plan");
        for table in &plan.tables {
            let has = |set| known.iter().any(|it| it.family == table.family && it.sets.contains(set));
            assert!(table.sets.iter().all(has), "{table}");
        }
        let is_member = |it: &Element| members.iter().any(|member| (&member.set, &member.key) == (&it.set, &it.key));
        assert!(plan.elements.iter().any(is_member));
    }
    assert!(shared::membership(&"tap5".parse().expect("a name"), &Settings::default(), &[]).len() < members.len());
}

#[test]
fn every_drop_is_counted_by_interface_and_is_a_drop() {
    let mut groups = shared::tables(&settings("MAC_MASK=ff:ff:0:0:0:0\n"), &[]);
    groups.retain(|group| *group != *shared::ARP);
    let counting = dropped::sets();
    for group in &groups {
        let mut sets = group.sets.iter().filter(|set| set.counter);
        let (set, None) = (sets.next().expect("a set that counts"), sets.next()) else { panic!("two in {group}") };
        assert!(counting.contains(&(group.family, set.clone())), "{group}");
        let interface = if set.name == dropped::DROPPED_FROM { "iifname" } else { "oifname" };
        let drops = |chain: &&Chain| chain.rules.iter().any(|rule| rule.0.contains(&Statement::Drop));
        let (endings, others): (Vec<_>, Vec<_>) = group.chains.iter().partition(drops);
        let [ending] = endings.as_slice() else { panic!("not one chain that drops in {group}") };
        // A lookup alone in its rule: what it does not find goes on, and is dropped.
        let rules: Vec<_> = ending.rules.iter().map(ToString::to_string).collect();
        assert_eq!(rules, [format!("{interface} @{}", set.name), "counter drop".to_owned()], "{group}");
        let ways = others.iter().flat_map(|chain| &chain.rules).filter_map(|rule| rule.0.split_last());
        let ways: Vec<_> = ways.filter(|(last, _)| **last == Statement::Goto(ending.name.clone())).collect();
        assert!(!ways.is_empty(), "{group}");
        assert!(ways.iter().all(|(_, before)| before.last() == Some(&Statement::Counter)), "{group}");
    }
}

#[test]
fn a_port_of_open_vswitch_has_its_vlans_before_it_is_up() {
    let openvswitch = [("MODE", "openvswitch"), ("NETWORK_TAGS", "bridged"), ("INTERFACE_UUID", "0c2a-1")];
    let commands = |vlan: &str, text: &str, verb| -> Vec<String> {
        let plan = plan_of(&[PRIVATE, &openvswitch, &[("VLAN", vlan)]], &settings(text)).expect("a plan");
        assert!(plan.tables.is_empty() && plan.elements.is_empty());
        plan.objects.iter().map(|it| it.command(verb)).filter(|it| !it.is_empty()).collect()
    };
    let port = |vlans: &str| {
        format!(
            "ovs-vsctl --if-exists del-port tap5 -- add-port prv0 tap5{vlans} other_config:rstp-enable=false \
             other_config:stp-enable=false -- set Interface tap5 \
             'external_ids:owner=\"snf-network\"' 'external_ids:tap-ifindex=\"5\"' \
             'external_ids:attached-mac=\"aa:55:66:1a:ae:82\"' 'external_ids:vm-id=\"vm1.example.org\"' \
             'external_ids:iface-id=\"0c2a-1\"'"
        )
    };
    for (vlan, vlans) in [
        ("", ""),
        ("7", " vlan_mode=access tag=7"),
        (".7", " vlan_mode=access tag=7"),
        (":9:7", " vlan_mode=trunk trunks=7,9"),
        (".7:9:8", " vlan_mode=native-untagged tag=7 trunks=8,9"),
        // Without trunks it would have all VLANs.
        (".7:7", " vlan_mode=native-untagged tag=7 trunks=7"),
    ] {
        let expected = [port(vlans), "ip link set dev tap5 up".to_owned()];
        assert_eq!(commands(vlan, "", crate::object::Verb::Add), expected, "{vlan}");
    }
    let elsewhere = "ovs-vsctl --db='unix:/x/db.sock' --if-exists del-port tap5";
    let removal = [elsewhere, "ip link set dev tap5 down"];
    assert_eq!(commands("7", "OVSDB_SOCKET=/x/db.sock\n", crate::object::Verb::Remove), removal);
}

#[test]
fn no_set_goes_while_the_chains_stand() {
    let mark = Settings::default().mark(100).expect("a mark");
    for table in shared::tables(&settings("MAC_MASK=ff:ff:0:0:0:0\n"), &[]).into_iter().chain(fwmark::tables(100, mark))
    {
        let statements: Vec<_> = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.0).collect();
        for set in &table.sets {
            let uses = |it: &&Statement| match it {
                Statement::Lookup { set: name, .. } | Statement::Write { map: name, .. } => *name == set.name,
                _ => false,
            };
            // The kernel refuses to delete a set in use, so whoever finds the chains whole need not look for the sets.
            assert!(statements.iter().copied().any(|it| uses(&it)), "{} of {table}", set.name);
        }
    }
}
