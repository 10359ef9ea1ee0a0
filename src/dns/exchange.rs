//! The exchange with a name server: over TCP, before a deadline, signed and verified.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use domain::base::iana::{Rcode, TsigRcode};
use domain::base::{Message, ParsedName, Rtype};
use domain::rdata::Tsig;
use domain::rdata::tsig::Time48;
use domain::tsig::{ClientTransaction, ValidationError};

use super::key::Key;
use super::message::{Answer, Content, Request, answer_section, check_answers, query, random_id};
use super::records::{Data, Name};
use super::resolve;
use super::server::{Host, Server};

/// A point in time that work must not go beyond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    /// For messages: how long it was from the start.
    whole: Duration,
}

impl Deadline {
    pub(super) fn after(whole: Duration) -> Self {
        Self { at: Instant::now() + whole, whole }
    }

    /// What is left; never zero, which sockets take for no limit.
    pub(super) fn remaining(&self) -> Result<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no answer within {:.1} s", self.whole.as_secs_f32());
        Ok(left)
    }

    /// The first of `parts` equal parts of what is left.
    pub(super) fn part(&self, parts: usize) -> Result<Self> {
        Ok(Self::after(self.remaining()? / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)))
    }

    /// This, or `limit` from now if that is earlier.
    pub(super) fn at_most(&self, limit: Duration) -> Result<Self> {
        Ok(Self::after(self.remaining()?.min(limit)))
    }
}

/// The server does not take our key, or refuses without a signature; Knot does both for single zones, where its access lists
/// do not name the key or it has no such zone. Nobody vouches for such an answer, so it counts as a failure.
#[derive(Debug)]
pub(super) struct Denied(pub(super) String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Denied {}

/// Asks the servers, the one that answered last first.
pub(super) struct Client {
    /// Never empty; the one that answered last comes first.
    servers: Vec<Server>,
    key: Option<Key>,
    deadline: Deadline,
    /// To the first of `servers`.
    connection: Option<(SocketAddr, TcpStream)>,
}

impl Client {
    pub(super) fn new(servers: Vec<Server>, key: Option<Key>, deadline: Deadline) -> Self {
        Self { servers, key, deadline, connection: None }
    }

    /// The server that answered last.
    pub(super) fn server(&self) -> Option<SocketAddr> {
        self.connection.as_ref().map(|(address, _)| *address)
    }

    /// The records of `name` and `rtype` at the server; those of an alias's target are not among them.
    pub(super) fn read(&mut self, name: &Name, rtype: Rtype) -> Result<Vec<Data>> {
        let answer = self.ask(&query(name, rtype, false)?)?;
        let rcode = answer.header().rcode();
        ensure!(matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN), "{name} {rtype}: the server answers {rcode}");
        let own = answer_section(&answer)?.into_iter().filter_map(|found| match found.content {
            Content::Data(data) if found.owner == *name && data.rtype() == rtype => Some(data),
            _ => None,
        });
        let mut own: Vec<_> = own.collect();
        own.sort();
        own.dedup();
        Ok(own)
    }

    /// The verified answer to `request`, of whichever code; SERVFAIL only if no other server has another.
    ///
    /// # Errors
    /// If no server gives one before the deadline: each server, and what happened; [`Denied`] if it is that only.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Answer> {
        let mut failures = Vec::new();
        let mut servfail = None;
        if let Some((address, mut stream)) = self.connection.take() {
            let asked = self.deadline.part(self.servers.len());
            match asked.and_then(|deadline| self.exchange(&mut stream, request, deadline)) {
                Ok(answer) if self.servers.len() == 1 || answer.header().rcode() != Rcode::SERVFAIL => {
                    self.connection = Some((address, stream));
                    return Ok(answer);
                }
                Ok(answer) => servfail = Some(answer),
                // It may have been closed for being idle, so the server has another chance below.
                Err(error) => failures.push((address.to_string(), error)),
            }
        }
        for n in 0..self.servers.len() {
            match self.ask_server(&self.servers[n], self.servers.len() - n, request) {
                Ok((_, _, answer)) if n + 1 < self.servers.len() && answer.header().rcode() == Rcode::SERVFAIL => {
                    servfail = Some(answer);
                }
                Ok((address, stream, answer)) => {
                    self.connection = Some((address, stream));
                    self.servers[..=n].rotate_right(1);
                    return Ok(answer);
                }
                Err(error) => {
                    let server = self.servers[n].to_string();
                    failures.retain(|(failed, _)| *failed != server);
                    failures.push((server, error));
                }
            }
        }
        if let Some(answer) = servfail {
            return Ok(answer);
        }
        let refused = failures.iter().all(|(_, error)| error.is::<Denied>());
        let failures: Vec<_> = failures.iter().map(|(server, error)| format!("{server}: {error:#}")).collect();
        let failures = failures.join("; ");
        Err(if refused { Denied(failures).into() } else { Error::msg(failures) })
    }

    /// Asks one server at each of its addresses, within its share of the time.
    fn ask_server(
        &self,
        server: &Server,
        servers_left: usize,
        request: &Request,
    ) -> Result<(SocketAddr, TcpStream, Answer)> {
        let deadline = self.deadline.part(servers_left)?;
        let addresses = match &server.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => resolve::addresses(name, deadline)?,
        };
        let mut last = None;
        for (n, address) in addresses.iter().enumerate() {
            let address = SocketAddr::new(*address, server.port);
            let asked = || {
                let deadline = deadline.part(addresses.len() - n)?;
                let mut stream = connect(address, deadline)?;
                let answer = self.exchange(&mut stream, request, deadline)?;
                Ok((stream, answer))
            };
            match asked() {
                Ok((stream, answer)) => return Ok((address, stream, answer)),
                Err(error) if addresses.len() > 1 => last = Some(anyhow::Error::context(error, address.to_string())),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow!("the name has no address")))
    }

    /// Signs, sends, receives and verifies.
    fn exchange(&self, stream: &mut TcpStream, request: &Request, deadline: Deadline) -> Result<Answer> {
        let mut request = request.clone();
        request.header_mut().set_id(random_id());
        let plain = request.clone();
        let transaction = match &self.key {
            None => None,
            Some(Key(key)) => {
                let signed = ClientTransaction::request(key, &mut request, Time48::now());
                Some(signed.map_err(|error| anyhow!("TSIG: {error}"))?)
            }
        };
        send(stream, request.as_slice(), deadline)?;
        let mut answer = Message::from_octets(receive(stream, deadline)?).map_err(|_| anyhow!("malformed answer"))?;
        check_answers(&answer, &plain)?;
        if let Some(transaction) = transaction {
            verify(&transaction, &mut answer)?;
        }
        ensure!(!answer.header().tc(), "the answer is truncated, over TCP");
        Ok(answer)
    }
}

