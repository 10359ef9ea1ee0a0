//! `reconcile`: what befalls a node is put right, for all NICs at once, filters first; and nothing else changes.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::drift::{reaches_the_outside, reconcile, routed};
use super::status::{finds, in_sync};
use crate::Test;
use crate::harness::build::executable;
use crate::harness::frame::Mac;
use crate::harness::guest::{Identity, WEB1, WEB2};
use crate::harness::monitor::Monitor;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, Site};

pub const TESTS: &[Test] = &[
    ("reconcile::a_flushed_ruleset", a_flushed_ruleset),
    ("reconcile::flushed_rules", flushed_rules),
    ("reconcile::networkd_restarted", networkd_restarted),
    ("reconcile::an_uplink_down_and_up", an_uplink_down_and_up),
    ("reconcile::filters_come_first", filters_come_first),
    ("reconcile::nothing_to_do_changes_nothing", nothing_to_do_changes_nothing),
    ("reconcile::dry_run", dry_run),
    ("reconcile::what_cannot_be_mended_is_named", what_cannot_be_mended_is_named),
    ("reconcile::a_record_that_a_crash_left", a_record_that_a_crash_left),
    ("reconcile::a_busy_nic_is_done_last", a_busy_nic_is_done_last),
    ("reconcile::many_nics_at_once", many_nics_at_once),
];

/// Two guests, of which one is broken by what befalls the whole node.
fn befalls(damage: impl FnOnce(&Node) -> Result<()>, expected: &[&str]) -> Result<()> {
    let site = Site::new()?;
    let guests = [site.node.guest("tap0", WEB1)?, site.node.guest("tap1", WEB2)?];
    for tap in ["tap0", "tap1"] {
        site.node.settled(tap)?;
    }
    guests.iter().try_for_each(reaches_the_outside)?;
    site.node.netns.settle()?;
    let before = Snapshot::of(&site.node.netns)?;
    damage(&site.node)?;
    finds(&site.node, expected)?;
    reconcile(&site.node, "")?.succeeds()?;
    in_sync(&site.node)?;
    before.returns_in(&site.node.netns, |state| state)?;
    guests.iter().try_for_each(reaches_the_outside)
}

fn a_flushed_ruleset() -> Result<()> {
    let flush = |node: &Node| node.netns.output(Command::new("nft").args(["flush", "ruleset"])).map(drop);
    let expected = [
        "missing: nft table inet snf-network: fragments prerouting",
        "missing: nft element inet snf-network guarded { \"tap1\"",
        "missing: nft element arp snf-network arp_source { \"eth1\"",
    ];
    befalls(flush, &expected)
}

fn flushed_rules() -> Result<()> {
    let flush = |node: &Node| {
        node.netns
            .ip_batch("rule flush\n-6 rule flush\nrule add lookup main pref 32766\n-6 rule add lookup main pref 32766")
    };
    // `ip rule flush` leaves the rule for table local, and all others go.
    befalls(
        |node| {
            let last = |family: &str| node.netns.ip(&format!("{family} rule show pref 32767"));
            let default = [last("-4")?, last("-6")?];
            flush(node)?;
            for (family, rule) in ["-4", "-6"].iter().zip(default) {
                if rule.contains("lookup default") {
                    node.netns.ip(&format!("{family} rule add lookup default pref 32767"))?;
                }
            }
            Ok(())
        },
        &[
            "missing: ip rule iif tap0 lookup 100 pref 20100 protocol 217",
            "missing: ip -6 rule iif tap1 lookup 100 pref 20100 protocol 217",
            "missing: ip rule iif eth1 lookup 100 pref 20000 protocol 218",
        ],
    )
}

/// systemd-networkd removes the routes and rules that it does not know (ManageForeignRoutes=, on by default).
fn networkd_restarted() -> Result<()> {
    let restart = |node: &Node| {
        for family in ["-4", "-6"] {
            node.netns.ip(&format!("{family} route flush table all proto 217"))?;
            node.netns.ip(&format!("{family} route flush table all proto 218"))?;
            for name in ["tap0", "tap1", "eth1"] {
                node.netns.ip(&format!("{family} rule del iif {name}"))?;
            }
        }
        Ok(())
    };
    befalls(restart, &["missing: ip rule iif tap0", "missing: ip route default via 10.0.0.1 dev eth1 table 100"])
}

