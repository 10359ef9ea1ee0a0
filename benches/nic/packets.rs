//! The packet's way: what the node takes for one small UDP packet, out of a guest and in to it, with other NICs present.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use snf_network::addr::{Family, IfName, Mac};
use snf_network::kernel::packet::{Direction, PacketSocket};
use snf_network::kernel::topology;

use super::Wanted;
use super::binaries::Binaries;
use super::latency::{PAUSE, sh};
use super::runs::Sample;
use super::seed::{self, Phantoms};
use super::world::{GATEWAY, GATEWAY6, Number, ROUTER_MAC, Setup, UPLINK_MAC, World, feed, ip};

/// Packets sent before the other side reads them: what the queue of a TAP and of a packet socket holds.
const BATCH: u32 = 128;
/// Rows of rules in one go.
const PIECE: usize = 200;
/// A guest's router, whatever the node.
const TAP_MAC: &str = "cc:47:52:4e:45:54";
/// Beyond the router.
const OUTSIDE: [u8; 4] = [198, 51, 100, 1];
/// And of IPv6.
const OUTSIDE6: &str = "2001:db8:ffff::1";

/// Out and in, IPv4 and IPv6.
pub const WAYS: [(&str, Family, bool); 4] = [
    ("IPv4 out", Family::V4, true),
    ("IPv4 in", Family::V4, false),
    ("IPv6 out", Family::V6, true),
    ("IPv6 in", Family::V6, false),
];

/// What was measured of one setup by one means.
pub struct Ways {
    /// Which setup.
    pub setup: Setup,
    /// snf-network's, or the seed's.
    pub means: &'static str,
    /// NICs present, and of each of [`WAYS`] the time of one packet.
    pub rows: Vec<(u16, [Duration; 4])>,
}

/// A world whose NIC 0 is up, and the socket at the far end of its wire.
struct Ground<'a> {
    world: &'a mut World,
    far: PacketSocket,
    far_index: u32,
    samples: [Sample; 4],
}

/// Measures the worlds of one setup, batches of all of them in turn, and as many of the seed's.
///
/// # Errors
/// If anything fails, or a packet does not arrive.
pub fn measure(
    setup: Setup,
    worlds: &mut [World],
    wanted: &Wanted,
    folder: &Path,
    binaries: &Binaries,
) -> Result<Vec<Ways>> {
    let folder = folder.join(format!("packets-{}", setup.name()));
    for world in worlds.iter() {
        world.program(binaries, "ifup", Number(0)).run()?;
    }
    let mut seeds = Vec::new();
    let compared = if seed::commands(setup, Number(0)).is_some() { wanted.nics.as_slice() } else { &[] };
    for &nics in compared {
        eprintln!("{}: the seed's rules of {nics} NICs", setup.name());
        seeds.push(seed_world(setup, nics, &folder.join(nics.to_string()))?);
    }
    let mut grounds = Vec::new();
    for world in worlds.iter_mut().chain(&mut seeds) {
        grounds.push(Ground::new(world)?);
    }
    // Longer than the announcements are repeated, and duplicate addresses looked for.
    sleep(Duration::from_secs(3));
    for ground in &mut grounds {
        for way in WAYS {
            ground
                .batch(way, true)
                .with_context(|| format!("{}: {} NICs: {}", setup.name(), ground.world.nics, way.0))?;
        }
    }
    for _ in 0..wanted.batches {
        for ground in &mut grounds {
            for (place, way) in WAYS.into_iter().enumerate() {
                let taken = ground.batch(way, false)?;
                ground.samples[place].push_time(taken / BATCH);
            }
        }
    }
    let rows = |grounds: &[Ground]| {
        grounds.iter().map(|it| (it.world.nics, it.samples.each_ref().map(Sample::median))).collect::<Vec<_>>()
    };
    let (ours, theirs) = grounds.split_at(wanted.nics.len());
    let (ours, theirs) = (rows(ours), rows(theirs));
    drop(grounds);
    for world in worlds.iter() {
        world.program(binaries, "ifdown", Number(0)).run()?;
        sleep(PAUSE);
    }
    let mut ways = vec![Ways { setup, means: "snf-network", rows: ours }];
    if !theirs.is_empty() {
        ways.push(Ways { setup, means: "the seed's rules", rows: theirs });
    }
    Ok(ways)
}

/// A node with the seed's rules of NIC 0, and those of as many others whose TAPs are not there.
fn seed_world(setup: Setup, nics: u16, folder: &Path) -> Result<World> {
    let world = World::without_nics(setup, nics, folder)?;
    let scripts = seed::commands(setup, Number(0)).context("no commands of the seed")?;
    let Phantoms { ip: rules, iptables, ebtables } = seed::phantoms(setup, nics);
    if setup.is_routed() {
        let via = |gateway| {
            format!("route add default via {gateway} dev eth1 onlink table 100\nrule add iif eth1 table 100\n")
        };
        ip(&world.namespace, &via(GATEWAY))?;
        for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            sh(&world, &format!("echo 1 > /proc/sys/net/{sysctl}")).run()?;
        }
        feed(&world.namespace, &["ip", "-6", "-batch", "-"], &via(GATEWAY6))?;
        for (family, restore, rows) in
            [("-4", "iptables-restore", &iptables[0]), ("-6", "ip6tables-restore", &iptables[1])]
        {
            feed(&world.namespace, &["ip", family, "-batch", "-"], &rules)?;
            feed_rows(&world, &[restore, "-n"], "*mangle", rows)?;
        }
    } else {
        feed_rows(&world, &["ebtables-restore", "--noflush"], "*filter", &ebtables)?;
    }
    sh(&world, &scripts.base).run()?;
    sh(&world, &scripts.up).run()?;
    Ok(world)
}

