//! The table of commands: which name runs what, and how a run ends.

pub mod announce;
pub mod announcer;
pub mod bridge;
pub mod dns;
pub mod errand;
pub mod gc;
pub mod hook;
pub mod nic;
pub mod node;
pub mod reconcile;
pub mod status;
pub mod survey;
pub mod transition;
pub mod vif;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

use crate::addr::IfName;
use crate::environment::{Caller, RawNic};
use crate::log::Log;
use crate::printable::quoted;
use crate::settings::Settings;
use crate::setup::filtered;

/// A command, its names and what `--help` says of it.
struct Command {
    /// The first one is its name in messages; each may be argv[0] or the first word.
    names: &'static [&'static str],
    arguments: &'static str,
    summary: &'static str,
    run: fn(&Call) -> Result<ExitCode>,
}

/// How a command was called.
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// What came behind it.
    pub arguments: Vec<OsString>,
}

/// What a command that did what it was asked for exits with.
fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}

/// What a command that only looked exits with where something is not as it should be.
const DRIFT: u8 = 3;

const COMMANDS: &[Command] = &[
    Command {
        names: &["ifup", "kvm-ifup-custom", "kvm-vif-bridge", "up"],
        arguments: "[TAP]",
        summary: "set up the NIC that the environment describes",
        run: |call| done(ifup(call)),
    },
    Command {
        names: &["ifdown", "kvm-ifdown-custom", "down"],
        arguments: "[TAP] [CLEANUP]",
        summary: "take it down again",
        run: |call| done(ifdown(call)),
    },
    Command {
        names: &["vif-custom"],
        arguments: "ACTION [type_if=KIND]",
        summary: "set up or take down a NIC for Xen's hotplug",
        run: |call| done(vif::run(call)),
    },
    Command {
        names: &["plan"],
        arguments: "[TAP]",
        summary: "print what ifup would do, as ip and nft lines, and touch nothing",
        run: |call| done(plan(call)),
    },
    Command {
        names: &["node"],
        arguments: "up|down [OPTIONS]",
        summary: "set up the node's uplink for routed guests, or undo it (node --help)",
        run: |call| done(node::run(&call.arguments)),
    },
    Command {
        names: &["status"],
        arguments: "[TAP...] [--json] [--watch]",
        summary: "show all NICs and uplinks, and what of them does not stand as it should (exit code 3)",
        run: |call| status::run(&call.arguments),
    },
    Command {
        names: &["reconcile"],
        arguments: "[TAP...] [--dry-run]",
        summary: "put right what status finds",
        run: |call| reconcile::run(&call.arguments),
    },
    Command {
        names: &["gc"],
        arguments: "[--dry-run]",
        summary: "remove what NICs that are gone left behind",
        run: |call| gc::run(&call.arguments),
    },
    Command {
        names: &["dns"],
        arguments: "show|sync|remove [OPTIONS]",
        summary: "an instance's records at the name server (dns --help)",
        run: |call| done(dns::run(&call.arguments)),
    },
    Command {
        names: &["dnshook", "snf-network-dnshook"],
        arguments: "",
        summary: "bring the name server up to date after an operation of Ganeti",
        run: |call| done(dns::hook(call)),
    },
    Command {
        names: &["hook", "snf-network-hook"],
        arguments: "",
        summary: "clear away what an instance that left this node left behind, after an operation of Ganeti",
        run: |call| done(hook::clear_away(call)),
    },
    Command {
        names: &["arpsend"],
        arguments: "-U -i IP [-c COUNT] DEV",
        summary: "send gratuitous ARP for IP on DEV",
        run: |call| done(announce::arpsend(&call.arguments)),
    },
    Command {
        names: &["ndsend"],
        arguments: "[-c COUNT] ADDR DEV",
        summary: "send unsolicited neighbour advertisements for ADDR on DEV",
        run: |call| done(announce::ndsend(&call.arguments)),
    },
    Command {
        names: &["mac2eui64"],
        arguments: "[-c COUNT] MAC PREFIX",
        summary: "print the modified EUI-64 address of MAC in PREFIX",
        run: |call| done(announce::mac2eui64(&call.arguments)),
    },
    Command {
        names: &["demo"],
        arguments: "",
        summary: "show routed guests at work, in namespaces of its own",
        run: |call| done(demo(call)),
    },
];

