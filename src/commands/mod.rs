//! Commands: which name runs what, and how a run ends.

pub mod addresses;
pub mod arpsend;
pub mod bridge;
pub mod checks;
pub mod dns;
pub mod dns_update;
pub mod extra;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
pub mod gc;
mod guard;
pub mod hook;
pub mod inspect;
pub mod log;
pub mod nic;
pub mod node;
pub mod reconcile;
pub mod recorded;
pub mod replace;
pub mod status;
mod table;
pub mod vif;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail};
use lexopt::prelude::*;

pub use self::table::{COMMANDS, Command};
use self::table::{NIC, NODE, done};
use crate::addr::IfName;
use crate::environment::{Caller, RawNic};
use crate::kernel::confine::{self, Calls, Capability};
use crate::kernel::process;
use crate::log::Log;
use crate::printable::quoted;
use crate::settings::Settings;
use crate::setup::filtered;

/// How a command was called.
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// What came behind it.
    pub arguments: Vec<OsString>,
}

/// EXIT_SUCCESS and EXIT_FAILURE of stdlib.h.
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;
/// What a command that only looked exits with where something is not as it should be.
const DRIFT: u8 = 3;

/// Runs the command that argv[0], the first word or ACTION names, or what ifupdown wants. Returns the exit status; what was left to
/// processes of their own has not begun yet.
pub fn run(arguments: Vec<OsString>) -> u8 {
    process::ignore_file_size_signal();
    let mut words = arguments.into_iter().peekable();
    let program = words.next().unwrap_or_default();
    if let (Some(verb), None) = (node::ifupdown::verb_of(&program), words.peek()) {
        confined(NODE, Calls::NoProgram);
        return ended(done(node::run_hook(verb)));
    }
    let called = Path::new(&program).file_name().unwrap_or_default();
    let found = named(called).or_else(|| words.next_if(|word| named(word).is_some()).and_then(named));
    if found.is_none() {
        // Whatever ACTION says, no other command comes of it.
        let _best_effort = confine::keep(NIC);
    }
    let Some((command, name)) = found.or_else(|| by_action(called)) else {
        return match words.next() {
            Some(word) if ["--help", "-h", "help"].iter().any(|it| word == *it) => print(&help()),
            Some(word) if ["--version", "-V"].iter().any(|it| word == *it) => {
                print(concat!("snf-network ", env!("CARGO_PKG_VERSION"), "\n"))
            }
            Some(word) => {
                complain(&format!("{} is no command, see snf-network --help", quoted(&word.to_string_lossy())))
            }
            None => complain("expected a command, see snf-network --help"),
        };
    };
    confined(command.needs, command.calls);
    ended((command.run)(&Call { name, arguments: words.collect() }))
}

/// Gives up what a command does not need. Where the kernel knows none of this, or a container forbids it, the network is worth
/// more.
fn confined(needs: &[Capability], calls: Calls) {
    let _best_effort = confine::keep(needs).and_then(|()| confine::allow(calls));
}

fn ended(done: Result<u8>) -> u8 {
    match done {
        Ok(code) => code,
        Err(error) => complain(&format!("{error:#}")),
    }
}

fn named(word: impl AsRef<OsStr>) -> Option<(&'static Command, &'static str)> {
    COMMANDS.iter().find_map(|command| {
        let name = command.names.iter().find(|name| word.as_ref() == **name)?;
        Some((command, *name))
    })
}

/// What ACTION of Ganeti 3.2 asks for, where a link to the program has a name that says nothing. By the program's own name it
/// counts for nothing: an administrator's script, which ifup runs with its environment, must not start ifup by mistake.
fn by_action(called: &OsStr) -> Option<(&'static Command, &'static str)> {
    let action = Caller::from_process().action.filter(|it| ["up", "down"].contains(&it.as_str()))?;
    if called == env!("CARGO_PKG_NAME") { None } else { named(action) }
}

/// One line on stderr, whatever the message holds; Ganeti shows it to the operator.
fn complain(message: &str) -> u8 {
    let line = message.replace(|c: char| c.is_control(), " ");
    let _nobody_listens = writeln!(std::io::stderr(), "{line}");
    FAILURE
}

/// Prints; a reader who went away is no error.
fn print(text: &str) -> u8 {
    let _nobody_listens = std::io::stdout().write_all(text.as_bytes());
    SUCCESS
}

fn help() -> String {
    let mut text =
        String::from("Usage: snf-network COMMAND [ARGUMENTS], or a link named like a command\n\nCommands:\n");
    for command in COMMANDS {
        let usage = format!("{} {}", command.names[0], command.arguments);
        text += &format!("  {usage:<34} {}\n", command.summary);
        if let [_, also @ ..] = command.names
            && !also.is_empty()
        {
            text += &format!("  {:<34} (also {})\n", "", also.join(", "));
        }
    }
    text + "\nSettings: /etc/default/snf-network, or the file that SNF_NETWORK_DEFAULTS names.\n"
}

/// Reads the NIC and the settings, runs, and writes the log whatever comes of it. None if the NIC is none of our business.
fn for_nic<T>(
    call: &Call,
    run: impl FnOnce(&RawNic, &Settings, &mut Log) -> Result<T>,
) -> Result<Option<(Settings, T)>> {
    let raw = RawNic::from_process(call.arguments.first().map(OsString::as_os_str)).context(call.name)?;
    if raw.is_communication() {
        return Ok(None);
    }
    let interface = raw.interface.clone().unwrap_or_default();
    let explain = || if interface.is_empty() { call.name.to_owned() } else { format!("{} {interface}", call.name) };
    let (settings, warnings) = Settings::load().with_context(explain)?;
    let mut log =
        Log::new([&Caller::from_process().hook(), call.name, &interface, raw.instance.as_deref().unwrap_or("-")]);
    for warning in warnings {
        log.line(format_args!("warning: {warning}"));
    }
    let done = run(&raw, &settings, &mut log);
    let done = conclude(done, &mut log, &settings, &explain())?;
    Ok(Some((settings, done)))
}

