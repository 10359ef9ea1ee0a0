//! snf-network-hook: what vanished NICs left goes, and nothing else does.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::guest::{Identity, WEB1, WEB2};
use crate::harness::nic::Outcome;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[
    ("hook::each_operation_clears_a_vanished_nic", each_operation_clears_a_vanished_nic),
    ("hook::what_is_none_of_its_business", what_is_none_of_its_business),
    ("hook::a_tap_that_is_there_stays", a_tap_that_is_there_stays),
    ("hook::a_name_used_again_by_a_stranger", a_name_used_again_by_a_stranger),
    ("hook::a_leftover_in_front_of_another_nic", a_leftover_in_front_of_another_nic),
    ("hook::an_address_that_lives_on_another_tap", an_address_that_lives_on_another_tap),
    ("hook::bad_variables", bad_variables),
];

/// The hook on the node that the instance leaves, unless `more` says otherwise.
pub fn hook(node: &Node, operation: &str, id: Identity, more: &[(&str, &str)]) -> Result<Outcome> {
    let host = nix::unistd::gethostname()?;
    let host = host.to_string_lossy();
    let moves = operation.ends_with("MIGRATE") || operation.ends_with("FAILOVER");
    let mut variables = vec![
        ("GANETI_HOOKS_PHASE", "post"),
        ("GANETI_OP_CODE", operation),
        ("GANETI_INSTANCE_NAME", id.name),
        // After a migration it is the target.
        ("GANETI_INSTANCE_PRIMARY", if moves { "elsewhere" } else { &host }),
        ("GANETI_OLD_PRIMARY", if moves { &host } else { "None" }),
        ("GANETI_INSTANCE_NIC_COUNT", "0"),
    ];
    variables.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    variables.extend(more);
    node.files.run_with(&node.netns, &["snf-network-hook"], &variables)
}

const OPERATIONS: [&str; 4] =
    ["OP_INSTANCE_MIGRATE", "OP_INSTANCE_FAILOVER", "OP_INSTANCE_SHUTDOWN", "OP_INSTANCE_REMOVE"];

/// A node that a guest vanished from, without any ifdown.
fn vanished(site: &Site, tap: &str, id: Identity) -> Result<()> {
    let guest = site.node.plug(tap, id)?;
    site.node.nic(tap, id).set("NETWORK_TAGS", "ip-less-routed nfdhcpd").ifup()?.succeeds()?;
    site.node.unplug(guest, tap)
}

fn each_operation_clears_a_vanished_nic() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let two = node.guest("tap1", WEB2)?;
    node.settled("tap1")?;
    netns.settle()?;
    let before = Snapshot::of(netns)?;
    for operation in OPERATIONS {
        vanished(&site, "tap0", WEB1)?;
        let left = Snapshot::of(netns)?;
        ensure!(!left.naming(&WEB1.ip6.to_string()).is_empty(), "nothing was left: the test tests nothing");
        hook(node, operation, WEB1, &[])?.succeeds()?;
        before.returns_in(netns, |state| state).context(operation)?;
        for path in [node.files.state().join("tap0"), node.files.bindings().join("tap0")] {
            ensure!(!path.exists(), "{operation}: {} is still there", path.display());
        }
        hook(node, operation, WEB1, &[])?.succeeds()?;
    }
    // Known by its UUID where the instance has another name by now.
    vanished(&site, "tap0", WEB1)?;
    let uuid = [
        ("GANETI_INSTANCE_NIC_COUNT", "1"),
        ("GANETI_INSTANCE_NIC0_UUID", "0c2a1a4e-0000-4000-8000-000000000001"),
        ("GANETI_INSTANCE_NAME", "renamed"),
    ];
    hook(node, "OP_INSTANCE_SHUTDOWN", WEB1, &uuid)?.succeeds()?;
    before.returns_in(netns, |state| state)?;
    two.ping(OUTSIDE)?;
    two.ping(OUTSIDE6)?;
    let log = fs::read_to_string(node.files.log())?;
    ensure!(log.contains("post OP_INSTANCE_MIGRATE snf-network-hook web1.example.org: ip -6 neigh del proxy"), "{log}");
    Ok(())
}

fn what_is_none_of_its_business() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    vanished(&site, "tap0", WEB1)?;
    netns.settle()?;
    let before = Snapshot::of(netns)?;
    let shutdown = "OP_INSTANCE_SHUTDOWN";
    for (operation, id, more) in [
        ("OP_INSTANCE_STARTUP", WEB1, &[][..]),
        ("OP_INSTANCE_SET_PARAMS", WEB1, &[]),
        ("OP_CLUSTER_VERIFY", WEB1, &[]),
        ("", WEB1, &[]),
        (shutdown, WEB1, &[("GANETI_HOOKS_PHASE", "pre")]),
        (shutdown, WEB1, &[("GANETI_HOOKS_PHASE", "")]),
        (shutdown, WEB1, &[("GANETI_INSTANCE_PRIMARY", "elsewhere")]),
        ("OP_INSTANCE_MIGRATE", WEB1, &[("GANETI_OLD_PRIMARY", "elsewhere")]),
        // Another instance, of which nothing is recorded.
        (shutdown, WEB2, &[]),
    ] {
        let outcome = hook(node, operation, id, more)?.succeeds()?;
        ensure!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:#?}");
        before.equals(&Snapshot::of(netns)?).with_context(|| format!("{operation} {more:?}"))?;
        ensure!(node.files.state().join("tap0").exists(), "{operation} {more:?}: the record is gone");
    }
    Ok(())
}

