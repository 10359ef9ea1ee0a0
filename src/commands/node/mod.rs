//! `node up` and `node down`: the node's uplink, by ifupdown's variables or by options. `node bridges`: bridges for private
//! networks, each over a VLAN.

mod advertised;
pub(super) mod bridges;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzed;
pub(super) mod ifupdown;
mod others;
mod remains;
mod uplink;
mod uplink_args;
mod values;

use std::ffi::OsString;
use std::io::Write;

use anyhow::{Context, Result};
use lexopt::prelude::*;

pub(super) use self::uplink::{clear_unused, recorded, variables};
pub(crate) use self::uplink::{down, plan, up};
use self::uplink_args::UplinkArgs;
use crate::announce::repeat;
use crate::commands::{guard, not_so, reconcile};
use crate::kernel::{Kernel, read_sysctl};
use crate::log::Log;
use crate::object::{Plan, TABLE_MAIN, Verb};
use crate::settings::Settings;
use crate::setup::node_settings::{self, Nics};
use crate::state::{self, State};

/// What `--help` prints.
pub(super) const HELP: &str = "\
Usage: snf-network node up|down [OPTIONS]
       snf-network node bridges up|down OPTIONS   (node bridges --help)
       snf-network node guard

Sets up the uplink of routed guests, or undoes it. Without --dev the variables of ifupdown tell what to do (IFACE, ADDRFAM,
IF_IP_ROUTING_TABLE, IF_IP_GATEWAY, IF_IP_ONLINK, IF_IP_ROUTES, IF_IP_FORWARDING, IF_IP_PROXY_ARP, IF_IP_PROXY_NDP, IF_ARP_IP).

  --dev DEV            the uplink
  --table TABLE        the guests' routing table, by name or number (default: main)
  --gateway ADDRESS    the external router; may be given once per family
  --routes PREFIX...   prefixes on the uplink's link, separated by spaces or commas; may be given again
  --arp-ip ADDRESS     sender address of ARP requests that leave DEV
  --family inet|inet6  only this family (default: those of the addresses given; down: both)
  --no-forwarding      leave forwarding alone
  --no-proxy           do not answer for the guests on DEV
  --onlink             the gateway is on the link of DEV though none of --routes has it
  --force              change or remove what running guests use
  --dry-run            up only: print the commands that would do the same

node guard makes what guards TAPs with a virtio header, as node up and the first ifup do, or says why it cannot be had.
";

/// What the words behind `node` ask for.
enum Wanted {
    Help,
    Guard,
    /// None is its help.
    Bridges(Option<(Verb, bridges::BridgesArgs)>),
    /// None is whatever ifupdown's variables say.
    Uplink(Verb, Option<UplinkArgs>),
}

/// Runs `node`.
///
/// # Errors
/// What was asked for wrongly, or what failed on which object.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let (verb, asked) = match read(arguments)? {
        Wanted::Help => return print(HELP),
        Wanted::Guard => return make_guard(),
        Wanted::Bridges(asked) => return bridges::run(asked),
        Wanted::Uplink(verb, Some(asked)) => (verb, Some(asked)),
        Wanted::Uplink(verb, None) => (verb, ifupdown::asked()?),
    };
    asked.map_or(Ok(()), |asked| carry_out(verb, &asked))
}

fn read(arguments: &[OsString]) -> Result<Wanted> {
    let mut words = lexopt::Parser::from_args(arguments);
    let mut verb = None;
    let mut asked = UplinkArgs::default();
    let mut by_options = false;
    while let Some(word) = words.next().map_err(|error| not_so("node", error))? {
        let word = match word {
            Long(name) => format!("--{name}"),
            Short(name) => format!("-{name}"),
            Value(word) => word.to_string_lossy().into_owned(),
        };
        match word.as_str() {
            "--help" | "-h" => return Ok(Wanted::Help),
            "up" | "down" if verb.is_none() => verb = Some(if word == "up" { Verb::Add } else { Verb::Remove }),
            "guard" if verb.is_none() && !by_options => return Ok(Wanted::Guard),
            "bridges" if verb.is_none() && !by_options => {
                return bridges::BridgesArgs::by_options(&mut words).map(Wanted::Bridges);
            }
            _ => {
                by_options = true;
                asked.option(&word, &mut words)?;
            }
        }
    }
    let verb = verb.context("node: expected up, down, bridges or guard, see snf-network node --help")?;
    Ok(Wanted::Uplink(verb, by_options.then_some(asked)))
}