/// Ends a run: its error goes into the log too, the log is written, and the caller is shown what he is to see.
fn conclude<T>(done: Result<T>, log: &mut Log, settings: &Settings, name: &str) -> Result<T> {
    if let Err(error) = &done {
        log.line(format_args!("error: {error:#}"));
    }
    log.append_to(&settings.logfile);
    for said in log.said() {
        complain(&format!("{name}: {said}"));
    }
    done.with_context(|| name.to_owned())
}

/// All errors as one, each whole, between semicolons.
///
/// # Errors
/// If there are any.
fn joined(errors: &[Error]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(anyhow!(errors.iter().map(|it| format!("{it:#}")).collect::<Vec<_>>().join("; ")))
}

fn ifup(call: &Call) -> Result<()> {
    let Some((settings, told)) = for_nic(call, nic::ifup)? else { return Ok(()) };
    let Some(script) = settings.ifup_extra_script else { return Ok(()) };
    // The last act: the administrator's own script takes our place, no child of ours is left to wait for.
    process::begin();
    process::heed_file_size_signal();
    let mut command = std::process::Command::new(&script);
    let error = command.args(&call.arguments).envs(told.into_iter().flatten()).exec();
    Err(error).with_context(|| format!("{}: IFUP_EXTRA_SCRIPT: {}", call.name, script.display()))
}

fn ifdown(call: &Call) -> Result<()> {
    let cleanup = call.arguments.get(1).map(|it| it.to_string_lossy()).unwrap_or_default();
    for_nic(call, |raw, settings, log| nic::ifdown(raw, &cleanup, settings, log)).map(drop)
}

/// Arguments of a command that looks at many NICs: TAPs, and the options that it has.
struct Selection {
    taps: Vec<IfName>,
    given: Vec<String>,
}

impl Selection {
    fn new(command: &str, arguments: &[OsString], takes_taps: bool, options: &[&str]) -> Result<Self> {
        let mut selection = Self { taps: Vec::new(), given: Vec::new() };
        let mut words = lexopt::Parser::from_args(arguments);
        while let Some(word) = words.next().map_err(|error| not_so(command, error))? {
            match word {
                Long(name) if options.contains(&name) => selection.given.push(name.to_owned()),
                Short('v') if options.contains(&"verbose") => selection.given.push("verbose".to_owned()),
                Value(tap) if takes_taps => {
                    let tap = tap.to_string_lossy();
                    selection.taps.push(tap.parse().with_context(|| format!("{command}: {}", quoted(&tap)))?);
                }
                Long(name) => return Err(unknown(command, &format!("--{name}"))),
                Short(letter) => return Err(unknown(command, &format!("-{letter}"))),
                Value(word) => return Err(unknown(command, &word.to_string_lossy())),
            }
        }
        Ok(selection)
    }

    fn has(&self, option: &str) -> bool {
        self.given.iter().any(|it| it == option)
    }
}

fn unknown(command: &str, word: &str) -> Error {
    anyhow!("{command}: {}: expected what it takes, see snf-network --help", quoted(word))
}

/// What is wrong with a word: lexopt shows a value as long as it is.
fn not_so(command: &str, error: lexopt::Error) -> Error {
    match error {
        lexopt::Error::UnexpectedValue { option, value } => {
            anyhow!("{command}: {option}: {}: expected no value", quoted(&value.to_string_lossy()))
        }
        other => Error::new(other).context(command.to_owned()),
    }
}

fn demo(call: &Call) -> Result<()> {
    if let Some(argument) = call.arguments.first() {
        bail!("demo: {}: expected no arguments", quoted(&argument.to_string_lossy()));
    }
    crate::demo::run()
}

fn plan(call: &Call) -> Result<()> {
    let mut text = String::new();
    for_nic(call, |raw, settings, log| {
        let plan = nic::plan(raw, settings, log)?;
        text = plan.to_string();
        text.extend(filtered::per_tap(&plan.elements).into_iter().map(|line| format!("# {line}\n")));
        Ok(())
    })?;
    print(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_promises_help_has_it() {
        for command in COMMANDS {
            let promised = command.summary.ends_with(&format!("({} --help)", command.names[0]));
            assert_eq!(command.help().is_some(), promised, "{}", command.names[0]);
        }
    }

    #[test]
    fn wrong_words_are_named_on_one_short_line() {
        let long = format!("--json={}", "\n".repeat(70));
        for (word, expected) in [
            ("--ver\u{1b}bose", r#"gc: "--ver\u{1b}bose": expected what it takes, see snf-network --help"#.to_owned()),
            ("-\u{1}", r#"gc: "-\u{1}": expected what it takes, see snf-network --help"#.to_owned()),
            ("tap\n0", r#"gc: "tap\n0": expected what it takes, see snf-network --help"#.to_owned()),
            (&long, format!(r#"gc: --json: "{}"... (70 bytes): expected no value"#, r"\n".repeat(64))),
        ] {
            // What follows an option that is known is its value.
            let words = [word, "x"].map(OsString::from);
            let error = Selection::new("gc", &words, false, &["json"]).err().expect(word);
            assert_eq!(format!("{error:#}"), expected);
        }
    }
}
