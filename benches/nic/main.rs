//! What a NIC costs, and what a packet's way through the node costs, as ratios against the floor, against scripts, and against
//! fewer NICs, all in one run.
//!
//! `cargo bench --bench nic`, with `-- --write` to renew docs/performance.md; `--runs N`, `--batches N`, `--nics 0,100` and names of
//! parts (latency, packets, repair, storm, stages) make it shorter. Needs root or user namespaces with /dev/net/tun, and strace, ip, nft,
//! iptables, ebtables, arptables, arping. The part `order`, which runs when it is named alone, lists functions for the linker, and needs
//! nm and objdump (binutils). In namespaces of its own. The machine may be noisy: believe the ratios.

mod binaries;
mod latency;
mod order;
mod packets;
mod plot;
mod recording;
mod repair;
mod report;
mod runs;
mod seed;
mod stages;
mod storm;
mod world;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use snf_network::kernel::namespace::enter_private;

use binaries::Binaries;
use report::Report;
use world::Setup;

/// What is asked for.
#[derive(Clone)]
pub struct Wanted {
    runs: usize,
    batches: usize,
    nics: Vec<u16>,
    parts: Vec<String>,
    write: bool,
}

impl Wanted {
    fn from_arguments() -> Result<Self> {
        let mut wanted =
            Self { runs: 40, batches: 300, nics: vec![0, 100, 1000, 5000], parts: Vec::new(), write: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word}: expected a value"));
            match word.as_str() {
                // What cargo adds.
                "--bench" => {}
                "--write" => wanted.write = true,
                "--runs" => wanted.runs = value()?.parse()?,
                "--batches" => wanted.batches = value()?.parse()?,
                "--nics" => wanted.nics = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "latency" | "packets" | "repair" | "storm" | "stages" | "order" => wanted.parts.push(word),
                _ => bail!("{word}: expected --write, --runs, --batches, --nics, or a part"),
            }
        }
        Ok(wanted)
    }

    fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|it| it == part)
    }
}

fn main() -> Result<()> {
    let wanted = Wanted::from_arguments()?;
    let lists = wanted.parts.iter().any(|it| it == "order");
    ensure!(!lists || wanted.parts.len() == 1, "order: expected no other part");
    let binaries = if lists { Binaries::with_symbols()? } else { Binaries::build()? };
    enter_private()?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-nic");
    // What an earlier run left is of other namespaces.
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    if lists {
        return order::list(&folder, &binaries, wanted.write);
    }
    let mut report = Report { machine: machine(&binaries, &wanted)?, ..Report::default() };
    if wanted.has("stages") {
        report.stages = Some(stages::measure(wanted.runs, &folder, &binaries)?);
    }
    if wanted.has("storm") {
        for (setup, nics) in [(Setup::Routed, 32), (Setup::Routed, 256), (Setup::Filtered, 32), (Setup::Filtered, 256)]
        {
            eprintln!("storm: {}, {nics} NICs", setup.name());
            report.storms.push(storm::measure(setup, nics, &folder, &binaries)?);
        }
    }
    for setup in Setup::ALL {
        let packets = wanted.has("packets") && matches!(setup, Setup::Routed | Setup::ByRule | Setup::Filtered);
        let repair = wanted.has("repair") && setup == Setup::Routed;
        if !packets && !repair && !wanted.has("latency") {
            continue;
        }
        let runs = if wanted.has("latency") { wanted.runs } else { 0 };
        let (table, mut worlds) = latency::measure(setup, &Wanted { runs, ..wanted.clone() }, &folder, &binaries)?;
        if runs > 0 {
            report.tables.push(table);
        }
        let largest = worlds.iter().rev().find(|it| (1..=1000).contains(&it.nics));
        if let (true, Some(world)) = (repair, largest) {
            report.repair = Some(repair::measure(world, &binaries)?);
        }
        if packets {
            // The writer's processor is the one on which the kernel takes the packet to the other side.
            let all = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
            let mut one = CpuSet::new();
            one.set(0)?;
            sched_setaffinity(Pid::from_raw(0), &one)?;
            report.ways.extend(packets::measure(setup, &mut worlds, &wanted, &folder, &binaries)?);
            sched_setaffinity(Pid::from_raw(0), &all)?;
        }
    }
    println!("{}", report.markdown());
    if wanted.write {
        report.write(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")))?;
    }
    Ok(())
}

fn machine(binaries: &Binaries, wanted: &Wanted) -> Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = std::thread::available_parallelism()?;
    Ok(format!(
        "Linux {}, {processors} processors; static musl binary of {} kB; {} alternating runs, {} batches of packets.",
        kernel.trim(),
        binaries.size / 1000,
        wanted.runs,
        wanted.batches
    ))
}
