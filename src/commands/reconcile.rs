//! `reconcile`: puts right what status finds, for all NICs of the node at once.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::mem;
use std::net::IpAddr;

use anyhow::{Context, Error, Result, anyhow};

use super::inspect::{self, Condition, Inspection};
use super::nic::log_plan;
use super::recorded::{RecordedNic, RecordedUplink, Uplinks};
use super::{DRIFT, SUCCESS, Selection, addresses, conclude, gc, guard, joined, node};
use crate::addr::{Family, IfName};
use crate::announce::repeat;
use crate::kernel::observed::Observed;
use crate::kernel::{Kernel, process};
use crate::log::Log;
use crate::object::{Object, Plan, Verb};
use crate::reconcile::{Job, remove, repair};
use crate::settings::Settings;
use crate::setup::fwmark;
use crate::state::{self, State};
use crate::verify::{self, Drift, Thing, to_repair};

/// File descriptors that are not for locks.
const OTHER_FILES: usize = 64;
/// Those of a [`State`]: its folder and its lock.
const FILES_OF_STATE: usize = 2;

/// Runs `reconcile`.
///
/// # Errors
/// What could not be put right, on which NIC; everything else was.
pub fn run(arguments: &[OsString]) -> Result<u8> {
    let selection = Selection::new("reconcile", arguments, true, &["dry-run"])?;
    let (settings, warnings) = Settings::load().context("reconcile")?;
    let mut kernel = Kernel::open().context("reconcile")?;
    if selection.has("dry-run") {
        let inspection = Inspection::of(&mut kernel, &settings, &selection.taps).context("reconcile")?;
        super::print(&lines(&inspection));
        return match inspection.failure() {
            Some(failure) => Err(failure.context("reconcile")),
            None if inspection.is_right() => Ok(SUCCESS),
            None => Ok(DRIFT),
        };
    }
    let mut log = Log::new(["", "reconcile", "", "-"]);
    warnings.into_iter().for_each(|warning| log.line(format_args!("warning: {warning}")));
    let done = all(&mut kernel, &settings, &selection.taps, &mut log);
    repeat::leave(kernel.into_lingering(), None);
    let done = done.and_then(|failures| joined(&failures));
    conclude(done, &mut log, &settings, "reconcile").map(|()| SUCCESS)
}

/// What would change, a line each.
fn lines(inspection: &Inspection) -> String {
    let mut lines = String::new();
    for row in &inspection.uplinks {
        if let Ok((_, drift)) = &row.uplink {
            drift.iter().for_each(|it| lines += &format!("{}: {it}\n", row.device));
        }
    }
    for row in &inspection.nics {
        if let Ok((_, Condition::There(drift))) = &row.nic {
            drift.iter().for_each(|it| lines += &format!("{}: {it}\n", row.interface));
        }
    }
    let former = inspection.former.iter().map(|it| format!("-: {}\n", Drift::Foreign(it.clone())));
    lines + &gc::lines(inspection) + &former.collect::<String>()
}

