//! What the node itself says about packets of its guests, and who gets it: too big, time exceeded, unreachable.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::frame::{self, ICMP, ICMPV6};
use crate::harness::guest::{Guest, WEB1, WEB2};
use crate::harness::netns::Netns;
use crate::harness::packet::{Content, Packet};
use crate::harness::port::Capture;
use crate::harness::topology::{ARP_IP, GATEWAY, GATEWAY6, OUTSIDE, OUTSIDE6, Site, TAP_MAC};
use crate::harness::until;

pub const TESTS: &[Test] = &[
    ("about_guests::too_big_for_the_uplink", too_big_for_the_uplink),
    ("about_guests::too_big_for_the_tap", too_big_for_the_tap),
    ("about_guests::time_exceeded", time_exceeded),
    ("about_guests::unreachable", unreachable),
    ("about_guests::a_whole_upload_through_a_smaller_uplink", a_whole_upload_through_a_smaller_uplink),
    ("about_guests::under_the_gateways_address", under_the_gateways_address),
    ("about_guests::not_by_the_mark_of_others", not_by_the_mark_of_others),
];

/// An ICMP error: type, code, and the number in octets 4 to 7, of which an MTU is the lower half.
#[derive(Debug, PartialEq)]
struct Error {
    kind: u8,
    code: u8,
    number: u32,
}

/// The ICMP error in a packet, from whom, and about a packet with this identification of an echo.
fn error(packet: &Packet) -> Option<(IpAddr, IpAddr, Error)> {
    let (from, to, message): (IpAddr, IpAddr, _) = match packet.content {
        Content::Ipv4(from, to, ..) if packet.bytes[23] == ICMP => (from.into(), to.into(), packet.bytes.get(34..)?),
        Content::Ipv6(from, to, ..) if packet.bytes[20] == ICMPV6 => (from.into(), to.into(), packet.bytes.get(54..)?),
        _ => return None,
    };
    let is_error = if from.is_ipv4() { [3, 11, 12].contains(&message[0]) } else { message[0] < 128 };
    let number = u32::from_be_bytes(*message.get(4..)?.first_chunk()?);
    is_error.then_some((from, to, Error { kind: message[0], code: message[1], number }))
}

/// Waits for an error about this packet; its checksum must be right.
fn expect_about(seen: &Capture, about: &[u8], to: IpAddr) -> Result<(IpAddr, Error)> {
    let quotes = |packet: &Packet| {
        let (from, target, found) = error(packet).filter(|it| it.1 == to)?;
        let at = if from.is_ipv4() { 42 } else { 62 };
        // Time to live and checksum of what is quoted differ.
        let addresses = if from.is_ipv4() { 12..20 } else { 8..40 };
        let quoted = packet.bytes.get(at..)?;
        let same = quoted.get(addresses.clone())? == about.get(addresses)?;
        let header = if from.is_ipv4() { 20 } else { 40 };
        let ports = quoted.get(header..header + 8)? == about.get(header..header + 8)?;
        (same && ports && target == to).then_some((from, found, packet.clone()))
    };
    let mut last = None;
    until("an ICMP error", || {
        last = seen.seen().iter().find_map(quotes);
        Ok(last.is_some())
    })
    .with_context(|| format!("to {to}, in {:#?}", seen.seen().iter().map(ToString::to_string).collect::<Vec<_>>()))?;
    let (from, found, packet) = last.context("no error")?;
    if to.is_ipv6() {
        ensure!(packet.icmpv6_checksum_holds(), "a wrong checksum: {packet}");
    } else {
        ensure!(frame::checksum(&packet.bytes[14..34]) == 0 && frame::checksum(&packet.bytes[34..]) == 0, "{packet}");
    }
    Ok((from, found))
}

/// An echo request of this many bytes in all.
fn echo(from: IpAddr, to: IpAddr, id: u16, length: usize) -> Vec<u8> {
    let headers = if from.is_ipv4() { 28 } else { 48 };
    frame::echo(false, from, to, [id, 1], &vec![7; length - headers])
}

/// The same with this many hops left.
fn with_hops(mut packet: Vec<u8>, hops: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] = hops;
        return packet;
    }
    packet[8] = hops;
    packet[10..12].fill(0);
    let sum = frame::checksum(&packet[..20]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet
}

/// What leaves by the management network, and what else must be nowhere.
struct Elsewhere(Capture);

impl Elsewhere {
    fn of(site: &Site) -> Result<Self> {
        Ok(Self(Capture::on(&site.management, "lan")?))
    }

    /// Nothing is asked there, and nothing said.
    fn is_quiet(&self) -> Result<()> {
        for pattern in
            ["ARP, Request who-has", "IP 192.0.2.11", "IP6 2001:db8:2::11", "type 3", "destination unreachable"]
        {
            self.0.never(pattern)?;
        }
        ensure!(self.0.seen().iter().all(|packet| error(packet).is_none()));
        Ok(())
    }
}

