//! The log: a line per action, gathered during the run and appended in one write. It never fails a run.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use crate::printable::is_plain;
use crate::sys::files;

/// What a run did, for the log.
#[derive(Debug, Default)]
pub struct Log {
    speaker: String,
    /// The lines, as they will be written.
    text: String,
    said: Vec<String>,
}

impl Log {
    /// `speaker`: the hook's path and phase (empty where there is none), command, interface, instance. Nobody has checked
    /// them yet: line breaks in them become spaces too.
    pub fn new(speaker: [&str; 4]) -> Self {
        let speaker = speaker.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ");
        let speaker = speaker.replace(|c: char| c.is_control(), " ");
        Self { speaker, ..Self::default() }
    }

    /// Adds a line that the caller shall see too.
    pub fn say(&mut self, text: impl std::fmt::Display) {
        self.line(&text);
        self.said.push(text.to_string());
    }

    /// What the caller shall see.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// Adds a line, unless it is empty; line breaks in it become spaces, so that nobody can forge one.
    pub fn line(&mut self, text: impl std::fmt::Display) {
        let before = self.text.len();
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let _infallible = write!(self.text, "{time} {}: ", self.speaker);
        let start = self.text.len();
        let _infallible = write!(self.text, "{text}");
        let line = &self.text[start..];
        if line.is_empty() {
            self.text.truncate(before);
            return;
        }
        if !is_plain(line) {
            let line = line.replace(|c: char| c.is_control(), " ");
            self.text.replace_range(start.., &line);
        }
        self.text.push('\n');
    }

    /// Appends the gathered lines to the file. One that cannot be written is not worth a guest's network, so errors are
    /// dropped.
    pub fn append_to(&mut self, path: &Path) {
        let _written = self.try_append_to(path);
    }

    /// Appends the gathered lines to the file, creating it if need be (mode 0640).
    ///
    /// # Errors
    /// Those of open(2) and write(2).
    pub fn try_append_to(&mut self, path: &Path) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return Ok(());
        }
        files::append(path, 0o640)?.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_forges_a_line() {
        let mut log = Log::new(["", "ifup", "tap0", "web1\n"]);
        log.line("a\n2026-01-01T00:00:00Z ifdown tap1: forged");
        let path = std::env::temp_dir().join(format!("snf-network-log-{}", std::process::id()));
        log.append_to(&path);
        let text = std::fs::read_to_string(&path).expect("the log");
        std::fs::remove_file(&path).expect("the log");
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(" ifup tap0 web1 : a 2026"), "{text}");
    }

    #[test]
    fn a_log_that_cannot_be_written_is_no_error() {
        let mut log = Log::default();
        log.line("a");
        log.append_to(Path::new("/nonexistent/log"));
        log.line("b");
        log.append_to(Path::new("/dev/full"));
    }
}
