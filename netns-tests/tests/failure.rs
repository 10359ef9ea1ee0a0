//! What fails leaves nothing, and says what it was.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Test;
use crate::harness::guest::WEB1;
use crate::harness::nic::Outcome;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, Site};

pub const TESTS: &[Test] = &[
    ("failure::full_disk_for_the_record", full_disk_for_the_record),
    ("failure::full_disk_for_the_binding", full_disk_for_the_binding),
    ("failure::no_state_folder", no_state_folder),
    ("failure::vanished_tap", vanished_tap),
    ("failure::missing_bridge", missing_bridge),
    ("failure::missing_uplink", missing_uplink),
    ("failure::a_set_of_another_type", a_set_of_another_type),
    ("failure::no_permission", no_permission),
    ("failure::unwritable_log", unwritable_log),
    ("failure::truncated_record", truncated_record),
];

/// A file system without any room left, for as long as this value lives.
struct FullDisk<'a>(&'a Path);

impl<'a> FullDisk<'a> {
    fn on(folder: &'a Path) -> Result<Self> {
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=4096,mode=0755"))
            .context("mount tmpfs")?;
        let disk = Self(folder);
        fs::write(folder.join("filler"), [0; 4096])?;
        Ok(disk)
    }
}

impl Drop for FullDisk<'_> {
    fn drop(&mut self) {
        // It goes with the mount namespace, at the latest.
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

/// That the run failed with `parts`, and nothing of it is left.
fn leaves_nothing(node: &Node, before: &Snapshot, outcome: Outcome, parts: &[&str]) -> Result<()> {
    outcome.fails(parts)?;
    before.returns_in(&node.netns, Snapshot::without_base_tables)?;
    ensure!(!node.files.state().join("tap0").exists(), "a record is left");
    let bindings: Vec<_> = fs::read_dir(node.files.bindings())?.collect();
    ensure!(bindings.is_empty(), "left: {bindings:?}");
    Ok(())
}

fn full_disk_for_the_record() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(&site.node.netns)?;
    let state = site.node.files.state();
    let nic = site.node.nic("tap0", WEB1);
    let disk = FullDisk::on(&state)?;
    leaves_nothing(&site.node, &before, nic.ifup()?, &["ifup tap0", "STATE_DIR", "No space left"])?;
    drop(disk);
    nic.ifup()?.succeeds()?;
    guest.ping(OUTSIDE).map(drop)
}

fn full_disk_for_the_binding() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(&site.node.netns)?;
    let small = site.node.files.folder.join("small");
    fs::create_dir(&small)?;
    let disk = FullDisk::on(&small)?;
    fs::create_dir(small.join("nfdhcpd"))?;
    site.node.files.set(&format!("NFDHCPD_STATE_DIR={}", small.join("nfdhcpd").display()))?;
    let nic = site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    leaves_nothing(&site.node, &before, nic.ifup()?, &["ifup tap0", "nfdhcpd/tap0", "No space left"])?;
    fs::remove_file(small.join("filler"))?;
    nic.ifup()?.succeeds()?;
    guest.ping(OUTSIDE)?;
    nic.ifdown()?.succeeds()?;
    drop(disk);
    Ok(())
}

fn no_state_folder() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(&site.node.netns)?;
    site.node.files.set("STATE_DIR=/proc/nowhere")?;
    leaves_nothing(&site.node, &before, site.node.nic("tap0", WEB1).ifup()?, &["STATE_DIR", "/proc/nowhere"])
}

fn vanished_tap() -> Result<()> {
    let site = Site::new()?;
    let before = Snapshot::of(&site.node.netns)?;
    let outcome = site.node.nic("tap0", WEB1).ifup()?;
    leaves_nothing(&site.node, &before, outcome, &["ifup tap0", "INTERFACE", "no such interface"])
}

fn missing_bridge() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(&site.node.netns)?;
    let nic = || site.node.nic("tap0", WEB1).without_network();
    let outcome = nic().bridged("br7").ifup()?;
    leaves_nothing(&site.node, &before, outcome, &["ifup tap0", "LINK", "br7", "no such bridge"])?;
    let outcome = nic().bridged("eth0").ifup()?;
    leaves_nothing(&site.node, &before, outcome, &["ifup tap0", "LINK", "eth0", "no bridge"])
}

