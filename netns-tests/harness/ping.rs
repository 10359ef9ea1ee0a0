//! The real `ping`, many times a second, and which of its packets were answered.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::netns::Netns;
use super::until;

/// Seconds between two packets.
const INTERVAL: &str = "0.02";

/// A `ping` under way.
pub struct Pinging {
    destination: IpAddr,
    child: Child,
    /// How often each packet was answered so far, by its number; one that is late by now, 0 times.
    answers: Arc<Mutex<BTreeMap<u32, u32>>>,
    reader: Option<JoinHandle<()>>,
}

/// How many packets there were, how many of them were never answered, and how many more than once.
#[derive(Clone, Copy, Debug)]
pub struct Losses {
    /// All.
    pub sent: u32,
    /// Not answered.
    pub lost: u32,
    /// Answered more than once.
    pub repeated: usize,
}

impl fmt::Display for Losses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of {} packets lost, one each {INTERVAL} s", self.lost, self.sent)?;
        if self.repeated > 0 { write!(out, "; {} answered more than once", self.repeated) } else { Ok(()) }
    }
}

impl Pinging {
    /// Starts it.
    pub fn start(netns: &Netns, destination: IpAddr) -> Result<Self> {
        let mut command = Command::new("ping");
        // -O: also tells of each packet that was not answered when the next one is due.
        command.args(["-n", "-O", "-i", INTERVAL]).arg(destination.to_string()).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = netns.run(|| command.spawn()).context("ping")?;
        let lines = BufReader::new(child.stdout.take().context("ping's output")?).lines();
        let answers = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = Arc::clone(&answers);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some(number) = number_of(&line) else { continue };
                let mut answers = shared.lock().unwrap_or_else(PoisonError::into_inner);
                *answers.entry(number).or_default() += u32::from(line.contains(" bytes from "));
            }
        });
        Ok(Self { destination, child, answers, reader: Some(reader) })
    }

    fn answers(&self) -> BTreeMap<u32, u32> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` packets that are sent from now on have been answered.
    ///
    /// # Errors
    /// If they are not within the patience of all tests.
    pub fn goes_on(&self, count: usize) -> Result<()> {
        // The next one may be on its way.
        let known = self.answers().last_key_value().map_or(0, |(number, _)| number + 1);
        until(&format!("{count} answers of {}", self.destination), || {
            Ok(self.answers().range(known + 1..).filter(|(_, answers)| **answers > 0).count() >= count)
        })
    }

    /// Ends it.
    pub fn finish(mut self) -> Result<Losses> {
        // As by Ctrl-C: it prints its totals.
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "the reader of ping's output panicked");
        }
        let answers = self.answers();
        // What was sent last may have been on its way when it ended.
        let Some(last) = answers.iter().rev().find(|(_, answers)| **answers > 0).map(|(number, _)| *number) else {
            return Ok(Losses { sent: answers.len().try_into()?, lost: answers.len().try_into()?, repeated: 0 });
        };
        let answered = answers.values().filter(|answers| **answers > 0).count();
        let repeated = answers.values().filter(|answers| **answers > 1).count();
        Ok(Losses { sent: last, lost: last - u32::try_from(answered)?, repeated })
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number in `... icmp_seq=N ...`. It has 16 bits, enough for 20 minutes.
fn number_of(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("icmp_seq=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
