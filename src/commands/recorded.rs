//! What is recorded of a NIC or an uplink, and how what stands differs from it.
//!
//! A record holds the settings of its ifup, but which way the packets take is the node's affair: where ROUTING or
//! ROUTING_MARK_MASK say another by now, and where a version that knew no guard set the NIC up, one more record that is like the last but for this is taken as the one in force.
//! So the switch is what it is for an ifup that gives way to another: what the former record names beside the new one goes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Context, Result};

use super::node;
use super::replace::OneKnown;
use crate::addr::{Family, IfName};
use crate::kernel::Kernel;
use crate::kernel::observed::Observed;
use crate::nic::Mode;
use crate::object::{Object, Plan};
use crate::reconcile;
use crate::record::Record;
use crate::settings::{Settings, Setup};
use crate::setup::fwmark;
use crate::setup::uplink::{self, Uplink};
use crate::state::{self, State, Variables};
use crate::verify::{self, Drift, Owner, Thing};

/// What is recorded of a NIC's interface.
pub struct RecordedNic {
    /// The interface.
    pub interface: IfName,
    /// Oldest first; the last one is in force.
    pub records: Vec<OneKnown>,
    /// The record in force, where the settings made it and no run has written it yet.
    pub unwritten: Option<Variables>,
}

impl RecordedNic {
    /// What is recorded of an interface; no records where nothing is.
    ///
    /// # Errors
    /// If it cannot be read or is not what this program writes.
    pub fn read(settings: &Settings, interface: &IfName, guarded: &HashMap<IfName, u32>) -> Result<Self> {
        Self::new(interface.clone(), &State::peek(&settings.state_dir, interface)?, settings, guarded)
    }

    /// From the records in a state file. `guarded` are the TAPs that need a guard, also if it is not recorded.
    ///
    /// # Errors
    /// If one is not what this program writes.
    pub fn new(
        interface: IfName,
        records: &[Variables],
        settings: &Settings,
        guarded: &HashMap<IfName, u32>,
    ) -> Result<Self> {
        let known = |record: Record| Ok(OneKnown { plan: record.plan()?, record });
        let read = records.iter().map(|variables| known(Record::from_variables(variables)?));
        let mut records = read.collect::<Result<Vec<_>>>().context("its record cannot be understood")?;
        let mut unwritten = None;
        if let Some(last) = records.last() {
            let mut record = last.record.clone();
            // Without a rule there is no table but main, and no way to choose.
            if last.plan.objects.iter().any(|it| matches!(it, Object::Rule(_))) {
                record = record.switched(settings).unwrap_or(record);
            }
            if record.facts.guard.is_none() && guarded.get(&interface) == Some(&record.facts.link.index) {
                record = record.guarded();
            }
            let switched = known(record)?;
            if switched.plan != last.plan {
                unwritten = Some(switched.record.variables());
                records.push(switched);
            }
        }
        Ok(Self { interface, records, unwritten })
    }

    /// Takes the uplinks of the NIC's routing table and the MTU of its bridge as they are now: they are the node's, and a record
    /// only says how they were. Where the table has no default route now, its uplinks stay.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn refresh(&mut self, kernel: &mut Kernel, uplinks: &mut Uplinks) -> Result<()> {
        let Some(last) = self.records.last() else { return Ok(()) };
        let (mut record, nic) = (last.record.clone(), last.record.nic()?);
        match &nic.mode {
            Mode::Routed { table } if nic.has(Setup::IpLessRouted) => {
                for family in Family::BOTH.into_iter().filter(|family| nic.endpoint(*family).is_some()) {
                    let now = uplinks.of_table(kernel, family, *table, &record.settings)?;
                    if !now.is_empty() {
                        record.facts.uplinks[family as usize] = now.to_vec();
                    }
                }
            }
            Mode::Bridged { bridge, .. } | Mode::OpenVswitch { bridge, .. } => {
                if let Some(bridge) = kernel.link(bridge)? {
                    record.facts.bridge_mtu = Some(bridge.mtu);
                }
            }
            Mode::Routed { .. } | Mode::Ext => {}
        }
        if record.facts == last.record.facts {
            return Ok(());
        }
        let refreshed = OneKnown { plan: record.plan()?, record };
        // A record that the settings made is not written yet either.
        if self.unwritten.replace(refreshed.record.variables()).is_some() {
            self.records.pop();
        }
        self.records.push(refreshed);
        Ok(())
    }

    /// Of a new record that cannot be written: takes the last one in the file as that in force, unless this names whatever will stand.
    pub fn stay(&mut self) {
        if let [.., last, new] = self.records.as_slice()
            && !names_all(&last.plan, &new.plan)
        {
            self.records.pop();
        }
    }

    /// The record in force, if its TAP is the one that has the name now.
    pub fn live(&self, observed: &Observed) -> Option<&OneKnown> {
        let live = observed.link_id(&self.interface);
        self.records.last().filter(|it| it.record.facts.link.is(live))
    }

    /// How what stands differs from the record in force; none if its TAP is gone. What earlier records of this TAP left is
    /// foreign; where this one has an element of the same key, that is a difference already.
    pub fn drift(&self, observed: &Observed) -> Option<Vec<Drift>> {
        let OneKnown { plan, .. } = self.live(observed)?;
        let mut drift = verify::verify(&Owner::Nic(self.interface.clone()), plan, observed);
        for old in self.records.iter().rev().skip(1) {
            add_foreign(&mut drift, verify::leftovers(&reconcile::leftover(&old.plan, plan), observed));
        }
        Some(drift)
    }

    /// The routing tables of the NIC without a default route, by family: of an ip-less-routed NIC, and those in which packets without
    /// another route end.
    pub fn cut_off(&self, observed: &Observed) -> Vec<(Family, u32)> {
        let Some(OneKnown { record, plan }) = self.live(observed) else { return Vec::new() };
        let mut cut_off = Vec::new();
        for object in &plan.objects {
            let Object::Route(route) = object else { continue };
            let family = Family::of(route.destination.addr());
            let is_ip_less = !record.facts.uplinks[family as usize].is_empty();
            let expected = is_ip_less || observed.rejects_the_rest(family, route.table);
            let place = (family, route.table);
            if expected && !observed.defaults.contains(&place) && !cut_off.contains(&place) {
                cut_off.push(place);
            }
        }
        cut_off
    }

    /// What stands of a NIC whose TAP is gone.
    pub fn leftovers(&self, observed: &Observed) -> Vec<Thing> {
        let mut things = verify::in_name_of(&Owner::Nic(self.interface.clone()), &Plan::default(), observed);
        for OneKnown { plan, .. } in &self.records {
            for thing in verify::leftovers(plan, observed) {
                if !things.contains(&thing) {
                    things.push(thing);
                }
            }
        }
        things
    }
}

