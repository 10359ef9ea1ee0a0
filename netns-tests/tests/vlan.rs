//! VLANs of bridged NICs. They run on Debian's own kernel, in the virtual machine.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Test;
use crate::harness::card::{Card, Vid};
use crate::harness::guest::WEB1;
use crate::harness::links::{Links, no_gap};
use crate::harness::monitor::Monitor;
use crate::harness::netns::Netns;
use crate::harness::nic::Nic;
use crate::harness::topology::Node;
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("vlan::every_notation_gives_exactly_its_vlans", every_notation_gives_exactly_its_vlans),
    ("vlan::plan_prints_what_ifup_does", plan_prints_what_ifup_does),
    ("vlan::uplinks_get_what_they_lack_and_keep_it", uplinks_get_what_they_lack_and_keep_it),
    ("vlan::a_second_ifup_changes_the_vlans", a_second_ifup_changes_the_vlans),
    ("vlan::a_port_that_moves_takes_no_vlan_along", a_port_that_moves_takes_no_vlan_along),
    ("vlan::what_cannot_be_is_refused", what_cannot_be_is_refused),
    ("vlan::no_frame_slips_into_the_default_vlan", no_frame_slips_into_the_default_vlan),
];

/// A VLAN-aware bridge `br0`. Its way out is `bond0`, over a TAP which is the wire; `p1`, `p10`, `p20`, `p30` are untagged
/// ports of these VLANs, set up by the real tools.
struct Site {
    node: Node,
    wire: Card,
    ports: Vec<Card>,
}

const ACCESS: [u16; 4] = [1, 10, 20, 30];

impl Site {
    fn new() -> Result<Self> {
        let node = Node::alone()?;
        let netns = &node.netns;
        // Nothing but the probes shall be heard.
        netns.set_sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        let wire = Card::plug(netns, "wire0")?;
        let ports = ACCESS.map(|vid| Card::plug(netns, &format!("p{vid}")));
        let ports = ports.into_iter().collect::<Result<Vec<_>>>()?;
        let join: String = ACCESS.iter().map(|vid| format!("link set p{vid} up master br0\n")).collect();
        netns.ip_batch(&format!(
            "link add br0 type bridge vlan_filtering 1 mcast_snooping 0\n\
             link set br0 up\n\
             link add bond0 type bond mode active-backup miimon 100\n\
             link set wire0 master bond0\n\
             link set bond0 up master br0\n\
             link add dummy0 up master br0 type dummy\n\
             link add veth0 up master br0 type veth peer name veth1\n{join}"
        ))?;
        let own = |vid| format!("vlan del dev p{vid} vid 1\nvlan add dev p{vid} vid {vid} pvid untagged\n");
        let vlans: String = ACCESS.into_iter().map(own).collect();
        netns.fed(Command::new("bridge").args(["-batch", "-"]), &vlans)?;
        let site = Self { node, wire, ports };
        until("the bond to carry frames", || {
            let number = site.wire.send(None)?;
            Ok(site.ports[0].arrived(&site.node.netns)?.contains_key(&number))
        })?;
        Ok(site)
    }

    fn nic(&self, vlan: &str) -> Nic<'_> {
        self.node.nic("tap0", WEB1).without_network().bridged("br0").set("VLAN", vlan)
    }

    /// Who gets a probe that `from` sends, and with which tags.
    fn reached<'c>(&'c self, guest: &'c Card, from: &Card, vid: Vid) -> Result<BTreeMap<&'c str, Vec<Vid>>> {
        let all = || self.ports.iter().chain([&self.wire, guest]);
        all().for_each(Card::clear);
        let number = from.send(vid)?;
        let mut reached = BTreeMap::new();
        for card in all() {
            if let Some(tags) = card.arrived(&self.node.netns)?.remove(&number) {
                reached.insert(card.name.as_str(), tags);
            }
        }
        Ok(reached)
    }
}

fn bridge(netns: &Netns, arguments: &str) -> Result<String> {
    netns.output(Command::new("bridge").args(arguments.split_whitespace()))
}

