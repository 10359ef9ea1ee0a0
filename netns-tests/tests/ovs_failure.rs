//! What goes wrong with Open vSwitch: one clear line, and nothing left.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::ovs::Site;
use crate::Test;
use crate::harness::card::Card;
use crate::harness::guest::WEB1;
use crate::harness::ovs::{Datapath, Impostor};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Node;

pub const TESTS: &[Test] = &[
    ("ovs_failure::no_bridge_and_no_database", no_bridge_and_no_database),
    ("ovs_failure::a_switch_that_does_not_run", a_switch_that_does_not_run),
    ("ovs_failure::what_the_database_refuses", what_the_database_refuses),
    ("ovs_failure::what_the_switch_cannot_do", what_the_switch_cannot_do),
    ("ovs_failure::servers_that_are_none", servers_that_are_none),
    ("ovs_failure::what_cannot_be_filtered_is_refused", what_cannot_be_filtered_is_refused),
    (
        "ovs_failure::a_native_vlan_that_is_an_access_vlan_is_warned_of",
        a_native_vlan_that_is_an_access_vlan_is_warned_of,
    ),
];

/// That nothing of the NIC is left.
fn clean(site: &Site, before: &Snapshot) -> Result<()> {
    ensure!(!site.node.files.state().join("tap0").exists(), "a record is left");
    before.returns_in(&site.node.netns, |state| state)
}

fn no_bridge_and_no_database() -> Result<()> {
    let mut site = Site::new(Datapath::Userspace)?;
    let _guest = Card::plug(&site.node.netns, "tap0")?;
    let before = Snapshot::of(&site.node.netns)?;
    let missing = "there is no such bridge of Open vSwitch";
    site.nic(WEB1).set("LINK", "br7").ifup()?.fails(&["LINK", "br7", missing])?;
    // A port is no bridge.
    site.nic(WEB1).set("LINK", "out").ifup()?.fails(&["LINK", "out", missing])?;
    // Nor is a VLAN of a bridge.
    site.switch.vsctl("add-br fake0 br0 10")?;
    site.nic(WEB1).set("LINK", "fake0").ifup()?.fails(&["LINK", "fake0", missing])?;
    site.switch.vsctl("del-br fake0")?;
    site.nic(WEB1).unset(&["LINK", "BRIDGE"]).ifup()?.fails(&["LINK"])?;
    clean(&site, &before)?;
    site.nic(WEB1).ifup()?.succeeds()?;
    site.switch.kill_database()?;
    site.nic(WEB1).ifup()?.fails(&["OVSDB_SOCKET", "db.sock", "Connection refused"])?;
    // The link goes down nonetheless, and the record stays for another try.
    site.nic(WEB1).ifdown()?.fails(&["del-port tap0", "OVSDB_SOCKET", "Connection refused"])?;
    ensure!(!site.node.netns.ip("link show dev tap0")?.contains(",UP"));
    ensure!(site.node.files.state().join("tap0").exists());
    Ok(())
}

fn a_switch_that_does_not_run() -> Result<()> {
    let mut site = Site::new(Datapath::Userspace)?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    let _other = Card::plug(netns, "tap1")?;
    let other = site.node.nic("tap1", WEB1).without_network().set("MODE", "openvswitch").set("LINK", "br0");
    other.ifup()?.succeeds()?;
    site.node.settled("tap1")?;
    let before = Snapshot::of(netns)?;
    site.switch.kill()?;
    let silent = ["ovs-vswitchd", "10 s", "expected it to run"];
    site.nic(WEB1).set("VLAN", ".10").ifup()?.fails(&[&silent[..], &["add-port br0 tap0"]].concat())?;
    clean(&site, &before)?;
    ensure!(!site.switch.vsctl("--no-wait list-ports br0")?.contains("tap0"), "the port is left");
    // One that it has is gone from the database at least, which a second try finds.
    let other = site.node.nic("tap1", WEB1).without_network().set("MODE", "openvswitch").set("LINK", "br0");
    other.ifdown()?.fails(&[&silent[..], &["del-port tap1", "gone from the database"]].concat())?;
    ensure!(!site.node.netns.ip("link show dev tap1")?.contains(",UP"));
    other.ifdown()?.succeeds()?;
    ensure!(!site.node.files.state().join("tap1").exists());
    site.switch.start()?;
    site.nic(WEB1).ifup()?.succeeds()?;
    ensure!(site.switch.vsctl("list-ports br0")? == "out\ntap0");
    Ok(())
}

