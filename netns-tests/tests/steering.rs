//! ROUTING=mark: one rule for all NICs of a table, from one way of routing to the other and back, several tables.

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::frame::{self, Mac};
use crate::harness::guest::{Guest, WEB1, WEB2};
use crate::harness::netns::Netns;
use crate::harness::port::Capture;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{GATEWAY6, MANAGEMENT, MANAGEMENT6, OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[
    ("steering::one_rule_for_all_nics", one_rule_for_all_nics),
    ("steering::the_other_way_while_packets_pass", the_other_way_while_packets_pass),
    ("steering::the_uplink_is_marked_with_its_guests", the_uplink_is_marked_with_its_guests),
    ("steering::node_up_again_follows_the_settings", node_up_again_follows_the_settings),
    ("steering::each_table_has_its_mark", each_table_has_its_mark),
    ("steering::a_lost_record_of_another_table", a_lost_record_of_another_table),
    ("steering::neighbours_of_a_plain_nic", neighbours_of_a_plain_nic),
];

/// The rules by marks that are for all packets, IPv4's first.
pub fn marks(netns: &Netns) -> Result<Vec<String>> {
    Ok(all_marks(netns)?.into_iter().filter(|it| !it.contains(" iif lo ")).collect())
}

/// The rules by marks, IPv4's first.
fn all_marks(netns: &Netns) -> Result<Vec<String>> {
    let text = netns.ip("-4 rule show")? + &netns.ip("-6 rule show")?;
    Ok(text.lines().filter(|line| line.contains("fwmark")).map(|line| line.trim().to_owned()).collect())
}

/// The interfaces of TAPs whose rules lead to a table.
fn rules_to(netns: &Netns, table: u32) -> Result<Vec<String>> {
    let text = netns.ip("-4 rule show")?;
    let rules = text.lines().filter(|line| line.contains(&format!("lookup {table} ")));
    let interface = |line: &str| Some(line.split_once("iif ")?.1.split(' ').next()?.to_owned());
    Ok(rules.filter_map(interface).filter(|it| it.starts_with("tap")).collect())
}

/// The interfaces whose packets, all of them, are routed by the mark of a routing table: those whose ARP requests are marked.
pub fn steered(netns: &Netns, table: u32) -> Result<String> {
    netns.output(Command::new("nft").args(["list", "set", "arp", "snf-network", &format!("steered_{table}")]))
}

const RULE: &str = "20050:\tfrom all fwmark 0x6400000/0xfff00000 lookup 100 proto 218";

fn one_rule_for_all_nics() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    ensure!(marks(netns)?.iter().all(|rule| rule == RULE), "{:?}", marks(netns)?);
    site.node.files.set("ROUTING=mark")?;
    let (one, two) = (site.node.guest("tap0", WEB1)?, site.node.guest("tap1", WEB2)?);
    ensure!(marks(netns)? == [RULE, RULE], "{:?}", marks(netns)?);
    let set = steered(netns, 100)?;
    ensure!(set.contains("\"tap0\" comment \"web1") && set.contains("\"tap1\""), "{set}");
    for guest in [&one, &two] {
        guest.ping(OUTSIDE)?;
        guest.ping(OUTSIDE6)?;
    }
    // It is the table's: the one NIC's end is not the other one's.
    site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    ensure!(marks(netns)? == [RULE, RULE], "{:?}", marks(netns)?);
    let set = steered(netns, 100)?;
    ensure!(!set.contains("\"tap0\"") && set.contains("\"tap1\""), "{set}");
    two.ping(OUTSIDE)?;
    two.ping(OUTSIDE6)?;
    Ok(())
}

