//! `gc`: removes what belongs to NICs that are gone, recorded or not. The hook and reconcile do the same.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context, Error, Result, bail, ensure};

use super::inspect::{self, Condition, Inspection};
use super::replace::Known;
use super::{DRIFT, SUCCESS, Selection, conclude, joined, nic, node};
use crate::addr::IfName;
use crate::announce::repeat;
use crate::kernel::observed::Observed;
use crate::kernel::{Kernel, is_absent, rtnetlink};
use crate::log::Log;
use crate::object::{NeighProxy, Object, Plan, Verb};
use crate::reconcile;
use crate::record::Record;
use crate::settings::Settings;
use crate::state::{self, State, Variables};
use crate::verify::{Drift, Thing};

/// Runs `gc`.
///
/// # Errors
/// What could not be removed; everything else was.
pub fn run(arguments: &[OsString]) -> Result<u8> {
    let selection = Selection::new("gc", arguments, false, &["dry-run"])?;
    let (settings, warnings) = Settings::load().context("gc")?;
    let mut kernel = Kernel::open().context("gc")?;
    if selection.has("dry-run") {
        let inspection = Inspection::of(&mut kernel, &settings, &[]).context("gc")?;
        let lines = lines(&inspection);
        super::print(&lines);
        return Ok(if lines.is_empty() { SUCCESS } else { DRIFT });
    }
    let mut log = Log::new(["", "gc", "", "-"]);
    warnings.into_iter().for_each(|warning| log.line(format_args!("warning: {warning}")));
    let failures = collect(&mut kernel, &settings, &mut log);
    repeat::leave(kernel.into_lingering(), None);
    conclude(joined(&failures), &mut log, &settings, "gc").map(|()| SUCCESS)
}

/// What gc would remove, a line each: `tap3: foreign: ip rule iif tap3 ...`, and for a record of which nothing else is left
/// `tap3: foreign: record`.
pub(super) fn lines(inspection: &Inspection) -> String {
    let mut lines = String::new();
    for row in &inspection.nics {
        if let Ok((_, Condition::Gone(things))) = &row.nic {
            lines += &format!("{}: foreign: record\n", row.interface);
            for thing in things {
                lines += &format!("{}: {}\n", row.interface, Drift::Foreign(thing.clone()));
            }
        }
    }
    let is_removed = |interface: &IfName| !inspection.unrecorded.contains(interface);
    for (interface, thing) in inspection.orphans.iter().filter(|it| it.0.as_ref().is_none_or(is_removed)) {
        let interface = interface.as_ref().map_or("-", IfName::as_str);
        lines += &format!("{interface}: {}\n", Drift::Foreign(thing.clone()));
    }
    lines
}

/// Removes what belongs to NICs that are gone, and then what stands without a record. Returns what failed.
fn collect(kernel: &mut Kernel, settings: &Settings, log: &mut Log) -> Vec<Error> {
    let interfaces = match inspect::interfaces(settings, &[]) {
        Ok(interfaces) => interfaces,
        Err(error) => return vec![error],
    };
    let mut failures = Vec::new();
    for interface in interfaces {
        let cleared = match has_gone(kernel, settings, &interface) {
            Ok(false) => Ok(()),
            Ok(true) => clear_interface(kernel, &interface, settings, log, |_| true),
            Err(error) => Err(error),
        };
        failures.extend(cleared.err().map(|error| error.context(interface.to_string())));
    }
    failures.extend(clear_orphans(kernel, settings, log));
    failures.extend(node::clear_unused(kernel, settings, log).err());
    failures.extend(state::forget_addresses(&settings.state_dir).err());
    failures
}

