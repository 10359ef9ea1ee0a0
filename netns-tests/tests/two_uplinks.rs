//! Two uplinks of one node.

use std::net::UdpSocket;

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::nic::Outcome;
use crate::harness::port::Capture;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, Site};

pub const TESTS: &[Test] = &[
    ("two_uplinks::of_one_table", of_one_table),
    ("two_uplinks::tenants_with_the_same_prefix", tenants_with_the_same_prefix),
    ("two_uplinks::a_route_of_another_uplink", a_route_of_another_uplink),
];

/// A site with a second device, `eth2`, whose other end is in the node, too.
fn site() -> Result<Site> {
    let site = Site::new()?;
    site.node.netns.ip_batch("link add eth2 type veth peer name eth3\nlink set eth2 up\nlink set eth3 up")?;
    for device in ["eth2", "eth3"] {
        site.node.settled(device)?;
    }
    Ok(site)
}

fn node(site: &Site, verb: &str, options: &str) -> Result<Outcome> {
    site.node.files.run(&site.node.netns, &["node", verb], options)
}

/// What both need stays as long as one of them does.
fn of_one_table() -> Result<()> {
    let site = site()?;
    let before = Snapshot::of(&site.node.netns)?;
    for options in ["--routes 198.51.100.0/24", "--routes 2001:db8:9::/64"] {
        let options = format!("--dev eth2 --table 100 {options}");
        node(&site, "up", &options)?.succeeds()?;
        node(&site, "up", &options)?.succeeds()?;
    }
    for family in ["inet", "inet6"] {
        node(&site, "down", &format!("--dev eth2 --family {family}"))?.succeeds()?;
    }
    before.returns_in(&site.node.netns, |state| state)
}

/// The node itself goes on to use the first one's network, and says so.
fn tenants_with_the_same_prefix() -> Result<()> {
    let site = site()?;
    let netns = &site.node.netns;
    let before = Snapshot::of(netns)?;
    let main = || -> Result<String> { Ok(netns.ip("-4 route show")? + &netns.ip("-6 route show")?) };
    let at_first = main()?;
    for (options, prefix) in [
        ("--gateway 10.0.0.1 --routes 10.0.0.0/24", "10.0.0.0/24"),
        ("--gateway 10.0.0.1 --routes 10.0.0.0/16", "10.0.0.0/16"),
        ("--gateway 10.0.0.1 --routes 10.0.0.0/28", "10.0.0.0/28"),
        ("--gateway 2001:db8:1::1 --routes 2001:db8:1::/64", "2001:db8:1::/64"),
    ] {
        let up = node(&site, "up", &format!("--dev eth2 --table 200 {options}"))?.succeeds()?;
        let warning = format!("warning: {prefix} stays out of table main, which has it by eth1 (table 100)");
        ensure!(up.stderr.contains(&warning), "{up:#?}");
        ensure!(main()? == at_first, "{}\nexpected {at_first}", main()?);
    }
    for family in ["-4", "-6"] {
        ensure!(netns.ip(&format!("{family} route show table 200"))?.contains("default via"), "{family}");
    }
    // The first one again takes nothing back, and loses nothing.
    for options in [Node::UPLINK, Node::UPLINK6] {
        let up = node(&site, "up", options)?.succeeds()?;
        ensure!(up.stderr.is_empty(), "{up:#?}");
    }
    ensure!(main()? == at_first);
    site.node.files.run(netns, &["status"], "")?.succeeds()?;
    let (first, second) = (site.node.wire()?, Capture::on(netns, "eth3")?);
    netns.run(|| -> Result<()> {
        UdpSocket::bind("192.0.2.11:0")?.send_to(b"?", "10.0.0.9:9")?;
        Ok(())
    })?;
    first.expect("ARP, Request who-has 10.0.0.9")?;
    second.never("ARP, Request who-has 10.0.0.9")?;
    node(&site, "down", "--dev eth2")?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

fn a_route_of_another_uplink() -> Result<()> {
    let site = site()?;
    let netns = &site.node.netns;
    for (options, part) in [
        ("--table 100 --gateway 10.0.0.1", "the default route of table 100 is by eth1"),
        ("--table 100 --routes 10.0.0.0/24", "10.0.0.0/24 of table 100 is by eth1"),
        ("--routes 10.0.0.0/24", "10.0.0.0/24 of table main is by eth1"),
        ("--table 100 --gateway 2001:db8:1::1", "the default route of table 100 is by eth1"),
    ] {
        let before = Snapshot::of(netns)?;
        node(&site, "up", &format!("--dev eth2 {options}"))?.fails(&[part, "expected --force"])?;
        before.equals(&Snapshot::of(netns)?)?;
    }
    let up = node(&site, "up", "--dev eth2 --table 100 --gateway 10.0.0.1 --force")?.succeeds()?;
    ensure!(up.stderr.contains("warning: the default route of table 100 was by eth1"), "{up:#?}");
    ensure!(netns.ip("route show table 100")?.contains("default via 10.0.0.1 dev eth2"));
    Ok(())
}