fn an_uplink_down_and_up() -> Result<()> {
    let down_and_up = |node: &Node| {
        node.netns.ip_batch("link set eth1 down\nlink set eth1 up")?;
        node.settled("eth1")
    };
    let proxy = format!("missing: ip -6 neigh proxy {} dev eth1 protocol 217", WEB1.ip6);
    befalls(down_and_up, &[&proxy, "missing: ip route default via 10.0.0.1 dev eth1 table 100 proto 218"])
}

/// What reconcile sends, in strace's words.
pub fn traced(node: &Node) -> Result<String> {
    let trace = node.files.folder.join("trace");
    let name = trace.display().to_string();
    let wrapper = ["strace", "-qq", "-s", "4096", "-o", &name, "-e", "trace=sendto"];
    let nic = node.nic("tap0", WEB1);
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).args([executable(), "reconcile"]);
    nic.finish(&mut command).map_err(|error| crate::harness::Skip(format!("strace: {error:#}")))?.succeeds()?;
    Ok(fs::read_to_string(trace)?)
}

/// Of a NIC that lost everything, the filters are what reconcile makes first.
fn filters_come_first() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.guest("tap0", WEB1)?;
    site.node.netns.settle()?;
    let netns = &site.node.netns;
    netns.output(Command::new("nft").args(["flush", "ruleset"]))?;
    netns.ip_batch("rule del iif tap0\nroute del 10.0.0.2 table 100\nlink set tap0 address 02:00:00:00:07:07")?;
    let text = traced(&site.node)?;
    let filters = text.find("NFT_MSG_NEWSETELEM").context("no NFT_MSG_NEWSETELEM")?;
    for other in ["RTM_SETLINK", "RTM_NEWRULE", "RTM_NEWROUTE"] {
        let place = text.find(other).with_context(|| format!("no {other}"))?;
        ensure!(filters < place, "{other} came before the filters:\n{text}");
    }
    ensure!(text.matches("NFNL_MSG_BATCH_BEGIN").count() == 1, "more than one transaction:\n{text}");
    Ok(())
}

fn nothing_to_do_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let _guest = routed(&site)?;
    site.node.netns.settle()?;
    let netns = &site.node.netns;
    let before = Snapshot::of(netns)?;
    let record = fs::metadata(site.node.files.state().join("tap0"))?.modified()?;
    let monitor = Monitor::of(netns)?;
    let outcome = reconcile(&site.node, "")?.succeeds()?;
    ensure!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:#?}");
    let heard = monitor.heard()?;
    ensure!(heard.is_empty(), "it changed something: {heard:#?}");
    before.equals(&Snapshot::of(netns)?)?;
    ensure!(fs::metadata(site.node.files.state().join("tap0"))?.modified()? == record, "the record was written again");
    Ok(())
}

fn dry_run() -> Result<()> {
    let site = Site::new()?;
    let (_one, _two) = (site.node.guest("tap0", WEB1)?, site.node.guest("tap1", WEB2)?);
    site.node.netns.settle()?;
    ensure!(reconcile(&site.node, "--dry-run")?.succeeds()?.stdout.is_empty());
    site.node.netns.ip_batch("rule del iif tap0\n-6 rule del iif tap1\nrule del iif eth1")?;
    let before = Snapshot::of(&site.node.netns)?;
    let outcome = reconcile(&site.node, "--dry-run")?;
    let expected = "eth1: missing: ip rule iif eth1 lookup 100 pref 20000 protocol 218\n\
                    tap0: missing: ip rule iif tap0 lookup 100 pref 20100 protocol 217\n\
                    tap1: missing: ip -6 rule iif tap1 lookup 100 pref 20100 protocol 217\n";
    ensure!(outcome.code == Some(3) && outcome.stdout == expected, "{outcome:#?}");
    before.equals(&Snapshot::of(&site.node.netns)?)?;
    // Only what is asked for.
    reconcile(&site.node, "tap0")?.succeeds()?;
    finds(&site.node, &["missing: ip -6 rule iif tap1", "missing: ip rule iif eth1"])?;
    let rules = site.node.netns.ip("rule show")?;
    ensure!(rules.contains("iif tap0 lookup 100") && !rules.contains("iif eth1"), "{rules}");
    Ok(())
}

