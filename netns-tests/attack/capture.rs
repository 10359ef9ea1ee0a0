//! Sends frames over a [`Ground`] and says what became of them.

use std::io::ErrorKind;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::context::{ATTACKER, ROUTER, STRANGER, VICTIM};
use super::testbed::Ground;
use crate::harness::frame::{self, ARP, IPV4, IPV6, Mac};
use crate::harness::port::Port;
use crate::harness::topology::{OUTSIDE, OUTSIDE6};
use crate::harness::until;

/// What became of a row's frames, a letter each, in this order:
///
/// - `V` the victim, `U` what is behind the uplink, `B` the bridge's own device, `S` the stranger, `M` the management
///   network: it received all of them;
/// - `H` the node's listening socket received one;
/// - `A` the node answered the attacker by ARP or neighbour discovery;
/// - `T` theft: a neighbour's next frame to another one arrives at the attacker;
/// - `N` the node believes another MAC for a neighbour than before, or an address of another's on the attacker's TAP;
/// - `R` the node would send another way than before.
pub type Seen = String;

impl Ground {
    /// Sends a row's frames from the attacker, and looks everywhere.
    pub fn attack(&self, frames: &[Vec<u8>]) -> Result<Seen> {
        if self.bridge.is_some() {
            self.teach()?;
        } else {
            self.restore_neighbours()?;
        }
        let routes = self.routes()?;
        self.empty();
        // The TAP refuses some; they arrive nowhere.
        for frame in frames {
            let _refused = self.attacker.send(frame);
        }
        let mut seen = self.arrived(frames);
        if self.attacker.drain().iter().any(|frame| is_answer(frame)) {
            seen.push('A');
        }
        if self.bridge.is_some() && self.theft()? {
            seen.push('T');
        }
        if self.neighbours_changed()? {
            seen.push('N');
            self.restore_neighbours()?;
        }
        if self.routes()? != routes {
            seen.push('R');
            self.node.netns.ip_batch("route flush cache\n-6 route flush cache\n-6 route flush proto ra\n")?;
        }
        Ok(seen)
    }

    /// By which way the node would send: to the outside of both families, and to where only a default route leads.
    fn routes(&self) -> Result<Vec<String>> {
        let batch = format!("route get {OUTSIDE}\nroute get {OUTSIDE6}\nroute get 2001:db8:dead::1\n");
        let text = self.node.netns.fed(Command::new("ip").args(["-batch", "-"]), &batch)?;
        let way = |line: &str| line.split_once(" src ").map(|(way, _)| way.to_owned());
        let mtu = |line: &str| line.split_once(" mtu ").map(|(_, mtu)| mtu.trim().to_owned());
        Ok(text.lines().flat_map(|line| way(line).into_iter().chain(mtu(line))).collect())
    }

    /// Forgets what has arrived anywhere.
    pub fn empty(&self) {
        for (_, port) in self.ports() {
            port.drain();
        }
        self.attacker.drain();
        while self.heard() {}
    }

    fn heard(&self) -> bool {
        let mut buffer = [0; 64];
        match self.listener.recv_from(&mut buffer) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }

    fn ports(&self) -> impl Iterator<Item = (char, &Port)> {
        let ports = [
            ('V', Some(&self.victim)),
            ('U', Some(&self.uplink)),
            ('B', self.bridge.as_ref()),
            ('S', self.stranger.as_ref()),
            ('M', self.management.as_ref()),
        ];
        ports.into_iter().filter_map(|(letter, port)| Some((letter, port?)))
    }

    /// Where all of the frames arrived since the last look.
    pub fn arrived(&self, frames: &[Vec<u8>]) -> Seen {
        self.arrived_with(frames, Vec::new())
    }

    /// The same, once a later frame has reached the uplink.
    pub fn arrived_before(&self, later: &[u8], frames: &[Vec<u8>]) -> Result<Seen> {
        let mut there = Vec::new();
        until("a frame that must pass", || {
            there.extend(self.uplink.drain());
            Ok(there.iter().any(|it| holds(it, later)))
        })?;
        Ok(self.arrived_with(frames, there))
    }

    fn arrived_with(&self, frames: &[Vec<u8>], mut at_uplink: Vec<Vec<u8>>) -> Seen {
        let mut seen = Seen::new();
        for (letter, port) in self.ports() {
            let mut there = port.drain();
            if letter == 'U' {
                there.append(&mut at_uplink);
            }
            if frames.iter().all(|frame| there.iter().any(|it| holds(it, frame))) {
                seen.push(letter);
            }
        }
        if self.heard() {
            seen.push('H');
        }
        seen
    }

