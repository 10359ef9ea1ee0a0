//! `status`: what it shows of NICs and uplinks, its JSON, its exit codes, and how it watches.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Test;
use crate::harness::build::executable;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::monitor::Monitor;
use crate::harness::nic::Outcome;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, Site, TAP_MAC};
use crate::harness::{frame, until};

pub const TESTS: &[Test] = &[
    ("status::shows_nics_and_uplinks", shows_nics_and_uplinks),
    ("status::its_json", its_json),
    ("status::of_some_nics_only", of_some_nics_only),
    ("status::what_cannot_be_read_is_an_error", what_cannot_be_read_is_an_error),
    ("status::an_ordinary_user_is_told_so", an_ordinary_user_is_told_so),
    ("status::nothing_recorded_is_in_order", nothing_recorded_is_in_order),
    ("status::watches", watches),
    ("status::the_way_of_a_routed_nic", the_way_of_a_routed_nic),
    ("status::the_way_of_a_bridged_nic", the_way_of_a_bridged_nic),
];

/// `status` with options.
pub fn status(node: &Node, options: &str) -> Result<Outcome> {
    node.files.run(&node.netns, &["status"], options)
}

/// That status finds nothing.
pub fn in_sync(node: &Node) -> Result<()> {
    let outcome = status(node, "")?.succeeds()?;
    ensure!(outcome.stdout.contains("in sync") && !outcome.stdout.contains("drift"), "{}", outcome.stdout);
    Ok(())
}

/// That status exits with 3 and prints a line that begins with each of these.
pub fn finds(node: &Node, lines: &[&str]) -> Result<()> {
    let outcome = status(node, "")?;
    ensure!(outcome.code == Some(3), "expected exit 3: {outcome:#?}");
    for line in lines {
        let found = outcome.stdout.lines().any(|it| it.trim_start().starts_with(line));
        ensure!(found, "expected {line:?} in\n{}", outcome.stdout);
    }
    Ok(())
}

fn shows_nics_and_uplinks() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _one = node.guest("tap0", WEB1)?;
    let _two = node.plug("tap1", WEB2)?;
    node.netns.ip_batch("link add br0 type bridge\nlink set br0 up")?;
    let bridged = node.nic("tap1", WEB2).bridged("br0").set("NETWORK_TAGS", "private-filtered nfdhcpd");
    bridged.set("INTERFACE_INDEX", "1").set("TAGS", "protected").ifup()?.succeeds()?;
    node.netns.settle()?;
    let (before, monitor) = (Snapshot::of(&node.netns)?, Monitor::of(&node.netns)?);
    let outcome = status(node, "")?.succeeds()?;
    ensure!(monitor.heard()?.is_empty(), "status changed something");
    before.equals(&Snapshot::of(&node.netns)?)?;
    let fields = |interface: &str| -> Result<Vec<&str>> {
        let line = outcome.stdout.lines().find(|it| it.starts_with(&format!("{interface} ")));
        Ok(line.with_context(|| format!("no line of {interface}: {}", outcome.stdout))?.split_whitespace().collect())
    };
    let tap0 = fields("tap0")?;
    ensure!(tap0[..5] == ["tap0", "web1.example.org", "0", "routed", "ip-less-routed"], "{tap0:?}");
    ensure!(tap0[5] == format!("{},{}", WEB1.ip, WEB1.ip6) && tap0[6..9] == ["eth1", "table", "100"], "{tap0:?}");
    ensure!(tap0.ends_with(&["in", "sync"]), "{tap0:?}");
    let tap1 = fields("tap1")?;
    let expected = ["tap1", "web2.example.org", "1", "bridged", "private-filtered,nfdhcpd,protected"];
    ensure!(tap1[..5] == expected && tap1[6] == "br0" && tap1.ends_with(&["in", "sync"]), "{tap1:?}");
    let eth1 = fields("eth1")?;
    let expected = ["eth1", "-", "-", "uplink", "-", "10.0.0.0/24", "via", "10.0.0.1", "table", "100"];
    ensure!(eth1[..10] == expected && eth1.ends_with(&["in", "sync"]), "{eth1:?}");
    Ok(())
}

