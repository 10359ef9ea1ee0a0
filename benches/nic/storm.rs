//! A boot storm: many NICs at once, by as many runs of the program or of a script.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::binaries::Binaries;
use super::runs::Contestant;
use super::seed::{self, Scripts};
use super::world::{Number, Setup, World, ip};

/// What was measured: the means, how many NICs, from the first spawn to the last exit.
pub struct Storm {
    /// Which setup.
    pub setup: Setup,
    /// NICs at once.
    pub nics: u16,
    /// By the program, the seed's commands, the best scripted way.
    pub times: [Duration; 3],
}

/// Sets this many NICs up at once, by each means.
///
/// # Errors
/// If any run fails.
pub fn measure(setup: Setup, nics: u16, folder: &Path, binaries: &Binaries) -> Result<Storm> {
    let folder = folder.join(format!("storm-{}-{nics}", setup.name()));
    let world = World::build(setup, 0, &folder.join("ours"), binaries)?;
    world.program(binaries, "ifup", Number(0)).run()?;
    taps(&world, nics)?;
    let ours = at_once((1..=nics).map(|n| world.program(binaries, "ifup", Number(n))).collect())?;
    let mut times = [ours, Duration::ZERO, Duration::ZERO];
    for (place, scripts) in [(1, seed::commands as fn(Setup, Number) -> Option<Scripts>), (2, seed::batches)] {
        let own = scripts(setup, Number(0)).context("no script of this setup")?;
        let world = World::without_nics(setup, 0, &folder.join(place.to_string()))?;
        world.command(&["/bin/sh", "-c", &own.base]).run()?;
        taps(&world, nics)?;
        let lock = folder.join("lock").display().to_string();
        let script = |n| scripts(setup, Number(n)).map(|it| world.command(&["/bin/sh", "-c", &locked(&it.up, &lock)]));
        times[place] = at_once((1..=nics).filter_map(script).collect())?;
    }
    Ok(Storm { setup, nics, times })
}

/// The tables' tools do not stand each other: as the scripts did, one at a time.
fn locked(script: &str, lock: &str) -> String {
    let tools = ["arptables", "ebtables", "iptables", "ip6tables"];
    let is_tool = |line: &&str| tools.iter().any(|tool| line.starts_with(tool));
    let lines =
        script.lines().map(|line| if is_tool(&line) { format!("flock {lock} {line}\n") } else { format!("{line}\n") });
    lines.collect()
}

fn taps(world: &World, nics: u16) -> Result<()> {
    let lines: String = (1..=nics).map(|n| format!("tuntap add {} mode tap\n", Number(n).tap())).collect();
    ip(&world.namespace, &lines)
}

fn at_once(contestants: Vec<Contestant<'_>>) -> Result<Duration> {
    let first = contestants.first().context("nobody to run")?;
    first.within(|| {
        let started = Instant::now();
        let mut children = Vec::new();
        for it in &contestants {
            let mut command = Command::new(&it.command[0]);
            command.args(&it.command[1..]).env_clear().envs(it.variables.iter().cloned());
            command.stdin(Stdio::null()).stdout(Stdio::null());
            children.push(command.spawn().with_context(|| it.command[0].clone())?);
        }
        for mut child in children {
            let status = child.wait()?;
            ensure!(status.success(), "{:?}: {status}", first.command);
        }
        Ok(started.elapsed())
    })
}
