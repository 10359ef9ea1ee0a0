//! A small client of xenstore, where Xen keeps what it knows of its domains: over xenstored's unix socket, a connection and
//! a deadline for each exchange. The messages are those of Xen's public header io/xs_wire.h.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::printable::quoted;
use crate::sys::unix_stream::DeadlineStream;

/// How long one exchange may take. The five that a failing run can need stay well under the 40 s that Xen gives it.
const PATIENCE: Duration = Duration::from_secs(3);
/// XENSTORE_PAYLOAD_MAX: bytes behind a header.
const MAX_PAYLOAD: usize = 4096;
/// Our only request on a connection; xenstored repeats the number in its answer.
const REQUEST_ID: u32 = 1;

const XS_READ: u32 = 2;
const XS_WRITE: u32 = 11;
const XS_WATCH_EVENT: u32 = 15;
const XS_ERROR: u32 = 16;

/// xenstored.
#[derive(Clone, Debug)]
pub struct Xenstore {
    socket: PathBuf,
}

/// What xenstored answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The payload, as it is.
    Done(Vec<u8>),
    /// The name of an errno, such as ENOENT.
    Refused(String),
}

impl Xenstore {
    /// The one that listens there.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The value at a path; none if there is no such path.
    ///
    /// # Errors
    /// If xenstored does not answer in time, refuses, or the value is not UTF-8.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        let read = || match self.exchange(XS_READ, &[path.as_bytes(), b"\0"].concat())? {
            Answer::Refused(error) if error == "ENOENT" => Ok(None),
            Answer::Refused(error) => bail!("{error}"),
            Answer::Done(value) => {
                let shown = value.escape_ascii().to_string();
                let value = String::from_utf8(value).ok();
                value.map(Some).with_context(|| format!("{}: expected UTF-8", quoted(&shown)))
            }
        };
        read().with_context(|| format!("xenstore: read {path}"))
    }

    /// Writes a value at a path, without a NUL behind it.
    ///
    /// # Errors
    /// If it is too long, or xenstored does not answer in time or refuses.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        let write = || match self.exchange(XS_WRITE, &[path.as_bytes(), b"\0", value.as_bytes()].concat())? {
            Answer::Refused(error) => bail!("{error}"),
            Answer::Done(answer) => {
                ensure!(answer == b"OK\0", "answer \"{}\": expected OK", answer.escape_ascii());
                Ok(())
            }
        };
        write().with_context(|| format!("xenstore: write {path}"))
    }

    fn exchange(&self, kind: u32, payload: &[u8]) -> Result<Answer> {
        ensure!(payload.len() <= MAX_PAYLOAD, "{} bytes: expected at most {MAX_PAYLOAD}", payload.len());
        let mut connection =
            DeadlineStream::connect(&self.socket, PATIENCE).with_context(|| self.socket.display().to_string())?;
        connection.write_all(&[&header([kind, REQUEST_ID, 0, payload.len() as u32])[..], payload].concat())?;
        answer(&mut connection, kind)
    }
}

/// A header: type, request, transaction, bytes that follow; each in the byte order of this machine.
fn header(words: [u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Reads the answer to our request of type `kind`; events come to whoever is connected, and are skipped.
fn answer(from: &mut impl Read, kind: u32) -> Result<Answer> {
    loop {
        let mut words = [0; 4];
        for word in &mut words {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes).context("answer")?;
            *word = u32::from_ne_bytes(bytes);
        }
        let [answered, request, _transaction, length] = words;
        let length = length as usize;
        ensure!(length <= MAX_PAYLOAD, "answer of {length} bytes: expected at most {MAX_PAYLOAD}");
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).context("answer")?;
        if answered == XS_WATCH_EVENT {
            continue;
        }
        ensure!(request == REQUEST_ID, "answer to request {request}: expected {REQUEST_ID}");
        return match answered {
            XS_ERROR => {
                let name = payload.strip_suffix(b"\0").unwrap_or(&payload);
                let is_name = (1..=32).contains(&name.len()) && name.iter().all(u8::is_ascii_alphanumeric);
                ensure!(is_name, "error \"{}\": expected the name of one", name[..name.len().min(32)].escape_ascii());
                Ok(Answer::Refused(String::from_utf8_lossy(name).into_owned()))
            }
            _ if answered == kind => Ok(Answer::Done(payload)),
            _ => bail!("answer of type {answered}: expected {kind}"),
        };
    }
}

