//! Dynamic DNS by command: the hook of Ganeti, and the same by hand.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;

use super::{Call, dns_update, hook, not_so};
use crate::dns::{Change, Dns, Name, Queue, ZoneSummary, host_name, records};
use crate::environment::{RawInstance, RawNic, nics_from_process};
use crate::log::Log;
use crate::nic::dns_addresses;
use crate::printable::quoted;
use crate::settings::{Settings, Setup};

/// What `--help` prints.
pub(super) const HELP: &str = "\
Usage: snf-network dns show|sync|remove [OPTIONS]

Shows, or changes at the name server, the addresses of an instance and the names of its addresses. Without --instance the
variables of Ganeti's hooks tell which (GANETI_INSTANCE_NAME, GANETI_INSTANCE_NIC0_IP, ...).

  show                 print what the name server has
  sync                 make it what the NICs are, and nothing else
  remove               remove what the name server has; with addresses, exactly these

  --instance NAME      the instance; without a dot, in the domain FZONE
  --ip ADDRESS         an address of a NIC; may be given again
  --mac MAC            together with --subnet6: the MAC of a NIC; may be given again
  --subnet6 PREFIX     and the /64 where the NIC gives itself an address from its MAC
  --dry-run            change nothing, print the script for nsupdate that would do the same
";

/// What a hook's operation means for the name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// The records of the NICs have to be there.
    Ensure,
    /// Nothing of the instance may be left.
    Remove,
    /// The same of its old name; then the records of the NICs have to be there under the new one.
    Rename,
    /// The records have to be those of the NICs.
    Sync,
}

impl Operation {
    /// Of GANETI_OP_CODE; others are not for us.
    fn of(op_code: &str) -> Option<Self> {
        Some(match op_code {
            "OP_INSTANCE_CREATE" | "OP_INSTANCE_STARTUP" | "OP_INSTANCE_REBOOT" => Self::Ensure,
            "OP_INSTANCE_REMOVE" | "OP_INSTANCE_SHUTDOWN" => Self::Remove,
            "OP_INSTANCE_RENAME" => Self::Rename,
            "OP_INSTANCE_SET_PARAMS" => Self::Sync,
            _ => return None,
        })
    }
}

/// `snf-network-dnshook`: on the primary node, does what the operation of the environment means.
///
/// # Errors
/// What is wrong in the environment or the settings, that no server answers, or which zone was refused. The log has it too.
pub fn hook(call: &Call) -> Result<()> {
    let raw = RawInstance::from_process().context(call.name)?;
    let Some(operation) = raw.op_code.as_deref().and_then(Operation::of) else { return Ok(()) };
    if !raw.primary.as_deref().is_some_and(hook::is_this_node) {
        return Ok(());
    }
    hook::run(call, &raw, |settings, log| run_hook(operation, &raw, settings, log))
}

fn run_hook(operation: Operation, raw: &RawInstance, settings: &Settings, log: &mut Log) -> Result<()> {
    // Made here only to know whether there is anything to do: its time begins with it.
    let Some(dns) = Dns::new(&settings.dns)? else { return Ok(()) };
    dns.warnings().iter().for_each(|warning| log.line(format_args!("warning: dns: {warning}")));
    let fzone = settings.dns.fzone.as_deref();
    let named = |variable: &str, value: &Option<String>| {
        let value = value.as_deref().with_context(|| format!("{variable} is not set, expected an instance's name"))?;
        host_name(value, fzone).with_context(|| variable.to_owned())
    };
    let name = named("GANETI_INSTANCE_NAME", &raw.name)?;
    let new_name = match operation {
        Operation::Rename => named("GANETI_INSTANCE_NEW_NAME", &raw.new_name)?,
        _ => name.clone(),
    };
    let addresses = match operation {
        Operation::Remove => Vec::new(),
        _ => addresses(&nics_from_process()?, settings)?,
    };
    let mut names = vec![&name, &new_name];
    names.sort();
    names.dedup();
    let queues = names.into_iter().map(|name| Queue::open(&settings.state_dir, name)).collect::<Result<Vec<_>>>();
    if let Err(error) = dns_update::confined(settings) {
        log.line(format_args!("warning: dns: not confined: {error}"));
    }
    let replaced = |change: &Change| match operation {
        Operation::Ensure => addresses.contains(&change.address),
        Operation::Remove | Operation::Rename | Operation::Sync => true,
    };
    let turn = queues.and_then(|queues| {
        queues.iter().try_for_each(|queue| queue.replace(replaced))?;
        Ok(queues)
    });
    let _turn = warned(turn, log);
    let Some(mut dns) = Dns::new(&settings.dns)? else { return Ok(()) };
    let summaries = match operation {
        Operation::Ensure => dns.add(&records(&name, &addresses))?,
        Operation::Sync => dns.sync(&name, &addresses)?,
        Operation::Remove => dns.remove_instance(&name)?,
        Operation::Rename => {
            let mut summaries = if new_name == name { Vec::new() } else { dns.remove_instance(&name)? };
            summaries.extend(dns.add(&records(&new_name, &addresses))?);
            summaries
        }
    };
    report(&summaries, log)
}

