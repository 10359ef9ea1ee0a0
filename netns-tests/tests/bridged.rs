//! Bridged NICs on this machine's kernel: order, gaps, MAC, MTU, and bridges that will not do.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::card::{Card, who_has};
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::links::{LinkEvent, Links, no_gap};
use crate::harness::nic::Nic;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Node;
use crate::harness::{rounds, until};

pub const TESTS: &[Test] = &[
    ("bridged::comes_and_goes_without_a_gap", comes_and_goes_without_a_gap),
    ("bridged::leaves_the_kernel_as_it_was", leaves_the_kernel_as_it_was),
    ("bridged::the_bridge_follows_no_guest", the_bridge_follows_no_guest),
    ("bridged::moves_to_another_bridge", moves_to_another_bridge),
    ("bridged::has_its_own_mtu_back_where_it_is_routed", has_its_own_mtu_back_where_it_is_routed),
    ("bridged::tags_of_plain_networks_change_nothing", tags_of_plain_networks_change_nothing),
    ("bridged::what_is_no_bridge_is_refused", what_is_no_bridge_is_refused),
    ("bridged::a_full_bridge_says_so", a_full_bridge_says_so),
];

/// An address of the node itself, which no guest on a bridge may reach.
const OF_THE_NODE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A node with bridges `br0` and `br1`, on which the node itself answers nobody, and another guest's port on each.
struct Site {
    node: Node,
    beside: [Card; 2],
}

impl Site {
    fn new() -> Result<Self> {
        let node = Node::alone()?;
        let netns = &node.netns;
        netns.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
        netns.ip(&format!("addr add {OF_THE_NODE}/32 dev lo"))?;
        netns.ip_batch("link add br0 type bridge mcast_snooping 0\nlink add br1 type bridge mcast_snooping 0\n")?;
        let mut beside = Vec::new();
        for (bridge, name) in [("br0", "p0"), ("br1", "p1")] {
            // arp_ignore 8: no answer for any local address.
            netns.set_sysctl(&format!("ipv4/conf/{bridge}/arp_ignore"), "8")?;
            netns.ip(&format!("link set {bridge} up addrgenmode none"))?;
            beside.push(Card::plug(netns, name)?);
            netns.ip(&format!("link set {name} address fe:00:00:00:00:01 up master {bridge}"))?;
        }
        let [first, second] = <[Card; 2]>::try_from(beside).map_err(|_| anyhow::anyhow!("two cards"))?;
        Ok(Self { node, beside: [first, second] })
    }

    fn nic(&self, bridge: &str) -> Nic<'_> {
        self.node.nic("tap0", WEB1).without_network().bridged(bridge)
    }
}

fn comes_and_goes_without_a_gap() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = Card::plug(netns, "tap0")?;
    let links = Links::of(netns)?;
    let question = who_has(OF_THE_NODE);
    let [here, there] = &site.beside;
    let (mut passed, rounds) = (0, rounds(100));
    {
        let _pouring = guest.pour(&[None], &[&question]);
        for _ in 0..rounds {
            // What was on its way when the link went down has been read by the time of the mark.
            there.clear();
            here.clear();
            site.nic("br0").ifup()?.succeeds()?;
            site.nic("br0").ifup()?.succeeds()?;
            site.nic("br0").set("TAGS", "reload").ifup()?.succeeds()?;
            until("a probe", || Ok(!here.so_far().is_empty()))?;
            site.nic("br0").ifdown()?.succeeds()?;
            ensure!(there.arrived(netns)?.is_empty(), "a probe reached the other bridge");
            let arrived = here.arrived(netns)?.len();
            passed += arrived;
            ensure!(here.arrived(netns)?.len() == arrived, "a probe came after ifdown");
            no_gap(&links.heard()?, "tap0")?;
        }
    }
    ensure!(passed > rounds / 2, "only {passed} probes passed");
    // The node itself has never heard the guest: outside a bridge the TAP would have led into it.
    guest.capture().never("ARP, Reply")?;
    netns.ip("link set tap0 up")?;
    guest.send_frame(&question)?;
    guest.capture().expect(&format!("ARP, Reply {OF_THE_NODE}"))?;
    Ok(())
}

fn leaves_the_kernel_as_it_was() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    // Once up, so that it has its queueing discipline.
    netns.ip_batch("link set tap0 mtu 1300 up\nlink set tap0 down\n")?;
    let before = Snapshot::of(netns)?;
    site.nic("br0").ifup()?.succeeds()?;
    let up = Snapshot::of(netns)?;
    ensure!(!before.difference(&up).is_empty(), "ifup changed nothing");
    site.nic("br0").ifup()?.succeeds()?;
    up.returns_in(netns, |state| state)?;
    site.nic("br0").ifdown()?.succeeds()?;
    before.returns_in(netns, |state| state)
}

fn the_bridge_follows_no_guest() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    // The lowest MAC there is, and an MTU below the bridge's.
    netns.ip_batch("link set tap0 address 00:00:00:00:00:02 mtu 1280\nlink set p0 mtu 1450\n")?;
    let links = Links::of(netns)?;
    let mac = netns.mac_of("br0")?;
    for _ in 0..3 {
        site.nic("br0").ifup()?.succeeds()?;
        let link = netns.ip("-o link show dev tap0")?;
        for part in ["mtu 1450 ", "master br0 ", "fe:00:00:00:00:02"] {
            ensure!(link.contains(part), "no {part:?} in {link}");
        }
        site.nic("br0").ifdown()?.succeeds()?;
        let link = netns.ip("-o link show dev tap0")?;
        ensure!(link.contains("mtu 1280 ") && link.contains("00:00:00:00:00:02"), "{link}");
    }
    for event in links.heard()?.iter().filter(|it| it.name == "br0") {
        let shown: Vec<_> = event.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(event.mtu == 1450 && shown.join(":") == mac, "the bridge followed the guest: {event:?}");
    }
    Ok(())
}

