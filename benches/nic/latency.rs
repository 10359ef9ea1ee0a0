//! The latency of one NIC, whole process from spawn to exit, with others present, against the floor and against scripts.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::Wanted;
use super::binaries::Binaries;
use super::recording::{Recording, record};
use super::runs::{Contestant, Sample};
use super::seed::{self, Scripts};
use super::world::{Number, Setup, World};

/// Longer than the detached process lingers, so that one run's grace period is not another one's wait.
pub const PAUSE: Duration = Duration::from_millis(130);

/// What was measured of one setup with one number of NICs present.
pub struct Row {
    /// NICs present.
    pub nics: u16,
    /// ifup of a fresh NIC, ifup again, ifdown.
    pub ours: [Sample; 3],
    /// The floor of ifup and of ifdown.
    pub floor: [Sample; 2],
    /// The same without questions and answers.
    pub changes: [Sample; 2],
    /// What ifup and ifdown do, as strace saw it.
    pub recorded: [Recording; 2],
}

/// What was measured of one setup.
pub struct Table {
    /// Which.
    pub setup: Setup,
    /// By the number of NICs.
    pub rows: Vec<Row>,
    /// The seed's commands, and the best scripted way: up and down, with no NIC present.
    pub scripts: Vec<(&'static str, [Sample; 2])>,
    /// The program that does nothing.
    pub version: Sample,
}

/// Measures one setup in worlds of its own, each run of one contestant followed by one of the next.
///
/// # Errors
/// If anything fails.
pub fn measure(setup: Setup, wanted: &Wanted, folder: &Path, binaries: &Binaries) -> Result<(Table, Vec<World>)> {
    let folder = folder.join(setup.name());
    let mut worlds = Vec::new();
    for &nics in &wanted.nics {
        eprintln!("{}: {nics} NICs", setup.name());
        worlds.push(World::build(setup, nics, &folder.join(nics.to_string()), binaries)?);
    }
    let mut rows = Vec::new();
    for world in &worlds {
        // The first of all makes the base objects.
        for verb in ["ifup", "ifdown"] {
            world.program(binaries, verb, Number(0)).run()?;
            sleep(PAUSE);
        }
        let recorded = |verb: &str| -> Result<Recording> {
            let recording =
                record(&world.program(binaries, verb, Number(0)), &folder, &format!("{}-{verb}", world.nics))?;
            sleep(PAUSE);
            Ok(recording)
        };
        let recorded = [recorded("ifup")?, recorded("ifdown")?];
        let nics = world.nics;
        rows.push(Row {
            nics,
            recorded,
            ours: Default::default(),
            floor: Default::default(),
            changes: Default::default(),
        });
    }
    let mut scripted = Vec::new();
    for (name, scripts) in
        [("the seed's commands", seed::commands(setup, Number(0))), ("best scripted", seed::batches(setup, Number(0)))]
    {
        let Some(scripts) = scripts else { continue };
        let world = World::without_nics(setup, 0, &folder.join(name))?;
        sh(&world, &scripts.base).run()?;
        scripted.push((name, world, scripts, <[Sample; 2]>::default()));
    }
    let mut version = Sample::default();
    for run in 0..wanted.runs {
        version.push(worlds[0].program(binaries, "--version", Number(0)).run()?);
        sleep(PAUSE);
        // Whoever is measured follows another program in the same world, so that nobody finds its own code in the processor's caches.
        let other = |world: &World| -> Result<()> {
            for verb in ["ifup", "ifdown"] {
                world.program(binaries, verb, Number(0)).run()?;
                sleep(PAUSE);
            }
            Ok(())
        };
        for (world, row) in worlds.iter().zip(&mut rows) {
            let floor = |words: &[&str], samples: &mut [Sample; 2]| -> Result<()> {
                for (recording, sample) in row.recorded.iter().zip(samples) {
                    let file = recording.file.display().to_string();
                    sample.push(world.command(&[&[&binaries.floor, &*file], words].concat()).run()?);
                    sleep(PAUSE);
                }
                Ok(())
            };
            other(world)?;
            floor(&["changes"], &mut row.changes)?;
            for (verb, sample) in ["ifup", "ifup", "ifdown"].iter().zip(&mut row.ours) {
                sample.push(world.program(binaries, verb, Number(0)).run()?);
                sleep(PAUSE);
            }
            floor(&[], &mut row.floor)?;
        }
        // They take long: fewer runs of them tell as much.
        if run % 4 == 0 {
            for (_, world, Scripts { up, down, .. }, samples) in &mut scripted {
                other(&worlds[0])?;
                for (script, sample) in [up, down].into_iter().zip(samples) {
                    sample.push(sh(world, script).run()?);
                    sleep(PAUSE);
                }
            }
        }
    }
    let scripts = scripted.into_iter().map(|(name, _, _, samples)| (name, samples)).collect();
    Ok((Table { setup, rows, scripts, version }, worlds))
}

/// A script, in one shell.
pub fn sh<'a>(world: &'a World, script: &str) -> Contestant<'a> {
    world.command(&["/bin/sh", "-c", script])
}
