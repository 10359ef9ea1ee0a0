//! Packet sockets, and the raw ICMPv6 socket of the advertisements.
#![expect(unsafe_code, reason = "socket addresses and options that neither nix nor socket2 wraps")]

use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::readable;
use crate::addr::Mac;
use crate::frame::{ALL_NODES, NDP_HOP_LIMIT};

/// The largest frame that is read: an IP packet of the largest size and its Ethernet header.
pub(super) const MAX_FRAME: usize = 65_535 + 14;

/// ETH_P_ALL in network byte order, as `sll_protocol` and socket(2) have it.
const ALL_PROTOCOLS: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A packet socket (packet(7), SOCK_RAW): whole Ethernet frames.
///
/// To close one waits for a grace period of the kernel, 7 to 15 ms; who must not wait hands the descriptor on with
/// [`PacketSocket::into_fd`].
#[derive(Debug)]
pub struct PacketSocket(Socket);

/// Which way a frame went that a listener saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device received it.
    In,
    /// This host sent it through the device.
    Out,
}

impl PacketSocket {
    /// A socket that only sends. Protocol 0 and no bind: it hooks into nothing, so neither costs a grace period.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW.
    pub fn sender() -> Result<Self> {
        Socket::new(Domain::PACKET, Type::RAW, None).map(Self).context("packet socket")
    }

    /// A socket that hears every frame of the device with this index, and can send through it.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; ENODEV without such a device.
    pub fn listener(index: u32) -> Result<Self> {
        let socket = Self::sender()?;
        // The protocol comes with the bind: a socket made with one would hear all devices until then.
        socket.0.bind(&link_layer_address(index, ALL_PROTOCOLS, Mac([0; 6]))).context("bind a packet socket")?;
        Ok(socket)
    }

    /// Makes a listener deaf to what this host sends itself (Linux 4.20).
    pub(super) fn ignore_outgoing(&self) -> io::Result<()> {
        const PACKET_IGNORE_OUTGOING: libc::c_int = 23; // linux/if_packet.h
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the value is an int that outlives the call, with its own size.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_IGNORE_OUTGOING,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends an Ethernet frame through the device with this index.
    ///
    /// # Errors
    /// ENETDOWN if the device is down, ENXIO if it is gone, EMSGSIZE for a frame above its MTU.
    pub fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        let destination = frame.first_chunk().map_or(Mac([0; 6]), |octets| Mac(*octets));
        self.0.send_to(frame, &link_layer_address(index, 0, destination)).map(drop)
    }

    /// The next frame a listener hears and which way it went, or nothing until the deadline. The kernel takes an
    /// 802.1Q tag off before it shows the frame.
    ///
    /// # Errors
    /// ENETDOWN when the device goes down.
    pub fn recv(&self, deadline: Instant) -> io::Result<Option<(Direction, Vec<u8>)>> {
        let mut frame = Vec::with_capacity(MAX_FRAME);
        let (length, from) = loop {
            if !readable(&self.0, deadline)? {
                return Ok(None);
            }
            match self.0.recv_from_with_flags(frame.spare_capacity_mut(), libc::MSG_DONTWAIT) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                result => break result?,
            }
        };
        // SAFETY: recvfrom initialised the first `length` bytes, and `length` is at most the capacity it was given.
        unsafe { frame.set_len(length) };
        // SAFETY: the address of a packet socket is a sockaddr_ll, which is smaller than the sockaddr_storage
        // behind it, and any bytes are valid for it.
        let from = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
        let direction = if from.sll_pkttype == libc::PACKET_OUTGOING { Direction::Out } else { Direction::In };
        Ok(Some((direction, frame)))
    }

    /// The descriptor, for one who can wait until it is closed.
    pub fn into_fd(self) -> OwnedFd {
        self.0.into()
    }
}

impl From<OwnedFd> for PacketSocket {
    /// Takes back what [`PacketSocket::into_fd`] gave away.
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

/// `struct sockaddr_ll` (linux/if_packet.h); the protocol is in network byte order.
fn link_layer_address(index: u32, protocol: u16, mac: Mac) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of this platform's sockaddr_* types.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = protocol;
    address.sll_ifindex = index.cast_signed();
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&mac.0);
    // SAFETY: the storage holds a sockaddr_ll, of this family and length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// A raw ICMPv6 socket for unsolicited advertisements. The kernel writes the checksum.
#[derive(Debug)]
pub struct AdvertisementSocket {
    socket: Socket,
    index: u32,
}

impl AdvertisementSocket {
    /// A socket that sends from `link_local`, an address of the device with this index, with hop limit 255.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; EADDRNOTAVAIL if the address is not the device's, or still tentative.
    pub fn new(index: u32, link_local: Ipv6Addr) -> Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).context("raw ICMPv6 socket")?;
        socket.set_multicast_hops_v6(NDP_HOP_LIMIT.into()).context("IPV6_MULTICAST_HOPS")?;
        socket.set_multicast_if_v6(index).context("IPV6_MULTICAST_IF")?;
        // Our own host has nothing to learn from it.
        socket.set_multicast_loop_v6(false).context("IPV6_MULTICAST_LOOP")?;
        socket
            .bind(&SocketAddrV6::new(link_local, 0, 0, index).into())
            .with_context(|| format!("bind a raw ICMPv6 socket to {link_local}"))?;
        Ok(Self { socket, index })
    }

    /// Sends an ICMPv6 message to all nodes on the device's link.
    ///
    /// # Errors
    /// ENETDOWN or ENETUNREACH if the device is down.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        self.socket.send_to(message, &SocketAddrV6::new(ALL_NODES, 0, 0, self.index).into()).map(drop)
    }
}
