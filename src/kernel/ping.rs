//! Echo requests of this host, from ICMP sockets that need no privilege (`net.ipv4.ping_group_range`).

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::set_sysctl;
use super::readable;
use crate::addr::Family;
use crate::frame::{Echo, Message, icmp};

/// Before a request is sent again. What waits for a neighbour to be resolved is kept by the kernel, so one gets through.
const RETRANSMIT: Duration = Duration::from_millis(500);

/// A datagram socket of ICMP or ICMPv6: the kernel fills in identifier and checksum, and hands us our own replies alone.
#[derive(Debug)]
pub struct PingSocket {
    socket: Socket,
    family: Family,
    sequence: u16,
}

impl PingSocket {
    /// Lets our own group (0 in a namespace of [`super::namespace::enter_private`]) open such sockets in the calling
    /// thread's network namespace, for both families.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN there.
    pub fn allow() -> Result<()> {
        set_sysctl("net/ipv4/ping_group_range", "0 0")
    }

    /// A socket that asks from an address of this host.
    ///
    /// # Errors
    /// EACCES where our group may have none, EADDRNOTAVAIL if the address is not this host's.
    pub fn new(source: IpAddr) -> Result<Self> {
        let family = Family::of(source);
        let (domain, protocol) = match family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).context("ICMP socket")?;
        socket.bind(&SocketAddr::new(source, 0).into()).with_context(|| format!("bind an ICMP socket to {source}"))?;
        Ok(Self { socket, family, sequence: 0 })
    }

    /// Asks `destination` until it answers; false if it did not until the deadline.
    ///
    /// # Errors
    /// ENETUNREACH without a route, and whatever else the socket says.
    pub fn ping(&mut self, destination: IpAddr, deadline: Instant) -> Result<bool> {
        let to = SocketAddr::new(destination, 0).into();
        loop {
            self.sequence = self.sequence.wrapping_add(1);
            let echo = Echo { reply: false, id: 0, sequence: self.sequence, data: b"snf-network".to_vec() };
            let (_, request) = Message::Echo(echo).encode(self.family)?;
            self.socket.send_to(&request, &to).with_context(|| format!("echo request to {destination}"))?;
            if self.answered(deadline.min(Instant::now() + RETRANSMIT))? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    /// Whether a reply to the last request came; those to earlier ones came too late.
    fn answered(&self, deadline: Instant) -> Result<bool> {
        let reply = match self.family {
            Family::V4 => icmp::ECHO_REPLY,
            Family::V6 => icmp::V6_ECHO_REPLY,
        };
        let mut message = [0; 64];
        while readable(&self.socket, deadline)? {
            let length = (&self.socket).read(&mut message).context("echo reply")?;
            if let [kind, 0, _, _, _, _, high, low, ..] = message[..length]
                && kind == reply
                && u16::from_be_bytes([high, low]) == self.sequence
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
