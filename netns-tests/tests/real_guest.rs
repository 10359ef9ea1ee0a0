//! A real guest, Debian's kernel in QEMU behind a TAP: it sends the frames of the attack tests, and moves between two nodes.

use std::net::Ipv6Addr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::attack::real;
use crate::harness::frame::Mac;
use crate::harness::guest::WEB1;
use crate::harness::nic::Nic;
use crate::harness::ping::Pinging;
use crate::harness::port::{Capture, Port};
use crate::harness::topology::{GATEWAY, GATEWAY6, Node, OUTSIDE, OUTSIDE6, Site, TAP_MAC, Wanted};
use crate::harness::until;
use crate::vm::tenancy::{Image, Tenant};

pub const TESTS: &[Test] = &[
    ("real_guest::attacks_from_an_ip_less_routed_tap", real::from_a_routed_tap),
    ("real_guest::attacks_from_a_private_filtered_port", real::from_a_private_filtered_port),
    ("real_guest::attacks_from_a_strict_filtered_port", real::from_a_strict_filtered_port),
    ("real_guest::moves_from_a_routed_tap_to_another", moves_from_a_routed_tap_to_another),
    ("real_guest::moves_from_a_private_filtered_port_to_another", || moves_from_port_to_port("private-filtered")),
    ("real_guest::moves_from_a_strict_filtered_port_to_another", || moves_from_port_to_port("strict-filtered")),
];

/// The TAP on the node that the guest leaves, and that on the one where it arrives.
const TAPS: [&str; 2] = ["tap0", "tap5"];

/// Ether type of RARP, by which QEMU tells the bridges where a guest has come to.
const RARP: u16 = 0x8035;

/// How many answers show that a guest can be reached.
const ANSWERS: usize = 20;

/// Two nodes, and a router that asks for a neighbour again only after an hour.
fn site(uplink: bool) -> Result<Site> {
    let site = Site::with(Wanted { nodes: 2, uplink, tentative: false })?;
    for family in ["ipv4", "ipv6"] {
        site.router.set_sysctl(&format!("{family}/neigh/lan/base_reachable_time_ms"), "3600000")?;
    }
    Ok(site)
}

fn image(router6: Ipv6Addr) -> Result<Image> {
    let std::net::IpAddr::V4(gateway) = GATEWAY else { anyhow::bail!("{GATEWAY} is no IPv4 address") };
    Image::of(WEB1.mac, &real::addresses(WEB1, gateway, router6))
}

/// A guest that is reached from outside all the time, and goes on with what it does when it moves.
struct Busy<'a> {
    guest: Tenant<'a>,
    pings: [Pinging; 2],
    /// By what it is set up.
    tags: &'a str,
}

impl<'a> Busy<'a> {
    fn start(site: &Site, tags: &'a str, mut guest: Tenant<'a>) -> Result<Self> {
        for address in [GATEWAY, GATEWAY6, OUTSIDE, OUTSIDE6] {
            guest.ping(address)?;
        }
        let [v4, v6] = WEB1.addresses().map(|address| Pinging::start(&site.router, address));
        let busy = Self { guest, pings: [v4?, v6?], tags };
        busy.is_reached()?;
        Ok(busy)
    }

    fn is_reached(&self) -> Result<()> {
        self.pings.iter().try_for_each(|pinging| pinging.goes_on(ANSWERS))
    }

    /// Moves to where it is expected; `then` is what the second node does, and `at_last` the first one.
    fn moves(
        mut self,
        mut there: Tenant<'a>,
        then: impl FnOnce() -> Result<()>,
        at_last: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let (boot, count) = self.guest.ticks()?;
        let still = self.guest.move_to(&there)?;
        then().context("on the second node")?;
        self.is_reached().context("when it has moved")?;
        at_last().context("on the first node")?;
        drop(self.guest);
        let (boot_there, count_there) = there.ticks()?;
        ensure!(boot == boot_there && count < count_there, "{boot} {count} went on as {boot_there} {count_there}");
        for address in [GATEWAY, GATEWAY6, OUTSIDE, OUTSIDE6] {
            there.ping(address)?;
        }
        self.pings
            .iter()
            .try_for_each(|pinging| pinging.goes_on(ANSWERS))
            .context("when its first node is rid of it")?;
        for (family, pinging) in ["IPv4", "IPv6"].into_iter().zip(self.pings) {
            eprintln!("{} guest, moved, stood still for {still} ms: {family}: {}", self.tags, pinging.finish()?);
        }
        Ok(())
    }
}

/// What the router believes of the guest.
fn is_at(site: &Site, mac: Mac) -> Result<bool> {
    let believed = WEB1.addresses().map(|address| site.router.ip(&format!("neigh show {address}")));
    Ok(believed.into_iter().collect::<Result<Vec<_>>>()?.iter().all(|it| it.contains(&format!("lladdr {mac}"))))
}

