//! By which rules a routed guest's packets come to their table, and what is left of that when something of it is gone.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::context::{ATTACKER, LISTENING, VICTIM};
use super::frames;
use super::testbed::{Families, Ground, nic};
use crate::harness::topology::{MANAGEMENT, MANAGEMENT6, OUTSIDE, OUTSIDE6};
use crate::harness::{frame, until};

/// Others' bits of the mark, and all of ours.
const FOREIGN_MARK: u32 = 0x0004_0abc;

/// Echo requests by way of the gateway: from the guest's own addresses, and from others'.
fn tries(ground: &Ground) -> Result<Vec<(String, [Vec<u8>; 1])>> {
    let forged = ["10.0.0.77", "203.0.113.77", "192.0.2.77", "2001:db8:1::77", "2001:db8:9::77", "2001:db8:2::77"];
    let own = ATTACKER.addresses().map(Ok);
    let sources = own.into_iter().chain(forged.map(str::parse::<IpAddr>)).collect::<Result<Vec<_>, _>>()?;
    let mut tries = Vec::new();
    for source in sources {
        for to in [IpAddr::from(MANAGEMENT), MANAGEMENT6.into(), OUTSIDE, OUTSIDE6] {
            if source.is_ipv4() == to.is_ipv4() {
                let packet = frame::echo_request(source, to, 0x5eed, 1);
                tries.push((format!("{source} > {to}"), [ground.context.to_gateway(&packet)]));
            }
        }
    }
    Ok(tries)
}

/// Somebody empties nf_tables, our marks and filters with it: whatever a guest calls itself, its packets keep to the uplink of
/// its table.
pub fn after_a_foreign_flush() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    ground.nft("flush ruleset")?;
    for (what, frame) in &tries(&ground)? {
        let seen = ground.attack(frame)?;
        ensure!(seen == "U", "{what}: seen {seen:?}");
    }
    // And where the uplink is gone, nowhere. What the node itself answers to a forged source, quoting the packet, goes where
    // that one is: so only sources of the guests' network.
    ground.node.netns.ip("link set eth1 down")?;
    let of_guests = |what: &str| what.starts_with("10.0.0.") || what.starts_with("2001:db8:1:");
    for (what, frame) in tries(&ground)?.iter().filter(|it| of_guests(&it.0)) {
        let seen = ground.attack(frame)?;
        ensure!(seen.is_empty(), "{what} without the uplink: seen {seen:?}");
    }
    // The same packets go astray where the rules are missing.
    ground.node.netns.delete_rules(&["iif tap0"])?;
    for (what, frame) in &tries(&ground)? {
        let seen = ground.attack(frame)?;
        ensure!(seen == "M", "{what} without the rules: seen {seen:?}");
    }
    Ok(())
}

/// With ROUTING=mark each of the two rules leads all that a guest sends, its ARP requests included; neither of them does where
/// there is none.
pub fn by_either_rule_alone() -> Result<()> {
    for gone in ["iif tap0", "fwmark", "iif tap0 or fwmark"] {
        let ground = Ground::routed(Families::Both)?;
        ground.node.files.set("ROUTING=mark")?;
        ground.node.uplink_up()?;
        nic(&ground.node, "tap0", ATTACKER).ifup()?.succeeds()?;
        let deleted = ground.node.netns.delete_rules(&gone.split(" or ").collect::<Vec<_>>())?;
        ensure!(deleted == if gone.contains("or") { 4 } else { 2 }, "{gone}: {deleted} rules deleted");
        let neither = gone.contains("or");
        let c = &ground.context;
        for to in [MANAGEMENT.into(), MANAGEMENT6.into(), OUTSIDE, OUTSIDE6] {
            let packet = frame::echo_request(c.me.address_like(to), to, 0x5eed, 1);
            let seen = ground.attack(&[c.to_gateway(&packet)])?;
            ensure!(seen == if neither { "M" } else { "U" }, "without {gone}, to {to}: seen {seen:?}");
        }
        // Proxy ARP answers for what the routes know, and table main knows that this one is nowhere.
        let nowhere = std::net::Ipv4Addr::new(203, 0, 113, 200);
        ground.node.netns.ip(&format!("route add unreachable {nowhere}"))?;
        let asked = c.arp(1, (c.me.mac, c.me.ip), (frame::Mac::ZERO, nowhere));
        let seen = ground.attack(&[asked])?;
        ensure!(seen == if neither { "" } else { "A" }, "without {gone}, ARP: seen {seen:?}");
    }
    Ok(())
}

