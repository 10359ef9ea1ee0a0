//! What the demo prints: numbered steps, what was configured for each, the frames that prove it, and how it went.

use std::io::Write;

use anyhow::{Result, bail};

use super::guest::Direction;
use crate::frame::Frame;

/// Columns of a line.
const WIDTH: usize = 80;
/// Indentation of what stands below a title, and of what is broken off such a line.
const INDENT: usize = 4;
const HANGING: usize = 8;

/// Escape sequences of a terminal (ECMA-48, SGR).
#[derive(Clone, Copy)]
enum Style {
    Plain,
    Bold,
    Green,
    Red,
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Green => "32",
            Self::Red => "1;31",
            Self::Cyan => "36",
        }
    }
}

/// The steps so far.
pub struct Report<'w> {
    out: &'w mut dyn Write,
    colour: bool,
    steps: u32,
    failed: Vec<u32>,
}

impl<'w> Report<'w> {
    /// A report without steps; `colour` is for terminals.
    pub fn new(out: &'w mut dyn Write, colour: bool) -> Self {
        Self { out, colour, steps: 0, failed: Vec::new() }
    }

    /// Runs a step and prints its title, what it shows, and its conclusion or why it failed. Returns whether it went
    /// well.
    pub fn step(&mut self, title: &str, run: impl FnOnce(&mut Self) -> Result<String>) -> bool {
        self.steps += 1;
        self.print(Style::Plain, "", 0, 0, "");
        self.print(Style::Bold, &format!("{:2}. {title}", self.steps), 0, INDENT, "");
        match run(self) {
            Ok(conclusion) => {
                self.print(Style::Green, &format!("ok: {conclusion}"), INDENT, HANGING, "");
                true
            }
            Err(error) => {
                self.failed.push(self.steps);
                self.print(Style::Red, &format!("FAILED: {error:#}"), INDENT, HANGING, "");
                false
            }
        }
    }

    /// A paragraph of its own.
    pub fn say(&mut self, text: &str) {
        self.print(Style::Plain, text, 0, 0, "");
    }

    /// A line of a step.
    pub fn note(&mut self, text: &str) {
        self.print(Style::Plain, text, INDENT, HANGING, "");
    }

    /// Shows commands as `set -x` of a shell would.
    pub fn commands(&mut self, commands: impl IntoIterator<Item = String>) {
        for command in commands {
            self.print(Style::Cyan, &format!("+ {command}"), INDENT, HANGING, " \\");
        }
    }

    /// Shows a frame as it went through `place` of a node, with its Ethernet addresses if they matter.
    pub fn frame(&mut self, place: &str, direction: Direction, frame: &Frame, addresses: bool) {
        let direction = match direction {
            Direction::In => "In ",
            Direction::Out => "Out",
        };
        let words = if addresses { format!("{frame:#}") } else { frame.to_string() };
        self.print(Style::Plain, &format!("{place} {direction} {words}"), INDENT, HANGING, "");
    }

    /// Prints how many steps there were.
    ///
    /// # Errors
    /// If any failed: which.
    pub fn conclude(mut self) -> Result<()> {
        self.print(Style::Plain, "", 0, 0, "");
        let steps = self.steps;
        let [first, rest @ ..] = self.failed.as_slice() else {
            self.print(Style::Green, &format!("All {steps} steps are ok."), 0, 0, "");
            return Ok(());
        };
        let numbers = rest.iter().fold(first.to_string(), |all, number| format!("{all}, {number}"));
        bail!("demo: failed: step {numbers} of {steps}");
    }

    /// Prints a text in lines of at most [`WIDTH`] columns, as far as there are spaces at which it can be broken;
    /// `tail` marks a line that goes on.
    fn print(&mut self, style: Style, text: &str, first: usize, next: usize, tail: &str) {
        let code = style.code();
        for line in wrapped(text, first, next, tail) {
            // A reader who went away is no failure of the network's.
            let _nobody_listens = if self.colour && !code.is_empty() {
                writeln!(self.out, "\x1b[{code}m{line}\x1b[0m")
            } else {
                writeln!(self.out, "{line}")
            };
        }
    }
}

/// Breaks a text at spaces; lines of its own stay.
fn wrapped(text: &str, first: usize, next: usize, tail: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for part in text.split('\n') {
        let mut words = part.split(' ');
        let mut line = " ".repeat(first) + words.next().unwrap_or_default();
        for word in words {
            if line.chars().count() + 1 + word.chars().count() + tail.len() <= WIDTH {
                line = line + " " + word;
            } else {
                lines.push(line + tail);
                line = " ".repeat(next) + word;
            }
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_spaces() {
        assert_eq!(wrapped("a b", 2, 4, ""), ["  a b"]);
        let (forty, long) = ("x".repeat(40), "y".repeat(90));
        assert_eq!(
            wrapped(&format!("{forty} {forty} {long}"), 1, 3, " \\"),
            [format!(" {forty} \\"), format!("   {forty} \\"), format!("   {long}")]
        );
        assert_eq!(wrapped("a\nb", 1, 3, ""), [" a", " b"]);
    }

    #[test]
    fn a_failed_step_is_named_at_the_end() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, false);
        assert!(report.step("one", |_| Ok("fine".to_owned())));
        assert!(!report.step("two", |report| {
            report.commands(["ip link".to_owned()]);
            bail!("broken")
        }));
        assert!(!report.step("three", |_| bail!("too")));
        assert_eq!(report.conclude().expect_err("a failure").to_string(), "demo: failed: step 2, 3 of 3");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "\n 1. one\n    ok: fine\n\n 2. two\n    + ip link\n    FAILED: broken\n\n 3. three\n    FAILED: too\n\n"
        );
    }

    #[test]
    fn colour_is_for_those_who_want_it() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, true);
        report.step("one", |_| Ok("fine".to_owned()));
        report.conclude().expect("no failure");
        assert!(String::from_utf8(out).expect("text").contains("\x1b[32m    ok: fine\x1b[0m\n"));
    }
}
