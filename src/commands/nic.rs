//! A NIC comes or goes: ifup, ifdown, and plan, which only shows what ifup would do.

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::addr::Family;
use crate::commands::announcer::{self, Announcer, Owner};
use crate::commands::{bridge, errand};
use crate::environment::RawNic;
use crate::kernel::nftables::Presence;
use crate::kernel::rtnetlink::{DEVCONF, LinkState};
use crate::kernel::{Kernel, read_sysctl};
use crate::log::Log;
use crate::nic::{Identity, MigrationPhase, Mode, Nic};
use crate::plan::{Object, PREFERENCE_NIC, PROTOCOL_NIC, Plan, Verb};
use crate::reconcile;
use crate::record::Record;
use crate::routing_tables;
use crate::ruleset::Element;
use crate::settings::{Settings, Setup};
use crate::setup::{self, Before, Facts, base, routed};
use crate::state::{self, State, Variables};

/// Sets a NIC up.
///
/// # Errors
/// What failed, on which object; then nothing of this run is left.
pub fn ifup(raw: &RawNic, settings: &Settings, log: &mut Log) -> Result<()> {
    let nic = Nic::new(raw, settings, routing_tables::resolve)?;
    let mut state = State::open(&settings.state_dir, &nic.interface)?;
    if let Some(complaint) = &state.complaint {
        log.line(format!("warning: {complaint}: ignored"));
    }
    let mut kernel = Kernel::open()?;
    let (tap, old) = (the_tap(&mut kernel, &nic)?, records(&state, log));
    let current = old.last().filter(|it| it.is_of(&nic, tap.index));
    let facts = facts(&mut kernel, &nic, settings, &tap, current)?;
    let plan = setup::plan(&nic, settings, &facts)?;
    if plan == Plan::default() {
        log.line("nothing to set up: it is connected by others, and no tag asks for anything on this node");
        let removed = remove_records(&mut kernel, &mut state, &old, &vec![true; old.len()], Some(tap.index), &[], log);
        announcer::detach(kernel.into_lingering(), None);
        return removed;
    }
    let record = Record::new(raw, &nic, settings, facts);
    let made = change(&mut kernel, &mut state, &old, &tap, &plan, &record, current.is_some(), log);
    if let Err(error) = made {
        announcer::detach(kernel.into_lingering(), None);
        return Err(error);
    }
    let owner = Owner {
        folder: settings.state_dir.clone(),
        interface: nic.interface.clone(),
        index: tap.index,
        record: record.variables(),
    };
    let announcer = Announcer::first_round(&mut kernel, &plan.announcements, owner, log);
    announcer::detach(kernel.into_lingering(), Some(announcer));
    // Before a migration the name server knows the guest as where it still is.
    if nic.migration_phase != Some(MigrationPhase::Pre) {
        errand::leave(errand::Verb::Add, &nic.interface, &[(raw, settings)], settings, log);
    }
    Ok(())
}

/// Goes from what is recorded to the new Plan.
#[expect(clippy::too_many_arguments, reason = "one step of ifup, cut out to see its order")]
fn change(
    kernel: &mut Kernel,
    state: &mut State,
    old: &[Record],
    tap: &LinkState,
    plan: &Plan,
    record: &Record,
    same_owner: bool,
    log: &mut Log,
) -> Result<()> {
    let recorded = state.records.clone();
    let variables = record.variables();
    if same_owner && recorded.len() == 1 && recorded[0] == variables {
        reconcile::apply(kernel, plan, &[])?;
        log.line("nothing to change, everything was ensured again");
        return Ok(());
    }
    let mut leftover = Plan::default();
    for record in old {
        let gone = reconcile::difference(&record.plan()?, plan);
        leftover.elements.extend(gone.elements);
        leftover.objects.extend(gone.objects);
    }
    let elements = std::mem::take(&mut leftover.elements);
    state.write(recorded.iter().cloned().chain([variables.clone()]).collect())?;
    let made = if same_owner {
        reconcile::apply(kernel, plan, &elements).map(|()| reconcile::remove(kernel, &leftover, true))
    } else {
        take_over(kernel, old, tap, &leftover).and_then(|failures| {
            let elements = if old.is_empty() { unrecorded(kernel, tap, plan, &record.settings)? } else { elements };
            reconcile::apply(kernel, plan, &elements).map(|()| failures)
        })
    };
    match made {
        Ok(failures) => {
            log_plan(plan, Verb::Add, log);
            let clean = failures.is_empty();
            for failure in failures {
                log.line(format!("warning: left over: {failure:#}"));
            }
            if clean {
                settle(state, vec![variables], log);
            }
            Ok(())
        }
        Err(error) => {
            let undone = if let (true, Some(current)) = (same_owner, old.last()) {
                undo_to(kernel, plan, &current.plan()?)
            } else {
                reconcile::remove(kernel, plan, true)
            };
            let clean = undone.is_empty();
            for failure in undone {
                log.line(format!("error: undoing: {failure:#}"));
            }
            if clean {
                settle(state, if same_owner { recorded } else { Vec::new() }, log);
            }
            Err(error)
        }
    }
}