/// The VLANs of all ports as `bridge` tells them: `10 PVID Egress Untagged`.
fn vlans(netns: &Netns) -> Result<BTreeMap<String, Vec<String>>> {
    let text = bridge(netns, "-j vlan show")?;
    let ports: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let mut found = BTreeMap::new();
    for entry in ports.as_array().into_iter().flatten() {
        let vlans = entry["vlans"].as_array().into_iter().flatten().map(|vlan| {
            let flags = vlan["flags"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let words = [vlan["vlan"].to_string()].into_iter().chain(flags.map(str::to_owned));
            words.collect::<Vec<_>>().join(" ")
        });
        found.insert(entry["ifname"].as_str().unwrap_or_default().to_owned(), vlans.collect());
    }
    Ok(found)
}

/// That these ports have these VLANs and no others.
fn have(netns: &Netns, expected: &[(&str, &[&str])]) -> Result<()> {
    let found = vlans(netns)?;
    for (port, expected) in expected {
        let found = found.get(*port).map_or(&[][..], Vec::as_slice);
        ensure!(found == *expected, "VLANs of {port}: {found:?}, expected {expected:?}");
    }
    Ok(())
}

/// That a port has these VLANs and no others.
fn has(netns: &Netns, port: &str, expected: &[&str]) -> Result<()> {
    have(netns, &[(port, expected)])
}

fn untagged(vid: u16) -> String {
    format!("{vid} PVID Egress Untagged")
}

fn every_notation_gives_exactly_its_vlans() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    // The bond brings VLAN 1 untagged, and the others once a NIC needed them.
    let mut outside = vec![1];
    for (notation, own, tagged) in [
        ("10", Some(10), &[][..]),
        (".20", Some(20), &[]),
        (":10:20", None, &[10, 20]),
        (".10:20:30", Some(10), &[20, 30]),
        (".1", Some(1), &[]),
        (":1:30", None, &[1, 30]),
    ] {
        let guest = Card::plug(netns, "tap0")?;
        site.nic(notation).ifup()?.succeeds()?;
        outside.extend(own.iter().chain(tagged));
        let mut expected: Vec<_> = own.map(|vid| (vid, untagged(vid))).into_iter().collect();
        expected.extend(tagged.iter().map(|vid| (*vid, vid.to_string())));
        expected.sort_unstable();
        let expected: Vec<_> = expected.iter().map(|it| it.1.as_str()).collect();
        has(netns, "tap0", &expected).context(notation)?;

        let member = |vid: u16| own == Some(vid) || tagged.contains(&vid);
        let at_guest = |vid: u16| member(vid).then(|| ("tap0", vec![(own != Some(vid)).then_some(vid)]));
        let at_wire = |vid: u16| outside.contains(&vid).then(|| ("wire0", vec![(vid != 1).then_some(vid)]));
        let at_port =
            |vid: u16| site.ports.iter().find(|it| it.name == format!("p{vid}")).map(|it| (&*it.name, vec![None]));
        for sent in [None, Some(0), Some(1), Some(10), Some(20), Some(30), Some(99)] {
            // A tag of VLAN 0 only carries a priority (IEEE 802.1Q, 6.9): it counts as none.
            let vid = sent.filter(|vid| *vid != 0);
            let within = vid.or(own).filter(|vid| member(*vid));
            let expected = within.map(|vid| at_wire(vid).into_iter().chain(at_port(vid)).collect()).unwrap_or_default();
            let reached = site.reached(&guest, &guest, sent)?;
            ensure!(
                reached == expected,
                "VLAN={notation}, {sent:?} of the guest reached {reached:?}, not {expected:?}"
            );

            let within = vid.or(Some(1)).filter(|vid| outside.contains(vid));
            let expected =
                within.map(|vid| at_guest(vid).into_iter().chain(at_port(vid)).collect()).unwrap_or_default();
            let reached = site.reached(&guest, &site.wire, sent)?;
            ensure!(reached == expected, "VLAN={notation}, {sent:?} of the wire reached {reached:?}, not {expected:?}");
        }
        for (card, vid) in site.ports.iter().zip(ACCESS) {
            let expected = at_guest(vid).into_iter().chain(at_wire(vid)).collect();
            let reached = site.reached(&guest, card, None)?;
            ensure!(reached == expected, "VLAN={notation}, {} reached {reached:?}, not {expected:?}", card.name);
        }
        site.nic(notation).ifdown()?.succeeds()?;
        has(netns, "tap0", &[])?;
    }
    Ok(())
}

fn plan_prints_what_ifup_does() -> Result<()> {
    let (ours, theirs) = (Site::new()?, Site::new()?);
    for notation in ["10", ":10:20", ".10:20:30", ".1", ""] {
        let _cards = [Card::plug(&ours.node.netns, "tap0")?, Card::plug(&theirs.node.netns, "tap0")?];
        let mac = ours.node.netns.mac_of("tap0")?;
        theirs.node.netns.ip(&format!("link set dev tap0 address {mac}"))?;
        let plan = ours.nic(notation).run("plan")?.succeeds()?.stdout;
        has(&ours.node.netns, "tap0", &[]).context("plan touched something")?;
        for line in plan.lines() {
            let mut words = line.split(' ');
            theirs.node.netns.output(Command::new(words.next().unwrap_or_default()).args(words))?;
        }
        ours.nic(notation).ifup()?.succeeds()?;
        let [found, by_plan] = [&ours, &theirs].map(|site| bridge(&site.node.netns, "vlan show"));
        let (found, by_plan) = (found?, by_plan?);
        ensure!(found.contains("tap0") && found == by_plan, "VLAN={notation}: {found}, but {by_plan} by\n{plan}");
        let [link, by_plan] = [&ours, &theirs].map(|site| site.node.netns.ip("-br link show dev tap0"));
        let (link, by_plan) = (link?, by_plan?);
        ensure!(link == by_plan, "{link:?}, but {by_plan:?} by\n{plan}");
        ours.nic(notation).ifdown()?.succeeds()?;
    }
    Ok(())
}