fn json(node: &Node) -> Result<Value> {
    let outcome = status(node, "--json")?;
    serde_json::from_str(&outcome.stdout).with_context(|| format!("{outcome:?}"))
}

fn its_json() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _guest = node.guest("tap0", WEB1)?;
    let value = json(node)?;
    ensure!(value["version"] == 1 && value["strays"] == serde_json::json!([]), "{value:#}");
    let nic = &value["nics"][0];
    let expected = serde_json::json!({
        "interface": "tap0",
        "since": nic["since"],
        "ifindex": nic["ifindex"],
        "instance": "web1.example.org",
        "nic": 0,
        "uuid": "0c2a1a4e-0000-4000-8000-000000000001",
        "mode": "routed",
        "table": 100,
        "bridge": null,
        "uplinks": ["eth1"],
        "setups": ["ip-less-routed"],
        "addresses": ["10.0.0.2", WEB1.ip6.to_string()],
        "dropped": 0,
        "cut_off": [],
        "warnings": [],
        "state": "in sync",
        "drift": [],
        "error": null,
    });
    ensure!(*nic == expected, "{nic:#}\nexpected\n{expected:#}");
    ensure!(nic["ifindex"].is_u64(), "{nic:#}");
    let since = nic["since"].as_str().context("since")?;
    let modified = fs::metadata(node.files.state().join("tap0"))?.modified()?;
    ensure!(since == humantime::format_rfc3339_seconds(modified).to_string(), "{since}");
    let families: Vec<_> = value["uplinks"].as_array().context("uplinks")?.iter().map(|it| &it["family"]).collect();
    ensure!(families == ["ipv4", "ipv6"], "{value:#}");
    ensure!(value["uplinks"][1]["gateway"] == "2001:db8:1::1" && value["uplinks"][1]["state"] == "in sync");
    // What differs.
    node.netns.ip_batch("rule del iif tap0\nlink set tap0 address 02:00:00:00:07:07")?;
    let value = json(node)?;
    let neighbour = |ip: &str, address: std::net::IpAddr| {
        format!("{ip} neigh {address} lladdr {} dev tap0 nud permanent protocol 217", WEB1.mac)
    };
    let drift = serde_json::json!([
        {
            "kind": "different",
            "what": "ip link set dev tap0 address cc:47:52:4e:45:54",
            "found": "address 02:00:00:00:07:07",
        },
        {"kind": "missing", "what": "ip rule iif tap0 lookup 100 pref 20100 protocol 217", "found": null},
        // They go with the MAC.
        {"kind": "missing", "what": neighbour("ip", WEB1.ip.into()), "found": null},
        {"kind": "missing", "what": neighbour("ip -6", WEB1.ip6.into()), "found": null},
    ]);
    ensure!(value["nics"][0]["drift"] == drift && value["nics"][0]["state"] == "drift", "{value:#}");
    Ok(())
}

fn of_some_nics_only() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let (_one, _two) = (node.guest("tap0", WEB1)?, node.guest("tap1", WEB2)?);
    node.netns.ip("rule del iif tap0")?;
    let right = status(node, "tap1")?.succeeds()?.stdout;
    ensure!(right.lines().count() == 2 && right.contains("\ntap1 "), "{right}");
    ensure!(status(node, "tap1 tap0")?.code == Some(3));
    status(node, "tap9")?.fails(&["status: tap9: nothing is recorded of it"])?;
    status(node, "--frobnicate")?.fails(&["status: ", "--frobnicate"])?;
    status(node, "../tap0")?.fails(&["status: ", "../tap0"])?;
    Ok(())
}

fn what_cannot_be_read_is_an_error() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _guest = node.guest("tap0", WEB1)?;
    fs::write(node.files.state().join("tap7"), "IP=10.0.0.1\n")?;
    let outcome = status(node, "")?.fails(&["status: tap7: ", "line 1: expected KEY='value'"])?;
    ensure!(outcome.stdout.contains("tap0") && outcome.stdout.contains("in sync"), "{}", outcome.stdout);
    Ok(())
}

