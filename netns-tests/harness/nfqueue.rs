//! A listener on a netfilter queue, where nfdhcpd sits (linux/netfilter/nfnetlink_queue.h).

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::frame::{self, IPV4, IPV6, Mac};
use super::netns::Netns;
use super::packet::Packet;
use super::patience;

/// NFNL_SUBSYS_QUEUE.
const SUBSYSTEM: u8 = 3;
/// NFQNL_MSG_PACKET, NFQNL_MSG_VERDICT, NFQNL_MSG_CONFIG.
const PACKET: u8 = 0;
const VERDICT: u8 = 1;
const CONFIG: u8 = 2;

/// Takes the packets of a queue and drops them, as nfdhcpd does with what it answers.
pub struct Queue {
    socket: Socket,
    number: u16,
    seen: Vec<(u32, Packet)>,
}

impl Queue {
    /// Sends DHCP, router and neighbour solicitations from all interfaces but the uplink to queue 42, as nfdhcpd's
    /// documentation does, and listens there.
    pub fn of_nfdhcpd(netns: &Netns) -> Result<Self> {
        let queue = Self::listen(netns, 42)?;
        let to_queue = "-j NFQUEUE --queue-num 42";
        netns.iptables(&format!("-t mangle -A PREROUTING -p udp -m udp --dport 67 {to_queue}"))?;
        for kind in ["router-solicitation", "neighbour-solicitation"] {
            netns.ip6tables(&format!(
                "-t mangle -A PREROUTING ! -i eth1 -p ipv6-icmp --icmpv6-type {kind} {to_queue}"
            ))?;
        }
        Ok(queue)
    }

    /// Listens on a queue.
    pub fn listen(netns: &Netns, number: u16) -> Result<Self> {
        let socket = netns.run(|| -> Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        })?;
        let queue = Self { socket, number, seen: Vec::new() };
        // NFQNL_CFG_CMD_BIND; then NFQNL_COPY_PACKET of up to 65535 bytes.
        queue.send(CONFIG, &[attribute(1, &[1, 0, 0, 0])])?;
        queue.send(CONFIG, &[attribute(2, &[0, 0, 0xff, 0xff, 2])])?;
        Ok(queue)
    }

    /// The first packet whose text holds `pattern`, and the index of the interface it came by.
    ///
    /// # Errors
    /// If none comes in time; the error lists what did.
    pub fn expect(&mut self, pattern: &str) -> Result<(u32, Packet)> {
        let deadline = Instant::now() + patience();
        loop {
            if let Some(found) = self.seen.iter().find(|(_, packet)| packet.matches(pattern)) {
                return Ok(found.clone());
            }
            if Instant::now() > deadline {
                let seen: Vec<_> = self.seen.iter().map(|(_, packet)| packet.to_string()).collect();
                bail!("queue {}: no {pattern:?} among {seen:#?}", self.number);
            }
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => self.take(&bytes)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(2)),
                Err(error) => return Err(error).context("queue"),
            }
        }
    }

    /// One message of the queue: a packet, to be dropped.
    fn take(&mut self, message: &[u8]) -> Result<()> {
        ensure!(message.get(4..6) != Some(&[2, 0]), "queue: error message {message:?}");
        if message.get(4..6) != Some(&[PACKET, SUBSYSTEM]) {
            return Ok(());
        }
        let id = find(message, 1).and_then(|header| header.get(..4)).context("queue: a packet without its number")?;
        // NFQA_VERDICT_HDR with NF_DROP.
        self.send(VERDICT, &[attribute(2, &[&[0; 4], id].concat())])?;
        let index = find(message, 5).and_then(|index| index.try_into().ok()).map_or(0, u32::from_be_bytes);
        let source = find(message, 9).and_then(|hw| hw.get(4..10)?.try_into().ok()).map_or(Mac::ZERO, Mac);
        let payload = find(message, 10).unwrap_or_default();
        let ether_type = if payload.first().is_some_and(|byte| byte >> 4 == 4) { IPV4 } else { IPV6 };
        let frame = frame::ethernet(Mac::ZERO, source, ether_type, payload);
        self.seen.extend(Packet::decode(&frame).map(|packet| (index, packet)));
        Ok(())
    }

    fn send(&self, kind: u8, attributes: &[Vec<u8>]) -> Result<()> {
        let body = [vec![0, 0], self.number.to_be_bytes().to_vec(), attributes.concat()].concat();
        let length = u32::try_from(16 + body.len())?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend([kind, SUBSYSTEM, 1, 0]);
        message.extend([0; 8]);
        message.extend(body);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0).context("queue")?;
        Ok(())
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of an attribute of a message, behind nlmsghdr and nfgenmsg.
fn find(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut at = 20;
    loop {
        let length = usize::from(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(message.get(at + 2..at + 4)?.try_into().ok()?) & 0x3fff;
        let value = message.get(at + 4..at + length)?;
        if kind == wanted {
            return Some(value);
        }
        at += length.next_multiple_of(4);
    }
}