/// Verifies the answer's signature and takes it off.
fn verify(transaction: &ClientTransaction<&domain::tsig::Key>, answer: &mut Answer) -> Result<()> {
    let now = Time48::now();
    let told = tsig_error(answer);
    let key = transaction.key().name().to_string();
    // BADTIME is told from the record as it is: the crate takes the server's time as 8 bytes into the signature where
    // RFC 8945, 4.3.3, has 6, so it finds no such answer well signed. Nothing but this message depends on it.
    if let (Rcode::NOTAUTH, Some((TsigRcode::BADTIME, server))) = (answer.header().rcode(), told) {
        bail!("the server answers BADTIME: {}", clocks(server, now));
    }
    match transaction.answer(answer, now) {
        Ok(()) => Ok(()),
        Err(ValidationError::ServerUnsigned) if matches!(answer.header().rcode(), Rcode::REFUSED | Rcode::NOTAUTH) => {
            Err(Denied(format!("the server answers {}, unsigned", answer.header().rcode())).into())
        }
        Err(ValidationError::ServerUnsigned) => bail!("the answer ({}) is not signed", answer.header().rcode()),
        Err(ValidationError::ServerBadKey) => {
            Err(Denied(format!("the server answers BADKEY: it has no key {key:?} of this algorithm")).into())
        }
        Err(ValidationError::ServerBadSig) => {
            Err(Denied(format!("the server answers BADSIG: its key {key:?} has another secret")).into())
        }
        Err(ValidationError::BadTime) => {
            bail!("the answer is signed at another time: {}", told.map_or_else(String::new, |(_, at)| clocks(at, now)))
        }
        Err(error) => bail!("the answer is not signed with our key {key:?}: {error}"),
    }
}

/// The error in an answer's TSIG record, and the server's time.
fn tsig_error(answer: &Answer) -> Option<(TsigRcode, Time48)> {
    let record = answer.get_last_additional::<Tsig<&[u8], ParsedName<&[u8]>>>()?;
    let tsig = record.data();
    Some((tsig.error(), tsig.other_time().unwrap_or_else(|| tsig.time_signed())))
}

/// How far apart two clocks are.
fn clocks(server: Time48, ours: Time48) -> String {
    let (server, ours) = (u64::from(server), u64::from(ours));
    let apart = server.abs_diff(ours);
    if server < ours {
        format!("its clock is {apart} s behind ours")
    } else {
        format!("its clock is {apart} s ahead of ours")
    }
}

pub(super) fn connect(address: SocketAddr, deadline: Deadline) -> Result<TcpStream> {
    let connected = loop {
        match TcpStream::connect_timeout(&address, deadline.remaining()?) {
            // Its socket is closed, so there is nothing to go on with.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            connected => break connected,
        }
    };
    let stream = connected.map_err(|error| in_time(error, deadline)).context("connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a message behind its length, 2 bytes in network order (RFC 1035, 4.2.2).
pub(super) fn send(stream: &mut TcpStream, message: &[u8], deadline: Deadline) -> Result<()> {
    let length = u16::try_from(message.len()).context("message: expected at most 65535 bytes")?;
    let framed = [&length.to_be_bytes(), message].concat();
    let mut rest = framed.as_slice();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(deadline.remaining()?))?;
        match stream.write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(in_time(error, deadline)).context("send"),
        }
    }
    Ok(())
}

/// Receives one message.
pub(super) fn receive(stream: &mut TcpStream, deadline: Deadline) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    fill(stream, &mut length, deadline)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    fill(stream, &mut message, deadline)?;
    Ok(message)
}

fn fill(stream: &mut TcpStream, buffer: &mut [u8], deadline: Deadline) -> Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        // Again before each piece: whoever sends single bytes slowly does not get more time.
        stream.set_read_timeout(Some(deadline.remaining()?))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => bail!("the server closed the connection without a whole answer"),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(in_time(error, deadline)).context("receive"),
        }
    }
    Ok(())
}

/// The error, in the deadline's own words if it is that.
fn in_time(error: std::io::Error, deadline: Deadline) -> Error {
    match (error.kind(), deadline.remaining()) {
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, Err(late)) => late,
        _ => error.into(),
    }
}