/// Records are root's, and so are the answers of nf_tables.
fn an_ordinary_user_is_told_so() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _guest = node.guest("tap0", WEB1)?;
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", executable(), "status"]);
    node.nic("tap0", WEB1).finish(&mut command)?.fails(&["status: ", "CAP_NET_ADMIN"])?;
    Ok(())
}

fn nothing_recorded_is_in_order() -> Result<()> {
    let node = Node::alone()?;
    let outcome = status(&node, "")?.succeeds()?;
    ensure!(outcome.stdout.lines().count() == 1, "{}", outcome.stdout);
    fs::remove_dir(node.files.state())?;
    status(&node, "")?.succeeds()?;
    ensure!(!node.files.state().exists(), "status made STATE_DIR");
    Ok(())
}

/// A line of `status -v`, its words one space apart: the first one that begins so, after the heading.
pub fn step(text: &str, heading: &str, parts: &[&str]) -> Result<String> {
    let way = text.split_once(&format!("{heading}\n")).with_context(|| format!("no {heading:?} in {text}"))?.1;
    let way = way.split("\n\n").next().unwrap_or_default();
    let mut lines = way.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let found = lines.find(|line| parts.iter().all(|part| line.contains(part)));
    found.with_context(|| format!("no line with {parts:?} in\n{text}"))
}

fn the_way_of_a_routed_nic() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let guest = node.plug("tap0", WEB1)?;
    node.nic("tap0", WEB1).set("TAGS", "protected").ifup()?.succeeds()?;
    let (from, to) = ("tap0: from the guest", "tap0: to the guest");
    let text = status(node, "-v tap0")?.succeeds()?.stdout;
    ensure!(!text.contains("MISSING") && !text.contains("DIFFERENT"), "{text}");
    for parts in [
        &["in place tap0 MAC cc:47:52:4e:45:54"][..],
        &["in place arp input 0 chain input:", "arp_senders {", "10.0.0.2"],
        &["in place inet prerouting -450 chain fragments", "sources4 { \"tap0\" . 10.0.0.2 }"],
        &["- inet prerouting -150 mangle"],
        &["in place inet prerouting -145 chain steer_100"],
        &["in place inet prerouting -140", "sources4 { \"tap0\" . 10.0.0.2 }"],
        &["in place rule ip rule fwmark 0x6400000/0xfff00000 lookup 100 pref 20050"],
        &["in place rule ip rule iif tap0 lookup 100 pref 20100"],
        &["in place inet forward -155 chain clear_100"],
        &["in place eth1 ip route default via 10.0.0.1 dev eth1 table 100"],
    ] {
        step(&text, from, parts)?;
    }
    for parts in [
        &["in place eth1", "proxy_arp", "neigh proxy"][..],
        &["in place route ip route 10.0.0.2/32 dev tap0 table 100"],
        &["in place inet forward 0 chain firewall_forward", "protected { \"tap0\" }"],
        &["in place arp output 0", "arp_source { \"tap0\" : 10.0.0.1 }"],
    ] {
        step(&text, to, parts)?;
    }
    // The order is that of a packet.
    let places = [
        "prerouting -450",
        "prerouting -150",
        "prerouting -145",
        "prerouting -140",
        "pref 20050",
        "pref 20100",
        "forward -155",
    ]
    .map(|it| text.find(it));
    ensure!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    // A forged source raises the number of its step, and no other.
    step(&text, from, &["inet dropped 0 packets, 0 bytes from tap0"])?;
    guest.send_echo("203.0.113.77".parse()?, OUTSIDE)?;
    until("the drop to be counted", || {
        let text = status(node, "-v tap0")?.stdout;
        step(&text, to, &["inet dropped 0 packets"])?;
        step(&text, from, &["arp dropped 0 packets"])?;
        Ok(step(&text, from, &["inet dropped"])?.starts_with("in place inet dropped 1 packets"))
    })?;
    // What is gone is missing at its steps, and at no other.
    node.netns.output(Command::new("nft").args(["delete element inet snf-network sources4 { tap0 . 10.0.0.2 }"]))?;
    node.netns.ip("rule del iif tap0")?;
    let outcome = status(node, "--verbose tap0")?;
    ensure!(outcome.code == Some(3), "{outcome:?}");
    let text = outcome.stdout;
    step(&text, from, &["MISSING inet prerouting -450"])?;
    step(&text, from, &["MISSING inet prerouting -140"])?;
    step(&text, from, &["missing: nft element inet snf-network sources4"])?;
    step(&text, from, &["MISSING rule ip rule iif tap0"])?;
    step(&text, from, &["in place rule ip rule fwmark"])?;
    ensure!(text.matches("MISSING").count() == 3, "{text}");
    status(node, "--json -v")?.fails(&["status: --json: expected without --verbose"])?;
    Ok(())
}

