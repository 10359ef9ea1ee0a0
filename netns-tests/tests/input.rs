//! Bad input gets exit 1, one line that names the variable, its value and what was expected, and changes nothing.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::build::executable;
use crate::harness::guest::WEB1;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Site;

pub const TESTS: &[Test] = &[
    ("input::each_bad_variable", each_bad_variable),
    ("input::each_missing_variable", each_missing_variable),
    ("input::bytes_that_are_no_text", bytes_that_are_no_text),
    ("input::each_bad_setting", each_bad_setting),
    ("input::bad_words", bad_words),
];

/// Variable, value, and what the message must hold besides both.
const BAD: &[(&str, &str, &str)] = &[
    ("INTERFACE", "../x", "expected an interface name"),
    ("INTERFACE", "a234567890123456", "expected an interface name"),
    ("INTERFACE", "tap 0", "expected an interface name"),
    ("INTERFACE", "tap9", "no such"),
    ("MAC", "zz", "expected"),
    ("MAC", "01:00:5e:00:00:01", "unicast"),
    ("MAC", "00:00:00:00:00:00", "unicast"),
    ("MAC", "aa:00:00:12:34", "expected"),
    ("MODE", "teleported", "expected"),
    ("LINK", "no-such-table", "expected"),
    ("LINK", "99999999999", ""),
    ("LINK", "4242", "no IPv4 default route"),
    ("IP", "10.0.0", "expected"),
    ("IP", "10.0.1.2", "NETWORK_SUBNET"),
    ("IP", "10.0.0.255", "NETWORK_SUBNET"),
    ("IP", "127.0.0.1", "expected"),
    ("IP", "224.0.0.1", "expected"),
    ("IP", "fe80::1", "expected"),
    ("NETWORK_SUBNET", "10.0.0.0/33", "expected"),
    ("NETWORK_SUBNET", "2001:db8:1::/64", "IPv4"),
    ("NETWORK_GATEWAY", "10.9.0.1", "NETWORK_SUBNET"),
    ("NETWORK_GATEWAY", "10.0.0.2", "expected"),
    ("NETWORK_GATEWAY", "2001:db8:1::1", "IPv4"),
    ("NETWORK_SUBNET6", "2001:db8:1::/80", "/64"),
    ("NETWORK_SUBNET6", "10.0.0.0/24", "IPv6"),
    ("NETWORK_GATEWAY6", "2001:db8:9::1", "NETWORK_SUBNET6"),
    ("NETWORK_GATEWAY6", "::g", "expected"),
    ("INTERFACE_UUID", "$(reboot)", "UUID"),
    ("INTERFACE_INDEX", "first", "expected"),
    ("INSTANCE", "web 1", "expected"),
    ("INSTANCE", "web1\nMAC=aa:00:00:00:00:66", "expected"),
    ("MIGRATION_PHASE", "during", "pre or post"),
];

fn each_bad_variable() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    for (variable, value, expected) in BAD {
        let printable = value.split('\n').next().unwrap_or_default();
        let nic = site.node.nic("tap0", WEB1).set(variable, value);
        for verb in ["ifup", "plan"] {
            let outcome = nic.run(verb)?;
            outcome.fails(&[variable, printable, expected]).with_context(|| format!("{verb}, {variable}={value:?}"))?;
        }
        let after = Snapshot::of(netns)?;
        before.equals(&after).with_context(|| format!("{variable}={value:?}"))?;
        ensure!(!site.node.files.state().join("tap0").exists(), "recorded: {variable}={value:?}");
    }
    Ok(())
}

fn each_missing_variable() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let nic = || site.node.nic("tap0", WEB1);
    for variable in ["MAC", "MODE", "INSTANCE"] {
        for nic in [nic().unset(&[variable]), nic().set(variable, "")] {
            nic.ifup()?.fails(&[variable, "expected"])?;
            before.equals(&Snapshot::of(netns)?)?;
        }
    }
    nic().bridged("br0").unset(&["LINK", "BRIDGE"]).ifup()?.fails(&["LINK", "expected"])?;
    before.equals(&Snapshot::of(netns)?)
}

fn bytes_that_are_no_text() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let mut command = Command::new("/usr/bin/env");
    command.arg(std::ffi::OsStr::from_bytes(b"INTERFACE=tap\xff0")).args([executable(), "ifup"]);
    site.node.nic("tap0", WEB1).finish(&mut command)?.fails(&["INTERFACE", "UTF-8"])?;
    before.equals(&Snapshot::of(netns)?)?;
    // A tag is a user's business: nobody's network fails for it.
    let mut command = Command::new("/usr/bin/env");
    command.arg(std::ffi::OsStr::from_bytes(b"INTERFACE_NAME=\x1b[2J")).args([executable(), "ifup"]);
    let outcome = site.node.nic("tap0", WEB1).finish(&mut command)?;
    ensure!(!outcome.stderr.contains('\u{1b}'), "an escape sequence reaches the terminal: {outcome:?}");
    Ok(())
}

fn each_bad_setting() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let good = fs::read_to_string(site.node.files.settings())?;
    let number = format!("{}", good.lines().count() + 1);
    for (line, expected) in [
        ("NONSENSE", "expected"),
        ("STATE_DIR=$(reboot)", "expected"),
        ("STATE_DIR=`reboot`", "expected"),
        ("STATE_DIR='/tmp", ""),
        ("if true; then", "expected"),
        ("TAP_CONSTANT_MAC=zz", "TAP_CONSTANT_MAC"),
        ("TAP_CONSTANT_MAC=01:00:00:00:00:01", "TAP_CONSTANT_MAC"),
        ("STATE_DIR=relative", "STATE_DIR"),
    ] {
        fs::write(site.node.files.settings(), format!("{good}{line}\n"))?;
        let outcome = site.node.nic("tap0", WEB1).ifup()?;
        outcome.fails(&["settings", &number, expected]).with_context(|| line.to_owned())?;
        before.equals(&Snapshot::of(netns)?)?;
    }
    fs::write(site.node.files.settings(), format!("{good}SOMEBODY_ELSES=1 # a comment\n"))?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    Ok(())
}

fn bad_words() -> Result<()> {
    let site = Site::new()?;
    let run = |words: &[&str]| site.node.files.run(&site.node.netns, words, "");
    run(&[])?.fails(&["expected a command"])?;
    run(&["frobnicate"])?.fails(&["frobnicate"])?;
    run(&["ifup"])?.fails(&["INTERFACE"])?;
    for (words, text) in [(["--help"], "ifup"), (["--version"], "snf-network ")] {
        let outcome = run(&words)?.succeeds()?;
        ensure!(outcome.stdout.contains(text) && outcome.stderr.is_empty(), "{outcome:?}");
    }
    Ok(())
}
