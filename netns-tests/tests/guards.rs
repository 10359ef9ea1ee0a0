//! What ifup refuses before it touches anything, because the node itself or another guest would suffer.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Test;
use crate::harness::guest::{Guest, WEB1};
use crate::harness::nic::Nic;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Site;
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("guards::only_guests_interfaces_are_set_up", only_guests_interfaces_are_set_up),
    ("guards::ifdown_leaves_a_device_of_the_node_up", ifdown_leaves_a_device_of_the_node_up),
    ("guards::the_nodes_own_addresses_are_refused", the_nodes_own_addresses_are_refused),
    ("guards::misspelt_tags_are_refused_or_named", misspelt_tags_are_refused_or_named),
    ("guards::a_record_with_a_misspelt_tag_is_kept_in_force", a_record_with_a_misspelt_tag_is_kept_in_force),
];

/// A site with a guest's TAP.
fn site() -> Result<(Site, Guest)> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    site.node.netns.settle()?;
    Ok((site, guest))
}

/// That ifup and plan fail so, and change nothing.
fn refused(site: &Site, interface: &str, nic: &Nic<'_>, parts: &[&str]) -> Result<()> {
    let before = Snapshot::of(&site.node.netns)?;
    for verb in ["ifup", "plan"] {
        nic.run(verb)?.fails(parts).with_context(|| format!("{verb} {interface}"))?;
    }
    before.equals(&Snapshot::of(&site.node.netns)?)?;
    ensure!(!site.node.files.state().join(interface).exists(), "{interface} is recorded");
    Ok(())
}

fn only_guests_interfaces_are_set_up() -> Result<()> {
    let (site, _guest) = site()?;
    let netns = &site.node.netns;
    let nic = |interface: &str| site.node.nic(interface, WEB1);
    let mut tried = 0;
    for (interface, kind, add) in [
        ("lo", "none", ""),
        ("br7", "bridge", "link add br7 type bridge"),
        ("ifb7", "ifb", "link add ifb7 type ifb"),
        ("tun7", "tun", "tuntap add mode tun name tun7"),
        ("dummy7", "dummy", "link add dummy7 type dummy"),
        ("bond7", "bond", "link add bond7 type bond"),
        ("eth0.7", "vlan", "link add link eth0 name eth0.7 type vlan id 7"),
        ("mv7", "macvlan", "link add link eth0 name mv7 type macvlan"),
    ] {
        // Not every kernel has every kind.
        if add.is_empty() || netns.ip(add).is_ok() {
            tried += 1;
            let expected = format!("INTERFACE: \"{interface}\" (kind {kind}): expected a TAP");
            refused(&site, interface, &nic(interface), &[&expected])?;
            refused(&site, interface, &nic(interface).set("NETWORK_TAGS", "").bridged("br0"), &[&expected])?;
        }
    }
    ensure!(tried >= 3, "only {tried} kinds of devices");
    let uplink = ["INTERFACE: \"eth1\": expected a guest's interface, it is an uplink of this node"];
    refused(&site, "eth1", &nic("eth1"), &uplink)?;
    refused(&site, "eth1", &nic("eth1").set("NETWORK_TAGS", ""), &uplink)?;
    // The default route of the table says so where nothing is recorded of the uplink.
    fs::remove_dir_all(site.node.files.state().join("uplinks-by-device"))?;
    refused(&site, "eth1", &nic("eth1"), &uplink)?;
    nic("tap0").ifup()?.succeeds()?;
    netns.ip("link add link eth0 name macvtap7 type macvtap")?;
    nic("macvtap7").set("IP", "10.0.0.9").run("plan")?.succeeds()?;
    Ok(())
}

fn ifdown_leaves_a_device_of_the_node_up() -> Result<()> {
    let (site, guest) = site()?;
    let netns = &site.node.netns;
    let nic = site.node.nic("tap0", WEB1);
    nic.ifup()?.succeeds()?;
    // 1.0.0 recorded whatever INTERFACE named; here the bridge gets the TAP's name and number.
    let shown = netns.ip("-o link show dev tap0")?;
    let number = shown.split(':').next().context("a number")?.to_owned();
    site.node.unplug(guest, "tap0")?;
    netns.ip_batch(&format!(
        "link add name tap0 index {number} type bridge\n\
         link set tap0 up\n\
         addr add 203.0.113.7/24 dev tap0\n\
         route add 198.18.0.0/15 via 203.0.113.1\n"
    ))?;
    let outcome = nic.ifdown()?.succeeds()?;
    ensure!(outcome.stderr.contains("tap0 is not a guest's interface"), "{outcome:?}");
    ensure!(netns.ip("link show dev tap0")?.contains(",UP"), "the bridge is down");
    ensure!(!netns.ip("route show 198.18.0.0/15")?.is_empty(), "a route of the node is gone");
    ensure!(!site.node.files.state().join("tap0").exists(), "the record is left");
    let left = Snapshot::of(netns)?;
    let rules: Vec<_> = left.naming("tap0").into_iter().filter(|it| it.starts_with("nft")).collect();
    ensure!(rules.is_empty(), "{rules:#?}");
    Ok(())
}

