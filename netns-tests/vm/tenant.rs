//! Inside a guest of the tests: /init of a machine behind a TAP, which sends the frames that it is told on its second serial port.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::guest::REPORT;
use crate::harness::netns::Netns;
use crate::harness::port::Port;

/// What `ip -batch` sets up its card by.
pub const SETUP: &str = "/setup";
/// What it says once it listens.
pub const READY: &str = "ready";

/// Sets the card up and sends what it is told, a frame a line, until the machine ends. Each line is answered by one.
pub fn serve() -> Result<()> {
    for words in [&["ip", "-batch", SETUP][..], &["stty", "-F", REPORT, "raw", "-echo"]] {
        let output = Command::new(words[0]).args(&words[1..]).output().context(words[0])?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let card = Port::packet(&Netns::of_this_thread()?, "eth0", false)?;
    let mut serial = OpenOptions::new().read(true).write(true).open(REPORT).context(REPORT)?;
    let lines = BufReader::new(serial.try_clone()?).lines();
    writeln!(serial, "{READY}")?;
    for line in lines {
        // What the guest's own kernel refuses arrives nowhere.
        let answer = card.send(&frame(&line?)?).map_or_else(|error| format!("{error:#}"), |()| String::new());
        writeln!(serial, "{}", answer.replace('\n', " "))?;
    }
    Ok(())
}

/// The bytes of a frame in hexadecimal digits.
fn frame(line: &str) -> Result<Vec<u8>> {
    let digits = |at: usize| line.get(at..at + 2).context("an odd digit");
    (0..line.len()).step_by(2).map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?)).collect()
}