fn uplinks_get_what_they_lack_and_keep_it() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    // The administrator has VLAN 10 come untagged.
    bridge(netns, "vlan add dev bond0 vid 10 pvid untagged")?;
    // A card of another instance that is no TAP: we know it by its record.
    netns.ip("link add nic9 type veth peer name nic9b")?;
    let other = site.nic(".30").set("INTERFACE", "nic9").set("INSTANCE", "web9.example.org");
    other.ifup()?.succeeds()?;
    let bond = ["1 Egress Untagged", "10 PVID Egress Untagged", "20", "30"];
    let nic = site.nic(".10:20");
    nic.ifup()?.succeeds()?;
    let all = || -> Result<()> {
        have(
            netns,
            &[
                ("bond0", &bond),
                ("dummy0", &["1 PVID Egress Untagged", "10", "20", "30"]),
                ("nic9", &["30 PVID Egress Untagged"]),
                ("veth0", &["1 PVID Egress Untagged"]),
                ("br0", &["1 PVID Egress Untagged"]),
                ("p20", &["20 PVID Egress Untagged"]),
            ],
        )
    };
    all()?;
    has(netns, "tap0", &["10 PVID Egress Untagged", "20"])?;
    let (monitor, record) = (Monitor::of(netns)?, site.node.files.state().join("tap0"));
    let before = std::fs::read_to_string(&record)?;
    // Bridge and bond tell of themselves now and then; an ifup that changes something would do so each time.
    until("a second ifup that changes nothing", || {
        monitor.heard()?;
        nic.ifup()?.succeeds()?;
        let heard = monitor.heard()?;
        ensure!(!heard.iter().any(|it| it.contains("tap0")), "a second ifup changed the TAP: {heard:?}");
        Ok(heard.is_empty())
    })?;
    ensure!(before == std::fs::read_to_string(&record)?, "a second ifup changed the record");
    // What somebody took away from a port to the outside comes back.
    bridge(netns, "vlan del dev dummy0 vid 20")?;
    nic.ifup()?.succeeds()?;
    all()?;
    nic.ifdown()?.succeeds()?;
    all()?;
    has(netns, "tap0", &[])
}

fn a_second_ifup_changes_the_vlans() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = Card::plug(netns, "tap0")?;
    let links = Links::of(netns)?;
    for (notation, expected) in [
        (".10", &["10 PVID Egress Untagged"][..]),
        (".20:10", &["10", "20 PVID Egress Untagged"]),
        (":20", &["20"]),
        ("", &["1 PVID Egress Untagged"]),
        (".10", &["10 PVID Egress Untagged"]),
    ] {
        site.nic(notation).ifup()?.succeeds()?;
        has(netns, "tap0", expected).with_context(|| format!("VLAN={notation}"))?;
    }
    let heard = links.heard()?;
    no_gap(&heard, "tap0")?;
    let downs = heard.iter().filter(|it| it.name == "tap0" && it.bridge != 0 && !it.up).count();
    ensure!(downs <= 1, "the link went down in between: {heard:?}");
    ensure!(!site.reached(&guest, &guest, None)?.is_empty(), "nothing passes");
    // Another NIC finds nothing of it.
    let other = site.nic("").set("INTERFACE_UUID", "0c2a1a4e-0000-4000-8000-00000000000f");
    other.ifup()?.succeeds()?;
    has(netns, "tap0", &["1 PVID Egress Untagged"])?;
    other.ifdown()?.succeeds()?;
    // Nor does one whose predecessor's record was lost.
    site.nic(".10").ifup()?.succeeds()?;
    std::fs::remove_file(site.node.files.state().join("tap0"))?;
    other.ifup()?.succeeds()?;
    has(netns, "tap0", &["1 PVID Egress Untagged"])
}

