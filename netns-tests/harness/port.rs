//! Where frames go in and out: a TAP's file descriptor, or a packet socket on an interface; and the log of what came.
#![expect(unsafe_code, reason = "TUNSETIFF and sockaddr_ll have no safe interface")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{io, mem};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use super::netns::Netns;
use super::packet::Packet;
use super::patience;
use super::virtio::{self, Header};

/// One end of a wire.
pub struct Port {
    file: File,
    /// Whether each frame has a virtio header before it.
    headed: bool,
}

impl Port {
    /// Makes a TAP, down as Ganeti does; this port is the guest's end.
    ///
    /// # Errors
    /// If it exists, or /dev/net/tun is closed to us.
    pub fn tap(netns: &Netns, name: &str) -> Result<Self> {
        Self::open_tap(netns, name, false)
    }

    /// The same, with a virtio header before each frame, as Ganeti opens it for QEMU.
    ///
    /// # Errors
    /// As `tap`.
    pub fn virtio_tap(netns: &Netns, name: &str) -> Result<Self> {
        Self::open_tap(netns, name, true)
    }

    fn open_tap(netns: &Netns, name: &str, headed: bool) -> Result<Self> {
        ensure!(name.len() < libc::IFNAMSIZ, "{name} is too long");
        let open = || open("/dev/net/tun", OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty());
        let file: File = netns.run(open).context("/dev/net/tun")?.into();
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let header = if headed { libc::IFF_VNET_HDR } else { 0 };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL | header;
        request.ifr_ifru.ifru_flags = (flags & 0xffff) as libc::c_short;
        // SAFETY: the kernel reads and writes one whole ifreq, which outlives the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        ensure!(done == 0, "make TAP {name}: {}", io::Error::last_os_error());
        Ok(Self { file, headed })
    }

    /// A packet socket on an interface. `outgoing`: also sees what this machine sends there.
    pub fn packet(netns: &Netns, interface: &str, outgoing: bool) -> Result<Self> {
        let socket = netns.run(|| packet_socket(interface, outgoing, false));
        let file = File::from(socket.with_context(|| format!("packet socket on {interface}"))?);
        Ok(Self { file, headed: false })
    }

    /// The same, which tells of each frame what was left to whoever receives it.
    pub fn headed_packet(netns: &Netns, interface: &str) -> Result<Self> {
        let socket = netns.run(|| packet_socket(interface, false, true));
        let file = File::from(socket.with_context(|| format!("packet socket on {interface}"))?);
        Ok(Self { file, headed: true })
    }

    /// The same port once more: each frame comes out of only one of them.
    pub fn again(&self) -> Result<Self> {
        Ok(Self { file: File::from(self.descriptor()?), headed: self.headed })
    }

    /// The descriptor once more, for a process that is to have it.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned().context("another descriptor of a port")
    }

    /// Puts a frame on the wire.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.send_with(Header::default(), frame)
    }

    /// Puts a frame on the wire, of which some is left to the kernel.
    pub fn send_with(&self, header: Header, frame: &[u8]) -> Result<()> {
        let written = if self.headed {
            (&self.file).write_all(&[&header.bytes(), frame].concat())
        } else {
            (&self.file).write_all(frame)
        };
        written.context("send a frame")
    }

    /// Takes the frames that have come out of it by now.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        self.drain_headed().into_iter().map(|it| it.1).collect()
    }

    /// The same with what was left to the receiver.
    pub fn drain_headed(&self) -> Vec<(Header, Vec<u8>)> {
        let mut buffer = vec![0; 70000];
        let mut frames = Vec::new();
        while let Some((header, frame)) = self.read(&mut buffer) {
            frames.push((header, frame.to_vec()));
        }
        frames
    }

    /// The next frame, if there is one.
    fn read<'b>(&self, buffer: &'b mut [u8]) -> Option<(Header, &'b [u8])> {
        let length = (&self.file).read(buffer).ok()?;
        let frame = &buffer[..length];
        if !self.headed {
            return Some((Header::default(), frame));
        }
        let (header, frame) = frame.split_first_chunk::<{ virtio::LENGTH }>()?;
        Some((Header::of_bytes(*header), frame))
    }
}

