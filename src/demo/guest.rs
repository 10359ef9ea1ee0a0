//! A small guest: its own ARP, neighbour discovery, ICMP and UDP echo over a [`GuestPort`], with nothing of the
//! kernel's stack, so that what it sends and believes is exactly what stands here.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::Ipv6Net;
use nix::libc;

use crate::addr::{Family, Mac};
use crate::frame::{
    ALL_NODES, Arp, ArpOperation, BROADCAST, Echo, Frame, Ip, Message, NDP_HOP_LIMIT, NeighbourAdvertisement, Packet,
    multicast_mac, solicited_node,
};
use crate::kernel::guest_port::GuestPort;
pub use crate::kernel::packet::Direction;

/// The UDP port at which a guest echoes (RFC 862).
pub const ECHO_PORT: u16 = 7;

/// The UDP port from which a guest asks.
const CLIENT_PORT: u16 = 49_152;

/// The identifier of a guest's echo requests.
const ECHO_ID: u16 = 1;

/// Hop limit of what is no neighbour discovery.
const HOP_LIMIT: u8 = 64;

/// Before a question is asked again (RFC 4861, RETRANS_TIMER, is 1 s; a demo has no such patience).
const RETRANSMIT: Duration = Duration::from_millis(500);

/// How soon [`Guest::serve`] sees that it should stop.
const STOP_POLL: Duration = Duration::from_millis(20);

/// How many of the last frames are kept.
const TRACE: usize = 1000;

/// One of a guest's addresses and the router it uses from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The guest's own.
    pub address: IpAddr,
    /// Through whom everything goes: the guest regards nothing else as being on its link.
    pub gateway: IpAddr,
}

/// A guest, one thread's at a time: whatever it waits for, it answers in passing what others ask of it.
#[derive(Debug)]
pub struct Guest {
    port: GuestPort,
    mac: Mac,
    addresses: Vec<Address>,
    neighbours: HashMap<IpAddr, Mac>,
    sequence: u16,
    trace: VecDeque<(Direction, Frame)>,
}

/// Whether the node's end of the interface is down (a TAP says EIO, a packet socket ENETDOWN).
fn is_down(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref().and_then(io::Error::raw_os_error);
    matches!(errno, Some(libc::EIO | libc::ENETDOWN))
}

/// Who an address was said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its Ethernet address.
    pub mac: Mac,
    /// The ARP reply or advertisement that said so.
    pub frame: Frame,
}

impl Guest {
    /// A guest with these addresses; it has a link-local one, too.
    pub fn new(port: GuestPort, mac: Mac, addresses: Vec<Address>) -> Self {
        Self { port, mac, addresses, neighbours: HashMap::new(), sequence: 0, trace: VecDeque::new() }
    }

