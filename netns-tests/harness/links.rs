//! The changes of links in the order in which the kernel made them, read from RTM_NEWLINK.

use std::io::ErrorKind;

use anyhow::{Context as _, Result, ensure};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netns::Netns;

/// RTNLGRP_LINK, RTM_NEWLINK of linux/rtnetlink.h.
const GROUP: u32 = 1;
const RTM_NEWLINK: u16 = 16;
/// IFLA_* of linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;

/// What a link was like at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// Its name.
    pub name: String,
    /// Administratively.
    pub up: bool,
    /// The number of its bridge; 0 is none.
    pub bridge: u32,
    /// In bytes.
    pub mtu: u32,
    /// Its address.
    pub mac: Vec<u8>,
}

/// Listens to a namespace.
pub struct Links {
    socket: Socket,
}

impl Links {
    /// From now on.
    pub fn of(netns: &Netns) -> Result<Self> {
        let open = || -> std::io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.add_membership(GROUP)?;
            socket.set_non_blocking(true)?;
            socket.set_rx_buf_sz(4_000_000_u32)?;
            Ok(socket)
        };
        Ok(Self { socket: netns.run(open).context("listen to the links")? })
    }

    /// What was told since the last time, without repetitions.
    ///
    /// # Errors
    /// If the kernel had more to tell than could be kept.
    pub fn heard(&self) -> Result<Vec<LinkEvent>> {
        let mut events = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => read(&bytes, &mut events),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("hear"),
            }
        }
        events.dedup();
        Ok(events)
    }
}

fn read(mut bytes: &[u8], events: &mut Vec<LinkEvent>) {
    while let Some(header) = bytes.get(..16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(message) = bytes.get(16..length) else { return };
        // AF_UNSPEC: those of AF_BRIDGE tell of ports and have no addresses.
        if u16::from_ne_bytes([header[4], header[5]]) == RTM_NEWLINK && message.first() == Some(&0) {
            events.extend(event(message));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// struct ifinfomsg and its attributes.
fn event(message: &[u8]) -> Option<LinkEvent> {
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(*bytes.first_chunk()?));
    let up = number(message.get(8..)?)? & 1 != 0;
    let mut event = LinkEvent { name: String::new(), up, bridge: 0, mtu: 0, mac: Vec::new() };
    let mut rest = message.get(16..)?;
    while let Some(header) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let Some(value) = rest.get(4..length) else { break };
        match u16::from_ne_bytes([header[2], header[3]]) {
            IFLA_IFNAME => event.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
            IFLA_ADDRESS => event.mac = value.to_vec(),
            IFLA_MTU => event.mtu = number(value)?,
            IFLA_MASTER => event.bridge = number(value)?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(event)
}

/// That a port was up only inside a bridge, and joined one only with a MAC that it will not adopt.
pub fn no_gap(events: &[LinkEvent], port: &str) -> Result<()> {
    let of_port: Vec<_> = events.iter().filter(|it| it.name == port).collect();
    for (place, event) in of_port.iter().enumerate() {
        let before = place.checked_sub(1).map(|it| of_port[it]);
        ensure!(!event.up || event.bridge != 0, "up and in no bridge: {before:?}, then {event:?}");
        ensure!(
            event.bridge == 0 || event.mac.first() == Some(&0xfe),
            "no fe: in a bridge: {before:?}, then {event:?}"
        );
        let moved = before.is_some_and(|it| it.bridge != event.bridge);
        ensure!(!moved || !event.up, "moved while it was up: {before:?}, then {event:?}");
    }
    Ok(())
}
