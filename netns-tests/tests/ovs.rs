//! NICs on Open vSwitch's bridges: which frames pass, in which VLAN; what stands in its database, and when.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::hook::hook;
use crate::Test;
use crate::harness::card::{Card, Vid};
use crate::harness::guest::{Identity, WEB1, WEB2};
use crate::harness::nic::Nic;
use crate::harness::ovs::{Datapath, Switch};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Node;
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("ovs::frames_pass_in_their_vlans_only", frames_pass_in_their_vlans_only),
    ("ovs::a_second_ifup_changes_nothing", a_second_ifup_changes_nothing),
    ("ovs::a_stale_port_is_replaced_at_once", a_stale_port_is_replaced_at_once),
    ("ovs::a_tap_of_another_instance_is_in_its_vlan_only", a_tap_of_another_instance_is_in_its_vlan_only),
    ("ovs::no_frame_slips_into_the_vlan_of_another_instance", no_frame_slips_into_the_vlan_of_another_instance),
    ("ovs::what_was_changed_by_hand_is_put_right", what_was_changed_by_hand_is_put_right),
    ("ovs::down_deletes_what_is_ours", down_deletes_what_is_ours),
    ("ovs::goes_from_mode_to_mode", goes_from_mode_to_mode),
    ("ovs::by_the_real_tools", by_the_real_tools),
    ("ovs::ports_without_a_record", ports_without_a_record),
];

/// On the datapath of Debian's own kernel.
pub const IN_VIRTUAL_MACHINE: &[Test] = &[
    ("ovs::frames_pass_in_their_vlans_only_in_the_kernel", || frames(Datapath::Kernel)),
    ("ovs::no_frame_slips_in_the_kernel", || slips(Datapath::Kernel)),
    ("ovs::goes_from_mode_to_mode_in_the_kernel", || mode_to_mode(Datapath::Kernel)),
    ("ovs::a_port_that_nobody_recorded_in_the_kernel", unrecorded),
];

/// A node with an Open vSwitch that has the bridge `br0`, to which `out` leads, with all VLANs.
pub struct Site {
    pub node: Node,
    pub switch: Switch,
    pub out: Card,
}

impl Site {
    pub fn new(datapath: Datapath) -> Result<Self> {
        let node = Node::alone()?;
        node.netns.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
        let switch = Switch::on(&node, datapath)?;
        switch.bridge("br0")?;
        let out = Card::plug(&node.netns, "out")?;
        node.netns.ip("link set out up")?;
        switch.vsctl("add-port br0 out")?;
        node.settled("out")?;
        Ok(Self { node, switch, out })
    }

    /// A NIC on br0.
    pub fn nic(&self, id: Identity) -> Nic<'_> {
        self.node.nic("tap0", id).without_network().set("MODE", "openvswitch").set("LINK", "br0")
    }

    /// That of what `guest` sends these arrive outside, each with its tag there, and of what comes from there these arrive at the guest.
    pub fn passes(&self, guest: &Card, leaves: &[(Vid, Vid)], enters: &[(Vid, Vid)]) -> Result<()> {
        one_way(&self.switch, guest, &self.out, leaves)?;
        one_way(&self.switch, &self.out, guest, enters)
    }
}

const KINDS: [Vid; 4] = [None, Some(10), Some(20), Some(30)];

/// Sends one of each kind and then, to know when all have passed, one that passes.
fn one_way(switch: &Switch, from: &Card, to: &Card, passing: &[(Vid, Vid)]) -> Result<()> {
    let (last, _) = passing.last().context("something must pass")?;
    // Right after a change the datapath may still do what it learned before.
    until(&format!("frames from {} to {}", from.name, to.name), || {
        let number = from.send(*last)?;
        std::thread::yield_now();
        Ok(to.so_far().contains_key(&number))
    })?;
    let sent = KINDS.iter().map(|kind| Ok((*kind, from.send(*kind)?))).collect::<Result<Vec<_>>>()?;
    let expected = |kind: &Vid| passing.iter().find(|it| it.0 == *kind).map(|it| vec![it.1]);
    until("the frames that pass", || {
        let arrived = to.so_far();
        Ok(sent.iter().all(|(kind, number)| expected(kind).is_none() || arrived.contains_key(number)))
    })
    .with_context(|| format!("{sent:?} from {} to {}: {:?}", from.name, to.name, to.so_far()))?;
    switch.forget_flows()?;
    let end = from.send(*last)?;
    until("the last frame", || Ok(to.so_far().contains_key(&end)))?;
    let arrived = to.so_far();
    for (kind, number) in sent {
        let (seen, expected) = (arrived.get(&number).cloned(), expected(&kind));
        ensure!(seen == expected, "{kind:?} from {} to {}: {seen:?}, not {expected:?}", from.name, to.name);
    }
    Ok(())
}

