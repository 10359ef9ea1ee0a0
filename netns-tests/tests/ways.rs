//! `status -v`: what it says of the way of a NIC's packets, in each mode, is what `ip`, `nft` and `ovs-vsctl` say; and what is
//! taken away is missing at its step.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::ovs;
use super::status::{status, step};
use crate::Test;
use crate::harness::guest::WEB1;
use crate::harness::netns::Netns;
use crate::harness::ovs::Datapath;
use crate::harness::topology::{Node, Site};

pub const TESTS: &[Test] = &[
    ("ways::through_the_uplink", through_the_uplink),
    ("ways::of_a_plain_routed_nic", of_a_plain_routed_nic),
    ("ways::of_a_plain_bridged_nic", of_a_plain_bridged_nic),
    ("ways::of_a_nic_on_openvswitch", of_a_nic_on_openvswitch),
    ("ways::of_a_nic_that_others_connect", of_a_nic_that_others_connect),
];

const FROM: &str = "tap0: from the guest";
const TO: &str = "tap0: to the guest";

/// `status -v tap0`, with its exit code.
fn way(node: &Node, code: i32) -> Result<String> {
    let outcome = status(node, "-v tap0")?;
    ensure!(outcome.code == Some(code), "expected exit {code}: {outcome:#?}");
    let wrong = ["MISSING", "DIFFERENT"].iter().any(|word| outcome.stdout.contains(word));
    ensure!(wrong == (code != 0), "{}", outcome.stdout);
    Ok(outcome.stdout)
}

/// How many steps are said not to be in place.
fn wrong(text: &str) -> usize {
    ["MISSING", "DIFFERENT"].iter().map(|word| text.matches(word).count()).sum()
}

/// What `ip` says of tap0: that it is up, its address, its MTU, and whose port it is.
fn link(netns: &Netns) -> Result<(String, u64, String)> {
    let link: Value = serde_json::from_str(&netns.ip("-j link show dev tap0")?)?;
    let link = &link[0];
    let flags = link["flags"].as_array().context("flags")?;
    ensure!(flags.iter().any(|it| it == "UP"), "{link}");
    let text = |key: &str| link[key].as_str().unwrap_or_default().to_owned();
    Ok((text("address"), link["mtu"].as_u64().context("mtu")?, text("master")))
}

/// That the step of each line of `ip` that begins with `shown` is in place and says it.
fn stands(netns: &Netns, text: &str, way: &str, question: &str, shown: &[(&str, &str)]) -> Result<()> {
    let answer = netns.ip(question)?;
    for (of_ip, of_status) in shown {
        ensure!(answer.lines().any(|line| line.trim_start().starts_with(of_ip)), "no {of_ip:?} in {answer}");
        step(text, way, &["in place ", of_status])?;
    }
    Ok(())
}

/// The uplinks are those of the TAP that is asked for: their lines and their part of the way.
fn through_the_uplink() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let _guest = node.guest("tap0", WEB1)?;
    let text = way(node, 0)?;
    for (routes, gateway) in [("10.0.0.0/24", "10.0.0.1"), ("2001:db8:1::/64", "2001:db8:1::1")] {
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let line = lines.find(|line| line.starts_with(&format!("eth1 - - uplink - {routes} via {gateway} table 100 ")));
        ensure!(line.is_some_and(|line| line.ends_with(" in sync")), "no line of {gateway} in {text}");
    }
    for (family, gateway) in [("-4", "10.0.0.1"), ("-6", "2001:db8:1::1")] {
        let (of_ip, six) = (format!("default via {gateway} dev eth1"), if family == "-6" { "-6 " } else { "" });
        let default = format!("ip {six}route default via {gateway} dev eth1 table 100 proto 218");
        stands(netns, &text, FROM, &format!("{family} route show table 100"), &[(&of_ip, &default)])?;
        let rule = format!("ip {six}rule iif eth1 lookup 100 pref 20000 protocol 218");
        stands(netns, &text, TO, &format!("{family} rule show"), &[("20000:\tfrom all iif eth1 lookup 100", &rule)])?;
    }
    let text = status(node, "tap0")?.succeeds()?.stdout;
    ensure!(!text.contains("uplink"), "{text}");

    // The guest's packets do not come out, though all of its own stands.
    netns.ip("route del default table 100 via 10.0.0.1 dev eth1")?;
    netns.ip("rule del iif eth1")?;
    let text = way(node, 3)?;
    step(&text, FROM, &["MISSING eth1 ip route default via 10.0.0.1 dev eth1 table 100"])?;
    step(&text, TO, &["MISSING eth1 ip rule iif eth1 lookup 100"])?;
    ensure!(wrong(&text) == 2, "{text}");
    let text = status(node, "tap0")?;
    ensure!(text.code == Some(3), "{text:#?}");
    ensure!(text.stdout.contains("cut off: table 100 has no IPv4 default route"), "{text:#?}");

    // Routes of others are not ours to judge.
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    node.files.run(netns, &["node", "down"], "--dev eth1")?.succeeds()?;
    netns.ip_batch("link set eth1 up\nroute add 10.0.0.0/24 dev eth1 table 100\nroute add default via 10.0.0.1 dev eth1 table 100 onlink\n")?;
    node.nic("tap0", WEB1).only_v4().ifup()?.succeeds()?;
    let text = way(node, 0)?;
    step(&text, FROM, &["- eth1 out by the table's default route, which node up did not make"])?;
    step(&text, TO, &["- eth1 in to the table, by no rule of node up"]).map(drop)
}

