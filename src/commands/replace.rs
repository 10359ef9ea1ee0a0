//! How a TAP goes from what is recorded of it to a new Plan: as a fresh one, as the same NIC again, or as another one's.

use anyhow::{Context, Error, Result};

use super::addresses;
use super::joined;
use super::nic::log_plan;
use crate::addr::Family;
use crate::deadline;
use crate::kernel::Kernel;
use crate::kernel::nftables::{Presence, is_missing};
use crate::kernel::rtnetlink::LinkState;
use crate::log::Log;
use crate::model::link_id::LinkId;
use crate::nic::{Mode, Nic};
use crate::object::{File, Object, PREFERENCE_NIC, PROTOCOL_NIC, Plan, Rule, RuleSelector, Verb};
use crate::ovsdb;
use crate::reconcile;
use crate::record::Record;
use crate::ruleset::{Element, TableFamily};
use crate::setup::{fwmark, shared};
use crate::state::{State, Variables};

/// A record and the Plan that was made of it.
pub struct OneKnown {
    /// What is recorded.
    pub record: Record,
    /// What stands, or may stand, by it.
    pub plan: Plan,
}

/// What the records of a TAP say.
pub struct Known {
    /// Oldest first.
    pub records: Vec<OneKnown>,
    /// Whether that is all: no record was lost or is of an unknown form.
    pub understood: bool,
}

impl Known {
    /// Of the records in the state file; what cannot be understood is a warning.
    pub fn read(state: &State, log: &mut Log) -> Self {
        let mut known = Self::of(&state.records, log);
        known.understood &= state.complaint.is_none();
        known
    }

    /// Of these records.
    pub fn of(records: &[Variables], log: &mut Log) -> Self {
        let mut known = Self { records: Vec::new(), understood: true };
        for variables in records {
            let one =
                Record::from_variables(variables).and_then(|record| Ok(OneKnown { plan: record.plan()?, record }));
            match one {
                Ok(one) => known.records.push(one),
                Err(error) => {
                    known.understood = false;
                    log.line(format_args!("warning: a record cannot be understood: {error:#}: ignored"));
                }
            }
        }
        known
    }

    /// The record in force, if nobody but this very NIC had this very TAP.
    pub fn current(&self, nic: &Nic, link: LinkId) -> Option<&OneKnown> {
        let all = self.understood && self.records.iter().all(|it| it.record.is_of(nic, link));
        self.records.last().filter(|_| all)
    }
}

/// What is left over of records, each with whether the TAP is still that one.
type Leftovers = Vec<(Plan, bool)>;

/// An ifup under way.
pub struct Replace<'a> {
    /// Whose.
    pub nic: &'a Nic,
    /// The TAP as it is.
    pub tap: &'a LinkState,
    /// What is recorded of it.
    pub old: &'a Known,
    /// What shall stand.
    pub plan: &'a Plan,
    /// What will be recorded.
    pub record: &'a Record,
}