/// Runs the command that argv[0], the first word or ACTION names.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let mut words = arguments.into_iter().peekable();
    let program = words.next().unwrap_or_default();
    let called = Path::new(&program).file_name().unwrap_or_default();
    let found = named(called).or_else(|| words.next_if(|word| named(word).is_some()).and_then(named));
    let Some((command, name)) = found.or_else(|| by_action(called)) else {
        return match words.next() {
            Some(word) if ["--help", "-h", "help"].iter().any(|it| word == *it) => print(&help()),
            Some(word) if ["--version", "-V"].iter().any(|it| word == *it) => {
                print(concat!("snf-network ", env!("CARGO_PKG_VERSION"), "\n"))
            }
            Some(word) => complain(&format!("{word:?} is no command, see snf-network --help")),
            None => complain("expected a command, see snf-network --help"),
        };
    };
    match (command.run)(&Call { name, arguments: words.collect() }) {
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
fn complain(message: &str) -> ExitCode {
    let line = message.replace(|c: char| c.is_control(), " ");
    let _nobody_listens = writeln!(std::io::stderr(), "{line}");
    ExitCode::FAILURE
}

/// Prints; a reader who went away is no error.
fn print(text: &str) -> ExitCode {
    let _nobody_listens = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
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

/// Reads the NIC and the settings, runs, and writes the log whatever comes of it.
fn for_nic(call: &Call, run: impl FnOnce(&RawNic, &Settings, &mut Log) -> Result<()>) -> Result<Option<Settings>> {
    let raw = RawNic::from_process(call.arguments.first().map(OsString::as_os_str)).context(call.name)?;
    if raw.is_communication() {
        return Ok(None);
    }
    let interface = raw.interface.clone().unwrap_or_default();
    let explain = || if interface.is_empty() { call.name.to_owned() } else { format!("{} {interface}", call.name) };
    let (settings, warnings) = Settings::load().with_context(explain)?;
    let caller = Caller::from_process();
    let hook = [caller.hooks_path, caller.hooks_phase].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let mut log = Log::new([&hook, call.name, &interface, raw.instance.as_deref().unwrap_or("-")]);
    for warning in warnings {
        log.line(format!("warning: {warning}"));
    }
    let done = run(&raw, &settings, &mut log);
    conclude(done, &mut log, &settings, &explain())?;
    Ok(Some(settings))
}

/// Ends a run: its error goes into the log too, the log is written, and the caller is shown what he is to see.
fn conclude(done: Result<()>, log: &mut Log, settings: &Settings, name: &str) -> Result<()> {
    if let Err(error) = &done {
        log.line(format!("error: {error:#}"));
    }
    log.append_to(&settings.logfile);
    for said in log.said() {
        complain(&format!("{name}: {said}"));
    }
    done.with_context(|| name.to_owned())
}

fn ifup(call: &Call) -> Result<()> {
    let script = for_nic(call, nic::ifup)?.and_then(|settings| settings.ifup_extra_script);
    let Some(script) = script else { return Ok(()) };
    // The last act: the administrator's own script takes our place, no child of ours is left to wait for.
    let error = std::process::Command::new(&script).args(&call.arguments).exec();
    Err(error).with_context(|| format!("{}: IFUP_EXTRA_SCRIPT: {}", call.name, script.display()))
}

fn ifdown(call: &Call) -> Result<()> {
    let cleanup = call.arguments.get(1).and_then(|it| it.to_str()).unwrap_or_default();
    for_nic(call, |raw, settings, log| nic::ifdown(raw, cleanup, settings, log)).map(drop)
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
        while let Some(word) = words.next().context(command.to_owned())? {
            match word {
                Long(name) if options.contains(&name) => selection.given.push(name.to_owned()),
                Value(tap) if takes_taps => {
                    let tap = tap.to_string_lossy();
                    selection.taps.push(tap.parse().with_context(|| format!("{command}: {}", quoted(&tap)))?);
                }
                other => bail!("{command}: {}, see snf-network --help", other.unexpected()),
            }
        }
        Ok(selection)
    }

    fn has(&self, option: &str) -> bool {
        self.given.iter().any(|it| it == option)
    }
}

fn demo(call: &Call) -> Result<()> {
    if let Some(argument) = call.arguments.first() {
        bail!("demo: {argument:?}: expected no arguments");
    }
    crate::demo::run()
}

fn plan(call: &Call) -> Result<()> {
    let mut text = String::new();
    for_nic(call, |raw, settings, _| {
        let plan = nic::plan(raw, settings)?;
        text = plan.to_string();
        text.extend(filtered::per_tap(&plan.elements).into_iter().map(|line| format!("# {line}\n")));
        Ok(())
    })?;
    print(&text);
    Ok(())
}
