//! `status`: what it shows of NICs and uplinks, its JSON, its exit codes, and how it watches.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Test;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::monitor::Monitor;
use crate::harness::nic::{Outcome, PROGRAM};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, Site};

pub const TESTS: &[Test] = &[
    ("status::shows_nics_and_uplinks", shows_nics_and_uplinks),
    ("status::its_json", its_json),
    ("status::of_some_nics_only", of_some_nics_only),
    ("status::what_cannot_be_read_is_an_error", what_cannot_be_read_is_an_error),
    ("status::an_ordinary_user_is_told_so", an_ordinary_user_is_told_so),
    ("status::nothing_recorded_is_in_order", nothing_recorded_is_in_order),
    ("status::watches", watches),
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
    let drift = serde_json::json!([
        {
            "kind": "different",
            "what": "ip link set dev tap0 address cc:47:52:4e:45:54",
            "found": "address 02:00:00:00:07:07",
        },
        {"kind": "missing", "what": "ip rule iif tap0 lookup 100 pref 20100 protocol 217", "found": null},
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
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", PROGRAM, "status"]);
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

fn watches() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let _guest = node.guest("tap0", WEB1)?;
    node.netns.settle()?;
    let mut command = Command::new(PROGRAM);
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
        // The kernel tells nobody of proxy entries.
        node.netns.ip(&format!("-6 neigh del proxy {} dev eth1", WEB1.ip6))?;
        next("drift")
    })();
    child.kill()?;
    child.wait()?;
    watched
}