/// Uplinks first, then NICs, then what vanished ones left. Returns what failed.
pub(super) fn all(kernel: &mut Kernel, settings: &Settings, taps: &[IfName], log: &mut Log) -> Result<Vec<Error>> {
    let interfaces = inspect::interfaces(settings, taps)?;
    let guarded = guard::required(kernel, settings)?;
    let room = process::raise_open_files().saturating_sub(OTHER_FILES) / FILES_OF_STATE;
    let mut found = Found::default();
    let mut uplinks = if taps.is_empty() { Some(Round::of_uplinks(settings)?) } else { None };
    let mut busy = Vec::new();
    let mut rest = interfaces.as_slice();
    while uplinks.is_some() || !rest.is_empty() {
        let mut round = uplinks.take().unwrap_or_default();
        let (now, later) = rest.split_at(rest.len().min(room.saturating_sub(round.uplinks.len()).max(1)));
        rest = later;
        for interface in now {
            match State::try_open(&settings.state_dir, interface) {
                Ok(Some(state)) => round.take(kernel, interface, state, settings, &guarded),
                Ok(None) => busy.push(interface),
                Err(error) => found.failures.push(error.context(interface.to_string())),
            }
        }
        round.is_last = rest.is_empty() && busy.is_empty();
        found.add(round.run(kernel, settings, &interfaces, log)?);
    }
    // A run was under way for each of these.
    for interface in busy {
        let mut round = Round::default();
        round.take(kernel, interface, State::open(&settings.state_dir, interface)?, settings, &guarded);
        found.add(round.run(kernel, settings, &interfaces, log)?);
    }
    let Found { mut failures, gone, orphans, former } = found;
    if taps.is_empty() && former {
        if failures.is_empty() {
            failures.extend(clear_former_rules(kernel, settings, log).unwrap_or_else(|error| vec![error]));
        } else {
            log.line("rules by former marks stay until all is right: a NIC may have no other rule");
        }
    }
    for interface in gone {
        let cleared = gc::clear_interface(kernel, &interface, settings, log, |_| true);
        failures.extend(cleared.err().map(|error| error.context(interface.to_string())));
    }
    if taps.is_empty() {
        if orphans {
            failures.extend(gc::clear_orphans(kernel, settings, log));
        }
        failures.extend(node::clear_unused(kernel, settings, log).err());
        failures.extend(state::forget_addresses(&settings.state_dir).err());
    }
    Ok(failures)
}

/// Removes the rules by marks of former settings. Returns what failed.
fn clear_former_rules(kernel: &mut Kernel, settings: &Settings, log: &mut Log) -> Result<Vec<Error>> {
    let rules = kernel.mark_rules()?;
    let former = fwmark::former_rules(&rules, settings).cloned();
    let plan = Plan { objects: former.map(Object::Rule).collect(), ..Plan::default() };
    log_plan(&plan, Verb::Remove, log);
    Ok(remove(kernel, &plan, false))
}

/// What rounds came upon.
#[derive(Default)]
struct Found {
    /// What failed.
    failures: Vec<Error>,
    /// Interfaces of which another TAP is recorded than the one that has the name.
    gone: Vec<IfName>,
    /// Whether something may stand without a record.
    orphans: bool,
    /// Whether a rule by a mark of former settings stands.
    former: bool,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.failures.extend(other.failures);
        self.gone.extend(other.gone);
        self.orphans |= other.orphans;
        self.former |= other.former;
    }
}

/// NICs and uplinks that are mended at once, all locked.
#[derive(Default)]
struct Round {
    uplinks: Vec<(RecordedUplink, State)>,
    nics: Vec<(RecordedNic, State)>,
    of_tables: Uplinks,
    failures: Vec<Error>,
    /// Of which of them; NICs come behind uplinks.
    failed: HashSet<usize>,
    /// Addresses that two NICs have, each with both: neither is given what the other has.
    contested: HashSet<(IfName, IpAddr)>,
    /// The process ends behind it.
    is_last: bool,
}

impl Round {
    /// With the uplinks; each keeps other runs away from all of them.
    fn of_uplinks(settings: &Settings) -> Result<Self> {
        let lock = state::lock_uplinks(&settings.state_dir)?;
        let mut round = Self::default();
        for (device, family) in state::uplinks(&settings.state_dir)? {
            let taken = lock.state(&settings.state_dir, &device, family).and_then(|state| {
                understood(&state)?;
                Ok(RecordedUplink::new(&state.records, family, settings)?.map(|uplink| (uplink, state)))
            });
            match taken {
                Ok(uplink) => round.uplinks.extend(uplink),
                Err(error) => round.failures.push(error.context(device.to_string())),
            }
        }
        Ok(round)
    }

    fn take(
        &mut self,
        kernel: &mut Kernel,
        interface: &IfName,
        state: State,
        settings: &Settings,
        guarded: &HashMap<IfName, u32>,
    ) {
        let taken = understood(&state).and_then(|()| {
            let mut nic = RecordedNic::new(interface.clone(), &state.records, settings, guarded)?;
            nic.refresh(kernel, &mut self.of_tables).map(|()| nic)
        });
        match taken {
            // An ifdown came in between.
            Ok(nic) if nic.records.is_empty() => {}
            Ok(nic) => self.nics.push((nic, state)),
            Err(error) => self.failures.push(error.context(interface.to_string())),
        }
    }

