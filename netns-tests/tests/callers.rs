//! Ganeti's own code as the caller: the Python of its node daemon, which runs its kvm-ifup, its hooks and its vif-ganeti.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::card::Card;
use crate::harness::frame::{self, Mac};
use crate::harness::ganeti::Ganeti;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::nic::Nic;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site, TAP_MAC};
use crate::harness::xenstore::{Manners, Xenstore};

pub const TESTS: &[Test] = &[
    ("callers::ip_less_routed_from_start_to_stop", ip_less_routed_from_start_to_stop),
    ("callers::routed_in_no_network", routed_in_no_network),
    ("callers::bridged", bridged),
    ("callers::a_failure_reaches_the_operator", a_failure_reaches_the_operator),
    ("callers::a_name_in_bytes", a_name_in_bytes),
    ("callers::instance_communication", instance_communication),
    ("callers::vif_ganeti", vif_ganeti),
];

/// What users and administrators may call their instances and networks.
const TAGS: &str = "web*server ünï/cöde synnefo:network:0:limited a@b+c synnefo:network:0:unprotected";

/// That the caller does the same as the test's own `nic.ifup()`, whose node is left set up.
fn like_ours(node: &Node, nic: &Nic, fresh: &Snapshot) -> Result<()> {
    let theirs = (Snapshot::of(&node.netns)?, fs::read_to_string(node.files.state().join("tap0"))?);
    nic.ifdown()?.succeeds()?;
    fresh.returns_in(&node.netns, Snapshot::without_base_tables)?;
    nic.ifup()?.succeeds()?;
    theirs.0.returns_in(&node.netns, |state| state)
}

fn ip_less_routed_from_start_to_stop() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let ganeti = Ganeti::on(node)?;
    let alone = Snapshot::of(netns)?;
    let guest = node.plug("tap0", WEB1)?;
    let fresh = Snapshot::of(netns)?;
    let tags = "ip-less-routed nfdhcpd ünï*";
    let nic = node.nic("tap0", WEB1).set("TAGS", TAGS).set("NETWORK_TAGS", tags).set("INTERFACE_NAME", "eth-0");
    let wire = site.wire()?;
    let mut bindings = Vec::new();
    for _ in 0..3 {
        let outcome = ganeti.configure(&nic)?.succeeds()?;
        ensure!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:?}");
        for outside in [OUTSIDE, OUTSIDE6] {
            guest.ping(outside)?;
        }
        bindings.push(fs::read_to_string(node.files.bindings().join("tap0"))?);
    }
    wire.expect(&format!("ARP, Request who-has {ip} tell {ip}", ip = WEB1.ip))?;
    // Each of its processes hands the tags over in another order.
    ensure!(bindings[0] == bindings[1] && bindings[1] == bindings[2], "{bindings:?}");
    let binding = &bindings[0];
    for part in
        ["INDEV=tap0\n", "IP=10.0.0.2\n", "MAC=aa:00:00:12:34:56\n", "HOSTNAME=web1.example.org\n", "web*server"]
    {
        ensure!(binding.contains(part), "expected {part:?} in {binding}");
    }
    let log = fs::read_to_string(node.files.log())?;
    ensure!(log.contains(" kvm-vif-bridge tap0 web1.example.org: "), "{log}");
    node.settled("tap0")?;
    netns.settle()?;
    like_ours(node, &nic, &fresh)?;

    // Ganeti 3.0 calls nothing when the guest goes, but the hooks of the stop.
    node.unplug(guest, "tap0")?;
    ensure!(!Snapshot::of(netns)?.naming(&WEB1.ip6.to_string()).is_empty(), "nothing was left: nothing is tested");
    ganeti.stopped(&nic)?.succeeds()?;
    alone.returns_in(netns, Snapshot::without_base_tables)?;
    for path in [node.files.state().join("tap0"), node.files.bindings().join("tap0")] {
        ensure!(!path.exists(), "{} is still there", path.display());
    }
    Ok(())
}

fn routed_in_no_network() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let ganeti = Ganeti::on(node)?;
    let guest = node.plug("tap0", WEB1)?;
    // Whose MAC Ganeti leaves alone in this mode: where the guest sends to.
    netns.ip(&format!("link set tap0 address {TAP_MAC}"))?;
    let fresh = Snapshot::of(netns)?;
    for in_main in [false, true] {
        let nic = node.nic("tap0", WEB1).without_network();
        let nic = if in_main { nic.unset(&["LINK"]) } else { nic };
        ganeti.configure(&nic)?.succeeds()?;
        if in_main {
            netns.output(Command::new("ping").args(["-c1", "-W15", &WEB1.ip.to_string()]))?;
        } else {
            guest.ping(OUTSIDE)?;
        }
        node.settled("tap0")?;
        like_ours(node, &nic, &fresh)?;
        nic.ifdown()?.succeeds()?;
    }
    fresh.returns_in(netns, Snapshot::without_base_tables)
}