/// Records that nothing but this is left. Where that cannot be written, what was recorded before names it too, and more: the
/// next run clears the rest away.
fn settle(state: &mut State, records: Vec<Variables>, log: &mut Log) {
    if let Err(error) = state.write(records) {
        log.line(format!("warning: {error:#}"));
    }
}

/// Back to what stood before this run; a filter that the old Plan had is never missing meanwhile.
fn undo_to(kernel: &mut Kernel, plan: &Plan, old: &Plan) -> Vec<Error> {
    let mut extra = reconcile::difference(plan, old);
    let elements = std::mem::take(&mut extra.elements);
    let mut failures = reconcile::remove(kernel, &extra, true);
    failures.extend(reconcile::apply(kernel, old, &elements).err());
    failures
}

/// Makes a TAP that another NIC had, or that somebody set up, ready for this one: nobody reaches anybody meanwhile.
fn take_over(kernel: &mut Kernel, old: &[Record], tap: &LinkState, leftover: &Plan) -> Result<Vec<Error>> {
    if tap.up || tap.controller != 0 {
        kernel.take_out(tap.index)?;
    }
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let live = old.last().is_some_and(|it| it.facts.index == tap.index);
    Ok(reconcile::remove(kernel, leftover, live))
}

/// What stands under the TAP's name without a record of it, because its file was lost: rules go at once, elements are
/// returned.
fn unrecorded(kernel: &mut Kernel, tap: &LinkState, plan: &Plan, settings: &Settings) -> Result<Vec<Element>> {
    if plan.objects.iter().any(|it| matches!(it, Object::Rule(_))) {
        kernel.remove_rules_of(&tap.name, PREFERENCE_NIC, PROTOCOL_NIC)?;
    }
    if plan.tables.is_empty() {
        return Ok(Vec::new());
    }
    let nftables = kernel.nftables()?;
    let members = base::membership(&tap.name, settings);
    let there = nftables.present(&members)?;
    if there.iter().all(|it| *it == Presence::Absent) {
        return Ok(Vec::new());
    }
    let mut elements = Vec::new();
    for table in base::tables(settings) {
        for set in &table.sets {
            elements.extend(nftables.elements_of(table.family, set, &tap.name)?);
        }
    }
    Ok(elements)
}

/// Takes a NIC down: what its record says, and nothing if the TAP has another owner by now. Its records at the name server
/// go only if `cleanup`, the second argument, says that more than this node is meant, and it does not live on elsewhere.
///
/// # Errors
/// What could not be removed; everything else was.
pub fn ifdown(raw: &RawNic, cleanup: &str, settings: &Settings, log: &mut Log) -> Result<()> {
    let interface = Identity::new(raw)?.interface;
    let mut state = State::open(&settings.state_dir, &interface)?;
    if let Some(complaint) = &state.complaint {
        bail!("{complaint}");
    }
    let Some(owner) = state.records.last() else {
        log.line("nothing is recorded of it, nothing to do");
        return Ok(());
    };
    if let Some(other) = Record::foreign_owner(owner, raw) {
        log.say(format!("{other}: nothing done"));
        return Ok(());
    }
    let old = state.records.iter().map(Record::from_variables).collect::<Result<Vec<_>>>()?;
    let mut kernel = Kernel::open()?;
    let live = kernel.link(&interface)?.map(|it| it.index);
    let removed = remove_records(&mut kernel, &mut state, &old, &vec![true; old.len()], live, &[], log);
    announcer::detach(kernel.into_lingering(), None);
    if ["false", "no", "0"].contains(&cleanup) && raw.migration_phase.is_none() {
        let nics: Vec<_> = old.iter().map(|record| (&record.raw, &record.settings)).collect();
        errand::leave(errand::Verb::Remove, &interface, &nics, settings, log);
    }
    removed
}

/// Removes what the records of an interface say, the newest first: those that go. What a record that
/// stays names too is left alone, and so is what is `in_use` by another interface. `live` is the number of the TAP that has the name now: only of
/// a record with this number the link is touched.
///
/// # Errors
/// What could not be removed; everything else was, and the records stay for another try.
pub(super) fn remove_records(
    kernel: &mut Kernel,
    state: &mut State,
    old: &[Record],
    goes: &[bool],
    live: Option<u32>,
    in_use: &[Object],
    log: &mut Log,
) -> Result<()> {
    let mut kept = Vec::new();
    for (record, _) in old.iter().zip(goes).filter(|it| !it.1) {
        kept.push(record.plan()?);
    }
    let mut failures = Vec::new();
    for (record, _) in old.iter().zip(goes).rev().filter(|it| *it.1) {
        let mut plan = kept.iter().fold(record.plan()?, |plan, kept| reconcile::leftover(&plan, kept));
        plan.objects.retain(|it| !in_use.contains(it));
        log_plan(&plan, Verb::Remove, log);
        failures.extend(reconcile::remove(kernel, &plan, Some(record.facts.index) == live));
    }
    if failures.is_empty() {
        let stays = state.records.iter().zip(goes).filter(|it| !it.1).map(|it| it.0.clone()).collect();
        return state.write(stays);
    }
    Err(anyhow!(failures.iter().map(|it| format!("{it:#}")).collect::<Vec<_>>().join("; ")))
}

