//! What a guest may call itself: its own addresses. Each forged packet that must not pass is shown to pass where the
//! settings have no check.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::frame;
use crate::harness::guest::{Guest, WEB1, WEB2};
use crate::harness::patience;
use crate::harness::topology::{GATEWAY, GATEWAY6, OUTSIDE, OUTSIDE6, Site, TAP_MAC};

pub const TESTS: &[Test] = &[
    ("spoof::to_the_outside", to_the_outside),
    ("spoof::to_another_guest", to_another_guest),
    ("spoof::to_the_node_itself", to_the_node_itself),
    ("spoof::of_a_family_the_guest_has_not", of_a_family_the_guest_has_not),
    ("spoof::own_link_local_address_passes", own_link_local_address_passes),
    ("spoof::the_gateway_and_the_node_as_source", the_gateway_and_the_node_as_source),
];

/// Sources that are not the guest's: a free one of its network, its neighbour's, one of another network.
const FORGED: [&str; 3] = ["10.0.0.77", "10.0.0.3", "203.0.113.77"];
const FORGED6: [&str; 3] = ["2001:db8:1::77", "2001:db8:1:0:a800:ff:fe12:3457", "2001:db8:9::77"];

fn forged() -> Result<Vec<IpAddr>> {
    FORGED.iter().chain(&FORGED6).map(|text| text.parse().context("an address")).collect()
}

fn like(address: IpAddr, v4: IpAddr, v6: IpAddr) -> IpAddr {
    if address.is_ipv4() { v4 } else { v6 }
}

/// A site with two guests, whose first may be checked or not.
fn site(checked: bool) -> Result<(Site, Guest, Guest)> {
    guests_of(Site::new()?, checked)
}

fn guests_of(site: Site, checked: bool) -> Result<(Site, Guest, Guest)> {
    let two = site.node.guest("tap1", WEB2)?;
    if !checked {
        site.node.files.set("IPSPOOF=yes")?;
    }
    let one = site.node.guest("tap0", WEB1)?;
    Ok((site, one, two))
}

fn to_the_outside() -> Result<()> {
    for checked in [true, false] {
        let (site, one, _two) = site(checked)?;
        let wire = site.node.wire()?;
        for source in forged()? {
            let outside = like(source, OUTSIDE, OUTSIDE6);
            let mark = one.send_echo(source, outside)?;
            let seen = format!("{source} > {outside}: echo request {mark}");
            if checked {
                one.ping(outside)?;
                wire.never(&seen)?;
            } else {
                wire.expect(&seen)?;
            }
        }
    }
    Ok(())
}

fn to_another_guest() -> Result<()> {
    for checked in [true, false] {
        let (_site, one, two) = site(checked)?;
        for source in forged()? {
            let target = WEB2.address_like(source);
            if source == target {
                // Its own address as source is a martian there, check or no check.
                continue;
            }
            let mark = one.send_echo(source, target)?;
            let seen = format!("{source} > {target}: echo request {mark}");
            if checked {
                one.ping(target)?;
                two.seen.never(&seen)?;
            } else {
                two.seen.expect(&seen)?;
            }
        }
    }
    Ok(())
}

fn to_the_node_itself() -> Result<()> {
    for checked in [true, false] {
        let site = Site::new()?;
        // Any port: a process that another test just starts may still hold the last one for a moment.
        let bound = |node: &str| site.node.netns.run(|| UdpSocket::bind((node, 0)));
        let sockets = [bound("192.0.2.11")?, bound("2001:db8:2::11")?];
        let ports = [sockets[0].local_addr()?.port(), sockets[1].local_addr()?.port()];
        site.node.files.set(&format!("HOST_ACCESS=\"udp/{} udp/{}\"", ports[0], ports[1]))?;
        let (_site, one, _two) = guests_of(site, checked)?;
        for source in forged()? {
            let node: IpAddr = like(source, "192.0.2.11".parse()?, "2001:db8:2::11".parse()?);
            let (socket, port) = (&sockets[usize::from(source.is_ipv6())], ports[usize::from(source.is_ipv6())]);
            socket.set_read_timeout(Some(patience()))?;
            one.send_packet(&frame::udp((source, 5000), (node, port), b"forged"))?;
            one.send_packet(&frame::udp((WEB1.address_like(source), 5000), (node, port), b"true"))?;
            let (_, first) = socket.recv_from(&mut [0; 64]).context("nothing reaches the node")?;
            let expected = if checked { WEB1.address_like(source) } else { source };
            ensure!(first.ip() == expected, "checked {checked}, from {source}: {first} came first");
            if !checked {
                socket.recv_from(&mut [0; 64]).context("the true one")?;
            }
        }
    }
    Ok(())
}

fn of_a_family_the_guest_has_not() -> Result<()> {
    for (checked, v4) in [(true, true), (true, false), (false, true), (false, false)] {
        let site = Site::new()?;
        if !checked {
            site.node.files.set("IPSPOOF=yes")?;
        }
        // The other family is forwarded on the node, as its other guests need it.
        let _two = site.node.guest("tap1", WEB2)?;
        let one = site.node.plug("tap0", WEB1)?;
        let nic = site.node.nic("tap0", WEB1);
        (if v4 { nic.only_v4() } else { nic.only_v6() }).ifup()?.succeeds()?;
        let (own, other) = if v4 { (OUTSIDE, OUTSIDE6) } else { (OUTSIDE6, OUTSIDE) };
        // Such a TAP has no rule of that family; give it one, so that only the check stands in the way.
        let family = if v4 { "-6" } else { "-4" };
        site.node.netns.ip(&format!("{family} rule add iif tap0 lookup 100 pref 30000"))?;
        for version in ["ipv4", "ipv6"] {
            site.node.netns.set_sysctl(&format!("{version}/conf/tap0/forwarding"), "1")?;
        }
        let wire = site.node.wire()?;
        let source = WEB1.address_like(other);
        let mark = one.send_echo(source, other)?;
        let seen = format!("{source} > {other}: echo request {mark}");
        if checked {
            one.ping(own)?;
            wire.never(&seen)?;
        } else {
            wire.expect(&seen)?;
        }
    }
    Ok(())
}

fn own_link_local_address_passes() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    // The node answers once it has the address.
    site.node.settled("tap0")?;
    let (own, gateway): (Ipv6Addr, Ipv6Addr) = (WEB1.mac.link_local(), TAP_MAC.link_local());
    let mark = guest.send_echo(own.into(), gateway.into())?;
    guest.seen.expect(&format!("{gateway} > {own}: echo reply {mark}"))?;
    Ok(())
}

fn the_gateway_and_the_node_as_source() -> Result<()> {
    let site = Site::new()?;
    let guest = site.node.guest("tap0", WEB1)?;
    let wire = site.node.wire()?;
    for source in [
        GATEWAY,
        GATEWAY6,
        "192.0.2.11".parse()?,
        "2001:db8:2::11".parse()?,
        "127.0.0.1".parse()?,
        "::1".parse()?,
        "0.0.0.0".parse()?,
        "::".parse()?,
    ] {
        let outside = like(source, OUTSIDE, OUTSIDE6);
        let mark = guest.send_echo(source, outside)?;
        guest.ping(outside)?;
        wire.never(&format!("echo request {mark}"))?;
        wire.never(&format!("echo reply {mark}"))?;
    }
    Ok(())
}