/// A guest whose neighbours know it.
fn guest(site: &Site) -> Result<Guest> {
    let guest = site.node.guest("tap0", WEB1)?;
    guest.ping(OUTSIDE)?;
    guest.ping(OUTSIDE6)?;
    Ok(guest)
}

fn too_big_for_the_uplink() -> Result<()> {
    let site = Site::new()?;
    let guest = guest(&site)?;
    let elsewhere = Elsewhere::of(&site)?;
    site.node.netns.ip("link set eth1 mtu 1400")?;
    for (to, kind, code) in [(OUTSIDE, 3, 4), (OUTSIDE6, 2, 0)] {
        let packet = echo(WEB1.address_like(to), to, 0x5eed, 1450);
        guest.send_packet(&packet)?;
        let (_, found) = expect_about(&guest.seen, &packet, WEB1.address_like(to))?;
        ensure!(found == Error { kind, code, number: 1400 }, "{found:?}");
        let fits = echo(WEB1.address_like(to), to, 0x5eee, 1400);
        guest.send_packet(&fits)?;
        guest.seen.expect("echo reply id 24302 seq 1")?;
    }
    elsewhere.is_quiet()
}

fn too_big_for_the_tap() -> Result<()> {
    let site = Site::new()?;
    let guest = guest(&site)?;
    let elsewhere = Elsewhere::of(&site)?;
    let wire = site.node.wire()?;
    site.node.netns.ip("link set tap0 mtu 1300")?;
    for (from, kind, code) in [(OUTSIDE, 3, 4), (OUTSIDE6, 2, 0)] {
        let to = WEB1.address_like(from);
        let packet = echo(from, to, 0x5eed, 1450);
        send_from_router(&site, &packet)?;
        let (_, found) = expect_about(&wire, &packet, from)?;
        ensure!(found == Error { kind, code, number: 1300 }, "{found:?}");
    }
    elsewhere.is_quiet()?;
    drop(guest);
    Ok(())
}

/// Puts a packet on the wire to the node, as the router would.
fn send_from_router(site: &Site, packet: &[u8]) -> Result<()> {
    let ether_type = if packet[0] >> 4 == 4 { frame::IPV4 } else { frame::IPV6 };
    let port = crate::harness::port::Port::packet(&site.router, "node1", false)?;
    let frame = frame::ethernet(site.node.uplink_mac(), crate::harness::topology::GATEWAY_MAC, ether_type, packet);
    port.send(&frame)
}

fn time_exceeded() -> Result<()> {
    let site = Site::new()?;
    let guest = guest(&site)?;
    let elsewhere = Elsewhere::of(&site)?;
    let wire = site.node.wire()?;
    for (outside, kind) in [(OUTSIDE, 11), (OUTSIDE6, 3)] {
        let own = WEB1.address_like(outside);
        let packet = with_hops(echo(own, outside, 0x5eed, 100), 1);
        guest.send_packet(&packet)?;
        let (_, found) = expect_about(&guest.seen, &packet, own)?;
        ensure!((found.kind, found.code) == (kind, 0), "{found:?}");
        let packet = with_hops(echo(outside, own, 0x5eed, 100), 1);
        send_from_router(&site, &packet)?;
        let (_, found) = expect_about(&wire, &packet, outside)?;
        ensure!((found.kind, found.code) == (kind, 0), "{found:?}");
    }
    elsewhere.is_quiet()
}

/// A gateway that does not answer, a guest that does not, an uplink without a carrier, an uplink that is down.
fn unreachable() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = guest(&site)?;
    // A guest that is silent: nobody holds its card's other end.
    let silent = Netns::new()?;
    netns.ip(&format!("link add tap1 type veth peer name card netns {}", silent.path()))?;
    silent.set_sysctl("ipv6/conf/all/disable_ipv6", "1")?;
    silent.ip("link set card arp off up")?;
    site.node.nic("tap1", WEB2).set("NETWORK_TAGS", "").ifup()?.succeeds()?;
    let elsewhere = Elsewhere::of(&site)?;
    let wire = site.node.wire()?;
    for (outside, kind, code) in [(OUTSIDE, 3, 1), (OUTSIDE6, 1, 3)] {
        let packet = echo(outside, WEB2.address_like(outside), 0x5eed, 100);
        send_from_router(&site, &packet)?;
        let (_, found) = expect_about(&wire, &packet, outside)?;
        ensure!((found.kind, found.code) == (kind, code), "of a silent guest: {found:?}");
        // And between guests.
        let packet = echo(WEB1.address_like(outside), WEB2.address_like(outside), 0x5eee, 100);
        guest.send_packet(&packet)?;
        let (_, found) = expect_about(&guest.seen, &packet, WEB1.address_like(outside))?;
        ensure!((found.kind, found.code) == (kind, code), "between guests: {found:?}");
    }
    let answers = |id: u16, codes: [(u8, u8); 2], what: &str| -> Result<()> {
        for (outside, expected) in [OUTSIDE, OUTSIDE6].into_iter().zip(codes) {
            let packet = echo(WEB1.address_like(outside), outside, id, 100);
            guest.send_packet(&packet)?;
            let (_, found) =
                expect_about(&guest.seen, &packet, WEB1.address_like(outside)).with_context(|| what.to_owned())?;
            ensure!((found.kind, found.code) == expected, "{what}: {found:?}");
        }
        Ok(())
    };
    netns.ip("link set eth1 down")?;
    answers(0x5ef1, [(3, 1), (1, 0)], "the uplink is down")?;
    elsewhere.is_quiet()
}