fn what_the_database_refuses() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    let _other = Card::plug(netns, "tap1")?;
    site.switch.vsctl("add-bond br0 bond0 tap0 tap1")?;
    let before = site.switch.vsctl("list Port bond0")?;
    // An interface has one port only.
    site.nic(WEB1).ifup()?.fails(&["add-port br0 tap0", "OVSDB: constraint violation", "Interface", "(tap0)"])?;
    ensure!(site.switch.vsctl("list Port bond0")? == before, "the bond was changed");
    ensure!(!site.node.files.state().join("tap0").exists(), "a record is left");
    // The device of a bridge itself is no guest's.
    let own = site.node.nic("br0", WEB1).without_network().set("MODE", "openvswitch").set("LINK", "br1");
    site.switch.bridge("br1")?;
    own.ifup()?.fails(&["br0", "is the port of bridge br0 itself"])?;
    ensure!(site.switch.vsctl("list-br")? == "br0\nbr1");
    Ok(())
}

fn what_the_switch_cannot_do() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let _guest = Card::plug(&site.node.netns, "tap0")?;
    let before = Snapshot::of(&site.node.netns)?;
    // The database takes such a bridge; ovs-vswitchd makes none of it.
    site.switch.vsctl("--no-wait add-br br1 -- set Bridge br1 datapath_type=nonsense")?;
    site.nic(WEB1).set("LINK", "br1").ifup()?.fails(&["add-port br1 tap0", "ovs-vswitchd", "ofport"])?;
    ensure!(site.switch.vsctl("--no-wait list-ports br1")?.is_empty(), "the port is left");
    clean(&site, &before)
}

/// What a server says that is none of OVSDB's, and the error.
const IMPOSTORS: [(&[u8], &str); 6] = [
    (b"", "nothing within 3 s"),
    (b"\0\xff\x1b[2J\n", "expected a JSON object"),
    (b"{\"id\": 1, \"result\": [", "nothing within 3 s"),
    (b"{\"id\": 1, \"result\": [1], \"error\": null}", "0 results: expected 1"),
    (b"{\"id\": 1, \"result\": [{}], \"error\": null}", "expected rows"),
    (b"{\"id\": 1, \"error\": {\"error\": \"unknown database\"}}", "OVSDB: unknown database"),
];

fn servers_that_are_none() -> Result<()> {
    let node = Node::alone()?;
    let _guest = Card::plug(&node.netns, "tap0")?;
    let before = Snapshot::of(&node.netns)?;
    let nic = || node.nic("tap0", WEB1).without_network().set("MODE", "openvswitch").set("LINK", "br0");
    let answers = |socket: &Path, expected: &[&str]| -> Result<()> {
        node.files.set(&format!("OVSDB_SOCKET={}", socket.display()))?;
        nic().ifup()?.fails(expected)?;
        before.equals(&Snapshot::of(&node.netns)?)
    };
    for (says, expected) in IMPOSTORS {
        answers(&Impostor::new(says)?.socket(), &[expected])?;
    }
    answers(Path::new("/run/no/such/socket"), &["OVSDB_SOCKET", "/run/no/such/socket", "No such file"])
}

fn what_cannot_be_filtered_is_refused() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let _guest = Card::plug(&site.node.netns, "tap0")?;
    let before = (Snapshot::of(&site.node.netns)?, site.switch.changes()?);
    for tag in ["private-filtered", "strict-filtered", "ip-less-routed"] {
        site.nic(WEB1).set("NETWORK_TAGS", tag).ifup()?.fails(&["MODE \"openvswitch\"", tag])?;
    }
    for tags in ["protected", "limited", "synnefo:network:0:protected"] {
        site.nic(WEB1).set("TAGS", tags).ifup()?.fails(&["MODE \"openvswitch\"", "firewall profile", tags])?;
    }
    ensure!(site.switch.changes()? == before.1);
    clean(&site, &before.0)?;
    site.nic(WEB1).set("TAGS", "unprotected").ifup()?.succeeds()?;
    Ok(())
}

/// A frame with two tags passes from an access port into another VLAN of a port that has its VLAN as the native one.
fn a_native_vlan_that_is_an_access_vlan_is_warned_of() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let _guest = Card::plug(&site.node.netns, "tap0")?;
    let warned = |vlan: &str| -> Result<bool> {
        fs::write(site.node.files.log(), "")?;
        site.nic(WEB1).set("VLAN", vlan).ifup()?.succeeds()?;
        Ok(fs::read_to_string(site.node.files.log())?
            .contains("warning: VLAN 10 is the native one of some ports of br0"))
    };
    site.switch.vsctl("set Port out vlan_mode=native-untagged tag=10 trunks=20")?;
    ensure!(warned(".10")?, "an access port beside a native VLAN");
    ensure!(!warned(".20")? && !warned(".10:30")? && !warned("")?, "others");
    site.switch.vsctl("clear Port out vlan_mode trunks")?;
    ensure!(warned(".10:20")?, "a native VLAN beside an access port");
    ensure!(!warned(".10")? && !warned(".20:10")?, "others");
    Ok(())
}