    /// Sees to it that each address is of one NIC.
    fn claim(&mut self, settings: &Settings, observed: &Observed) {
        let mut failed = Vec::new();
        for (place, (nic, state)) in (self.uplinks.len()..).zip(&self.nics) {
            let Some(known) = nic.live(observed) else { continue };
            for conflict in addresses::conflicts(settings, state, &known.record, observed) {
                let conflict = conflict.map(|it| {
                    self.contested.extend([nic.interface.clone(), it.other.clone()].map(|name| (name, it.address)));
                    it.into()
                });
                failed.push((place, conflict.unwrap_or_else(|error| error)));
            }
        }
        failed.into_iter().for_each(|(place, error)| self.fail(place, error));
    }

    /// Writes the records that the settings made, before anything stands by them. Whoever's cannot be written stays as it is.
    fn record(&mut self, observed: &Observed) {
        let mut failed = Vec::new();
        for (place, (uplink, state)) in self.uplinks.iter_mut().enumerate() {
            if let Some(Err(error)) = uplink.unwritten.take().map(|record| state.add(record)) {
                uplink.stay();
                failed.push((place, error));
            }
        }
        for (place, (nic, state)) in (self.uplinks.len()..).zip(&mut self.nics) {
            let record = nic.unwritten.take().filter(|_| nic.live(observed).is_some());
            if let Some(Err(error)) = record.map(|record| state.add(record)) {
                nic.stay();
                failed.push((place, error));
            }
        }
        failed.into_iter().for_each(|(place, error)| self.fail(place, error));
    }

    fn fail(&mut self, place: usize, error: Error) {
        self.failures.push(error.context(self.name(place)));
        self.failed.insert(place);
    }

    /// Reads everything once, mends what differs, and looks whether it stands then, unless that is known. `known` are all that are
    /// recorded.
    fn run(mut self, kernel: &mut Kernel, settings: &Settings, known: &[IfName], log: &mut Log) -> Result<Found> {
        let tables = inspect::tables(kernel, settings)?;
        let observed = Observed::read(kernel, self.plans(), tables, &settings.ovsdb_socket)?;
        let (gone, orphans) = (self.gone(&observed), self.orphans(&observed, known));
        let former = fwmark::former_rules(&observed.mark_rules, settings).next().is_some();
        self.claim(settings, &observed);
        self.record(&observed);
        let before = self.drift(&observed);
        let mut differ = Vec::new();
        let mut jobs = Vec::new();
        for ((place, drift), plan) in before.into_iter().enumerate().zip(self.wanted()) {
            if !drift.is_empty() {
                let name = self.name(place);
                drift.iter().for_each(|it| log.line(format_args!("{name}: {it}")));
                let replaces = |it: &Drift| !matches!(it, Drift::Missing(_)) && matches!(it.thing(), Thing::Element(_));
                let assume_absent = !drift.iter().any(replaces);
                let [make, gone] = to_repair(plan, drift);
                differ.push(place);
                jobs.push(Job { make, gone, assume_absent });
            }
        }
        if !jobs.is_empty() {
            kernel.forget_links();
            observed.links.values().for_each(|link| kernel.know_link(link.clone()));
            let failed = repair(kernel, &jobs);
            // Filters of which nothing was refused stand: the kernel takes a transaction as a whole.
            if !(jobs.iter().all(Job::is_of_filters) && failed.iter().all(Vec::is_empty)) {
                let observed = Observed::read(kernel, self.plans(), Vec::new(), &settings.ovsdb_socket)?;
                let after = self.drift(&observed);
                for (place, errors) in differ.into_iter().zip(failed) {
                    self.judge(place, errors, &after[place], &observed);
                }
            }
        }
        self.settle(&gone);
        if self.is_last {
            // What was read is given up with the process, which is ten times as fast; what is locked is not.
            mem::forget(observed);
            for (nic, mut locked) in self.nics {
                mem::forget((nic, mem::take(&mut locked.records)));
            }
        }
        Ok(Found { failures: self.failures, gone, orphans, former })
    }

