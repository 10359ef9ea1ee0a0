//! What fails at any step leaves nothing, or what was before; what is killed at any step leaves a state from which the
//! next run reaches the right one.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Test;
use crate::harness::Skip;
use crate::harness::guest::WEB1;
use crate::harness::nic::{Nic, Outcome};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, Site};

pub const TESTS: &[Test] = &[
    ("failure::full_disk_for_the_record", full_disk_for_the_record),
    ("failure::full_disk_for_the_binding", full_disk_for_the_binding),
    ("failure::no_state_folder", no_state_folder),
    ("failure::vanished_tap", vanished_tap),
    ("failure::missing_bridge", missing_bridge),
    ("failure::missing_uplink", missing_uplink),
    ("failure::no_permission", no_permission),
    ("failure::unwritable_log", unwritable_log),
    ("failure::truncated_record", truncated_record),
    ("failure::any_system_call_of_the_first_ifup", any_system_call_of_the_first_ifup),
    ("failure::any_system_call_of_a_second_ifup", any_system_call_of_a_second_ifup),
    ("failure::killed_at_any_system_call_of_ifup", killed_at_any_system_call_of_ifup),
    ("failure::killed_at_any_system_call_of_ifdown", killed_at_any_system_call_of_ifdown),
];

/// A file system without any room left, for as long as this value lives.
struct FullDisk<'a>(&'a Path);