fn of_a_plain_routed_nic() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let _guest = node.plug("tap0", WEB1)?;
    node.nic("tap0", WEB1).set("NETWORK_TAGS", "").ifup()?.succeeds()?;
    let text = way(node, 0)?;
    let (mac, ..) = link(netns)?;
    let own = step(&text, FROM, &["in place tap0 "])?;
    ensure!(own.contains(&format!("MAC {mac}, up, ")) && own == step(&text, TO, &["in place tap0 "])?, "{own}");
    for setting in ["ipv4.proxy_arp=1", "ipv4.forwarding=1", "ipv6.accept_ra=0"] {
        let (family, key) = setting.split_once('.').context("a setting")?;
        let (key, value) = key.split_once('=').context("a value")?;
        ensure!(
            own.contains(setting) && netns.sysctl(&format!("{family}/conf/tap0/{key}"))? == value,
            "{setting}: {own}"
        );
    }
    stands(
        netns,
        &text,
        FROM,
        "rule show",
        &[
            (
                "20050:\tfrom all fwmark 0x6400000/0xfff00000 lookup 100",
                "rule ip rule fwmark 0x6400000/0xfff00000 lookup 100",
            ),
            ("20100:\tfrom all iif tap0 lookup 100", "rule ip rule iif tap0 lookup 100"),
        ],
    )?;
    stands(
        netns,
        &text,
        TO,
        "route show table 100",
        &[("10.0.0.2 dev tap0", "route ip route 10.0.0.2/32 dev tap0 table 100")],
    )?;
    netns.output(Command::new("nft").args(["get element inet snf-network steered_100 { tap0 }"]))?;
    step(&text, FROM, &["in place inet prerouting -145 chain steer_100: steered_100 { \"tap0\" }"])?;
    // Nothing restrains it, and where it leaves is not ours.
    ensure!(!text.contains("guarded") && !text.contains("sources4") && !text.contains("uplink"), "{text}");
    step(&text, FROM, &["- route out by what the table says"])?;
    netns.ip("route flush table 100 dev tap0")?;
    netns.set_sysctl("ipv4/conf/tap0/proxy_arp", "0")?;
    let text = way(node, 3)?;
    step(&text, TO, &["MISSING route ip route 10.0.0.2/32 dev tap0"])?;
    for heading in [FROM, TO] {
        step(&text, heading, &["DIFFERENT tap0 "])?;
    }
    ensure!(wrong(&text) == 3, "{text}");
    Ok(())
}

