//! `status`: all NICs and uplinks of the node, and what of them does not stand as it should.

mod path;
mod report;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::inspect::Inspection;
use super::{DRIFT, SUCCESS, Selection};
use crate::addr::IfName;
use crate::kernel::Kernel;
use crate::kernel::rtnetlink::monitor::Monitor;
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
pub fn run(arguments: &[OsString]) -> Result<u8> {
    let selection = Selection::new("status", arguments, true, &["json", "watch", "verbose"])?;
    let (settings, _) = Settings::load().context("status")?;
    let form = match (selection.has("json"), selection.has("verbose")) {
        (true, true) => bail!("status: --json: expected without --verbose"),
        (true, false) => Form::Json,
        (false, true) => Form::Ways,
        (false, false) => Form::Table,
    };
    if selection.has("watch") {
        return watch(settings, &selection.taps, form).context("status").map(|()| SUCCESS);
    }
    let inspection = look(&settings, &selection.taps, form).context("status")?;
    super::print(&report(&inspection, form));
    match inspection.failure() {
        Some(failure) => Err(failure.context("status")),
        None if inspection.is_right() => Ok(SUCCESS),
        None => Ok(DRIFT),
    }
}

fn look(settings: &Settings, taps: &[IfName], form: Form) -> Result<Inspection> {
    let mut kernel = Kernel::open()?;
    // A way leads through the uplinks.
    let look = if form == Form::Ways { Inspection::with_uplinks } else { Inspection::of };
    look(&mut kernel, settings, taps)
}

/// What is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    /// The table, and the way of each NIC's packets.
    Ways,
    Json,
}

fn report(inspection: &Inspection, form: Form) -> String {
    match form {
        Form::Table => report::table(inspection),
        Form::Ways => report::table(inspection) + &path::text(inspection),
        Form::Json => format!("{}\n", report::json(inspection)),
    }
}

/// Prints again whenever something differs from what was printed, until it is interrupted or nobody reads any more.
fn watch(mut settings: Settings, taps: &[IfName], form: Form) -> Result<()> {
    let changes = Monitor::listen()?;
    let clear = if std::io::stdout().is_terminal() && form != Form::Json { CLEAR } else { "" };
    let mut shown = String::new();
    loop {
        let text = report(&look(&settings, taps, form)?, form);
        if text != shown {
            let mut out = std::io::stdout().lock();
            if write!(out, "{clear}{text}").and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
            shown = text;
        }
        sleep(PAUSE);
        changes.wait(Instant::now() + UNTOLD)?;
        // What should stand is a matter of them, too. While somebody writes them, the former ones hold.
        if let Ok((now, _)) = Settings::load() {
            settings = now;
        }
    }
}