/// Whether anything is recorded of another TAP than the one that has the name now. Nothing is locked for this look.
fn has_gone(kernel: &mut Kernel, settings: &Settings, interface: &IfName) -> Result<bool> {
    let live = kernel.link_id(interface)?;
    for variables in State::peek(&settings.state_dir, interface)? {
        let record = Record::from_variables(&variables).context("its record cannot be understood")?;
        if !record.facts.link.is(live) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes what is recorded of a TAP that is gone or another one by now, as far as it is `theirs`. Looks under the TAP's lock,
/// so that no run for a new TAP of this name is disturbed.
///
/// # Errors
/// What could not be removed, and a record that cannot be understood.
pub(super) fn clear_interface(
    kernel: &mut Kernel,
    interface: &IfName,
    settings: &Settings,
    log: &mut Log,
    theirs: impl Fn(&Variables) -> bool,
) -> Result<()> {
    let mut state = State::open(&settings.state_dir, interface)?;
    let old = Known::read(&state, log);
    ensure!(old.understood, "a record of it cannot be understood, see the log");
    kernel.forget_links();
    let live = kernel.link_id(interface)?;
    let goes = state.records.iter().zip(&old.records);
    let goes: Vec<_> = goes.map(|(it, known)| theirs(it) && !known.record.facts.link.is(live)).collect();
    if !goes.contains(&true) {
        log.line(format_args!("{interface} is still there: left alone"));
        return Ok(());
    }
    nic::remove_records(kernel, &mut state, &old, &goes, live, log)
}

/// Removes what carries our number or stands in our sets, and nobody recorded. Returns what failed.
pub(super) fn clear_orphans(kernel: &mut Kernel, settings: &Settings, log: &mut Log) -> Vec<Error> {
    look_for_orphans(kernel, settings, log).unwrap_or_else(|error| vec![error])
}

fn look_for_orphans(kernel: &mut Kernel, settings: &Settings, log: &mut Log) -> Result<Vec<Error>> {
    let tables = inspect::tables(kernel, settings)?;
    let observed = Observed::read(kernel, std::iter::empty(), tables, &settings.ovsdb_socket)?;
    let mut by_interface: BTreeMap<IfName, Plan> = BTreeMap::new();
    let mut proxies = Vec::new();
    for (interface, thing) in inspect::orphans(settings, &observed)? {
        match (interface, thing) {
            (Some(interface), Thing::Element(it)) => by_interface.entry(interface).or_default().elements.push(it),
            (Some(interface), Thing::Object(it)) => by_interface.entry(interface).or_default().objects.push(it),
            (None, Thing::Object(Object::NeighProxy(it))) => proxies.push(it),
            // Nothing else is an orphan.
            (_, Thing::Group(_)) | (None, _) => {}
        }
    }
    let mut failures = Vec::new();
    for (interface, plan) in &by_interface {
        let cleared = clear_unrecorded(kernel, settings, interface, plan, log);
        failures.extend(cleared.into_iter().map(|it| it.context(interface.to_string())));
    }
    for proxy in &proxies {
        failures.extend(clear_proxy(kernel, settings, proxy, log).err());
    }
    Ok(failures)
}

/// Under the lock of an interface. One that is up is left alone: its record may be lost, but what restrains it still does.
fn clear_unrecorded(
    kernel: &mut Kernel,
    settings: &Settings,
    interface: &IfName,
    plan: &Plan,
    log: &mut Log,
) -> Vec<Error> {
    let mut look = || -> Result<bool> {
        let state = State::open(&settings.state_dir, interface)?;
        if let Some(complaint) = &state.complaint {
            bail!("{complaint}");
        }
        kernel.forget_links();
        let up = kernel.link(interface)?.is_some_and(|it| it.up);
        Ok(state.records.is_empty() && !up)
    };
    match look() {
        Ok(true) => {
            nic::log_plan(plan, Verb::Remove, log);
            reconcile::remove(kernel, plan, false)
        }
        Ok(false) => {
            log.line(format_args!("{interface} is up, or recorded by now: left alone"));
            Vec::new()
        }
        Err(error) => vec![error],
    }
}

/// A proxy entry does not tell whose it is, so there is no lock to take: if a record names it after it was removed, whoever
/// wrote that may have made it before, and it is made again. (Who records it later makes it later.)
fn clear_proxy(kernel: &mut Kernel, settings: &Settings, proxy: &NeighProxy, log: &mut Log) -> Result<()> {
    let object = Object::NeighProxy(proxy.clone());
    let line = object.line(Verb::Remove);
    let Some(device) = kernel.link(&proxy.device)?.map(|it| it.index) else { return Ok(()) };
    log.line(&line);
    kernel.netlink.queue(rtnetlink::proxy(proxy, device, false));
    if let Some((_, error)) = kernel.netlink.flush()?.into_iter().next()
        && !is_absent(error.errno)
    {
        return Err(Error::new(error).context(line));
    }
    let wanted = inspect::plans(settings)?.0.iter().any(|plan| {
        let same =
            |it: &Object| matches!(it, Object::NeighProxy(it) if (it.address, &it.device) == (proxy.address, &proxy.device));
        plan.objects.iter().any(same)
    });
    if wanted {
        kernel.netlink.queue(rtnetlink::proxy(proxy, device, true));
        if let Some((_, error)) = kernel.netlink.flush()?.into_iter().next() {
            return Err(Error::new(error).context(object.line(Verb::Add)));
        }
    }
    Ok(())
}
