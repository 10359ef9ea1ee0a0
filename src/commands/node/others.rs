//! What the uplinks of a node share: a device of both families, routing tables, table main, and settings of the node.

use anyhow::{Result, ensure};

use super::uplink::{recorded, standing};
use crate::addr::{Family, IfName};
use crate::log::Log;
use crate::object::{Plan, TABLE_MAIN};
use crate::reconcile;
use crate::settings::Settings;
use crate::setup::Original;
use crate::setup::uplink::Uplink;
use crate::state::{self, State};

/// What is recorded of the other family of the same device, unless that is down.
pub(super) fn of_other_family(
    device: &IfName,
    family: Family,
    settings: &Settings,
) -> Result<Option<(Uplink, Original)>> {
    let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
    let records = State::peek_uplink(&settings.state_dir, device, other)?;
    let last = records.last().map(|it| recorded(it, other)).transpose()?;
    Ok(last.filter(|it| !it.0.down))
}

/// All records of the other devices, of this family.
pub(super) fn of_other_devices(
    device: &IfName,
    family: Family,
    settings: &Settings,
) -> Result<Vec<(Uplink, Original)>> {
    let mut all = Vec::new();
    for (other, kin) in state::uplinks(&settings.state_dir)? {
        if kin == family && other != *device {
            for variables in State::peek_uplink(&settings.state_dir, &other, kin)? {
                all.push(recorded(&variables, kin)?);
            }
        }
    }
    Ok(all)
}

/// What of a Plan no other uplink of the family needs: a table, or what is set for all, may be of several.
pub(super) fn alone(plan: Plan, device: &IfName, family: Family, settings: &Settings) -> Result<Plan> {
    let others = of_other_devices(device, family, settings)?;
    Ok(others
        .iter()
        .fold(plan, |plan, (uplink, before)| reconcile::leftover(&plan, &standing(uplink, before, settings))))
}

/// Leaves to other uplinks what they have in table main: the networks of two tenants may have the same prefix, and what the node itself
/// sends there goes by the first of them.
///
/// # Errors
/// If the uplink takes a route of its own table from another one, unless it shall.
pub(super) fn share_routes(uplink: &mut Uplink, force: bool, settings: &Settings, log: &mut Log) -> Result<()> {
    uplink.apart.clear();
    for (other, _) in of_other_devices(&uplink.device, uplink.family, settings)? {
        let name = &other.device;
        for network in uplink.taken_in_main(&other) {
            log.say(format!(
                "warning: {network} stays out of table main, which has it by {name} (table {})",
                other.table
            ));
            uplink.apart.push(network);
        }
        if let Some(network) = uplink.taken_in_own_table(&other) {
            let what = if network.prefix_len() == 0 { "the default route".to_owned() } else { network.to_string() };
            let place = if uplink.table == TABLE_MAIN { "main".to_owned() } else { uplink.table.to_string() };
            ensure!(force, "{what} of table {place} is by {name}, expected --force to take it over");
            log.say(format!("warning: {what} of table {place} was by {name}"));
        }
    }
    Ok(())
}
