//! Puts right what verify found of many NICs and uplinks, in one nf_tables transaction and one batch of rtnetlink.

use std::sync::Arc;

use anyhow::{Error, Result};

use super::batch::Batch;
use super::marks;
use crate::addr::IfName;
use crate::kernel::Kernel;
use crate::kernel::nftables::Change;
use crate::kernel::rtnetlink::{LinkChange, set_link};
use crate::plan::{Object, Plan, Verb};
use crate::ruleset::Table;

/// What mends one NIC, or one family of an uplink.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mending {
    /// What is missing or different.
    pub make: Plan,
    /// What stands in its name and is not its own.
    pub gone: Plan,
    /// Whether no element of these stands, as was just seen.
    pub fresh: bool,
}

impl Mending {
    /// Whether nothing but filters is made and removed.
    pub fn is_of_filters(&self) -> bool {
        self.make.objects.is_empty() && self.gone.objects.is_empty()
    }
}

/// Makes and removes what these say; returns what failed of each. What fails for one does not stop the others, but where
/// filters cannot be made, nothing else is.
pub fn mend(kernel: &mut Kernel, mendings: &[Mending]) -> Vec<Vec<Error>> {
    let mut failures: Vec<Vec<Error>> = mendings.iter().map(|_| Vec::new()).collect();
    leave_bridges(kernel, mendings, &mut failures);
    let owners: Vec<_> = (0..mendings.len()).filter(|owner| failures[*owner].is_empty()).collect();
    filters(kernel, mendings, &owners, &mut failures);
    make(kernel, mendings, &mut failures);
    kernel.forget_links();
    let mut batch = Batch::new(kernel, Verb::Remove);
    for (owner, mending) in mendings.iter().enumerate() {
        batch.owner = owner;
        for object in mending.gone.objects.iter().rev() {
            failures[owner].extend(batch.add(object).err());
        }
    }
    let refused = batch.flush_all();
    refused.into_iter().for_each(|(owner, error)| failures[owner].push(error));
    kernel.forget_links();
    failures
}

/// The steps in which objects are made: nobody comes up before everything that restrains it stands, and only what is up can
/// have routes.
const STEPS: [fn(&Object) -> bool; 3] = [|object| !(is_up(object) || needs_up(object)), is_up, needs_up];

fn is_up(object: &Object) -> bool {
    matches!(object, Object::Up(_))
}

fn needs_up(object: &Object) -> bool {
    match object {
        Object::Route(_) | Object::Proxy(_) | Object::Binding(_) => true,
        Object::Sysctl(_)
        | Object::Link(_)
        | Object::VlanDevice(_)
        | Object::Bridge(_)
        | Object::OvsPort(_)
        | Object::Rule(_)
        | Object::Port(_)
        | Object::GroupForwarding(_)
        | Object::PortVlans(_)
        | Object::Up(_) => false,
    }
}

fn make(kernel: &mut Kernel, mendings: &[Mending], failures: &mut [Vec<Error>]) {
    let mut batch = Batch::new(kernel, Verb::Add);
    for in_step in STEPS {
        for (owner, mending) in mendings.iter().enumerate() {
            for object in mending.make.objects.iter().filter(|it| in_step(it)) {
                if matches!(object, Object::PortVlans(_) | Object::OvsPort(_)) {
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
fn leave_bridges(kernel: &mut Kernel, mendings: &[Mending], failures: &mut [Vec<Error>]) {
    let mut described = Vec::new();
    for (owner, mending) in mendings.iter().enumerate() {
        for object in &mending.make.objects {
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
fn filters(kernel: &mut Kernel, mendings: &[Mending], owners: &[usize], failures: &mut [Vec<Error>]) {
    let Err(error) = commit(kernel, owners.iter().map(|owner| &mendings[*owner])) else { return };
    match owners {
        [] => {}
        [owner] => failures[*owner].push(error),
        _ => {
            let (first, second) = owners.split_at(owners.len() / 2);
            filters(kernel, mendings, first, failures);
            filters(kernel, mendings, second, failures);
        }
    }
}

fn commit<'m>(kernel: &mut Kernel, mendings: impl Iterator<Item = &'m Mending> + Clone) -> Result<()> {
    let fresh = mendings.clone().all(|it| it.fresh);
    let mut tables: Vec<Arc<Table>> = Vec::new();
    for table in mendings.clone().flat_map(|it| &it.make.tables) {
        if !tables.contains(table) {
            tables.push(Arc::clone(table));
        }
    }
    let add = mendings.clone().flat_map(|it| &it.make.elements).collect();
    let remove = mendings.flat_map(|it| &it.gone.elements).collect();
    marks::commit(kernel, Change { tables: &tables, add, remove, fresh, ..Change::default() })
}