/// Of ports that nobody recorded, ours are listed and go; others stay.
fn ports_without_a_record() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let (node, switch) = (&site.node, &site.switch);
    let has = |name: &str| -> Result<bool> { Ok(switch.vsctl("list-ports br0")?.lines().any(|it| it == name)) };
    let lose = |id: Identity| -> Result<()> {
        let guest = Card::plug(&node.netns, "tap0")?;
        site.nic(id).set("VLAN", ".10").ifup()?.succeeds()?;
        drop(guest);
        node.netns.ip("link del tap0").ok();
        fs::remove_file(node.files.state().join("tap0")).context("its record")
    };
    switch.vsctl("add-port br0 another tag=30 -- set Interface another external_ids:owner=else")?;
    lose(WEB1)?;
    ensure!(has("tap0")?);
    let line = "tap0: foreign: ovs-vsctl";
    let status = node.files.run(&node.netns, &["status"], "")?;
    ensure!(status.code == Some(3) && status.stdout.contains(line) && status.stdout.contains("tag=10"), "{status:#?}");
    let dry = node.files.run(&node.netns, &["gc"], "--dry-run")?;
    ensure!(dry.code == Some(3) && dry.stdout.contains(line) && !dry.stdout.contains("another"), "{dry:#?}");
    node.files.run(&node.netns, &["gc"], "")?.succeeds()?;
    ensure!(!has("tap0")? && has("another")?);
    // A NIC of another mode does not stay in the old VLAN.
    lose(WEB1)?;
    let guest = Card::plug(&node.netns, "tap0")?;
    ensure!(has("tap0")?);
    node.netns.ip_batch("link add br9 type bridge\nlink set br9 up")?;
    node.nic("tap0", WEB2).without_network().bridged("br9").ifup()?.succeeds()?;
    ensure!(!has("tap0")?, "{}", switch.vsctl("show")?);
    drop(guest);
    Ok(())
}

fn frames_pass_in_their_vlans_only() -> Result<()> {
    frames(Datapath::Userspace)
}

/// Each kind of VLAN, with another guest beside in VLAN 20.
fn frames(datapath: Datapath) -> Result<()> {
    const PLAIN: Vid = None;
    const TEN: Vid = Some(10);
    const TWENTY: Vid = Some(20);
    const THIRTY: Vid = Some(30);
    let site = Site::new(datapath)?;
    let netns = &site.node.netns;
    let beside = Card::plug(netns, "beside")?;
    netns.ip("link set beside up")?;
    site.switch.vsctl("add-port br0 beside tag=20")?;
    let guest = Card::plug(netns, "tap0")?;
    for (vlan, leaves, enters) in [
        (".10", &[(PLAIN, TEN)][..], &[(TEN, PLAIN)][..]),
        (":10:20", &[(TEN, TEN), (TWENTY, TWENTY)], &[(TEN, TEN), (TWENTY, TWENTY)]),
        (".10:20", &[(TEN, TEN), (TWENTY, TWENTY), (PLAIN, TEN)], &[(TWENTY, TWENTY), (TEN, PLAIN)]),
        (".10:10", &[(TEN, TEN), (PLAIN, TEN)], &[(TEN, PLAIN)]),
        ("30", &[(PLAIN, THIRTY)], &[(THIRTY, PLAIN)]),
        (
            "",
            &[(PLAIN, PLAIN), (TEN, TEN), (TWENTY, TWENTY), (THIRTY, THIRTY)],
            &[(PLAIN, PLAIN), (TEN, TEN), (TWENTY, TWENTY), (THIRTY, THIRTY)],
        ),
    ] {
        site.nic(WEB1).set("VLAN", vlan).ifup()?.succeeds()?;
        beside.clear();
        site.passes(&guest, leaves, enters).with_context(|| format!("VLAN {vlan:?}"))?;
        // The other guest has what is in its VLAN, and has it untagged.
        let number = site.out.send(TWENTY)?;
        until("a frame in VLAN 20", || Ok(beside.so_far().contains_key(&number)))?;
        ensure!(beside.so_far().values().flatten().all(Option::is_none), "VLAN {vlan:?}: {:?}", beside.so_far());
        site.nic(WEB1).ifdown()?.succeeds()?;
    }
    Ok(())
}

