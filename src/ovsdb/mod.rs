//! A small client of Open vSwitch's configuration database: JSON-RPC (RFC 7047) over ovsdb-server's unix socket, a connection
//! for each object of a Plan and a deadline for each exchange.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
pub mod port;
mod value;

use std::fmt;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use serde_json::{Deserializer, Value, json};

use crate::printable::{is_printable, quoted};
use crate::sys::unix_stream::DeadlineStream;

/// How long one exchange with ovsdb-server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long ovs-vswitchd may take to do what the database says: with thousands of ports it was seen to need seconds.
const SWITCH_PATIENCE: Duration = Duration::from_secs(10);
/// The database (ovs-vswitchd.conf.db(5)).
const DATABASE: &str = "Open_vSwitch";
/// Longest message that is read, in bytes: an answer to us is about one kilobyte.
const LONGEST: u64 = 1024 * 1024;
/// Characters of the server's own words that are passed on as they are.
const WORDS: usize = 400;

/// A connection to ovsdb-server.
pub struct Ovsdb {
    stream: BufReader<DeadlineStream>,
    requests: u64,
}

/// What OVSDB refused, in its own words (RFC 7047, 3.1, <error>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, such as `constraint violation` or `timed out`.
    pub error: String,
    /// What exactly, if it says so.
    pub details: Option<String>,
}

impl Refusal {
    fn of(value: &Value) -> Self {
        // Of no words at all, their quotes are shown.
        let text = |it: &Value| match it.as_str() {
            Some(text) if !words(text).is_empty() => text.to_owned(),
            _ => it.to_string(),
        };
        match value.get("error") {
            Some(error) => Self { error: text(error), details: value.get("details").map(text) },
            None => Self { error: text(value), details: None },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", words(&self.error))?;
        self.details.iter().try_for_each(|details| write!(f, ": {}", words(details)))
    }
}

impl std::error::Error for Refusal {}

impl Ovsdb {
    /// Connects to the server that listens on `socket`.
    ///
    /// # Errors
    /// Those of connect(2), and that nobody accepts in time.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream =
            DeadlineStream::connect(socket, PATIENCE).with_context(|| format!("OVSDB_SOCKET {}", socket.display()))?;
        Ok(Self { stream: BufReader::new(stream), requests: 0 })
    }

    /// Runs operations (RFC 7047, 5.2) as one transaction; the result of each.
    ///
    /// # Errors
    /// A [`Refusal`]: then nothing was changed. Else what is wrong with the connection or the answer.
    fn transact(&mut self, operations: &[Value], patience: Duration) -> Result<Vec<Value>> {
        self.exchange(operations, patience).context("OVSDB")
    }

    fn exchange(&mut self, operations: &[Value], patience: Duration) -> Result<Vec<Value>> {
        self.requests += 1;
        let id = self.requests;
        let parameters: Vec<_> = [json!(DATABASE)].into_iter().chain(operations.iter().cloned()).collect();
        let request = json!({ "method": "transact", "params": parameters, "id": id }).to_string();
        let connection = self.stream.get_mut();
        connection.restart(patience);
        connection.write_all(request.as_bytes())?;
        results(answer(&mut self.stream, id)?, operations.len())
    }

    /// Waits until ovs-vswitchd has done what the database says since `generation` (Open_vSwitch.next_cfg).
    fn carried_out(&mut self, generation: i64) -> Result<()> {
        let until = json!({
            "op": "wait", "table": "Open_vSwitch", "where": [["cur_cfg", "<", generation]], "columns": ["_uuid"],
            "until": "==", "rows": [], "timeout": SWITCH_PATIENCE.as_millis() as u64,
        });
        match self.transact(&[until], SWITCH_PATIENCE + PATIENCE) {
            Err(error) if waited_in_vain(&error) => {
                bail!("ovs-vswitchd has not done its part within {} s, expected it to run", SWITCH_PATIENCE.as_secs())
            }
            waited => waited.map(drop),
        }
    }
}

/// Whether it was a `wait` that refused: what it waited for did not come.
fn waited_in_vain(error: &Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|it| it.error == "timed out")
}

/// Reads the answer to the request of this number. The server may ask whether we are alive meanwhile (RFC 7047, 4.1.11), and
/// tell what we did not ask for.
fn answer<S: Read + Write>(stream: &mut BufReader<S>, id: u64) -> Result<Vec<Value>> {
    loop {
        let mut message = message(stream)?;
        match message.get("method").and_then(Value::as_str) {
            Some("echo") if !message["id"].is_null() => {
                let reply = json!({ "id": message["id"], "result": message["params"], "error": null }).to_string();
                stream.get_mut().write_all(reply.as_bytes())?;
                continue;
            }
            Some(_) => continue,
            None => {}
        }
        ensure!(message["id"] == id, "answer to request {}: expected {id}", shown(&message["id"]));
        if !message["error"].is_null() {
            bail!(Refusal::of(&message["error"]));
        }
        return match message["result"].take() {
            Value::Array(results) => Ok(results),
            other => bail!("result {}: expected an array", shown(&other)),
        };
    }
}

/// Reads one message. Nothing tells where one ends but its own last brace.
fn message(stream: &mut BufReader<impl Read>) -> Result<Value> {
    let first = loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("answer")?;
        if !byte[0].is_ascii_whitespace() {
            break byte;
        }
    };
    // Of an object no byte is read beyond its end.
    ensure!(first == *b"{", "answer that begins with \"{}\": expected a JSON object", first.escape_ascii());
    let rest = first.as_slice().chain(stream).take(LONGEST);
    match Deserializer::from_reader(rest).into_iter::<Value>().next() {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) if error.is_io() => Err(std::io::Error::from(error)).context("answer"),
        Some(Err(error)) if error.is_eof() => bail!("answer: ends early, or is longer than {LONGEST} bytes"),
        Some(Err(error)) => bail!("answer: expected JSON: {}", words(&error.to_string())),
        None => bail!("answer: ends early"),
    }
}

/// The results of `expected` operations; OVSDB adds one more where the whole is refused only in the end.
fn results(results: Vec<Value>, expected: usize) -> Result<Vec<Value>> {
    if let Some(refusal) = results.iter().find(|it| it.get("error").is_some_and(|it| !it.is_null())) {
        bail!(Refusal::of(refusal));
    }
    let done = results.iter().filter(|it| it.is_object()).count();
    ensure!(done == expected && results.len() == expected, "{done} results: expected {expected}");
    Ok(results)
}

/// A value that should not be there.
fn shown(value: &Value) -> String {
    quoted(&value.to_string()).to_string()
}

/// What the server said, if it can be shown as it is.
fn words(text: &str) -> String {
    if is_printable(text) && text.chars().nth(WORDS).is_none() { text.to_owned() } else { quoted(text).to_string() }
}

#[cfg(test)]
mod tests;
