//! `gc`: what NICs that are gone left goes, recorded or not, and nothing else.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::status::{finds, in_sync};
use crate::Test;
use crate::harness::guest::{Identity, WEB1, WEB2};
use crate::harness::monitor::Monitor;
use crate::harness::nic::Outcome;
use crate::harness::rounds;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[
    ("gc::a_recorded_nic_that_vanished", a_recorded_nic_that_vanished),
    ("gc::without_any_record", without_any_record),
    ("gc::a_name_used_again", a_name_used_again),
    ("gc::what_is_up_without_a_record_stays", what_is_up_without_a_record_stays),
    ("gc::without_records_running_guests_stay", without_records_running_guests_stay),
    ("gc::what_is_there_stays", what_is_there_stays),
    ("gc::what_a_damaged_record_may_name_stays", what_a_damaged_record_may_name_stays),
    ("gc::reconcile_does_it_too", reconcile_does_it_too),
    ("gc::ifups_meanwhile_are_not_disturbed", ifups_meanwhile_are_not_disturbed),
];

fn what_a_damaged_record_may_name_stays() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let guest = node.guest("tap0", WEB1)?;
    fs::write(node.files.state().join("tap0"), "of another form\n")?;
    node.netns.settle()?;
    let before = Snapshot::of(&node.netns)?;
    for tool in ["gc", "reconcile"] {
        node.files.run(&node.netns, &[tool], "")?.fails(&[tool, "tap0"])?;
        before.returns_in(&node.netns, |state| state)?;
    }
    guest.ping(OUTSIDE6).map(drop)
}

fn gc(node: &Node, options: &str) -> Result<Outcome> {
    node.files.run(&node.netns, &["gc"], options)
}

/// A guest that vanished without any ifdown.
fn vanish(node: &Node, tap: &str, id: Identity) -> Result<()> {
    let guest = node.plug(tap, id)?;
    node.nic(tap, id).set("NETWORK_TAGS", "ip-less-routed nfdhcpd").set("TAGS", "protected").ifup()?.succeeds()?;
    node.unplug(guest, tap)
}

/// A site with another guest that stays, and its state.
fn site() -> Result<(Site, crate::harness::guest::Guest, Snapshot)> {
    let site = Site::new()?;
    let guest = site.node.guest("tap1", WEB2)?;
    // All base objects that the vanished one needs.
    vanish(&site.node, "tap0", WEB1)?;
    site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    site.node.settled("tap1")?;
    site.node.netns.settle()?;
    let before = Snapshot::of(&site.node.netns)?;
    Ok((site, guest, before))
}

fn a_recorded_nic_that_vanished() -> Result<()> {
    let (site, guest, before) = site()?;
    let node = &site.node;
    vanish(node, "tap0", WEB1)?;
    finds(
        node,
        &[
            "tap0 ",
            "foreign: ip rule iif tap0 lookup 100",
            "foreign: nft element inet snf-network protected { \"tap0\"",
        ],
    )?;
    let dry = gc(node, "--dry-run")?;
    ensure!(dry.code == Some(3) && dry.stdout.contains("tap0: foreign: ip -6 neigh proxy"), "{dry:#?}");
    ensure!(dry.stdout.contains("tap0: foreign: binding ") && !dry.stdout.contains("tap1"), "{dry:#?}");
    ensure!(node.files.state().join("tap0").exists(), "the dry run removed the record");
    gc(node, "")?.succeeds()?;
    before.returns_in(&node.netns, |state| state)?;
    for path in [node.files.state().join("tap0"), node.files.bindings().join("tap0")] {
        ensure!(!path.exists(), "{} is still there", path.display());
    }
    in_sync(node)?;
    ensure!(gc(node, "--dry-run")?.succeeds()?.stdout.is_empty());
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    Ok(())
}

fn without_any_record() -> Result<()> {
    let (site, guest, before) = site()?;
    let node = &site.node;
    vanish(node, "tap0", WEB1)?;
    for path in [node.files.state().join("tap0"), node.files.bindings().join("tap0")] {
        fs::remove_file(path)?;
    }
    let left = Snapshot::of(&node.netns)?;
    ensure!(left.naming("tap0").len() > 6, "nothing was left: the test tests nothing: {:#?}", left.naming("tap0"));
    finds(node, &["without a record:", "tap0: foreign: ip rule iif tap0 lookup 100 pref 20100 protocol 217"])?;
    finds(node, &[&format!("-: foreign: ip -6 neigh proxy {} dev eth1 protocol 217", WEB1.ip6)])?;
    gc(node, "")?.succeeds()?;
    before.returns_in(&node.netns, |state| state)?;
    in_sync(node)?;
    guest.ping(OUTSIDE6)?;
    Ok(())
}

/// Another TAP has the name, and nobody called ifup for it yet.
fn a_name_used_again() -> Result<()> {
    let (site, _guest, _) = site()?;
    let node = &site.node;
    let fresh = node.plug("tap0", WEB2)?;
    node.netns.ip("link set tap0 address 02:00:00:00:09:09 up")?;
    node.settled("tap0")?;
    let before = Snapshot::of(&node.netns)?;
    node.unplug(fresh, "tap0")?;
    vanish(node, "tap0", WEB1)?;
    let _fresh = node.plug("tap0", WEB2)?;
    node.netns.ip("link set tap0 address 02:00:00:00:09:09 up")?;
    finds(node, &["tap0 ", "foreign: ip rule iif tap0"])?;
    gc(node, "")?.succeeds()?;
    before.returns_in(&node.netns, |state| state)
}

