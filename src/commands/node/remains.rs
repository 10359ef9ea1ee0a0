//! What remains of an uplink that goes while NICs use its routing table: without it their packets would be routed by table main, and
//! reach what the node reaches. It is recorded as the uplink, which is down then.

use anyhow::Result;

use super::others::alone;
use super::uplink::{recorded, standing, variables};
use crate::addr::{Family, IfName};
use crate::kernel::Kernel;
use crate::object::{Object, PROTOCOL_NIC, Plan, RuleSelector, TABLE_MAIN};
use crate::reconcile;
use crate::record::Record;
use crate::settings::Settings;
use crate::setup::Original;
use crate::setup::uplink::{self, Uplink};
use crate::state::{self, State, Variables};

/// The NICs that use a routing table, by its family, and whose TAPs are there. One whose record cannot be understood may use any.
///
/// # Errors
/// If a record that may be good cannot be read.
pub(super) fn users(kernel: &mut Kernel, settings: &Settings, family: Family, table: u32) -> Result<Vec<IfName>> {
    let mut users = Vec::new();
    for tap in state::interfaces(&settings.state_dir)? {
        let Some(link) = kernel.link_id(&tap)? else { continue };
        let records = match State::peek(&settings.state_dir, &tap) {
            Err(error) if state::is_unread(&error) => return Err(error),
            records => records,
        };
        let uses = |variables: &Variables| -> Result<bool> {
            let record = Record::from_variables(variables)?;
            Ok(record.facts.link.is(Some(link)) && is_on(&record.plan()?, family, table))
        };
        if records.map_or(true, |records| records.iter().any(|it| uses(it).unwrap_or(true))) {
            users.push(tap);
        }
    }
    Ok(users)
}

/// Whether a NIC's Plan has its packets routed by a table.
fn is_on(plan: &Plan, family: Family, table: u32) -> bool {
    plan.objects.iter().any(|object| match object {
        Object::Rule(it) => (it.family, it.table) == (family, table) && matches!(it.selector, RuleSelector::Iif(_)),
        Object::Route(it) => {
            (Family::of(it.destination.addr()), it.table, it.protocol) == (family, table, PROTOCOL_NIC)
        }
        _ => false,
    })
}

/// Some of them by name, for people.
pub(super) fn named(users: &[IfName]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<_> = users.iter().take(SHOWN).map(IfName::as_str).collect();
    match users.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        rest => format!("{} and {rest} more", shown.join(", ")),
    }
}

/// What remains of `old`: nothing if no NIC uses its table, or `new` and the other uplinks have all of it.
pub(super) fn of(
    kernel: &mut Kernel,
    (old, before): &(Uplink, Original),
    new: &Plan,
    settings: &Settings,
) -> Result<Option<Uplink>> {
    let down = Uplink { down: true, ..old.clone() };
    let plan = reconcile::leftover(&uplink::plan(&down, before), new);
    let plan = alone(plan, &old.device, old.family, settings)?;
    let has_routes = plan.objects.iter().any(|it| matches!(it, Object::Route(_)));
    let is_needed =
        old.table != TABLE_MAIN && has_routes && !users(kernel, settings, old.family, old.table)?.is_empty();
    Ok(is_needed.then_some(down))
}

/// The records among these of uplinks that are to go, as what remains of them; the others as they are.
pub(super) fn all(
    kernel: &mut Kernel,
    records: &[Variables],
    family: Family,
    settings: &Settings,
    goes: impl Fn(&Uplink) -> bool,
) -> Result<Vec<Variables>> {
    let mut stay = Vec::new();
    let mut standing_on = Plan::default();
    for variables in records {
        let (uplink, before) = recorded(variables, family)?;
        if !goes(&uplink) {
            standing_on.objects.extend(standing(&uplink, &before, settings).objects);
            stay.push(variables.clone());
        }
    }
    for variables in records.iter().rev() {
        let old = recorded(variables, family)?;
        if goes(&old.0)
            && let Some(down) = of(kernel, &old, &standing_on, settings)?
        {
            standing_on.objects.extend(uplink::plan(&down, &old.1).objects);
            stay.insert(0, self::variables(&down, &old.1));
        }
    }
    Ok(stay)
}
