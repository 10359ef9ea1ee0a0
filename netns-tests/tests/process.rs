//! What the program is as a process: alone, and gone before its caller waits.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::Skip;
use crate::harness::guest::WEB1;
use crate::harness::topology::Site;

pub const TESTS: &[Test] = &[
    ("process::runs_no_other_program", runs_no_other_program),
    ("process::extra_script_is_the_last_act", extra_script_is_the_last_act),
    ("process::the_demo_succeeds", the_demo_succeeds),
    ("process::the_log_in_ip_and_nft_words", the_log_in_ip_and_nft_words),
];

/// The system calls by which a program is started.
const EXEC: [&str; 2] = ["execve(", "execveat("];

fn runs_no_other_program() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let trace = site.node.files.folder.join("trace");
    let trace_name = trace.display().to_string();
    let nic = site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd");
    for verb in ["plan", "ifup", "ifup", "ifdown", "ifdown"] {
        // -f: what the program leaves behind is watched to its end.
        let outcome = nic.run_under(&["strace", "-f", "-qq", "-o", &trace_name, "-e", "trace=process"], verb);
        let outcome = outcome.map_err(|error| Skip(format!("strace: {error:#}")))?;
        outcome.succeeds()?;
        let text = fs::read_to_string(&trace)?;
        let execs: Vec<_> = text.lines().filter(|line| EXEC.iter().any(|call| line.contains(call))).collect();
        ensure!(execs.len() == 1, "{verb} runs other programs: {execs:#?}");
        ensure!(!text.contains("vfork"), "{verb} prepares to run another program:\n{text}");
    }
    Ok(())
}

/// The demo makes its own namespaces, inside ours.
fn the_demo_succeeds() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_snf-network")).arg("demo").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.contains("steps are ok") && !text.contains("FAILED"), "{text}");
    Ok(())
}

fn extra_script_is_the_last_act() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let folder = &site.node.files.folder;
    let (script, seen) = (folder.join("extra"), folder.join("seen"));
    let text = format!(
        "#!/bin/sh\n{{ echo \"arguments $*\"; env; ip rule show; ip -br link show dev tap0; }} > {}\nexit 7\n",
        seen.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    site.node.files.set(&format!("IFUP_EXTRA_SCRIPT={}", script.display()))?;
    let nic = site.node.nic("tap0", WEB1).set("SOMETHING", "of Ganeti's");
    let trace = folder.join("trace");
    // Only the first process is traced: were the script its child, the trace would not have it.
    let outcome = nic
        .run_under(&["strace", "-qq", "-o", &trace.display().to_string(), "-e", "trace=execve"], "ifup")
        .map_err(|error| Skip(format!("strace: {error:#}")))?;
    ensure!(outcome.code == Some(7), "its exit code is to be the run's: {outcome:?}");
    let seen = fs::read_to_string(&seen)?;
    for part in ["arguments tap0", "INTERFACE=tap0", "SOMETHING=of Ganeti's", "iif tap0 lookup 100", "UP"] {
        ensure!(seen.contains(part), "expected {part:?} in {seen}");
    }
    let trace = fs::read_to_string(&trace)?;
    ensure!(trace.matches("execve(").count() == 2 && trace.contains("/extra\""), "{trace}");
    // What cannot be run is said; the network stands.
    fs::remove_file(&script)?;
    nic.ifup()?.fails(&["IFUP_EXTRA_SCRIPT", "extra"])?;
    Ok(())
}

fn the_log_in_ip_and_nft_words() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.guest("tap0", WEB1)?;
    site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    let log = fs::read_to_string(site.node.files.log())?;
    for part in [
        "ifup tap0 web1.example.org: ip -4 rule add iif tap0 lookup 100",
        "ifup tap0 web1.example.org: ip -4 route replace 10.0.0.2/32 dev tap0 table 100",
        "ifup tap0 web1.example.org: ip -6 neigh replace proxy 2001:db8:1:0:a800:ff:fe12:3456 dev eth1",
        "ifup tap0 web1.example.org: nft add element",
        "ifup tap0 web1.example.org: echo 1 > /proc/sys/net/ipv4/conf/tap0/proxy_arp",
        "ifup tap0 web1.example.org: announce",
        "ifdown tap0 web1.example.org: ip -4 rule del iif tap0 lookup 100",
    ] {
        ensure!(log.contains(part), "expected {part:?} in\n{log}");
    }
    for line in log.lines() {
        let time = line.split(' ').next().unwrap_or_default();
        ensure!(time.len() >= 20 && time.ends_with('Z'), "no time: {line:?}");
    }
    Ok(())
}