    /// Lets everybody send a frame, so that the bridge knows again where they are.
    pub fn teach(&self) -> Result<()> {
        for (port, id) in [(&self.attacker, ATTACKER), (&self.victim, VICTIM), (&self.uplink, ROUTER)]
            .into_iter()
            .chain(self.stranger.as_ref().map(|port| (port, STRANGER)))
        {
            let announcement = frame::arp(1, (id.mac, id.ip), (Mac::ZERO, id.ip));
            port.send(&frame::ethernet(Mac::BROADCAST, id.mac, ARP, &announcement))?;
        }
        Ok(())
    }

    /// Does what another station behind the uplink sends to the victim and to the gateway arrive at the attacker?
    pub fn theft(&self) -> Result<bool> {
        let sent = [VICTIM, ROUTER].map(|to| {
            let echo = frame::echo_request(BYSTANDER.1.into(), to.ip.into(), 0x7e47, 1);
            frame::ethernet(to.mac, BYSTANDER.0, IPV4, &echo)
        });
        for frame in &sent {
            self.uplink.send(frame)?;
        }
        let stolen = self.attacker.drain();
        Ok(sent.iter().any(|frame| stolen.iter().any(|it| holds(it, frame))))
    }

    fn known(&self) -> [(std::net::IpAddr, Mac); 4] {
        let [a, b] = ROUTER.addresses();
        let [c, d] = VICTIM.addresses();
        [(a, ROUTER.mac), (b, ROUTER.mac), (c, VICTIM.mac), (d, VICTIM.mac)]
    }

    fn neighbours_changed(&self) -> Result<bool> {
        let text = self.node.netns.ip("neigh show")?;
        let entries = || text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        if self.bridge.is_some() {
            let wrong = |words: &[&str]| {
                let mac = words.iter().skip_while(|word| **word != "lladdr").nth(1);
                self.known()
                    .iter()
                    .any(|(ip, own)| words[0] == ip.to_string() && mac != Some(&own.to_string().as_str()))
            };
            return Ok(entries().any(|words| wrong(&words)));
        }
        let me = self.context.me;
        let own =
            [me.ip.to_string(), me.ip6.to_string(), me.mac.link_local().to_string(), self.context.private.to_string()];
        Ok(entries().any(|words| {
            words.get(1..3) == Some(&["dev", "tap0"])
                && words.contains(&"lladdr")
                && !own.iter().any(|address| address == words[0])
        }))
    }

    /// Puts back what the node knows of its neighbours.
    pub fn restore_neighbours(&self) -> Result<()> {
        if self.bridge.is_none() {
            return self.node.netns.ip("neigh flush dev tap0").map(drop);
        }
        let own = (ATTACKER.ip.into(), ATTACKER.mac);
        let lines = self
            .known()
            .into_iter()
            .chain([own])
            .map(|(ip, mac)| format!("neigh replace {ip} lladdr {mac} dev br0 nud stale\n"));
        self.node.netns.ip_batch(&lines.collect::<String>())?;
        // The kernel does not overwrite an entry in the jiffy in which it was written.
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }
}

/// A station behind the uplink, whose MAC nobody forges: by sending, it does not put right where others are.
const BYSTANDER: (Mac, std::net::Ipv4Addr) = (Mac([0xaa, 0x55, 0x6d, 0, 0, 5]), std::net::Ipv4Addr::new(10, 0, 0, 5));

/// Is what was sent in what was seen? Tags may be gone, and a router writes new Ethernet addresses and another hop limit.
pub fn holds(seen: &[u8], sent: &[u8]) -> bool {
    let essence = essence(sent);
    seen.windows(essence.len()).any(|window| window == essence)
}

/// Of a packet, what is from its source address on; of other frames, what is from their type on; of very short ones all.
fn essence(frame: &[u8]) -> &[u8] {
    let kind = |at: usize| frame.get(at..at + 2).map(|it| u16::from_be_bytes([it[0], it[1]]));
    let mut at = 12;
    while matches!(kind(at), Some(0x8100 | 0x88a8)) {
        at += 4;
    }
    let from = match kind(at) {
        Some(IPV4) => at + 14,
        Some(IPV6) => at + 10,
        _ => at,
    };
    frame.get(from..).filter(|it| it.len() >= 8).unwrap_or(frame)
}

/// An ARP reply or a neighbour advertisement.
fn is_answer(frame: &[u8]) -> bool {
    let kind = frame.get(12..14);
    kind == Some(&ARP.to_be_bytes()) && frame.get(20..22) == Some(&[0, 2])
        || kind == Some(&IPV6.to_be_bytes()) && frame.get(54) == Some(&136)
}