fn a_second_ifup_changes_nothing() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    let nic = site.nic(WEB1).set("VLAN", ".10:20");
    nic.ifup()?.succeeds()?;
    let uuid = site.switch.vsctl("get Port tap0 _uuid")?;
    let rows = site.switch.rows("tap0")?;
    for part in ["native-untagged", "snf-network", "aa:00:00:12:34:56", "0c2a1a4e-0000-4000-8000-000000000001"] {
        ensure!(format!("{rows:?}").contains(part), "no {part} in {rows:?}");
    }
    let link = netns.ip("-o link show dev tap0")?;
    for part in ["mtu 1500 ", ",UP", "link/ether fe:"] {
        ensure!(link.contains(part), "no {part:?} in {link}");
    }
    site.node.settled("tap0")?;
    let (changes, before) = (site.switch.changes()?, Snapshot::of(netns)?);
    for _ in 0..3 {
        nic.ifup()?.succeeds()?;
    }
    ensure!(site.switch.changes()? == changes && site.switch.vsctl("get Port tap0 _uuid")? == uuid);
    before.returns_in(netns, |state| state)
}

fn a_stale_port_is_replaced_at_once() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let guest = Card::plug(&site.node.netns, "tap0")?;
    site.switch.bridge("br1")?;
    // On the same bridge the switch would keep the device it has, so such a port goes first, in a transaction of its own.
    for (stale, transactions) in
        [("add-port br1 tap0 tag=20", 1), ("add-port br0 tap0 trunks=20,30", 2), ("add-port br0 tap0", 2)]
    {
        site.switch.vsctl(stale)?;
        let before = site.switch.changes()?;
        site.nic(WEB1).set("VLAN", ".10").ifup()?.succeeds()?;
        let done = site.switch.changes()? - before;
        ensure!(done == transactions, "{stale}: {done} transactions, not {transactions}");
        ensure!(site.switch.vsctl("port-to-br tap0")? == "br0", "{stale}: on another bridge");
        site.passes(&guest, &[(None, Some(10))], &[(Some(10), None)]).context(stale)?;
        site.nic(WEB1).ifdown()?.succeeds()?;
    }
    Ok(())
}

/// Ganeti 3.0 and 3.1 never call down: the port outlives its TAP, and would take the next one of its name.
fn a_tap_of_another_instance_is_in_its_vlan_only() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let netns = &site.node.netns;
    let gone = || until("tap0 to be gone", || Ok(netns.ip("link show dev tap0").is_err()));
    let first = Card::plug(netns, "tap0")?;
    site.nic(WEB1).set("VLAN", ".10").ifup()?.succeeds()?;
    site.passes(&first, &[(None, Some(10))], &[(Some(10), None)])?;
    drop(first);
    gone()?;
    let second = Card::plug(netns, "tap0")?;
    site.nic(WEB2).set("VLAN", ".20").ifup()?.succeeds()?;
    site.passes(&second, &[(None, Some(20))], &[(Some(20), None)])?;
    // A late ifdown of the first one's changes nothing.
    site.nic(WEB1).ifdown()?.succeeds()?;
    site.passes(&second, &[(None, Some(20))], &[(Some(20), None)])?;
    // The same guest again, on another TAP of this name.
    drop(second);
    gone()?;
    let again = Card::plug(netns, "tap0")?;
    site.nic(WEB2).set("VLAN", ".20").ifup()?.succeeds()?;
    site.passes(&again, &[(None, Some(20))], &[(Some(20), None)])
}

fn no_frame_slips_into_the_vlan_of_another_instance() -> Result<()> {
    slips(Datapath::Userspace)
}