/// Runs `node guard`.
fn make_guard() -> Result<()> {
    let name = "node guard";
    let (settings, warnings) = Settings::load().context(name)?;
    let mut log = Log::new(["", name, "", "-"]);
    warnings.into_iter().for_each(|warning| log.line(format_args!("warning: {warning}")));
    let made = Kernel::open().map_err(Into::into).and_then(|mut kernel| guard::make(&mut kernel, &settings));
    super::conclude(made, &mut log, &settings, name)
}

/// Runs `node up` or `node down` for ifupdown, which calls us for every interface there is.
///
/// # Errors
/// As [`run`].
pub(super) fn run_hook(verb: Verb) -> Result<()> {
    ifupdown::asked_by_hook(verb)?.map_or(Ok(()), |asked| carry_out(verb, &asked))
}

fn carry_out(verb: Verb, asked: &UplinkArgs) -> Result<()> {
    let device = asked.device.clone().context("node: --dev (or IFACE) is missing, expected the uplink's name")?;
    let name = if verb == Verb::Add { "node up" } else { "node down" };
    let (settings, warnings) = Settings::load().context(name)?;
    let mut log = Log::new(["", name, device.as_str(), "-"]);
    for warning in warnings {
        log.line(format_args!("warning: {warning}"));
    }
    let mut done = asked.check(verb);
    for family in asked.families(verb) {
        if done.is_ok() {
            done = match verb {
                Verb::Add if asked.dry_run => print_plan(&plan(&asked.uplink(&device, family, &settings)?, &settings)?),
                Verb::Add => up(&asked.uplink(&device, family, &settings)?, asked.force, &settings, &mut log),
                Verb::Remove => down(&device, family, asked.force, &settings, &mut log),
            };
        }
    }
    if done.is_ok() && verb == Verb::Add && !asked.dry_run {
        done = restore_nics(asked, &settings, &mut log);
    }
    super::conclude(done, &mut log, &settings, &format!("{name} {device}"))
}

/// Makes anew what NICs lost while the uplink was gone, such as their proxy entries on it, and warns of settings that are too small for
/// them.
fn restore_nics(asked: &UplinkArgs, settings: &Settings, log: &mut Log) -> Result<()> {
    let read = |name: &str| read_sysctl(&format!("/proc/sys/net/{name}")).ok().flatten();
    let mut nics = Nics::default();
    for tap in state::interfaces(&settings.state_dir)? {
        let records = State::peek(&settings.state_dir, &tap).unwrap_or_default();
        nics.all += 1;
        nics.bridged += u32::from(records.iter().flatten().any(|(key, value)| key == "MODE" && value == "bridged"));
    }
    node_settings::warnings(nics, read).into_iter().for_each(|warning| log.say(warning));
    let mut kernel = Kernel::open()?;
    let mut users = Vec::new();
    for family in asked.families(Verb::Add) {
        users.extend(remains::users(&mut kernel, settings, family, asked.table.unwrap_or(TABLE_MAIN))?);
    }
    users.sort_unstable();
    users.dedup();
    if !users.is_empty() {
        for failure in reconcile::all(&mut kernel, settings, &users, log)? {
            log.say(format!("warning: {failure:#}"));
        }
    }
    repeat::leave(kernel.into_lingering(), None);
    Ok(())
}

fn print_plan(plan: &Plan) -> Result<()> {
    print(&plan.to_string())
}

/// Prints; a reader who went away is no error.
fn print(text: &str) -> Result<()> {
    let _nobody_listens = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
