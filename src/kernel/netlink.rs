//! One rtnetlink socket: many requests in one send, answers matched by sequence number, the kernel's own text kept.

mod answer;
mod request;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::libc;

pub(super) use self::answer::{done_of, error_of, messages};
pub use self::request::{RTM_GETNEXTHOP, RTM_GETVLAN, Request};
use super::error::Error;
use super::readable;
use crate::deadline;

/// NLMSG_ERROR and NLMSG_DONE of linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Length of struct nlmsghdr.
const HEADER: usize = 16;
/// NLM_F_DUMP_INTR: other changes came between the parts of this dump.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// A datagram of the kernel is at most this long (NLMSG_GOODSIZE of a dump, 32 KiB).
const DATAGRAM: usize = 32 * 1024;
/// And of a dump at least this may come (NLMSG_GOODSIZE of linux/netlink.h).
const SHORT_DATAGRAM: usize = 8 * 1024;
/// Requests in one send, and bytes (but for a longer single one): the kernel takes as many into a send buffer of the default
/// size (212992 bytes), and their refusals, of a kilobyte each as it counts them, fit into such a receive buffer.
const AT_ONCE: (usize, usize) = (128, 96 * 1024);

/// The payload of an answer, or why there is none.
pub type Answer = Result<Vec<u8>, Error>;

/// An rtnetlink socket with a queue of requests.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    out: Vec<u8>,
    queued: Vec<Queued>,
    datagram: Vec<u8>,
    interrupted: bool,
}

struct Queued {
    sequence: u32,
    offset: usize,
    operation: &'static str,
}

fn refused(operation: &'static str, error: io::Error) -> Error {
    Error { operation, errno: error.raw_os_error().unwrap_or(Errno::EIO as i32), text: None }
}

impl Netlink {
    /// Opens the socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of socket(2) and setsockopt(2).
    pub fn open() -> Result<Self, Error> {
        Self::with_datagrams_of(DATAGRAM)
    }

    /// The same for a dump of which only the beginning will be read: the kernel fills the next datagram, of the size of our
    /// buffer, as soon as one was read.
    ///
    /// # Errors
    /// As `open`.
    pub fn for_the_beginning() -> Result<Self, Error> {
        Self::with_datagrams_of(SHORT_DATAGRAM)
    }