impl Replace<'_> {
    /// Makes the Plan stand, and what the records name beside it go.
    ///
    /// # Errors
    /// What was refused first; then the TAP is as it was before, or clean and down if another NIC, or none, had it.
    pub fn run(&self, kernel: &mut Kernel, state: &mut State, log: &mut Log) -> Result<()> {
        let (recorded, variables) = (state.records.clone(), self.record.variables());
        let current = self.old.current(self.nic, self.record.facts.link);
        if current.is_some() && recorded == [variables.clone()] {
            addresses::claim(kernel, state, self.record)?;
            reconcile::apply(kernel, self.plan, &[])?;
            log.line("nothing to change, everything was ensured again");
            return Ok(());
        }
        // First of all, so that whatever may stand from now on is named in the file.
        state.add(variables.clone())?;
        if let Err(error) = addresses::claim(kernel, state, self.record) {
            settle(state, recorded, log);
            return Err(error);
        }
        let made = match current {
            Some(current) => self.change(kernel, current),
            None => self.take_over(kernel, log).map(|()| Vec::new()),
        };
        let error = match made {
            Ok(failures) => {
                log_plan(self.plan, Verb::Add, log);
                if report("warning: left over", &failures, log) {
                    settle(state, vec![variables], log);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        deadline::grace();
        let undone = match current {
            // The chains that mark are of all NICs: those that went over to another mask meanwhile are not led back.
            Some(current) => match current.record.under(self.record.settings.routing_mark_mask).plan() {
                Ok(old) => self.undo_to(kernel, &old),
                Err(error) => vec![error],
            },
            None => self.clear(kernel),
        };
        if report("error: undoing", &undone, log) {
            settle(state, if current.is_some() { recorded } else { Vec::new() }, log);
        }
        Err(error)
    }

    /// The same NIC again: what is new is made before what is old goes, so that its traffic does not notice; but a port that
    /// goes elsewhere goes down first, as what restrains it in the one place may not do in the other.
    fn change(&self, kernel: &mut Kernel, current: &OneKnown) -> Result<Vec<Error>> {
        let (elements, leftovers) = self.leftovers();
        if moves(&current.plan, self.plan, !elements.is_empty()) && (self.tap.up || self.tap.controller != 0) {
            kernel.detach_port(self.tap.index)?;
        }
        // What Open vSwitch has, no other bridge can have.
        let (held, leftovers) = apart(leftovers, |it| matches!(it, Object::OvsPort(_)));
        remove_first(kernel, &held)?;
        reconcile::apply(kernel, self.plan, &elements)?;
        Ok(remove_all(kernel, &leftovers))
    }

    /// A TAP that another NIC had, or that is new: nobody reaches anybody until it is this one's alone.
    fn take_over(&self, kernel: &mut Kernel, log: &mut Log) -> Result<()> {
        if self.tap.up || self.tap.controller != 0 {
            kernel.detach_port(self.tap.index)?;
        }
        let (mut elements, leftovers) = self.leftovers();
        // nfdhcpd's user, who can be in the way of its files, must keep nobody from a TAP.
        let (bindings, leftovers) = apart(leftovers, |it| matches!(it, Object::File(_)));
        report("warning: left over", &remove_all(kernel, &bindings), log);
        remove_first(kernel, &leftovers)?;
        let openvswitch = self.plan.objects.iter().any(|it| matches!(it, Object::OvsPort(_)));
        let is_port = kernel.link_by_index(self.tap.index)?.is_some_and(|it| it.in_openvswitch);
        // A record would have named its port.
        if !openvswitch && (is_port || self.old.records.is_empty() || !self.old.understood) {
            let removed = ovsdb::port::remove_stale(&self.record.settings.ovsdb_socket, &self.tap.name, !is_port);
            if removed.with_context(|| format!("ovs-vsctl del-port {}", self.tap.name))? {
                kernel.forget_links();
            }
        }
        if self.old.records.is_empty() || !self.old.understood {
            elements.extend(self.unrecorded(kernel, log)?);
            if elements.is_empty() {
                return reconcile::apply_fresh(kernel, self.plan);
            }
        }
        reconcile::apply(kernel, self.plan, &elements)
    }

    /// What the records name and the new Plan does not: elements, and the rest with whether the TAP is still that one.
    fn leftovers(&self) -> (Vec<Element>, Leftovers) {
        let (mut elements, mut plans) = (Vec::new(), Vec::new());
        for OneKnown { record, plan } in &self.old.records {
            let mut gone = reconcile::difference(plan, self.plan);
            elements.append(&mut gone.elements);
            plans.push((gone, record.facts.link.is(Some(self.record.facts.link))));
        }
        (elements, plans)
    }

    /// Back to what stood before this run; a filter that the old Plan had is never missing meanwhile.
    fn undo_to(&self, kernel: &mut Kernel, old: &Plan) -> Vec<Error> {
        let mut extra = reconcile::difference(self.plan, old);
        let elements = std::mem::take(&mut extra.elements);
        let mut failures = reconcile::remove(kernel, &extra, true);
        failures.extend(reconcile::apply(kernel, old, &elements).err());
        failures
    }

    /// Neither this NIC nor those that had the TAP before.
    fn clear(&self, kernel: &mut Kernel) -> Vec<Error> {
        let mut failures = reconcile::remove(kernel, self.plan, true);
        for OneKnown { record, plan } in &self.old.records {
            failures.extend(reconcile::remove(kernel, plan, record.facts.link.is(Some(self.record.facts.link))));
        }
        failures
    }

    /// What stands under the TAP's name without a record of it, because its file was lost: binding and rules go at once,
    /// elements are returned.
    fn unrecorded(&self, kernel: &mut Kernel, log: &mut Log) -> Result<Vec<Element>> {
        let name = &self.tap.name;
        if !self.plan.objects.iter().any(|it| matches!(it, Object::File(_))) {
            let path = self.record.settings.nfdhcpd_state_dir.join(name.as_str());
            let binding = File { path, text: String::new() };
            let failure = crate::binding::remove(&binding).with_context(|| binding.path.display().to_string()).err();
            report("warning: left over", failure.as_slice(), log);
        }
        let elements = self.unrecorded_elements(kernel)?;
        // The kernel compares all rules with what shall go. Where a mark decides, or a bridge, a rule without elements decides
        // nothing: `reconcile` removes it.
        let is_port = matches!(self.nic.mode, Mode::Bridged { .. } | Mode::OpenVswitch { .. });
        let marks: Vec<_> = self.plan.objects.iter().filter_map(marked_family).collect();
        for family in Family::BOTH {
            if !elements.is_empty() || !(is_port || marks.contains(&family)) {
                kernel.remove_rules_of(family, name, PREFERENCE_NIC, PROTOCOL_NIC)?;
            }
        }
        Ok(elements)
    }

    fn unrecorded_elements(&self, kernel: &mut Kernel) -> Result<Vec<Element>> {
        let (name, settings) = (&self.tap.name, &self.record.settings);
        let nftables = match kernel.nftables() {
            // A kernel without nf_tables has no elements; a Plan that needs it fails by itself.
            Err(error) if self.plan.tables.is_empty() && is_missing(&error) => return Ok(Vec::new()),
            nftables => nftables?,
        };
        let steered = fwmark::steered_tables(&nftables.set_names(TableFamily::Inet)?);
        let there = nftables.present(&shared::membership(name, settings, &steered))?;
        if there.iter().all(|it| *it == Presence::Absent) {
            return Ok(Vec::new());
        }
        let mut elements = Vec::new();
        for table in shared::tables(settings, &steered) {
            for set in &table.sets {
                elements.extend(nftables.elements_of(table.family, set, name)?);
            }
        }
        Ok(elements)
    }
}

/// The family of a rule by a mark.
fn marked_family(object: &Object) -> Option<Family> {
    match object {
        Object::Rule(Rule { selector: RuleSelector::Mark(_), family, .. }) => Some(*family),
        _ => None,
    }
}

/// Whether a port goes elsewhere: to another bridge or out of one, or, where filters go with it, into other VLANs. A link that
/// gets another MAC does, too: only on its way up it makes itself an address of it (addrconf_dev_config of net/ipv6/addrconf.c).
fn moves(old: &Plan, new: &Plan, unfiltered: bool) -> bool {
    let there = |one: &Object, other: &Object| match (one, other) {
        (Object::OvsPort(a), Object::OvsPort(b)) => (&a.socket, &a.bridge) == (&b.socket, &b.bridge),
        (Object::Link(a), Object::Link(b)) => a.mac.map(|it| it.want) == b.mac.map(|it| it.want),
        (a, b) => a == b,
    };
    let place = |it: &&Object| match it {
        Object::Port(_) | Object::OvsPort(_) | Object::Link(_) => true,
        Object::BridgeVlans(_) => unfiltered,
        _ => false,
    };
    let lacks = |one: &Plan, other: &Plan| {
        one.objects.iter().filter(place).any(|it| !other.objects.iter().any(|other| there(it, other)))
    };
    lacks(old, new) || lacks(new, old)
}

/// What is left over: these objects, and the rest.
fn apart(leftovers: Leftovers, is_of_these: fn(&Object) -> bool) -> (Leftovers, Leftovers) {
    let part = |(mut plan, live): (Plan, bool)| {
        let (these, objects) = plan.objects.into_iter().partition(is_of_these);
        plan.objects = objects;
        ((Plan { objects: these, ..Plan::default() }, live), (plan, live))
    };
    leftovers.into_iter().map(part).unzip()
}

fn remove_all(kernel: &mut Kernel, plans: &[(Plan, bool)]) -> Vec<Error> {
    plans.iter().flat_map(|(plan, live)| reconcile::remove(kernel, plan, *live)).collect()
}

/// Removes what must be gone before anything new is made.
fn remove_first(kernel: &mut Kernel, plans: &[(Plan, bool)]) -> Result<()> {
    joined(&remove_all(kernel, plans)).context("what was there before does not go")
}

/// Logs what went wrong; true if nothing did.
fn report(what: &str, failures: &[Error], log: &mut Log) -> bool {
    failures.iter().for_each(|failure| log.line(format_args!("{what}: {failure:#}")));
    failures.is_empty()
}

/// Records that nothing but this is left. Where that cannot be written, what was recorded before names it too, and more: the
/// next run clears the rest away.
fn settle(state: &mut State, records: Vec<Variables>, log: &mut Log) {
    if let Err(error) = state.write(records) {
        log.line(format_args!("warning: {error:#}"));
    }
}
