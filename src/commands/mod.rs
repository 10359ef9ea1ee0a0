//! The table of commands: which name runs what, and how a run ends.

pub mod announce;
pub mod announcer;
pub mod bridge;
pub mod dns;
pub mod errand;
pub mod extra;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
pub mod hook;
pub mod log;
pub mod nic;
pub mod node;
pub mod transition;
pub mod vif;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::environment::{Caller, RawNic};
use crate::kernel::confine::{self, Calls, Capability};
use crate::log::Log;
use crate::settings::Settings;
use crate::setup::filtered;

/// A command, its names and what `--help` says of it.
pub struct Command {
    /// The first one is its name in messages; each may be argv[0] or the first word.
    pub names: &'static [&'static str],
    /// What it takes, as usage lines have it.
    pub arguments: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The capabilities that it keeps; all others are given up before anything is read.
    needs: &'static [Capability],
    /// The system calls that it keeps.
    calls: Calls,
    run: fn(&Call) -> Result<()>,
}

/// How a command was called.
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// What came behind it.
    pub arguments: Vec<OsString>,
}

impl Command {
    /// What `--help` behind its name prints, if it has options of its own.
    pub fn help(&self) -> Option<&'static str> {
        match self.names[0] {
            "node" => Some(node::HELP),
            "dns" => Some(dns::HELP),
            _ => None,
        }
    }
}

/// Files of others are nfdhcpd's folder, the log, the name server's key.
const FILES: &[Capability] = &[Capability::DacOverride];
const NODE: &[Capability] = &[Capability::NetAdmin, Capability::DacOverride];
const NIC: &[Capability] = &[Capability::NetAdmin, Capability::NetRaw, Capability::DacOverride];
const FRAMES: &[Capability] = &[Capability::NetRaw];
const NONE: &[Capability] = &[];
const DEMO: &[Capability] =
    &[Capability::SysAdmin, Capability::Setfcap, Capability::NetAdmin, Capability::NetRaw, Capability::DacOverride];

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        names: &["ifup", "kvm-ifup-custom", "kvm-vif-bridge", "up"],
        arguments: "[TAP]",
        summary: "set up the NIC that the environment describes",
        needs: NIC,
        calls: Calls::All,
        run: ifup,
    },
    Command {
        names: &["ifdown", "kvm-ifdown-custom", "down"],
        arguments: "[TAP] [CLEANUP]",
        summary: "take it down again",
        needs: NIC,
        calls: Calls::All,
        run: ifdown,
    },
    Command {
        names: &["vif-custom"],
        arguments: "ACTION [type_if=KIND]",
        summary: "set up or take down a NIC for Xen's hotplug",
        needs: NIC,
        calls: Calls::NoProgram,
        run: vif::run,
    },
    Command {
        names: &["plan"],
        arguments: "[TAP]",
        summary: "print what ifup would do, as ip and nft lines, and touch nothing",
        needs: FILES,
        calls: Calls::NoProgram,
        run: plan,
    },
    Command {
        names: &["node"],
        arguments: "up|down [OPTIONS]",
        summary: "set up the node's uplink for routed guests or bridges, or undo it (node --help)",
        needs: NODE,
        calls: Calls::NoProgram,
        run: |call| node::run(&call.arguments),
    },
    Command {
        names: &["prv-net-helper"],
        arguments: "up|down DEV FIRST LAST OFFSET",
        summary: "make or remove bridges of private networks (node bridges --help)",
        needs: NODE,
        calls: Calls::NoProgram,
        run: |call| node::bridges::run_helper(&call.arguments),
    },
    Command {
        names: &["dns"],
        arguments: "show|sync|remove [OPTIONS]",
        summary: "an instance's records at the name server (dns --help)",
        needs: FILES,
        calls: Calls::NoProgram,
        run: |call| dns::run(&call.arguments),
    },
    Command {
        names: &["dnshook", "snf-network-dnshook"],
        arguments: "",
        summary: "bring the name server up to date after an operation of Ganeti",
        needs: FILES,
        calls: Calls::NoProgram,
        run: dns::hook,
    },
    Command {
        names: &["hook", "snf-network-hook"],
        arguments: "",
        summary: "clear away what an instance that left this node left behind, after an operation of Ganeti",
        needs: NODE,
        calls: Calls::NoProgram,
        run: hook::clear_away,
    },
    Command {
        names: &["arpsend"],
        arguments: "-U -i IP [-c COUNT] DEV",
        summary: "send gratuitous ARP for IP on DEV",
        needs: FRAMES,
        calls: Calls::NoProgram,
        run: |call| announce::arpsend(&call.arguments).context(call.name),
    },
    Command {
        names: &["ndsend"],
        arguments: "[-c COUNT] ADDR DEV",
        summary: "send unsolicited neighbour advertisements for ADDR on DEV",
        needs: FRAMES,
        calls: Calls::NoProgram,
        run: |call| announce::ndsend(&call.arguments).context(call.name),
    },
    Command {
        names: &["mac2eui64"],
        arguments: "[-c COUNT] MAC PREFIX",
        summary: "print the modified EUI-64 address of MAC in PREFIX",
        needs: NONE,
        calls: Calls::NoProgram,
        run: |call| announce::mac2eui64(&call.arguments).context(call.name),
    },
    Command {
        names: &["log", "snf-network-log"],
        arguments: "MESSAGE...",
        summary: "write a line into the log (snf-network-log: CALLER MESSAGE...)",
        needs: FILES,
        calls: Calls::NoProgram,
        run: log::run,
    },
    Command {
        names: &["demo"],
        arguments: "",
        summary: "show routed guests at work, in namespaces of its own",
        needs: DEMO,
        calls: Calls::All,
        run: demo,
    },
];

/// Runs the command that argv[0], the first word or ACTION names, or what ifupdown wants.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let mut words = arguments.into_iter().peekable();
    let program = words.next().unwrap_or_default();
    if let (Some(verb), None) = (node::ifupdown::verb_of(&program), words.peek()) {
        confined(NODE, Calls::NoProgram);
        return ended(node::run_hook(verb));
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
            Some(word) => complain(&format!("{word:?} is no command, see snf-network --help")),
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

fn ended(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
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
        log.line(format!("warning: {warning}"));
    }
    let done = run(&raw, &settings, &mut log);
    let done = conclude(done, &mut log, &settings, &explain())?;
    Ok(Some((settings, done)))
}

/// Ends a run: its error goes into the log too, the log is written, and the caller is shown what he is to see.
fn conclude<T>(done: Result<T>, log: &mut Log, settings: &Settings, name: &str) -> Result<T> {
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
    let Some((settings, told)) = for_nic(call, nic::ifup)? else { return Ok(()) };
    let Some(script) = settings.ifup_extra_script else { return Ok(()) };
    // The last act: the administrator's own script takes our place, no child of ours is left to wait for.
    let mut command = std::process::Command::new(&script);
    let error = command.args(&call.arguments).envs(told.into_iter().flatten()).exec();
    Err(error).with_context(|| format!("{}: IFUP_EXTRA_SCRIPT: {}", call.name, script.display()))
}

fn ifdown(call: &Call) -> Result<()> {
    let cleanup = call.arguments.get(1).and_then(|it| it.to_str()).unwrap_or_default();
    for_nic(call, |raw, settings, log| nic::ifdown(raw, cleanup, settings, log)).map(drop)
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
}
