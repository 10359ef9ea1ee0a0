//! QEMU as the caller: its -netdev tap runs the program as script and downscript, and what boots is a real guest, the network
//! boot (iPXE) of the card's ROM.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::harness::build::executable;
use crate::harness::card::Card;
use crate::harness::frame::{self, IPV4, Mac};
use crate::harness::guest::WEB1;
use crate::harness::nic::Nic;
use crate::harness::packet::{Content, Packet, Payload};
use crate::harness::port::{Capture, Port};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{GATEWAY, GATEWAY_MAC, Node, OUTSIDE, Site, TAP_MAC};
use crate::harness::{Skip, until};

pub const TESTS: &[Test] = &[
    ("qemu::a_filtered_guest_boots", a_filtered_guest_boots),
    ("qemu::a_routed_guest_boots", a_routed_guest_boots),
    ("qemu::a_guest_with_a_foreign_mac", a_guest_with_a_foreign_mac),
    ("qemu::a_failure_ends_qemu", a_failure_ends_qemu),
];

const QEMU: &str = "qemu-system-x86_64";
/// DHCPDISCOVER, DHCPOFFER and DHCPACK (RFC 2132, section 9.6).
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const ACK: u8 = 5;

/// QEMU with one card, `mac`, behind tap0; links of these names are its scripts.
fn qemu(node: &Node, mac: Mac) -> Result<Command> {
    if Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_err() {
        return Err(Skip(format!("{QEMU} cannot be run (Debian's package qemu-system-x86)")).into());
    }
    let script = |name: &str| -> Result<String> {
        let link = node.files.folder.join(name);
        symlink(executable(), &link).with_context(|| link.display().to_string())?;
        Ok(link.display().to_string())
    };
    let (up, down) = (script("kvm-ifup-custom")?, script("kvm-ifdown-custom")?);
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none", "-no-reboot", "-boot", "n"])
        .args(["-netdev", &format!("tap,id=nic,ifname=tap0,script={up},downscript={down}")])
        .args(["-device", &format!("virtio-net-pci,netdev=nic,mac={mac}"), "-monitor", "stdio"]);
    Ok(command)
}

/// A NIC as QEMU's environment has it, which names no interface: the script's argument does.
fn described(nic: Nic<'_>) -> Nic<'_> {
    nic.unset(&["INTERFACE"])
}

/// A running virtual machine.
struct Machine(Child);

impl Machine {
    fn start(node: &Node, nic: &Nic, mac: Mac) -> Result<Self> {
        let mut command = qemu(node, mac)?;
        node.files.environment(&mut command).envs(nic.variables());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Self(node.netns.run(|| command.spawn()).context(QEMU)?))
    }

    /// Lets it end by itself.
    fn quit(mut self) -> Result<()> {
        self.0.stdin.take().context("QEMU's monitor")?.write_all(b"quit\n")?;
        until("QEMU to end", || Ok(self.0.try_wait()?.is_some()))?;
        let mut errors = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().context("QEMU's errors")?, &mut errors)?;
        ensure!(self.0.wait()?.success() && errors.is_empty(), "{QEMU}: {errors}");
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of DHCP that has an address for WEB1, and a file that it names. It is a router, too, as the network boot goes on only
/// when it has waited for one.
#[derive(Clone, Copy)]
struct Server {
    mac: Mac,
    ip: Ipv4Addr,
    /// Who has the file.
    next: Ipv4Addr,
}

impl Server {
    fn answer(&self, packet: &Packet) -> Option<Vec<u8>> {
        match &packet.content {
            Content::Ipv4(_, _, _, Payload::Udp(68, 67, question)) => self.lease(question),
            Content::Ipv6(_, _, _, Payload::Icmpv6("router solicitation")) => {
                Some(frame::router_advertisement(self.mac, self.mac.link_local()))
            }
            _ => None,
        }
    }

    fn lease(&self, question: &[u8]) -> Option<Vec<u8>> {
        let kind = if message_type(question)? == DISCOVER { OFFER } else { ACK };
        // RFC 2131, section 2: op, htype, hlen, hops, xid, secs, flags; four addresses; chaddr, sname, file.
        let mut bytes = vec![2, 1, 6, 0];
        bytes.extend(question.get(4..12)?);
        for address in [Ipv4Addr::UNSPECIFIED, WEB1.ip, self.next, Ipv4Addr::UNSPECIFIED] {
            bytes.extend(address.octets());
        }
        bytes.extend(question.get(28..44)?);
        bytes.resize(44 + 64, 0);
        bytes.extend(b"kernel");
        bytes.resize(44 + 64 + 128, 0);
        bytes.extend([99, 130, 83, 99, 53, 1, kind, 51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 255, 0]);
        for option in [54, 3] {
            bytes.extend([option, 4]);
            bytes.extend(self.ip.octets());
        }
        bytes.push(255);
        bytes.resize(300, 0);
        let packet = frame::udp((self.ip.into(), 67), (Ipv4Addr::BROADCAST.into(), 68), &bytes);
        Some(frame::ethernet(WEB1.mac, self.mac, IPV4, &packet))
    }
}

/// The value of option 53 (RFC 2132, section 9.6) of a message, whose options begin behind the cookie.
fn message_type(message: &[u8]) -> Option<u8> {
    let mut options = message.get(240..)?;
    loop {
        options = match options {
            [53, 1, kind, ..] => return Some(*kind),
            [0, rest @ ..] => rest,
            [_, length, rest @ ..] => rest.get(usize::from(*length)..)?,
            _ => return None,
        };
    }
}

/// A node with bridge br0 and on it the port `outer`.
fn bridge() -> Result<Node> {
    let node = Node::alone()?;
    node.netns.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
    node.netns.ip_batch("link add br0 type bridge mcast_snooping 0\nlink set br0 up addrgenmode none\n")?;
    Ok(node)
}

const JOIN: &str = "link set outer up master br0 addrgenmode none";

fn filtered(node: &Node) -> Nic<'_> {
    let nic = described(node.nic("tap0", WEB1)).bridged("br0").set("NETWORK_MAC_PREFIX", "aa:00:00");
    nic.set("NETWORK_TAGS", "private-filtered strict-filtered")
}

