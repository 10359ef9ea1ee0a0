//! A connection to a daemon's unix socket that never waits for longer than it was told to.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::deadline;

/// A connection on which everything together ends at a deadline.
pub struct DeadlineStream {
    stream: UnixStream,
    patience: Duration,
    deadline: Instant,
}

impl DeadlineStream {
    /// Connects; all that follows must be done within `patience` from now, and within the run's own time.
    ///
    /// # Errors
    /// Those of connect(2); `TimedOut` if nobody accepts in time.
    pub fn connect(socket: &Path, patience: Duration) -> io::Result<Self> {
        let patience = deadline::at_most(patience);
        if patience.is_zero() {
            return Err(timed_out(ErrorKind::WouldBlock.into(), patience));
        }
        let deadline = Instant::now() + patience;
        let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // For connect too: it waits while the listener's queue is full (unix(7), SO_SNDTIMEO).
        stream.set_write_timeout(Some(patience))?;
        let address = SockAddr::unix(socket)?;
        let connected = loop {
            match stream.connect(&address) {
                // While it waited; it is not connected then, unlike by TCP.
                Err(error) if error.kind() == ErrorKind::Interrupted && Instant::now() < deadline => {}
                connected => break connected,
            }
        };
        connected.map_err(|error| timed_out(error, patience))?;
        Ok(Self { stream: stream.into(), patience, deadline })
    }

    /// Begins another exchange, with a deadline of its own.
    pub fn restart(&mut self, patience: Duration) {
        self.patience = deadline::at_most(patience);
        self.deadline = Instant::now() + self.patience;
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(timed_out(ErrorKind::WouldBlock.into(), self.patience)) } else { Ok(left) }
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer).map_err(|error| timed_out(error, self.patience))
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer).map_err(|error| timed_out(error, self.patience))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The kernel tells of a timeout by EAGAIN, which nobody would understand.
fn timed_out(error: io::Error, patience: Duration) -> io::Error {
    if error.kind() != ErrorKind::WouldBlock {
        return error;
    }
    let over = deadline::left().is_some_and(|left| left.is_zero());
    let patience = if over { deadline::whole() } else { format!("{} s", patience.as_secs()) };
    io::Error::new(ErrorKind::TimedOut, format!("nothing within {patience}"))
}