/// Others mark packets too, also in our bits, or keep marks with connections: of theirs only our bits change, and only on what
/// comes from a TAP or is forwarded from the uplink.
pub fn among_the_marks_of_others() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    ground.node.files.set("ROUTING=mark")?;
    ground.node.uplink_up()?;
    for (tap, id) in [("tap0", ATTACKER), ("tap1", VICTIM)] {
        nic(&ground.node, tap, id).ifup()?.succeeds()?;
    }
    ground.nft(&format!(
        "table inet others {{
            counter ours {{ }}
            counter theirs {{ }}
            counter inbound {{ }}
            counter inbound6 {{ }}
            counter arrived {{ }}
            counter wrong {{ }}
            chain mangle {{
                type filter hook prerouting priority -150; policy accept;
                meta mark set 0x{all:08x}
            }}
            chain to_be_routed {{
                type filter hook prerouting priority -100; policy accept;
                iifname \"tap0\" meta mark 0x{ours:08x} counter name ours
            }}
            chain routed {{
                type filter hook forward priority -150; policy accept;
                iifname \"tap0\" meta mark 0x{FOREIGN_MARK:08x} counter name theirs accept
                iifname \"eth1\" ip protocol icmp meta mark 0x{FOREIGN_MARK:08x} counter name inbound accept
                iifname \"eth1\" ip6 nexthdr icmpv6 meta mark 0x{FOREIGN_MARK:08x} counter name inbound6 accept
                counter name wrong
            }}
            chain arrived {{
                type filter hook input priority -150; policy accept;
                iifname \"tap0\" ip protocol udp meta mark 0x{FOREIGN_MARK:08x} counter name arrived accept
                iifname \"eth1\" ip protocol udp meta mark 0x{all:08x} counter name arrived accept
                ip protocol udp counter name wrong
            }}
        }}",
        all = 0xfff0_0000 | FOREIGN_MARK,
        ours = 0x0640_0000 | FOREIGN_MARK,
    ))?;
    passes(&ground, "between others' marks")?;
    let c = &ground.context;
    ensure!(ground.attack(&[c.to_node(&c.tell_node(c.me.ip))])? == "");
    ground.uplink.send(&frames::packet(ground.node.uplink_mac(), c.gateway.mac, &c.tell_node(OUTSIDE)))?;
    // What is for the node itself is marked on a TAP, where it is not known yet, until it arrives; and not on the uplink.
    for (counter, packets) in
        [("ours", 7), ("theirs", 6), ("inbound", 1), ("inbound6", 1), ("arrived", 2), ("wrong", 0)]
    {
        let list = || {
            let mut command = std::process::Command::new("nft");
            ground.node.netns.output(command.args(["list", "counter", "inet", "others", counter]))
        };
        until(&format!("{packets} packets in the counter {counter}"), || {
            Ok(list()?.contains(&format!("packets {packets} ")))
        })?;
    }
    // The mark of a connection is written back on every packet of it, the answers of the node among them.
    ground.nft(
        "delete table inet others
         table inet others {
            chain restore {
                type filter hook prerouting priority -150; policy accept;
                meta mark set ct mark
            }
            chain restore_own {
                type route hook output priority -150; policy accept;
                meta mark set ct mark
            }
            chain save {
                type filter hook postrouting priority -150; policy accept;
                ct mark set meta mark
            }
        }",
    )?;
    // The second time with what the first has left.
    passes(&ground, "with marks of connections")?;
    passes(&ground, "with marks of connections, again")
}

/// That a guest reaches the outside and its neighbour, whatever leads to the management network does not, and the outside
/// reaches the guest.
fn passes(ground: &Ground, when: &str) -> Result<()> {
    let c = &ground.context;
    for (to, expected) in [
        (OUTSIDE, "U"),
        (OUTSIDE6, "U"),
        (MANAGEMENT.into(), "U"),
        (MANAGEMENT6.into(), "U"),
        (VICTIM.ip.into(), "V"),
        (VICTIM.ip6.into(), "V"),
    ] {
        let packet = frame::echo_request(c.me.address_like(to), to, 0x5eed, 1);
        let seen = ground.attack(&[c.to_gateway(&packet)])?;
        ensure!(seen == expected, "{when}, to {to}: seen {seen:?}");
    }
    for from in [OUTSIDE, OUTSIDE6] {
        let packet = frame::echo_request(from, VICTIM.address_like(from), 0x5eed, 1);
        ground.empty();
        ground.uplink.send(&frames::packet(ground.node.uplink_mac(), c.gateway.mac, &packet))?;
        let seen = ground.arrived(&[frames::packet(VICTIM.mac, c.gateway.mac, &packet)]);
        ensure!(seen == "V", "{when}, from {from}: seen {seen:?}");
    }
    Ok(())
}