/// In routed mode Ganeti calls ifup on the target after the migration, and ifdown on the source after that.
fn moves_from_a_routed_tap_to_another() -> Result<()> {
    let site = site(true)?;
    let (first, second) = (&site.node, site.second()?);
    let [here, there] = [(first, TAPS[0]), (second, TAPS[1])].map(|(node, tap)| Port::tap(&node.netns, tap));
    let (here, there) = (here?, there?);
    let wire = site.wire()?;
    first.nic(TAPS[0], WEB1).ifup()?.succeeds()?;
    // When these have passed, nothing speaks for the first node any more.
    wire.expect_count(&format!("{} > {} ARP, Reply {}", first.uplink_mac(), Mac::BROADCAST, WEB1.ip), 3)?;
    wire.expect_count(&format!("IP6 {} > ff02::1: neighbor advertisement", first.uplink_mac().link_local()), 3)?;
    let _nfdhcpd = first.answers_solicitations(TAPS[0], WEB1)?;
    let image = image(TAP_MAC.link_local())?;
    let busy = Busy::start(&site, "ip-less-routed", image.boot(&first.netns, &here)?)?;
    ensure!(is_at(&site, first.uplink_mac())?, "the router does not know the guest");
    let expected = image.expect(&second.netns, &there)?;
    let mut nfdhcpd = None;
    let then = || {
        wire.clear();
        second.nic(TAPS[1], WEB1).set("MIGRATION_PHASE", "post").ifup()?.succeeds()?;
        nfdhcpd = Some(second.answers_solicitations(TAPS[1], WEB1)?);
        until("the router to believe the second node", || is_at(&site, second.uplink_mac()))?;
        never_asked(&wire)
    };
    let at_last = || {
        first.nic(TAPS[0], WEB1).ifdown()?.succeeds()?;
        drop(here);
        Ok(())
    };
    busy.moves(expected, then, at_last)?;
    ensure!(is_at(&site, second.uplink_mac())?, "the router believes something else");
    never_asked(&wire)
}

/// That the router was told where the guest is, and did not ask.
fn never_asked(wire: &Capture) -> Result<()> {
    wire.never(&format!("who-has {} tell {GATEWAY}", WEB1.ip))?;
    wire.never(&format!("neighbor solicitation, who has {}", WEB1.ip6))
}

/// In bridged mode Ganeti calls ifup on the target before the migration; QEMU and the guest tell the bridges where it is.
fn moves_from_port_to_port(tags: &str) -> Result<()> {
    let site = site(false)?;
    let (first, second) = (&site.node, site.second()?);
    // One of the network's, as others do not reach the guest.
    let gateway = Mac([0xaa, 0, 0, 0, 0, 1]);
    site.router.ip(&format!("link set lan address {gateway}"))?;
    for node in [first, second] {
        node.netns.ip_batch(
            "link add br0 type bridge mcast_snooping 0\n\
             link set br0 up addrgenmode none\n\
             link set eth1 up master br0 addrgenmode none\n",
        )?;
    }
    let [here, there] = [(first, TAPS[0]), (second, TAPS[1])].map(|(node, tap)| Port::tap(&node.netns, tap));
    let (here, there) = (here?, there?);
    let nic = |node, tap| bridged(node, tap).set("NETWORK_TAGS", tags);
    nic(first, TAPS[0]).ifup()?.succeeds()?;
    let image = image(gateway.link_local())?;
    let busy = Busy::start(&site, tags, image.boot(&first.netns, &here)?)?;
    nic(second, TAPS[1]).ifup()?.succeeds()?;
    let expected = image.expect(&second.netns, &there)?;
    busy.is_reached().context("while it is expected elsewhere")?;
    let at_last = || {
        nic(first, TAPS[0]).ifdown()?.succeeds()?;
        drop(here);
        Ok(())
    };
    let wire = site.wire()?;
    let then = || {
        wire.expect(&format!("{} > {} ether type 0x{RARP:04x}", WEB1.mac, Mac::BROADCAST))?;
        let ports = site.router.output(Command::new("bridge").args(["fdb", "show", "br", "lan"]))?;
        let port = format!("{} dev node{} ", WEB1.mac, second.number);
        ensure!(ports.contains(&port), "expected {port:?} among the forwarding entries: {ports}");
        Ok(())
    };
    busy.moves(expected, then, at_last)
}

fn bridged<'a>(node: &'a Node, tap: &str) -> Nic<'a> {
    node.nic(tap, WEB1).bridged("br0").set("NETWORK_MAC_PREFIX", "aa:00:00")
}
