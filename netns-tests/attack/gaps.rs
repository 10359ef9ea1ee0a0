//! Frames poured in while NICs are set up, set up again, changed and taken down: is there an instant without a filter?

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::capture::holds;
use super::context::{self, ATTACKER, FOREIGN_MAC, STRANGER, VICTIM};
use super::frames::{self, from};
use super::testbed::{Bridged, Ground, bridged_nic, tap};
use crate::harness::frame::{self, Mac};
use crate::harness::port::Port;
use crate::harness::{rounds, until};

/// How often a NIC is set up and down.
const CYCLES: usize = 100;

/// What all setups that filter forbid, each recognisable by its bytes: forged sources, to everybody.
pub fn forbidden(c: &context::Context) -> Vec<Vec<u8>> {
    let shout = |mac: Mac, text: &[u8]| {
        let packet = frame::udp((c.me.ip.into(), 7), (std::net::Ipv4Addr::BROADCAST.into(), 7), text);
        frames::packet(Mac::BROADCAST, mac, &packet)
    };
    vec![shout(c.victim.mac, b"forbidden: as the victim"), shout(FOREIGN_MAC, b"forbidden: as nobody"), {
        let claim = c.arp(2, (c.gateway.mac, c.gateway.ip), (c.victim.mac, c.victim.ip));
        from(c.gateway.mac, claim)
    }]
}

/// What the attacker must never receive: frames of another prefix, to everybody.
pub fn isolated(c: &context::Context) -> Vec<u8> {
    let packet = frame::udp((c.stranger.ip.into(), 7), (std::net::Ipv4Addr::BROADCAST.into(), 7), b"forbidden: to it");
    frames::packet(Mac::BROADCAST, c.stranger.mac, &packet)
}

/// How many of the forbidden frames were seen, leaving the attacker's port and arriving there.
#[derive(Debug, PartialEq, Eq)]
pub struct Leaks {
    /// Leaving it.
    pub from: usize,
    /// Arriving there.
    pub to: usize,
}

fn pour(setup: Bridged, cycles: usize) -> Result<Leaks> {
    let mut ground = Ground::bridge()?;
    for (tap, id) in [("tap1", VICTIM), ("tap2", STRANGER)] {
        ground.nic(tap, id, setup).ifup()?.succeeds()?;
    }
    let (from_it, to_it) = (forbidden(&ground.context), isolated(&ground.context));
    let mut leaks = Leaks { from: 0, to: 0 };
    for cycle in 0..rounds(cycles) {
        // The name is used again at once, by another card.
        if cycle % 10 == 9 {
            let netns = &ground.node.netns;
            let unplugged = std::mem::replace(&mut ground.attacker, tap(netns, "tap9")?);
            drop(unplugged);
            // A program that another test is about to start may hold the descriptor for a moment.
            let mut plugged = None;
            until("the name of the TAP to be free", || {
                plugged = tap(netns, "tap0").ok();
                Ok(plugged.is_some())
            })?;
            ground.attacker = plugged.context("a TAP")?;
        }
        let found = under_load(&ground, &from_it, &to_it, || {
            let nic =
                |tags: &str, profile: &str| bridged_nic(&ground.node, "tap0", ATTACKER, tags).set("TAGS", profile);
            let tags = setup.tags();
            nic(tags, "").ifup()?.succeeds()?;
            nic(tags, "synnefo:network:0:protected").ifup()?.succeeds()?;
            nic(tags, "synnefo:network:0:unprotected").ifup()?.succeeds()?;
            nic(tags, "").ifdown()?.succeeds()?;
            Ok(())
        })?;
        leaks.from += found.from;
        leaks.to += found.to;
    }
    Ok(leaks)
}

/// Does something while frames are poured in from both sides, and counts those that came through.
pub fn under_load(
    ground: &Ground,
    from_it: &[Vec<u8>],
    to_it: &[u8],
    act: impl FnOnce() -> Result<()>,
) -> Result<Leaks> {
    let over = AtomicBool::new(false);
    let (leaked_from, leaked_to) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let count = |port: &Port, wanted: &[Vec<u8>], found: &AtomicUsize| {
        let seen = port.drain();
        let there = seen.iter().filter(|seen| wanted.iter().any(|sent| holds(seen, sent))).count();
        found.fetch_add(there, Ordering::Relaxed);
    };
    let acted = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for frame in from_it {
                    // Refused while the link is down.
                    let _refused = ground.attacker.send(frame);
                }
                for port in [&ground.victim, &ground.uplink].into_iter().chain(&ground.bridge) {
                    count(port, from_it, &leaked_from);
                }
            }
        });
        scope.spawn(|| {
            let wanted = [to_it.to_vec()];
            while !over.load(Ordering::Relaxed) {
                for port in [&ground.uplink].into_iter().chain(&ground.stranger) {
                    let _refused = port.send(to_it);
                }
                count(&ground.attacker, &wanted, &leaked_to);
            }
        });
        let acted = act();
        over.store(true, Ordering::Relaxed);
        acted
    });
    acted?;
    Ok(Leaks { from: leaked_from.into_inner(), to: leaked_to.into_inner() })
}

/// On plain ports they do come through.
pub fn poured_into_plain_ports() -> Result<()> {
    let leaks = pour(Bridged::Plain, 10)?;
    ensure!(leaks.from > 0 && leaks.to > 0, "nothing came through: {leaks:?}");
    Ok(())
}

/// With the seed's isolation none does, either way.
pub fn poured_into_private_filtered_ports() -> Result<()> {
    let leaks = pour(Bridged::Filtered, CYCLES)?;
    ensure!(leaks == Leaks { from: 0, to: 0 }, "{leaks:?}");
    Ok(())
}

/// With strict filtering none from the guest; what it may receive is not the question there.
pub fn poured_into_strict_filtered_ports() -> Result<()> {
    let leaks = pour(Bridged::Strict, CYCLES)?;
    ensure!(leaks.from == 0, "{leaks:?}");
    Ok(())
}

/// Neither with both.
pub fn poured_into_ports_with_both_filters() -> Result<()> {
    let leaks = pour(Bridged::StrictFiltered, CYCLES)?;
    ensure!(leaks == Leaks { from: 0, to: 0 }, "{leaks:?}");
    Ok(())
}
