//! Tests on Debian's own kernel, in a virtual machine: for what the kernel of the machine that runs the tests may lack.
//!
//! The machine's whole file system is an initramfs with this very test binary as /init, the program under test, a few tools and
//! their libraries. /init runs the tests one after the other and reports a line of JSON for each on the second serial port.
//!
//! QEMU and the kernel's package need the network and the user of whoever runs the tests, so a process that stays outside
//! our namespaces boots the machine when the first of these tests is due.

mod boot;
mod guest;
mod initramfs;
mod kernel;

use std::collections::HashMap;
use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::Test;
use crate::harness::Skip;

/// The argument that makes this binary the process which boots the machine.
const BOOT: &str = "--boot-virtual-machine";

/// What one of the other processes that this binary can be does, if it is one of them.
pub fn other_process(tests: &[Test]) -> Option<ExitCode> {
    if std::process::id() == 1 {
        return Some(guest::init(tests));
    }
    (env::args().nth(1).as_deref() == Some(BOOT)).then(boot::when_asked)
}

/// The machine, not booted before it is needed.
pub struct Machine {
    booter: Mutex<Result<Child, String>>,
    report: OnceLock<Report>,
}

/// What came of the run.
struct Report {
    /// Why there is none of some or all tests.
    why_not: Option<Verdict>,
    verdicts: HashMap<String, Verdict>,
}

/// What came of a test.
#[derive(Clone, Debug)]
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
}

impl Verdict {
    fn result(self) -> Result<()> {
        match self {
            Self::Passed => Ok(()),
            Self::Skipped(reason) => Err(Skip(reason).into()),
            Self::Failed(error) => bail!(error),
        }
    }

    /// As the line of JSON on its way out; `test` is none where it is about the whole run.
    fn line(&self, test: Option<&str>) -> String {
        let (word, reason) = match self {
            Self::Passed => ("passed", ""),
            Self::Skipped(reason) => ("skipped", reason.as_str()),
            Self::Failed(error) => ("failed", error.as_str()),
        };
        json!({ "test": test, "verdict": word, "reason": reason }).to_string()
    }

    fn of_line(line: &str) -> Option<(Option<String>, Self)> {
        let value: Value = serde_json::from_str(line.trim()).ok()?;
        let reason = value["reason"].as_str()?.to_owned();
        let verdict = match value["verdict"].as_str()? {
            "passed" => Self::Passed,
            "skipped" => Self::Skipped(reason),
            _ => Self::Failed(reason),
        };
        Some((value["test"].as_str().map(str::to_owned), verdict))
    }
}

impl Machine {
    /// Starts the process that can boot it. Call this before entering any namespace.
    pub fn new() -> Self {
        let start = || -> Result<Child> {
            let mut command = Command::new(env::current_exe()?);
            command.arg(BOOT).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().context("the process that boots the virtual machine")
        };
        Self { booter: Mutex::new(start().map_err(|error| format!("{error:#}"))), report: OnceLock::new() }
    }

    /// What came of a test there.
    pub fn verdict(&self, test: &str) -> Result<()> {
        let report = self.report.get_or_init(|| self.boot());
        match (report.verdicts.get(test), &report.why_not) {
            (Some(verdict), _) | (None, Some(verdict)) => verdict.clone().result(),
            (None, None) => bail!("the virtual machine reported nothing of it"),
        }
    }

    fn boot(&self) -> Report {
        let mut report = Report { why_not: None, verdicts: HashMap::new() };
        let mut booter = self.booter.lock().unwrap_or_else(PoisonError::into_inner);
        let child = match &mut *booter {
            Ok(child) => child,
            Err(error) => {
                report.why_not = Some(Verdict::Failed(error.clone()));
                return report;
            }
        };
        // The line that it waits for; if it is not there any more, it will report nothing.
        let _ = child.stdin.take().map(|mut stdin| std::io::Write::write_all(&mut stdin, b"boot\n"));
        for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
            match Verdict::of_line(&line) {
                Some((Some(test), verdict)) => drop(report.verdicts.insert(test, verdict)),
                Some((None, verdict)) => report.why_not = Some(verdict),
                None => {}
            }
        }
        let _ = child.wait();
        report
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(child) = self.booter.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // Nobody asked for the machine: end of file makes the process leave.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