    fn with_datagrams_of(length: usize) -> Result<Self, Error> {
        let make = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_netlink_get_strict_chk(true)?;
            Ok(socket)
        };
        Ok(Self {
            socket: make().map_err(|error| refused("NETLINK_ROUTE", error))?,
            sequence: 0,
            out: Vec::with_capacity(2048),
            queued: Vec::new(),
            datagram: Vec::with_capacity(length),
            interrupted: false,
        })
    }

    /// The socket.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Puts a request behind those that wait to be sent; returns its place among them.
    pub fn queue(&mut self, request: Request) -> usize {
        self.sequence += 1;
        let (sequence, offset, operation) = (self.sequence, self.out.len(), request.operation());
        request.append(&mut self.out, sequence);
        self.queued.push(Queued { sequence, offset, operation });
        self.queued.len() - 1
    }

    /// The socket, for what goes by ioctl(2).
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Drops what is queued.
    pub fn forget_queued(&mut self) {
        self.out.clear();
        self.queued.clear();
    }

    /// Sends what is queued, in one piece as far as it fits into the socket's buffers. The kernel acts on every request, also
    /// behind one that it refused; the refused ones come back with their places. Only the last one of a piece is
    /// acknowledged, errors always come.
    ///
    /// # Errors
    /// If the socket itself fails; then nothing is known of the requests.
    pub fn flush(&mut self) -> Result<Vec<(usize, Error)>, Error> {
        let (queued, mut out) = (std::mem::take(&mut self.queued), std::mem::take(&mut self.out));
        let mut refusals = Vec::new();
        let mut first = 0;
        while first < queued.len() {
            let begin = queued[first].offset;
            let end_of = |place: usize| queued.get(place + 1).map_or(out.len(), |next| next.offset);
            let fits = |place: &usize| place - first < AT_ONCE.0 && end_of(*place) - begin <= AT_ONCE.1;
            let last = (first + 1..queued.len()).take_while(fits).last().unwrap_or(first);
            let piece = begin..end_of(last);
            let piece = &mut out[piece];
            let flags = queued[last].offset - begin;
            let bits = NetlinkBuffer::new(&piece[flags..]).flags() | NLM_F_ACK;
            piece[flags + 6..flags + 8].copy_from_slice(&bits.to_ne_bytes());
            send(&self.socket, piece, queued[last].operation)?;
            self.answers_to(&queued[first..=last], first, &mut refusals)?;
            first = last + 1;
        }
        // Its memory serves the next requests.
        out.clear();
        self.out = out;
        Ok(refusals)
    }

    /// Reads the answers to requests of which the last one is acknowledged; `first` is the place of the first.
    fn answers_to(&mut self, queued: &[Queued], first: usize, refusals: &mut Vec<(usize, Error)>) -> Result<(), Error> {
        let Some(last) = queued.last() else { return Ok(()) };
        loop {
            self.receive(last.operation)?;
            let mut done = false;
            for answer in messages(&self.datagram) {
                let sequence = answer.sequence_number();
                let Some(place) = queued.iter().position(|it| it.sequence == sequence) else { continue };
                if answer.message_type() == NLMSG_ERROR
                    && let Some(error) = error_of(queued[place].operation, &answer)
                {
                    refusals.push((first + place, error));
                }
                done |= place == queued.len() - 1;
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Whether other changes came between the parts of the last dump: it is then not to be trusted.
    pub fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Sends one question and returns the payloads of its answers with their message types.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn ask(&mut self, request: Request) -> Result<Vec<(u16, Vec<u8>)>, Error> {
        let mut answers = Vec::new();
        self.each_answer(request, |kind, payload| {
            answers.push((kind, payload.to_vec()));
            true
        })?;
        Ok(answers)
    }

    /// Sends a question, ahead of what is queued, and hands each answer to `take`, until it wants no more (then the rest of
    /// a dump is left unread and the socket must be dropped) or there is no more.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn each_answer(&mut self, request: Request, take: impl FnMut(u16, &[u8]) -> bool) -> Result<(), Error> {
        let operation = request.operation();
        let dump = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        self.sequence += 1;
        let mut question = Vec::with_capacity(128);
        request.append(&mut question, self.sequence);
        self.exchange(&question, operation, dump, take)
    }

    /// Sends questions that have one answer each in one piece, ahead of what is queued. Returns the payloads of the answers, or what was
    /// refused, in the order of the questions.
    ///
    /// # Errors
    /// If the socket itself fails.
    pub fn ask_together(&mut self, questions: &[Request]) -> Result<Vec<Answer>, Error> {
        let Some(operation) = questions.first().map(Request::operation) else { return Ok(Vec::new()) };
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(128);
        for question in questions {
            self.sequence = self.sequence.wrapping_add(1);
            question.append(&mut bytes, self.sequence);
        }
        send(&self.socket, &bytes, operation)?;
        let mut answers: Vec<Option<Answer>> = questions.iter().map(|_| None).collect();
        while answers.iter().any(Option::is_none) {
            self.receive(operation)?;
            for answer in messages(&self.datagram) {
                let place = answer.sequence_number().wrapping_sub(first) as usize;
                let (Some(slot), Some(question)) = (answers.get_mut(place), questions.get(place)) else { continue };
                let refused = (answer.message_type() == NLMSG_ERROR).then(|| error_of(question.operation(), &answer));
                *slot = Some(refused.flatten().map_or_else(|| Ok(answer.payload().to_vec()), Err));
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Dumps by a message that netlink-packet-route does not know, of type `kind` and with this payload.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn dump(&mut self, kind: u16, payload: Vec<u8>, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        self.each_answer(Request::of_bytes(kind, payload, NLM_F_DUMP), |_, payload| {
            take(payload);
            true
        })
    }

    fn exchange(
        &mut self,
        question: &[u8],
        operation: &'static str,
        dump: bool,
        mut take: impl FnMut(u16, &[u8]) -> bool,
    ) -> Result<(), Error> {
        send(&self.socket, question, operation)?;
        self.interrupted = false;
        loop {
            self.receive(operation)?;
            for answer in messages(&self.datagram) {
                if answer.sequence_number() != self.sequence {
                    continue;
                }
                self.interrupted |= answer.flags() & NLM_F_DUMP_INTR != 0;
                match answer.message_type() {
                    NLMSG_ERROR => return error_of(operation, &answer).map_or(Ok(()), Err),
                    NLMSG_DONE => return done_of(operation, &answer).map_or(Ok(()), Err),
                    kind => {
                        if !take(kind, answer.payload()) || !dump {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn receive(&mut self, operation: &'static str) -> Result<(), Error> {
        loop {
            self.datagram.clear();
            // The kernel has answered before send returned, so this waits only if it did not.
            match self.socket.recv(&mut self.datagram, libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let answered =
                        readable(&self.socket, deadline::end()).map_err(|error| refused(operation, error))?;
                    if !answered {
                        let text = Some(format!("no answer within {}", deadline::whole()));
                        return Err(Error { operation, errno: Errno::ETIME as i32, text });
                    }
                }
                Err(error) => return Err(refused(operation, error)),
                Ok(_) => break,
            }
        }
        if messages(&self.datagram).map(|it| (it.length() as usize).next_multiple_of(4)).sum::<usize>()
            < self.datagram.len()
            || self.datagram.is_empty()
        {
            // What is behind it may be what is waited for.
            let text = Some("an answer is cut short".to_owned());
            return Err(Error { operation, errno: Errno::EBADMSG as i32, text });
        }
        Ok(())
    }
}

fn send(socket: &Socket, bytes: &[u8], operation: &'static str) -> Result<(), Error> {
    loop {
        match socket.send(bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(refused(operation, error)),
            Ok(_) => return Ok(()),
        }
    }
}
