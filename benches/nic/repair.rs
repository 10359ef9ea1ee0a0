//! A node whose filters, rules and routes are all lost: one `reconcile` against the ifups of all its NICs, one after the other.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::binaries::Binaries;
use super::latency::{PAUSE, sh};
use super::runs::Sample;
use super::world::{Number, World};

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
    let mut repair =
        Repair { nics, built_in, status: Sample::default(), idle: Sample::default(), after_loss: Sample::default() };
    // The one more NIC has no part in it.
    for _ in 0..RUNS {
        repair.status.push(run("status")?);
        repair.idle.push(run("reconcile")?);
        sh(world, LOSE_EVERYTHING).run()?;
        sleep(PAUSE);
        repair.after_loss.push(run("reconcile")?);
        sleep(PAUSE);
        // Exits with 3 if anything is not right.
        run("status")?;
    }
    Ok(repair)
}
