//! What a run wants of the server: compared with what is there, and carried out zone by zone.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use anyhow::{Error, Result};
use domain::base::Rtype;

use super::Dns;
use super::exchange::Denied;
use super::records::{Data, Name, Record, records};
use super::summary::ZoneSummary;
use super::update::{Outcome, Prerequisite, Update};
use super::zone::Place;

/// How often a plan is made anew when somebody else changed a zone meanwhile.
const TRIES: usize = 3;

/// Which records shall be there, and which shall not.
#[derive(Default)]
struct Wanted {
    present: Vec<Record>,
    absent: Vec<Record>,
    /// Whether nothing may be changed unless the server still has what was read.
    guarded: bool,
}

/// What the server has of a name and type, as read for one plan.
type Read = HashMap<(Name, Rtype), Vec<Data>>;

/// The change of a zone, and what will be said of it if it succeeds.
struct Part {
    update: Update,
    summary: ZoneSummary,
}

impl Dns {
    /// Sees to it that the records are there. Others are left as they are.
    ///
    /// # Errors
    /// If no server answers before anything was changed. What fails later is in the summaries.
    pub fn add(&mut self, records: &[Record]) -> Result<Vec<ZoneSummary>> {
        self.carry_out(|_, _| Ok(Wanted { present: records.to_vec(), ..Wanted::default() }))
    }

    /// Sees to it that exactly these records are not there.
    ///
    /// # Errors
    /// As [`Dns::add`].
    pub fn remove(&mut self, records: &[Record]) -> Result<Vec<ZoneSummary>> {
        self.carry_out(|_, _| Ok(Wanted { absent: records.to_vec(), ..Wanted::default() }))
    }

    /// Sees to it that these records are there, and exactly those are not.
    ///
    /// # Errors
    /// As [`Dns::add`].
    pub fn change(&mut self, present: &[Record], absent: &[Record]) -> Result<Vec<ZoneSummary>> {
        self.carry_out(|_, _| Ok(Wanted { present: present.to_vec(), absent: absent.to_vec(), ..Wanted::default() }))
    }

    /// Removes all addresses that the server has for `name`, and the PTR records from them to it.
    ///
    /// # Errors
    /// As [`Dns::add`].
    pub fn remove_instance(&mut self, name: &Name) -> Result<Vec<ZoneSummary>> {
        self.sync_records(name, &[], false)
    }

    /// Makes the addresses of `name` these, and the PTR records accordingly. An address that leaves loses only its PTR
    /// record to `name`. Nothing is done to what somebody else changes meanwhile: it is read anew.
    ///
    /// # Errors
    /// As [`Dns::add`].
    pub fn sync(&mut self, name: &Name, addresses: &[IpAddr]) -> Result<Vec<ZoneSummary>> {
        self.sync_records(name, addresses, true)
    }

    fn sync_records(&mut self, name: &Name, addresses: &[IpAddr], guarded: bool) -> Result<Vec<ZoneSummary>> {
        self.carry_out(|dns, read| {
            let known = dns.read_addresses(name, read)?;
            let leaving: Vec<_> = known.into_iter().filter(|address| !addresses.contains(address)).collect();
            Ok(Wanted { present: records(name, addresses), absent: records(name, &leaving), guarded })
        })
    }