fn missing_uplink() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let outcome = |parts: &[&str]| -> Result<()> {
        let before = Snapshot::of(&site.node.netns)?;
        leaves_nothing(&site.node, &before, site.node.nic("tap0", WEB1).ifup()?, parts)
    };
    site.node.netns.ip("-6 route del default via 2001:db8:1::1 table 100")?;
    outcome(&["LINK", "100", "IPv6 default route"])?;
    site.node.netns.ip("route del default via 10.0.0.1 table 100")?;
    outcome(&["LINK", "100", "IPv4 default route"])
}

/// Somebody's set under our name: said once where, and what to do.
fn a_set_of_another_type() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = site.node.plug("tap0", WEB1)?;
    netns.ip("link add br0 type bridge")?;
    let nic = site.node.nic("tap0", WEB1).bridged("br0").set("NETWORK_TAGS", "private-filtered");
    let nic = nic.set("NETWORK_MAC_PREFIX", "aa:00:00");
    // The same key with other flags; keys of another length.
    for key in ["type ifname; flags timeout;", "type ether_addr;", "type ifname . ether_addr;"] {
        let theirs = format!("table bridge snf-network {{ set filtered {{ {key} }}; }}");
        netns.fed(Command::new("nft").args(["-f", "-"]), &theirs)?;
        let before = Snapshot::of(netns)?;
        let said = "ifup tap0: nf_tables: set bridge snf-network filtered has another type";
        let cure = "remove it with: nft delete table bridge snf-network";
        leaves_nothing(&site.node, &before, nic.ifup()?, &[said, cure]).context(key)?;
        netns.output(Command::new("nft").args(["delete", "table", "bridge", "snf-network"]))?;
    }
    // One that this NIC does not need is nobody's concern.
    netns.fed(Command::new("nft").args(["-f", "-"]), "table inet snf-network { set guarded { type ipv4_addr; }; }")?;
    nic.ifup()?.succeeds()?;
    nic.ifdown()?.succeeds().map(drop)
}

fn no_permission() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(&site.node.netns)?;
    let nic = site.node.nic("tap0", WEB1);
    let powerless = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let outcome = nic.run_under(&powerless, "ifup")?;
    outcome.fails(&["ifup tap0", "Operation not permitted"])?;
    before.returns_in(&site.node.netns, Snapshot::without_base_tables)?;
    nic.ifup()?.succeeds()?;
    // And down: what could not be removed is said, and not forgotten.
    nic.run_under(&powerless, "ifdown")?.fails(&["ifdown tap0", "Operation not permitted"])?;
    nic.ifdown()?.succeeds()?;
    before.returns_in(&site.node.netns, Snapshot::without_base_tables)
}

fn unwritable_log() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    for log in ["/proc/nowhere/log", "/dev/full", "/"] {
        site.node.files.set(&format!("LOGFILE={log}"))?;
        site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
        guest.ping(OUTSIDE)?;
        site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    }
    Ok(())
}

fn truncated_record() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = site.node.guest("tap0", WEB1)?;
    let nic = site.node.nic("tap0", WEB1);
    let path = site.node.files.state().join("tap0");
    let whole = fs::read(&path)?;
    for length in [0, 1, whole.len() / 3, whole.len() / 2, whole.len() - 2] {
        fs::write(&path, &whole[..length])?;
        // Either it tears down what it can tell, or it says what is wrong; it never panics.
        let outcome = nic.ifdown()?;
        ensure!(matches!(outcome.code, Some(0 | 1)) && !outcome.stderr.contains("panicked"), "{length}: {outcome:?}");
        nic.ifup()?.succeeds().with_context(|| format!("{length} bytes"))?;
        guest.ping(OUTSIDE)?;
    }
    nic.ifdown()?.succeeds()?;
    let left = Snapshot::of(netns)?;
    for address in WEB1.addresses() {
        ensure!(left.naming(&address.to_string()).is_empty(), "{:#?}", left.naming(&address.to_string()));
    }
    Ok(())
}
