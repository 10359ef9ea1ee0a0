//! `node bridges`: makes or removes the bridges of private networks, each over a VLAN of one device.

use std::ffi::OsString;
use std::fmt::Display;

use anyhow::{Context, Result, anyhow, bail, ensure};
use lexopt::prelude::*;

use super::{print, print_plan};
use crate::addr::IfName;
use crate::commands::{conclude, not_so};
use crate::kernel::Kernel;
use crate::kernel::rtnetlink::{self, LinkState};
use crate::log::Log;
use crate::object::{Bridge, GROUP_NODE, Object, Plan, Verb, VlanDevice};
use crate::printable::quoted;
use crate::reconcile;
use crate::settings::Settings;
use crate::setup::bridges::{self, PrivateBridge};
use crate::state;

const HELP: &str = "\
Usage: snf-network node bridges up|down --parent DEV --first N --last M [--offset K] [--dry-run]
       prv-net-helper up|down DEV N M K

Makes the bridges prvN to prvM. The port of each is a VLAN device of DEV, with the bridge's number plus K as its VLAN:
prv1's is DEV.2991 for an offset of 2990. What is there already stays as it is. down removes what up made, but for bridges
that are in use.

  --parent DEV   the device whose link carries the VLANs
  --first N      number of the first bridge, from 0
  --last M       number of the last bridge
  --offset K     what is added to a bridge's number to get its VLAN (default: 0)
  --dry-run      up only: print the commands that would do the same
";

/// What is asked for.
#[derive(Debug)]
pub(super) struct BridgesArgs {
    parent: IfName,
    /// In ascending order.
    bridges: Vec<PrivateBridge>,
    dry_run: bool,
}

impl BridgesArgs {
    /// # Errors
    /// If a number is out of range, or a name too long.
    fn new(parent: IfName, first: u16, last: u16, offset: i32, dry_run: bool) -> Result<Self> {
        ensure!(first <= last, "node bridges: --last {last}: expected a number from --first on, which is {first}");
        let mut bridges = Vec::new();
        for number in first..=last {
            let vid = u16::try_from(i32::from(number).saturating_add(offset)).ok();
            let vid = vid.filter(|vid| (1..=4094).contains(vid));
            let vid = vid.with_context(|| {
                format!("node bridges: --offset {offset}: the VLAN of prv{number}: expected a number from 1 to 4094")
            })?;
            let name = format!("{parent}.{vid}");
            let name = name.parse().with_context(|| format!("node bridges: --parent {parent}: {}", quoted(&name)))?;
            let port = VlanDevice { name, lower: parent.clone(), vid };
            bridges.push(PrivateBridge { bridge: Bridge { name: format!("prv{number}").parse()? }, port });
        }
        Ok(Self { parent, bridges, dry_run })
    }

    /// By options; none if only help was asked for.
    pub(super) fn by_options(words: &mut lexopt::Parser) -> Result<Option<(Verb, Self)>> {
        let (mut verb, mut parent, mut first, mut last, mut offset, mut dry_run) = (None, None, None, None, 0, false);
        while let Some(word) = words.next().map_err(|error| not_so("node bridges", error))? {
            let option = match word {
                Value(word) if verb.is_none() => {
                    verb = Some(self::verb(&word.to_string_lossy())?);
                    continue;
                }
                Value(word) => bail!("node bridges: {}: expected an option", quoted(&word.to_string_lossy())),
                Long("help") | Short('h') => return Ok(None),
                Long("dry-run") => {
                    dry_run = true;
                    continue;
                }
                Long(name @ ("parent" | "first" | "last" | "offset")) => format!("--{name}"),
                Long(other) => bail!("node bridges: {}: expected an option", quoted(&format!("--{other}"))),
                Short(other) => bail!("node bridges: {}: expected an option", quoted(&format!("-{other}"))),
            };
            let value = words.value().with_context(|| format!("node bridges: {option}"))?;
            let value = value.to_string_lossy();
            match option.as_str() {
                "--parent" => parent = Some(device(&value)?),
                "--first" => first = Some(number(&option, &value)?),
                "--last" => last = Some(number(&option, &value)?),
                _ => offset = number(&option, &value)?,
            }
        }
        let verb = verb.context("node bridges: expected up or down, see snf-network node bridges --help")?;
        let missing =
            |option: &str| format!("node bridges: {option} is missing, expected as node bridges --help has it");
        let parent = parent.with_context(|| missing("--parent"))?;
        let (first, last) = (first.with_context(|| missing("--first"))?, last.with_context(|| missing("--last"))?);
        ensure!(verb == Verb::Add || !dry_run, "node bridges: --dry-run: expected with up only");
        Ok(Some((verb, Self::new(parent, first, last, offset, dry_run)?)))
    }