/// Without its turn a change is made all the same: what ifup and ifdown left to be done may come in between.
fn warned<T>(turn: Result<T>, log: &mut Log) -> Option<T> {
    match turn {
        Ok(turn) => Some(turn),
        Err(error) => {
            log.line(format_args!("warning: dns: {error:#}: other changes may come in between"));
            None
        }
    }
}

/// A line of the log for each zone.
///
/// # Errors
/// Which zones were refused.
pub(super) fn report(summaries: &[ZoneSummary], log: &mut Log) -> Result<()> {
    for summary in summaries {
        log.line(format_args!("dns: {summary}"));
    }
    let failed: Vec<_> = summaries.iter().filter(|summary| summary.failed()).map(ToString::to_string).collect();
    ensure!(failed.is_empty(), "dns: {}", failed.join("; "));
    Ok(())
}

/// The addresses of all NICs that have the tag.
fn addresses(nics: &[RawNic], settings: &Settings) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for (n, nic) in nics.iter().enumerate() {
        addresses.extend(dns_addresses(nic, settings).with_context(|| format!("NIC {n}"))?);
    }
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// The request as it was given.
#[derive(Debug, Default)]
pub(super) struct Asked {
    instance: Option<String>,
    ips: Vec<String>,
    macs: Vec<String>,
    subnets6: Vec<String>,
    dry_run: bool,
}

impl Asked {
    /// NICs with these addresses, and with the tag.
    pub(super) fn nics(&self, settings: &Settings) -> Result<Vec<RawNic>> {
        let (macs, subnets) = (self.macs.len(), self.subnets6.len());
        ensure!(macs == subnets, "--mac {macs} times and --subnet6 {subnets} times: expected pairs");
        let tagged = RawNic { network_tags: Some(settings.tag(Setup::Dns).to_owned()), ..RawNic::default() };
        let by_ip = self.ips.iter().map(|ip| RawNic { ip: Some(ip.clone()), ..tagged.clone() });
        let by_mac = self.macs.iter().zip(&self.subnets6).map(|(mac, subnet)| RawNic {
            mac: Some(mac.clone()),
            network_subnet6: Some(subnet.clone()),
            ..tagged.clone()
        });
        Ok(by_ip.chain(by_mac).collect())
    }
}

/// `dns show`, `dns sync` and `dns remove`.
///
/// # Errors
/// What was asked for wrongly, that no server answers, or which zone was refused.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let Some((verb, asked)) = read(arguments)? else { return print(HELP) };
    by_hand(&verb, &asked).with_context(|| format!("dns {verb}"))
}

