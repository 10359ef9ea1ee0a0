//! What the number of NICs on a bridge costs: the time to add one more and to take it away, and a frame's way through the
//! filters, at 1, 100 and 1000 private-filtered NICs (a bridge has at most 1023 ports) and beside as many unfiltered ones.
//!
//! `cargo bench --bench filtered`. In namespaces of its own, as the other bench; believe the ratios, the machine is noisy.

mod common;
#[path = "common/ports.rs"]
mod ports;

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{PAUSE, median};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use snf_network::addr::{IfName, Mac};
use snf_network::kernel::guest_port::GuestPort;
use snf_network::kernel::namespace::{Netns, enter_private};
use snf_network::kernel::topology;

/// How many NICs are there before the one more.
const NICS: [u16; 3] = [1, 100, 1000];
/// Of ifup and ifdown at each number.
const RUNS: usize = 40;
/// Of frames at each number.
const BATCHES: usize = 2000;
/// Frames written before the other guest reads them: what the queue of a TAP and of a packet socket holds.
const BATCH: u32 = 128;
/// Longer than a port's first own frames take (duplicate address detection, multicast listener reports).
const QUIET: Duration = Duration::from_secs(3);
const BRIDGE: &str = "prv0";
/// IEEE 802 Local Experimental Ethertype 1: no protocol of the kernel's.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

fn main() -> Result<()> {
    enter_private()?;
    let folder = common::folder("bench-filtered")?;
    let mut worlds = Vec::new();
    for filtered in [true, false] {
        for nics in NICS {
            worlds.push(World::build(nics, filtered, &folder)?);
        }
    }
    sleep(QUIET);

    let mut version = Vec::new();
    let mut times = vec![[const { Vec::new() }; 3]; worlds.len()];
    for _ in 0..RUNS {
        version.push(worlds[0].run("--version", 0)?);
        for (world, times) in worlds.iter().zip(&mut times) {
            for (verb, times) in ["ifup", "ifdown"].iter().zip(times) {
                times.push(world.run(verb, 0)?);
                sleep(PAUSE);
            }
        }
    }
    for world in &worlds {
        world.run("ifup", 0)?;
    }
    sleep(QUIET);
    // The writer's processor is the one on which the kernel takes the frame to the other port.
    let mut processor = CpuSet::new();
    processor.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &processor).context("pin to processor 0")?;
    for _ in 0..BATCHES {
        for (world, [.., frames]) in worlds.iter_mut().zip(&mut times) {
            frames.push(world.batch()?);
        }
    }
    let medians: Vec<_> = times.into_iter().map(|times| times.map(median)).collect();
    report(median(version), &medians);
    Ok(())
}

/// A row for each number of NICs, with the filters and without; of each world ifup, ifdown and a batch of frames.
fn report(version: Duration, medians: &[[Duration; 3]]) {
    println!(
        "One more NIC on a bridge, spawn to exit, {RUNS} alternating runs; a 60-byte frame from it to another NIC,"
    );
    println!(
        "{BATCHES} alternating batches of {BATCH} on one processor. Medians; xN: as against one NIC, xV: as against --version,"
    );
    println!("xU: as against as many unfiltered NICs.");
    print!("{:<11} {:>5}", "", "NICs");
    for column in ["ifup", "ifdown"] {
        print!(" | {column:>8} {:>5} {:>5} {:>5}", "xN", "xV", "xU");
    }
    println!(" | {:>8} {:>5} {:>5}", "frame", "xN", "xU");
    let ratio = |time: Duration, other: Duration| time.as_secs_f64() / other.as_secs_f64();
    let (filtered, unfiltered) = medians.split_at(NICS.len());
    for (name, rows) in [("filtered", filtered), ("unfiltered", unfiltered)] {
        for (((nics, row), one), without) in NICS.iter().zip(rows).zip(rows.iter().take(1).cycle()).zip(unfiltered) {
            print!("{name:<11} {nics:>5}");
            for verb in 0..2 {
                let (time, one, without) = (row[verb], one[verb], without[verb]);
                print!(" | {:>5.2} ms {:>5.2}", time.as_secs_f64() * 1e3, ratio(time, one));
                print!(" {:>5.2} {:>5.2}", ratio(time, version), ratio(time, without));
            }
            let [.., batch] = row;
            print!(" | {:>5} ns", (*batch / BATCH).as_nanos());
            println!(" {:>5.2} {:>5.2}", ratio(*batch, one[2]), ratio(*batch, without[2]));
        }
    }
}