fn a_filtered_guest_boots() -> Result<()> {
    let node = bridge()?;
    let port = Arc::new(Port::tap(&node.netns, "outer")?);
    let server = Server { mac: Mac([0xaa, 0, 0, 0, 0, 0x77]), ip: "10.0.0.77".parse()?, next: "10.0.0.78".parse()? };
    let outside = Capture::of(port, "outer", move |packet| server.answer(packet))?;
    node.netns.ip(JOIN)?;
    let before = Snapshot::of(&node.netns)?;
    let machine = Machine::start(&node, &filtered(&node), WEB1.mac)?;
    // Only with an answer has it an address to ask from, and a question.
    outside.expect(&format!("{} > {} IP 0.0.0.0 > 255.255.255.255: UDP 68 > 67", WEB1.mac, Mac::BROADCAST))?;
    outside.expect(&format!("{} > {} ARP, Request who-has {} tell 10.0.0.2", WEB1.mac, Mac::BROADCAST, server.next))?;
    machine.quit()?;
    nothing_is_left(&node, &before)
}

fn a_routed_guest_boots() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let before = Snapshot::of(netns)?;
    let wire = site.wire()?;
    let machine = Machine::start(node, &described(node.nic("tap0", WEB1)), WEB1.mac)?;
    until("the TAP", || Ok(netns.ip("link show dev tap0").is_ok()))?;
    // In nfdhcpd's place: what it hears comes before any filter, and what it says goes straight into the TAP.
    let std::net::IpAddr::V4(next) = OUTSIDE else { anyhow::bail!("{OUTSIDE} is no IPv4 address") };
    let std::net::IpAddr::V4(gateway) = GATEWAY else { anyhow::bail!("{GATEWAY} is no IPv4 address") };
    let nfdhcpd = Server { mac: TAP_MAC, ip: gateway, next };
    let tap = Arc::new(Port::packet(netns, "tap0", false)?);
    let heard = Capture::of(tap, "tap0", move |packet| nfdhcpd.answer(packet))?;
    heard.expect(&format!("{} > {} ARP, Request who-has {GATEWAY} tell {}", WEB1.mac, Mac::BROADCAST, WEB1.ip))?;
    // It asks the server for the file, by way of the node and the router, which has no such server.
    wire.expect(&format!("{} > {GATEWAY_MAC} IP {} > {OUTSIDE}: UDP", node.uplink_mac(), WEB1.ip))?;
    wire.expect(&format!("{GATEWAY_MAC} > {} IP {OUTSIDE} > {}: protocol 1 type 3", node.uplink_mac(), WEB1.ip))?;
    wire.expect(&format!("ARP, Request who-has {ip} tell {ip}", ip = WEB1.ip))?;
    wire.never("IP 0.0.0.0 >")?;
    machine.quit()?;
    nothing_is_left(node, &before)
}

fn a_guest_with_a_foreign_mac() -> Result<()> {
    let node = bridge()?;
    let netns = &node.netns;
    let [outside, beside] = [Card::plug(netns, "outer")?, Card::plug(netns, "beside")?];
    netns.ip(JOIN)?;
    netns.ip("link set beside up master br0 addrgenmode none")?;
    let before = Snapshot::of(netns)?;
    let foreign = Mac([0xaa, 0, 0, 0x12, 0x34, 0x58]);
    let machine = Machine::start(&node, &filtered(&node), foreign)?;
    until("the TAP", || Ok(netns.ip("link show dev tap0").is_ok()))?;
    let tap = Capture::on(netns, "tap0")?;
    tap.expect(&format!("{foreign} > {} IP 0.0.0.0 > 255.255.255.255: UDP 68 > 67", Mac::BROADCAST))?;
    // What is sent later arrives; the guest's frame never does.
    let number = beside.send(None)?;
    ensure!(outside.arrived(netns)?.contains_key(&number), "the bridge forwards nothing");
    outside.capture().never(&foreign.to_string())?;
    machine.quit()?;
    drop(tap);
    nothing_is_left(&node, &before)
}

fn a_failure_ends_qemu() -> Result<()> {
    let node = bridge()?;
    let before = Snapshot::of(&node.netns)?;
    let nic = filtered(&node).set("LINK", "br9").set("BRIDGE", "br9");
    let outcome = nic.finish(&mut qemu(&node, WEB1.mac)?)?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    let ours: Vec<_> = outcome.stderr.lines().filter(|line| line.starts_with("kvm-ifup-custom tap0: ")).collect();
    ensure!(ours == ["kvm-ifup-custom tap0: LINK or BRIDGE: \"br9\": there is no such bridge"], "{outcome:?}");
    before.returns_in(&node.netns, |state| state)
}

fn nothing_is_left(node: &Node, before: &Snapshot) -> Result<()> {
    before.returns_in(&node.netns, Snapshot::without_base_tables)?;
    ensure!(!node.files.state().join("tap0").exists(), "the record is still there");
    let log = fs::read_to_string(node.files.log())?;
    ensure!(log.contains(" kvm-ifdown-custom tap0 web1.example.org: "), "{log}");
    Ok(())
}