/// A real stack sends a megabyte by TCP through an uplink with a smaller MTU than it thinks.
fn a_whole_upload_through_a_smaller_uplink() -> Result<()> {
    const LENGTH: usize = 1_000_000;
    let site = Site::new()?;
    let machine = Netns::new()?;
    machine.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
    site.node.netns.ip(&format!("link add tap0 type veth peer name eth0 netns {}", machine.path()))?;
    site.node.nic("tap0", WEB1).ifup()?.succeeds()?;
    machine.ip_batch(&format!(
        "link set eth0 address {mac} up\n\
         addr add {ip}/24 dev eth0\n\
         addr add {ip6}/64 dev eth0 nodad\n\
         route add default via {GATEWAY}\n\
         -6 route add default via {link} dev eth0\n\
         -6 neigh add {GATEWAY6} lladdr {TAP_MAC} dev eth0\n",
        mac = WEB1.mac,
        ip = WEB1.ip,
        ip6 = WEB1.ip6,
        link = TAP_MAC.link_local(),
    ))?;
    site.node.netns.ip("link set eth1 mtu 1400")?;
    for address in [OUTSIDE, OUTSIDE6] {
        let listener = site.router.run(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
        let to = listener.local_addr()?;
        let received = thread::spawn(move || -> Result<usize> {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(crate::harness::patience()))?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            ensure!(all.iter().all(|it| *it == 7));
            Ok(all.len())
        });
        let mut stream = machine.run(|| TcpStream::connect_timeout(&to, crate::harness::patience()))?;
        stream.set_write_timeout(Some(crate::harness::patience()))?;
        stream.write_all(&vec![7; LENGTH]).with_context(|| format!("upload to {to}"))?;
        stream.shutdown(Shutdown::Write)?;
        let received = received.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
        ensure!(received == LENGTH, "{received} bytes arrived at {to}");
    }
    Ok(())
}

/// A guest sees its gateway in a traceroute, and the outside an address of the guests' network.
fn under_the_gateways_address() -> Result<()> {
    let site = Site::new()?;
    let guest = guest(&site)?;
    let wire = site.node.wire()?;
    for (outside, gateway) in [(OUTSIDE, GATEWAY), (OUTSIDE6, GATEWAY6)] {
        let packet = with_hops(echo(WEB1.address_like(outside), outside, 0x5eed, 100), 1);
        guest.send_packet(&packet)?;
        let (from, _) = expect_about(&guest.seen, &packet, WEB1.address_like(outside))?;
        ensure!(from == gateway, "{from}");
    }
    let packet = with_hops(echo(OUTSIDE, WEB1.ip.into(), 0x5eed, 100), 1);
    send_from_router(&site, &packet)?;
    let (from, _) = expect_about(&wire, &packet, OUTSIDE)?;
    ensure!(from == IpAddr::V4(ARP_IP), "{from}");
    // An address that the uplink itself has stays.
    site.node.netns.ip("addr add 10.0.0.200/24 dev eth1 noprefixroute")?;
    let packet = frame::udp((GATEWAY, 7), ("10.0.0.200".parse()?, 9), b"closed");
    send_from_router(&site, &packet)?;
    let (from, found) = expect_about(&wire, &packet, GATEWAY)?;
    ensure!(from == IpAddr::V4("10.0.0.200".parse()?) && (found.kind, found.code) == (3, 3), "{from} {found:?}");
    Ok(())
}

/// Others that mark packets on their way are not disturbed, and see no bit of ours.
fn not_by_the_mark_of_others() -> Result<()> {
    let site = Site::new()?;
    let netns = &site.node.netns;
    let guest = guest(&site)?;
    let nft = |text: &str| netns.fed(std::process::Command::new("nft").args(["-f", "-"]), text);
    nft("table inet others {
            counter wrong { }
            chain forwarded {
                type filter hook forward priority -150; policy accept;
                meta mark != 0 counter name wrong
                meta mark set 1
            }
            chain leaving {
                type filter hook postrouting priority 400; policy accept;
                icmp type { echo-request, echo-reply } meta mark != 1 counter name wrong
                icmpv6 type { echo-request, echo-reply } meta mark != 1 counter name wrong
            }
         }")?;
    for to in [OUTSIDE, OUTSIDE6] {
        guest.ping(to)?;
    }
    let counter =
        netns.output(std::process::Command::new("nft").args(["list", "counter", "inet", "others", "wrong"]))?;
    ensure!(counter.contains("packets 0 "), "{counter}");
    Ok(())
}
