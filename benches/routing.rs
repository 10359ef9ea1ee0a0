//! What the number of routed NICs costs under ROUTING=rule and ROUTING=mark, at 1, 1000 and 5000 NICs: a packet's way from a
//! guest to the uplink, and to set one more NIC up.
//!
//! `cargo bench --bench routing`. In namespaces of its own, as the other benches; believe the ratios, the machine is noisy. Needs
//! a limit of 6000 open files (`ulimit -n`).

mod common;
#[path = "common/ports.rs"]
mod ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{PAUSE, median};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use snf_network::addr::Mac;
use snf_network::frame::{Arp, ArpOperation, Frame, Ip, Message, NeighbourAdvertisement, Packet, multicast_mac};
use snf_network::kernel::address::find;
use snf_network::kernel::guest_port::GuestPort;
use snf_network::kernel::namespace::{Netns, enter_private};

/// How many NICs are there, that of the packets included.
const NICS: [u16; 3] = [1, 1000, 5000];
const WAYS: [&str; 2] = ["rule", "mark"];
/// How often each way is taken at each number.
const ROUNDS: usize = 20;
/// Of packets of one family in a round.
const BATCHES: usize = 15;
/// Packets written before those that arrived are read: what the queue of a TAP holds.
const BATCH: u32 = 128;

const TAP_MAC: Mac = Mac([0xcc, 0x47, 0x52, 0x4e, 0x45, 0x54]);
const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const GATEWAYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1))];
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1))];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What is measured: a batch of IPv4 packets, one of IPv6 packets, ifup and ifdown of one more NIC.
type Times = [Vec<Duration>; 4];

fn main() -> Result<()> {
    enter_private()?;
    let folder = common::folder("bench-routing")?;
    let mut worlds = NICS.iter().map(|nics| World::build(*nics, &folder)).collect::<Result<Vec<_>>>()?;
    let mut times: Vec<[Times; 2]> = worlds.iter().map(|_| Default::default()).collect();
    for round in 0..ROUNDS {
        for (world, times) in worlds.iter_mut().zip(&mut times) {
            for (way, times) in WAYS.iter().zip(times) {
                world.measure(way, times, round == 0)?;
            }
        }
    }
    let medians: Vec<_> = times.into_iter().map(|ways| ways.map(|times| times.map(median))).collect();
    report(&medians);
    Ok(())
}

fn report(medians: &[[[Duration; 4]; 2]]) {
    println!(
        "A small packet from a guest to the uplink, {ROUNDS} alternating rounds of {BATCHES} batches of {BATCH} on one"
    );
    println!(
        "processor; ifup and ifdown of one more NIC, spawn to exit, {ROUNDS} alternating runs. Medians; xN: as against one"
    );
    println!("NIC. The guest's NIC is the last one of as many: the rule by its TAP stands behind all others.");
    print!("{:<5} {:>5}", "", "NICs");
    for column in ["IPv4", "IPv6", "ifup", "ifdown"] {
        print!(" | {column:>8} {:>6}", "xN");
    }
    println!();
    let ratio = |time: Duration, other: Duration| time.as_secs_f64() / other.as_secs_f64();
    for (place, way) in WAYS.iter().enumerate() {
        for (nics, ways) in NICS.iter().zip(medians) {
            print!("{way:<5} {nics:>5}");
            for (column, (time, one)) in ways[place].iter().zip(&medians[0][place]).enumerate() {
                let packets = if column < 2 { BATCH } else { 1 };
                match column {
                    0 | 1 => print!(" | {:>5} ns", (*time / packets).as_nanos()),
                    _ => print!(" | {:>5.2} ms", time.as_secs_f64() * 1e3),
                }
                print!(" {:>6.2}", ratio(*time, *one));
            }
            println!();
        }
    }
}

/// A node with its uplink and its NICs, in a namespace of its own.
struct World {
    namespace: Netns,
    settings: PathBuf,
    uplink: GuestPort,
    guest: GuestPort,
    /// Number of the guest's NIC, and of the one more behind it.
    last: u16,
    /// Frames of the router that say where it is.
    router: [Vec<u8>; 2],
    /// What the guest sends.
    packets: [Vec<u8>; 2],
    _one_more: GuestPort,
    /// The others' interfaces are gone when this is dropped.
    _others: Sender<()>,
}

impl World {
    fn build(nics: u16, folder: &Path) -> Result<Self> {
        let folder = folder.join(nics.to_string());
        std::fs::create_dir(&folder)?;
        let settings = common::settings(&folder)?;
        let namespace = Netns::new()?;
        let (others, guest, one_more, uplink, device) = namespace.run(|| {
            let (others, guest) = (ports::hold((1..nics).map(name))?, ports::open(&name(nics))?);
            let (one_more, uplink) = (ports::open(&name(nics + 1))?, ports::open("eth1")?);
            let device = find(&"eth1".parse()?)?.mac.context("eth1 has no MAC")?;
            Ok((others, guest, one_more, uplink, device))
        })?;
        let world = Self {
            namespace,
            settings,
            uplink,
            guest,
            last: nics,
            router: [announcement4(device)?, announcement6()?],
            packets: [packet(nics, 0)?, packet(nics, 1)?],
            _one_more: one_more,
            _others: others,
        };
        for (gateway, routes) in GATEWAYS.iter().zip(["10.0.0.0/16", "2001:db8:1::/64"]) {
            let gateway = gateway.to_string();
            let words = ["node", "up", "--dev", "eth1", "--table", "100", "--gateway", &gateway, "--routes", routes];
            world.namespace.run(|| common::run(&words, &world.settings, []))?;
        }
        // The others need their rules and marks only, and no announcement.
        world.way("mark")?;
        (1..nics).try_for_each(|number| world.run("ifup", number, &[("MIGRATION_PHASE", "pre")]).map(drop))?;
        Ok(world)
    }

