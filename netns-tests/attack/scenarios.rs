//! What takes more than one row: the spanning tree, the seed's own rules and what they leave open, other people's tables,
//! br_netfilter, the way out through the management network.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::context::{ATTACKER, FOREIGN_MAC, ROUTER, STRANGER, VICTIM};
use super::frames::{self, from};
use super::testbed::{Bridged, Families, Ground};
use crate::harness::frame::{self, Mac};
use crate::harness::guest::Identity;
use crate::harness::port::Port;
use crate::harness::topology::{MANAGEMENT, MANAGEMENT6, OUTSIDE, OUTSIDE6};

/// A datagram to everybody, under some MAC.
fn shout(source: Mac, id: Identity) -> Vec<u8> {
    let packet = frame::udp((id.ip.into(), 7), (std::net::Ipv4Addr::BROADCAST.into(), 7), b"shouted");
    frames::packet(Mac::BROADCAST, source, &packet)
}

impl Ground {
    /// The seed's rules for a TAP, as its `ebtables` commands have them; `hooks` leaves some out.
    fn seed_rules(&self, tap: &str, id: Identity, hooks: &[(&str, &str, &str)]) -> Result<()> {
        let n = &tap[3..];
        let mut lines = vec![
            format!("-N FROMTAP{n}"),
            format!("-N TOTAP{n}"),
            format!("-A FROMTAP{n} -s ! {} -j DROP", id.mac),
            format!("-A TOTAP{n} -s ! aa:55:60:0:0:0/ff:ff:f0:0:0:0 -j DROP"),
        ];
        lines.extend(hooks.iter().map(|(hook, way, chain)| format!("-A {hook} {way} {tap} -j {chain}{n}")));
        for line in lines {
            self.ebtables(&line)?;
        }
        Ok(())
    }

    fn ebtables(&self, line: &str) -> Result<String> {
        let mut command = Command::new("ebtables-nft");
        self.node.netns.output(command.args(["-t", "filter"]).args(line.split(' ')))
    }
}

const FORWARD: [(&str, &str, &str); 2] = [("FORWARD", "-i", "FROMTAP"), ("FORWARD", "-o", "TOTAP")];
const ALL_HOOKS: [(&str, &str, &str); 4] =
    [("INPUT", "-i", "FROMTAP"), ("OUTPUT", "-o", "TOTAP"), ("FORWARD", "-i", "FROMTAP"), ("FORWARD", "-o", "TOTAP")];

/// The seed: "Applying those rules only in FORWARD chain will not guarantee isolation", because what the node itself sends
/// to a TAP goes through OUTPUT, and what it receives through INPUT.
pub fn forward_alone_does_not_isolate() -> Result<()> {
    let node_shouts = |ground: &Ground| -> Result<bool> {
        ground.teach()?;
        ground.empty();
        let frames = [
            shout(ground.context.node.mac, ground.context.node),
            frames::packet(
                Mac::of_group(frame::ALL_NODES),
                ground.context.node.mac,
                &frames::echo6(ground.context.node.ip6, frame::ALL_NODES),
            ),
        ];
        let port = Port::packet(&ground.node.netns, "br0", false)?;
        for frame in &frames {
            port.send(frame)?;
        }
        let seen = frames.iter().map(|frame| ground.arrived(std::slice::from_ref(frame)).contains('V'));
        Ok(seen.collect::<Vec<_>>().contains(&true))
    };
    let seed = Ground::bridged(Bridged::Plain, Families::Both)?;
    for (tap, id) in [("tap0", ATTACKER), ("tap1", VICTIM)] {
        seed.seed_rules(tap, id, &FORWARD)?;
    }
    ensure!(node_shouts(&seed)?, "with FORWARD alone the node's own multicast must reach the TAP");
    seed.ebtables("-A OUTPUT -o tap1 -j TOTAP1")?;
    ensure!(!node_shouts(&seed)?, "with OUTPUT it must not");
    // What a guest sends to everybody reaches the node's own stack without passing FORWARD.
    let forged = [shout(FOREIGN_MAC, ATTACKER)];
    ensure!(seed.attack(&forged)? == "B", "with FORWARD alone a forged broadcast must reach the node");
    seed.ebtables("-A INPUT -i tap0 -j FROMTAP0")?;
    ensure!(seed.attack(&forged)?.is_empty(), "with INPUT it must not");

    let ours = Ground::bridged(Bridged::Filtered, Families::Both)?;
    ensure!(!node_shouts(&ours)?, "the node's own multicast reaches a private-filtered TAP");
    ensure!(ours.attack(&forged)?.is_empty(), "a forged broadcast of a private-filtered TAP reaches something");
    Ok(())
}

