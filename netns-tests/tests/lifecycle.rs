//! A NIC's life: up, up again, changed, down, down again, reused, in whatever order Ganeti calls.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::build::executable;
use crate::harness::frame::Mac;
use crate::harness::guest::{Identity, WEB1, WEB2};
use crate::harness::monitor::Monitor;
use crate::harness::netns::Netns;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site};
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("lifecycle::ifdown_leaves_the_state_as_it_was", ifdown_leaves_the_state_as_it_was),
    ("lifecycle::ifdown_keeps_the_other_nics", ifdown_keeps_the_other_nics),
    ("lifecycle::ifdown_of_a_vanished_tap", ifdown_of_a_vanished_tap),
    ("lifecycle::ifup_twice_changes_nothing", ifup_twice_changes_nothing),
    ("lifecycle::ifup_again_with_another_address", ifup_again_with_another_address),
    ("lifecycle::ifup_again_with_another_mac", ifup_again_with_another_mac),
    ("lifecycle::a_tap_name_used_again", a_tap_name_used_again),
    ("lifecycle::a_late_ifdown_of_another_nic", a_late_ifdown_of_another_nic),
    ("lifecycle::what_ifup_repairs", what_ifup_repairs),
    ("lifecycle::sysctls_of_the_node_stay", sysctls_of_the_node_stay),
    ("lifecycle::thirty_two_first_ifups_at_once", thirty_two_first_ifups_at_once),
    ("lifecycle::the_names_ganeti_calls", the_names_ganeti_calls),
    ("lifecycle::the_record", the_record),
];

fn ifdown_leaves_the_state_as_it_was() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let nic = || site.node.nic("tap0", WEB1);
    for nic in [nic(), nic().only_v4(), nic().only_v6()] {
        nic.ifup()?.succeeds()?;
        nic.ifdown()?.succeeds()?;
        before.returns_in(netns, Snapshot::without_base_tables)?;
        // Again is fine.
        nic.ifdown()?.succeeds()?;
        before.returns_in(netns, Snapshot::without_base_tables)?;
    }
    // The base tables are made once, and stay the same.
    let after = Snapshot::of(netns)?;
    nic().ifup()?.succeeds()?;
    nic().ifdown()?.succeeds()?;
    after.returns_in(netns, |state| state)
}

fn ifdown_keeps_the_other_nics() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let two = site.node.guest("tap1", WEB2)?;
    let _one = site.node.plug("tap0", WEB1)?;
    two.ping(OUTSIDE)?;
    settled(&site.node, "tap1")?;
    let before = Snapshot::of(netns)?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    before.returns_in(netns, |state| state)?;
    two.ping(OUTSIDE)?;
    two.ping(OUTSIDE6)?;
    Ok(())
}

fn ifdown_of_a_vanished_tap() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let before = Snapshot::of(netns)?;
    site.node.unplug(site.node.guest("tap0", WEB1)?, "tap0")?;
    site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

/// What comes by itself after an ifup has come, and what it left behind has ended.
fn settled(node: &Node, tap: &str) -> Result<()> {
    node.settled(tap)?;
    node.netns.settle()
}

fn ifup_twice_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = site.node.guest("tap0", WEB1)?;
    settled(&site.node, "tap0")?;
    guest.ping(OUTSIDE)?;
    let before = Snapshot::of(netns)?;
    let record = fs::metadata(site.node.files.state().join("tap0"))?.modified()?;
    let wire = site.wire()?;
    let monitor = Monitor::of(netns)?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    let heard = monitor.heard()?;
    ensure!(heard.is_empty(), "the second ifup changed something: {heard:#?}");
    before.equals(&Snapshot::of(netns)?)?;
    ensure!(fs::metadata(site.node.files.state().join("tap0"))?.modified()? == record, "the record was written again");
    // It does announce again: the guest may have come back by a migration.
    wire.expect(&format!("ARP, Request who-has {ip} tell {ip}", ip = WEB1.ip))?;
    Ok(())
}

fn ifup_again_with_another_address() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let moved = Identity { ip: Ipv4Addr::new(10, 0, 0, 9), ..WEB1 };
    let guest = site.node.plug("tap0", moved)?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    site.node.nic("tap0", moved).ifup()?.succeeds()?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    until("the old address to be gone", || Ok(Snapshot::of(netns)?.naming("10.0.0.2").is_empty()))?;
    site.node.nic("tap0", moved).only_v4().ifup()?.succeeds()?;
    until("IPv6 to be gone", || Ok(Snapshot::of(netns)?.naming(&WEB1.ip6.to_string()).is_empty()))?;
    guest.ping(OUTSIDE)?;
    Ok(())
}

