//! Stages inside the process: what each takes in a process that is already running, for one routed NIC.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use snf_network::addr::IfName;
use snf_network::environment::{RawNic, Unset};
use snf_network::kernel::Kernel;
use snf_network::nic::Nic;
use snf_network::record::Record;
use snf_network::settings::Settings;
use snf_network::state::State;
use snf_network::{reconcile, routing_tables, setup};

use super::binaries::Binaries;
use super::latency::PAUSE;
use super::runs::Sample;
use super::world::{Number, Setup, World};

/// The stages, in their order.
pub const NAMES: [&str; 7] = [
    "read the settings",
    "check the variables",
    "lock, read the record",
    "make the Plan",
    "write the record",
    "apply the Plan",
    "remove it again",
];

/// Measures each stage this many times.
///
/// # Errors
/// If any fails.
pub fn measure(runs: usize, folder: &Path, binaries: &Binaries) -> Result<[Duration; NAMES.len()]> {
    let folder = folder.join("stages");
    let world = World::build(Setup::Routed, 0, &folder, binaries)?;
    let up = world.program(binaries, "ifup", Number(0));
    up.run()?;
    let tap: IfName = Number(0).tap().parse()?;
    let state_dir = folder.join("state");
    let records = State::peek(&state_dir, &tap)?;
    let recorded = Record::from_variables(records.last().context("no record")?)?;
    world.program(binaries, "ifdown", Number(0)).run()?;
    let settings_text = std::fs::read(folder.join("settings"))?;
    let mut samples: [Sample; NAMES.len()] = Default::default();
    world.namespace.run(|| {
        for _ in 0..runs {
            let mut started = Instant::now();
            let mut stage = 0;
            let mut next = || {
                samples[stage].push_time(started.elapsed());
                stage += 1;
                started = Instant::now();
            };
            let (settings, _) = Settings::parse(&settings_text, "settings")?;
            next();
            let variable = |name: &str| up.variables.iter().find(|it| it.0 == name).map(|it| it.1.clone().into());
            let raw = RawNic::from_variables(Unset::Empty, variable)?;
            let nic = Nic::new(&raw, &settings, routing_tables::resolve)?;
            next();
            let mut state = State::open(&settings.state_dir, &nic.interface)?;
            next();
            let plan = setup::plan(&nic, &settings, &recorded.facts)?;
            next();
            state.write(vec![Record::new(&raw, &nic, &settings, recorded.facts.clone()).variables()])?;
            next();
            let mut kernel = Kernel::open()?;
            reconcile::apply(&mut kernel, &plan, &[])?;
            next();
            let failures = reconcile::remove(&mut kernel, &plan, true);
            ensure!(failures.is_empty(), "{failures:?}");
            next();
            state.write(Vec::new())?;
            // The socket waits when it is closed: not here.
            drop(kernel);
            sleep(PAUSE);
        }
        Ok(())
    })?;
    Ok(samples.each_ref().map(Sample::median))
}