/// What comes in on the uplink is marked as long as the node has it, and checked by its mark.
fn the_uplink_is_marked_with_its_guests() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let state = || -> Result<(bool, String)> {
        let set = netns.output(Command::new("nft").args(["list", "set", "inet", "snf-network", "uplinks_100"]))?;
        Ok((set.contains("\"eth1\" comment \"uplink\""), netns.sysctl("ipv4/conf/eth1/src_valid_mark")?))
    };
    let [on, by_rule, off] = [(true, "1"), (true, "0"), (false, "0")].map(|it| (it.0, it.1.to_owned()));
    let guest = site.node.guest("tap0", WEB1)?;
    for (line, expected) in [("ROUTING=mark", &on), ("ROUTING=rule", &by_rule), ("ROUTING=mark", &on)] {
        site.node.files.set(line)?;
        site.node.uplink_up()?;
        ensure!(state()? == *expected, "{line}: {:?}", state()?);
        guest.ping(OUTSIDE)?;
        site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
        site.node.files.run(netns, &["status"], "")?.succeeds()?;
    }
    // The other family's end is not this one's.
    for (family, expected) in [("inet6", &on), ("inet", &off)] {
        site.node.files.run(netns, &["node", "down"], &format!("--dev eth1 --family {family} --force"))?.succeeds()?;
        ensure!(state()? == *expected, "{family}: {:?}", state()?);
    }
    // By the mark alone, without any rule by an interface, packets from the outside come to the guest.
    site.node.uplink_up()?;
    ensure!(netns.delete_rules(&["iif"])? > 0);
    guest.ping(OUTSIDE)?;
    netns.output(Command::new("nft").args(["flush", "set", "inet", "snf-network", "uplinks_100"]))?;
    let mark = guest.send_echo(WEB1.ip.into(), OUTSIDE)?;
    guest.seen.never(&format!("echo reply {mark}"))?;
    // What is gone comes back.
    site.node.files.run(netns, &["reconcile"], "")?.succeeds()?;
    ensure!(state()? == on, "{:?}", state()?);
    guest.ping(OUTSIDE).map(drop)
}

/// A running guest is set up again, under the one way of routing and the other.
fn the_other_way_while_packets_pass() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    while_packets_pass(&site, &guest, || {
        for round in 0..6 {
            site.node.files.set(["ROUTING=mark", "ROUTING=rule"][round % 2])?;
            site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
            let elements = steered(&site.node.netns, 100)?;
            ensure!(elements.contains("tap0") == (round % 2 == 0), "round {round}: {elements}");
        }
        Ok(())
    })
}

/// While `switches` runs, each packet of a guest passes and is answered, and none goes astray.
pub fn while_packets_pass(site: &Site, guest: &Guest, switches: impl FnOnce() -> Result<()>) -> Result<()> {
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    let (wire, management) = (site.node.wire()?, Capture::on(&site.management, "lan")?);
    let destinations = [OUTSIDE, OUTSIDE6, MANAGEMENT.into(), MANAGEMENT6.into()];
    let done = AtomicBool::new(false);
    let sent = thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| -> Result<Vec<_>> {
            let mut sent = Vec::new();
            while !done.load(Ordering::Relaxed) {
                for to in destinations {
                    let source = WEB1.address_like(to);
                    let mark = guest.send_echo(source, to)?;
                    sent.push((to, format!("{source} > {to}: echo request {mark}"), mark));
                }
                // Not more than a capture keeps up with.
                thread::sleep(Duration::from_millis(3));
            }
            Ok(sent)
        });
        let switches = switches();
        done.store(true, Ordering::Relaxed);
        let sent = sender.join().expect("no panic in the sender")?;
        switches.map(|()| sent)
    })?;
    ensure!(sent.len() > 20, "only {} packets were sent", sent.len());
    // The way of a packet is gone when its write is done; the capture lags behind.
    wire.expect(sent.last().map_or("", |it| &it.1))?;
    let passed: HashSet<_> = wire.seen().iter().filter_map(|packet| request(&packet.to_string())).collect();
    let lost: Vec<_> = sent.iter().filter(|it| !passed.contains(&it.1)).collect();
    ensure!(lost.is_empty(), "{} of {} packets are lost: {lost:?}", lost.len(), sent.len());
    for (.., mark) in sent.iter().filter(|it| [OUTSIDE, OUTSIDE6].contains(&it.0)) {
        guest.seen.expect(&format!("echo reply {mark}"))?;
    }
    management.never("echo request")
}

/// What is between the Ethernet addresses and the length of life in the text of a packet.
fn request(text: &str) -> Option<String> {
    let (_, packet) = text.split_once(" IP6 ").or_else(|| text.split_once(" IP "))?;
    Some(packet.split(", ").next()?.to_owned())
}

