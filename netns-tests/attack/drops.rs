//! What our rules drop is counted for the NIC that it came from or was for, and for no other; and it is dropped whether it is
//! counted or not.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use snf_network::kernel::nftables::Nftables;
use snf_network::setup::dropped;

use super::context::{ATTACKER, Context, STRANGER, VICTIM};
use super::frames::{self, from};
use super::gaps::{Leaks, forbidden, isolated, under_load};
use super::testbed::{self, Bridged, Families, Ground};
use crate::harness::frame::{self, Mac};
use crate::harness::port::Port;
use crate::harness::topology::OUTSIDE6;
use crate::harness::until;

/// Packets and bytes by family, set and interface.
type Counts = BTreeMap<(String, String, String), (u64, u64)>;

/// Who is counted: family, set, interface.
type Who = (&'static str, &'static str, &'static str);

/// A frame that is dropped: what it is, who sends it, and for whom it is counted.
struct Case {
    name: &'static str,
    sender: fn(&Ground) -> Result<&Port>,
    frame: fn(&Context) -> Vec<u8>,
    counted: &'static [Who],
}

fn attacker(ground: &Ground) -> Result<&Port> {
    Ok(&ground.attacker)
}

fn stranger(ground: &Ground) -> Result<&Port> {
    ground.stranger.as_ref().context("a bridge has a stranger")
}

const SYN: u8 = 0x02;
const BRIDGE_FROM: Who = ("bridge", dropped::DROPPED_FROM, "tap0");

fn syn(c: &Context) -> Vec<u8> {
    c.to_victim(&frames::tcp((c.me.ip.into(), 40000), (c.victim.ip.into(), 80), SYN))
}

const BRIDGED: &[Case] = &[
    Case {
        name: "as the victim",
        sender: attacker,
        frame: |c| from(c.victim.mac, c.to_gateway(&c.ping_outside(c.me.ip))),
        counted: &[BRIDGE_FROM],
    },
    Case { name: "a BPDU", sender: attacker, frame: |c| frames::bpdu(c.me.mac), counted: &[BRIDGE_FROM] },
    Case {
        name: "another's IPv4 source",
        sender: attacker,
        frame: |c| c.to_victim(&c.ping(c.gateway.ip)),
        counted: &[BRIDGE_FROM],
    },
    Case {
        name: "ARP for another's address",
        sender: attacker,
        frame: |c| c.arp(2, (c.me.mac, c.gateway.ip), (c.victim.mac, c.victim.ip)),
        counted: &[BRIDGE_FROM],
    },
    Case {
        name: "another network's, to one",
        sender: stranger,
        frame: |c| {
            let packet = frame::echo_request(c.stranger.ip.into(), c.me.ip.into(), 0x5eed, 2);
            frames::packet(c.me.mac, c.stranger.mac, &packet)
        },
        counted: &[("bridge", dropped::DROPPED_TO, "tap0")],
    },
    Case {
        name: "a connection request",
        sender: attacker,
        frame: syn,
        counted: &[("bridge", dropped::DROPPED_TO, "tap1")],
    },
];

const ROUTED: &[Case] = &[
    Case {
        name: "another's IPv4 source",
        sender: attacker,
        frame: |c| c.to_gateway(&c.ping_outside(c.victim.ip)),
        counted: &[("inet", dropped::DROPPED_FROM, "tap0")],
    },
    Case {
        name: "another's IPv6 source",
        sender: attacker,
        frame: |c| c.to_gateway(&frame::echo_request(c.victim.ip6.into(), OUTSIDE6, 0x5eed, 3)),
        counted: &[("inet", dropped::DROPPED_FROM, "tap0")],
    },
    Case {
        name: "ARP for another's address",
        sender: attacker,
        frame: |c| c.arp(1, (c.me.mac, c.victim.ip), (Mac::ZERO, c.gateway.ip)),
        counted: &[("arp", dropped::DROPPED_FROM, "tap0")],
    },
    Case {
        name: "a connection request",
        sender: attacker,
        frame: syn,
        counted: &[("inet", dropped::DROPPED_TO, "tap1")],
    },
];

/// A bridge with all filters, and a profile on the victim, on which nobody speaks by himself.
fn bridge() -> Result<Ground> {
    let ground = Ground::bridged(Bridged::StrictFiltered, Families::Both)?;
    ground.nic("tap1", VICTIM, Bridged::StrictFiltered).set("TAGS", "protected").ifup()?.succeeds()?;
    quiet(&ground)?;
    Ok(ground)
}

/// The bridge tells its groups of itself (MLD), which private-filtered ports do not receive: not while we count. It learns who
/// is where.
fn quiet(ground: &Ground) -> Result<()> {
    ground.node.netns.set_sysctl("ipv6/conf/br0/disable_ipv6", "1")?;
    ground.teach()
}

fn routed() -> Result<Ground> {
    let ground = Ground::routed(Families::Both)?;
    testbed::nic(&ground.node, "tap1", VICTIM).set("TAGS", "protected").ifup()?.succeeds()?;
    Ok(ground)
}

/// What the program reads of the counters, which is what nft says of them.
fn counts(ground: &Ground) -> Result<Counts> {
    let mut read = Counts::new();
    until("the counters to stand still", || {
        let drops = ground.node.netns.run(|| Nftables::open()?.drops(&dropped::sets()))?;
        read = drops
            .into_iter()
            .map(|it| ((it.family.to_string(), it.set.to_string(), it.interface.to_string()), (it.packets, it.bytes)))
            .collect();
        Ok(read == as_nft_says(ground)?)
    })
    .with_context(|| format!("read: {read:?}"))?;
    Ok(read)
}

fn as_nft_says(ground: &Ground) -> Result<Counts> {
    let mut counts = Counts::new();
    for object in listed(ground, &["sets"])? {
        let set = &object["set"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for element in set["elem"].as_array().into_iter().flatten().map(|it| &it["elem"]) {
            if let (Some(packets), Some(bytes)) =
                (element["counter"]["packets"].as_u64(), element["counter"]["bytes"].as_u64())
            {
                counts.insert((text(&set["family"]), text(&set["name"]), text(&element["val"])), (packets, bytes));
            }
        }
    }
    Ok(counts)
}

fn listed(ground: &Ground, what: &[&str]) -> Result<Vec<Value>> {
    let text = ground.node.netns.output(Command::new("nft").args(["-j", "list"]).args(what))?;
    match serde_json::from_str::<Value>(&text)?["nftables"].take() {
        Value::Array(objects) => Ok(objects),
        other => bail!("nft -j list {what:?}: {other}"),
    }
}

/// How many packets came to the last rule of a chain that drops.
fn dropped_in(ground: &Ground, family: &str, chain: &str) -> Result<u64> {
    let objects = listed(ground, &["chain", family, "snf-network", chain])?;
    let rule = objects.iter().rev().find_map(|object| object["rule"]["expr"].as_array()).context("no rule")?;
    ensure!(rule.iter().any(|it| it.get("drop").is_some()), "{chain} ends with {rule:?}");
    rule.iter().find_map(|it| it["counter"]["packets"].as_u64()).context("no counter")
}

/// Sends a frame that arrives nowhere, and compares all counters with what they were: one packet more for these, and for no
/// other.
fn drops(ground: &Ground, case: &Case, counted: &[Who]) -> Result<()> {
    let before = counts(ground)?;
    let mut expected = before.iter().map(|(who, (packets, _))| (who.clone(), *packets)).collect::<BTreeMap<_, _>>();
    for (family, set, interface) in counted {
        let who = ((*family).to_owned(), (*set).to_owned(), (*interface).to_owned());
        *expected.get_mut(&who).with_context(|| format!("{}: nothing counts for {who:?}", case.name))? += 1;
    }
    ground.empty();
    let frame = (case.frame)(&ground.context);
    (case.sender)(ground)?.send(&frame)?;
    let mut last = Counts::new();
    until("the counters to rise", || {
        last = counts(ground)?;
        Ok(last.iter().all(|(who, (packets, _))| expected.get(who) == Some(packets)) && last.len() == expected.len())
    })
    .with_context(|| format!("{}: {before:?} became {last:?}, expected one more for {counted:?}", case.name))?;
    for (who, (_, bytes)) in &last {
        let grown = bytes - before.get(who).map_or(0, |it| it.1);
        let moved = last.get(who).map(|it| it.0) != before.get(who).map(|it| it.0);
        ensure!((grown > 0) == moved && grown <= frame.len() as u64, "{}: {grown} bytes for {who:?}", case.name);
    }
    let arrived = ground.arrived(&[frame]);
    ensure!(arrived.is_empty(), "{}: arrived at {arrived}", case.name);
    Ok(())
}

/// In each family and direction.
pub fn are_counted_for_their_nic() -> Result<()> {
    for (ground, cases) in [(bridge()?, BRIDGED), (routed()?, ROUTED)] {
        for case in cases.iter().chain(cases) {
            drops(&ground, case, case.counted)?;
        }
    }
    // What is for everybody is for each of those that may not have it.
    let ground = bridge()?;
    let to_all = Case {
        name: "another network's, to all",
        sender: stranger,
        frame: isolated,
        counted: &[("bridge", dropped::DROPPED_TO, "tap0"), ("bridge", dropped::DROPPED_TO, "tap1")],
    };
    let port = stranger(&ground)?;
    let before = counts(&ground)?;
    port.send(&(to_all.frame)(&ground.context))?;
    let of = |counts: &Counts, (family, set, interface): &Who| {
        counts.get(&((*family).to_owned(), (*set).to_owned(), (*interface).to_owned())).map_or(0, |it| it.0)
    };
    until("both to be counted", || {
        let now = counts(&ground)?;
        Ok(to_all.counted.iter().all(|who| of(&now, who) == of(&before, who) + 1))
    })
}

/// On an older kernel than this machine's may be: a frame that is dropped counts, and goes on being dropped without an element.
pub fn are_counted_on_debians_kernel() -> Result<()> {
    let ground = Ground::bridge()?;
    ground.node.netns.set_sysctl("ipv6/conf/br0/disable_ipv6", "1")?;
    ground.nic("tap0", ATTACKER, Bridged::Filtered).ifup()?.succeeds()?;
    let case = &BRIDGED[0];
    drops(&ground, case, case.counted)?;
    ground.nft("delete element bridge snf-network dropped_from { \"tap0\" }\n")?;
    drops(&ground, case, &[])
}

/// The counters decide nothing: without an element a frame is dropped all the same, and counted for nobody, until the next
/// ifup.
pub fn are_drops_without_an_element() -> Result<()> {
    let endings = [
        (
            bridge as fn() -> Result<Ground>,
            BRIDGED,
            "bridge",
            &["FROMTAP_drop", "TOTAP_drop", "strict_drop", "firewall_drop"][..],
        ),
        (routed, ROUTED, "inet", &["sources_drop", "firewall_drop"]),
        (routed, ROUTED, "arp", &["senders_drop"]),
    ];
    for (ground, cases, family, chains) in endings {
        let ground = ground()?;
        let elements = counts(&ground)?;
        for (family, set, interface) in elements.keys() {
            ground.nft(&format!("delete element {family} snf-network {set} {{ \"{interface}\" }}\n"))?;
        }
        let all = || chains.iter().map(|chain| dropped_in(&ground, family, chain)).sum::<Result<u64>>();
        let before = all()?;
        let cases: Vec<_> = cases.iter().filter(|case| case.counted.iter().any(|who| who.0 == family)).collect();
        for case in &cases {
            drops(&ground, case, &[])?;
        }
        let now = all()?;
        ensure!(now == before + cases.len() as u64, "{family}: {before} and {} frames became {now}", cases.len());
        let again: Vec<_> = if family == "bridge" {
            let nic = |tap, id| ground.nic(tap, id, Bridged::StrictFiltered);
            vec![nic("tap0", ATTACKER), nic("tap1", VICTIM).set("TAGS", "protected"), nic("tap2", STRANGER)]
        } else {
            let nic = |tap, id| testbed::nic(&ground.node, tap, id);
            vec![nic("tap0", ATTACKER), nic("tap1", VICTIM).set("TAGS", "protected")]
        };
        for nic in again {
            nic.ifup()?.succeeds()?;
        }
        let now = counts(&ground)?;
        ensure!(now.keys().eq(elements.keys()) && now.values().all(|it| *it == (0, 0)), "{elements:?} became {now:?}");
        for case in cases {
            drops(&ground, case, case.counted)?;
        }
    }
    Ok(())
}

/// A second ifup counts on; another NIC on the TAP begins at zero; ifdown takes the counters along.
pub fn are_counted_as_long_as_the_nic_is_there() -> Result<()> {
    let ground = bridge()?;
    let case = &BRIDGED[0];
    drops(&ground, case, case.counted)?;
    let nic = || ground.nic("tap0", ATTACKER, Bridged::StrictFiltered);
    let before = counts(&ground)?;
    nic().ifup()?.succeeds()?;
    nic().set("TAGS", "limited").ifup()?.succeeds()?;
    ensure!(counts(&ground)? == before, "{before:?} became {:?}", counts(&ground)?);
    drops(&ground, case, case.counted)?;
    let of = |interface: &str| -> Result<Vec<(u64, u64)>> {
        Ok(counts(&ground)?.into_iter().filter(|(who, _)| who.2 == interface).map(|it| it.1).collect())
    };
    let (own, others) = (of("tap0")?, of("tap1")?);
    ensure!(own.iter().any(|it| it.0 > 0) && others.len() == 2, "{own:?}, {others:?}");
    let other =
        || nic().set("INSTANCE", "other.example.org").set("INTERFACE_UUID", "0c2a1a4e-0000-4000-8000-0000000000ff");
    other().ifup()?.succeeds()?;
    ensure!(of("tap0")? == [(0, 0), (0, 0)], "the counters of another NIC: {:?}", of("tap0")?);
    other().ifdown()?.succeeds()?;
    ensure!(of("tap0")?.is_empty(), "after ifdown: {:?}", of("tap0")?);
    ensure!(of("tap1")? == others, "the neighbour's: {others:?} became {:?}", of("tap1")?);
    Ok(())
}

/// A version of this program that did not count left its chains and NICs that run: the first ifup of another NIC replaces the
/// chains in one transaction, and each NIC is counted from its own next ifup on. Nothing leaks meanwhile.
pub fn are_drops_while_chains_are_replaced() -> Result<()> {
    let ground = Ground::bridged(Bridged::Filtered, Families::Both)?;
    quiet(&ground)?;
    let elements = [("tap0", ATTACKER.mac, "aa:55:60:00:00:00"), ("tap1", VICTIM.mac, "aa:55:60:00:00:00")];
    let elements = elements.map(|(tap, mac, prefix)| {
        format!(
            "add element bridge snf-network filtered {{ {tap:?} }}\n\
             add element bridge snf-network from {{ {tap:?} . {mac} }}\n\
             add element bridge snf-network isolated {{ {tap:?} }}\n\
             add element bridge snf-network to {{ {tap:?} . {prefix} }}\n"
        )
    });
    let older = format!("delete table bridge snf-network\n{}{}", include_str!("uncounted.nft"), elements.concat());
    ground.nft(&older)?;
    let spoof = &BRIDGED[0];
    drops(&ground, spoof, &[])?;
    let nic = |tap, id| ground.nic(tap, id, Bridged::Filtered);
    let (from_it, to_it) = (forbidden(&ground.context), isolated(&ground.context));
    let leaks = under_load(&ground, &from_it, &to_it, || nic("tap1", VICTIM).ifup()?.succeeds().map(drop))?;
    ensure!(leaks == Leaks { from: 0, to: 0 }, "{leaks:?}");
    let chain =
        ground.node.netns.output(Command::new("nft").args(["list", "chain", "bridge", "snf-network", "FROMTAP"]))?;
    ensure!(chain.contains("goto FROMTAP_drop"), "the old chain stands: {chain}");
    ensure!(counts(&ground)?.keys().all(|who| who.2 == "tap1"), "{:?}", counts(&ground)?);
    drops(&ground, spoof, &[])?;
    nic("tap0", ATTACKER).ifup()?.succeeds()?;
    drops(&ground, spoof, spoof.counted)
}