/// The uplinks of routing tables, each asked for once.
#[derive(Default)]
pub struct Uplinks(HashMap<(Family, u32), Vec<IfName>>);

impl Uplinks {
    fn of_table(&mut self, kernel: &mut Kernel, family: Family, table: u32, settings: &Settings) -> Result<&[IfName]> {
        Ok(match self.0.entry((family, table)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let hint = || state::uplink_of_table(&settings.state_dir, table);
                place.insert(kernel.uplinks(family, table, settings.mark(table), hint)?)
            }
        })
    }
}

/// One family of an uplink that is recorded.
pub struct RecordedUplink {
    /// What is in force.
    pub uplink: Uplink,
    /// What shall stand by it.
    pub plan: Plan,
    /// Earlier records that differ by their mark alone. What others left, only the next `node up` or `node down` knows to part from
    /// what is still needed.
    former: Vec<(Uplink, Plan)>,
    /// The record in force, where the settings made it and no run has written it yet.
    pub unwritten: Option<Variables>,
    /// The records that are to stay once all is right.
    pub lasting: Vec<Variables>,
}

impl RecordedUplink {
    /// What is recorded of this family of a device; none if that is nothing.
    ///
    /// # Errors
    /// If it cannot be read or is not what this program writes.
    pub fn read(settings: &Settings, device: &IfName, family: Family) -> Result<Option<Self>> {
        Self::new(&State::peek_uplink(&settings.state_dir, device, family)?, family, settings)
    }

    /// From the records in a state file; none if it has none.
    ///
    /// # Errors
    /// If one is not what this program writes.
    pub fn new(records: &[Variables], family: Family, settings: &Settings) -> Result<Option<Self>> {
        let read = records.iter().map(|it| node::recorded(it, family));
        let known = read.collect::<Result<Vec<_>>>().context("its record cannot be understood")?;
        let (Some((last, before)), Some(record)) = (known.last(), records.last()) else { return Ok(None) };
        let under = |uplink: &Uplink| Uplink { fwmark: settings.fwmark(uplink.table), ..uplink.clone() };
        let uplink = under(last);
        let unwritten = (uplink != *last).then(|| node::variables(&uplink, before));
        let mut former = Vec::new();
        let mut lasting = Vec::new();
        for (variables, (other, before)) in records.iter().zip(&known) {
            if under(other) != uplink {
                lasting.push(variables.clone());
            } else if *other != uplink {
                former.push((other.clone(), uplink::plan(other, before)));
            }
        }
        lasting.push(unwritten.as_ref().unwrap_or(record).clone());
        Ok(Some(Self { plan: uplink::plan(&uplink, before), uplink, former, unwritten, lasting }))
    }

    /// As of a NIC.
    pub fn stay(&mut self) {
        if let Some((uplink, plan)) = self.former.pop_if(|it| !names_all(&it.1, &self.plan)) {
            (self.uplink, self.plan) = (uplink, plan);
        }
    }

    /// The Plan in force and those of former marks.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> + Clone {
        self.former.iter().map(|it| &it.1).chain([&self.plan])
    }

    /// How what stands differs from the record in force; what a former mark left on the device is foreign. Rules by former marks are of the
    /// table.
    pub fn drift(&self, observed: &Observed) -> Vec<Drift> {
        let owner = Owner::Uplink(self.uplink.device.clone(), self.uplink.family);
        let mut drift = verify::verify(&owner, &self.plan, observed);
        for (_, former) in &self.former {
            let leftover = reconcile::leftover(former, &self.plan);
            add_foreign(&mut drift, verify::left_settings(&self.uplink.device, &leftover, observed));
        }
        drift
    }
}

/// Whether a Plan names whatever would go with a newer one; rules by marks are of the table, and marks of its chains.
fn names_all(old: &Plan, new: &Plan) -> bool {
    let beyond = reconcile::difference(new, old);
    let is_rule_by_mark = |it: &Object| matches!(it, Object::Rule(it) if fwmark::own_mark(it).is_some());
    beyond.elements.is_empty() && beyond.objects.iter().all(is_rule_by_mark)
}

fn add_foreign(drift: &mut Vec<Drift>, things: Vec<Thing>) {
    for foreign in things.into_iter().map(Drift::Foreign) {
        if !drift.contains(&foreign) {
            drift.push(foreign);
        }
    }
}