/// What a fuzz target does with what xenstored says.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzzed(bytes: &[u8]) {
    match answer(&mut &bytes[..], XS_READ) {
        Ok(Answer::Done(value)) => assert!(value.len() <= MAX_PAYLOAD),
        Ok(Answer::Refused(name)) => assert!(name.bytes().all(|b| b.is_ascii_alphanumeric())),
        Err(error) => crate::fuzzed::check_error(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(words: [u32; 3], payload: &[u8]) -> Vec<u8> {
        let [kind, request, transaction] = words;
        [&header([kind, request, transaction, payload.len() as u32])[..], payload].concat()
    }

    fn of(bytes: &[u8]) -> Result<Answer> {
        answer(&mut &bytes[..], XS_READ)
    }

    #[test]
    fn answers_are_read_and_events_skipped() {
        let value = message([XS_READ, REQUEST_ID, 0], b"web1");
        let event = message([XS_WATCH_EVENT, 0, 0], b"backend\0token\0");
        assert_eq!(of(&value).expect("a value"), Answer::Done(b"web1".to_vec()));
        assert_eq!(of(&[&event[..], &event, &value].concat()).expect("a value"), Answer::Done(b"web1".to_vec()));
        let error = message([XS_ERROR, REQUEST_ID, 0], b"ENOENT\0");
        assert_eq!(of(&error).expect("an answer"), Answer::Refused("ENOENT".to_owned()));
        // What xs_wire.h shows, in the byte order of most machines.
        #[cfg(target_endian = "little")]
        assert_eq!(value, b"\x02\0\0\0\x01\0\0\0\0\0\0\0\x04\0\0\0web1");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for (bytes, expected) in [
            (message([XS_READ, 7, 0], b"x"), "answer to request 7: expected 1"),
            (message([XS_WRITE, REQUEST_ID, 0], b"OK\0"), "answer of type 11: expected 2"),
            (header([XS_READ, REQUEST_ID, 0, 4097]).to_vec(), "answer of 4097 bytes: expected at most 4096"),
            (header([XS_READ, REQUEST_ID, 0, u32::MAX]).to_vec(), "answer of 4294967295 bytes"),
            (header([XS_READ, REQUEST_ID, 0, 4]).to_vec(), "answer: failed to fill whole buffer"),
            (Vec::new(), "answer: failed to fill whole buffer"),
            (message([XS_ERROR, REQUEST_ID, 0], b"\x1b[2J\n"), r#"error "\x1b[2J\n": expected the name of one"#),
            (message([XS_ERROR, REQUEST_ID, 0], b""), "expected the name of one"),
        ] {
            let error = format!("{:#}", of(&bytes).expect_err(expected));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn mutated_answers_are_survived() {
        let good = [
            message([XS_WATCH_EVENT, 0, 0], b"backend\0token\0"),
            message([XS_ERROR, REQUEST_ID, 0], b"EACCES\0"),
            message([XS_READ, REQUEST_ID, 0], b"web1.example.org"),
        ]
        .concat();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=random(4) {
                let place = random(bytes.len());
                match random(4) {
                    0 => bytes[place] ^= 1 << random(8),
                    1 => bytes.truncate(place + 1),
                    2 => bytes.insert(place, random(256) as u8),
                    _ => bytes.rotate_left(place),
                }
            }
            fuzzed(&bytes);
        }
    }
}