/// A guest that sends all the time, on a TAP whose name and port had another instance in another VLAN until just now.
fn slips(datapath: Datapath) -> Result<()> {
    let site = Site::new(datapath)?;
    let netns = &site.node.netns;
    for (id, vlan, tag, stale) in [
        (WEB1, ".10", 10, false),
        (WEB2, ".20", 20, false),
        (WEB1, ".10", 10, true),
        (WEB2, ".30", 30, true),
        (WEB1, ".20", 20, false),
    ] {
        let guest = Card::plug(netns, "tap0")?;
        if stale {
            // A port that works, in a VLAN of nobody's.
            site.switch.vsctl("--if-exists del-port tap0")?;
            site.switch.vsctl("add-port br0 tap0 tag=40")?;
        }
        site.out.clear();
        let pouring = guest.pour(&[None], &[]);
        site.nic(id).set("VLAN", vlan).ifup()?.succeeds()?;
        until("frames outside", || Ok(site.out.so_far().len() > 100))?;
        drop(pouring);
        let others = site.out.so_far().into_values().filter(|tags| *tags != [Some(tag)]).collect::<Vec<_>>();
        ensure!(others.is_empty(), "VLAN {vlan}: {} frames in {:?}", others.len(), others.first());
        drop(guest);
        until("tap0 to be gone", || Ok(netns.ip("link show dev tap0").is_err()))?;
    }
    Ok(())
}

fn what_was_changed_by_hand_is_put_right() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let guest = Card::plug(&site.node.netns, "tap0")?;
    let nic = site.nic(WEB1).set("VLAN", ".10");
    nic.ifup()?.succeeds()?;
    let rows = site.switch.rows("tap0")?;
    for change in [
        "set Port tap0 tag=20",
        "set Port tap0 trunks=20",
        "clear Port tap0 vlan_mode tag",
        "set Port tap0 vlan_mode=dot1q-tunnel",
        "remove Port tap0 other_config stp-enable",
        "set Port tap0 other_config:rstp-enable=true",
        "remove Interface tap0 external_ids owner",
        "del-port tap0",
    ] {
        site.switch.vsctl(change)?;
        nic.ifup()?.succeeds()?;
        ensure!(site.switch.rows("tap0")? == rows, "{change}: {:?}, not {rows:?}", site.switch.rows("tap0")?);
    }
    // What others say of the interface beside it is nobody's business.
    site.switch.vsctl("set Interface tap0 external_ids:colour=red")?;
    let changes = site.switch.changes()?;
    nic.ifup()?.succeeds()?;
    ensure!(site.switch.changes()? == changes, "an external_id of others was taken away");
    site.passes(&guest, &[(None, Some(10))], &[(Some(10), None)])
}

fn down_deletes_what_is_ours() -> Result<()> {
    let site = Site::new(Datapath::Userspace)?;
    let netns = &site.node.netns;
    let guest = Card::plug(netns, "tap0")?;
    netns.ip_batch("link set tap0 mtu 1300 up\nlink set tap0 down\n")?;
    let before = Snapshot::of(netns)?;
    let nic = site.nic(WEB1).set("VLAN", ".10");
    nic.ifup()?.succeeds()?;
    ensure!(netns.ip("-o link show dev tap0")?.contains("mtu 1500 "));
    nic.ifdown()?.succeeds()?;
    ensure!(site.switch.vsctl("list-ports br0")? == "out");
    before.returns_in(netns, |state| state)?;
    ensure!(!site.node.files.state().join("tap0").exists(), "a record is left");
    // The TAP is gone before its ifdown, or there is none and the hook clears away.
    drop(guest);
    for by_hook in [false, true] {
        let guest = Card::plug(netns, "tap0")?;
        nic.ifup()?.succeeds()?;
        drop(guest);
        until("tap0 to be gone", || Ok(netns.ip("link show dev tap0").is_err()))?;
        let done = if by_hook { hook(&site.node, "OP_INSTANCE_SHUTDOWN", WEB1, &[])? } else { nic.ifdown()? };
        done.succeeds()?;
        ensure!(site.switch.vsctl("list-ports br0")? == "out", "the port outlives its TAP");
    }
    // By now it is another's.
    let _again = Card::plug(netns, "tap0")?;
    nic.ifup()?.succeeds()?;
    site.switch.vsctl("del-port tap0 -- add-port br0 tap0 tag=30")?;
    nic.ifdown()?.succeeds()?;
    ensure!(site.switch.vsctl("get Port tap0 tag")? == "30", "another's port was deleted");
    Ok(())
}

fn goes_from_mode_to_mode() -> Result<()> {
    mode_to_mode(Datapath::Userspace)
}