/// The verb and its options; none if only help was asked for.
pub(super) fn read(arguments: &[OsString]) -> Result<Option<(String, Asked)>> {
    let mut words = lexopt::Parser::from_args(arguments);
    let mut verb = None;
    let mut asked = Asked::default();
    while let Some(word) = words.next().map_err(|error| not_so("dns", error))? {
        let word = match word {
            Long(name) => format!("--{name}"),
            Short(name) => format!("-{name}"),
            Value(word) => word.to_string_lossy().into_owned(),
        };
        let mut value = || -> Result<String> {
            let value = words.value().with_context(|| format!("dns: {word}"))?;
            value.into_string().ok().with_context(|| format!("dns: {word}: expected UTF-8"))
        };
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--instance" => asked.instance = Some(value()?),
            "--ip" => asked.ips.push(value()?),
            "--mac" => asked.macs.push(value()?),
            "--subnet6" => asked.subnets6.push(value()?),
            "--dry-run" => asked.dry_run = true,
            "show" | "sync" | "remove" if verb.is_none() => verb = Some(word),
            other => bail!("dns: {}: expected an option, see snf-network dns --help", quoted(other)),
        }
    }
    let verb = verb.context("dns: expected show, sync or remove, see snf-network dns --help")?;
    Ok(Some((verb, asked)))
}

fn by_hand(verb: &str, asked: &Asked) -> Result<()> {
    let (settings, mut warnings) = Settings::load()?;
    let off = "dynamic DNS is off, expected the settings SERVER, and AUTHENTICATION_METHOD or KEYFILE";
    // Its time begins with it, so another one is made when it is due.
    warnings.extend(Dns::new(&settings.dns)?.context(off)?.warnings().iter().map(|it| format!("dns: {it}")));
    let instance = match &asked.instance {
        Some(instance) => instance.clone(),
        None => RawInstance::from_process()?.name.context("--instance is missing, expected the instance's name")?,
    };
    let name = host_name(&instance, settings.dns.fzone.as_deref())?;
    let changes = verb != "show" && !asked.dry_run;
    let queue = if changes { Some(Queue::open(&settings.state_dir, &name)) } else { None };
    // Where the kernel or a container forbids it, the answer is worth more.
    let _best_effort = dns_update::confined(&settings);
    let dns = || -> Result<Dns> { Dns::new(&settings.dns)?.context(off) };
    if verb == "show" {
        let mut dns = dns()?;
        let found = dns.show(&name)?;
        return print(&found.iter().map(|record| format!("{record}\n")).collect::<String>());
    }
    let nics = match &asked.instance {
        Some(_) => asked.nics(&settings)?,
        None if verb == "sync" => nics_from_process()?,
        None => Vec::new(),
    };
    let addresses = addresses(&nics, &settings)?;
    let mut log = Log::new(["", &format!("dns {verb}"), "", &instance]);
    for warning in warnings {
        log.line(format_args!("warning: {warning}"));
    }
    let replaced = |change: &Change| verb == "sync" || addresses.is_empty() || addresses.contains(&change.address);
    let turn = queue.map(|queue| queue.and_then(|queue| queue.replace(replaced).map(|()| queue)));
    let _turn = turn.and_then(|turn| warned(turn, &mut log));
    let mut dns = dns()?;
    if asked.dry_run {
        dns = dns.dry_run();
    }
    let done = change(&mut dns, verb, &name, &addresses).and_then(|summaries| {
        if asked.dry_run {
            let comments = summaries.iter().filter(|it| it.failed() || it.zone.is_none()).map(|it| format!("; {it}\n"));
            return print(&(comments.collect::<String>() + dns.script()));
        }
        print(&summaries.iter().map(|summary| format!("{summary}\n")).collect::<String>())?;
        report(&summaries, &mut log)
    });
    if !asked.dry_run {
        if let Err(error) = &done {
            log.line(format_args!("error: {error:#}"));
        }
        log.append_to(&settings.logfile);
    }
    done
}

fn change(dns: &mut Dns, verb: &str, name: &Name, addresses: &[IpAddr]) -> Result<Vec<ZoneSummary>> {
    match verb {
        "sync" => dns.sync(name, addresses),
        _ if addresses.is_empty() => dns.remove_instance(name),
        _ => dns.remove(&records(name, addresses)),
    }
}

/// Prints; a reader who went away is no error.
fn print(text: &str) -> Result<()> {
    let _nobody_listens = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