    /// By the words of prv-net-helper.
    pub(super) fn by_words(words: &[OsString]) -> Result<(Verb, Self)> {
        let words: Vec<_> = words.iter().map(|it| it.to_string_lossy()).collect();
        let [verb, parent, first, last, offset] = &words[..] else { bail!("expected up|down DEV FIRST LAST OFFSET") };
        let (first, last) = (number("FIRST", first)?, number("LAST", last)?);
        Ok((self::verb(verb)?, Self::new(device(parent)?, first, last, number("OFFSET", offset)?, false)?))
    }

    pub(super) fn plan(&self) -> Plan {
        bridges::plan(&self.parent, &self.bridges)
    }
}

fn verb(word: &str) -> Result<Verb> {
    match word {
        "up" => Ok(Verb::Add),
        "down" => Ok(Verb::Remove),
        _ => bail!("node bridges: {}: expected up or down", quoted(word)),
    }
}

/// The device that the VLANs are of.
fn device(name: &str) -> Result<IfName> {
    name.parse().with_context(|| format!("node bridges: --parent {}", quoted(name)))
}

fn number<T: std::str::FromStr>(what: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| anyhow!("node bridges: {what} {}: expected a number", quoted(text)))
}

/// Runs `node bridges`.
///
/// # Errors
/// What was asked for wrongly, or what failed on which object.
pub(super) fn run(asked: Option<(Verb, BridgesArgs)>) -> Result<()> {
    match asked {
        Some((verb, asked)) => carry_out(verb, &asked),
        None => print(HELP),
    }
}

/// Runs `prv-net-helper`.
///
/// # Errors
/// As [`run`].
pub(in crate::commands) fn run_helper(words: &[OsString]) -> Result<()> {
    let (verb, asked) = BridgesArgs::by_words(words).context("prv-net-helper")?;
    carry_out(verb, &asked)
}

fn carry_out(verb: Verb, asked: &BridgesArgs) -> Result<()> {
    let name = if verb == Verb::Add { "node bridges up" } else { "node bridges down" };
    let (settings, warnings) = Settings::load().context(name)?;
    let mut log = Log::new(["", name, asked.parent.as_str(), "-"]);
    for warning in warnings {
        log.line(format_args!("warning: {warning}"));
    }
    let done = match verb {
        Verb::Add => up(asked, &settings, &mut log),
        Verb::Remove => down(asked, &settings, &mut log),
    };
    conclude(done, &mut log, &settings, &format!("{name} {}", asked.parent))
}

/// What is there of a bridge and its port.
struct Found {
    bridge: Option<LinkState>,
    port: Option<LinkState>,
}

impl Found {
    fn of(kernel: &mut Kernel, wanted: &PrivateBridge) -> Result<Self> {
        let bridge = kernel.link(&wanted.bridge.name)?.cloned();
        Ok(Self { bridge, port: kernel.link(&wanted.port.name)?.cloned() })
    }
}

/// Whether a link is of our making.
fn is_ours(link: &LinkState, kind: &str) -> bool {
    link.group == GROUP_NODE && link.kind.as_deref() == Some(kind)
}