    fn gone(&self, observed: &Observed) -> Vec<IfName> {
        let is_gone = |nic: &RecordedNic| {
            let live = observed.link_id(&nic.interface);
            nic.records.iter().any(|it| !it.record.facts.link.is(live))
        };
        self.nics.iter().filter(|it| is_gone(&it.0)).map(|it| it.0.interface.clone()).collect()
    }

    /// Whether there may be any: proxy entries of NICs that are not in this round count, too.
    fn orphans(&self, observed: &Observed, known: &[IfName]) -> bool {
        let known: HashSet<_> = known.iter().chain(self.uplinks.iter().map(|it| &it.0.uplink.device)).collect();
        !verify::orphans(observed, |name| known.contains(name), self.plans()).is_empty()
    }

    /// All Plans, also those of records that wait to be cleared away.
    fn plans(&self) -> impl Iterator<Item = &Plan> + Clone {
        let of_nics = self.nics.iter().flat_map(|it| &it.0.records).map(|it| &it.plan);
        self.uplinks.iter().flat_map(|it| it.0.plans()).chain(of_nics)
    }

    /// The Plans in force, uplinks first.
    fn wanted(&self) -> impl Iterator<Item = &Plan> {
        let of_nics = self.nics.iter().filter_map(|it| it.0.records.last()).map(|it| &it.plan);
        self.uplinks.iter().map(|it| &it.0.plan).chain(of_nics)
    }

    /// How each differs, in the same order; one whose TAP is gone does not.
    fn drift(&self, observed: &Observed) -> Vec<Vec<Drift>> {
        let of_nic = |nic: &RecordedNic| {
            let mut drift = nic.drift(observed).unwrap_or_default();
            drift.retain(|it| {
                let address = it.thing().guest_address();
                address.is_none_or(|address| !self.contested.contains(&(nic.interface.clone(), address)))
            });
            drift
        };
        let of_nics = self.nics.iter().map(|it| of_nic(&it.0));
        self.uplinks.iter().map(|it| it.0.drift(observed)).chain(of_nics).collect()
    }

    fn name(&self, place: usize) -> String {
        match place.checked_sub(self.uplinks.len()) {
            Some(nic) => self.nics[nic].0.interface.to_string(),
            None => {
                let uplink = &self.uplinks[place].0.uplink;
                format!("{} {}", uplink.device, if uplink.family == Family::V4 { "inet" } else { "inet6" })
            }
        }
    }

    /// What became of one that differed. A TAP that vanished meanwhile needs nothing any more.
    fn judge(&mut self, place: usize, errors: Vec<Error>, after: &[Drift], observed: &Observed) {
        let nic = place.checked_sub(self.uplinks.len());
        if nic.is_some_and(|nic| self.nics[nic].0.live(observed).is_none()) {
            return;
        }
        // What was refused and stands all the same, somebody else made.
        if after.is_empty() {
            return;
        }
        if errors.is_empty() {
            let drift: Vec<_> = after.iter().map(Drift::to_string).collect();
            self.fail(place, anyhow!("still {}", drift.join("; ")));
        }
        errors.into_iter().for_each(|error| self.fail(place, error));
    }

    /// Forgets the records in front of those in force, where nothing of them stands any more: neither of those that failed, nor of a
    /// TAP that is gone.
    fn settle(&mut self, gone: &[IfName]) {
        let mut failed = Vec::new();
        for (place, (uplink, state)) in self.uplinks.iter_mut().enumerate() {
            if !self.failed.contains(&place) {
                failed.extend(state.write(mem::take(&mut uplink.lasting)).err().map(|error| (place, error)));
            }
        }
        for (place, (nic, state)) in (self.uplinks.len()..).zip(&mut self.nics) {
            if !self.failed.contains(&place) && !gone.contains(&nic.interface) {
                failed.extend(state.keep_last().err().map(|error| (place, error)));
            }
        }
        failed.into_iter().for_each(|(place, error)| self.fail(place, error));
    }
}

/// # Errors
/// If the file of what is recorded was not understood.
fn understood(state: &State) -> Result<()> {
    state.complaint.as_ref().map_or(Ok(()), |complaint| Err(anyhow!("{complaint}")))
}
