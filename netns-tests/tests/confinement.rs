//! What a run gives up before it reads anything, seen from outside.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::hostile::{chmod, held, plugged};
use crate::Test;
use crate::harness::guest::WEB1;
use crate::harness::nic::Nic;
use crate::harness::topology::Node;
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("confinement::capabilities_of_a_run", capabilities_of_a_run),
    ("confinement::the_script_has_all_of_them", the_script_has_all_of_them),
    ("confinement::the_announcer_is_confined", the_announcer_is_confined),
];

/// A line of /proc/PID/status; none if the process is gone.
fn status(process: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(process.join("status")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

const NET_RAW: u64 = 1 << 13;
const NET_ADMIN: u64 = 1 << 12;
const DAC_OVERRIDE: u64 = 1 << 1;

/// What a process has: its permitted and effective capabilities, no_new_privs, and the mode of seccomp.
fn confinement(process: &Path) -> Option<[String; 4]> {
    let [permitted, effective, new, mode] =
        ["CapPrm", "CapEff", "NoNewPrivs", "Seccomp"].map(|key| status(process, key));
    Some([permitted?, effective?, new?, mode?])
}

fn expected(capabilities: u64, confined: bool) -> [String; 4] {
    let (all, new, mode) = (format!("{capabilities:016x}"), u8::from(confined), if confined { 2 } else { 0 });
    [all.clone(), all, new.to_string(), mode.to_string()]
}

fn capabilities_of_a_run() -> Result<()> {
    let (site, _guest) = plugged()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1);
    let (lock, uplinks) = (held(node, "tap0")?, held(node, "uplinks-by-device")?);
    let of_a_nic = NET_ADMIN | NET_RAW | DAC_OVERRIDE;
    let runs = [
        ("ifup", nic.start("ifup")?, expected(of_a_nic, false)),
        ("ifdown", nic.start("ifdown")?, expected(of_a_nic, false)),
        (
            "node",
            node.files.start(&node.netns, &["node", "up"], Node::UPLINK)?,
            expected(NET_ADMIN | DAC_OVERRIDE, true),
        ),
    ];
    for (verb, run, expected) in &runs {
        let process = Path::new("/proc").join(run.id().to_string());
        // It waits for the lock, long before its time is up.
        let mut seen = None;
        let reached = until("what a run keeps", || {
            seen = confinement(&process);
            Ok(seen.as_ref() == Some(expected))
        });
        reached.with_context(|| format!("{verb}: {seen:?}, expected {expected:?}"))?;
        let others = ["CapInh", "CapAmb"].map(|key| status(&process, key));
        ensure!(others == ["0000000000000000"; 2].map(|it| Some(it.to_owned())), "{verb}: {others:?}");
    }
    drop((lock, uplinks));
    for (_, run, _) in runs {
        run.finish()?.succeeds()?;
    }
    Ok(())
}

fn the_script_has_all_of_them() -> Result<()> {
    let (site, _guest) = plugged()?;
    let node = &site.node;
    let (script, seen) = (node.files.folder.join("extra"), node.files.folder.join("seen"));
    fs::write(&script, format!("#!/bin/sh\ncat /proc/self/status > {}\n", seen.display()))?;
    chmod(&script, 0o755)?;
    node.files.set(&format!("IFUP_EXTRA_SCRIPT={}", script.display()))?;
    node.nic("tap0", WEB1).ifup()?.succeeds()?;
    let theirs = fs::read_to_string(&seen)?;
    node.netns.output(&mut Command::new(&script))?;
    let ours = fs::read_to_string(&seen)?;
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"] {
        let line = |text: &str| text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        ensure!(line(&theirs).is_some() && line(&theirs) == line(&ours), "{theirs}\nexpected {ours}");
    }
    Ok(())
}

/// What the process that an ifup leaves has at last.
fn left_by(node: &Node, nic: &Nic<'_>) -> Result<[String; 4]> {
    // On a slow machine it may be gone before it is looked at.
    for _ in 0..5 {
        nic.ifup()?.succeeds()?;
        let mut last = None;
        until("a confined process, or its end", || {
            let processes = node.netns.processes()?;
            let confined = processes.iter().filter_map(|it| confinement(it)).find(|it| it[3] == "2");
            last = confined.or(last.take());
            Ok(last.is_some() || processes.is_empty())
        })?;
        if let Some(last) = last {
            return Ok(last);
        }
    }
    bail!("no confined process was left in five runs")
}

fn the_announcer_is_confined() -> Result<()> {
    let (site, _guest) = plugged()?;
    let node = &site.node;
    let seen = left_by(node, &node.nic("tap0", WEB1))?;
    ensure!(seen == expected(NET_RAW, true), "{seen:?}");
    node.netns.settle()?;
    // One that sends nothing but ARP has its socket already.
    let seen = left_by(node, &node.nic("tap0", WEB1).only_v4())?;
    ensure!(seen == expected(0, true), "{seen:?}");
    node.netns.settle()
}
