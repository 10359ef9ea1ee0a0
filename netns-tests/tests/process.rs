//! What the program is as a process: alone, and gone before its caller waits.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::Skip;
use crate::harness::build::executable;
use crate::harness::guest::WEB1;
use crate::harness::topology::Site;

pub const TESTS: &[Test] = &[
    ("process::runs_no_other_program", runs_no_other_program),
    ("process::extra_script_is_the_last_act", extra_script_is_the_last_act),
    ("process::extra_script_is_told_what_common_sh_knew", extra_script_is_told_what_common_sh_knew),
    ("process::an_administrators_line_in_the_log", an_administrators_line_in_the_log),
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
    let output = Command::new(executable()).arg("demo").output()?;
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

const TOLD: [&str; 6] = ["EUI64", "TABLE", "INDEV", "BRIDGE", "UPLINK", "UPLINK6"];

fn extra_script_is_told_what_common_sh_knew() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let _guest = node.plug("tap0", WEB1)?;
    netns.ip("link add br0 up type bridge")?;
    let (script, seen) = (node.files.folder.join("extra"), node.files.folder.join("seen"));
    // A variable that is not set ends it.
    let lines: String = TOLD.iter().map(|name| format!("echo \"{name}=${name}\"\n")).collect();
    fs::write(&script, format!("#!/bin/sh -eu\nexec > {}\n{lines}", seen.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    node.files.set(&format!("IFUP_EXTRA_SCRIPT={}", script.display()))?;
    let eui64 = WEB1.ip6.to_string();
    let nic = || node.nic("tap0", WEB1);
    let plain = || nic().set("NETWORK_TAGS", "");
    for (nic, expected) in [
        (nic(), [&*eui64, "100", "tap0", "", "eth1", "eth1"]),
        (nic().only_v4(), ["", "100", "tap0", "", "eth1", ""]),
        // Also where the setup needs no uplink.
        (plain(), [&eui64, "100", "tap0", "", "eth1", ""]),
        (plain().unset(&["LINK"]), [&eui64, "main", "tap0", "", "eth0", ""]),
        (plain().bridged("br0"), [&eui64, "", "br0", "br0", "", ""]),
        (plain().bridged("br0").without_network(), ["", "", "br0", "br0", "", ""]),
        (plain().set("MODE", "ext"), [&eui64, "", "", "", "", ""]),
        // What a caller's environment holds by these names does not count.
        (nic().set("UPLINK", "$(reboot)").set("TABLE", "7"), [&eui64, "100", "tap0", "", "eth1", "eth1"]),
    ] {
        nic.ifup()?.succeeds()?;
        let expected: String = TOLD.iter().zip(expected).map(|(name, value)| format!("{name}={value}\n")).collect();
        let seen = fs::read_to_string(&seen)?;
        ensure!(seen == expected, "{seen}, expected\n{expected}");
        nic.ifdown()?.succeeds()?;
    }
    Ok(())
}

fn an_administrators_line_in_the_log() -> Result<()> {
    let site = Site::new()?;
    let files = &site.node.files;
    fs::write(files.log(), "")?;
    let hook = [("GANETI_HOOKS_PATH", "instance-start"), ("GANETI_HOOKS_PHASE", "post")];
    let nic = [("INTERFACE", "tap0"), ("INSTANCE", "web1.example.org")];
    let run = |words: &[&str], variables: &[(&str, &str)]| files.run_with(&site.node.netns, words, variables);
    run(&["log", "Tag", "mail found"], &nic)?.succeeds()?;
    run(
        &["snf-network-log", "/etc/ganeti/ifup-extra", "x\n2026-01-01T00:00:00Z ifdown tap1 -: forged\u{1b}[2J"],
        &hook,
    )?
    .succeeds()?;
    run(&["log", "y"], &[("INTERFACE", "tap0\nforged"), ("GANETI_INSTANCE_NAME", "web2\r")])?.succeeds()?;
    let log = fs::read_to_string(files.log())?;
    let lines: Vec<_> = log.lines().map(|line| line.split_once(' ').unwrap_or_default().1).collect();
    let expected = [
        "log tap0 web1.example.org: Tag mail found",
        "instance-start post ifup-extra -: x 2026-01-01T00:00:00Z ifdown tap1 -: forged [2J",
        "log tap0\\nforged web2\\r: y",
    ];
    ensure!(lines == expected, "{lines:#?}");
    run(&["log"], &nic)?.fails(&["log: expected a message"])?;
    run(&["snf-network-log"], &nic)?.fails(&["expected who speaks and a message"])?;
    run(&["snf-network-log", "ifup-extra", ""], &nic)?.fails(&["expected a message"])?;
    // A script under `set -e` must not end because of it.
    files.set("LOGFILE=/nonexistent/log")?;
    let said = run(&["log", "z"], &nic)?.succeeds()?.stderr;
    ensure!(said.contains("log: LOGFILE: /nonexistent/log: No such file"), "{said}");
    Ok(())
}
