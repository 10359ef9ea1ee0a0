//! `node bridges`: bridges of private networks over VLAN devices. They run on Debian's own kernel, in the virtual machine.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::harness::monitor::Monitor;
use crate::harness::nic::Outcome;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Node;
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("bridges::stand_and_go", stand_and_go),
    ("bridges::what_is_not_ours_or_in_use_stays", what_is_not_ours_or_in_use_stays),
    ("bridges::what_cannot_be_is_refused", what_cannot_be_is_refused),
];

const THREE: &str = "--parent eth0 --first 1 --last 3 --offset 2990";

fn node() -> Result<Node> {
    let node = Node::alone()?;
    node.netns.set_sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    node.netns.ip("link add eth0 type dummy")?;
    Ok(node)
}

fn run(node: &Node, verb: &str, options: &str) -> Result<Outcome> {
    node.files.run(&node.netns, &["node", "bridges", verb], options)
}

/// What is the same in two namespaces of what `ip -j` says of a link.
fn comparable(text: &str) -> Result<Value> {
    let link: Value = serde_json::from_str(text).with_context(|| text.to_owned())?;
    let [info, data] = [&link[0]["linkinfo"], &link[0]["linkinfo"]["info_data"]];
    let flags = link[0]["flags"].as_array().is_some_and(|flags| flags.contains(&json!("UP")));
    let keys = [&link[0]["master"], &link[0]["link"], &link[0]["group"], &info["info_kind"], &data["id"]];
    Ok(json!([keys, flags, data["forward_delay"], data["stp_state"], data["protocol"]]))
}

/// `ip -d link` of one.
fn shown(node: &Node, name: &str) -> Result<String> {
    node.netns.ip(&format!("-d -o link show dev {name}"))
}

fn stand_and_go() -> Result<()> {
    let (node, by_plan) = (self::node()?, self::node()?);
    node.netns.ip("link set eth0 up")?;
    let before = Snapshot::of(&node.netns)?;
    let plan = run(&node, "up", &format!("{THREE} --dry-run"))?.succeeds()?.stdout;
    before.equals(&Snapshot::of(&node.netns)?).context("--dry-run touched something")?;
    run(&node, "up", THREE)?.succeeds()?;
    for number in 1..=3 {
        let (bridge, port) = (shown(&node, &format!("prv{number}"))?, shown(&node, &format!("eth0.299{number}"))?);
        for part in ["group 218 ", ",UP", "bridge forward_delay 0 "] {
            ensure!(bridge.contains(part), "expected {part:?} in {bridge}");
        }
        for part in
            ["group 218 ", ",UP", &format!("master prv{number} "), &format!("vlan protocol 802.1Q id 299{number} ")]
        {
            ensure!(port.contains(part), "expected {part:?} in {port}");
        }
    }
    // A second run changes nothing, and is told nothing but what the kernel says of itself.
    until("a second run that changes nothing", || {
        let monitor = Monitor::of(&node.netns)?;
        run(&node, "up", THREE)?.succeeds()?;
        Ok(monitor.heard()?.is_empty())
    })?;
    // The printed lines do the same by the real tools.
    for line in plan.lines() {
        // There is no shell in the machine, and sysctls are no lines of ip.
        if let Some(arguments) = line.strip_prefix("ip ") {
            by_plan.netns.ip(arguments)?;
        }
    }
    for name in ["prv1", "prv3", "eth0.2991", "eth0.2993"] {
        let [ours, theirs] = [&node, &by_plan].map(|node| node.netns.ip(&format!("-d -j link show dev {name}")));
        let [ours, theirs] = [comparable(&ours?)?, comparable(&theirs?)?];
        ensure!(ours == theirs, "{ours}, but {theirs} by\n{plan}");
    }
    run(&node, "down", THREE)?.succeeds()?;
    before.returns_in(&node.netns, |state| state)?;
    let quiet = run(&node, "down", THREE)?.succeeds()?;
    ensure!(quiet.stderr.is_empty(), "{quiet:?}");
    // As prv-net-helper was called.
    for verb in ["up", "down"] {
        node.files.run(&node.netns, &["prv-net-helper", verb], "eth0 1 3 2990")?.succeeds()?;
        ensure!(shown(&node, "prv2").is_ok() == (verb == "up"), "{verb}");
    }
    before.returns_in(&node.netns, |state| state)
}