fn bridged() -> Result<()> {
    let node = Node::alone()?;
    let netns = &node.netns;
    netns.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
    netns.ip_batch("link add br0 type bridge mcast_snooping 0\nlink set br0 mtu 1400 up addrgenmode none\n")?;
    let outside = Card::plug(netns, "p0")?;
    netns.ip("link set p0 address fe:00:00:00:00:01 up mtu 1400 master br0")?;
    let guest = node.plug("tap0", WEB1)?;
    let ganeti = Ganeti::on(&node)?;
    let fresh = Snapshot::of(netns)?;
    let plain = || node.nic("tap0", WEB1).bridged("br0");
    let filtered = plain().set("NETWORK_TAGS", "private-filtered").set("NETWORK_MAC_PREFIX", "aa:00:00").unset(&["IP"]);
    for nic in [plain().without_network().unset(&["IP"]), plain().set("TAGS", TAGS).set("NETWORK_TAGS", "x"), filtered]
    {
        ganeti.configure(&nic)?.succeeds()?;
        let link = netns.ip("-o link show dev tap0")?;
        for part in ["mtu 1400 ", "master br0 ", ",UP"] {
            ensure!(link.contains(part), "no {part:?} in {link}");
        }
        outside.clear();
        guest.send(&frame::arp_request((WEB1.mac, WEB1.ip), WEB2.ip))?;
        outside.capture().expect(&format!("{} > {} ARP, Request who-has {}", WEB1.mac, Mac::BROADCAST, WEB2.ip))?;
        node.settled("tap0")?;
        like_ours(&node, &nic, &fresh)?;
        nic.ifdown()?.succeeds()?;
    }
    fresh.returns_in(netns, Snapshot::without_base_tables)
}

fn a_failure_reaches_the_operator() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let ganeti = Ganeti::on(node)?;
    let _guest = node.plug("tap0", WEB1)?;
    let fresh = Snapshot::of(netns)?;
    let nic = || node.nic("tap0", WEB1);
    for (nic, parts) in [
        (nic().without_network().bridged("br9"), &["LINK or BRIDGE: \"br9\": there is no such bridge"][..]),
        (nic().set("LINK", "4242"), &["4242", "no IPv4 default route"]),
        (nic().set("NETWORK_TAGS", "private-filtered"), &["private-filtered"]),
        (nic().without_network().set("MODE", "openvswitch"), &["openvswitch"]),
    ] {
        let failed = ganeti.configure(&nic)?.fails(parts)?;
        let said = "exited with exit code 1; network configuration script output: kvm-vif-bridge tap0: ";
        ensure!(failed.stderr.contains(said), "{failed:?}");
        fresh.equals(&Snapshot::of(netns)?).with_context(|| failed.stderr)?;
    }
    Ok(())
}

/// Ganeti hands `b'tap0'` as the argument, and the name in INTERFACE.
fn a_name_in_bytes() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let ganeti = Ganeti::on(node)?;
    let guest = node.plug("tap0", WEB1)?;
    let fresh = Snapshot::of(netns)?;
    let nic = node.nic("tap0", WEB1);
    for name in ["kvm-ifup-custom", "kvm-vif-bridge"] {
        ganeti.call(&nic, &format!("/etc/ganeti/{name}"))?.succeeds()?;
        guest.ping(OUTSIDE)?;
        guest.ping(OUTSIDE6)?;
        ganeti.call(&nic, "/etc/ganeti/kvm-ifdown-custom")?.succeeds()?;
        fresh.returns_in(netns, Snapshot::without_base_tables)?;
    }
    Ok(())
}

fn instance_communication() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let ganeti = Ganeti::on(node)?;
    let _guest = node.plug("gnt.com.0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let outcome = ganeti.configure(&node.nic("gnt.com.0", WEB1).without_network())?.succeeds()?;
    ensure!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:?}");
    before.equals(&Snapshot::of(netns)?)
}

fn vif_ganeti() -> Result<()> {
    const STATUS: &str = "backend/vif/7/0/hotplug-status";
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let ganeti = Ganeti::on(node)?;
    let store = Xenstore::new(Manners::Good, &[("/local/domain/7/name", WEB1.name)])?;
    let guest = node.plug("vif7.0", WEB1)?;
    let fresh = Snapshot::of(netns)?;
    let rundir = store.rundir();
    let variables = [("vif", "vif7.0"), ("XENBUS_PATH", "backend/vif/7/0"), ("XENSTORED_RUNDIR", rundir.as_str())];
    let hotplug = |arguments| ganeti.vif_ganeti(arguments, &variables);
    hotplug("online type_if=vif")?.fails(&["vif-custom", "/var/run/ganeti/xen-hypervisor/nic/web1.example.org/0"])?;
    ensure!(store.written().iter().any(|it| *it == (STATUS.to_owned(), "error".to_owned())));

    let nic = node.nic("vif7.0", WEB1).set("TAGS", TAGS).set("NETWORK_TAGS", "ip-less-routed ünï*");
    ganeti.describe_for_xen(&nic)?.succeeds()?;
    hotplug("online type_if=vif")?.succeeds()?;
    ensure!(store.written() == [(STATUS.to_owned(), "connected".to_owned())]);
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    let record = fs::read_to_string(node.files.state().join("vif7.0"))?;
    for tag in TAGS.split(' ') {
        ensure!(record.contains(tag), "no {tag} in {record}");
    }
    hotplug("offline type_if=vif")?.succeeds()?;
    ensure!(store.written().is_empty());
    fresh.returns_in(netns, Snapshot::without_base_tables)
}