/// A bridge that is gone: the NIC on it cannot be mended, the others are.
fn what_cannot_be_mended_is_named() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    node.netns.ip_batch("link add br0 type bridge\nlink set br0 up")?;
    let (_one, _two) = (node.guest("tap0", WEB1)?, node.plug("tap1", WEB2)?);
    node.nic("tap1", WEB2).bridged("br0").unset(&["NETWORK_TAGS"]).ifup()?.succeeds()?;
    node.netns.ip_batch("link del br0\nrule del iif tap0")?;
    reconcile(node, "")?.fails(&["reconcile: tap1: ip link set dev tap1 master br0: there is no bridge br0"])?;
    let rules = node.netns.ip("rule show")?;
    ensure!(rules.contains("iif tap0 lookup 100"), "{rules}");
    Ok(())
}

fn a_record_that_a_crash_left() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let moved = Identity { ip: Ipv4Addr::new(10, 0, 0, 9), ..WEB1 };
    let _guest = node.plug("tap0", WEB1)?;
    let path = node.files.state().join("tap0");
    node.nic("tap0", moved).ifup()?.succeeds()?;
    let old = fs::read_to_string(&path)?;
    node.nic("tap0", WEB1).ifup()?.succeeds()?;
    node.settled("tap0")?;
    node.netns.settle()?;
    let (before, new) = (Snapshot::of(&node.netns)?, fs::read_to_string(&path)?);
    // As if the second ifup had been killed before it cleared away what the first one made.
    fs::write(&path, old + &new)?;
    node.netns.ip("route add 10.0.0.9 dev tap0 table 100 proto 217")?;
    finds(node, &["foreign: ip route 10.0.0.9/32 dev tap0 table 100 proto 217"])?;
    reconcile(node, "")?.succeeds()?;
    before.returns_in(&node.netns, |state| state)?;
    ensure!(fs::read_to_string(&path)? == new, "the record is not the one in force alone");
    Ok(())
}

/// A run for a TAP holds its lock: the others are mended before it ends.
fn a_busy_nic_is_done_last() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let (_one, _two) = (node.guest("tap0", WEB1)?, node.guest("tap1", WEB2)?);
    node.netns.settle()?;
    node.netns.ip_batch("rule del iif tap0\nrule del iif tap1")?;
    let lock = fs::File::open(node.files.state().join("locks-of-interfaces/tap0"))?;
    lock.lock()?;
    let rule = |tap: &str| -> Result<bool> { Ok(node.netns.ip("rule show")?.contains(&format!("iif {tap} lookup"))) };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| reconcile(node, "")?.succeeds());
        let others = crate::harness::until("tap1 to be mended", || rule("tap1"));
        let still = rule("tap0");
        lock.unlock()?;
        run.join().expect("no panic in a run")?;
        others?;
        ensure!(!still?, "tap0 was mended under another run's lock");
        ensure!(rule("tap0")?, "tap0 was not mended");
        Ok(())
    })
}

/// More NICs than one send of either socket takes, under a low limit of open files.
fn many_nics_at_once() -> Result<()> {
    const COUNT: u8 = 120;
    let site = Site::new()?;
    let node = &site.node;
    let mut guests = Vec::new();
    for n in 0..COUNT {
        let mac = Mac([0xaa, 0, 0, 1, 0, n]);
        let id = Identity { mac, ip: Ipv4Addr::new(10, 0, 0, 10 + n), ip6: mac.in_prefix(WEB1.ip6), ..WEB1 };
        let tap = format!("tap{n}");
        guests.push(node.plug(&tap, id)?);
        let uuid = format!("0c2a1a4e-0000-4000-8000-000000000{n:03}");
        node.nic(&tap, id).set("INTERFACE_UUID", uuid).ifup()?.succeeds()?;
    }
    for n in 0..COUNT {
        node.settled(&format!("tap{n}"))?;
    }
    node.netns.settle()?;
    in_sync(node)?;
    let before = Snapshot::of(&node.netns)?;
    node.netns.output(Command::new("nft").args(["flush", "ruleset"]))?;
    node.netns.ip_batch("link set eth1 down\nlink set eth1 up")?;
    for n in 0..COUNT {
        node.netns
            .ip_batch(&format!("rule del iif tap{n}\n-6 rule del iif tap{n}\nroute del 10.0.0.{} table 100", 10 + n))?;
    }
    let mut command = Command::new("prlimit");
    // More files than it has records to lock, but not two for each.
    command.args(["--nofile=80:200", executable(), "reconcile"]);
    node.nic("tap0", WEB1).finish(&mut command)?.succeeds()?;
    in_sync(node)?;
    node.settled("eth1")?;
    before.returns_in(&node.netns, |state| state)?;
    guests.iter().step_by(17).try_for_each(reaches_the_outside)
}