fn what_is_not_ours_or_in_use_stays() -> Result<()> {
    let node = self::node()?;
    let netns = &node.netns;
    // prv3 is the administrator's.
    netns.ip("link add prv3 type bridge")?;
    run(&node, "up", THREE)?.succeeds()?;
    ensure!(shown(&node, "eth0.2993")?.contains("master prv3 "), "{}", shown(&node, "eth0.2993")?);
    netns.ip("link add tap5 up master prv1 type dummy")?;
    let said = run(&node, "down", THREE)?.succeeds()?.stderr;
    for part in ["prv1 stays, it is used by tap5", "prv3 stays, it is none that we made"] {
        ensure!(said.contains(part), "expected {part:?} in {said}");
    }
    for (name, there) in [
        ("prv1", true),
        ("eth0.2991", true),
        ("prv2", false),
        ("eth0.2992", false),
        ("prv3", true),
        ("eth0.2993", false),
    ] {
        ensure!(shown(&node, name).is_ok() == there, "{name}: expected {there}");
    }
    netns.ip("link del tap5")?;
    run(&node, "down", THREE)?.succeeds()?;
    ensure!(shown(&node, "prv1").is_err() && shown(&node, "eth0.2991").is_err(), "prv1 is still there");
    Ok(())
}

fn what_cannot_be_is_refused() -> Result<()> {
    let node = self::node()?;
    let netns = &node.netns;
    netns.ip_batch(
        "link add prv8 type dummy\nlink add eth0.28 type dummy\nlink add link eth0 name vlan36 type vlan id 36\n\
         link add br7 type bridge\nlink add link eth0 name eth0.37 type vlan id 37\nlink set eth0.37 master br7\n\
         link add a-longer-name0 type dummy\n",
    )?;
    let before = Snapshot::of(netns)?;
    for (options, part) in [
        ("--parent eth9 --first 1 --last 3 --offset 10", "eth9: there is no such interface"),
        ("--parent eth0 --first 7 --last 8 --offset 40", "prv8 is there and is no bridge"),
        ("--parent eth0 --first 7 --last 7 --offset 21", "eth0.28 is there and is no VLAN device"),
        ("--parent eth0 --first 5 --last 6 --offset 30", "VLAN 36 of eth0 is taken by the VLAN device vlan36"),
        ("--parent eth0 --first 7 --last 7 --offset 30", "eth0.37 is a port of br7"),
        ("--parent eth0 --first 3 --last 1", "--last 1: expected a number from --first on"),
        ("--parent eth0 --first 0 --last 1", "the VLAN of prv0: expected a number from 1 to 4094"),
        ("--parent eth0 --first 1 --last 9 --offset 4090", "the VLAN of prv5"),
        ("--parent a-longer-name0 --first 1 --last 1 --offset 100", "a-longer-name0.101"),
        ("--parent ../x --first 1 --last 1", "--parent"),
        ("--parent eth0 --first x --last 1", "--first \"x\": expected a number"),
        ("--parent eth0 --last 1", "--first is missing"),
        ("--first 1 --last 1", "--parent is missing"),
        ("--parent eth0 --first 1 --last 1 --frobnicate", "--frobnicate"),
    ] {
        run(&node, "up", options)?.fails(&["node bridges", part])?;
        before.equals(&Snapshot::of(netns)?).context(options)?;
    }
    run(&node, "sideways", THREE)?.fails(&["\"sideways\": expected up or down"])?;
    run(&node, "down", &format!("{THREE} --dry-run"))?.fails(&["--dry-run"])?;
    node.files.run(netns, &["prv-net-helper", "up"], "eth0 1 2")?.fails(&["expected up|down DEV FIRST LAST OFFSET"])?;
    before.equals(&Snapshot::of(netns)?)
}
