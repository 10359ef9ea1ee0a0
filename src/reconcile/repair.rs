//! Puts right what verify found of many NICs and uplinks, in one nf_tables transaction and one batch of rtnetlink.

use std::sync::Arc;

use anyhow::{Error, Result};

use super::batch::Batch;
use super::mark_mask;
use crate::addr::IfName;
use crate::kernel::Kernel;
use crate::kernel::nftables::Transaction;
use crate::kernel::rtnetlink::{LinkChange, set_link};
use crate::object::{Object, Phase, Plan, Verb};
use crate::ruleset::Group;

/// What mends one NIC, or one family of an uplink.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// What is missing or different.
    pub make: Plan,
    /// What stands in its name and is not its own.
    pub gone: Plan,
    /// Whether no element of these stands, as was just seen.
    pub assume_absent: bool,
}

impl Job {
    /// Whether nothing but filters is made and removed.
    pub fn is_of_filters(&self) -> bool {
        self.make.objects.is_empty() && self.gone.objects.is_empty()
    }
}

/// Makes and removes what these say; returns what failed of each. What fails for one does not stop the others, but where
/// filters cannot be made, nothing else is.
pub fn repair(kernel: &mut Kernel, jobs: &[Job]) -> Vec<Vec<Error>> {
    let mut failures: Vec<Vec<Error>> = jobs.iter().map(|_| Vec::new()).collect();
    detach_moved_ports(kernel, jobs, &mut failures);
    let owners: Vec<_> = (0..jobs.len()).filter(|owner| failures[*owner].is_empty()).collect();
    filters(kernel, jobs, &owners, &mut failures);
    make(kernel, jobs, &mut failures);
    kernel.forget_links();
    let mut batch = Batch::new(kernel, Verb::Remove);
    for (owner, job) in jobs.iter().enumerate() {
        batch.owner = owner;
        for object in job.gone.objects.iter().rev() {
            failures[owner].extend(batch.add(object).err());
        }
    }
    let refused = batch.flush_all();
    refused.into_iter().for_each(|(owner, error)| failures[owner].push(error));
    kernel.forget_links();
    failures
}

/// No link comes up before everything that restrains its guest exists, and only a link that is up can have routes.
const STEPS: [fn(Phase) -> bool; 3] =
    [|phase| phase < Phase::Up, |phase| phase == Phase::Up, |phase| phase > Phase::Up];

fn make(kernel: &mut Kernel, jobs: &[Job], failures: &mut [Vec<Error>]) {
    let mut batch = Batch::new(kernel, Verb::Add);
    for in_step in STEPS {
        for (owner, job) in jobs.iter().enumerate() {
            for object in job.make.objects.iter().filter(|it| in_step(it.phase())) {
                if matches!(object, Object::ChecksumGuard(_) | Object::BridgeVlans(_) | Object::OvsPort(_)) {
                    // It sends what is queued first, and what is refused then is of others.
                    let refused = batch.flush_all();
                    refused.into_iter().for_each(|(owner, error)| failures[owner].push(error));
                }
                batch.owner = owner;
                if failures[owner].is_empty() {
                    failures[owner].extend(batch.add(object).err());
                }
            }
            // Gathered changes of a link are of this one.
            failures[owner].extend(batch.queue_link().err());
        }
        let refused = batch.flush_all();
        refused.into_iter().for_each(|(owner, error)| failures[owner].push(error));
    }
}

/// Sets ports that go elsewhere down and takes them out of the place they are in: see `apply`.
fn detach_moved_ports(kernel: &mut Kernel, jobs: &[Job], failures: &mut [Vec<Error>]) {
    let mut described = Vec::new();
    for (owner, job) in jobs.iter().enumerate() {
        for object in &job.make.objects {
            let Object::Port(port) = object else { continue };
            match wrong_place(kernel, port.bridge.as_ref(), &port.name) {
                Ok(None) => {}
                Ok(Some(index)) => {
                    for change in [
                        LinkChange { up: Some(false), ..LinkChange::default() },
                        LinkChange { controller: Some(0), ..LinkChange::default() },
                    ] {
                        kernel.netlink.queue(set_link(index, &change));
                        described.push((owner, object.line(Verb::Remove)));
                    }
                }
                Err(error) => failures[owner].push(error),
            }
        }
    }
    if described.is_empty() {
        return;
    }
    match kernel.netlink.flush() {
        Ok(refusals) => {
            for (place, error) in refusals {
                if let Some((owner, line)) = described.get(place) {
                    failures[*owner].push(Error::new(error).context(line.clone()));
                }
            }
        }
        Err(error) => {
            for (owner, line) in described {
                failures[owner].push(Error::new(error.clone()).context(line));
            }
        }
    }
    kernel.forget_links();
}

/// The number of a link that is in another bridge than it should be, or up in none.
fn wrong_place(kernel: &mut Kernel, bridge: Option<&IfName>, name: &IfName) -> Result<Option<u32>> {
    let bridge = match bridge {
        Some(bridge) => kernel.link(bridge)?.map_or(0, |it| it.index),
        None => 0,
    };
    let Some(link) = kernel.link(name)? else { return Ok(None) };
    Ok((link.controller != bridge && (link.controller != 0 || link.up)).then_some(link.index))
}

/// Commits the filters of these owners in one transaction. One that is too long for the socket, or is refused, is halved, so
/// that the filters of each still come and go together and no refusal holds up those of another.
fn filters(kernel: &mut Kernel, jobs: &[Job], owners: &[usize], failures: &mut [Vec<Error>]) {
    let Err(error) = commit(kernel, owners.iter().map(|owner| &jobs[*owner])) else { return };
    match owners {
        [] => {}
        [owner] => failures[*owner].push(error),
        _ => {
            let (first, second) = owners.split_at(owners.len() / 2);
            filters(kernel, jobs, first, failures);
            filters(kernel, jobs, second, failures);
        }
    }
}

fn commit<'m>(kernel: &mut Kernel, jobs: impl Iterator<Item = &'m Job> + Clone) -> Result<()> {
    let assume_absent = jobs.clone().all(|it| it.assume_absent);
    let mut tables: Vec<Arc<Group>> = Vec::new();
    for table in jobs.clone().flat_map(|it| &it.make.tables) {
        if !tables.contains(table) {
            tables.push(Arc::clone(table));
        }
    }
    let add = jobs.clone().flat_map(|it| &it.make.elements).collect();
    let remove = jobs.flat_map(|it| &it.gone.elements).collect();
    mark_mask::commit(kernel, Transaction { tables: &tables, add, remove, assume_absent, ..Transaction::default() })
}
