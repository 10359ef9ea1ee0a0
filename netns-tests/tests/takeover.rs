//! A TAP that goes from one NIC to another, or from one setup to another: what restrained it goes last, and only its own.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::Skip;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[
    ("takeover::a_link_that_stays_up_keeps_what_restrains_it", a_link_that_stays_up_keeps_what_restrains_it),
    ("takeover::out_of_a_filtered_bridge", out_of_a_filtered_bridge),
    ("takeover::into_a_filtered_bridge", into_a_filtered_bridge),
    ("takeover::a_running_guest_keeps_its_proxy_entry", a_running_guest_keeps_its_proxy_entry),
    ("takeover::a_lost_record", a_lost_record),
    ("takeover::nothing_asked_of_the_node_is_passed_over", nothing_asked_of_the_node_is_passed_over),
];

/// Whether the guest can reach anything through this interface.
fn is_up(site: &Site, tap: &str) -> Result<bool> {
    Ok(site.node.netns.ip(&format!("link show dev {tap}"))?.contains(",UP"))
}

fn a_link_that_stays_up_keeps_what_restrains_it() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    site.node.settled("tap0")?;
    guest.ping(OUTSIDE)?;
    let nic = site.node.nic("tap0", WEB1);
    let restrained = |snapshot: &Snapshot| {
        let of_tap = snapshot.naming("tap0").into_iter().filter(|it| it.starts_with("nft") || it.contains("rule"));
        of_tap.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = restrained(&Snapshot::of(&site.node.netns)?);
    ensure!(before.len() > 4, "{before:#?}");
    let mut refused = 0;
    // One of the first sends is the one that sets the link down.
    for send in 1..=4 {
        let fault = format!("inject=sendto:error=ENOBUFS:when={send}");
        let outcome =
            nic.run_under(&["strace", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", &fault], "ifdown");
        let outcome = outcome.map_err(|error| Skip(format!("strace: {error:#}")))?;
        if is_up(&site, "tap0")? {
            refused += 1;
            let after = restrained(&Snapshot::of(&site.node.netns)?);
            ensure!(after == before, "send {send}: {before:#?} became {after:#?} with the link up: {outcome:?}");
        } else {
            nic.ifup()?.succeeds()?;
        }
    }
    ensure!(refused > 0, "the link was never up after a fault");
    Ok(())
}

/// The steps that ifup takes, as the messages it sends.
fn sends(site: &Site, nic: &crate::harness::nic::Nic<'_>) -> Result<String> {
    let trace = site.node.files.folder.join("sends");
    let name = trace.display().to_string();
    let wrapper = ["strace", "-qq", "-s", "4096", "-o", &name, "-e", "trace=sendto"];
    nic.run_under(&wrapper, "ifup").map_err(|error| Skip(format!("strace: {error:#}")))?.succeeds()?;
    Ok(fs::read_to_string(trace)?)
}

fn out_of_a_filtered_bridge() -> Result<()> {
    let site = Site::new()?;
    site.node.netns.ip_batch("link add br0 type bridge\nlink add br1 type bridge\nlink set br0 up\nlink set br1 up")?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let nic = || site.node.nic("tap0", WEB1).unset(&["NETWORK_TAGS"]);
    nic().bridged("br0").set("NETWORK_TAGS", "private-filtered").ifup()?.succeeds()?;
    let trace = sends(&site, &nic().bridged("br1"))?;
    let down = trace.find("RTM_SETLINK").context("no RTM_SETLINK")?;
    let unfiltered = trace.find("NFT_MSG_DELSETELEM").context("no NFT_MSG_DELSETELEM")?;
    ensure!(down < unfiltered, "the filters went while the port was up in its old bridge:\n{trace}");
    ensure!(is_up(&site, "tap0")?);
    ensure!(site.node.netns.ip("link show dev tap0")?.contains("master br1"));
    ensure!(Snapshot::of(&site.node.netns)?.naming("tap0").iter().all(|it| !it.starts_with("nft")));
    Ok(())
}

fn into_a_filtered_bridge() -> Result<()> {
    let site = Site::new()?;
    site.node.netns.ip_batch("link add br0 type bridge\nlink set br0 up")?;
    let _guest = site.node.guest("tap0", WEB1)?;
    let nic = site.node.nic("tap0", WEB1).bridged("br0").set("NETWORK_TAGS", "private-filtered");
    let trace = sends(&site, &nic)?;
    // The flags change, and IFF_UP is not among them.
    let mut changes = trace
        .match_indices("ifi_flags=0, ifi_change=")
        .filter(|(at, text)| !trace[at + text.len()..].starts_with("0}"));
    let (down, _) = changes.next().context("the link did not go down")?;
    let join = trace.rfind("IFLA_MASTER").context("no IFLA_MASTER")?;
    ensure!(down < join, "the port joined the bridge while it was up:\n{trace}");
    ensure!(site.node.netns.ip("link show dev tap0")?.contains("master br0") && is_up(&site, "tap0")?);
    Ok(())
}

/// Ganeti 3.0 and 3.1 never call down: a guest that comes back on another TAP leaves its record behind, and another guest's
/// ifup, or a late ifdown, clears that away.
fn a_running_guest_keeps_its_proxy_entry() -> Result<()> {
    let site = Site::new()?;
    let entry = || -> Result<bool> {
        Ok(site.node.netns.ip("-6 neigh show proxy")?.contains(&format!("{} dev eth1", WEB1.ip6)))
    };
    site.node.unplug(site.node.guest("tap0", WEB1)?, "tap0")?;
    let again = site.node.guest("tap3", WEB1)?;
    again.ping(OUTSIDE6)?;
    let _other = site.node.guest("tap0", WEB2)?;
    ensure!(entry()?, "another guest's ifup took the entry away");
    again.ping(OUTSIDE6)?;
    // Once the guest itself goes, so does its entry.
    site.node.nic("tap3", WEB1).ifdown()?.succeeds()?;
    ensure!(!entry()?, "the entry stays for ever");
    Ok(())
}

fn a_lost_record() -> Result<()> {
    let site = Site::new()?;
    site.node.unplug(site.node.guest("tap0", WEB1)?, "tap0")?;
    site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    fs::remove_file(site.node.files.state().join("tap0"))?;
    fs::write(site.node.files.bindings().join("tap0"), "INDEV=tap0\n")?;
    let _guest = site.node.plug("tap0", WEB2)?;
    site.node.nic("tap0", WEB2).unset(&["LINK", "NETWORK_TAGS"]).ifup()?.succeeds()?;
    let after = Snapshot::of(&site.node.netns)?;
    let stale: Vec<_> =
        after.naming("tap0").into_iter().filter(|it| it.contains(WEB1.name) || it.contains("rule")).collect();
    ensure!(stale.is_empty(), "{stale:#?}");
    ensure!(!site.node.files.bindings().join("tap0").exists(), "the binding stays");
    Ok(())
}

fn nothing_asked_of_the_node_is_passed_over() -> Result<()> {
    let site = Site::new()?;
    let before = Snapshot::of(&site.node.netns)?;
    for (words, options, message) in [
        (["node", "down"], "--dev eth1 --dry-run", "--dry-run"),
        (["node", "up"], "--dev eth1 --table 100", "nothing is asked for"),
        (["node", "up"], "--dev eth1 --table 100 --family inet6 --gateway 10.0.0.1", "expected an address of IPv6"),
    ] {
        site.node.files.run(&site.node.netns, &words, options)?.fails(&[message])?;
        before.equals(&Snapshot::of(&site.node.netns)?)?;
    }
    Ok(())
}