fn a_tap_that_is_there_stays() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let guest = node.guest("tap0", WEB1)?;
    node.settled("tap0")?;
    netns.settle()?;
    let before = Snapshot::of(netns)?;
    for operation in OPERATIONS {
        hook(node, operation, WEB1, &[])?.succeeds()?;
        before.equals(&Snapshot::of(netns)?).context(operation)?;
    }
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    Ok(())
}

/// Another TAP has the name, and nobody called ifup for it yet: what stood under the name goes, the TAP is not touched.
fn a_name_used_again_by_a_stranger() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let fresh = node.plug("tap0", WEB2)?;
    netns.ip("link set tap0 address 02:00:00:00:09:09 up")?;
    let before = Snapshot::of(netns)?;
    node.unplug(fresh, "tap0")?;
    vanished(&site, "tap0", WEB1)?;
    let _fresh = node.plug("tap0", WEB2)?;
    netns.ip("link set tap0 address 02:00:00:00:09:09 up")?;
    hook(node, "OP_INSTANCE_FAILOVER", WEB1, &[])?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

/// An ifup that could not clear away what stood before it keeps its record in front of its own.
fn a_leftover_in_front_of_another_nic() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    vanished(&site, "tap0", WEB1)?;
    let path = node.files.state().join("tap0");
    let old = fs::read_to_string(&path)?;
    let guest = node.guest("tap0", WEB2)?;
    node.settled("tap0")?;
    netns.settle()?;
    let (before, new) = (Snapshot::of(netns)?, fs::read_to_string(&path)?);
    fs::write(&path, old + &new)?;
    netns.ip(&format!("-6 neigh add proxy {} dev eth1 protocol 217", WEB1.ip6))?;
    hook(node, "OP_INSTANCE_SHUTDOWN", WEB1, &[])?.succeeds()?;
    before.returns_in(netns, |state| state)?;
    ensure!(fs::read_to_string(&path)? == new, "the record is not the new NIC's alone");
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    Ok(())
}

/// A guest that crashed came back on another TAP: both records name the same proxy entry.
fn an_address_that_lives_on_another_tap() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    vanished(&site, "tap5", WEB1)?;
    let guest = node.guest("tap0", WEB1)?;
    node.settled("tap0")?;
    hook(node, "OP_INSTANCE_SHUTDOWN", WEB1, &[])?.succeeds()?;
    ensure!(!node.files.state().join("tap5").exists(), "the vanished NIC is still recorded");
    ensure!(Snapshot::of(netns)?.naming("tap5").is_empty(), "{:#?}", Snapshot::of(netns)?.naming("tap5"));
    let proxies = netns.ip("-6 neigh show proxy dev eth1")?;
    ensure!(proxies.contains(&WEB1.ip6.to_string()), "the guest's proxy entry is gone: {proxies}");
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    Ok(())
}

fn bad_variables() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    vanished(&site, "tap0", WEB1)?;
    netns.settle()?;
    let before = Snapshot::of(netns)?;
    for (operation, more, part) in [
        ("OP_INSTANCE_MIGRATE", ("GANETI_OLD_PRIMARY", "None"), "GANETI_OLD_PRIMARY is not set"),
        ("OP_INSTANCE_REMOVE", ("GANETI_INSTANCE_PRIMARY", ""), "GANETI_INSTANCE_PRIMARY is not set"),
        ("OP_INSTANCE_REMOVE", ("GANETI_INSTANCE_NAME", ""), "GANETI_INSTANCE_NAME is not set"),
        ("OP_INSTANCE_REMOVE", ("GANETI_INSTANCE_NIC_COUNT", "many"), "GANETI_INSTANCE_NIC_COUNT \"many\""),
    ] {
        hook(node, operation, WEB1, &[more])?.fails(&[part])?;
        before.equals(&Snapshot::of(netns)?)?;
    }
    // What is not ours in STATE_DIR is no reason to leave the rest behind.
    fs::write(node.files.state().join("tap7"), "IP=10.0.0.1\n")?;
    hook(node, "OP_INSTANCE_REMOVE", WEB1, &[])?.succeeds()?;
    ensure!(!node.files.state().join("tap0").exists(), "the record is still there");
    Ok(())
}
