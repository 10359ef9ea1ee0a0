//! Inside a guest of the tests: /init of a machine behind a TAP, which does what it is told on its second serial port.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::guest::REPORT;
use crate::harness::netns::Netns;
use crate::harness::port::Port;

/// How long a tick takes, of the guest's own time.
const TICK: Duration = Duration::from_millis(10);

/// What `ip -batch` sets up its card by.
pub const SETUP: &str = "/setup";
/// What it says once it listens.
pub const READY: &str = "ready";
/// The word before a command that it is to run; it answers with what went wrong.
pub const RUN: &str = "run ";
/// Asks which boot of the guest this is, and for the ticks of its process since then.
pub const TICKS: &str = "ticks";

/// Sets the card up and does what it is told, until the machine ends: it runs a command, or sends a frame (a line of hexadecimal
/// digits). Each line is answered by one.
pub fn serve() -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    for words in [&["ip", "-batch", SETUP][..], &["stty", "-F", REPORT, "raw", "-echo"]] {
        run(words)?;
    }
    let card = Port::packet(&Netns::of_this_thread()?, "eth0", false)?;
    let mut serial = OpenOptions::new().read(true).write(true).open(REPORT).context(REPORT)?;
    let lines = BufReader::new(serial.try_clone()?).lines();
    thread::spawn(|| {
        loop {
            thread::sleep(TICK);
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
    });
    writeln!(serial, "{READY}")?;
    for line in lines {
        let line = line?;
        let answer = if line == TICKS {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
            format!("{} {}", boot.trim(), COUNT.load(Ordering::Relaxed))
        } else {
            let done = match line.strip_prefix(RUN) {
                Some(command) => run(&command.split_whitespace().collect::<Vec<_>>()),
                // What the guest's own kernel refuses arrives nowhere.
                None => card.send(&frame(&line)?),
            };
            done.map_or_else(|error| format!("{error:#}"), |()| String::new())
        };
        writeln!(serial, "{}", answer.replace('\n', " "))?;
    }
    Ok(())
}

fn run(words: &[&str]) -> Result<()> {
    let output = Command::new(words.first().context("no command")?).args(&words[1..]).output().context("run")?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "{words:?}: {}", said.trim());
    Ok(())
}

/// The bytes of a frame in hexadecimal digits.
fn frame(line: &str) -> Result<Vec<u8>> {
    let digits = |at: usize| line.get(at..at + 2).context("an odd digit");
    (0..line.len()).step_by(2).map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?)).collect()
}
