//! ifupdown: Debian's own ifup and ifdown with the shipped example, and the program as a link in if-up.d and if-down.d.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::Skip;
use crate::harness::build::executable;
use crate::harness::guest::WEB1;
use crate::harness::nic::Outcome;
use crate::harness::ping::Pinging;
use crate::harness::port::Capture;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Files, MANAGEMENT, Node, OUTSIDE, OUTSIDE6, Site, Wanted};

pub const TESTS: &[Test] = &[
    ("ifupdown::the_shipped_example_stands_and_goes", the_shipped_example_stands_and_goes),
    ("ifupdown::what_is_none_of_our_business", what_is_none_of_our_business),
    ("ifupdown::odd_variables_are_named", odd_variables_are_named),
    ("ifupdown::the_shipped_units_are_clean", the_shipped_units_are_clean),
];

const BARE: Wanted = Wanted { nodes: 1, uplink: false, tentative: false };
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib");

/// ifupdown's folders below `network`, each with a link to the program.
fn links(files: &Files) -> Result<()> {
    for folder in ["if-pre-up.d", "if-up.d", "if-down.d", "if-post-down.d"] {
        fs::create_dir_all(files.folder.join("network").join(folder))?;
    }
    for folder in ["if-up.d", "if-down.d"] {
        symlink(executable(), files.folder.join("network").join(folder).join("snf-network"))?;
    }
    Ok(())
}

/// ifup or ifdown, in a mount namespace of its own where /etc/network and /etc/default are those of the node.
fn run(node: &Node, tool: &str) -> Result<Outcome> {
    let folder = &node.files.folder;
    let script = "mount --bind \"$1/network\" /etc/network && mount --bind \"$1/default\" /etc/default && \
                  exec \"$2\" --verbose --interfaces=\"$3\" --state-dir=\"$1/ifstate\" eth1";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(folder).arg(tool);
    command.arg(Path::new(SHIPPED).join("ifupdown/interfaces"));
    node.files.run_command(&node.netns, &mut command, &[])
}