/// The bridge learns from a frame before FORWARD and INPUT see it: all eight rules of the seed drop the forged frame, and
/// still the next frame to the victim goes to the attacker.
pub fn theft_of_a_forwarding_entry() -> Result<()> {
    let forged = |id: Identity| [shout(id.mac, ATTACKER)];
    let seed = Ground::bridged(Bridged::Plain, Families::Both)?;
    for (tap, id) in [("tap0", ATTACKER), ("tap1", VICTIM)] {
        seed.seed_rules(tap, id, &ALL_HOOKS)?;
    }
    let ours = Ground::bridged(Bridged::Filtered, Families::Both)?;
    for id in [VICTIM, ROUTER] {
        let seen = seed.attack(&forged(id))?;
        ensure!(seen == "T", "under the seed's rules, as {}: seen {seen:?}", id.name);
        let seen = ours.attack(&forged(id))?;
        ensure!(seen.is_empty(), "under ours, as {}: seen {seen:?}", id.name);
    }
    Ok(())
}

/// What the old scripts left in `table bridge filter` neither breaks us nor is touched.
pub fn leftovers_of_ebtables() -> Result<()> {
    let ground = Ground::bridge()?;
    // Of an instance that is gone: another MAC on the TAP that now is the attacker's.
    let gone = Identity { mac: Mac([0xaa, 0x55, 0x60, 0, 0, 0x99]), ..ATTACKER };
    ground.seed_rules("tap7", gone, &ALL_HOOKS)?;
    ground.seed_rules("tap0", ATTACKER, &ALL_HOOKS)?;
    let list = || ground.node.netns.output(Command::new("nft").args(["-s", "list", "table", "bridge", "filter"]));
    let before = list()?;
    for (tap, id) in [("tap0", ATTACKER), ("tap1", VICTIM), ("tap2", STRANGER)] {
        ground.nic(tap, id, Bridged::Filtered).ifup()?.succeeds()?;
        ground.nic(tap, id, Bridged::Filtered).ifup()?.succeeds()?;
    }
    let own = ground.context.to_victim(&ground.context.ping(ATTACKER.ip));
    ensure!(ground.attack(std::slice::from_ref(&own))? == "V", "what is the guest's own does not arrive");
    let seen = ground.attack(&[from(VICTIM.mac, own)])?;
    ensure!(seen.is_empty(), "forged: seen {seen:?}");
    ground.nic("tap0", ATTACKER, Bridged::Filtered).ifdown()?.succeeds()?;
    ensure!(list()? == before, "table bridge filter changed:\n{before}\n{}", list()?);
    Ok(())
}

/// The number of the port by which the bridge reaches the root of its spanning tree; 0 if it is the root itself.
fn root_port(ground: &Ground) -> Result<String> {
    let text = ground.node.netns.ip("-d link show dev br0")?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "root_port");
    words.nth(1).map(str::to_owned).context("no root_port")
}

/// A guest that says it is the root of the spanning tree gets all that crosses the bridges of the site.
pub fn spanning_tree() -> Result<()> {
    let bpdus = |ground: &Ground| {
        let own = frames::bpdu(ground.context.me.mac);
        [own.clone(), from(FOREIGN_MAC, own.clone()), frames::tagged(&own, &[(frames::VLAN, 0)])]
    };
    for (setup, believed) in
        [(Bridged::Plain, true), (Bridged::Filtered, false), (Bridged::Strict, false), (Bridged::StrictFiltered, false)]
    {
        for which in 0..3 {
            let ground = Ground::bridge()?;
            ground.node.netns.ip("link set br0 type bridge stp_state 1 forward_delay 200")?;
            ground.nic("tap0", ATTACKER, setup).ifup()?.succeeds()?;
            ensure!(root_port(&ground)? == "0", "{setup:?}: the bridge was not the root");
            ground.attacker.send(&bpdus(&ground)[which])?;
            let now = root_port(&ground)?;
            ensure!((now != "0") == believed, "{setup:?}: BPDU {which} made port {now} the way to the root");
        }
    }
    Ok(())
}

