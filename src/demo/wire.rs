//! Listening: what went over a node's uplink, and finding the frames that prove something.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result};

use super::guest::Direction;
use crate::addr::IfName;
use crate::frame::{ArpOperation, Frame, Ip, Message, Packet};
use crate::kernel::address::find;
use crate::kernel::packet::PacketSocket;

/// A frame and which way it went, seen from the node.
pub type Seen = (Direction, Frame);

/// All that went over a wire since it was last cleared. It is heard at the router's end: what is seen there arrived.
#[derive(Debug)]
pub struct Wire {
    socket: PacketSocket,
    seen: Vec<Seen>,
}

impl Wire {
    /// Listens at the router's port, in the calling thread's network namespace.
    ///
    /// # Errors
    /// If there is no such device, or it cannot be listened at.
    pub fn listen(port: &IfName) -> Result<Self> {
        let socket = PacketSocket::listener(find(port)?.index).with_context(|| format!("listen at {port}"))?;
        Ok(Self { socket, seen: Vec::new() })
    }

    /// Forgets what went over it until now.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn clear(&mut self) -> Result<()> {
        while self.hear(Instant::now())? {}
        self.seen.clear();
        Ok(())
    }

    /// The first frame of this kind, waiting for it until the deadline.
    ///
    /// # Errors
    /// If the port fails.
    pub fn find(
        &mut self,
        deadline: Instant,
        wanted: impl Fn(Direction, &Frame) -> bool,
    ) -> Result<Option<(Direction, Frame)>> {
        let mut looked_at = 0;
        loop {
            let found = self.seen[looked_at..].iter().find(|(direction, frame)| wanted(*direction, frame));
            if let Some(found) = found {
                return Ok(Some(found.clone()));
            }
            looked_at = self.seen.len();
            if !self.hear(deadline)? {
                return Ok(None);
            }
        }
    }

    /// The frame of this kind; that there is none is the step's failure, in the words of `what`.
    ///
    /// # Errors
    /// As [`Self::find`], and if there is none.
    pub fn expect(
        &mut self,
        deadline: Instant,
        what: &str,
        wanted: impl Fn(Direction, &Frame) -> bool,
    ) -> Result<(Direction, Frame)> {
        self.find(deadline, wanted)?.with_context(|| format!("not seen: {what}"))
    }

    /// Takes one frame in; false if there is none until the deadline.
    fn hear(&mut self, deadline: Instant) -> Result<bool> {
        let Some((direction, bytes)) = self.socket.recv(deadline).context("listen at the router")? else {
            return Ok(false);
        };
        // What the router sends, the node receives.
        let direction = turned(direction);
        self.seen.extend(Frame::parse(&bytes).ok().map(|frame| (direction, frame)));
        Ok(true)
    }
}

/// The same frame from the other end's point of view.
pub fn turned(direction: Direction) -> Direction {
    match direction {
        Direction::In => Direction::Out,
        Direction::Out => Direction::In,
    }
}

/// Who asks for the MAC of `target`, by ARP or a neighbour solicitation; nobody in a gratuitous request.
pub fn asker(frame: &Frame, target: IpAddr) -> Option<IpAddr> {
    match (&frame.packet, target) {
        (Packet::Arp(arp), IpAddr::V4(target)) => {
            let asks = arp.operation == ArpOperation::Request && arp.target == target && arp.sender != target;
            asks.then_some(arp.sender.into())
        }
        (Packet::Ip(Ip { source, message: Message::NeighbourSolicitation { target: of, .. }, .. }), _) => {
            (IpAddr::V6(*of) == target).then_some(*source)
        }
        _ => None,
    }
}

/// Whether a frame tells everybody unasked where `address` is (see [`crate::announce`]).
pub fn announces_unasked(frame: &Frame, address: IpAddr) -> bool {
    match (&frame.packet, address) {
        (Packet::Arp(arp), IpAddr::V4(address)) => arp.sender == address && arp.target == address,
        (Packet::Ip(Ip { message: Message::NeighbourAdvertisement(na), .. }), IpAddr::V6(address)) => {
            na.target == address && !na.solicited
        }
        _ => false,
    }
}

/// Whether a frame is an echo request, or its reply.
pub fn is_echo(frame: &Frame, reply: bool, from: IpAddr, to: IpAddr) -> bool {
    match &frame.packet {
        Packet::Ip(Ip { source, destination, message: Message::Echo(echo), .. }) => {
            echo.reply == reply && *source == from && *destination == to
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Mac;
    use crate::announce::{arp_reply, arp_request};
    use crate::frame::{Arp, BROADCAST, Echo, NeighbourAdvertisement};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn frame(packet: Packet) -> Frame {
        Frame { destination: BROADCAST, source: MAC, packet }
    }

    fn ip(source: &str, message: Message) -> Frame {
        frame(Packet::Ip(Ip { source: address(source), destination: address(source), hop_limit: 255, message }))
    }

    #[test]
    fn questions_name_their_asker() {
        let operation = ArpOperation::Request;
        let [sender, target] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().expect("an address"));
        let question = frame(Packet::Arp(Arp { operation, sender_mac: MAC, sender, target_mac: Mac([0; 6]), target }));
        assert_eq!(asker(&question, target.into()), Some(sender.into()));
        assert_eq!(asker(&question, sender.into()), None);
        let target = "2001:db8::2".parse().expect("an address");
        let question = ip("2001:db8::1", Message::NeighbourSolicitation { target, source_mac: None });
        assert_eq!(asker(&question, target.into()), Some(address("2001:db8::1")));
        assert_eq!(asker(&question, address("2001:db8::3")), None);
    }

    #[test]
    fn announcements_ask_nobody() {
        let own = "192.0.2.1".parse().expect("an address");
        for bytes in [arp_request(own, MAC), arp_reply(own, MAC)] {
            let frame = Frame::parse(&bytes.expect("bytes")).expect("a frame");
            assert!(announces_unasked(&frame, own.into()));
            assert_eq!(asker(&frame, own.into()), None);
        }
        let target = "2001:db8::2".parse().expect("an address");
        for solicited in [false, true] {
            let advertisement =
                NeighbourAdvertisement { target, router: false, solicited, override_cache: true, target_mac: None };
            let frame = ip("2001:db8::1", Message::NeighbourAdvertisement(advertisement));
            assert_eq!(announces_unasked(&frame, target.into()), !solicited);
        }
    }

    #[test]
    fn echoes_are_told_apart() {
        let echo = |reply| ip("192.0.2.1", Message::Echo(Echo { reply, id: 1, sequence: 1, data: Vec::new() }));
        let own = address("192.0.2.1");
        assert!(is_echo(&echo(true), true, own, own));
        assert!(!is_echo(&echo(false), true, own, own));
        assert!(!is_echo(&echo(true), true, own, address("192.0.2.2")));
    }
}