/// The reverse path is looked up with the mark or without it (src_valid_mark), loosely or strictly, or not at all: what passes
/// by rules passes by marks.
pub fn under_source_validation() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    let netns = &ground.node.netns;
    ground.node.files.set("HOST_ACCESS=udp/9")?;
    // The uplink's own, without an address, which would change how its packets are checked.
    let of_uplink = std::net::Ipv4Addr::new(10, 0, 0, 200);
    netns.ip(&format!("route add local {of_uplink} dev eth1"))?;
    let c = &ground.context;
    let out = c.to_gateway(&frame::echo_request(c.me.ip.into(), OUTSIDE, 0x5eed, 1));
    let across = c.to_victim(&c.ping(c.me.ip));
    let node = c.to_node(&c.tell_node(c.me.ip));
    let forged = c.to_gateway(&frame::echo_request([203, 0, 113, 77].into(), OUTSIDE, 0x5eed, 1));
    let asked = c.arp(1, (c.me.mac, c.me.ip), (frame::Mac::ZERO, c.gateway.ip));
    let inbound = frame::echo_request(OUTSIDE, VICTIM.ip.into(), 0x5eed, 1);
    let to_node = frame::udp((OUTSIDE, 7), (of_uplink.into(), LISTENING), b"forged");
    for way in ["ROUTING=rule", "ROUTING=mark"] {
        ground.node.files.set(way)?;
        ground.node.uplink_up()?;
        for (tap, id) in [("tap0", ATTACKER), ("tap1", VICTIM)] {
            nic(&ground.node, tap, id).ifup()?.succeeds()?;
        }
        for (strictness, by_mark) in [("0", "0"), ("0", "1"), ("2", "0"), ("2", "1"), ("1", "0"), ("1", "1")] {
            netns.set_sysctl("ipv4/conf/all/rp_filter", strictness)?;
            netns.set_sysctl("ipv4/conf/all/src_valid_mark", by_mark)?;
            // The node itself looks up the guest in table main, unless the mark leads it: there the guest is on the uplink.
            let itself = if strictness == "0" || by_mark == "1" { "H" } else { "" };
            for (what, frame, expected) in [
                ("to the outside", &out, "U"),
                ("to a neighbour", &across, "V"),
                ("to the node", &node, itself),
                ("forged", &forged, ""),
                ("ARP", &asked, "A"),
            ] {
                let seen = ground.attack(std::slice::from_ref(frame))?;
                ensure!(seen == expected, "{way}, {strictness}, {by_mark}, {what}: seen {seen:?}");
            }
            ground.empty();
            ground.uplink.send(&frames::packet(ground.node.uplink_mac(), c.gateway.mac, &inbound))?;
            let seen = ground.arrived(&[frames::packet(VICTIM.mac, c.gateway.mac, &inbound)]);
            ensure!(seen == "V", "{way}, {strictness}, {by_mark}, from the outside: seen {seen:?}");
            // Whether the uplink may reach the node itself is the business of table main, where the outside is elsewhere.
            ground.empty();
            let frame = frames::packet(ground.node.uplink_mac(), c.gateway.mac, &to_node);
            ground.uplink.send(&frame)?;
            let seen = ground.arrived(&[frame]);
            let expected = if strictness == "0" { "H" } else { "" };
            ensure!(seen == expected, "{way}, {strictness}, {by_mark}, from the outside to the node: seen {seen:?}");
        }
        netns.set_sysctl("ipv4/conf/all/rp_filter", "0")?;
    }
    // Without the rules by interface only the mark leads the check of a source back to the uplink.
    ensure!(netns.delete_rules(&["iif"])? > 0);
    netns.set_sysctl("ipv4/conf/all/src_valid_mark", "0")?;
    netns.set_sysctl("ipv4/conf/all/rp_filter", "1")?;
    for (by_mark, expected) in [("1", "V"), ("0", "")] {
        netns.set_sysctl("ipv4/conf/eth1/src_valid_mark", by_mark)?;
        ground.empty();
        ground.uplink.send(&frames::packet(ground.node.uplink_mac(), c.gateway.mac, &inbound))?;
        let seen = ground.arrived(&[frames::packet(VICTIM.mac, c.gateway.mac, &inbound)]);
        ensure!(seen == expected, "src_valid_mark {by_mark}: seen {seen:?}");
    }
    Ok(())
}