fn a_port_that_moves_takes_no_vlan_along() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    netns.ip_batch(
        "link add br1 mtu 1400 type bridge vlan_filtering 1 vlan_default_pvid 5\n\
         link set br1 up\n\
         link add dummy1 mtu 1400 up master br1 type dummy\n",
    )?;
    let links = Links::of(netns)?;
    let moved = |vlan: &str| site.nic(vlan).bridged("br1");
    for (nic, bridge_name, expected) in [
        (site.nic(".10"), "br0", "10 PVID Egress Untagged"),
        (moved(".20"), "br1", "20 PVID Egress Untagged"),
        (site.nic(".10"), "br0", "10 PVID Egress Untagged"),
        (moved(""), "br1", "5 PVID Egress Untagged"),
        (site.nic(""), "br0", "1 PVID Egress Untagged"),
    ] {
        nic.ifup()?.succeeds()?;
        has(netns, "tap0", &[expected])?;
        let link = netns.ip("-o link show dev tap0")?;
        let mtu = if bridge_name == "br1" { 1400 } else { 1500 };
        ensure!(link.contains(&format!("master {bridge_name} ")) && link.contains(&format!("mtu {mtu} ")), "{link}");
    }
    has(netns, "dummy1", &["5 PVID Egress Untagged", "20"])?;
    let heard = links.heard()?;
    no_gap(&heard, "tap0")?;
    for event in heard.iter().filter(|it| it.name == "br0") {
        ensure!(event.mtu == 1500, "the bridge followed a port that left: {event:?}");
    }
    Ok(())
}

fn what_cannot_be_is_refused() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    let refused = |vlan: &str, parts: &[&str]| -> Result<()> {
        site.nic(vlan).ifup()?.fails(parts)?;
        let link = netns.ip("-o link show dev tap0")?;
        ensure!(!link.contains("master") && link.contains("state DOWN"), "{link}");
        Ok(())
    };
    for bad in ["0", ".10:4095"] {
        refused(bad, &["VLAN", bad, "1 to 4094"])?;
    }
    netns.ip("link set dev br0 type bridge vlan_filtering 0")?;
    refused(".10", &["VLAN .10", "br0", "vlan_filtering 1"])?;
    netns.ip("link set dev br0 type bridge vlan_filtering 1")?;
    netns.ip_batch(
        "link add link bond0 name bond0.10 type vlan id 10\n\
         link add link wire0 name wire0.20 type vlan id 20\n\
         link add link br0 name br0.30 type vlan id 30\n\
         link add link veth0 name veth0.31 type vlan id 31\n\
         link add link bond0 name bond0.32 type vlan proto 802.1ad id 32\n",
    )?;
    refused(".10", &["VLAN .10", "VID 10", "bond0.10", "br0"])?;
    refused(":7:10", &["VLAN :7:10", "VID 10", "bond0.10", "br0"])?;
    refused(".20", &["VLAN .20", "VID 20", "wire0.20", "br0"])?;
    has(netns, "bond0", &["1 PVID Egress Untagged"])?;
    site.nic(":30:31:32").ifup()?.succeeds()?;
    has(netns, "tap0", &["30", "31", "32"])
}

fn no_frame_slips_into_the_default_vlan() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    netns.ip_batch(
        "link add br1 type bridge vlan_filtering 1 mcast_snooping 0\n\
         link set br1 up\n",
    )?;
    let beside = Card::plug(netns, "q1")?;
    netns.ip("link set q1 up master br1")?;
    let guest = Card::plug(netns, "tap0")?;
    let (first, ten) = (&site.ports[0], &site.ports[1]);
    [first, ten, &site.wire].into_iter().for_each(Card::clear);
    let links = Links::of(netns)?;
    {
        let _pouring = guest.pour(&[None, Some(1)], &[]);
        for _ in 0..6 {
            site.nic(".10").ifup()?.succeeds()?;
            site.nic(".10").ifup()?.succeeds()?;
            site.nic(".20").ifup()?.succeeds()?;
            site.nic(".10").bridged("br1").ifup()?.succeeds()?;
            site.nic(".20").ifup()?.succeeds()?;
            site.nic(".20").ifdown()?.succeeds()?;
            no_gap(&links.heard()?, "tap0")?;
        }
    }
    for card in [first, &beside] {
        let slipped = card.arrived(netns)?;
        ensure!(slipped.is_empty(), "{} frames reached {}, in VLAN 1", slipped.len(), card.name);
    }
    let passed = ten.arrived(netns)?.len();
    ensure!(passed > 100, "only {passed} frames reached VLAN 10");
    // They would have been seen.
    site.nic("").ifup()?.succeeds()?;
    guest.send(None)?;
    ensure!(!first.arrived(netns)?.is_empty(), "VLAN 1 does not hear the guest at all");
    Ok(())
}
