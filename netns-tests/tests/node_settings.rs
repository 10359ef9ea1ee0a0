//! Settings of the whole node, and their effect on interfaces that are not ours.

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::frame::{Mac, router_advertisement};
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::nic::Outcome;
use crate::harness::ping::Pinging;
use crate::harness::port::Port;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, OUTSIDE, OUTSIDE6, Site, Wanted};
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("node_settings::routes_by_router_advertisement_stay", routes_by_router_advertisement_stay),
    ("node_settings::who_goes_on_to_accept_router_advertisements", who_goes_on_to_accept_router_advertisements),
    ("node_settings::reverse_path_filter", reverse_path_filter),
];

const BARE: Wanted = Wanted { nodes: 1, uplink: false, tentative: false };
/// The router of the management network.
const ROUTER: Mac = Mac([2, 0, 0, 0, 9, 9]);

fn node(site: &Site, verb: &str, options: &str) -> Result<Outcome> {
    site.node.files.run(&site.node.netns, &["node", verb], options)
}

/// The router of the management network announces itself, until the node has a default route by it.
fn advertise(site: &Site) -> Result<()> {
    let port = Port::packet(&site.management, "lan", false)?;
    until("a default route by router advertisement", || {
        // Refused while there is no carrier.
        let _ = port.send(&router_advertisement(ROUTER, ROUTER.link_local()));
        has_advertised(site)
    })
}

fn has_advertised(site: &Site) -> Result<bool> {
    Ok(site.node.netns.ip("-6 route show default proto ra")?.contains(&ROUTER.link_local().to_string()))
}

fn accept_ra(site: &Site) -> Result<String> {
    site.node.netns.sysctl("ipv6/conf/eth0/accept_ra")
}

fn routes_by_router_advertisement_stay() -> Result<()> {
    let site = Site::with(BARE)?;
    let netns = &site.node.netns;
    node(&site, "up", Node::UPLINK6)?.succeeds()?;
    node(&site, "down", "--dev eth1")?.succeeds()?;
    let before = Snapshot::of(netns)?;
    advertise(&site)?;
    let up = node(&site, "up", Node::UPLINK6)?.succeeds()?;
    ensure!(up.stderr.contains("net.ipv6.conf.eth0.accept_ra changes: 1 -> 2"), "{up:#?}");
    ensure!(has_advertised(&site)? && accept_ra(&site)? == "2");
    // The next one is heeded, too.
    netns.ip("-6 route flush proto ra")?;
    advertise(&site)?;
    // Again, and with another uplink, nothing changes; it is of both.
    let up = node(&site, "up", Node::UPLINK6)?.succeeds()?;
    ensure!(up.stderr.is_empty(), "{up:#?}");
    netns.ip_batch("link add eth2 type veth peer name eth3\nlink set eth2 up\nlink set eth3 up")?;
    node(&site, "up", "--dev eth2 --table 200 --routes 2001:db8:9::/64")?.succeeds()?;
    node(&site, "down", "--dev eth1")?.succeeds()?;
    ensure!(has_advertised(&site)? && accept_ra(&site)? == "2");
    // Not even without its device does it stay.
    netns.ip("link del eth2")?;
    node(&site, "down", "--dev eth2")?.succeeds()?;
    ensure!(has_advertised(&site)? && accept_ra(&site)? == "1");
    netns.ip("-6 route flush proto ra")?;
    before.returns_in(netns, Snapshot::without_base_tables)?;
    // What the kernel does by itself.
    advertise(&site)?;
    netns.set_sysctl("ipv6/conf/all/forwarding", "1")?;
    until("the route to be gone", || Ok(!has_advertised(&site)?))
}

/// Neither the uplink nor a bridge of guests.
fn who_goes_on_to_accept_router_advertisements() -> Result<()> {
    let site = Site::with(BARE)?;
    let netns = &site.node.netns;
    advertise(&site)?;
    let to_uplink = Port::packet(&site.router, "lan", false)?;
    netns.ip("link set eth1 up")?;
    until("a route by router advertisement on eth1", || {
        let _ = to_uplink.send(&router_advertisement(ROUTER, ROUTER.link_local()));
        Ok(netns.ip("-6 route show default proto ra dev eth1")?.contains("via"))
    })?;
    let _guest = site.node.plug("tap1", WEB2)?;
    netns.ip_batch("link add br0 type bridge\nlink set br0 up\nlink set tap1 master br0\nlink set tap1 up")?;
    netns.ip("-6 route add default via fe80::1 dev br0 proto ra metric 2048")?;
    let up = node(&site, "up", Node::UPLINK6)?.succeeds()?;
    ensure!(up.stderr.contains("warning: br0 loses the routes that it has by router advertisement"), "{up:#?}");
    for (interface, expected) in [("eth0", "2"), ("eth1", "1"), ("br0", "1"), ("tap1", "1")] {
        let value = netns.sysctl(&format!("ipv6/conf/{interface}/accept_ra"))?;
        ensure!(value == expected, "{interface}: {value}");
    }
    Ok(())
}

/// The kernel asks for the way back as if the packet came in where the answer would leave: there the guests' table is asked.
fn reverse_path_filter() -> Result<()> {
    let site = Site::new()?;
    let (one, two) = (site.node.guest("tap0", WEB1)?, site.node.guest("tap1", WEB2)?);
    for value in ["1", "2", "0"] {
        for interface in ["all", "eth1", "tap0"] {
            site.node.netns.set_sysctl(&format!("ipv4/conf/{interface}/rp_filter"), value)?;
            let reaches = || -> Result<()> {
                one.ping(OUTSIDE)?;
                one.ping(OUTSIDE6)?;
                one.ping(WEB2.ip.into())?;
                two.ping(WEB1.ip.into())?;
                Pinging::start(&site.router, WEB1.ip.into())?.goes_on(1)
            };
            reaches().with_context(|| format!("rp_filter {value} of {interface}"))?;
        }
        let up = node(&site, "up", Node::UPLINK)?.succeeds()?;
        ensure!(up.stderr.is_empty(), "{up:#?}");
    }
    Ok(())
}
