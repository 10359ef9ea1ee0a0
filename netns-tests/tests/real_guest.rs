//! A real guest, Debian's kernel in QEMU behind a TAP: it speaks with its gateway and a neighbour, and moves to another node while it does.

use anyhow::{Context as _, Result};

use crate::Test;
use crate::harness::frame::Mac;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::netns::Netns;
use crate::harness::nic::Nic;
use crate::harness::port::{Capture, Port};
use crate::harness::topology::{GATEWAY, GATEWAY6, Node, OUTSIDE, Site, Wanted};
use crate::harness::until;
use crate::vm::tenancy::{Image, Tenant};

pub const TESTS: &[Test] = &[
    ("real_guest::moves_to_another_router", moves_to_another_router),
    ("real_guest::moves_to_another_bridge", moves_to_another_bridge),
    ("real_guest::attacks_from_an_ip_less_routed_tap", crate::attack::real::from_a_routed_tap),
    ("real_guest::attacks_from_a_private_filtered_port", crate::attack::real::from_a_private_filtered_port),
    ("real_guest::attacks_from_a_strict_filtered_port", crate::attack::real::from_a_strict_filtered_port),
];

fn image() -> Result<Image> {
    Image::of(
        WEB1.mac,
        &format!(
            "link set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n\
             route add default via {GATEWAY}\nroute add default via {GATEWAY6}\n",
            WEB1.ip, WEB1.ip6
        ),
    )
}

/// Gateway and neighbour answer it, in both families.
fn speaks(guest: &mut Tenant) -> Result<()> {
    for address in [GATEWAY, GATEWAY6, WEB2.ip.into(), WEB2.ip6.into()] {
        guest.does(&format!("ping {address}"))?;
    }
    Ok(())
}

/// Waits until the echo requests of its stream pass here.
fn streams(wire: &Capture, to: std::net::IpAddr) -> Result<()> {
    wire.clear();
    wire.expect_count(&format!("{} > {to}: echo request", WEB1.ip), 3).map(drop)
}

fn lost(name: &str, counted: &str) {
    eprintln!("{name}: {counted}");
}

fn moves_to_another_router() -> Result<()> {
    let image = image()?;
    let site = Site::with(Wanted { nodes: 2, uplink: true, tentative: false })?;
    let (first, second) = (&site.node, site.second()?);
    let _neighbour = first.guest("tap1", WEB2)?;
    let tap = Port::tap(&first.netns, "tap0")?;
    first.nic("tap0", WEB1).ifup()?.succeeds()?;
    let mut guest = image.boot(&first.netns, &tap)?;
    drop(tap);
    speaks(&mut guest)?;
    let wire = site.wire()?;
    guest.does(&format!("stream {OUTSIDE}"))?;
    streams(&wire, OUTSIDE)?;
    let tap = Port::tap(&second.netns, "tap5")?;
    let mut guest = guest.move_to(&second.netns, &tap)?;
    drop(tap);
    until("the TAP of its old node to be gone", || Ok(first.netns.ip("link show dev tap0").is_err()))?;
    first.nic("tap0", WEB1).ifdown()?.succeeds()?;
    wire.clear();
    second.nic("tap5", WEB1).set("MIGRATION_PHASE", "post").ifup()?.succeeds()?;
    let (mac, ip) = (second.uplink_mac(), WEB1.ip);
    wire.expect(&format!("{mac} > {} ARP, Request who-has {ip} tell {ip}", Mac::BROADCAST))?;
    streams(&wire, OUTSIDE)?;
    speaks(&mut guest)?;
    lost("real_guest::moves_to_another_router", &guest.does("end")?);
    Ok(())
}

fn bridged(node: &Node, tap: &str) -> Result<()> {
    let nic: Nic<'_> = node.nic(tap, WEB1).bridged("br0").set("NETWORK_MAC_PREFIX", "aa:00:00");
    nic.set("NETWORK_TAGS", "private-filtered").ifup()?.succeeds().map(drop)
}

fn moves_to_another_bridge() -> Result<()> {
    let image = image()?;
    let [first, second] = [Node::alone()?, Node::alone()?];
    let router = Netns::new()?;
    router.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
    for node in [&first, &second] {
        node.netns.ip("link add br0 type bridge mcast_snooping 0")?;
        node.netns.ip("link set br0 up addrgenmode none")?;
    }
    // In the guests' network by its prefix.
    first.netns.ip_batch(&format!(
        "link add outer type veth peer name lan address aa:00:00:00:00:77 netns {}\n\
         link add other type veth peer name other netns {}\n\
         link set outer up master br0\n\
         link set other up master br0\n",
        router.path(),
        second.netns.path(),
    ))?;
    second.netns.ip("link set other up master br0")?;
    router
        .ip_batch(&format!("addr add {GATEWAY}/24 dev lan\naddr add {GATEWAY6}/64 dev lan nodad\nlink set lan up\n"))?;
    let _neighbour = first.plug("tap1", WEB2)?;
    let nic = first.nic("tap1", WEB2).bridged("br0").set("NETWORK_MAC_PREFIX", "aa:00:00");
    nic.set("NETWORK_TAGS", "private-filtered").ifup()?.succeeds()?;
    let tap = Port::tap(&first.netns, "tap0")?;
    bridged(&first, "tap0")?;
    let mut guest = image.boot(&first.netns, &tap)?;
    drop(tap);
    speaks(&mut guest)?;
    let wire = Capture::on(&router, "lan")?;
    guest.does(&format!("stream {GATEWAY}"))?;
    streams(&wire, GATEWAY)?;
    let tap = Port::tap(&second.netns, "tap5")?;
    bridged(&second, "tap5").context("before its memory moves")?;
    let mut guest = guest.move_to(&second.netns, &tap)?;
    drop(tap);
    streams(&wire, GATEWAY)?;
    speaks(&mut guest)?;
    lost("real_guest::moves_to_another_bridge", &guest.does("end")?);
    Ok(())
}
