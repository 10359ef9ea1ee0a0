//! What the kernel tells of changes to links, addresses, routes, rules, settings and nf_tables: that there were some.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{Context, Result};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF, IPV6_NETCONF
/// (linux/rtnetlink.h).
const ROUTE_GROUPS: [u32; 9] = [1, 5, 7, 8, 9, 11, 19, 24, 25];
/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink_compat.h).
const NFTABLES_GROUP: u32 = 7;

/// Listens, in the network namespace it was made in.
pub struct Monitor {
    sockets: [Socket; 2],
}

impl Monitor {
    /// From now on.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and setsockopt(2).
    pub fn listen() -> Result<Self> {
        let route = listen(NETLINK_ROUTE, &ROUTE_GROUPS).context("NETLINK_ROUTE: listen")?;
        let nftables = listen(NETLINK_NETFILTER, &[NFTABLES_GROUP]).context("NETLINK_NETFILTER: listen")?;
        Ok(Self { sockets: [route, nftables] })
    }

    /// Waits until there was a change, or for the deadline; what was told until then is forgotten.
    ///
    /// # Errors
    /// Those of poll(2) and recv(2).
    pub fn wait(&self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = self.sockets.each_ref().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN));
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        self.sockets.iter().try_for_each(drain)
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Reads what waits; that some of it was lost only says that there were changes, too.
fn drain(socket: &Socket) -> Result<()> {
    let mut datagram = Vec::with_capacity(64 * 1024);
    loop {
        datagram.clear();
        match socket.recv(&mut datagram, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
            Err(error) => return Err(error).context("recv"),
        }
    }
}