impl<'a> FullDisk<'a> {
    fn on(folder: &'a Path) -> Result<Self> {
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=4096")).context("mount tmpfs")?;
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

/// What changes anything: the calls that talk to the kernel, and those that write files.
const CALLS: [&str; 13] = [
    "sendto", "sendmsg", "recvfrom", "recvmsg", "write", "openat", "fchmod", "mkdir", "rename", "unlink", "flock",
    "socket", "bind",
];

/// Runs a verb under strace, which lets its nth `call` fail or kill; `None` when there were fewer than n.
fn injected(site: &Site, nic: &Nic<'_>, verb: &str, call: &str, fault: &str, n: usize) -> Result<Option<Outcome>> {
    let trace = site.node.files.folder.join("trace");
    let trace_name = trace.display().to_string();
    let (filter, inject) = (format!("trace={call}"), format!("inject={call}:{fault}:when={n}"));
    // Without -f: the detached process is not traced, nor waited for.
    let outcome = nic.run_under(&["strace", "-qq", "-o", &trace_name, "-e", &filter, "-e", &inject], verb)?;
    let text = fs::read_to_string(&trace)?;
    let hit = text.contains("(INJECTED)") || text.contains("+++ killed") || outcome.code.is_none();
    Ok(hit.then_some(outcome))
}

/// strace, or the reason to skip.
fn tracing() -> Result<()> {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    match works {
        Ok(status) if status.success() => Ok(()),
        other => Err(Skip(format!("strace does not work here: {other:?}")).into()),
    }
}

/// A site, whose node has seen one NIC up and down, so that base tables and folders are there.
fn warm() -> Result<(Site, crate::harness::guest::Guest)> {
    tracing()?;
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    let nic = site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    nic.ifup()?.succeeds()?;
    nic.ifdown()?.succeeds()?;
    site.node.netns.settle()?;
    Ok((site, guest))
}

fn served(site: &Site) -> Nic<'_> {
    site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd")
}

/// The state with the NIC up, once what comes by itself has come.
fn settled_up(site: &Site) -> Result<Snapshot> {
    site.node.settled("tap0")?;
    Snapshot::of(&site.node.netns)
}

fn any_system_call_of_the_first_ifup() -> Result<()> {
    let (site, _guest) = warm()?;
    let (netns, nic) = (&site.node.netns, served(&site));
    let before = Snapshot::of(netns)?;
    nic.ifup()?.succeeds()?;
    let up = settled_up(&site)?;
    nic.ifdown()?.succeeds()?;
    before.returns_in(netns, |state| state)?;
    let mut failed = 0;
    for call in CALLS {
        for n in 1.. {
            let Some(outcome) = injected(&site, &nic, "ifup", call, "error=ENOSPC", n)? else {
                nic.ifdown()?.succeeds()?;
                before.returns_in(netns, |state| state)?;
                break;
            };
            let case = || format!("{call} {n}: {outcome:?}");
            if outcome.code == Some(0) {
                // Not essential: the log, an announcement, a hint.
                up.returns_in(netns, |state| state).with_context(case)?;
                nic.ifdown()?.succeeds().with_context(case)?;
            } else {
                failed += 1;
                ensure!(outcome.code == Some(1) && outcome.stderr.lines().count() == 1, "{}", case());
                before.returns_in(netns, |state| state).with_context(case)?;
                ensure!(!site.node.files.state().join("tap0").exists(), "a record is left: {}", case());
            }
            before.returns_in(netns, |state| state).with_context(case)?;
            ensure!(!site.node.files.bindings().join("tap0").exists(), "a binding is left: {}", case());
        }
    }
    ensure!(failed > 5, "only {failed} calls were essential");
    Ok(())
}

fn any_system_call_of_a_second_ifup() -> Result<()> {
    let (site, _guest) = warm()?;
    let (netns, old) = (&site.node.netns, served(&site));
    let new = served(&site).set("IP", "10.0.0.9");
    old.ifup()?.succeeds()?;
    let before = settled_up(&site)?;
    new.ifup()?.succeeds()?;
    let after = settled_up(&site)?;
    old.ifup()?.succeeds()?;
    before.returns_in(netns, |state| state)?;
    for call in CALLS {
        for n in 1.. {
            let Some(outcome) = injected(&site, &new, "ifup", call, "error=ENOSPC", n)? else {
                old.ifup()?.succeeds()?;
                before.returns_in(netns, |state| state)?;
                break;
            };
            let case = || format!("{call} {n}: {outcome:?}");
            if outcome.code == Some(0) {
                // What could not be removed is recorded, and gone with the next run.
                new.ifup()?.succeeds().with_context(case)?;
                after.returns_in(netns, |state| state).with_context(case)?;
            } else {
                before.returns_in(netns, |state| state).with_context(case)?;
            }
            old.ifup()?.succeeds()?;
            before.returns_in(netns, |state| state)?;
        }
    }
    Ok(())
}

fn killed_at_any_system_call_of_ifup() -> Result<()> {
    let (site, _guest) = warm()?;
    let (netns, nic) = (&site.node.netns, served(&site));
    let before = Snapshot::of(netns)?;
    nic.ifup()?.succeeds()?;
    let up = settled_up(&site)?;
    nic.ifdown()?.succeeds()?;
    before.returns_in(netns, |state| state)?;
    for call in CALLS {
        for n in 1.. {
            let case = || format!("killed at {call} {n}");
            // The next run is an ifup, or an ifdown.
            let hit = injected(&site, &nic, "ifup", call, "signal=KILL", n)?;
            nic.ifup()?.succeeds().with_context(case)?;
            up.returns_in(netns, |state| state).with_context(case)?;
            nic.ifdown()?.succeeds().with_context(case)?;
            before.returns_in(netns, |state| state).with_context(case)?;
            if hit.is_none() {
                break;
            }
            injected(&site, &nic, "ifup", call, "signal=KILL", n)?;
            nic.ifdown()?.succeeds().with_context(case)?;
            before.returns_in(netns, |state| state).with_context(|| format!("{}, then ifdown", case()))?;
        }
    }
    Ok(())
}

fn killed_at_any_system_call_of_ifdown() -> Result<()> {
    let (site, _guest) = warm()?;
    let (netns, nic) = (&site.node.netns, served(&site));
    let before = Snapshot::of(netns)?;
    for call in CALLS {
        for n in 1.. {
            let case = || format!("killed at {call} {n}");
            nic.ifup()?.succeeds()?;
            let hit = injected(&site, &nic, "ifdown", call, "signal=KILL", n)?;
            nic.ifdown()?.succeeds().with_context(case)?;
            before.returns_in(netns, |state| state).with_context(case)?;
            if hit.is_none() {
                break;
            }
        }
    }
    Ok(())
}
