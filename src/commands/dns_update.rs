//! What a NIC leaves to be done at the name server, by a process that nobody waits for.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::addr::IfName;
use crate::dns::{Change, Dns, Name, Queue, Verb, host_name, records};
use crate::environment::RawNic;
use crate::kernel::confine::{Capability, Reach, confine};
use crate::kernel::process;
use crate::log::Log;
use crate::nic::dns_addresses;
use crate::record::Record;
use crate::settings::Settings;
use crate::state::{self, State};

/// Leaves the records of NICs, each with the settings that it was set up with, to a detached process. Changes of one
/// instance are carried out one after the other, and a newer one replaces those that still wait. Nothing fails here; the log tells.
pub fn leave(verb: Verb, interface: &IfName, nics: &[(&RawNic, &Settings)], settings: &Settings, log: &mut Log) {
    if let Err(error) = try_leave(verb, interface, nics, settings, log) {
        log.line(format_args!("warning: dns: {error:#}"));
    }
}

fn try_leave(
    verb: Verb,
    interface: &IfName,
    nics: &[(&RawNic, &Settings)],
    settings: &Settings,
    log: &mut Log,
) -> Result<()> {
    let mut wanted: BTreeMap<Name, Vec<Change>> = BTreeMap::new();
    for (raw, settings) in nics {
        if let Some((name, addresses)) = named(raw, settings)? {
            let change = |address| Change { name: name.clone(), verb, address, interface: interface.clone() };
            wanted.entry(name.clone()).or_default().extend(addresses.into_iter().map(change));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    // Made here only to say at once what is wrong with the settings.
    let Some(dns) = Dns::new(&settings.dns)? else { return Ok(()) };
    dns.warnings().iter().for_each(|warning| log.line(format_args!("warning: dns: {warning}")));
    let command = if verb == Verb::Add { "ifup" } else { "ifdown" };
    let instance = nics.iter().find_map(|(raw, _)| raw.instance.as_deref()).unwrap_or("-");
    for (name, changes) in wanted {
        let queue = Queue::open(&settings.state_dir, &name)?;
        if queue.add(&changes).with_context(|| format!("STATE_DIR: {name}.dns"))? {
            let log = Log::new(["", command, interface.as_str(), instance]);
            send_later(queue, settings.clone(), log);
        }
    }
    Ok(())
}

/// The name and the addresses of a NIC that has any at the name server.
fn named(raw: &RawNic, settings: &Settings) -> Result<Option<(Name, Vec<IpAddr>)>> {
    let addresses = dns_addresses(raw, settings)?;
    if addresses.is_empty() {
        return Ok(None);
    }
    let name = host_name(raw.instance.as_deref().unwrap_or_default(), settings.dns.fzone.as_deref())?;
    Ok(Some((name, addresses)))
}

fn send_later(queue: Queue, settings: Settings, mut log: Log) {
    process::leave(vec![queue.into()], move |kept| {
        let done = kept.context("a process of its own").and_then(|kept| {
            if let Err(error) = confined(&settings) {
                log.line(format_args!("warning: dns: not confined: {error}"));
            }
            kept.into_iter().next().map_or(Ok(()), |fd| send(&Queue::from(fd), &settings, &mut log))
        });
        if let Err(error) = done {
            log.line(format_args!("warning: dns: {error:#}"));
        }
        log.append_to(&settings.logfile);
    });
}

/// Leaves this process with what it needs to talk to name servers and to write the log.
///
/// # Errors
/// What could not be given up.
pub(super) fn confined(settings: &Settings) -> io::Result<()> {
    let log = settings.logfile.canonicalize().unwrap_or_else(|_| settings.logfile.clone());
    let writes = log.parent();
    // The key and the log may be somebody else's.
    confine(&[Capability::DacOverride], &Reach { reads: None, writes: writes.as_slice(), connects: true })
}

/// Carries out what waits, as far as it still holds.
fn send(queue: &Queue, settings: &Settings, log: &mut Log) -> Result<()> {
    let changes = queue.take()?;
    let owners = if changes.is_empty() { Vec::new() } else { owners(settings)? };
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for change in changes {
        if !holds(&change, &owners) {
            log.line(format_args!("dns: not any more: {change}"));
            continue;
        }
        let records = records(&change.name, &[change.address]);
        if change.verb == Verb::Add { present.extend(records) } else { absent.extend(records) }
    }
    if present.is_empty() && absent.is_empty() {
        return Ok(());
    }
    let Some(mut dns) = Dns::new(&settings.dns)? else { return Ok(()) };
    for summary in dns.change(&present, &absent)? {
        log.line(format_args!("dns: {summary}"));
    }
    Ok(())
}

/// Who has which addresses by the records in force.
type Owners = Vec<(IfName, Name, Vec<IpAddr>)>;

fn owners(settings: &Settings) -> Result<Owners> {
    let mut owners = Vec::new();
    for interface in state::interfaces(&settings.state_dir)? {
        // One that cannot be understood says nothing of addresses.
        let records = State::peek(&settings.state_dir, &interface).unwrap_or_default();
        let Some(Ok(record)) = records.last().map(Record::from_variables) else { continue };
        if let Ok(Some((name, addresses))) = named(&record.raw, &record.settings) {
            owners.push((interface, name, addresses));
        }
    }
    Ok(owners)
}

/// Whether a change is still right: meanwhile the NIC may have gone, or the instance may have the address on another TAP.
fn holds(change: &Change, owners: &Owners) -> bool {
    let has = |(_, name, addresses): &&(IfName, Name, Vec<IpAddr>)| {
        *name == change.name && addresses.contains(&change.address)
    };
    match change.verb {
        Verb::Add => owners.iter().filter(has).any(|it| it.0 == change.interface),
        Verb::Remove => !owners.iter().any(|it| has(&it)),
    }
}
