//! The nfnetlink socket: requests out, all their answers in.

use std::io::ErrorKind;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use neli::consts::nl::NlmF;
use netlink_sys::{Socket as NetlinkSocket, SocketAddr};
use nix::libc::{EINTR, EMSGSIZE, ENOBUFS, MSG_DONTWAIT, MSG_TRUNC};
use nix::sys::socket::{setsockopt, sockopt};

use super::message::{Answer, Request, answers};
use crate::kernel::Error;

/// NETLINK_NETFILTER of linux/netlink.h.
const NETLINK_NETFILTER: isize = 12;
/// What one recv may return: the kernel fills dumps into at most 32 kB.
const RECEIVE: usize = 64 * 1024;
/// What a fresh socket can send at least (net.core.wmem_default).
const SEND_DEFAULT: usize = 128 * 1024;

/// A socket of the family NETLINK_NETFILTER.
pub(super) struct Socket {
    inner: NetlinkSocket,
    sequence: u32,
    received: Vec<u8>,
}

/// The answers to some requests, each with the index of its request.
pub(super) type Answers = Vec<(usize, Answer)>;

impl Socket {
    pub(super) fn open() -> Result<Self> {
        let inner = NetlinkSocket::new(NETLINK_NETFILTER)
            .context("NETLINK_NETFILTER: no socket: expected a kernel with CONFIG_NETFILTER_NETLINK")?;
        inner.set_ext_ack(true).context("NETLINK_EXT_ACK")?;
        Ok(Self { inner, sequence: 0, received: Vec::with_capacity(RECEIVE) })
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        // SAFETY: into_raw_fd gives up the socket's ownership of this open descriptor.
        #[expect(unsafe_code, reason = "netlink-sys has no conversion into an OwnedFd")]
        unsafe {
            OwnedFd::from_raw_fd(self.inner.into_raw_fd())
        }
    }

    /// Sends the requests at once and reads the answers. The kernel works them off before send returns, so nothing is
    /// waited for. No answer is an answer too: only the last request asks for an acknowledgement, errors always come.
    ///
    /// # Errors
    /// Of the socket; what the kernel refuses is an answer. ENOBUFS when answers got lost.
    pub(super) fn exchange(&mut self, mut requests: Vec<Request>) -> Result<Answers> {
        let first = self.sequence.wrapping_add(1);
        let count = requests.len();
        if let Some(last) = requests.last_mut().filter(|last| !last.flags.contains(NlmF::DUMP)) {
            last.flags |= NlmF::ACK;
        }
        let mut bytes = Vec::with_capacity(4096);
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.write(self.sequence, &mut bytes)?;
        }
        self.send(&bytes)?;
        let mut all = Vec::new();
        let mut lost = false;
        loop {
            match self.receive()? {
                Received::Answers(answers) => {
                    // Whatever is not ours is late, from an exchange that lost some.
                    let ours = answers.into_iter().filter_map(|(sequence, answer)| {
                        let index = usize::try_from(sequence.wrapping_sub(first)).ok()?;
                        (index < count).then_some((index, answer))
                    });
                    all.extend(ours);
                }
                Received::Overrun => lost = true,
                Received::Nothing => break,
            }
        }
        ensure!(!lost, Error { operation: "recv", errno: ENOBUFS, text: Some("answers were lost".to_owned()) });
        Ok(all)
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > SEND_DEFAULT {
            // Without CAP_NET_ADMIN in the first user namespace, the sysctl net.core.wmem_max limits it; then the send
            // says whether it was enough.
            let size = bytes.len() + 4096;
            let _ = setsockopt(&self.inner.as_fd(), sockopt::SndBufForce, &size)
                .or_else(|_| setsockopt(&self.inner.as_fd(), sockopt::SndBuf, &size));
        }
        loop {
            match self.inner.send_to(bytes, &SocketAddr::new(0, 0), 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(EINTR) => {}
                Err(error) if error.raw_os_error() == Some(EMSGSIZE) => {
                    return Err(error).with_context(|| {
                        format!("a transaction of {} bytes: expected net.core.wmem_max to allow it", bytes.len())
                    });
                }
                Err(error) => return Err(error).context("send"),
            }
        }
    }

    fn receive(&mut self) -> Result<Received> {
        self.received.clear();
        let length = loop {
            match self.inner.recv(&mut self.received, MSG_DONTWAIT | MSG_TRUNC) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) if error.raw_os_error() == Some(EINTR) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => return Ok(Received::Overrun),
                Err(error) => return Err(error).context("receive"),
            }
        };
        ensure!(length <= self.received.len(), "an answer of {length} bytes, expected {RECEIVE} at most");
        Ok(Received::Answers(answers(&self.received).context("an answer is cut short")?))
    }
}

/// What one recv found.
enum Received {
    Answers(Vec<(u32, Answer)>),
    /// The receive buffer was full: some answers are gone, those that are there can be read.
    Overrun,
    Nothing,
}

/// Whether answers got lost, so that nobody knows what the kernel did.
pub(super) fn is_lost(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|error| error.errno == ENOBUFS)
}