fn ifup_again_with_another_mac() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = site.node.plug("tap0", WEB1)?;
    let addresses = || netns.ip("-o addr show dev tap0");
    // Without a tag it has its own MAC, with it that of all routed TAPs; and its link-local address is made of it.
    site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "").ifup()?.succeeds()?;
    settled(&site.node, "tap0")?;
    ensure!(!addresses()?.contains("fe80::ce47:52ff:fe4e:4554"), "{}", addresses()?);
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    settled(&site.node, "tap0")?;
    ensure!(addresses()?.contains("fe80::ce47:52ff:fe4e:4554"), "{}", addresses()?);
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    Ok(())
}

fn a_tap_name_used_again() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    site.node.unplug(site.node.guest("tap0", WEB1)?, "tap0")?;
    let wire = site.wire()?;
    let guest = site.node.guest("tap0", WEB2)?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    // Nothing of the old one is left, nor may the new one call itself by its address.
    for old in WEB1.addresses() {
        let old = old.to_string();
        until("the old NIC's leftovers to be gone", || Ok(Snapshot::of(netns)?.naming(&old).is_empty()))?;
    }
    let mark = guest.send_echo(WEB1.ip.into(), OUTSIDE)?;
    guest.ping(OUTSIDE)?;
    wire.never(&format!("IP {} > {OUTSIDE}: echo request {mark}", WEB1.ip))?;
    let record = fs::read_to_string(site.node.files.state().join("tap0"))?;
    ensure!(record.contains("10.0.0.3") && !record.contains("10.0.0.2"), "{record}");
    // Equal to what it is on a node that never had another NIC.
    let fresh = Site::new()?;
    let _guest = fresh.node.guest("tap0", WEB2)?;
    settled(&site.node, "tap0")?;
    settled(&fresh.node, "tap0")?;
    Snapshot::of(&fresh.node.netns)?.returns_in(netns, |state| state)
}

fn a_late_ifdown_of_another_nic() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    site.node.unplug(site.node.guest("tap0", WEB1)?, "tap0")?;
    let guest = site.node.guest("tap0", WEB2)?;
    settled(&site.node, "tap0")?;
    let before = Snapshot::of(netns)?;
    let outcome = site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    before.equals(&Snapshot::of(netns)?)?;
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    ensure!(said.contains("tap0") && said.contains("000000000002"), "it does not say whose the TAP is: {outcome:?}");
    guest.ping(OUTSIDE)?;
    site.node.nic("tap0", WEB2).ifdown()?.succeeds()?;
    Ok(())
}

fn what_ifup_repairs() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = site.node.guest("tap0", WEB1)?;
    settled(&site.node, "tap0")?;
    let good = Snapshot::of(netns)?;
    for damage in [
        "link set tap0 down",
        "route del 10.0.0.2 table 100",
        "-6 route del 2001:db8:1:0:a800:ff:fe12:3456 table 100",
        "rule del iif tap0",
        "-6 rule del iif tap0",
        "-6 neigh del proxy 2001:db8:1:0:a800:ff:fe12:3456 dev eth1",
        "neigh del 10.0.0.2 dev tap0",
        "-6 neigh replace 2001:db8:1:0:a800:ff:fe12:3456 lladdr 02:00:00:00:00:07 dev tap0 nud permanent",
    ] {
        netns.ip(damage)?;
        site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
        good.returns_in(netns, |state| state).with_context(|| format!("after {damage}"))?;
    }
    for table in ["arp", "inet"] {
        netns.output(Command::new("nft").args(["delete", "table", table, "snf-network"]))?;
    }
    site.node.uplink_up()?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    good.returns_in(netns, |state| state).context("after deleting our tables")?;
    fs::remove_file(site.node.files.state().join("tap0"))?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    good.returns_in(netns, |state| state).context("after losing the record")?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    Ok(())
}

/// Those of the node and of the uplink belong to `node up` and the administrator: ifup sets what is missing, ifdown
/// resets nothing.
fn sysctls_of_the_node_stay() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let names = ["ipv4/conf/eth1/proxy_arp", "ipv6/conf/all/proxy_ndp", "ipv6/conf/eth1/proxy_ndp"];
    for name in names {
        netns.set_sysctl(name, "0")?;
    }
    netns.set_sysctl("ipv4/ip_nonlocal_bind", "1")?;
    let guest = site.node.guest("tap0", WEB1)?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    for name in names {
        ensure!(netns.sysctl(name)? == "1", "{name} was reset");
    }
    ensure!(netns.sysctl("ipv4/ip_nonlocal_bind")? == "1", "ip_nonlocal_bind was touched");
    Ok(())
}