/// A gateway that is known by a link-local address of no MAC is not impersonated either.
pub fn link_local_gateway() -> Result<()> {
    let gateway = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x21, 1);
    let ground = Ground::bridged(Bridged::Strict, Families::Both)?;
    let victim = VICTIM.mac.link_local();
    let tries = |ground: &Ground| {
        let c = &ground.context;
        [
            [c.to_victim(&frames::echo6(gateway, victim))],
            [c.to_victim(&frames::advertisement(c.me.ip6, VICTIM.ip6, 0x60, gateway, &[c.me.mac]))],
        ]
    };
    for (number, frame) in tries(&ground).iter().enumerate() {
        // As long as nobody says whose it is, it may be the guest's own.
        let seen = ground.attack(frame)?;
        ensure!(seen == "V", "{number} of an unknown address: seen {seen:?}");
    }
    let known = |ground: &Ground, by: &str| -> Result<()> {
        for (number, frame) in tries(ground).iter().enumerate() {
            let seen = ground.attack(frame)?;
            ensure!(seen.is_empty(), "{number} as a router by {by}: seen {seen:?}");
        }
        Ok(())
    };
    ground.nic("tap0", ATTACKER, Bridged::Strict).set("NETWORK_GATEWAY6", gateway).ifup()?.succeeds()?;
    known(&ground, "NETWORK_GATEWAY6")?;
    ground.node.files.set(&format!("ROUTER_LINK_LOCAL='fe80::21:2 {gateway}'"))?;
    ground.nic("tap0", ATTACKER, Bridged::Strict).ifup()?.succeeds()?;
    known(&ground, "ROUTER_LINK_LOCAL")
}

/// Where guests may not choose, the link-local address of the MAC is the only one.
pub fn link_local_addresses_of_macs_alone() -> Result<()> {
    let ground = Ground::bridged(Bridged::Strict, Families::Both)?;
    let c = &ground.context;
    let (own, victim) = (c.me.mac.link_local(), VICTIM.mac.link_local());
    let tries = |address| {
        let claim = frames::advertisement(address, victim, 0x60, address, &[c.me.mac]);
        [[c.to_victim(&frames::echo6(address, victim))], [c.to_victim(&claim)]]
    };
    for chosen in ["V", ""] {
        for frame in tries(own) {
            let seen = ground.attack(&frame)?;
            ensure!(seen == "V", "that of the MAC: seen {seen:?}");
        }
        for frame in tries(c.private) {
            let seen = ground.attack(&frame)?;
            ensure!(seen == chosen, "a chosen one: seen {seen:?}, expected {chosen:?}");
        }
        ground.node.files.set("GUEST_LINK_LOCAL=eui64")?;
        ground.nic("tap0", ATTACKER, Bridged::Strict).ifup()?.succeeds()?;
    }
    Ok(())
}

/// No guest tells the node where to send: with the filters gone, and a node that does not forward and so would listen, the
/// settings of the TAP alone keep it from believing router advertisements.
pub fn node_believes_no_router_advertisement() -> Result<()> {
    let ground = Ground::routed_unfiltered()?;
    let c = &ground.context;
    let netns = &ground.node.netns;
    for name in ["all", "tap0"] {
        netns.set_sysctl(&format!("ipv6/conf/{name}/forwarding"), "0")?;
    }
    let packet = frames::router_advertisement(c.me.mac.link_local(), frame::ALL_NODES, c.me.mac);
    let learned = || -> Result<bool> {
        ground.attacker.send(&c.to_group(&packet))?;
        Ok(!netns.ip("-6 route show proto ra")?.trim().is_empty())
    };
    ensure!(!learned()?, "the node took a route from a guest");
    netns.set_sysctl("ipv6/conf/tap0/accept_ra", "1")?;
    ensure!(learned()?, "without the setting it would have to");
    Ok(())
}

/// A routed guest's packets leave by the uplink of its table or not at all.
pub fn no_way_to_the_management_network() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    let c = &ground.context;
    let tries = [MANAGEMENT.into(), MANAGEMENT6.into(), OUTSIDE, OUTSIDE6].map(|to: std::net::IpAddr| {
        let packet = frame::echo_request(c.me.address_like(to), to, 0x5eed, 1);
        (to, [c.to_gateway(&packet)])
    });
    for (to, frame) in &tries {
        let seen = ground.attack(frame)?;
        ensure!(seen == "U", "to {to}: seen {seen:?}");
    }
    for down in ["link set eth1 down", "link del eth1"] {
        ground.node.netns.ip(down)?;
        for (to, frame) in &tries {
            let seen = ground.attack(frame)?;
            ensure!(seen.is_empty(), "to {to} after {down}: seen {seen:?}");
        }
    }
    // Without the rules that lead its packets all of it would have gone there; so would what is for the gateway itself.
    ground.node.netns.delete_rules(&["iif tap0", "fwmark"])?;
    for (to, frame) in &tries {
        let seen = ground.attack(frame)?;
        ensure!(seen == "M", "to {to} without the rule: seen {seen:?}");
    }
    Ok(())
}