/// What ifup would do, as commands.
///
/// # Errors
/// As ifup, before it touches anything.
pub fn plan(raw: &RawNic, settings: &Settings) -> Result<Plan> {
    let nic = Nic::new(raw, settings, routing_tables::resolve)?;
    let mut kernel = Kernel::open()?;
    let tap = the_tap(&mut kernel, &nic)?;
    let old = State::peek(&settings.state_dir, &nic.interface).unwrap_or_default();
    let current = old.last().and_then(|it| Record::from_variables(it).ok()).filter(|it| it.is_of(&nic, tap.index));
    let facts = facts(&mut kernel, &nic, settings, &tap, current.as_ref())?;
    setup::plan(&nic, settings, &facts)
}

fn the_tap(kernel: &mut Kernel, nic: &Nic) -> Result<LinkState> {
    let tap = kernel.link(&nic.interface)?.cloned();
    tap.with_context(|| format!("INTERFACE: \"{}\": there is no such interface", nic.interface))
}

fn records(state: &State, log: &mut Log) -> Vec<Record> {
    let mut records = Vec::new();
    for variables in &state.records {
        match Record::from_variables(variables) {
            Ok(record) => records.push(record),
            Err(error) => log.line(format!("warning: a record cannot be understood: {error:#}: ignored")),
        }
    }
    records
}

/// What a link is like before we touch it.
fn before(tap: &LinkState) -> Result<Before> {
    let mut settings: Vec<_> =
        DEVCONF.iter().zip(tap.devconf).filter_map(|(&(family, key, _), value)| Some((family, key, value?))).collect();
    let delay = format!("/proc/sys/net/ipv4/neigh/{}/{}", tap.name, routed::PROXY_DELAY);
    let delay = read_sysctl(&delay).context(delay)?;
    settings.extend(delay.map(|value| (Family::V4, routed::PROXY_DELAY, value)));
    Ok(Before { mac: tap.mac, mtu: Some(tap.mtu), up: tap.up, settings })
}

/// Reads the kernel. `current` is what is recorded of this very NIC.
fn facts(
    kernel: &mut Kernel,
    nic: &Nic,
    settings: &Settings,
    tap: &LinkState,
    current: Option<&Record>,
) -> Result<Facts> {
    let before = current.map_or_else(|| before(tap), |it| Ok(it.facts.before.clone()))?;
    let uplinks = [Vec::new(), Vec::new()];
    let mut facts = Facts { index: tap.index, before, uplinks, bridge_mtu: None, bridge_vlans: None };
    match &nic.mode {
        Mode::Routed { table } if nic.has(Setup::IpLessRouted) => {
            let hint = state::uplink_of_table(&settings.state_dir, *table);
            for family in Family::BOTH.into_iter().filter(|family| nic.endpoint(*family).is_some()) {
                let uplinks = kernel.uplinks(family, *table, hint.as_ref())?;
                if uplinks.is_empty() {
                    bail!(
                        "LINK: table {table} has no {family} default route, expected one through the uplink (see snf-network node up)"
                    );
                }
                facts.uplinks[family as usize] = uplinks;
            }
        }
        Mode::Bridged { bridge, vlan } => {
            let link = bridge::link(kernel, bridge)?;
            facts.bridge_mtu = Some(link.mtu);
            if let Some(vlan) = vlan {
                let recorded = current.and_then(|it| it.facts.bridge_vlans.as_ref());
                facts.bridge_vlans = Some(bridge::vlans(kernel, &link, vlan, &settings.state_dir, recorded)?);
            }
        }
        _ => {}
    }
    Ok(facts)
}

/// Logs what a Plan makes, or removes, in the order in which it is done.
fn log_plan(plan: &Plan, verb: Verb, log: &mut Log) {
    if verb == Verb::Add {
        plan.elements.iter().for_each(|it| log.line(format!("nft {it}")));
        plan.objects.iter().for_each(|it| log.line(it.line(verb)));
    } else {
        reconcile::removal_order(plan).concat().iter().for_each(|it| log.line(it.line(verb)));
        plan.elements.iter().for_each(|it| log.line(format!("nft {}", it.deletion())));
    }
}
