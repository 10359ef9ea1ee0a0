//! The far end of a guest's interface, where a hypervisor would sit.
#![expect(unsafe_code, reason = "the ioctl that makes a TAP")]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;

use super::address::find;
use super::namespace::{Netns, set_sysctl};
use super::packet::{Direction, MAX_FRAME, PacketSocket};
use super::{readable, topology};
use crate::addr::{IfName, Mac};
use crate::sys::files;

/// Name of the guest's end of a veth pair, in a namespace that holds nothing else.
const FAR_END: &str = "guest";

/// What a guest sends and receives frames by. The interface on the node is gone when this is dropped.
#[derive(Debug)]
pub enum GuestPort {
    /// A TAP, as KVM holds it.
    Tap(Tap),
    /// The peer of a veth pair, where /dev/net/tun is closed to us.
    Veth(VethPeer),
}

impl GuestPort {
    /// Makes the interface `name` in the calling thread's network namespace: a TAP, or a veth where that cannot be.
    /// It is down, and its MAC is the kernel's choice (a TAP) or `fallback_mac` (a veth).
    ///
    /// # Errors
    /// If neither can be made.
    pub fn open(name: &IfName, fallback_mac: Mac) -> Result<Self> {
        match Tap::open(name) {
            Ok(tap) => Ok(Self::Tap(tap)),
            Err(error) if is_closed(&error) => VethPeer::open(name, fallback_mac).map(Self::Veth),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame to the node.
    ///
    /// # Errors
    /// EIO or ENETDOWN while the interface is down.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Tap(tap) => tap.0.write_all(frame),
            Self::Veth(veth) => veth.socket.send(veth.index, frame),
        }
    }

    /// The next frame from the node, or nothing until the deadline.
    ///
    /// # Errors
    /// EBADFD when the interface was deleted.
    pub fn recv(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Tap(tap) => tap.recv(deadline),
            Self::Veth(veth) => veth.recv(deadline),
        }
    }
}

/// Whether /dev/net/tun is missing or closed, rather than the name taken or the like.
fn is_closed(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref().and_then(io::Error::raw_os_error);
    matches!(errno, Some(libc::ENOENT | libc::EACCES | libc::EPERM | libc::ENODEV | libc::ENXIO))
}

/// A TAP and its descriptor; frames are bare (IFF_NO_PI, no virtio header), so the kernel finishes all checksums.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes a TAP in the calling thread's network namespace.
    ///
    /// # Errors
    /// If /dev/net/tun cannot be opened, or the name is taken (EBUSY).
    pub fn open(name: &IfName) -> Result<Self> {
        const PATH: &str = "/dev/net/tun";
        let file = files::open(PATH.as_ref(), OFlag::O_RDWR, Mode::empty()).with_context(|| format!("open {PATH}"))?;
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The name is at most IFNAMSIZ - 1 bytes by its type, so the last byte stays 0.
        for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq, which outlives the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("ip tuntap add {name} mode tap"));
        }
        Ok(Self(file))
    }

    fn recv(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; MAX_FRAME];
        loop {
            if !readable(&self.0, deadline)? {
                return Ok(None);
            }
            match self.0.read(&mut frame) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                result => {
                    frame.truncate(result?);
                    return Ok(Some(frame));
                }
            }
        }
    }
}

/// The guest's end of a veth pair, in a namespace of its own in which the kernel says nothing by itself.
#[derive(Debug)]
pub struct VethPeer {
    socket: PacketSocket,
    index: u32,
    /// Keeps the peer, and so the pair, alive.
    _namespace: Netns,
}

impl VethPeer {
    /// Makes the pair; `name` and `mac` are those of the node's end, in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the name is taken (EEXIST), and those of a new namespace.
    pub fn open(name: &IfName, mac: Mac) -> Result<Self> {
        let far_end: IfName = FAR_END.parse()?;
        let namespace = Netns::new()?;
        // The guest's frames carry the guest's own source address; this one never shows.
        topology::add_veth((name, mac), (&far_end, Mac([0x02, 0, 0, 0, 0, 1])), &namespace)?;
        let (socket, index) = namespace.run(|| {
            // Before it is up: no neighbour or listener message of the kernel's on the guest's behalf.
            set_sysctl(&format!("net/ipv6/conf/{far_end}/disable_ipv6"), 1)?;
            topology::set_up(&far_end)?;
            let index = find(&far_end)?.index;
            let socket = PacketSocket::listener(index)?;
            socket.ignore_outgoing().context("PACKET_IGNORE_OUTGOING")?;
            Ok((socket, index))
        })?;
        Ok(Self { socket, index, _namespace: namespace })
    }

    fn recv(&self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.socket.recv(deadline)? {
                Some((Direction::Out, _)) => {}
                other => return Ok(other.map(|(_, frame)| frame)),
            }
        }
    }
}
