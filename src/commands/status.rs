//! `status`: all NICs and uplinks of the node, and what of them does not stand as it should.

mod report;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::survey::Survey;
use super::{DRIFT, Selection};
use crate::addr::IfName;
use crate::kernel::Kernel;
use crate::kernel::changes::Changes;
use crate::settings::Settings;

/// With --watch: after so long it is looked again though nothing was told, as the kernel tells nobody of proxy entries and
/// files.
const UNTOLD: Duration = Duration::from_secs(1);
/// With --watch: between two looks while changes come in without end.
const PAUSE: Duration = Duration::from_millis(100);
/// Clears the terminal (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Runs `status`.
///
/// # Errors
/// What could not be read.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let selection = Selection::new("status", arguments, true, &["json", "watch"])?;
    let (settings, _) = Settings::load().context("status")?;
    let json = selection.has("json");
    if selection.has("watch") {
        return watch(&settings, &selection.taps, json).context("status").map(|()| ExitCode::SUCCESS);
    }
    let survey = look(&settings, &selection.taps).context("status")?;
    super::print(&report(&survey, json));
    match survey.failure() {
        Some(failure) => Err(failure.context("status")),
        None if survey.is_right() => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(DRIFT)),
    }
}

fn look(settings: &Settings, taps: &[IfName]) -> Result<Survey> {
    Survey::of(&mut Kernel::open()?, settings, taps)
}

fn report(survey: &Survey, json: bool) -> String {
    if json { format!("{}\n", report::json(survey)) } else { report::table(survey) }
}

/// Prints again whenever something differs from what was printed, until it is interrupted or nobody reads any more.
fn watch(settings: &Settings, taps: &[IfName], json: bool) -> Result<()> {
    let changes = Changes::listen()?;
    let clear = if std::io::stdout().is_terminal() && !json { CLEAR } else { "" };
    let mut shown = String::new();
    loop {
        let text = report(&look(settings, taps)?, json);
        if text != shown {
            let mut out = std::io::stdout().lock();
            if write!(out, "{clear}{text}").and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
            shown = text;
        }
        sleep(PAUSE);
        changes.wait(Instant::now() + UNTOLD)?;
    }
}
