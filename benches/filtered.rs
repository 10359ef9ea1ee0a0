//! What the number of NICs on a bridge costs: the time to add one more and to take it away, and a frame's way through the
//! filters, at 1, 100 and 1000 private-filtered NICs (a bridge has at most 1023 ports) and beside as many unfiltered ones.
//!
//! `cargo bench --bench filtered`. In namespaces of its own, as the other bench; believe the ratios, the machine is noisy.

mod common;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use common::{PAUSE, median};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
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
    let build = |filtered: bool| -> Result<Vec<World>> {
        NICS.iter().map(|&nics| World::build(nics, filtered, &folder)).collect()
    };
    let (mut filtered, mut plain) = (build(true)?, build(false)?);
    sleep(QUIET);

    let mut version = Vec::new();
    let mut changes = vec![[const { Vec::new() }; 2]; NICS.len()];
    for _ in 0..RUNS {
        version.push(filtered[0].run("--version", 0)?);
        for (world, times) in filtered.iter().zip(&mut changes) {
            for (verb, times) in ["ifup", "ifdown"].iter().zip(times) {
                times.push(world.run(verb, 0)?);
                sleep(PAUSE);
            }
        }
    }
    let version = median(version);
    let changes: Vec<_> = changes.into_iter().map(|times| times.map(median)).collect();

    let mut worlds: Vec<_> = filtered.iter_mut().chain(&mut plain).collect();
    for world in &worlds {
        world.run("ifup", 0)?;
    }
    sleep(QUIET);
    // The writer's processor is the one on which the kernel takes the frame to the other port.
    let mut processor = CpuSet::new();
    processor.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &processor).context("pin to processor 0")?;
    let mut frames = vec![Vec::new(); worlds.len()];
    for _ in 0..BATCHES {
        for (world, times) in worlds.iter_mut().zip(&mut frames) {
            times.push(world.batch()?);
        }
    }
    let frames: Vec<_> = frames.into_iter().map(|times| median(times) / BATCH).collect();
    report(version, &changes, &frames);
    Ok(())
}

fn report(version: Duration, changes: &[[Duration; 2]], frames: &[Duration]) {
    let ratio = |time: Duration, other: Duration| time.as_secs_f64() / other.as_secs_f64();
    println!(
        "One more private-filtered NIC on a bridge, spawn to exit, {RUNS} alternating runs ('--version': --version's time);"
    );
    println!("a frame from it to another NIC, {BATCHES} alternating batches of {BATCH} on one processor. Medians.");
    print!("{:>5}", "NICs");
    for column in ["ifup", "ifdown"] {
        print!(" | {column:>10} {:>9} {:>11}", "/ 1 NIC", "/ --version");
    }
    println!(" | {:>8} {:>8} {:>10} {:>8} {:>13}", "frame", "/ 1 NIC", "unfiltered", "/ 1 NIC", "/ unfiltered");
    let (filtered, plain) = frames.split_at(NICS.len());
    for (place, (nics, times)) in NICS.iter().zip(changes).enumerate() {
        print!("{nics:>5}");
        for (&time, &with_one) in times.iter().zip(&changes[0]) {
            let milliseconds = time.as_secs_f64() * 1e3;
            print!(" | {milliseconds:>7.2} ms {:>9.2} {:>11.1}", ratio(time, with_one), ratio(time, version));
        }
        let (with, without) = (filtered[place], plain[place]);
        print!(" | {:>5} ns {:>8.2}", with.as_nanos(), ratio(with, filtered[0]));
        print!(" {:>7} ns {:>8.2}", without.as_nanos(), ratio(without, plain[0]));
        println!(" {:>13.2}", ratio(with, without));
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
            Ok((hold(2..=nics)?, open(0)?, open(1)?))
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

/// Makes the interfaces of guests that neither send nor receive. A thread with a table of file descriptors of its own holds
/// them: a thousand of them in ours would be copied and closed by each process that is measured.
fn hold(numbers: impl IntoIterator<Item = u16> + Send + 'static) -> Result<Sender<()>> {
    let ((release, released), (made, result)) = (channel::<()>(), channel());
    spawn(move || {
        let guests = unshare(CloneFlags::CLONE_FILES)
            .context("unshare CLONE_FILES")
            .and_then(|()| numbers.into_iter().map(open).collect::<Result<Vec<_>>>());
        // Until the other end is dropped; nothing is sent.
        if made.send(guests.as_ref().map(drop).map_err(|error| anyhow!("{error:#}"))).is_ok() {
            released.recv().ok();
        }
    });
    result.recv()??;
    Ok(release)
}

fn open(number: u16) -> Result<GuestPort> {
    GuestPort::open(&name(number).parse()?, Mac([2, 0, 0, 0, 3, 0]))
}

fn name(number: u16) -> String {
    format!("tap{number}")
}

fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([0xaa, 0x55, 0x60, 0, high, low])
}