fn up(asked: &BridgesArgs, settings: &Settings, log: &mut Log) -> Result<()> {
    let _lock = state::lock_bridges(&settings.state_dir)?;
    let mut kernel = Kernel::open()?;
    let parent = kernel.link(&asked.parent)?.map(|it| it.index);
    let parent = parent.with_context(|| format!("{}: there is no such interface", asked.parent))?;
    let devices = rtnetlink::vlan_devices(&mut kernel.netlink)?;
    let mut there = Vec::new();
    for wanted in &asked.bridges {
        let (bridge, port) = (&wanted.bridge.name, &wanted.port);
        let found = Found::of(&mut kernel, wanted)?;
        if let Some(link) = &found.bridge {
            ensure!(link.kind.as_deref() == Some("bridge"), "{bridge} is there and is no bridge");
            there.push(bridge.clone());
        }
        let of_vlan = devices.iter().find(|it| it.lower == parent && it.vid == port.vid);
        if let Some(link) = &found.port {
            let fits = of_vlan.is_some_and(|it| it.name == port.name.as_str());
            ensure!(fits, "{} is there and is no VLAN device of VLAN {} on {}", port.name, port.vid, asked.parent);
            let index = found.bridge.as_ref().map_or(0, |it| it.index);
            ensure!(
                [0, index].contains(&link.controller),
                "{} is a port of {}, expected none or {bridge}",
                port.name,
                name_of(&mut kernel, link.controller)?
            );
            there.push(port.name.clone());
        } else if let Some(device) = of_vlan {
            bail!("VLAN {} of {} is taken by the VLAN device {}", port.vid, asked.parent, device.name);
        }
    }
    let mut plan = asked.plan();
    // What is there stays as it is, but that it has its port and is up.
    let is_there = |name: &IfName| there.contains(name);
    let made = |it: &Object| match it {
        Object::VlanDevice(it) => !is_there(&it.name),
        Object::Bridge(it) => !is_there(&it.name),
        _ => false,
    };
    plan.objects.retain(|it| match it {
        Object::VlanDevice(_) | Object::Bridge(_) => made(it),
        Object::Sysctl(it) => !it.interface.as_ref().is_some_and(is_there),
        _ => true,
    });
    if asked.dry_run {
        return print_plan(&plan);
    }
    if let Err(error) = reconcile::apply(&mut kernel, &plan, &[]) {
        plan.objects.retain(made);
        for failure in reconcile::remove(&mut kernel, &plan, true) {
            log.line(format_args!("error: undoing: {failure:#}"));
        }
        return Err(error);
    }
    log_objects(&plan, Verb::Add, log);
    Ok(())
}

fn down(asked: &BridgesArgs, settings: &Settings, log: &mut Log) -> Result<()> {
    let _lock = state::lock_bridges(&settings.state_dir)?;
    let mut kernel = Kernel::open()?;
    let devices = rtnetlink::vlan_devices(&mut kernel.netlink)?;
    let mut plan = Plan::default();
    for wanted in &asked.bridges {
        let (name, port) = (&wanted.bridge.name, &wanted.port);
        let found = Found::of(&mut kernel, wanted)?;
        let bridge = found.bridge.as_ref().filter(|it| it.kind.as_deref() == Some("bridge"));
        if let Some(bridge) = bridge {
            let ports = rtnetlink::ports(&mut kernel.netlink, bridge.index)?.into_iter().map(|it| it.name);
            let mut users: Vec<_> = ports.filter(|it| *it != port.name).map(|it| it.to_string()).collect();
            users.extend(devices.iter().filter(|it| it.lower == bridge.index).map(|it| it.name.clone()));
            if !users.is_empty() {
                log.say(format!("{name} stays, it is used by {}", users.join(", ")));
                continue;
            }
        }
        if let Some(link) = &found.port {
            let controller = bridge.map_or(0, |it| it.index);
            if !is_ours(link, "vlan") {
                stays(&port.name, "it is none that we made", log);
            } else if ![0, controller].contains(&link.controller) {
                stays(&port.name, format!("it is a port of {}", name_of(&mut kernel, link.controller)?), log);
            } else {
                plan.push(port.clone());
            }
        }
        match &found.bridge {
            Some(link) if is_ours(link, "bridge") => plan.push(wanted.bridge.clone()),
            Some(_) => stays(name, "it is none that we made", log),
            None => {}
        }
    }
    let failures = reconcile::remove(&mut kernel, &plan, true);
    log_objects(&plan, Verb::Remove, log);
    failures.into_iter().next().map_or(Ok(()), Err)
}

fn stays(name: &IfName, why: impl Display, log: &mut Log) {
    log.say(format!("{name} stays, {why}"));
}

fn name_of(kernel: &mut Kernel, index: u32) -> Result<String> {
    Ok(kernel.link_by_index(index)?.map_or_else(|| format!("link {index}"), |it| it.name.to_string()))
}

fn log_objects(plan: &Plan, verb: Verb, log: &mut Log) {
    match verb {
        Verb::Add => plan.objects.iter().for_each(|it| log.line(it.line(verb))),
        Verb::Remove => reconcile::removal_order(plan).concat().iter().for_each(|it| log.line(it.line(verb))),
    }
}
