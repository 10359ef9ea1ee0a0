//! A node whose filters are lost, or its rules and routes as well: one `reconcile` against the ifups of all its NICs, one after the other.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::binaries::Binaries;
use super::latency::{PAUSE, sh};
use super::runs::Sample;
use super::world::{Number, World};

/// As an administrator does it by mistake.
const LOSE_FILTERS: &str = "nft flush ruleset";
/// As `nft flush ruleset` and a restart of systemd-networkd: no filters, no rules, none of the NICs' and the uplink's routes.
const LOSE_EVERYTHING: &str = "nft flush ruleset\n\
    for family in -4 -6; do\n\
    for protocol in 217 218; do\n\
    ip $family rule flush protocol $protocol\n\
    ip $family route flush table 100 proto $protocol\n\
    done; done\n";
/// They take long enough to differ little.
const RUNS: usize = 9;

/// What was measured of a node.
pub struct Repair {
    /// Its NICs.
    pub nics: u16,
    /// How long their ifups took, one after the other.
    pub built_in: Duration,
    /// `status`.
    pub status: Sample,
    /// `reconcile` where nothing is to do.
    pub idle: Sample,
    /// `reconcile` after all filters are lost.
    pub without_filters: Sample,
    /// `reconcile` after everything is lost.
    pub after_loss: Sample,
}

/// Measures a node with many NICs.
///
/// # Errors
/// If anything fails, or not all is right after a reconcile.
pub fn measure(world: &World, binaries: &Binaries) -> Result<Repair> {
    let run = |verb: &str| world.program(binaries, verb, Number(0)).run();
    let (nics, built_in) = (world.nics, world.built_in);
    let [status, idle, without_filters, after_loss] = Default::default();
    let mut repair = Repair { nics, built_in, status, idle, without_filters, after_loss };
    // The one more NIC has no part in it.
    for _ in 0..RUNS {
        repair.status.push(run("status")?);
        repair.idle.push(run("reconcile")?);
        for (loss, sample) in [(LOSE_FILTERS, &mut repair.without_filters), (LOSE_EVERYTHING, &mut repair.after_loss)] {
            sh(world, loss).run()?;
            sleep(PAUSE);
            sample.push(run("reconcile")?);
            sleep(PAUSE);
        }
        // Exits with 3 if anything is not right.
        run("status")?;
    }
    Ok(repair)
}