    /// Writes the way of routing into the settings.
    fn way(&self, way: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.settings)?;
        let others = text.lines().filter(|line| !line.starts_with("ROUTING=")).map(|line| format!("{line}\n"));
        std::fs::write(&self.settings, others.chain([format!("ROUTING={way}\n")]).collect::<String>())?;
        Ok(())
    }

    /// One round of one way.
    fn measure(&mut self, way: &str, times: &mut Times, first: bool) -> Result<()> {
        self.way(way)?;
        let last = self.last;
        for (verb, times) in ["ifup", "ifdown"].iter().zip(&mut times[2..]) {
            times.push(self.run(verb, last + 1, &[])?);
            sleep(PAUSE);
        }
        self.run("ifup", last, &[])?;
        sleep(if first { Duration::from_secs(3) } else { PAUSE });
        on_one_processor(true)?;
        for (family, times) in times.iter_mut().take(2).enumerate() {
            for _ in 0..BATCHES {
                times.push(self.batch(family)?);
            }
        }
        on_one_processor(false)
    }

    /// Runs the program for one of the NICs; returns the time it took.
    fn run(&self, verb: &str, number: u16, more: &[(&str, &str)]) -> Result<Duration> {
        let (interface, uuid) = (name(number), number.to_string());
        let (mac, ip, gateways) =
            (mac(number).to_string(), address4(number).to_string(), GATEWAYS.map(|it| it.to_string()));
        let mut variables = vec![
            ("INTERFACE", interface.as_str()),
            ("INTERFACE_UUID", &uuid),
            ("INSTANCE", "web1.example.org"),
            ("MAC", &mac),
            ("MODE", "routed"),
            ("LINK", "100"),
            ("IP", &ip),
            ("NETWORK_SUBNET", "10.0.0.0/16"),
            ("NETWORK_GATEWAY", &gateways[0]),
            ("NETWORK_SUBNET6", "2001:db8:1::/64"),
            ("NETWORK_GATEWAY6", &gateways[1]),
            ("NETWORK_TAGS", "ip-less-routed"),
        ];
        variables.extend(more);
        self.namespace.run(|| common::run(&[verb], &self.settings, variables))
    }

    /// How long a batch of packets takes from the guest into the uplink's queue.
    fn batch(&mut self, family: usize) -> Result<Duration> {
        // The first one makes the node look for the router, which says where it is.
        self.guest.send(&self.packets[family])?;
        self.uplink.send(&self.router[family])?;
        self.expect(family, 1)?;
        let started = Instant::now();
        for _ in 0..BATCH {
            self.guest.send(&self.packets[family])?;
        }
        let taken = started.elapsed();
        self.expect(family, BATCH)?;
        Ok(taken)
    }

    /// Receives the packets of a family this many times, and whatever the kernel itself sends in between.
    fn expect(&mut self, family: usize, times: u32) -> Result<()> {
        // From the addresses on: a router changes what is before them.
        let sent = &self.packets[family][[26, 22][family]..];
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut missing = times;
        while missing > 0 {
            let received = self.uplink.recv(deadline)?;
            ensure!(received.is_some(), "{missing} of {times} packets did not arrive");
            missing -= u32::from(received.is_some_and(|frame| frame.ends_with(sent)));
        }
        Ok(())
    }
}

/// The sender's processor is the one on which the kernel takes the packet to the uplink.
fn on_one_processor(one: bool) -> Result<()> {
    let mut processors = CpuSet::new();
    for processor in 0..if one { 1 } else { CpuSet::count() } {
        processors.set(processor)?;
    }
    sched_setaffinity(Pid::from_raw(0), &processors).context("sched_setaffinity")
}

fn name(number: u16) -> String {
    format!("tap{number}")
}

fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([0xaa, 0, 0, 0, high, low])
}

fn address4(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 0, 128 | high, low)
}

fn address6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0xa800, 0xff, 0xfe00, number)
}

/// A datagram of a NIC to the outside; long enough not to be padded.
fn packet(number: u16, family: usize) -> Result<Vec<u8>> {
    let source = [IpAddr::V4(address4(number)), address6(number).into()][family];
    let message = Message::Udp { source_port: 7, destination_port: 7, data: vec![7; 18] };
    let ip = Ip { source, destination: OUTSIDE[family], hop_limit: 64, message };
    Frame { destination: TAP_MAC, source: mac(number), packet: Packet::Ip(ip) }.encode()
}

fn announcement4(device: Mac) -> Result<Vec<u8>> {
    let (IpAddr::V4(sender), operation) = (GATEWAYS[0], ArpOperation::Reply) else { unreachable!("IPv4") };
    let target = Ipv4Addr::UNSPECIFIED;
    let arp = Arp { operation, sender_mac: ROUTER_MAC, sender, target_mac: device, target };
    Frame { destination: device, source: ROUTER_MAC, packet: Packet::Arp(arp) }.encode()
}

fn announcement6() -> Result<Vec<u8>> {
    let (source, IpAddr::V6(target)) = (GATEWAYS[1], GATEWAYS[1]) else { unreachable!("IPv6") };
    let message = Message::NeighbourAdvertisement(NeighbourAdvertisement {
        target,
        router: true,
        solicited: false,
        override_cache: true,
        target_mac: Some(ROUTER_MAC),
    });
    let ip = Ip { source, destination: ALL_NODES.into(), hop_limit: 255, message };
    Frame { destination: multicast_mac(ALL_NODES), source: ROUTER_MAC, packet: Packet::Ip(ip) }.encode()
}