fn packet_socket(interface: &str, outgoing: bool, headed: bool) -> Result<OwnedFd> {
    // Protocol 0 hears nothing until the bind, so nothing of other interfaces comes in between.
    let kind = socket2::Type::RAW.nonblocking().cloexec();
    let socket = socket2::Socket::new(socket2::Domain::PACKET, kind, None)?;
    let one: libc::c_int = 1;
    let switch_on = |option| -> Result<()> {
        let (value, size) = ((&raw const one).cast(), libc::socklen_t::try_from(size_of_val(&one))?);
        // SAFETY: the option takes a C int, whose address and size are given.
        let done = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value, size) };
        ensure!(done == 0, io::Error::last_os_error());
        Ok(())
    };
    // Until the kernel has noticed that the other end is up, a veth's queue swallows what is sent.
    switch_on(libc::PACKET_QDISC_BYPASS)?;
    if !outgoing {
        switch_on(libc::PACKET_IGNORE_OUTGOING)?;
    }
    if headed {
        switch_on(libc::PACKET_VNET_HDR)?;
    }
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    address.sll_ifindex = nix::net::if_::if_nametoindex(interface)?.cast_signed();
    let size = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: a whole sockaddr_ll with its size.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    ensure!(done == 0, io::Error::last_os_error());
    Ok(socket.into())
}

/// What was seen so far, and the bell for those who wait for more.
#[derive(Default)]
struct Log {
    packets: Mutex<Vec<Packet>>,
    more: Condvar,
}

/// A thread that reads a port for as long as this value lives, and the log of what it read.
pub struct Capture {
    name: String,
    log: Arc<Log>,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// All that passes an interface, both ways.
    pub fn on(netns: &Netns, interface: &str) -> Result<Self> {
        Self::of(Arc::new(Port::packet(netns, interface, true)?), interface, |_| None)
    }

    /// All that comes out of a port; what `answer` gives for a frame is sent back.
    pub fn of(
        port: Arc<Port>,
        name: &str,
        mut answer: impl FnMut(&Packet) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Self> {
        let (stopped, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 70000];
            loop {
                let frames = PollFd::new(port.file.as_fd(), PollFlags::POLLIN);
                let mut wanted = [frames, PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
                if poll(&mut wanted, PollTimeout::NONE).is_err() || wanted[1].any() != Some(false) {
                    return;
                }
                let Some((_, frame)) = port.read(&mut buffer) else {
                    // The interface is down (it may come back), or gone (then poll would return at once, always).
                    if wanted[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR)) {
                        thread::sleep(std::time::Duration::from_millis(5));
                    }
                    continue;
                };
                let Some(packet) = Packet::decode(frame) else { continue };
                if let Some(frame) = answer(&packet) {
                    // Whoever waits for the answer notices if it does not come.
                    let _ = port.send(&frame);
                }
                shared.packets.lock().unwrap_or_else(PoisonError::into_inner).push(packet);
                shared.more.notify_all();
            }
        });
        Ok(Self { name: name.to_owned(), log, stop: Some(stop), thread: Some(thread) })
    }

    /// Forgets what was seen so far.
    pub fn clear(&self) {
        self.log.packets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What was seen since the start or the last `clear`.
    pub fn seen(&self) -> Vec<Packet> {
        self.log.packets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The frames seen so far whose text holds `pattern`.
    pub fn matching(&self, pattern: &str) -> Vec<Packet> {
        self.seen().into_iter().filter(|packet| packet.matches(pattern)).collect()
    }

    /// The first frame whose text holds `pattern`, seen already or still to come.
    ///
    /// # Errors
    /// If none comes in time; the error lists what did.
    pub fn expect(&self, pattern: &str) -> Result<Packet> {
        self.expect_count(pattern, 1).map(|mut packets| packets.remove(0))
    }

    /// As `expect`, for the first `count` frames.
    pub fn expect_count(&self, pattern: &str, count: usize) -> Result<Vec<Packet>> {
        let deadline = Instant::now() + patience();
        let mut packets = self.log.packets.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found: Vec<_> = packets.iter().filter(|packet| packet.matches(pattern)).take(count).cloned().collect();
            if found.len() == count {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{}: {} of {count} times {pattern:?} among{}", self.name, found.len(), lines(&packets));
            }
            packets = self.log.more.wait_timeout(packets, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// That no frame seen so far holds `pattern`. Wait for a later frame on the same way first.
    pub fn never(&self, pattern: &str) -> Result<()> {
        let found = self.matching(pattern);
        ensure!(found.is_empty(), "{}: {pattern:?} must not be seen, but was:{}", self.name, lines(&found));
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has already been printed.
            let _ = thread.join();
        }
    }
}

fn lines(packets: &[Packet]) -> String {
    packets.iter().map(|packet| format!("\n    {packet}")).collect()
}