fn the_way_of_a_bridged_nic() -> Result<()> {
    let node = Node::alone()?;
    let guest = node.plug("tap5", WEB1)?;
    node.netns.ip_batch("link add br0 type bridge\nlink set br0 up")?;
    let nic = node.nic("tap5", WEB1).bridged("br0").set("NETWORK_TAGS", "private-filtered strict-filtered");
    nic.ifup()?.succeeds()?;
    let (from, to) = ("tap5: from the guest", "tap5: to the guest");
    let text = status(&node, "-v")?.succeeds()?.stdout;
    for parts in [
        &["in place tap5", "port of br0", "group_fwd_mask 0xfffd"][..],
        &["in place bridge prerouting -300 chain prerouting:", "from { \"tap5\" . "],
        &["in place bridge prerouting -300 chain strict_prerouting:", "sources4 { \"tap5\" . 10.0.0.2 }"],
        &["- br0 the bridge forwards by MAC"],
    ] {
        step(&text, from, parts)?;
    }
    step(&text, to, &["in place bridge forward -200 chain forward:", "isolated { \"tap5\" }"])?;
    step(&text, to, &["in place bridge output 200 chain output:"])?;
    for line in ["# FROMTAP5: ether saddr != ", "# TOTAP5: ether saddr & ff:ff:f0:00:00:00 != "] {
        ensure!(text.contains(line), "no {line:?} in {text}");
    }
    let dropped = |text: &str| step(text, from, &["bridge dropped"]);
    let before = dropped(&text)?;
    let forged = frame::ethernet(TAP_MAC, frame::Mac([2, 0, 0, 0, 0, 0x77]), 0x0800, &[0; 46]);
    guest.send(&forged)?;
    until("the drop to be counted", || Ok(dropped(&status(&node, "-v")?.stdout)? != before))?;
    Ok(())
}

fn watches() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _guest = node.guest("tap0", WEB1)?;
    node.netns.settle()?;
    let mut command = Command::new(executable());
    command.args(["status", "--watch", "--json"]).env_clear().env("SNF_NETWORK_DEFAULTS", node.files.settings());
    let mut child = node.netns.run(|| command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn())?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let mut next = |state: &str| -> Result<()> {
        // It prints whenever anything differs, so one that is looked for may come after others.
        for line in lines.by_ref() {
            let value: Value = serde_json::from_str(&line?)?;
            if value["nics"][0]["state"] == state {
                return Ok(());
            }
        }
        anyhow::bail!("it ended before {state:?}")
    };
    let watched = (|| {
        next("in sync")?;
        node.netns.ip("rule del iif tap0")?;
        next("drift")?;
        node.files.run(&node.netns, &["reconcile"], "")?.succeeds()?;
        next("in sync")?;
        node.files.set("ROUTING=rule")?;
        next("drift")?;
        node.files.run(&node.netns, &["reconcile"], "")?.succeeds()?;
        next("in sync")?;
        // The kernel tells nobody of proxy entries.
        node.netns.ip(&format!("-6 neigh del proxy {} dev eth1", WEB1.ip6))?;
        next("drift")
    })();
    child.kill()?;
    child.wait()?;
    watched
}
