//! Ganeti's hooks: how one runs, and `snf-network-hook`, which clears away what vanished NICs left on this node.

use anyhow::{Context, Result};

use super::{Call, conclude, gc, joined};
use crate::announce::repeat;
use crate::environment::{Caller, RawInstance, nics_from_process};
use crate::kernel::Kernel;
use crate::log::Log;
use crate::settings::Settings;
use crate::state::{self, State, Variables};

/// Runs the work of a hook, and writes the log whatever comes of it.
///
/// # Errors
/// Those of the settings and of the work.
pub(super) fn run(call: &Call, raw: &RawInstance, work: impl FnOnce(&Settings, &mut Log) -> Result<()>) -> Result<()> {
    let (settings, warnings) = Settings::load().context(call.name)?;
    let caller = Caller::from_process();
    let by = [caller.hooks_path, caller.hooks_phase, raw.op_code.clone()].into_iter().flatten().collect::<Vec<_>>();
    let mut log = Log::new([&by.join(" "), call.name, "", raw.name.as_deref().unwrap_or("-")]);
    for warning in warnings {
        log.line(format_args!("warning: {warning}"));
    }
    let done = work(&settings, &mut log);
    conclude(done, &mut log, &settings, call.name)
}

/// Whether a hook's name of a node means this one. A node without a name is none.
pub(super) fn is_this_node(name: &str) -> bool {
    nix::unistd::gethostname().is_ok_and(|host| names_host(name, &host.to_string_lossy()))
}

/// Whether a name means the node whose kernel calls itself `host`: the same name, or one of them in full.
fn names_host(name: &str, host: &str) -> bool {
    let [name, host] = [name, host].map(|it| it.trim_end_matches('.').to_ascii_lowercase());
    let short = |full: &str, short: &str| !short.contains('.') && full.split('.').next() == Some(short);
    !host.is_empty() && (name == host || short(&name, &host) || short(&host, &name))
}

/// `snf-network-hook`: after an operation that takes an instance away from this node, removes what is recorded of those of
/// its NICs whose TAP is gone. Ganeti 3.0 and 3.1 never call down, so this is what keeps a node clean there.
///
/// A NIC whose TAP is still the recorded one is left alone: by the time of the post hook the guest's KVM is dead and its TAP
/// gone with it, so that one belongs to a guest which runs (a migration that was undone) or to a KVM which hangs, and stays
/// under its filters. Its ifdown, or the next ifup on it, clears it away.
///
/// # Errors
/// What is wrong in the environment or the settings, or what could not be removed; the log has it too.
pub(super) fn clear_away(call: &Call) -> Result<()> {
    let raw = RawInstance::from_process().context(call.name)?;
    let (variable, node) = match raw.op_code.as_deref() {
        Some("OP_INSTANCE_MIGRATE" | "OP_INSTANCE_FAILOVER") => ("GANETI_OLD_PRIMARY", &raw.old_primary),
        Some("OP_INSTANCE_SHUTDOWN" | "OP_INSTANCE_REMOVE") => ("GANETI_INSTANCE_PRIMARY", &raw.primary),
        _ => return Ok(()),
    };
    // Before the operation everything is still in use.
    if Caller::from_process().hooks_phase.as_deref() != Some("post") {
        return Ok(());
    }
    let node = node.as_deref();
    let node = node.with_context(|| format!("{}: {variable} is not set, expected a node's name", call.name))?;
    if !is_this_node(node) {
        return Ok(());
    }
    run(call, &raw, |settings, log| {
        let name = raw.name.clone().context("GANETI_INSTANCE_NAME is not set, expected an instance's name")?;
        let uuids = nics_from_process()?.into_iter().filter_map(|nic| nic.interface_uuid).collect();
        clear(&Departed { name, uuids }, settings, log)
    })
}

/// The instance that left.
struct Departed {
    name: String,
    /// Of the NICs that it is known to have. One that was taken away from a running guest is known by the instance's name.
    uuids: Vec<String>,
}

impl Departed {
    fn owns(&self, record: &Variables) -> bool {
        record.iter().any(|(key, value)| match key.as_str() {
            "INSTANCE" => *value == self.name,
            "INTERFACE_UUID" => self.uuids.contains(value),
            _ => false,
        })
    }
}

fn clear(departed: &Departed, settings: &Settings, log: &mut Log) -> Result<()> {
    let mut recorded = Vec::new();
    for interface in state::interfaces(&settings.state_dir)? {
        match State::peek(&settings.state_dir, &interface) {
            Ok(records) => recorded.push((interface, records)),
            Err(error) if state::is_unread(&error) => return Err(error),
            Err(error) => log.line(format_args!("warning: {error:#}: ignored")),
        }
    }
    let owned = |records: &[Variables]| records.iter().any(|it| departed.owns(it));
    if !recorded.iter().any(|it| owned(&it.1)) {
        log.line("nothing is recorded of its NICs, nothing to do");
        return Ok(());
    }
    let mut kernel = Kernel::open()?;
    let mut failures = Vec::new();
    for (interface, _) in recorded.iter().filter(|it| owned(&it.1)) {
        if let Err(error) = gc::clear_interface(&mut kernel, interface, settings, log, |it| departed.owns(it)) {
            failures.push(error.context(interface.to_string()));
        }
    }
    repeat::leave(kernel.into_lingering(), None);
    joined(&failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_known_by_its_short_and_its_full_name() {
        for (name, host, expected) in [
            ("node1", "node1", true),
            ("node1.example.org", "node1", true),
            ("node1", "node1.example.org", true),
            ("Node1.Example.org.", "node1.example.ORG", true),
            ("node1.example.org", "node1.example.com", false),
            ("node1.example.org", "node", false),
            ("node10", "node1", false),
            ("", "", false),
        ] {
            assert_eq!(names_host(name, host), expected, "{name} {host}");
        }
    }
}
