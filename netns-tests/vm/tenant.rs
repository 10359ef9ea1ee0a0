//! Inside a guest of the tests: /init of a machine behind a TAP, which does what it is told on its second serial port.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::guest::REPORT;
use crate::harness::netns::Netns;
use crate::harness::port::Port;

/// What `ip -batch` sets up its card by.
pub const SETUP: &str = "/setup";
/// What it says once it listens.
pub const READY: &str = "ready";
/// Where the output of the stream of pings is.
const STREAM: &str = "/tmp/stream";

/// Sets the card up and does what it is told, a line each, until the machine ends. Each line is answered by one.
pub fn serve() -> Result<()> {
    for words in [&["ip", "-batch", SETUP][..], &["stty", "-F", REPORT, "raw", "-echo"]] {
        let output = Command::new(words[0]).args(&words[1..]).output().context(words[0])?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let card = Port::packet(&Netns::of_this_thread()?, "eth0", false)?;
    let mut serial = OpenOptions::new().read(true).write(true).open(REPORT).context(REPORT)?;
    let lines = BufReader::new(serial.try_clone()?).lines();
    writeln!(serial, "{READY}")?;
    let mut stream = None;
    for line in lines {
        let answer = act(&line?, &card, &mut stream).unwrap_or_else(|error| format!("error: {error:#}"));
        writeln!(serial, "{}", answer.replace('\n', " "))?;
    }
    Ok(())
}

fn act(line: &str, card: &Port, stream: &mut Option<Child>) -> Result<String> {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("send", hex) => {
            let digits = |at: usize| hex.get(at..at + 2).context("an odd digit");
            let bytes = (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?));
            // What the guest's own kernel refuses arrives nowhere.
            Ok(card
                .send(&bytes.collect::<Result<Vec<_>>>()?)
                .map_or_else(|error| format!("{error:#}"), |()| String::new()))
        }
        ("ping", address) => {
            let output = Command::new("ping").args(["-n", "-c1", "-W60", address]).output().context("ping")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            Ok(String::new())
        }
        ("stream", address) => {
            let mut command = Command::new("ping");
            command.args(["-n", "-q", "-i", "0.05", address]).stdout(File::create(STREAM)?).stdin(Stdio::null());
            *stream = Some(command.spawn().context("ping")?);
            Ok(String::new())
        }
        ("end", _) => {
            let mut child = stream.take().context("there is no stream")?;
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
            child.wait()?;
            let text = fs::read_to_string(STREAM)?;
            text.lines().find(|line| line.contains("transmitted")).map(str::to_owned).context(text)
        }
        _ => bail!("{line:?}"),
    }
}
