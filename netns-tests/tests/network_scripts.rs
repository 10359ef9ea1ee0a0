//! Ganeti 3.2's network/MODE/up and down: by name or ACTION, around a migration, in mode ext, and down at odd times.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::build::executable;
use crate::harness::guest::{Identity, WEB1, WEB2};
use crate::harness::nic::{Nic, Outcome};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[
    ("network_scripts::by_name_or_by_action", by_name_or_by_action),
    ("network_scripts::before_and_after_a_migration", before_and_after_a_migration),
    ("network_scripts::ext_does_what_the_tags_name", ext_does_what_the_tags_name),
    ("network_scripts::ext_without_a_tag_is_left_alone", ext_without_a_tag_is_left_alone),
    ("network_scripts::down_twice_and_too_late", down_twice_and_too_late),
];

/// Runs a link of that name in network/ext, with the TAP as its argument.
fn call(node: &Node, nic: &Nic, name: &str) -> Result<Outcome> {
    let folder = node.files.folder.join("network/ext");
    fs::create_dir_all(&folder)?;
    let link = folder.join(name);
    if !link.exists() {
        symlink(executable(), &link)?;
    }
    nic.finish(Command::new(&link).arg("tap0"))
}

fn is_up(node: &Node) -> Result<bool> {
    Ok(node.netns.ip("-o link show dev tap0")?.contains(",UP"))
}

fn by_name_or_by_action() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _guest = node.plug("tap0", WEB1)?;
    let nic = |action: &str| node.nic("tap0", WEB1).set("ACTION", action);
    for (up, down) in [("up", "down"), ("50-network", "50-network")] {
        call(node, &nic("up"), up)?.succeeds()?;
        ensure!(is_up(node)?, "{up}");
        call(node, &nic("down"), down)?.succeeds()?;
        ensure!(!is_up(node)?, "{down}");
    }
    // A name that says what to do is believed, and so is a command.
    call(node, &nic("down"), "up")?.succeeds()?;
    ensure!(is_up(node)?, "up with ACTION=down");
    nic("up").ifdown()?.succeeds()?;
    ensure!(!is_up(node)?, "ifdown with ACTION=up");
    // ACTION is others' variable, too, and an ifup-extra that mistypes a command must not run ifup again.
    call(node, &nic("add"), "50-network")?.fails(&["\"tap0\" is no command"])?;
    nic("up").run("lgo")?.fails(&["\"lgo\" is no command"])?;
    ensure!(!is_up(node)?, "it went up");
    Ok(())
}

fn before_and_after_a_migration() -> Result<()> {
    const TAGS: &str = "ip-less-routed nfdhcpd";
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let guest = node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let nic = |phase: &str| node.nic("tap0", WEB1).set("NETWORK_TAGS", TAGS).set("MIGRATION_PHASE", phase);
    let binding = node.files.bindings().join("tap0");
    let wire = site.wire()?;
    for _ in 0..2 {
        nic("pre").ifup()?.succeeds()?;
        netns.settle()?;
        let prepared = Snapshot::of(netns)?;
        ensure!(!is_up(node)?, "the link is up");
        for address in WEB1.addresses().map(|it| it.to_string()) {
            let led = prepared.naming(&address);
            let led: Vec<_> = led.into_iter().filter(|line| line.starts_with("ip ")).collect();
            ensure!(led.is_empty(), "{led:#?}");
            wire.never(&format!("ARP, Request who-has {address} tell {address}"))?;
        }
        ensure!(!binding.exists(), "nfdhcpd was told");
        // What restrains it stands.
        let filters = prepared.naming("tap0");
        ensure!(filters.iter().any(|line| line.starts_with("nft ")), "{filters:#?}");
    }
    nic("pre").ifdown()?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)?;

    nic("pre").ifup()?.succeeds()?;
    nic("post").ifup()?.succeeds()?;
    wire.expect(&format!("ARP, Request who-has {ip} tell {ip}", ip = WEB1.ip))?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    ensure!(binding.exists(), "nfdhcpd was not told");
    // The same as without a migration.
    let fresh = Site::new()?;
    let _guest = fresh.node.plug("tap0", WEB1)?;
    fresh.node.nic("tap0", WEB1).set("NETWORK_TAGS", TAGS).ifup()?.succeeds()?;
    for node in [node, &fresh.node] {
        node.settled("tap0")?;
        node.netns.settle()?;
    }
    Snapshot::of(&fresh.node.netns)?.returns_in(netns, |state| state)?;
    nic("post").ifdown()?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

fn ext_does_what_the_tags_name() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let guest = node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let nic = || node.nic("tap0", WEB1).set("MODE", "ext").set("ACTION", "up");
    call(node, &nic(), "up")?.succeeds()?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    call(node, &nic(), "down")?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)?;
    // What a tag promises is done or refused.
    for tag in ["private-filtered", "strict-filtered", "nfdhcpd"] {
        call(node, &nic().set("NETWORK_TAGS", tag), "up")?.fails(&["MODE: \"ext\"", tag])?;
    }
    before.returns_in(netns, Snapshot::without_base_tables)
}

fn ext_without_a_tag_is_left_alone() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let _other = node.plug("tap0", WEB2)?;
    // Somebody else's work.
    netns.ip("link set tap0 up")?;
    node.settled("tap0")?;
    netns.settle()?;
    let before = Snapshot::of(netns)?;
    let ext = |id: Identity| node.nic("tap0", id).without_network().unset(&["IP"]).set("MODE", "ext");
    for name in ["up", "up", "down", "down"] {
        call(node, &ext(WEB2), name)?.succeeds()?;
        before.equals(&Snapshot::of(netns)?).context(name)?;
    }
    let log = fs::read_to_string(node.files.log())?;
    ensure!(log.contains("up tap0 web2.example.org: nothing to set up"), "{log}");
    ensure!(!node.files.state().join("tap0").exists(), "something is recorded");
    Ok(())
}

fn down_twice_and_too_late() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let guest = node.plug("tap0", WEB1)?;
    let (before, mac) = (Snapshot::of(netns)?, netns.mac_of("tap0")?);
    let nic = |id: Identity| node.nic("tap0", id).set("ACTION", "down");
    call(node, &nic(WEB1), "up")?.succeeds()?;
    for _ in 0..3 {
        // The guest is still alive.
        call(node, &nic(WEB1), "down")?.succeeds()?;
        before.returns_in(netns, Snapshot::without_base_tables)?;
    }
    call(node, &nic(WEB1), "up")?.succeeds()?;
    node.unplug(guest, "tap0")?;
    let new = node.plug("tap0", WEB2)?;
    call(node, &nic(WEB2), "up")?.succeeds()?;
    node.settled("tap0")?;
    netns.settle()?;
    let taken = Snapshot::of(netns)?;
    for _ in 0..2 {
        let late = call(node, &nic(WEB1), "down")?.succeeds()?;
        ensure!(late.stderr.contains("web2.example.org"), "{late:#?}");
        taken.equals(&Snapshot::of(netns)?)?;
    }
    new.ping(OUTSIDE)?;
    new.ping(OUTSIDE6)?;
    // A NIC that others connect takes over: nothing of the old one is left.
    node.unplug(new, "tap0")?;
    let _third = node.plug("tap0", WEB1)?;
    netns.ip(&format!("link set tap0 address {mac}"))?;
    call(node, &nic(WEB1).without_network().unset(&["IP"]).set("MODE", "ext"), "up")?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}
