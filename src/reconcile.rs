//! Walks over a Plan: apply makes what is missing, remove puts back what was there before; and repair, which does both for what
//! verify found, of many Plans at once.

mod batch;
mod difference;
mod mark_mask;
mod repair;

use anyhow::{Context, Error, Result};

use self::batch::Batch;
use self::difference::goes_with_port;
pub use self::difference::{difference, leftover};
pub use self::repair::{Job, repair};
use crate::kernel::Kernel;
use crate::kernel::nftables::Transaction;
use crate::object::{Object, Plan, Verb};
use crate::ruleset::Element;

/// Makes what the Plan says and is not there yet, filters first; `stale` elements go in the same transaction.
///
/// # Errors
/// At the first refusal: what was made until then stands.
pub fn apply(kernel: &mut Kernel, plan: &Plan, stale: &[Element]) -> Result<()> {
    let change = Transaction {
        tables: &plan.tables,
        add: plan.elements.iter().collect(),
        remove: stale.iter().collect(),
        ..Transaction::default()
    };
    make(kernel, plan, change)
}

/// The same where none of the Plan's elements stands, as far as is known.
///
/// # Errors
/// As [`apply`].
pub fn apply_fresh(kernel: &mut Kernel, plan: &Plan) -> Result<()> {
    let add = plan.elements.iter().collect();
    make(kernel, plan, Transaction { tables: &plan.tables, add, assume_absent: true, ..Transaction::default() })
}

fn make(kernel: &mut Kernel, plan: &Plan, change: Transaction<'_>) -> Result<()> {
    detach_moved_ports(kernel, plan)?;
    mark_mask::commit(kernel, change)?;
    let mut batch = Batch::new(kernel, Verb::Add);
    let mut comes_up = false;
    for object in &plan.objects {
        // Nobody may come up before everything that restrains it stands; many can at once. Open vSwitch asks the kernel what a
        // link is like.
        let together = std::mem::replace(&mut comes_up, matches!(object, Object::Up(_)));
        if matches!(object, Object::OvsPort(_) | Object::File(_)) || (comes_up && !together) {
            batch.flush()?;
        }
        batch.add(object)?;
    }
    batch.flush()?;
    // A device to be announced on is none that was changed.
    kernel.forget_links_but(|name| plan.announcements.iter().any(|it| it.device == *name));
    Ok(())
}

/// Takes ports that go elsewhere out of the place they are in, before what restrains them there goes. They go down, and up again at the end of apply: no frame may
/// pass before everything stands in the new place. Nor may their new MAC and MTU show in the old one, as a bridge follows its ports'.
fn detach_moved_ports(kernel: &mut Kernel, plan: &Plan) -> Result<()> {
    for object in &plan.objects {
        let (name, bridge) = match object {
            Object::Port(port) => (&port.name, port.bridge.as_ref()),
            Object::OvsPort(port) => (&port.name, None),
            _ => continue,
        };
        let Some(link) = kernel.link(name)?.cloned() else { continue };
        // Of which bridge of Open vSwitch it is a port, only its database tells.
        if matches!(object, Object::OvsPort(_)) && (link.in_openvswitch || link.controller == 0) {
            continue;
        }
        let bridge = match bridge {
            Some(bridge) => kernel.link(bridge)?.map_or(0, |it| it.index),
            None => 0,
        };
        if link.controller != bridge && (link.controller != 0 || link.up) {
            kernel.detach_port(link.index).with_context(|| format!("ip link set dev {name} nomaster"))?;
        }
    }
    Ok(())
}

/// Puts back what was before the Plan: the link goes down first, the filters go last. Goes on after a refusal, but for that of
/// the first: a link that stays up keeps all that restrains it.
///
/// `live` says that the TAP is still the one that the Plan was made for: only then its link is touched.
pub fn remove(kernel: &mut Kernel, plan: &Plan, live: bool) -> Vec<Error> {
    let mut failures = Vec::new();
    kernel.forget_links();
    let mut batch = Batch::new(kernel, Verb::Remove);
    for stage in removal_order(plan) {
        if !failures.is_empty() {
            return failures;
        }
        for object in
            stage.into_iter().filter(|it| live || it.lifetime().link().is_none()).filter(|it| !goes_with_port(it, plan))
        {
            failures.extend(batch.add(object).err());
        }
        failures.extend(batch.flush_all().into_iter().map(|it| it.1));
    }
    let change = Transaction { remove: plan.elements.iter().collect(), ..Transaction::default() };
    failures.extend(kernel.commit(&change).err());
    failures
}

/// The order in which objects go: links go down first, then the rest from the last to the first.
pub fn removal_order(plan: &Plan) -> [Vec<&Object>; 2] {
    let (ups, others) = plan.objects.iter().rev().partition(|it| matches!(it, Object::Up(_)));
    [ups, others]
}
