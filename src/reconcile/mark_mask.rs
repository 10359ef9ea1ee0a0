//! From one mask to another: ROUTING_MARK_MASK may have changed while NICs run.

use std::sync::Arc;

use anyhow::Result;

use super::batch::Batch;
use crate::kernel::Kernel;
use crate::kernel::nftables::{Lacking, Transaction};
use crate::object::{Object, Rule, RuleSelector, Verb};
use crate::ruleset::{Group, TableFamily};
use crate::settings::MarkMask;
use crate::setup::fwmark;

/// Commits a change of filters. Before it is the first to make chains that mark, or the first under another mask, way is made
/// for them.
///
/// # Errors
/// What the kernel refused; then nothing is marked anew.
pub(super) fn commit(kernel: &mut Kernel, change: Transaction<'_>) -> Result<()> {
    let Some(mask) = fwmark::mask_of(change.tables) else { return kernel.commit(&change).map(drop) };
    let change = Transaction { only_if_base_complete: true, ..change };
    if kernel.commit(&change)?.lacks_base {
        let marking = |it: &&Arc<Group>| fwmark::mask_of(std::slice::from_ref(*it)).is_some();
        let marking: Vec<_> = change.tables.iter().filter(marking).cloned().collect();
        if !kernel.nftables()?.lacking(&marking)?.iter().all(Lacking::is_nothing) {
            make_way(kernel, mask)?;
        }
        kernel.commit(&Transaction { only_if_base_complete: false, ..change })?;
    }
    Ok(())
}

/// The mark of a routing table under one mask may be that of another table under one that has bits in common with it. So nothing
/// is marked under `mask` while a rule by a mark of another stands, and no rule by `mask` is made while a chain marks under another:
/// those rules go, then those chains change, then the tables get rules by their new marks. In between NICs go by their own rules.
fn make_way(kernel: &mut Kernel, mask: MarkMask) -> Result<()> {
    let mut rules = kernel.mark_rules()?;
    rules.retain(|rule| fwmark::own_mark(rule).is_some_and(|mark| mask.meets(mark)));
    let nftables = kernel.nftables()?;
    let mut sets = nftables.set_names(TableFamily::Inet)?;
    sets.extend(nftables.set_names(TableFamily::Arp)?);
    let mut steered = fwmark::steered_tables(&sets);
    steered.sort_unstable();
    steered.dedup();
    let chains: Vec<_> = steered.iter().flat_map(|table| fwmark::chains_under(mask, *table)).map(Arc::new).collect();
    let lacking = nftables.lacking(&chains)?;
    let differ = chains.into_iter().zip(lacking).filter(|(_, lacking)| !lacking.different.is_empty());
    let differ: Vec<_> = differ.map(|it| it.0).collect();
    let anew = |it: &Rule| {
        let mark = mask.of_table(it.table)?;
        let selector = match it.selector {
            RuleSelector::LocalMark(_) => RuleSelector::LocalMark(mark),
            _ => RuleSelector::Mark(mark),
        };
        Some(fwmark::rule(it.family, it.table, selector, false))
    };
    let anew = rules.iter().filter_map(anew);
    let anew: Vec<_> = anew.map(Object::Rule).collect();
    let rules: Vec<_> = rules.into_iter().map(Object::Rule).collect();
    walk(kernel, Verb::Remove, &rules)?;
    kernel.commit(&Transaction { tables: &differ, ..Transaction::default() })?;
    walk(kernel, Verb::Add, &anew)
}

fn walk(kernel: &mut Kernel, verb: Verb, objects: &[Object]) -> Result<()> {
    let mut batch = Batch::new(kernel, verb);
    objects.iter().try_for_each(|object| batch.add(object))?;
    batch.flush()
}
