//! What guards TAPs with a virtio header, when others change it, cannot be made, or is made by many at once.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::guest::{Guest, WEB1};
use crate::harness::port::Port;
use crate::harness::snapshot::CHECKSUM_DEVICE;
use crate::harness::topology::Node;
use crate::tests::checksums::World;
use crate::tests::plan;

pub const TESTS: &[Test] = &[
    ("checksum_drift::what_others_change_is_repaired", what_others_change_is_repaired),
    ("checksum_drift::without_its_device_nothing_passes", without_its_device_nothing_passes),
    ("checksum_drift::a_tap_without_a_header_needs_no_guard", a_tap_without_a_header_needs_no_guard),
    ("checksum_drift::a_qdisc_of_another_program_stays", a_qdisc_of_another_program_stays),
    (
        "checksum_drift::where_it_cannot_be_made_filtered_nics_are_refused",
        where_it_cannot_be_made_filtered_nics_are_refused,
    ),
    ("checksum_drift::nics_of_a_version_without_it_are_guarded_by_reconcile", nics_of_a_version_without_it_are_guarded),
    ("checksum_drift::the_first_taps_of_a_node_share_it", the_first_taps_of_a_node_share_it),
    ("checksum_drift::by_the_real_tools", by_the_real_tools),
];

/// Runs a command of words in the node.
fn sh(node: &Node, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let program = words.next().context("a command")?;
    node.netns.output(Command::new(program).args(words))
}

fn tool(node: &Node, words: &str) -> Result<Option<i32>> {
    let words: Vec<_> = words.split_whitespace().collect();
    Ok(node.files.run(&node.netns, &words, "")?.code)
}

/// What others can do to it.
const DAMAGES: &[&str] = &[
    "ip link del snf-checksum",
    "ip link set snf-checksum down",
    "ethtool -K snf-checksum tx on",
    "tc filter del block 218 prio 1",
    "tc filter replace block 218 protocol all prio 1 handle 800::5 u32 match u32 0 0 at 0 action csum tcp",
    "tc qdisc del dev snf-checksum clsact",
    "tc qdisc del dev tap0 clsact",
];

fn what_others_change_is_repaired() -> Result<()> {
    let world = World::new("")?;
    let node = &world.node;
    sh(node, "ethtool -K port0 tx off")?;
    world.nic().ifup()?.succeeds()?;
    world.is_guarded()?;
    for damage in DAMAGES {
        // The kernel may lack the action.
        if sh(node, damage).is_err() {
            ensure!(damage.contains("csum tcp"), "{damage}");
            continue;
        }
        let status = node.files.run(&node.netns, &["status"], "")?;
        let named = status.stdout.contains("device snf-checksum") || status.stdout.contains("tc qdisc");
        ensure!(status.code == Some(3) && named, "{damage}: {status:?}");
        ensure!(tool(node, "reconcile")? == Some(0), "{damage}");
        ensure!(tool(node, "status")? == Some(0), "{damage}");
        world.is_guarded().context(*damage)?;
        // What reconcile repairs, an ifup does too, but for what it does not look at.
        if *damage != DAMAGES[4] && *damage != DAMAGES[5] {
            sh(node, damage)?;
            world.nic().ifup()?.succeeds()?;
            ensure!(tool(node, "status")? == Some(0), "{damage}, ifup");
            world.is_guarded().context(*damage)?;
        }
    }
    Ok(())
}

/// It fails closed.
fn without_its_device_nothing_passes() -> Result<()> {
    for damage in &DAMAGES[..2] {
        let world = World::new("")?;
        world.nic().ifup()?.succeeds()?;
        ensure!(world.passes()?, "an honest datagram did not pass");
        sh(&world.node, damage)?;
        ensure!(!world.passes()?, "{damage}: it passed");
        ensure!(tool(&world.node, "reconcile")? == Some(0), "{damage}");
        ensure!(world.passes()?, "{damage}: after reconcile it did not pass");
    }
    Ok(())
}

fn a_tap_without_a_header_needs_no_guard() -> Result<()> {
    let world = World::new("")?;
    let node = &world.node;
    let _port = Port::tap(&node.netns, "tap1")?;
    node.nic("tap1", WEB1).bridged("br0").set("NETWORK_TAGS", "strict-filtered").ifup()?.succeeds()?;
    ensure!(!sh(node, "tc qdisc show")?.contains("clsact"), "a guard that nobody needs");
    Ok(())
}

fn a_qdisc_of_another_program_stays() -> Result<()> {
    let world = World::new("")?;
    let node = &world.node;
    sh(node, "tc qdisc add dev tap0 clsact")?;
    let parts =
        ["INTERFACE: \"tap0\"", "another program gave it the qdisc clsact", "vnet_hdr", "VNET_HDR_GUARD=optional"];
    world.nic().ifup()?.fails(&parts)?;
    ensure!(!node.files.state().join("tap0").exists(), "a record is left");
    // Without filters there is nothing to change behind them.
    world.nic().set("NETWORK_TAGS", "").ifup()?.succeeds()?;
    world.nic().set("NETWORK_TAGS", "").ifdown()?.succeeds()?;
    node.files.set("VNET_HDR_GUARD=optional")?;
    world.nic().ifup()?.succeeds()?;
    ensure!(fs::read_to_string(node.files.log())?.contains("is not guarded"), "no warning");
    world.nic().ifdown()?.succeeds()?;
    let qdisc = sh(node, "tc qdisc show dev tap0")?;
    ensure!(qdisc.contains("clsact") && !qdisc.contains("ingress_block"), "{qdisc}");
    Ok(())
}