/// A node with a bridge and NICs on it, in a namespace of its own.
struct World {
    namespace: Netns,
    settings: PathBuf,
    filtered: bool,
    /// The guest of the one more NIC, number 0.
    sender: GuestPort,
    /// That of NIC 1.
    receiver: GuestPort,
    frame: Vec<u8>,
    /// The others' interfaces are gone when this is dropped.
    _others: Sender<()>,
}

impl World {
    /// Sets up a bridge and this many NICs, and makes the interface of the one more.
    fn build(nics: u16, filtered: bool, folder: &Path) -> Result<Self> {
        let folder = folder.join(format!("{}-{nics}", if filtered { "filtered" } else { "plain" }));
        std::fs::create_dir(&folder)?;
        let settings = common::settings(&folder)?;
        let namespace = Netns::new()?;
        let (others, sender, receiver) = namespace.run(|| {
            let bridge: IfName = BRIDGE.parse()?;
            topology::add_bridge(&bridge, Mac([2, 0, 0, 0, 2, 0]))?;
            topology::set_up(&bridge)?;
            Ok((ports::hold((2..=nics).map(name))?, ports::open(&name(0))?, ports::open(&name(1))?))
        })?;
        let mut frame = [mac(1).0, mac(0).0].concat();
        frame.extend(ETHER_TYPE);
        // The shortest that Ethernet has, without the checksum.
        frame.resize(60, 0);
        let world = Self { namespace, settings, filtered, sender, receiver, frame, _others: others };
        (1..=nics).try_for_each(|number| world.run("ifup", number).map(drop))?;
        Ok(world)
    }

    /// Runs the program for one of the NICs; returns the time it took.
    fn run(&self, verb: &str, number: u16) -> Result<Duration> {
        let (interface, uuid, mac) = (name(number), number.to_string(), mac(number).to_string());
        let mut variables = vec![
            ("INTERFACE", interface.as_str()),
            ("INTERFACE_UUID", &uuid),
            ("INSTANCE", "web1.example.org"),
            ("MAC", &mac),
            ("MODE", "bridged"),
            ("LINK", BRIDGE),
        ];
        if self.filtered {
            variables.extend([("NETWORK_TAGS", "private-filtered"), ("NETWORK_MAC_PREFIX", "aa:55:60")]);
        }
        self.namespace.run(|| common::run(&[verb], &self.settings, variables))
    }

    /// How long a batch of frames from NIC 0 to NIC 1 takes, up to the receiver's queue.
    fn batch(&mut self) -> Result<Duration> {
        // The bridge learns where the receiver is, or would flood.
        let mut answer = self.frame.clone();
        answer[..6].copy_from_slice(&mac(0).0);
        answer[6..12].copy_from_slice(&mac(1).0);
        self.receiver.send(&answer)?;
        expect(&mut self.sender, &answer, 1)?;
        let started = Instant::now();
        for _ in 0..BATCH {
            self.sender.send(&self.frame)?;
        }
        let taken = started.elapsed();
        expect(&mut self.receiver, &self.frame, BATCH)?;
        Ok(taken)
    }
}

/// Receives a frame this many times, and whatever the kernel itself sends in between.
fn expect(guest: &mut GuestPort, frame: &[u8], times: u32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut missing = times;
    while missing > 0 {
        let received = guest.recv(deadline)?;
        ensure!(received.is_some(), "{missing} of {times} frames did not arrive");
        missing -= u32::from(received.as_deref() == Some(frame));
    }
    Ok(())
}

fn name(number: u16) -> String {
    format!("tap{number}")
}

fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([0xaa, 0x55, 0x60, 0, high, low])
}