fn node_up_again_follows_the_settings() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = site.node.guest("tap0", WEB1)?;
    for (line, mark) in [
        ("ROUTING=mark", Some("0x6400000/0xfff00000")),
        ("ROUTING_MARK_MASK=0xff00", Some("0x6400/0xff00")),
        ("ROUTING=rule", None),
    ] {
        site.node.files.set(line)?;
        // The node first, or the NICs first: no moment in which the guest is cut off, and no rule left behind.
        site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
        guest.ping(OUTSIDE)?;
        site.node.uplink_up()?;
        guest.ping(OUTSIDE6)?;
        let expected: Vec<_> =
            mark.map(|mark| format!("20050:\tfrom all fwmark {mark} lookup 100 proto 218")).into_iter().collect();
        ensure!(marks(netns)? == [&expected[..], &expected[..]].concat(), "{line}: {:?}", marks(netns)?);
        ensure!(all_marks(netns)?.len() == 2, "{line}: {:?}", all_marks(netns)?);
    }
    // That which a NIC's ifup made goes, too.
    let made_by_ifup = || -> Result<()> {
        site.node.files.set("ROUTING=mark")?;
        site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
        site.node.files.set("ROUTING=rule")?;
        ensure!(marks(netns)?.len() == 2);
        Ok(())
    };
    made_by_ifup()?;
    site.node.uplink_up()?;
    ensure!(marks(netns)?.is_empty(), "{:?}", marks(netns)?);
    made_by_ifup()?;
    site.node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    for family in ["inet", "inet6"] {
        let options = format!("--dev eth1 --family {family}");
        site.node.files.run(netns, &["node", "down"], &options)?.succeeds()?;
    }
    ensure!(all_marks(netns)?.is_empty(), "{:?}", all_marks(netns)?);
    Ok(())
}

fn each_table_has_its_mark() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    site.node.files.set("ROUTING=mark")?;
    netns.ip_batch(
        "route add 10.0.0.0/24 dev eth1 table 200\n\
         route add default via 10.0.0.1 dev eth1 table 200\n\
         route add unreachable 198.51.100.1 table 200\n\
         -6 route add 2001:db8:1::/64 dev eth1 table 200\n\
         -6 route add default via 2001:db8:1::1 dev eth1 table 200\n\
         -6 route add unreachable 2001:db8:ffff::1 table 200",
    )?;
    let (one, two) = (site.node.guest("tap0", WEB1)?, site.node.plug("tap1", WEB2)?);
    let other = || site.node.nic("tap1", WEB2).set("LINK", "200");
    other().ifup()?.succeeds()?;
    let rule = "20050:\tfrom all fwmark 0xc800000/0xfff00000 lookup 200 proto 218";
    ensure!(marks(netns)? == [RULE, rule, RULE, rule], "{:?}", marks(netns)?);
    // By the marks alone, each goes by its own table.
    ensure!(netns.delete_rules(&["iif tap"])? == 4);
    let wire = site.node.wire()?;
    let refused = || -> Result<()> {
        for to in [OUTSIDE, OUTSIDE6] {
            let mark = two.send_echo(WEB2.address_like(to), to)?;
            one.ping(to)?;
            wire.never(&format!("echo request {mark}"))?;
        }
        Ok(())
    };
    refused()?;
    // From the one to the other.
    site.node.nic("tap1", WEB2).ifup()?.succeeds()?;
    two.ping(OUTSIDE)?;
    two.ping(OUTSIDE6)?;
    ensure!(!steered(netns, 200)?.contains("tap1"));
    other().ifup()?.succeeds()?;
    refused()?;
    ensure!(!steered(netns, 100)?.contains("tap1"));
    // A number that does not fit into the mask leaves the rule by the interface alone.
    netns.ip_batch("route add default via 10.0.0.1 dev eth1 onlink table 5000")?;
    site.node.nic("tap1", WEB2).set("LINK", "5000").only_v4().ifup()?.succeeds()?;
    let mark = two.send_echo(WEB2.ip.into(), OUTSIDE)?;
    wire.expect(&format!("> {OUTSIDE}: echo request {mark}"))?;
    ensure!(marks(netns)? == [RULE, rule, RULE, rule], "{:?}", marks(netns)?);
    ensure!(!steered(netns, 200)?.contains("tap1"));
    Ok(())
}

