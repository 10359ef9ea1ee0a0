//! Tests on Debian's own kernels, in virtual machines: for what the kernel of the machine that runs the tests may lack, and to see
//! that the program does the same on all kernels that its users run.
//!
//! A machine's whole file system is an initramfs with this very test binary as /init, the program under test, a few tools and
//! their libraries. /init runs the tests one after the other and reports a line of JSON for each on the second serial port.
//!
//! QEMU and the kernels' packages need the network and the user of whoever runs the tests, so a process that stays outside
//! our namespaces boots the machines when the first of these tests is due.

mod boot;
mod debian;
mod guest;
mod initramfs;
mod kernel;
mod qmp;
pub mod system;
mod table;
pub mod tenancy;
mod tenant;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::harness::Skip;
use crate::tests::Case;
use kernel::{SERIES, Series};

/// The argument that makes this binary the process which boots machines.
const BOOT: &str = "--boot-virtual-machines";
/// The variable of the environment that asks, by the value `all`, for all tests on all kernels, and for the table of their results.
const KERNELS: &str = "SNF_NETWORK_TEST_KERNELS";

/// What one of the other processes that this binary can be does, if it is one of them.
pub fn other_process() -> Option<ExitCode> {
    if std::process::id() == 1 {
        return Some(guest::init());
    }
    match env::args().nth(1)?.as_str() {
        BOOT => Some(boot::when_asked()),
        system::SYSTEMS => Some(system::when_asked()),
        guest::TEST => Some(guest::test(&env::args().nth(2)?)),
        _ => None,
    }
}

/// Were all tests on all kernels and releases of Debian asked for?
pub fn is_whole() -> bool {
    env::var(KERNELS).is_ok_and(|it| it == "all")
}

/// A test on a kernel.
#[derive(Clone)]
pub struct Trial {
    case: Case,
    series: &'static Series,
}

impl Trial {
    /// Its name as a test.
    pub fn name(&self) -> String {
        format!("{}[Linux {}]", self.case.name, self.series.name)
    }
}

/// The machines, not booted before one is needed.
pub struct Machines {
    trials: Vec<Trial>,
    /// Those that somebody will ask for: of each kernel.
    wanted: BTreeMap<&'static str, Vec<String>>,
    booter: Mutex<Booter>,
    report: Arc<Report>,
    whole: bool,
}

/// The process that boots them.
enum Booter {
    Waiting(Child),
    Failed(String),
    Started,
}

/// What came of the run so far.
#[derive(Default)]
struct Report {
    results: Mutex<Results>,
    more: Condvar,
}

#[derive(Default)]
struct Results {
    /// By kernel and test; no test where it is about the whole run.
    verdicts: HashMap<(String, Option<String>), Verdict>,
    /// The whole versions of the kernels.
    versions: BTreeMap<String, String>,
    ended: bool,
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

impl Machines {
    /// Starts the process that can boot them. Call this before entering any namespace.
    pub fn of(cases: impl Iterator<Item = Case>, is_wanted: impl Fn(&str) -> bool) -> Self {
        let whole = is_whole();
        let mut trials = Vec::new();
        let mut wanted = BTreeMap::<_, Vec<_>>::new();
        for case in cases.filter(|case| case.needs.is_none()) {
            for series in SERIES.iter().filter(|series| whole || case.always_on(series.name)) {
                let trial = Trial { case: case.clone(), series };
                if is_wanted(&trial.name()) {
                    wanted.entry(series.name).or_default().push(case.name.clone());
                }
                trials.push(trial);
            }
        }
        let start = || -> Result<Child> {
            let mut command = Command::new(env::current_exe()?);
            command.arg(BOOT).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().context("the process that boots virtual machines")
        };
        let booter = start().map_or_else(|error| Booter::Failed(format!("{error:#}")), Booter::Waiting);
        Self { trials, wanted, booter: Mutex::new(booter), report: Arc::default(), whole }
    }

    /// All tests on all kernels, or those of every run.
    pub fn trials(&self) -> impl Iterator<Item = Trial> {
        self.trials.iter().cloned()
    }

    /// What came of a test there.
    pub fn verdict(&self, trial: &Trial) -> Result<()> {
        self.boot();
        let name = trial.series.name.to_owned();
        let [test, run] = [Some(trial.case.name.clone()), None].map(|test| (name.clone(), test));
        let mut results = self.report.results();
        loop {
            match (results.verdicts.get(&test), results.verdicts.get(&run)) {
                (Some(verdict), _) | (None, Some(verdict)) => return verdict.clone().result(),
                (None, None) if results.ended => bail!("the virtual machine reported nothing of it"),
                (None, None) => {}
            }
            results = self.report.more.wait(results).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Boots them, if nobody has.
    fn boot(&self) {
        let mut booter = self.booter.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *booter, Booter::Started) {
            Booter::Started => {}
            Booter::Failed(error) => {
                let mut results = self.report.results();
                results.ended = true;
                let failed = |series: &Series| ((series.name.to_owned(), None), Verdict::Failed(error.clone()));
                results.verdicts.extend(SERIES.iter().map(failed));
            }
            Booter::Waiting(mut child) => {
                // The line that it waits for; if it is not there any more, it will report nothing.
                let line = format!("{}\n", json!(self.wanted));
                let _ = child.stdin.take().map(|mut stdin| stdin.write_all(line.as_bytes()));
                let report = Arc::clone(&self.report);
                thread::spawn(move || report.follow(child));
            }
        }
    }

    /// Writes the table of all that there was to find out, if that was asked for.
    pub fn write_table(&self) -> Result<()> {
        let started = matches!(*self.booter.lock().unwrap_or_else(PoisonError::into_inner), Booter::Started);
        if self.whole && started { table::write(&self.report.results()) } else { Ok(()) }
    }
}

impl Report {
    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down what the process says until it ends.
    fn follow(&self, mut child: Child) {
        for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
            let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
            let Some(kernel) = value["kernel"].as_str().map(str::to_owned) else { continue };
            let mut results = self.results();
            if let Some(version) = value["version"].as_str() {
                results.versions.insert(kernel, version.to_owned());
            } else if let Some((test, verdict)) = Verdict::of_line(&line) {
                results.verdicts.insert((kernel, test), verdict);
            }
            self.more.notify_all();
        }
        // All that it had to say was read.
        let _ = child.wait();
        self.results().ended = true;
        self.more.notify_all();
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if let Booter::Waiting(child) = self.booter.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // Nobody asked for a machine: end of file makes the process leave.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