fn thirty_two_first_ifups_at_once() -> Result<()> {
    const COUNT: u8 = 32;
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guests = (0..COUNT)
        .map(|n| {
            let mac = Mac([0xaa, 0, 0, 1, 0, n]);
            let id = Identity { mac, ip: Ipv4Addr::new(10, 0, 0, 10 + n), ip6: mac.in_prefix(WEB1.ip6), ..WEB1 };
            site.node.plug(&format!("tap{n}"), id)
        })
        .collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let runs: Vec<_> = guests
            .iter()
            .enumerate()
            .map(|(n, guest)| {
                let uuid = format!("0c2a1a4e-0000-4000-8000-0000000001{n:02}");
                let nic = site.node.nic(&format!("tap{n}"), guest.id).set("INTERFACE_UUID", uuid);
                scope.spawn(move || nic.ifup()?.succeeds())
            })
            .collect();
        runs.into_iter().try_for_each(|run| run.join().expect("no panic in a run").map(drop))
    })?;
    for guest in &guests {
        guest.ping(OUTSIDE)?;
        guest.ping(OUTSIDE6)?;
    }
    // The base chains and their rules stand there once, as after a single ifup.
    let base = |netns: &Netns| netns.output(Command::new("nft").args(["-s", "list", "ruleset"]));
    let once = Site::new()?;
    let _guest = once.node.guest("tap0", WEB1)?;
    let rules = |text: &str| -> Vec<String> {
        let mut chains = text.lines().skip_while(|line| !line.contains("chain "));
        let mut lines = Vec::new();
        let mut inside = false;
        for line in chains.by_ref() {
            inside |= line.contains("chain ");
            if inside {
                lines.push(line.trim().to_owned());
            }
            inside &= line.trim() != "}";
        }
        lines
    };
    let (many, one) = (base(netns)?, base(&once.node.netns)?);
    ensure!(rules(&many) == rules(&one), "after {COUNT} at once:\n{many}\nafter one:\n{one}");
    Ok(())
}

fn the_names_ganeti_calls() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let nic = site.node.nic("tap0", WEB1);
    let ups: [(&str, &[&str]); 5] = [
        ("kvm-ifup-custom", &["tap0"]),
        // Ganeti 3.0 execs it without arguments, and can pass the text of a Python bytes object.
        ("kvm-vif-bridge", &[]),
        ("kvm-ifup-custom", &["b'tap0'"]),
        ("up", &["tap0"]),
        ("ifup", &["tap0"]),
    ];
    let downs: [(&str, &[&str]); 3] =
        [("kvm-ifdown-custom", &["tap0", "True"]), ("down", &["tap0"]), ("kvm-ifdown-custom", &["tap0", "False"])];
    for ((up, up_words), (down, down_words)) in ups.iter().zip(downs.iter().cycle()) {
        for (name, words) in [(up, up_words), (down, down_words)] {
            let link = site.node.files.folder.join(name);
            if !link.exists() {
                symlink(executable(), &link)?;
            }
            nic.finish(Command::new(&link).args(*words))?.succeeds()?;
            let state = Snapshot::of(netns)?;
            let rule = state.naming("tap0").iter().any(|line| line.starts_with("ip -4 rule"));
            ensure!(rule == (name == up), "after {name} {words:?}: {:#?}", state.naming("tap0"));
        }
    }
    before.returns_in(netns, Snapshot::without_base_tables)?;
    // The argument serves where INTERFACE is unset.
    site.node.nic("tap0", WEB1).unset(&["INTERFACE"]).ifup()?.succeeds()?;
    Ok(())
}

fn the_record() -> Result<()> {
    let site = Site::new()?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let hostile = "it's $(touch${IFS}hacked) `x` a*b ä";
    site.node.nic("tap0", WEB1).set("TAGS", hostile).ifup()?.succeeds()?;
    let path = site.node.files.state().join("tap0");
    let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o600, "mode {mode:o}");
    let text = fs::read_to_string(&path)?;
    ensure!(text.contains("0c2a1a4e-0000-4000-8000-000000000001"), "the owner is not recorded: {text}");
    // A shell may source it, and nothing happens but assignments.
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", ". ./tap0; set"]).current_dir(site.node.files.state()).env_clear();
    let variables = site.node.netns.output(&mut shell)?;
    ensure!(variables.contains("10.0.0.2"), "{variables}");
    ensure!(!site.node.files.state().join("hacked").exists(), "a tag was executed");
    site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    ensure!(!path.exists(), "the record is still there");
    Ok(())
}
