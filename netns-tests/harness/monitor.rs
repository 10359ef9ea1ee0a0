//! What the kernel tells its listeners: every change of links, addresses, routes, rules, devconf and nf_tables, as
//! `ip monitor` and `nft monitor` see it. (It tells nobody of proxy neighbours, and traffic makes the other ones.)

use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

use super::netns::Netns;

/// RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF,
/// IPV6_NETCONF (linux/rtnetlink.h).
const ROUTE_GROUPS: [u32; 9] = [1, 5, 7, 8, 9, 11, 19, 24, 25];
/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink_compat.h).
const NFTABLES_GROUP: u32 = 7;

/// Listens to a namespace.
pub struct Monitor {
    route: Socket,
    nftables: Socket,
}

impl Monitor {
    /// From now on.
    pub fn of(netns: &Netns) -> Result<Self> {
        netns.run(|| {
            let route = listen(NETLINK_ROUTE, &ROUTE_GROUPS).context("listen to rtnetlink")?;
            let nftables = listen(NETLINK_NETFILTER, &[NFTABLES_GROUP]).context("listen to nf_tables")?;
            Ok(Self { route, nftables })
        })
    }

    /// What was told so far. The kernel tells before the system call that makes the change returns, so nothing of a
    /// finished run is missing.
    pub fn heard(&self) -> Result<Vec<String>> {
        let mut heard = Vec::new();
        for socket in [&self.route, &self.nftables] {
            loop {
                match socket.recv_from_full() {
                    Ok((bytes, _)) => messages(&bytes, &mut heard),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("hear"),
                }
            }
        }
        Ok(heard)
    }
}

fn listen(protocol: isize, groups: &[u32]) -> Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// The messages of a datagram, by name and with their bytes.
fn messages(mut bytes: &[u8], heard: &mut Vec<String>) {
    while let Some(header) = bytes.get(..16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(message) = bytes.get(..length).filter(|_| length >= 16) else { return };
        heard.push(format!("{} {}", name(kind), text(&message[16..])));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn name(kind: u16) -> String {
    let name = match kind {
        16 => "RTM_NEWLINK",
        17 => "RTM_DELLINK",
        20 => "RTM_NEWADDR",
        21 => "RTM_DELADDR",
        24 => "RTM_NEWROUTE",
        25 => "RTM_DELROUTE",
        32 => "RTM_NEWRULE",
        33 => "RTM_DELRULE",
        80 => "RTM_NEWNETCONF",
        81 => "RTM_DELNETCONF",
        // NFNL_SUBSYS_NFTABLES and an enum nf_tables_msg_types.
        other if other >> 8 == 10 => return format!("nf_tables message {}", other & 0xff),
        other => return format!("message {other}"),
    };
    name.to_owned()
}

/// Bytes as far as they are letters: interface and table names can be read, which is enough to find the culprit.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect()
}