fn the_nodes_own_addresses_are_refused() -> Result<()> {
    let (site, _guest) = site()?;
    let netns = &site.node.netns;
    netns.ip_batch(
        "link add br0 type bridge mcast_snooping 0\n\
         link set br0 addrgenmode none\n\
         link set br0 up\n\
         addr add 203.0.113.7/24 dev br0\n\
         addr add 2001:db8:3::7/64 dev br0 nodad\n",
    )?;
    until("the bridge to have its address", || {
        Ok(netns.ip("-6 route show table local")?.contains("local 2001:db8:3::7"))
    })?;
    let nic = |ip: &str| {
        let networks = ["NETWORK_SUBNET", "NETWORK_GATEWAY", "NETWORK_SUBNET6", "NETWORK_GATEWAY6"];
        site.node.nic("tap0", WEB1).unset(&networks).set("IP", ip)
    };
    for (ip, device) in [
        ("192.0.2.11", "eth0"),
        ("192.0.2.255", "eth0"),
        ("2001:db8:2::11", "eth0"),
        ("203.0.113.7", "br0"),
        ("2001:db8:3::7", "br0"),
    ] {
        let message = format!("the NIC's address {ip}: expected none of this node's own, but {device} has it");
        for tags in ["ip-less-routed", "", "strict-filtered"] {
            refused(&site, "tap0", &nic(ip).set("NETWORK_TAGS", tags), &[&message])?;
        }
        // What is on a bridge is no address of the node's elsewhere: private networks use the same ones.
        let bridged = nic(ip).set("NETWORK_TAGS", "nfdhcpd").bridged("br0");
        if device == "br0" {
            refused(&site, "tap0", &bridged, &[&message])?;
        } else {
            bridged.run("plan")?.succeeds()?;
        }
    }
    // The address that IPv6 makes of the guest's MAC.
    netns.ip(&format!("addr add {}/128 dev lo", WEB1.ip6))?;
    refused(&site, "tap0", &site.node.nic("tap0", WEB1), &[&WEB1.ip6.to_string(), "but lo has it"])?;
    netns.ip(&format!("addr del {}/128 dev lo", WEB1.ip6))?;
    // The gateway may be the node's own, as of every plain routed NIC.
    netns.ip("addr add 10.0.0.1/32 dev lo")?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    Ok(())
}

fn misspelt_tags_are_refused_or_named() -> Result<()> {
    let (site, _guest) = site()?;
    let node = &site.node;
    let nic = |network: &str, instance: &str| node.nic("tap0", WEB1).set("NETWORK_TAGS", network).set("TAGS", instance);
    for (network, instance, parts) in [
        ("ip-less-routd", "", ["NETWORK_TAGS: tag \"ip-less-routd\"", "expected \"ip-less-routed\""]),
        ("ip-less-routed strict-filterd", "", ["tag \"strict-filterd\"", "expected \"strict-filtered\""]),
        ("ip-less-routed", "synnefo:network:0:protectd", ["TAGS: tag \"synnefo:network:0:protectd\"", "protected"]),
        ("ip-less-routed", "web protectedd", ["TAGS: tag \"protectedd\"", "expected \"protected\""]),
    ] {
        refused(&site, "tap0", &nic(network, instance), &parts)?;
    }
    for (network, instance, warning) in [
        ("ip-less-routed nfdhcp masq", "", "NETWORK_TAGS: tag \"nfdhcp\" does nothing: expected \"nfdhcpd\""),
        ("ip-less-routed masq", "", "NETWORK_TAGS: tag \"masq\" does nothing yet"),
        ("ip-less-routed", "disable_ipv5", "TAGS: tag \"disable_ipv5\" does nothing"),
    ] {
        let outcome = nic(network, instance).ifup()?.succeeds()?;
        ensure!(outcome.stderr.contains(&format!("ifup tap0: warning: {warning}")), "{outcome:?}");
        let log = fs::read_to_string(node.files.log())?;
        ensure!(log.contains(&format!("warning: {warning}")), "{log}");
        let shown = node.files.run(&node.netns, &["status"], "")?.succeeds()?.stdout;
        ensure!(shown.lines().any(|it| it.trim().starts_with(&format!("warning: {warning}"))), "{shown}");
        let shown: Value = serde_json::from_str(&node.files.run(&node.netns, &["status"], "--json")?.stdout)?;
        let warnings = shown["nics"][0]["warnings"].as_array().context("warnings")?;
        ensure!(warnings.iter().any(|it| it.as_str().is_some_and(|it| it.starts_with(warning))), "{shown}");
    }
    // Tags of others are nobody's mistake.
    let outcome = nic("ip-less-routed dmz", "web production synnefo:network:1:protectd").ifup()?.succeeds()?;
    ensure!(outcome.stderr.is_empty(), "{outcome:?}");
    Ok(())
}

/// As 1.0.0 could have written it.
fn a_record_with_a_misspelt_tag_is_kept_in_force() -> Result<()> {
    let (site, _guest) = site()?;
    let node = &site.node;
    let nic = node.nic("tap0", WEB1);
    let before = Snapshot::of(&node.netns)?;
    nic.ifup()?.succeeds()?;
    node.netns.settle()?;
    let record = node.files.state().join("tap0");
    let text = fs::read_to_string(&record)?;
    let old = text.replace("TAGS=''", "TAGS='synnefo:network:0:protectd'");
    ensure!(old != text, "{text}");
    fs::write(&record, old)?;
    node.netns.output(Command::new("nft").args(["flush", "ruleset"]))?;
    node.files.run(&node.netns, &["reconcile"], "")?.succeeds()?;
    let shown = node.files.run(&node.netns, &["status"], "")?.succeeds()?.stdout;
    ensure!(shown.contains("warning: TAGS: tag \"synnefo:network:0:protectd\""), "{shown}");
    let up = Snapshot::of(&node.netns)?;
    nic.set("TAGS", "synnefo:network:0:protectd").ifup()?.fails(&["synnefo:network:0:protectd"])?;
    up.equals(&Snapshot::of(&node.netns)?)?;
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    before.returns_in(&node.netns, Snapshot::without_base_tables)
}