/// Here as the name of its device is taken.
fn where_it_cannot_be_made_filtered_nics_are_refused() -> Result<()> {
    let world = World::new("")?;
    let node = &world.node;
    sh(node, &format!("ip link add {CHECKSUM_DEVICE} type bridge"))?;
    let parts = ["INTERFACE: \"tap0\"", "expected a device of kind ifb, found bridge", "vnet_hdr"];
    world.nic().ifup()?.fails(&parts)?;
    ensure!(!node.files.state().join("tap0").exists(), "a record is left");
    let parts = ["node guard: TAPs with a virtio header cannot be guarded", "vnet_hdr"];
    node.files.run(&node.netns, &["node", "guard"], "")?.fails(&parts)?;
    sh(node, "ip link add eth1 type veth peer name eth2")?;
    let up = node.files.run(&node.netns, &["node", "up"], Node::UPLINK)?.succeeds()?;
    ensure!(up.stderr.contains("cannot be guarded") && up.stderr.contains("ifup will refuse"), "{up:?}");
    sh(node, &format!("ip link del {CHECKSUM_DEVICE}"))?;
    node.files.run(&node.netns, &["node", "guard"], "")?.succeeds()?;
    ensure!(sh(node, "tc filter show block 218")?.contains("cookie"), "no filters after node guard");
    world.nic().ifup()?.succeeds()?;
    world.is_guarded()
}

fn nics_of_a_version_without_it_are_guarded() -> Result<()> {
    let world = World::new("")?;
    let node = &world.node;
    sh(node, "ethtool -K port0 tx off")?;
    world.nic().ifup()?.succeeds()?;
    let file = node.files.state().join("tap0");
    let record = fs::read_to_string(&file)?;
    let old: Vec<_> = record.lines().filter(|line| !line.starts_with("CHECKSUM_GUARD=")).collect();
    ensure!(old.len() + 1 == record.lines().count(), "{record}");
    fs::write(&file, format!("{}\n", old.join("\n")))?;
    sh(node, "tc qdisc del dev tap0 clsact")?;
    sh(node, &format!("ip link del {CHECKSUM_DEVICE}"))?;
    ensure!(world.is_guarded().is_err(), "nothing arrives without a guard");
    ensure!(tool(node, "status")? == Some(3), "status is content");
    ensure!(tool(node, "reconcile")? == Some(0), "reconcile");
    ensure!(tool(node, "status")? == Some(0), "status after reconcile");
    world.is_guarded()?;
    world.nic().ifdown()?.succeeds()?;
    ensure!(!sh(node, "tc qdisc show dev tap0")?.contains("clsact"), "its qdisc is left");
    Ok(())
}

/// Whoever comes first makes it, and the others wait for nobody.
fn the_first_taps_of_a_node_share_it() -> Result<()> {
    let world = World::new("")?;
    let node = &world.node;
    let taps: Vec<_> = (1..=8).map(|n| format!("tap{n}")).collect();
    let ports = taps.iter().map(|tap| Port::virtio_tap(&node.netns, tap)).collect::<Result<Vec<_>>>()?;
    let nics: Vec<_> =
        taps.iter().map(|tap| node.nic(tap, WEB1).bridged("br0").set("NETWORK_TAGS", "strict-filtered")).collect();
    let runs = nics.iter().map(|nic| nic.start("ifup")).collect::<Result<Vec<_>>>()?;
    for run in runs {
        run.finish()?.succeeds()?;
    }
    ensure!(tool(node, "status")? == Some(0), "status");
    let qdiscs = sh(node, "tc qdisc show")?;
    ensure!(qdiscs.matches("ingress_block 218").count() == taps.len() + 1, "{qdiscs}");
    drop(ports);
    Ok(())
}

fn by_the_real_tools() -> Result<()> {
    fn plug(node: &Node) -> Result<Guest> {
        Guest::plug_virtio(&node.netns, "tap0", WEB1)
    }
    let guarded = |node: &Node| -> Result<String> {
        let link = sh(node, &format!("ip -d link show dev {CHECKSUM_DEVICE}"))?;
        let words = ["UP", " ifb ", "addrgenmode none", "group 218"];
        ensure!(words.iter().all(|word| link.contains(word)), "{link}");
        sh(node, &format!("tc qdisc show dev {CHECKSUM_DEVICE}"))
    };
    for tags in ["strict-filtered", ""] {
        let (site, _guest) = plan::differential_of("", plug, |nic| nic.bridged("br0").set("NETWORK_TAGS", tags))?;
        ensure!(guarded(&site.node)?.contains("ingress_block 218"), "the device is not in the block");
        ensure!(sh(&site.node, "tc filter show block 218")?.contains("cookie"), "no filters");
        ensure!(sh(&site.node, &format!("ethtool -k {CHECKSUM_DEVICE}"))?.contains("tx-checksumming: off"), "tx is on");
    }
    plan::differential_of("", plug, |nic| nic).map(drop)
}