fn the_shipped_example_stands_and_goes() -> Result<()> {
    if Command::new("ifup").arg("--version").output().is_err() {
        return Err(Skip("ifup cannot be run (Debian's package ifupdown)".to_owned()).into());
    }
    let by_options = Site::new()?;
    let site = Site::with(BARE)?;
    let (node, netns) = (&site.node, &site.node.netns);
    links(&node.files)?;
    fs::create_dir(node.files.folder.join("ifstate"))?;
    fs::create_dir(node.files.folder.join("default"))?;
    fs::copy(node.files.settings(), node.files.folder.join("default/snf-network"))?;
    let before = Snapshot::of(netns)?;
    run(node, "ifup")?.succeeds()?;
    node.settled("eth1")?;
    Snapshot::of(&by_options.node.netns)?.returns_in(netns, |state| state)?;
    let guest = node.guest("tap0", WEB1)?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    // ifupdown is not stopped by guests that run; they are there again after its ifup.
    let down = run(node, "ifdown")?.succeeds()?;
    ensure!(down.stderr.contains("NICs use IPv4 table 100 (tap0): they are cut off until node up"), "{down:#?}");
    let management = Capture::on(&site.management, "lan")?;
    for _ in 0..20 {
        guest.send_echo(WEB1.ip.into(), MANAGEMENT.into())?;
    }
    Pinging::start(netns, MANAGEMENT.into())?.goes_on(1)?;
    management.never(&WEB1.ip.to_string())?;
    run(node, "ifup")?.succeeds()?;
    node.settled("eth1")?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    node.unplug(guest, "tap0")?;
    run(node, "ifdown")?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

/// A link in one of ifupdown's folders, called as run-parts does.
fn hook(site: &Site, folder: &str, variables: &[(&str, &str)]) -> Result<Outcome> {
    let files = &site.node.files;
    let link = files.folder.join("network").join(folder).join("snf-network");
    files.run_command(&site.node.netns, &mut Command::new(link), variables)
}

const GOOD: [(&str, &str); 5] = [
    ("IFACE", "eth1"),
    ("ADDRFAM", "inet"),
    ("IF_IP_ROUTING_TABLE", "100"),
    ("IF_IP_ROUTES", "10.0.0.0/24"),
    ("IF_IP_GATEWAY", "10.0.0.1"),
];

fn what_is_none_of_our_business() -> Result<()> {
    let site = Site::with(BARE)?;
    links(&site.node.files)?;
    let before = Snapshot::of(&site.node.netns)?;
    for variables in [
        &[("IFACE", "lo"), ("ADDRFAM", "inet"), ("METHOD", "loopback"), ("MODE", "start"), ("PHASE", "post-up")][..],
        &[("IFACE", "--all"), ("ADDRFAM", "meta"), ("METHOD", "none"), ("MODE", "start"), ("PHASE", "post-up")],
        &[("IFACE", "eth0"), ("ADDRFAM", "inet"), ("MODE", "start"), ("IF_ADDRESS", "192.0.2.11/24")],
        // Debian's package vlan has this option, too.
        &[("IFACE", "eth0"), ("ADDRFAM", "inet"), ("MODE", "start"), ("IF_IP_PROXY_ARP", "1")],
        &[("IFACE", "eth1"), ("ADDRFAM", "NetworkManager"), ("MODE", "start"), ("IF_IP_ROUTING_TABLE", "100")],
        &[],
    ] {
        for folder in ["if-up.d", "if-down.d"] {
            // Not even wrong settings are its business.
            let variables = [variables, &[("SNF_NETWORK_DEFAULTS", "/nonexistent")]].concat();
            let outcome = hook(&site, folder, &variables)?.succeeds()?;
            ensure!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:#?}");
            before.equals(&Snapshot::of(&site.node.netns)?).with_context(|| format!("{folder} {variables:?}"))?;
        }
    }
    ensure!(!site.node.files.log().exists(), "something was logged");
    Ok(())
}

fn odd_variables_are_named() -> Result<()> {
    let site = Site::with(BARE)?;
    links(&site.node.files)?;
    let before = Snapshot::of(&site.node.netns)?;
    for (folder, name, value, part) in [
        ("if-up.d", "MODE", "", "MODE is not set, expected start"),
        ("if-up.d", "MODE", "stop", "MODE \"stop\": expected start"),
        ("if-down.d", "MODE", "start", "MODE \"start\": expected stop"),
        ("if-up.d", "IFACE", "", "IFACE is not set"),
        ("if-up.d", "IFACE", "eth9", "eth9"),
        ("if-up.d", "IFACE", "a/b", "IFACE: \"a/b\""),
        ("if-up.d", "ADDRFAM", "", "ADDRFAM is not set"),
        ("if-up.d", "IF_IP_ROUTING_TABLE", "nowhere", "IF_IP_ROUTING_TABLE: \"nowhere\""),
        ("if-up.d", "IF_IP_ROUTES", "10.0.0.0/33", "IF_IP_ROUTES"),
        ("if-up.d", "IF_IP_ROUTES", "10.0.0.7/24", "10.0.0.7/24 has host bits, expected 10.0.0.0/24"),
        ("if-up.d", "IF_IP_GATEWAY", "10.0.1.1", "--gateway 10.0.1.1: expected an address of --routes, or --onlink"),
        ("if-up.d", "IF_IP_ONLINK", "2", "IF_IP_ONLINK \"2\": expected 1 or 0"),
        ("if-up.d", "IF_IP_GATEWAY", "2001:db8:1::1", "2001:db8:1::1: expected an address of IPv4"),
        ("if-up.d", "IF_IP_FORWARDING", "perhaps", "IF_IP_FORWARDING \"perhaps\""),
        ("if-up.d", "IF_ARP_IP", "x", "IF_ARP_IP: \"x\""),
    ] {
        let mode = if folder == "if-up.d" { "start" } else { "stop" };
        let mut variables: Vec<_> = GOOD.into_iter().chain([("MODE", mode)]).filter(|it| it.0 != name).collect();
        variables.push((name, value));
        hook(&site, folder, &variables)?.fails(&[part])?;
        before.equals(&Snapshot::of(&site.node.netns)?).with_context(|| format!("{folder} {name}={value}"))?;
    }
    Ok(())
}

/// systemd's own opinion of what is shipped for it, with the program where it is.
fn the_shipped_units_are_clean() -> Result<()> {
    let files = Files::new()?;
    let (shipped, unit) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd"), "snf-network-node@.service");
    let text = fs::read_to_string(shipped.join(unit))?;
    ensure!(text.contains("/usr/sbin/snf-network node up"), "{text}");
    let copy = files.folder.join(unit.replace('@', "@eth1"));
    fs::write(&copy, text.replace("/usr/sbin/snf-network", executable()))?;
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output();
    let output = output.map_err(|error| Skip(format!("systemd-analyze (Debian's package systemd): {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let about: Vec<_> = said.lines().filter(|line| line.contains("snf-network")).collect();
    ensure!(output.status.success() && about.is_empty(), "{}: {said}", output.status);
    Ok(())
}
