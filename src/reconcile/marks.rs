//! From one mask to another: ROUTING_MARK_MASK may have changed while NICs run.

use anyhow::{Context, Error, Result};

use crate::kernel::nftables::Change;
use crate::kernel::{Kernel, is_absent, rtnetlink};
use crate::plan::{Object, Verb};
use crate::ruleset::TableFamily;
use crate::settings::MarkMask;
use crate::setup::steering;

/// Commits a change of filters. Before it is the first to make chains that mark, or the first under another mask, way is made
/// for them.
///
/// # Errors
/// What the kernel refused; then nothing is marked anew.
pub(super) fn commit(kernel: &mut Kernel, change: Change<'_>) -> Result<()> {
    let Some(mask) = steering::mask_of(change.tables) else { return kernel.commit(&change).map(drop) };
    let change = Change { if_whole: true, ..change };
    if kernel.commit(&change)?.lacks_base {
        make_way(kernel, mask)?;
        kernel.commit(&Change { if_whole: false, ..change })?;
    }
    Ok(())
}

/// The mark of a routing table under one mask may be that of another table under one that has bits in common with it. So nothing
/// is marked under `mask` while a rule by a mark of another stands, and no rule by `mask` is made while a chain marks under another:
/// those rules go, and those chains change. Until `reconcile` comes to them, the NICs go by their own rules.
fn make_way(kernel: &mut Kernel, mask: MarkMask) -> Result<()> {
    let mut rules = kernel.mark_rules()?;
    rules.retain(|rule| steering::own_mark(rule).is_some_and(|mark| mask.meets(mark)));
    for rule in &rules {
        kernel.netlink.queue(rtnetlink::rule(rule, false));
    }
    for (place, error) in kernel.netlink.flush()? {
        if !is_absent(error.errno) {
            let line = rules.get(place).map(|rule| Object::Rule(rule.clone()).line(Verb::Remove));
            return Err(Error::new(error)).context(line.unwrap_or_default());
        }
    }
    let nftables = kernel.nftables()?;
    let steered = steering::steered_tables(&nftables.set_names(TableFamily::Inet)?);
    let tables: Vec<_> = steered.iter().flat_map(|table| steering::tables_under(mask, *table)).collect();
    let lacking = nftables.lacking(&tables)?;
    let differ = tables.into_iter().zip(lacking).filter(|(_, lacking)| !lacking.different.is_empty());
    let tables: Vec<_> = differ.map(|it| it.0).collect();
    kernel.commit(&Change { tables: &tables, ..Change::default() }).map(drop)
}
