//! NICs with no tag we know get what Ganeti's own script would have done; those that are not ours get nothing.

use std::fs;

use anyhow::{Result, ensure};

use crate::Test;
use crate::harness::frame::{self, IPV4, Mac};
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{OUTSIDE, Site, TAP_MAC};
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("ganeti::plain_routed_nic", plain_routed_nic),
    ("ganeti::plain_routed_nic_in_table_main", plain_routed_nic_in_table_main),
    ("ganeti::plain_bridged_nic", plain_bridged_nic),
    ("ganeti::instance_communication_is_not_ours", instance_communication_is_not_ours),
];

fn plain_routed_nic() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let mac = netns.mac_of("tap0")?;
    let nic = site.node.nic("tap0", WEB1).without_network();
    nic.ifup()?.succeeds()?;
    ensure!(netns.mac_of("tap0")? == mac, "the MAC was changed");
    let (rules, routes) = (netns.ip("-4 rule show")?, netns.ip("-4 route show table 100")?);
    ensure!(rules.contains("iif tap0 lookup 100"), "{rules}");
    ensure!(routes.contains("10.0.0.2 dev tap0"), "{routes}");
    ensure!(netns.sysctl("ipv4/conf/tap0/proxy_arp")? == "1", "proxy_arp");
    // The guest reaches the outside through the TAP's own MAC, which the proxy tells it.
    guest.send(&frame::arp_request((WEB1.mac, WEB1.ip), "10.0.0.1".parse()?))?;
    let tap = guest.seen.expect("ARP, Reply 10.0.0.1")?.source;
    ensure!(tap != TAP_MAC && tap.to_string() == mac, "answered by {tap}, not {mac}");
    let packet = frame::echo_request(WEB1.ip.into(), OUTSIDE, 7, 1);
    guest.send(&frame::ethernet(tap, WEB1.mac, IPV4, &packet))?;
    guest.seen.expect(&format!("IP {OUTSIDE} > {}: echo reply id 7 seq 1", WEB1.ip))?;
    nic.ifdown()?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

fn plain_routed_nic_in_table_main() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = site.node.plug("tap0", WEB1)?;
    let before = Snapshot::of(netns)?;
    // Without LINK: table main.
    let nic = site.node.nic("tap0", WEB1).without_network().unset(&["LINK"]);
    nic.ifup()?.succeeds()?;
    let (rules, routes) = (netns.ip("-4 rule show")?, netns.ip("-4 route show")?);
    ensure!(routes.contains("10.0.0.2 dev tap0"), "{routes}");
    ensure!(!rules.contains("iif tap0"), "{rules}");
    netns.output(std::process::Command::new("ping").args(["-c1", "-W15", "10.0.0.2"]))?;
    guest.seen.expect("echo request")?;
    nic.ifdown()?.succeeds()?;
    before.returns_in(netns, Snapshot::without_base_tables)
}

fn plain_bridged_nic() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    // Another port keeps its carrier, and an MTU that was set stays.
    netns.ip_batch(
        "link add br0 address 02:00:00:00:02:01 type bridge mcast_snooping 0\n\
         link set br0 mtu 1400 up\n\
         link add port type veth peer name port2\n\
         link set port2 up\n\
         link set port up mtu 1400 master br0\n",
    )?;
    for interface in ["br0", "port2"] {
        site.node.settled(interface)?;
    }
    let one = site.node.plug("tap0", WEB1)?;
    let two = site.node.plug("tap1", WEB2)?;
    let before = Snapshot::of(netns)?;
    let own = netns.mac_of("tap0")?;
    let nics = [
        site.node.nic("tap0", WEB1).without_network().bridged("br0"),
        // A network's tags may mean nothing to us, or another program something.
        site.node.nic("tap1", WEB2).bridged("br0").set("NETWORK_TAGS", "some other:tags"),
    ];
    for nic in &nics {
        nic.ifup()?.succeeds()?;
        nic.ifup()?.succeeds()?;
    }
    let link = netns.ip("-o link show dev tap0")?;
    for part in ["master br0", "mtu 1400", "UP"] {
        ensure!(link.contains(part), "expected {part:?} in {link}");
    }
    ensure!(netns.mac_of("tap0")? == format!("fe{}", &own[2..]), "{own} became {}", netns.mac_of("tap0")?);
    until(
        "the ports to forward",
        || Ok(netns.ip("-d link show master br0")?.matches("state forwarding").count() == 3),
    )?;
    one.send(&frame::arp_request((WEB1.mac, WEB1.ip), WEB2.ip))?;
    two.seen.expect(&format!("{} > {} ARP, Request who-has {} tell {}", WEB1.mac, Mac::BROADCAST, WEB2.ip, WEB1.ip))?;
    one.seen.expect(&format!("{} > {} ARP, Reply {} is-at {}", WEB2.mac, WEB1.mac, WEB2.ip, WEB2.mac))?;
    for nic in &nics {
        nic.ifdown()?.succeeds()?;
    }
    before.returns_in(netns, Snapshot::without_base_tables)
}

fn instance_communication_is_not_ours() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let _guest = site.node.plug("gnt.com.0", WEB1)?;
    let before = Snapshot::of(netns)?;
    let nic = site.node.nic("gnt.com.0", WEB1);
    for verb in ["ifup", "ifdown"] {
        let outcome = nic.run(verb)?.succeeds()?;
        ensure!(outcome.stderr.is_empty() && outcome.stdout.is_empty(), "{outcome:?}");
        before.equals(&Snapshot::of(netns)?)?;
    }
    // Not even if the rest of the environment makes no sense.
    nic.unset(&["MAC", "MODE"]).ifup()?.succeeds()?;
    let recorded: Vec<_> = fs::read_dir(site.node.files.state())?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("gnt.com"))
        .collect();
    ensure!(recorded.is_empty(), "{recorded:?}");
    Ok(())
}