fn a_lost_record_of_another_table() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    site.node.files.set("ROUTING=mark")?;
    // Nothing but the mark and the rule tells of such a NIC.
    let plain = || site.node.nic("tap0", WEB1).without_network();
    let _guest = site.node.plug("tap0", WEB1)?;
    plain().set("LINK", "200").ifup()?.succeeds()?;
    ensure!(steered(netns, 200)?.contains("tap0"));
    fs::remove_file(site.node.files.state().join("tap0"))?;
    netns.delete_rules(&["iif tap0"])?;
    plain().ifup()?.succeeds()?;
    ensure!(!steered(netns, 200)?.contains("tap0"), "the other table's mark stays");
    ensure!(steered(netns, 100)?.contains("tap0"));
    // With the elements gone too, its rule stands behind the mark's until somebody clears up.
    plain().set("LINK", "200").ifup()?.succeeds()?;
    fs::remove_file(site.node.files.state().join("tap0"))?;
    netns.output(Command::new("nft").args(["flush", "ruleset"]))?;
    plain().ifup()?.succeeds()?;
    ensure!(rules_to(netns, 200)? == ["tap0"], "{:?}", rules_to(netns, 200)?);
    let drift = site.node.files.run(netns, &["status"], "")?;
    ensure!(drift.code == Some(3) && drift.stdout.contains("lookup 200"), "{drift:?}");
    site.node.files.run(netns, &["reconcile"], "")?.succeeds()?;
    ensure!(rules_to(netns, 200)?.is_empty(), "{:?}", rules_to(netns, 200)?);
    ensure!(!rules_to(netns, 100)?.is_empty());
    plain().ifdown()?.succeeds()?;
    let left = Snapshot::of(netns)?;
    let left: Vec<_> =
        left.naming("tap0").into_iter().filter(|it| it.starts_with("nft") || it.contains("rule")).collect();
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}

/// A plain NIC asks the node itself for the addresses that it proxies: by a solicitation to a group, and, to see whether it is
/// still there, by one to the address itself, which the node routes before it answers.
fn neighbours_of_a_plain_nic() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let std::net::IpAddr::V6(gateway) = GATEWAY6 else { unreachable!("an IPv6 address") };
    // For table main it is nowhere.
    netns.ip(&format!("-6 route add unreachable {gateway}"))?;
    for (way, gone, answered) in [
        ("ROUTING=rule", &["fwmark"][..], true),
        ("ROUTING=mark", &["iif tap0"], true),
        ("ROUTING=mark", &["fwmark"], true),
        ("ROUTING=mark", &["iif tap0", "fwmark"], false),
    ] {
        site.node.files.set(way)?;
        let guest = site.node.plug("tap0", WEB1)?;
        let nic = site.node.nic("tap0", WEB1).without_network().set("IP", WEB1.ip6);
        nic.ifup()?.succeeds()?;
        site.node.settled("tap0")?;
        netns.delete_rules(gone)?;
        netns.ip(&format!("-6 neigh replace proxy {gateway} dev tap0"))?;
        netns.set_sysctl("ipv6/neigh/tap0/proxy_delay", "0")?;
        let to_group = frame::neighbour_solicitation(WEB1.mac, WEB1.ip6, gateway);
        // The same to the address itself: another Ethernet destination, another IPv6 one, and another checksum.
        let octets = netns.mac_of("tap0")?;
        let octets = octets.split(':').map(|it| u8::from_str_radix(it, 16)).collect::<Result<Vec<_>, _>>()?;
        let tap = Mac(octets.try_into().expect("six octets"));
        let mut message = to_group[54..].to_vec();
        message[2..4].fill(0);
        let own = WEB1.mac.link_local();
        let packet = frame::icmpv6(own, gateway, 255, message);
        guest.send(&frame::ethernet(tap, WEB1.mac, frame::IPV6, &packet))?;
        guest.send(&to_group)?;
        guest.seen.expect(&format!("> {}: neighbor advertisement, tgt is {gateway}", WEB1.ip6))?;
        let answer = format!("> {own}: neighbor advertisement, tgt is {gateway}");
        if answered {
            guest.seen.expect(&answer).map(drop)?
        } else {
            guest.seen.never(&answer)?
        }
        nic.ifdown()?.succeeds()?;
        site.node.unplug(guest, "tap0")?;
    }
    Ok(())
}
