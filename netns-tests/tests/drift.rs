//! Whatever is broken from outside, by the real tools: status names it, reconcile mends it, and nothing else changes.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::status::{finds, in_sync};
use crate::Test;
use crate::harness::guest::{Guest, WEB1};
use crate::harness::netns::Netns;
use crate::harness::nic::Outcome;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site};

pub const TESTS: &[Test] = &[
    ("drift::each_object_of_a_routed_nic", each_object_of_a_routed_nic),
    ("drift::each_object_of_an_uplink", each_object_of_an_uplink),
    ("drift::each_object_of_a_bridged_nic", each_object_of_a_bridged_nic),
];

/// Those that need a bridge with VLANs.
pub const IN_VIRTUAL_MACHINE: &[Test] = &[("drift::vlans_of_ports", vlans_of_ports)];

/// How something is broken.
#[derive(Clone, Copy)]
enum Break<'a> {
    Ip(&'a str),
    Nft(&'a str),
    Sysctl(&'a str, &'a str),
    NoFile(&'a str),
    File(&'a str),
}

impl Break<'_> {
    fn carry_out(self, node: &Node) -> Result<()> {
        match self {
            Self::Ip(lines) => node.netns.ip_batch(lines),
            Self::Nft(commands) => node.netns.output(Command::new("nft").arg(commands)).map(drop),
            Self::Sysctl(name, value) => node.netns.set_sysctl(name, value),
            Self::NoFile(name) => Ok(fs::remove_file(node.files.bindings().join(name))?),
            Self::File(name) => Ok(fs::write(node.files.bindings().join(name), "IP=10.0.0.66\n")?),
        }
    }
}

/// `reconcile` with options.
pub fn reconcile(node: &Node, options: &str) -> Result<Outcome> {
    node.files.run(&node.netns, &["reconcile"], options)
}

/// Breaks, sees status name it, reconciles, and sees all as it was before.
fn breaks_and_mends(node: &Node, rows: &[(Break<'_>, &[&str])]) -> Result<()> {
    in_sync(node)?;
    node.netns.settle()?;
    let before = Snapshot::of(&node.netns)?;
    let binding = || fs::read(node.files.bindings().join("tap0")).ok();
    let bound = binding();
    for (place, (damage, expected)) in rows.iter().enumerate() {
        let mended = || -> Result<()> {
            damage.carry_out(node)?;
            finds(node, expected)?;
            reconcile(node, "")?.succeeds()?;
            in_sync(node)?;
            before.returns_in(&node.netns, |state| state)?;
            ensure!(binding() == bound, "the binding differs");
            Ok(())
        };
        mended().with_context(|| format!("row {place}: {expected:?}"))?;
    }
    Ok(())
}

/// That a guest's pings are answered, of both families.
pub fn reaches_the_outside(guest: &Guest) -> Result<()> {
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    Ok(())
}

/// A routed NIC with everything a routed NIC can have.
pub fn routed(site: &Site) -> Result<Guest> {
    let guest = site.node.plug("tap0", WEB1)?;
    site.node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd").ifup()?.succeeds()?;
    site.node.settled("tap0")?;
    Ok(guest)
}

/// A bridge that does not change when a port joins and leaves: its MAC is given, and it has another port.
fn another_bridge(netns: &Netns, name: &str) -> Result<()> {
    netns.ip_batch(&format!(
        "link add {name} address 02:00:00:00:02:07 type bridge\nlink set {name} up addrgenmode none\n\
         link add beside type veth peer name behind\n\
         link set beside up master {name} addrgenmode none\nlink set behind up addrgenmode none"
    ))
}

fn each_object_of_a_routed_nic() -> Result<()> {
    let site = Site::new()?;
    let guest = routed(&site)?;
    another_bridge(&site.node.netns, "br7")?;
    let ip6 = WEB1.ip6;
    let del_route6 = format!("-6 route del {ip6} table 100");
    let other_route6 = format!("-6 route replace {ip6} dev eth0 table 100 metric 1");
    let del_proxy = format!("-6 neigh del proxy {ip6} dev eth1");
    let other_proxy = format!("-6 neigh replace proxy {ip6} dev eth1 protocol 99");
    let route6 = format!("missing: ip -6 route {ip6}/128 dev tap0 table 100 proto 217");
    let different6 = format!(
        "different: ip -6 route {ip6}/128 dev tap0 table 100 proto 217 metric 1, found: ip -6 route {ip6}/128 dev eth0"
    );
    let proxy = format!("missing: ip -6 neigh proxy {ip6} dev eth1 protocol 217");
    let different_proxy = format!("different: ip -6 neigh proxy {ip6} dev eth1 protocol 217, found: protocol 99");
    let mac = WEB1.mac;
    let neighbour = format!("missing: ip neigh 10.0.0.2 lladdr {mac} dev tap0 nud permanent protocol 217");
    let other_neighbour =
        format!("-6 neigh replace {ip6} lladdr 02:00:00:00:00:07 dev tap0 nud permanent protocol 217");
    let different_neighbour = format!(
        "different: ip -6 neigh {ip6} lladdr {mac} dev tap0 nud permanent protocol 217, \
         found: ip -6 neigh {ip6} lladdr 02:00:00:00:00:07"
    );
    let rows: &[(Break<'_>, &[&str])] = &[
        (Break::Ip("neigh del 10.0.0.2 dev tap0"), &[&neighbour]),
        (Break::Ip(&other_neighbour), &[&different_neighbour]),
        (
            Break::Ip("neigh add 10.0.0.99 lladdr 02:00:00:00:00:07 dev tap0 nud permanent protocol 217"),
            &["foreign: ip neigh 10.0.0.99 lladdr 02:00:00:00:00:07 dev tap0 nud permanent protocol 217"],
        ),
        (Break::Ip("rule del iif tap0"), &["missing: ip rule iif tap0 lookup 100 pref 20100 protocol 217"]),
        (Break::Ip("-6 rule del iif tap0"), &["missing: ip -6 rule iif tap0 lookup 100 pref 20100 protocol 217"]),
        (
            Break::Ip("rule add iif tap0 lookup 200 pref 20100 protocol 217"),
            &["foreign: ip rule iif tap0 lookup 200 pref 20100 protocol 217"],
        ),
        (Break::Ip("route del 10.0.0.2 table 100"), &["missing: ip route 10.0.0.2/32 dev tap0 table 100 proto 217"]),
        (
            Break::Ip("route replace 10.0.0.2 dev eth0 table 100"),
            &[
                "different: ip route 10.0.0.2/32 dev tap0 table 100 proto 217, found: ip route 10.0.0.2/32 dev eth0 table 100",
            ],
        ),
        (
            Break::Ip("route add 10.0.0.99 dev tap0 table 100 proto 217"),
            &["foreign: ip route 10.0.0.99/32 dev tap0 table 100 proto 217"],
        ),
        (Break::Ip(&del_route6), &[&route6]),
        (Break::Ip(&other_route6), &[&different6]),
        (Break::Ip(&del_proxy), &[&proxy]),
        (Break::Ip(&other_proxy), &[&different_proxy]),
        (Break::Ip("link set tap0 down"), &["different: ip link set dev tap0 up, found: down", &neighbour, &route6]),
        (
            Break::Ip("link set tap0 address 02:00:00:00:07:07"),
            &["different: ip link set dev tap0 address cc:47:52:4e:45:54, found: address 02:00:00:00:07:07"],
        ),
        (Break::Ip("link set tap0 master br7"), &["different: ip link set dev tap0 nomaster, found: master br7"]),
        (
            Break::Sysctl("ipv4/conf/tap0/proxy_arp", "0"),
            &["different: echo 1 > /proc/sys/net/ipv4/conf/tap0/proxy_arp, found: 0"],
        ),
        (
            Break::Sysctl("ipv4/conf/tap0/rp_filter", "1"),
            &["different: echo 0 > /proc/sys/net/ipv4/conf/tap0/rp_filter, found: 1"],
        ),
        (
            Break::Sysctl("ipv6/conf/tap0/accept_ra", "1"),
            &["different: echo 0 > /proc/sys/net/ipv6/conf/tap0/accept_ra, found: 1"],
        ),
        (
            Break::Sysctl("ipv4/neigh/tap0/proxy_delay", "80"),
            &["different: echo 0 > /proc/sys/net/ipv4/neigh/tap0/proxy_delay, found: 80"],
        ),
        (
            Break::Sysctl("ipv6/conf/all/proxy_ndp", "0"),
            &["different: echo 1 > /proc/sys/net/ipv6/conf/all/proxy_ndp, found: 0"],
        ),
        (
            Break::Nft("delete element inet snf-network guarded { \"tap0\" }"),
            &["missing: nft element inet snf-network guarded { \"tap0\" comment \"web1.example.org nic0\" }"],
        ),
        (
            Break::Nft(
                "delete element arp snf-network arp_source { \"tap0\" }; \
                 add element arp snf-network arp_source { \"tap0\" comment \"web1.example.org nic0\" : 10.0.0.99 }",
            ),
            &[
                "different: nft element arp snf-network arp_source { \"tap0\" comment \"web1.example.org nic0\" : 10.0.0.1 }",
            ],
        ),
        (
            Break::Nft(
                "delete element inet snf-network routed { \"tap0\" }; \
                 add element inet snf-network routed { \"tap0\" comment \"somebody\" }",
            ),
            &[
                "different: nft element inet snf-network routed { \"tap0\" comment \"web1.example.org nic0\" }, found: nft element inet snf-network routed { \"tap0\" comment \"somebody\" }",
            ],
        ),
        (
            Break::Nft("add element inet snf-network sources4 { \"tap0\" . 10.0.0.77 }"),
            &["foreign: nft element inet snf-network sources4 { \"tap0\" . 10.0.0.77 }"],
        ),
        (
            Break::Nft("flush chain inet snf-network sources"),
            &["different: nft table inet snf-network: fragments prerouting"],
        ),
        (Break::Nft("delete table inet snf-network"), &["missing: nft table inet snf-network: fragments prerouting"]),
        (Break::NoFile("tap0"), &["missing: binding "]),
        (Break::File("tap0"), &["different: binding "]),
    ];
    breaks_and_mends(&site.node, rows)?;
    reaches_the_outside(&guest)
}

fn each_object_of_an_uplink() -> Result<()> {
    let site = Site::new()?;
    let rows: &[(Break<'_>, &[&str])] = &[
        (Break::Ip("rule del iif eth1"), &["missing: ip rule iif eth1 lookup 100 pref 20000 protocol 218"]),
        (Break::Ip("-6 rule del iif eth1"), &["missing: ip -6 rule iif eth1 lookup 100 pref 20000 protocol 218"]),
        (
            Break::Ip("rule add iif eth1 lookup 200 pref 20000 protocol 218"),
            &["foreign: ip rule iif eth1 lookup 200 pref 20000 protocol 218"],
        ),
        (
            Break::Ip("route del default via 10.0.0.1 table 100"),
            &["missing: ip route default via 10.0.0.1 dev eth1 table 100 proto 218"],
        ),
        (
            Break::Ip("route del unreachable default table 100 metric 4278198272"),
            &["missing: ip route unreachable default table 100 proto 218 metric 4278198272"],
        ),
        (
            Break::Ip("-6 route del unreachable default table 100 metric 4278198272"),
            &["missing: ip -6 route unreachable default table 100 proto 218 metric 4278198272"],
        ),
        (
            Break::Ip("-6 route del default via 2001:db8:1::1 table 100"),
            &["missing: ip -6 route default via 2001:db8:1::1 dev eth1 table 100 proto 218"],
        ),
        (
            Break::Nft("delete element arp snf-network arp_source { \"eth1\" }"),
            &["missing: nft element arp snf-network arp_source { \"eth1\" comment \"uplink\" : 10.0.0.254 }"],
        ),
        (
            Break::Nft("delete element inet snf-network uplinks_100 { \"eth1\" }"),
            &["missing: nft element inet snf-network uplinks_100 { \"eth1\" comment \"uplink\" }"],
        ),
        (
            Break::Nft("add element inet snf-network steered_100 { \"eth1\" }"),
            &["foreign: nft element inet snf-network steered_100 { \"eth1\" }"],
        ),
        (
            Break::Sysctl("ipv4/conf/eth1/src_valid_mark", "0"),
            &["different: echo 1 > /proc/sys/net/ipv4/conf/eth1/src_valid_mark, found: 0"],
        ),
        (
            Break::Sysctl("ipv4/conf/eth1/forwarding", "0"),
            &["different: echo 1 > /proc/sys/net/ipv4/conf/eth1/forwarding, found: 0"],
        ),
        (
            Break::Sysctl("ipv6/neigh/eth1/proxy_delay", "80"),
            &["different: echo 0 > /proc/sys/net/ipv6/neigh/eth1/proxy_delay, found: 80"],
        ),
        (Break::Ip("link set eth1 down"), &["different: ip link set dev eth1 up, found: down"]),
    ];
    breaks_and_mends(&site.node, rows)
}

fn each_object_of_a_bridged_nic() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let bridge = "link add br0 address 02:00:00:00:02:06 type bridge\nlink set br0 mtu 1400 up addrgenmode none";
    node.netns.ip_batch(bridge)?;
    another_bridge(&node.netns, "br1")?;
    let _guest = node.plug("tap0", WEB1)?;
    let nic = node.nic("tap0", WEB1).bridged("br0");
    nic.set("NETWORK_TAGS", "private-filtered").set("TAGS", "protected").ifup()?.succeeds()?;
    node.settled("tap0")?;
    let groups = "ip link set dev tap0 type bridge_slave group_fwd_mask 0xfffd mcast_router 0";
    let missing_groups = format!("missing: {groups}");
    let other_groups = format!("different: {groups}, found: group_fwd_mask 0x0");
    let router = format!("different: {groups}, found: mcast_router 1");
    let rows: &[(Break<'_>, &[&str])] = &[
        (Break::Ip("link set tap0 nomaster"), &["missing: ip link set dev tap0 master br0", &missing_groups]),
        (Break::Ip("link set tap0 master br1"), &["different: ip link set dev tap0 master br0, found: master br1"]),
        (Break::Ip("link set tap0 type bridge_slave group_fwd_mask 0"), &[&other_groups]),
        (Break::Ip("link set tap0 type bridge_slave mcast_router 1"), &[&router]),
        (Break::Ip("link set tap0 mtu 1300"), &["different: ip link set dev tap0 address fe:"]),
        (Break::Ip("link set tap0 down"), &["different: ip link set dev tap0 up, found: down"]),
        (
            Break::Nft("delete element bridge snf-network protected { \"tap0\" }"),
            &["missing: nft element bridge snf-network protected { \"tap0\" comment \"web1.example.org nic0\" }"],
        ),
        (Break::Nft("flush ruleset"), &["missing: nft table bridge snf-network: FROMTAP to_groups"]),
    ];
    breaks_and_mends(node, rows)
}

fn vlans_of_ports() -> Result<()> {
    let node = Node::alone()?;
    node.netns.ip_batch(
        "link add br0 address 02:00:00:00:02:06 type bridge vlan_filtering 1\nlink set br0 up\n\
         link add dummy0 up master br0 type dummy",
    )?;
    let _guest = node.plug("tap0", WEB1)?;
    node.nic("tap0", WEB1).without_network().bridged("br0").set("VLAN", ".10:20").ifup()?.succeeds()?;
    node.settled("tap0")?;
    node.settled("br0")?;
    in_sync(&node)?;
    let vlans = || node.netns.output(Command::new("bridge").args(["-j", "vlan", "show"]));
    let (before, vlans_before) = (Snapshot::of(&node.netns)?, vlans()?);
    let own = "bridge vlan dev tap0: 10 pvid untagged, 20";
    let outside = "bridge vlan dev dummy0: 10, 20";
    for (damage, expected) in [
        ("vlan del dev tap0 vid 20", format!("different: {own}, found: 10 pvid untagged")),
        ("vlan add dev tap0 vid 30", format!("different: {own}, found: 10 pvid untagged, 20, 30")),
        ("vlan add dev tap0 vid 10", format!("different: {own}, found: 10, 20")),
        ("vlan del dev dummy0 vid 20", format!("different: {outside}, found: 1 pvid untagged, 10")),
    ] {
        node.netns.output(Command::new("bridge").args(damage.split(' ')))?;
        finds(&node, &[&expected])?;
        reconcile(&node, "")?.succeeds()?;
        in_sync(&node)?;
        ensure!(vlans()? == vlans_before, "after {damage}: {}\nexpected {vlans_before}", vlans()?);
        before.returns_in(&node.netns, |state| state).context(damage)?;
    }
    node.netns.ip("link set tap0 nomaster")?;
    finds(&node, &["missing: ip link set dev tap0 master br0", &format!("missing: {own}")])?;
    reconcile(&node, "")?.succeeds()?;
    in_sync(&node)?;
    ensure!(vlans()? == vlans_before, "{}", vlans()?);
    Ok(())
}