    /// The addresses of a name at the server. An alias has none of its own.
    pub(super) fn read_addresses(&mut self, name: &Name, read: &mut Read) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        if matches!(self.place(name)?, Place::In { owner, .. } if owner == *name) {
            for rtype in [Rtype::A, Rtype::AAAA] {
                addresses.extend(self.read(name, rtype, read)?.iter().filter_map(Data::address));
            }
        }
        Ok(addresses)
    }

    /// What the server has, asked once for a plan.
    fn read<'r>(&mut self, owner: &Name, rtype: Rtype, read: &'r mut Read) -> Result<&'r [Data]> {
        let key = (owner.clone(), rtype);
        if !read.contains_key(&key) {
            let data = self.client.read(owner, rtype)?;
            read.insert(key.clone(), data);
        }
        Ok(read.get(&key).map(Vec::as_slice).unwrap_or_default())
    }

    /// Plans and sends; plans anew where a zone was changed by somebody else in between.
    fn carry_out(
        &mut self,
        mut wanted: impl FnMut(&mut Self, &mut Read) -> Result<Wanted>,
    ) -> Result<Vec<ZoneSummary>> {
        let mut earlier: Vec<ZoneSummary> = Vec::new();
        for last in (0..TRIES).map(|n| n + 1 == TRIES) {
            let mut read = Read::new();
            let planned = wanted(self, &mut read).and_then(|wanted| self.plan(&wanted, &mut read));
            let (parts, nowhere) = match planned {
                Err(error) if !earlier.is_empty() => {
                    let why = vec![format!("{error:#}")];
                    earlier.push(ZoneSummary { refused: why, ..ZoneSummary::default() });
                    return Ok(earlier);
                }
                planned => planned?,
            };
            let mut outdated = false;
            // Why the parts that are left are not tried: what is to be removed is found by what they remove.
            let mut stopped: Option<String> = None;
            let mut done = Vec::new();
            for Part { update, mut summary } in parts {
                let outcome = match &stopped {
                    Some(why) if !update.is_empty() => Err(Error::msg(why.clone())),
                    _ => self.send(&update),
                };
                match outcome {
                    Ok(Outcome::Done) => {}
                    Ok(Outcome::Outdated) => {
                        outdated = true;
                        summary.fail(format!("somebody else changed it meanwhile, {TRIES} times"));
                        stopped = Some("not tried, for another zone comes first".to_owned());
                    }
                    Ok(Outcome::Refused(rcode)) => summary.fail(format!("the server answers {rcode} to the update")),
                    Err(error) if error.is::<Denied>() => summary.fail(error.to_string()),
                    Err(error) => {
                        summary.fail(format!("{error:#}"));
                        stopped.get_or_insert_with(|| "not tried, for no server answered before".to_owned());
                    }
                }
                if let Some(before) = earlier.iter().find(|before| before.zone == summary.zone) {
                    summary.include(before);
                }
                done.push(summary);
            }
            if !outdated || last {
                done.extend(nowhere);
                return Ok(done);
            }
            earlier = done;
        }
        Ok(earlier)
    }

    /// Compares what is wanted with what is there: a part for each zone, and what is in no zone.
    fn plan(&mut self, wanted: &Wanted, read: &mut Read) -> Result<(Vec<Part>, Option<ZoneSummary>)> {
        let mut parts: BTreeMap<Name, Part> = BTreeMap::new();
        let mut nowhere = ZoneSummary::default();
        let all = wanted.absent.iter().map(|record| (record, false)).chain(wanted.present.iter().map(|r| (r, true)));
        for (record, present) in all {
            let (owner, zone) = match self.place(&record.owner)? {
                Place::In { owner, zone } => (owner, zone),
                Place::Elsewhere(why) => {
                    nowhere.elsewhere.push(why);
                    continue;
                }
                Place::Unknown(why) => {
                    nowhere.refused.push(why);
                    continue;
                }
            };
            let part = parts.entry(zone.clone()).or_insert_with(|| Part::new(zone, self.ttl));
            if owner != record.owner && record.data.address().is_some() {
                part.summary.refused.push(format!("{} is an alias (CNAME) of {owner}", record.owner));
                continue;
            }
            let found = self.read(&owner, record.data.rtype(), read)?.contains(&record.data);
            let record = Record { owner, data: record.data.clone() };
            match (present, found) {
                (true, false) => {
                    // A server takes an addition to an alias and does nothing (RFC 2136, 3.4.2.2).
                    part.require(Prerequisite { owner: record.owner.clone(), rtype: Rtype::CNAME, data: Vec::new() });
                    part.update.adds.push(record);
                }
                (false, true) => part.update.deletes.push(record),
                _ => part.summary.unchanged.push(record),
            }
        }
        if wanted.guarded {
            for ((owner, rtype), data) in read.iter() {
                if let Place::In { zone, .. } = self.place(owner)?
                    && let Some(part) = parts.get_mut(&zone)
                {
                    part.require(Prerequisite { owner: owner.clone(), rtype: *rtype, data: data.clone() });
                }
            }
        }
        let mut parts: Vec<_> = parts.into_values().collect();
        for part in &mut parts {
            part.summary.added.clone_from(&part.update.adds);
            part.summary.removed.clone_from(&part.update.deletes);
        }
        // What is removed is found by its forward records, so these go last; what is added is used through them, so they
        // come first.
        let removes = parts.iter().any(|part| !part.update.deletes.is_empty());
        parts.sort_by_key(|part| part.is_reverse() != removes);
        Ok((parts, Some(nowhere).filter(|nowhere| *nowhere != ZoneSummary::default())))
    }

    /// Sends an update, or writes it down in a dry run.
    fn send(&mut self, update: &Update) -> Result<Outcome> {
        if update.is_empty() {
            return Ok(Outcome::Done);
        }
        if let Some(script) = &mut self.script {
            if let (true, Some(server)) = (script.is_empty(), self.client.server()) {
                script.push_str(&format!("server {} {}\n", server.ip(), server.port()));
            }
            script.push_str(&update.to_string());
            return Ok(Outcome::Done);
        }
        let answer = self.client.ask(&update.message()?)?;
        Ok(Outcome::of(answer.header().rcode()))
    }
}

impl Part {
    fn new(zone: Name, ttl: u32) -> Self {
        let summary = ZoneSummary { zone: Some(zone.clone()), ..ZoneSummary::default() };
        let update = Update { zone, prerequisites: Vec::new(), deletes: Vec::new(), adds: Vec::new(), ttl };
        Self { update, summary }
    }

    fn require(&mut self, prerequisite: Prerequisite) {
        if !self.update.prerequisites.contains(&prerequisite) {
            self.update.prerequisites.push(prerequisite);
        }
    }

    /// Whether it is about names of addresses.
    fn is_reverse(&self) -> bool {
        let records = [&self.update.adds, &self.update.deletes];
        records.into_iter().flatten().any(|record| record.data.address().is_none())
    }
}