    /// Its MAC.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its address of a family, with the gateway.
    ///
    /// # Errors
    /// If it has none.
    pub fn address(&self, family: Family) -> Result<Address> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|own| Family::of(own.address) == family).with_context(|| format!("the guest has no {family}"))
    }

    /// The link-local address of its MAC.
    ///
    /// # Errors
    /// None in practice: fe80::/64 is a /64.
    pub fn link_local(&self) -> Result<Ipv6Addr> {
        self.mac.eui64(Ipv6Net::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64)?)
    }

    /// The frames it sent and received since the last call, the oldest first; what cannot be parsed is not among them.
    pub fn take_trace(&mut self) -> Vec<(Direction, Frame)> {
        self.trace.drain(..).collect()
    }

    /// Forgets who its neighbours are.
    pub fn forget_neighbours(&mut self) {
        self.neighbours.clear();
    }

    /// Asks who has `target`, by ARP or a neighbour solicitation to its group, and returns what was answered.
    ///
    /// # Errors
    /// If it has no address of that family to ask from, or the port fails.
    pub fn resolve(&mut self, target: IpAddr, deadline: Instant) -> Result<Option<Resolved>> {
        let question = self.who_has(target)?;
        let answer = self.ask(&question, deadline, |frame| {
            frame.announces(target).map(|mac| Resolved { mac, frame: frame.clone() })
        })?;
        if let Some(Resolved { mac, .. }) = answer {
            self.neighbours.insert(target, mac);
        }
        Ok(answer)
    }

    /// Sends an echo request through the gateway and returns the reply.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn ping(&mut self, destination: IpAddr, deadline: Instant) -> Result<Option<Frame>> {
        let source = self.address(Family::of(destination))?.address;
        let Some(request) = self.echo_request(source, destination, deadline)? else { return Ok(None) };
        let wanted = self.sequence;
        self.ask(&request, deadline, |frame| match &frame.packet {
            Packet::Ip(Ip { source: from, destination: to, message: Message::Echo(echo), .. }) => {
                let ours = echo.reply && echo.id == ECHO_ID && echo.sequence == wanted;
                (ours && *from == destination && *to == source).then(|| frame.clone())
            }
            _ => None,
        })
    }

    /// Sends an echo request from a source address that is not the guest's, through the gateway, and returns it.
    ///
    /// # Errors
    /// As [`Self::resolve`], and if the gateway does not answer.
    pub fn send_spoofed(&mut self, source: IpAddr, destination: IpAddr, deadline: Instant) -> Result<Frame> {
        let frame = self.echo_request(source, destination, deadline)?.context("the gateway did not answer")?;
        self.send(&frame)?;
        Ok(frame)
    }

    /// Sends a datagram to the echo port of `destination`, through the gateway, and returns what came back.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn udp_echo(&mut self, destination: IpAddr, data: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>> {
        let source = self.address(Family::of(destination))?.address;
        let message = Message::Udp { source_port: CLIENT_PORT, destination_port: ECHO_PORT, data: data.to_vec() };
        let Some(datagram) = self.by_gateway(source, destination, message, deadline)? else { return Ok(None) };
        self.ask(&datagram, deadline, |frame| match &frame.packet {
            Packet::Ip(Ip {
                source: from,
                destination: to,
                message: Message::Udp { source_port: ECHO_PORT, destination_port: CLIENT_PORT, data },
                ..
            }) => (*from == destination && *to == source).then(|| data.clone()),
            _ => None,
        })
    }

    /// Sends a frame just as it is: whatever a hostile guest can think of.
    ///
    /// # Errors
    /// If it cannot be encoded, or the port fails.
    pub fn send(&mut self, frame: &Frame) -> Result<()> {
        self.port.send(&frame.encode()?).with_context(|| format!("guest sends {frame}"))?;
        self.remember(Direction::Out, frame);
        Ok(())
    }

    /// Answers who-has, neighbour solicitations, echo requests and datagrams to the echo port until `stop`.
    ///
    /// # Errors
    /// If the port fails.
    pub fn serve(&mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.receive(Instant::now() + STOP_POLL)?;
        }
        Ok(())
    }

    /// The next frame for which `wanted` finds something, answering whatever is asked in passing; nothing is sent
    /// first.
    ///
    /// # Errors
    /// If the port fails.
    pub fn wait<T>(&mut self, deadline: Instant, mut wanted: impl FnMut(&Frame) -> Option<T>) -> Result<Option<T>> {
        loop {
            match self.receive(deadline)? {
                Some(frame) => {
                    if let found @ Some(_) = wanted(&frame) {
                        return Ok(found);
                    }
                }
                None if Instant::now() >= deadline => return Ok(None),
                None => {}
            }
        }
    }

    /// Sends a question, again from time to time, until `wanted` finds the answer.
    fn ask<T>(
        &mut self,
        question: &Frame,
        deadline: Instant,
        mut wanted: impl FnMut(&Frame) -> Option<T>,
    ) -> Result<Option<T>> {
        loop {
            self.send(question)?;
            let again = deadline.min(Instant::now() + RETRANSMIT);
            if let found @ Some(_) = self.wait(again, &mut wanted)? {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// One frame, answered if it asks something of us; nothing if none came, or one that cannot be parsed.
    fn receive(&mut self, deadline: Instant) -> Result<Option<Frame>> {
        let bytes = match self.port.recv(deadline) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => return Err(error).context("guest receives"),
        };
        let Ok(frame) = Frame::parse(&bytes) else { return Ok(None) };
        self.remember(Direction::In, &frame);
        if let Some(answer) = self.answer(&frame) {
            match self.send(&answer) {
                // The node took the interface down under us; who asked will not wait either.
                Err(error) if is_down(&error) => {}
                result => result?,
            }
        }
        Ok(Some(frame))
    }

    fn remember(&mut self, direction: Direction, frame: &Frame) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back((direction, frame.clone()));
    }

    fn owns(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.address == address)
            || self.link_local().is_ok_and(|own| IpAddr::V6(own) == address)
    }

    /// What this guest says to a frame.
    fn answer(&self, frame: &Frame) -> Option<Frame> {
        match &frame.packet {
            Packet::Arp(arp) if arp.operation == ArpOperation::Request && self.owns(arp.target.into()) => {
                let reply = Arp {
                    operation: ArpOperation::Reply,
                    sender_mac: self.mac,
                    sender: arp.target,
                    target_mac: arp.sender_mac,
                    target: arp.sender,
                };
                Some(self.frame(arp.sender_mac, Packet::Arp(reply)))
            }
            Packet::Ip(ip) => self.answer_ip(frame, ip),
            _ => None,
        }
    }

    fn answer_ip(&self, frame: &Frame, ip: &Ip) -> Option<Frame> {
        if let Message::NeighbourSolicitation { target, source_mac } = ip.message {
            let to_us = self.owns(target.into()) && ip.hop_limit == NDP_HOP_LIMIT;
            return to_us.then(|| self.advertise(target, ip.source, source_mac.unwrap_or(frame.source)));
        }
        if frame.destination != self.mac || !self.owns(ip.destination) {
            return None;
        }
        let message = match &ip.message {
            Message::Echo(echo) if !echo.reply => Message::Echo(Echo { reply: true, ..echo.clone() }),
            Message::Udp { source_port, destination_port: ECHO_PORT, data } => {
                Message::Udp { source_port: ECHO_PORT, destination_port: *source_port, data: data.clone() }
            }
            _ => return None,
        };
        let reply = Ip { source: ip.destination, destination: ip.source, hop_limit: HOP_LIMIT, message };
        Some(self.frame(frame.source, Packet::Ip(reply)))
    }

    /// The answer to a solicitation; one without a source address detects duplicates and is answered to all nodes
    /// (RFC 4861, section 7.2.4).
    fn advertise(&self, target: Ipv6Addr, asker: IpAddr, asker_mac: Mac) -> Frame {
        let (solicited, destination, mac) = if asker.is_unspecified() {
            (false, ALL_NODES.into(), multicast_mac(ALL_NODES))
        } else {
            (true, asker, asker_mac)
        };
        let message = Message::NeighbourAdvertisement(NeighbourAdvertisement {
            target,
            router: false,
            solicited,
            override_cache: true,
            target_mac: Some(self.mac),
        });
        self.frame(mac, Packet::Ip(Ip { source: target.into(), destination, hop_limit: NDP_HOP_LIMIT, message }))
    }

    fn frame(&self, destination: Mac, packet: Packet) -> Frame {
        Frame { destination, source: self.mac, packet }
    }

    /// The question who has `target`, from our own address of its family.
    fn who_has(&self, target: IpAddr) -> Result<Frame> {
        let source = self.address(Family::of(target))?.address;
        Ok(match (source, target) {
            (IpAddr::V4(sender), IpAddr::V4(target)) => {
                let (operation, target_mac) = (ArpOperation::Request, Mac([0; 6]));
                let arp = Arp { operation, sender_mac: self.mac, sender, target_mac, target };
                self.frame(BROADCAST, Packet::Arp(arp))
            }
            (IpAddr::V6(_), IpAddr::V6(target)) => {
                let group = solicited_node(target);
                let message = Message::NeighbourSolicitation { target, source_mac: Some(self.mac) };
                let ip = Ip { source, destination: group.into(), hop_limit: NDP_HOP_LIMIT, message };
                self.frame(multicast_mac(group), Packet::Ip(ip))
            }
            _ => bail!("{source} cannot ask for {target}"),
        })
    }

    fn echo_request(&mut self, source: IpAddr, destination: IpAddr, deadline: Instant) -> Result<Option<Frame>> {
        self.sequence = self.sequence.wrapping_add(1);
        let echo = Echo { reply: false, id: ECHO_ID, sequence: self.sequence, data: b"snf-network".to_vec() };
        self.by_gateway(source, destination, Message::Echo(echo), deadline)
    }

    /// A packet in a frame to the gateway, which is resolved first; nothing if it does not answer.
    fn by_gateway(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        message: Message,
        deadline: Instant,
    ) -> Result<Option<Frame>> {
        let gateway = self.address(Family::of(destination))?.gateway;
        let mac = match self.neighbours.get(&gateway) {
            Some(mac) => *mac,
            None => match self.resolve(gateway, deadline)? {
                Some(resolved) => resolved.mac,
                None => return Ok(None),
            },
        };
        let ip = Ip { source, destination, hop_limit: HOP_LIMIT, message };
        Ok(Some(self.frame(mac, Packet::Ip(ip))))
    }
}
