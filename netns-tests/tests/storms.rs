//! Storms: 64 runs at once for 500 NICs, whose TAPs vanish underneath, while another program changes the same kernel, and
//! reconcile and gc run. At the end nothing is lost and nothing is left.
//!
//! Whether two transactions of nf_tables, or a dump and a change, meet is up to the scheduler: that they do in a given run is
//! likely, not certain.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::Test;
use crate::harness::frame::Mac;
use crate::harness::guest::Identity;
use crate::harness::nic::Nic;
use crate::harness::port::Port;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, Site};
use crate::harness::until;

pub const TESTS: &[Test] = &[("storms::five_hundred_nics", five_hundred_nics)];

const NICS: usize = 500;
const AT_ONCE: usize = 64;
const RUNS: usize = 1000;
/// Of what is chosen at random: the same choices in every run.
const SEED: u64 = 0x5eed_0001;

/// splitmix64 of Steele, Lea and Flood: the nth number of a sequence.
fn random(n: usize) -> u64 {
    let mut z = SEED.wrapping_add((n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Below `bound`.
fn chosen(n: usize, bound: usize) -> usize {
    usize::try_from(random(n) % bound as u64).unwrap_or(0)
}

/// A TAP as the test makes and destroys it.
#[derive(Default)]
struct Tap {
    port: Mutex<Option<Port>>,
    /// Whether it is whole: made, and not about to go.
    there: AtomicBool,
    /// How often it began to go.
    gone: AtomicUsize,
}

impl Tap {
    /// What tells later whether it was there all the time since.
    fn watched(&self) -> (bool, usize) {
        let gone = self.gone.load(SeqCst);
        (self.there.load(SeqCst), gone)
    }

    /// Whether it was not there at some time since then.
    fn vanished_since(&self, (there, gone): (bool, usize)) -> bool {
        !there || self.gone.load(SeqCst) != gone
    }
}

struct Storm<'a> {
    node: &'a Node,
    taps: Vec<Tap>,
}

impl Storm<'_> {
    fn name(place: usize) -> String {
        format!("tap{place}")
    }

    fn nic(&self, place: usize) -> Nic<'_> {
        let [high, low] = [place / 250, place % 250 + 2].map(|it| u8::try_from(it).unwrap_or(u8::MAX));
        let ip = Ipv4Addr::new(10, 0, high, low);
        let id = Identity {
            name: "web.example.org",
            mac: Mac([0xaa, 0, 0, 1, high, low]),
            ip,
            // Its stack is never asked.
            ip6: std::net::Ipv6Addr::UNSPECIFIED,
        };
        self.node
            .nic(&Self::name(place), id)
            .set("NETWORK_TAGS", "ip-less-routed nfdhcpd")
            .set("NETWORK_SUBNET", "10.0.0.0/16")
            .set("INSTANCE", format!("web{place}.example.org"))
            .set("INTERFACE_UUID", format!("0c2a1a4e-0000-4000-8000-{place:012}"))
    }

    fn plug(&self, place: usize) -> Result<()> {
        let tap = &self.taps[place];
        let mut port = tap.port.lock().unwrap_or_else(PoisonError::into_inner);
        if port.is_none() {
            *port = Some(Port::tap(&self.node.netns, &Self::name(place))?);
            tap.there.store(true, SeqCst);
        }
        Ok(())
    }

    fn unplug(&self, place: usize) -> Result<()> {
        let tap = &self.taps[place];
        let mut port = tap.port.lock().unwrap_or_else(PoisonError::into_inner);
        tap.there.store(false, SeqCst);
        tap.gone.fetch_add(1, SeqCst);
        drop(port.take());
        // A program that is just being started has it too, for a moment.
        let name = Self::name(place);
        let there = || nix::net::if_::if_nametoindex(name.as_str()).is_ok();
        until(&format!("{name} to be gone"), || Ok(!self.node.netns.run(there)))
    }

    /// Runs a verb for a NIC: it does what it should, or says in one line that the TAP vanished meanwhile, if it did.
    fn run(&self, place: usize, verb: &str) -> Result<()> {
        let before = self.taps[place].watched();
        let outcome = self.nic(place).run(verb)?;
        if outcome.code == Some(0) {
            return Ok(());
        }
        ensure!(self.taps[place].vanished_since(before), "its TAP was there all the time: {outcome:?}");
        // ENOENT is the word of /proc for a device that is gone.
        let gone = ["there is no such interface", "it is not there", "(os error 2)", "(os error 19)", "ENODEV"];
        ensure!(gone.iter().any(|part| outcome.stderr.contains(part)), "{outcome:?}");
        outcome.fails(&[&format!("{verb} {}: ", Self::name(place))]).map(|_| ())
    }

    /// Runs reconcile or gc: it does what it should, or names nothing but TAPs that vanished meanwhile.
    fn tool(&self, verb: &str) -> Result<()> {
        let before: Vec<_> = self.taps.iter().map(Tap::watched).collect();
        let outcome = self.node.files.run(&self.node.netns, &[verb], "")?;
        if outcome.code == Some(0) {
            return Ok(());
        }
        let named: BTreeSet<_> = outcome
            .stderr
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter_map(|word| word.strip_prefix("tap")?.parse::<usize>().ok())
            .collect();
        ensure!(!named.is_empty(), "it failed, and at no TAP: {outcome:?}");
        for place in named {
            let tap = self.taps.get(place).with_context(|| format!("tap{place}: {outcome:?}"))?;
            ensure!(tap.vanished_since(before[place]), "tap{place} was there all the time: {outcome:?}");
        }
        outcome.fails(&[]).map(|_| ())
    }

    /// Does all of these, `AT_ONCE` at once; the first error of any counts.
    fn at_once(&self, count: usize, act: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Relaxed);
                        if n >= count {
                            return;
                        }
                        if let Err(error) = act(n) {
                            next.store(count, Relaxed);
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.get_or_insert(error.context(format!("seed {SEED:#x}, act {n}")));
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Runs something again and again until told to stop; says how often.
fn repeated(stop: &AtomicBool, mut act: impl FnMut(usize) -> Result<()>) -> Result<usize> {
    for n in 0.. {
        if stop.load(Relaxed) {
            return Ok(n);
        }
        act(n)?;
    }
    Ok(0)
}

fn five_hundred_nics() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let fresh = Snapshot::of(netns)?;
    let storm = Storm { node, taps: (0..NICS).map(|_| Tap::default()).collect() };
    (0..NICS).try_for_each(|place| storm.plug(place))?;
    let tool = |verb: &str| node.files.run(netns, &[verb], "");
    let stop = AtomicBool::new(false);
    let (stormed, others) = thread::scope(|scope| {
        let ruleset = scope.spawn(|| {
            repeated(&stop, |n| {
                let text = format!(
                    "add table inet other\nadd chain inet other c{n}\nadd set inet other s {{ type ifname; }}\n\
                     add element inet other s {{ \"x{n}\" }}\ndelete table inet other\n"
                );
                netns.fed(Command::new("nft").args(["-f", "-"]), &text).map(|_| ())
            })
        });
        let routes = scope.spawn(|| {
            repeated(&stop, |_| {
                netns.ip_batch(
                    "link add other type veth peer name another\nroute add unreachable 203.0.113.0/24 table 999\n\
                     rule add pref 30000 lookup 999\nrule del pref 30000\nroute del unreachable 203.0.113.0/24 table 999\n\
                     link del other\n",
                )
            })
        });
        let tools = scope.spawn(|| repeated(&stop, |n| storm.tool(if n % 2 == 0 { "reconcile" } else { "gc" })));
        let stormed = storm.at_once(RUNS, |n| {
            // A third of them share a few TAPs.
            let place = if n % 3 == 0 { chosen(n, 8) } else { chosen(n, NICS) };
            match chosen(RUNS + n, 8) {
                0..4 => storm.run(place, "ifup"),
                4..6 => storm.run(place, "ifdown"),
                6 => storm.unplug(place),
                _ => storm.plug(place),
            }
        });
        stop.store(true, Relaxed);
        let others = [ruleset, routes, tools].map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("it panicked"))));
        (stormed, others)
    });
    stormed?;
    for (other, what) in others.into_iter().zip(["transactions", "changes", "reconciles"]) {
        ensure!(other.with_context(|| what.to_owned())? > 0, "there were no {what} meanwhile");
    }

    // How it shall end: a third is up, a third is down, a third has vanished.
    storm.at_once(NICS, |place| {
        let nic = storm.nic(place);
        match place % 3 {
            0 => {
                storm.plug(place)?;
                nic.ifup()?.succeeds()?;
            }
            1 => {
                storm.plug(place)?;
                nic.ifdown()?.succeeds()?;
            }
            _ => storm.unplug(place)?,
        }
        Ok(())
    })?;
    tool("gc")?.succeeds()?;
    tool("status")?.succeeds()?;
    netns.settle()?;
    let recorded: BTreeSet<_> = names_in(node.files.state())?;
    let expected: BTreeSet<_> = (0..NICS).step_by(3).map(Storm::name).collect();
    ensure!(recorded == expected, "recorded: {recorded:?}");
    ensure!(names_in(node.files.bindings())? == expected, "bindings are left or lost");
    let after = Snapshot::of(netns)?;
    // The same, one after the other, on the same links.
    for place in (0..NICS).step_by(3) {
        storm.nic(place).ifdown()?.succeeds()?;
        storm.nic(place).ifup()?.succeeds()?;
    }
    after.returns_in(netns, |state| state)?;
    storm.at_once(NICS, |place| {
        storm.unplug(place)?;
        storm.nic(place).ifdown()?.succeeds().map(|_| ())
    })?;
    ensure!(names_in(node.files.state())?.is_empty(), "records are left");
    fresh.returns_in(netns, Snapshot::without_base_tables)
}

/// The files of TAPs in a folder.
fn names_in(folder: std::path::PathBuf) -> Result<BTreeSet<String>> {
    let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.filter(|name: &Result<String>| name.as_ref().map_or(true, |name| name.starts_with("tap"))).collect()
}