fn of_a_plain_bridged_nic() -> Result<()> {
    let node = Node::alone()?;
    let netns = &node.netns;
    let _guest = node.plug("tap0", WEB1)?;
    netns.ip_batch("link add br0 mtu 1450 type bridge\nlink set br0 up\nlink add br1 type bridge\n")?;
    node.nic("tap0", WEB1).without_network().bridged("br0").ifup()?.succeeds()?;
    let text = way(&node, 0)?;
    let (mac, mtu, bridge) = link(netns)?;
    ensure!(mac.starts_with("fe:") && (mtu, bridge.as_str()) == (1450, "br0"), "{mac} {mtu} {bridge}");
    for heading in [FROM, TO] {
        step(&text, heading, &[&format!("in place tap0 MAC {mac}, MTU {mtu}, port of {bridge}, up")])?;
        step(&text, heading, &["- br0 the bridge forwards by MAC"])?;
    }
    // No filter is shown, as none stands.
    ensure!(netns.output(Command::new("nft").args(["list", "ruleset"]))?.is_empty(), "a filter stands");
    ensure!(!text.contains("chain ") && !text.contains("dropped "), "{text}");
    netns.ip("link set dev tap0 master br1")?;
    let text = way(&node, 3)?;
    for heading in [FROM, TO] {
        step(&text, heading, &["DIFFERENT tap0 "])?;
    }
    ensure!(wrong(&text) == 2, "{text}");
    Ok(())
}

fn of_a_nic_on_openvswitch() -> Result<()> {
    let site = ovs::Site::new(Datapath::Userspace)?;
    let (node, switch) = (&site.node, &site.switch);
    let _guest = node.plug("tap0", WEB1)?;
    site.nic(WEB1).set("VLAN", ".10").ifup()?.succeeds()?;
    let text = way(node, 0)?;
    let (mac, ..) = link(&node.netns)?;
    ensure!(switch.vsctl("port-to-br tap0")?.trim() == "br0", "it is no port of br0");
    ensure!(switch.vsctl("get port tap0 vlan_mode")?.trim() == "access", "its VLANs are others");
    ensure!(switch.vsctl("get port tap0 tag")?.trim() == "10", "its VLAN is another");
    for heading in [FROM, TO] {
        step(&text, heading, &[&format!("in place tap0 MAC {mac}, "), "up"])?;
        step(&text, heading, &["in place br0 ovs-vsctl ", "add-port br0 tap0", "vlan_mode=access", "tag=10"])?;
    }
    // The rules of nf_tables see none of its frames.
    ensure!(!text.contains("chain ") && !text.contains("by MAC"), "{text}");
    switch.vsctl("set port tap0 tag=20")?;
    let text = way(node, 3)?;
    for heading in [FROM, TO] {
        step(&text, heading, &["DIFFERENT br0 "])?;
    }
    ensure!(wrong(&text) == 2, "{text}");
    switch.vsctl("del-port tap0")?;
    let text = way(node, 3)?;
    step(&text, FROM, &["MISSING br0 "]).map(drop)
}

fn of_a_nic_that_others_connect() -> Result<()> {
    let node = Node::alone()?;
    let netns = &node.netns;
    let _guest = node.plug("tap0", WEB1)?;
    let nic = || node.nic("tap0", WEB1).without_network().set("MODE", "ext").set("LINK", "other");
    nic().set("TAGS", "protected").ifup()?.succeeds()?;
    let text = way(&node, 0)?;
    for heading in [FROM, TO] {
        step(&text, heading, &["- tap0 set up and connected by others"])?;
    }
    netns.output(Command::new("nft").args(["get element bridge snf-network protected { tap0 }"]))?;
    for place in ["bridge forward -200", "bridge output 200"] {
        step(&text, TO, &[&format!("in place {place} chain firewall_"), "protected { \"tap0\" }"])?;
        let chain = place.split(' ').nth(1).unwrap_or_default();
        let listed =
            netns.output(Command::new("nft").args(["list chain bridge snf-network", &format!("firewall_{chain}")]))?;
        ensure!(listed.contains(&format!("hook {chain} priority ")), "{listed}");
    }
    step(&text, TO, &["in place bridge dropped 0 packets, 0 bytes to tap0"])?;
    netns.output(Command::new("nft").args(["delete element bridge snf-network protected { tap0 }"]))?;
    let text = way(&node, 3)?;
    step(&text, TO, &["MISSING bridge forward -200"])?;
    step(&text, TO, &["MISSING bridge output 200"])?;
    ensure!(wrong(&text) == 2, "{text}");
    Ok(())
}
