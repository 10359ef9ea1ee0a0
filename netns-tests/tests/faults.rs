//! Faults at every step, injected by strace: what fails at any system call leaves nothing, or what was before; what is
//! killed at any of them leaves a state from which the next run reaches the right one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::harness::guest::{Guest, WEB1};
use crate::harness::nic::{Nic, Outcome};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Site;
use crate::harness::{Skip, until};

pub const TESTS: &[Test] = &[
    ("faults::tap_vanishes_at_any_request", tap_vanishes_at_any_request),
    ("faults::any_system_call_of_the_first_ifup", any_system_call_of_the_first_ifup),
    ("faults::any_system_call_of_a_second_ifup", any_system_call_of_a_second_ifup),
    ("faults::killed_at_any_system_call_of_ifup", killed_at_any_system_call_of_ifup),
    ("faults::killed_at_any_system_call_of_ifdown", killed_at_any_system_call_of_ifdown),
];

/// What changes anything: the calls that talk to the kernel, and those that write files.
const CALLS: [&str; 15] = [
    "sendto", "sendmsg", "recvfrom", "recvmsg", "write", "openat", "openat2", "fchmod", "mkdir", "mkdirat", "renameat",
    "unlinkat", "flock", "socket", "bind",
];

fn trace_of(site: &Site) -> PathBuf {
    site.node.files.folder.join("trace")
}

/// Runs a verb under strace, which lets its nth `call` fail or kill; `None` when there were fewer than n.
fn injected(site: &Site, nic: &Nic<'_>, verb: &str, call: &str, fault: &str, n: usize) -> Result<Option<Outcome>> {
    let trace = trace_of(site);
    // That of the run before.
    let _ = fs::remove_file(&trace);
    let trace_name = trace.display().to_string();
    let (filter, inject) = (format!("trace={call}"), format!("inject={call}:{fault}:when={n}"));
    // Without -f: the detached process is not traced, nor waited for.
    let outcome = nic.run_under(&["strace", "-qq", "-o", &trace_name, "-e", &filter, "-e", &inject], verb)?;
    let text = fs::read_to_string(&trace)?;
    let hit = ["(INJECTED)", "stopped by SIGSTOP"].iter().any(|mark| text.contains(mark))
        || text.contains("+++ killed")
        || outcome.code.is_none();
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
fn warm() -> Result<(Site, Guest)> {
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

/// Stops ifup before each of its netlink requests, takes the TAP away, and lets it go on.
fn tap_vanishes_at_any_request() -> Result<()> {
    tracing()?;
    let site = Site::new()?;
    let (netns, nic) = (&site.node.netns, served(&site));
    let before = Snapshot::of(netns)?;
    let mut failed = 0;
    for n in 1.. {
        let guest = site.node.plug("tap0", WEB1)?;
        let _ = fs::remove_file(trace_of(&site));
        let outcome = thread::scope(|scope| -> Result<_> {
            let run = scope.spawn(|| injected(&site, &nic, "ifup", "sendto", "signal=STOP", n));
            let waited = until("ifup to stop or to end", || Ok(run.is_finished() || stopped(&site)?.is_some()));
            let gone = site.node.unplug(guest, "tap0");
            // Nothing may return before this, or the run would stay stopped and be waited for.
            if let Ok(Some(process)) = stopped(&site) {
                kill(process, Signal::SIGCONT)?;
            }
            waited.and(gone)?;
            run.join().expect("no panic in a run")
        })?;
        let Some(outcome) = outcome else { break };
        let case = || format!("gone at request {n}: {outcome:?}");
        ensure!(matches!(outcome.code, Some(0 | 1)) && outcome.stderr.lines().count() <= 1, "{}", case());
        if outcome.code == Some(1) {
            failed += 1;
            ensure!(outcome.stderr.contains("ifup tap0: "), "{}", case());
        } else {
            nic.ifdown()?.succeeds().with_context(case)?;
        }
        before.returns_in(netns, Snapshot::without_base_tables).with_context(case)?;
        ensure!(!site.node.files.bindings().join("tap0").exists(), "a binding is left: {}", case());
    }
    ensure!(failed > 0, "it never failed");
    nic.ifdown()?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

/// The program, if strace says that it has been stopped.
fn stopped(site: &Site) -> Result<Option<Pid>> {
    let trace = fs::read_to_string(trace_of(site)).unwrap_or_default();
    if !trace.contains("stopped by SIGSTOP") {
        return Ok(None);
    }
    let is_traced = |process: &PathBuf| {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    };
    let found = site.node.netns.processes()?.into_iter().find(is_traced);
    Ok(found.and_then(|process| process.file_name()?.to_str()?.parse().ok()).map(Pid::from_raw))
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