/// Hands rows to a restoring tool in pieces that its socket takes in a user namespace.
fn feed_rows(world: &World, words: &[&str], table: &str, rows: &str) -> Result<()> {
    let rows: Vec<_> = rows.lines().collect();
    for piece in rows.chunks(PIECE) {
        feed(&world.namespace, words, &format!("{table}\n{}\nCOMMIT\n", piece.join("\n")))?;
    }
    Ok(())
}

impl<'a> Ground<'a> {
    fn new(world: &'a mut World) -> Result<Self> {
        let nic = Number(0);
        let far: IfName = "lan".parse()?;
        if world.setup.is_routed() {
            let line = |address: &str, mac: &str, device: &str| {
                format!("neigh replace {address} lladdr {mac} dev {device} nud permanent\n")
            };
            let (tap, mac) = (nic.tap(), nic.mac().to_string());
            let mut lines: String = [GATEWAY, GATEWAY6].iter().map(|it| line(it, ROUTER_MAC, "eth1")).collect();
            lines.extend([nic.address(), nic.address6()].iter().map(|it| line(it, &mac, &tap)));
            ip(&world.namespace, &lines)?;
        } else {
            let near: IfName = "eth1".parse()?;
            world
                .namespace
                .run(|| topology::add_veth((&near, UPLINK_MAC.parse()?), (&far, ROUTER_MAC.parse()?), &world.router))?;
            ip(&world.namespace, &format!("link set eth1 master {} up\n", nic.bridge()))?;
            ip(&world.router, "link set lan up\n")?;
        }
        let (far, far_index) = world.router.run(|| {
            let index = if_nametoindex("lan")?;
            Ok((PacketSocket::sender()?, index))
        })?;
        Ok(Self { world, far, far_index, samples: Default::default() })
    }

    /// Sends a batch and returns what that took, up to the queue of whoever receives; `heard`: out of a guest, too, each is
    /// looked for at the other side.
    fn batch(&mut self, (_, family, out): (&str, Family, bool), heard: bool) -> Result<Duration> {
        let frame = self.frame(family, out)?;
        let listener =
            (out && heard).then(|| self.world.router.run(|| PacketSocket::listener(self.far_index))).transpose()?;
        let started = Instant::now();
        for _ in 0..BATCH {
            if out {
                self.world.guest.send(&frame)?;
            } else {
                self.far.send(self.far_index, &frame)?;
            }
        }
        let taken = started.elapsed();
        let deadline = Instant::now() + Duration::from_secs(2);
        // What a router changes lies before: MACs, hop limit, checksum.
        let mut missing = if out && listener.is_none() { 0 } else { BATCH };
        while missing > 0 {
            let received = match &listener {
                Some(listener) => listener.recv(deadline)?.map(|(way, frame)| (way == Direction::In, frame)),
                None => self.world.guest.recv(deadline)?.map(|frame| (true, frame)),
            };
            let (inward, received) =
                received.with_context(|| format!("{missing} of {BATCH} packets did not arrive"))?;
            missing -= u32::from(inward && received.len() >= frame.len() && received[26..frame.len()] == frame[26..]);
        }
        Ok(taken)
    }

    /// An Ethernet frame with 18 bytes of UDP payload.
    fn frame(&self, family: Family, out: bool) -> Result<Vec<u8>> {
        let nic = Number(0);
        let routed = self.world.setup.is_routed();
        let (to, from): (Mac, Mac) = match (routed, out) {
            (true, true) => (TAP_MAC.parse()?, nic.mac()),
            (true, false) => (UPLINK_MAC.parse()?, ROUTER_MAC.parse()?),
            // To and from another guest of the same network, on another node.
            (false, true) => (Number(9999).mac(), nic.mac()),
            (false, false) => (nic.mac(), Number(9999).mac()),
        };
        let mut frame = [to.0, from.0].concat();
        let udp = [0x10, 0x00, 0x20, 0x00, 0, 26, 0, 0];
        match family {
            Family::V4 => {
                let guest: std::net::Ipv4Addr = nic.address().parse()?;
                let (source, destination) = if out { (guest.octets(), OUTSIDE) } else { (OUTSIDE, guest.octets()) };
                let mut header = [&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0][..], &source, &destination].concat();
                let sum: u32 = header.chunks(2).map(|it| u32::from(u16::from_be_bytes([it[0], it[1]]))).sum();
                let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
                header[10..12].copy_from_slice(&folded.to_be_bytes());
                frame.extend([0x08, 0x00]);
                frame.extend(header);
            }
            Family::V6 => {
                let (guest, outside): (std::net::Ipv6Addr, std::net::Ipv6Addr) =
                    (nic.address6().parse()?, OUTSIDE6.parse()?);
                let (source, destination) = if out { (guest, outside) } else { (outside, guest) };
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, 17, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
        }
        frame.extend(udp);
        frame.extend([0x5a; 18]);
        ensure!(frame.len() >= 60, "a short frame");
        Ok(frame)
    }
}
