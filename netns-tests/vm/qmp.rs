//! QEMU's monitor (docs/interop/qmp-spec.txt of QEMU): a line of JSON per command, answer and event.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::harness::patience;

/// A connection to it.
pub struct Monitor {
    socket: BufReader<UnixStream>,
}

impl Monitor {
    /// On a socket that is connected to it; leaves the negotiation.
    pub fn on(socket: UnixStream) -> Result<Self> {
        socket.set_read_timeout(Some(patience()))?;
        let mut monitor = Self { socket: BufReader::new(socket) };
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Lets it do something; what it returns.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.socket.get_mut().write_all(line.as_bytes()).context("QEMU's monitor")?;
        loop {
            let mut line = String::new();
            self.socket.read_line(&mut line).with_context(|| format!("QEMU's answer to {command}"))?;
            let mut answer: Value = serde_json::from_str(&line).with_context(|| format!("QEMU's answer {line:?}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            // The greeting and events come in between.
            if let Some(returned) = answer.get_mut("return") {
                return Ok(returned.take());
            }
        }
    }
}
