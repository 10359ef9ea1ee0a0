//! What a NIC leaves to be done at the name server, by a process that nobody waits for.

use std::io;

use anyhow::{Context, Result};

use crate::addr::IfName;
use crate::dns::{Dns, Record, Ticket, host_name, records};
use crate::environment::RawNic;
use crate::kernel::confine::{Capability, Reach, confine};
use crate::kernel::process;
use crate::log::Log;
use crate::nic::dns_addresses;
use crate::settings::Settings;
use crate::state;

/// Whether the records of a NIC come or go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// They have to be there.
    Add,
    /// Exactly they have to go.
    Remove,
}

/// Leaves the records of NICs, each with the settings that it was set up with, to a detached process. Changes of one
/// interface are carried out in the order of these calls. Nothing fails here; the log tells.
pub fn leave(verb: Verb, interface: &IfName, nics: &[(&RawNic, &Settings)], settings: &Settings, log: &mut Log) {
    if let Err(error) = try_leave(verb, interface, nics, settings) {
        log.line(format_args!("warning: dns: {error:#}"));
    }
}

fn try_leave(verb: Verb, interface: &IfName, nics: &[(&RawNic, &Settings)], settings: &Settings) -> Result<()> {
    let mut wanted = Vec::new();
    for (raw, settings) in nics {
        let addresses = dns_addresses(raw, settings)?;
        if !addresses.is_empty() {
            let name = host_name(raw.instance.as_deref().unwrap_or_default(), settings.dns.fzone.as_deref())?;
            wanted.extend(records(&name, &addresses));
        }
    }
    // Made here only to say at once that the settings are wrong.
    if wanted.is_empty() || Dns::new(&settings.dns)?.is_none() {
        return Ok(());
    }
    let file = format!("{interface}.dns");
    let turn =
        Ticket::take(state::lock_file(&settings.state_dir, &file)?).with_context(|| format!("STATE_DIR: {file}"))?;
    let (kept, number) = turn.into_parts();
    let instance = nics.iter().find_map(|(raw, _)| raw.instance.as_deref()).unwrap_or("-");
    let command = if verb == Verb::Add { "ifup" } else { "ifdown" };
    let mut log = Log::new(["", command, interface.as_str(), instance]);
    let settings = settings.clone();
    process::leave(vec![kept], move |kept| {
        let done = kept.context("a process of its own").and_then(|kept| {
            if let Err(error) = confined(&settings) {
                log.line(format_args!("warning: dns: not confined: {error}"));
            }
            let turn = kept.into_iter().next().map(|fd| Ticket::from_parts((fd, number)));
            carry_out(verb, &wanted, turn.as_ref(), &settings, &mut log)
        });
        if let Err(error) = done {
            log.line(format_args!("warning: dns: {error:#}"));
        }
        log.append_to(&settings.logfile);
    });
    Ok(())
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

fn carry_out(verb: Verb, wanted: &[Record], turn: Option<&Ticket>, settings: &Settings, log: &mut Log) -> Result<()> {
    turn.map_or(Ok(()), Ticket::wait)?;
    let Some(mut dns) = Dns::new(&settings.dns)? else { return Ok(()) };
    let summaries = match verb {
        Verb::Add => dns.add(wanted)?,
        Verb::Remove => dns.remove(wanted)?,
    };
    for summary in summaries {
        log.line(format_args!("dns: {summary}"));
    }
    Ok(())
}