/// From a Linux bridge to Open vSwitch, to another bridge there, and back, as the same NIC.
fn mode_to_mode(datapath: Datapath) -> Result<()> {
    let site = Site::new(datapath)?;
    let netns = &site.node.netns;
    let guest = Card::plug(netns, "tap0")?;
    let linux = Card::plug(netns, "p0")?;
    netns.ip_batch("link add lin0 type bridge mcast_snooping 0\nlink set lin0 up\nlink set p0 up master lin0\n")?;
    site.switch.bridge("br1")?;
    let plain = || site.nic(WEB1);
    for _ in 0..2 {
        plain().bridged("lin0").ifup()?.succeeds()?;
        ensure!(site.switch.vsctl("list-ports br0")? == "out", "still a port of Open vSwitch");
        let number = guest.send(None)?;
        until("a frame on the Linux bridge", || Ok(linux.so_far().contains_key(&number)))?;
        plain().set("VLAN", ".10").ifup()?.succeeds()?;
        ensure!(!netns.ip("-o link show dev tap0")?.contains("master lin0"), "still a port of the Linux bridge");
        site.passes(&guest, &[(None, Some(10))], &[(Some(10), None)])?;
        plain().set("LINK", "br1").ifup()?.succeeds()?;
        ensure!(site.switch.vsctl("port-to-br tap0")? == "br1");
    }
    // A move that fails leaves the NIC where it was.
    let before = site.switch.rows("tap0")?;
    plain().bridged("lin7").ifup()?.fails(&["lin7"])?;
    plain().set("LINK", "br7").ifup()?.fails(&["br7", "there is no such bridge of Open vSwitch"])?;
    ensure!(site.switch.vsctl("port-to-br tap0")? == "br1" && site.switch.rows("tap0")? == before);
    ensure!(netns.ip("-o link show dev tap0")?.contains(",UP"));
    plain().ifdown()?.succeeds()?;
    ensure!(site.switch.vsctl("list-ports br1")?.is_empty());
    Ok(())
}

/// A port without a record, whose bridge takes whatever TAP comes under its name.
fn unrecorded() -> Result<()> {
    let site = Site::new(Datapath::Kernel)?;
    let netns = &site.node.netns;
    netns.ip_batch("link add lin0 type bridge mcast_snooping 0\nlink set lin0 up\n")?;
    for nic in [site.nic(WEB1).bridged("lin0"), site.nic(WEB1).set("MODE", "routed").unset(&["LINK"])] {
        let _guest = Card::plug(netns, "tap0")?;
        site.switch.vsctl("add-port br0 tap0")?;
        ensure!(netns.ip("-o link show dev tap0")?.contains("master ovs-system"));
        nic.ifup()?.succeeds()?;
        ensure!(site.switch.vsctl("list-ports br0")? == "out", "still a port of Open vSwitch");
        ensure!(!netns.ip("-o link show dev tap0")?.contains("master ovs-system"));
        nic.ifdown()?.succeeds()?;
    }
    Ok(())
}

/// What `plan` prints does the same.
fn by_the_real_tools() -> Result<()> {
    for vlan in [".10", ":10:20", ".10:20", ""] {
        let (ours, theirs) = (Site::new(Datapath::Userspace)?, Site::new(Datapath::Userspace)?);
        let mut cards = Vec::new();
        for site in [&ours, &theirs] {
            cards.push(Card::plug(&site.node.netns, "tap0")?);
            site.node.netns.ip("link set tap0 address 02:00:00:00:03:01")?;
        }
        let nic = |site| Site::nic(site, WEB1).set("VLAN", vlan).set("NETWORK_TAGS", "nfdhcpd");
        nic(&ours).ifup()?.succeeds()?;
        let script = nic(&theirs).run("plan")?.succeeds()?.stdout;
        theirs.switch.vsctl("add-port br0 tap0 tag=30")?;
        theirs.node.netns.output(Command::new("sh").args(["-e", "-c", &script])).with_context(|| script.clone())?;
        ensure!(ours.switch.rows("tap0")? == theirs.switch.rows("tap0")?, "{script}");
        let link = |site: &Site| site.node.netns.ip("-br link show dev tap0");
        ensure!(link(&ours)? == link(&theirs)?, "{}, not {}", link(&theirs)?, link(&ours)?);
        for site in [&ours, &theirs] {
            let binding = fs::read_to_string(site.node.files.bindings().join("tap0"))?;
            ensure!(binding.starts_with("INDEV=tap0\n"), "{binding}");
        }
    }
    Ok(())
}