fn moves_to_another_bridge() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = Card::plug(netns, "tap0")?;
    netns.ip("link set p1 mtu 1400")?;
    let links = Links::of(netns)?;
    let mac = netns.mac_of("br0")?;
    for _ in 0..3 {
        for (bridge, mtu, hears, silent) in
            [("br0", 1500, &site.beside[0], &site.beside[1]), ("br1", 1400, &site.beside[1], &site.beside[0])]
        {
            site.nic(bridge).ifup()?.succeeds()?;
            let link = netns.ip("-o link show dev tap0")?;
            ensure!(link.contains(&format!("mtu {mtu} ")) && link.contains(&format!("master {bridge} ")), "{link}");
            let number = guest.send(None)?;
            ensure!(hears.arrived(netns)?.contains_key(&number), "{} does not hear the guest on {bridge}", hears.name);
            ensure!(!silent.arrived(netns)?.contains_key(&number), "{} hears the guest on {bridge}", silent.name);
        }
    }
    let heard = links.heard()?;
    no_gap(&heard, "tap0")?;
    let followed = |it: &&LinkEvent| it.name == "br0" && it.mtu != 1500;
    ensure!(!heard.iter().any(|it| followed(&it)), "br0 followed a port that left: {heard:?}");
    ensure!(netns.mac_of("br0")? == mac, "br0 has another MAC");
    // A move that fails leaves the NIC where it was.
    site.nic("br2").ifup()?.fails(&["br2"])?;
    let link = netns.ip("-o link show dev tap0")?;
    ensure!(link.contains("master br1 ") && link.contains(",UP"), "{link}");
    site.nic("br1").ifdown()?.succeeds()?;
    ensure!(!netns.ip("-o link show dev tap0")?.contains("master"), "still in a bridge");
    Ok(())
}

fn has_its_own_mtu_back_where_it_is_routed() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    netns.ip("link set p0 mtu 1400")?;
    for (second, owner) in [(WEB1, "the same instance"), (WEB2, "another one")] {
        site.nic("br0").ifup()?.succeeds()?;
        ensure!(netns.ip("-o link show dev tap0")?.contains("mtu 1400 "));
        site.node.nic("tap0", second).without_network().ifup()?.succeeds()?;
        let link = netns.ip("-o link show dev tap0")?;
        ensure!(link.contains("mtu 1500 ") && !link.contains("master") && link.contains(",UP"), "{owner}: {link}");
        site.node.nic("tap0", second).without_network().ifdown()?.succeeds()?;
    }
    Ok(())
}

fn tags_of_plain_networks_change_nothing() -> Result<()> {
    let site = Site::new()?;
    let _guest = Card::plug(&site.node.netns, "tap0")?;
    let plain = site.nic("br0").run("plan")?.succeeds()?.stdout;
    ensure!(plain.contains("link set dev tap0 master br0"), "{plain}");
    for tags in ["physical-vlan", "bridged", "bridged physical-vlan"] {
        let tagged = site.nic("br0").set("NETWORK_TAGS", tags).run("plan")?.succeeds()?.stdout;
        ensure!(tagged == plain, "{tags}: {tagged}, not {plain}");
    }
    Ok(())
}

fn what_is_no_bridge_is_refused() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = Card::plug(netns, "tap0")?;
    until("the addresses to be settled", || Ok(!netns.ip("-6 addr show")?.contains("tentative")))?;
    let before = Snapshot::of(netns)?;
    for (bridge, part) in [("br7", "there is no such bridge"), ("p0", "is no bridge"), ("lo", "is no bridge")] {
        site.nic(bridge).ifup()?.fails(&["LINK", bridge, part])?;
    }
    site.nic("br0").unset(&["LINK", "BRIDGE"]).ifup()?.fails(&["LINK"])?;
    // No kernel without VLAN filtering, and no bridge that has it off, does what VLAN asks for.
    site.nic("br0").set("VLAN", ".10").ifup()?.fails(&["VLAN .10", "br0"])?;
    before.equals(&Snapshot::of(netns)?)
}

fn a_full_bridge_says_so() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    // br0 has one port; a veth pair makes two.
    let pairs: String = (0..511)
        .map(|n| format!("link add f{n} master br0 type veth peer name g{n}\nlink set g{n} master br0\n"))
        .collect();
    netns.ip_batch(&pairs)?;
    let _guest = Card::plug(netns, "tap0")?;
    site.nic("br0").ifup()?.fails(&["tap0", "master br0", "the bridge is full", "1023"])?;
    let link = netns.ip("-o link show dev tap0")?;
    ensure!(!link.contains("master") && !link.contains(",UP"), "{link}");
    ensure!(!site.node.files.state().join("tap0").exists(), "a record is left");
    netns.ip("link del f0")?;
    site.nic("br0").ifup()?.succeeds()?;
    Ok(())
}