/// The record of a running guest was lost: what restrains it stays, and status says so.
fn what_is_up_without_a_record_stays() -> Result<()> {
    let (site, _guest, _) = site()?;
    let node = &site.node;
    let one = node.guest("tap0", WEB1)?;
    node.settled("tap0")?;
    node.netns.settle()?;
    fs::remove_file(node.files.state().join("tap0"))?;
    let before = Snapshot::of(&node.netns)?.naming("tap0").into_iter().map(str::to_owned).collect::<Vec<_>>();
    gc(node, "")?.succeeds()?;
    let after = Snapshot::of(&node.netns)?;
    ensure!(after.naming("tap0") == before, "{before:#?} became {:#?}", after.naming("tap0"));
    finds(node, &["tap0: foreign: nft element inet snf-network guarded { \"tap0\""])?;
    one.ping(OUTSIDE)?;
    // Once its link is down, it goes.
    node.netns.ip("link set tap0 down")?;
    gc(node, "")?.succeeds()?;
    in_sync(node)
}

/// STATE_DIR was emptied: all that running guests have stays, and a proxy entry that leads to no guest goes.
fn without_records_running_guests_stay() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let guests = [node.guest("tap0", WEB1)?, node.guest("tap1", WEB2)?];
    for tap in ["tap0", "tap1"] {
        node.settled(tap)?;
    }
    node.netns.settle()?;
    let before = Snapshot::of(&node.netns)?;
    fs::remove_dir_all(node.files.state())?;
    for tool in ["gc", "reconcile"] {
        node.netns.ip("-6 neigh add proxy 2001:db8:1::77 dev eth1 protocol 217")?;
        let dry = node.files.run(&node.netns, &[tool], "--dry-run")?;
        let expected = "-: foreign: ip -6 neigh proxy 2001:db8:1::77 dev eth1 protocol 217\n";
        ensure!(dry.code == Some(3) && dry.stdout == expected, "{dry:#?}");
        node.files.run(&node.netns, &[tool], "")?.succeeds()?;
        before.returns_in(&node.netns, |state| state)?;
    }
    for guest in &guests {
        guest.ping(OUTSIDE)?;
        guest.ping(OUTSIDE6)?;
    }
    let proxy = format!("tap0: foreign: ip -6 neigh proxy {} dev eth1 protocol 217", WEB1.ip6);
    finds(node, &[&proxy, "no record of eth1,tap0,tap1, which are up: "])?;
    for (tap, id) in [("tap0", WEB1), ("tap1", WEB2)] {
        node.nic(tap, id).ifup()?.succeeds()?;
        node.settled(tap)?;
    }
    finds(node, &["no record of eth1, which are up: "])?;
    node.files.run(&node.netns, &["status"], "tap0 tap1")?.succeeds()?;
    guests.iter().try_for_each(|guest| guest.ping(OUTSIDE6).map(drop))
}

fn what_is_there_stays() -> Result<()> {
    let (site, guest, before) = site()?;
    let monitor = Monitor::of(&site.node.netns)?;
    gc(&site.node, "")?.succeeds()?;
    let heard = monitor.heard()?;
    ensure!(heard.is_empty(), "{heard:#?}");
    before.equals(&Snapshot::of(&site.node.netns)?)?;
    // A foreign rule and a foreign proxy entry are nobody's business of ours.
    site.node.netns.ip_batch("rule add iif tap77 lookup 100 pref 99\n-6 neigh add proxy 2001:db8:1::77 dev eth1")?;
    let before = Snapshot::of(&site.node.netns)?;
    gc(&site.node, "")?.succeeds()?;
    before.equals(&Snapshot::of(&site.node.netns)?)?;
    in_sync(&site.node)?;
    gc(&site.node, "tap1")?.fails(&["gc: ", "tap1"])?;
    guest.ping(OUTSIDE)?;
    Ok(())
}

fn reconcile_does_it_too() -> Result<()> {
    let (site, _guest, before) = site()?;
    let node = &site.node;
    vanish(node, "tap0", WEB1)?;
    node.netns.ip("-6 neigh add proxy 2001:db8:1::77 dev eth1 protocol 217")?;
    node.netns.ip("rule del iif tap1")?;
    let dry = node.files.run(&node.netns, &["reconcile"], "--dry-run")?;
    for line in
        ["tap1: missing: ip rule iif tap1", "tap0: foreign: record", "-: foreign: ip -6 neigh proxy 2001:db8:1::77"]
    {
        ensure!(dry.stdout.contains(line), "expected {line:?} in {dry:#?}");
    }
    node.files.run(&node.netns, &["reconcile"], "")?.succeeds()?;
    before.returns_in(&node.netns, |state| state)?;
    in_sync(node)
}

/// The same guest comes and goes on a TAP while gc runs without end: it always comes up whole.
fn ifups_meanwhile_are_not_disturbed() -> Result<()> {
    let (site, _guest, _) = site()?;
    let node = &site.node;
    let over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| -> Result<u32> {
            let mut runs = 0;
            while !over.load(order) {
                gc(node, "")?.succeeds()?;
                runs += 1;
            }
            Ok(runs)
        });
        let guests = || -> Result<()> {
            for _ in 0..rounds(25) {
                let guest = node.guest("tap0", WEB1)?;
                guest.ping(OUTSIDE)?;
                guest.ping(OUTSIDE6)?;
                node.files.run(&node.netns, &["status"], "tap0")?.succeeds()?;
                node.unplug(guest, "tap0")?;
            }
            Ok(())
        };
        let done = guests();
        over.store(true, order);
        let runs = collecting.join().expect("no panic in a run").context("gc")?;
        done?;
        ensure!(runs > 0, "gc never ran");
        Ok(())
    })
}
