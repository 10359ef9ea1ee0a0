//! All NICs and uplinks of the node: what is recorded of them, and how what stands differs from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Result, anyhow};

use super::guard;
use super::recorded::{RecordedNic, RecordedUplink, Uplinks};
use crate::addr::{Family, IfName};
use crate::kernel::Kernel;
use crate::kernel::nftables::{Drops, is_missing};
use crate::kernel::observed::Observed;
use crate::object::{Object, Plan};
use crate::ruleset::{Group, TableFamily};
use crate::settings::Settings;
use crate::setup::{dropped, fwmark, shared};
use crate::state::{self, State};
use crate::verify::{self, Drift, Thing};

/// How often those that differ are looked at again: a run may have been under way.
const LOOKS: usize = 2;

/// How it is with a NIC.
pub enum Condition {
    /// Its TAP is there; where this is empty, all is as it should be.
    There(Vec<Drift>),
    /// Its TAP is gone, or another one has the name; this is left of it.
    Gone(Vec<Thing>),
}

/// A NIC that is recorded.
pub struct NicRow {
    /// Its TAP.
    pub interface: IfName,
    /// When its record was written.
    pub since: Option<SystemTime>,
    /// What our rules dropped from it and to it, by family; empty where nothing counts it.
    pub drops: Vec<Drops>,
    /// Its routing tables that have no default route.
    pub cut_off: Vec<(Family, u32)>,
    /// What is known of it, or why nothing is.
    pub nic: Result<(RecordedNic, Condition)>,
}

/// One family of an uplink.
pub struct UplinkRow {
    /// The device.
    pub device: IfName,
    /// The family.
    pub family: Family,
    /// When its record was written.
    pub since: Option<SystemTime>,
    /// What is known of it, or why nothing is.
    pub uplink: Result<(RecordedUplink, Vec<Drift>)>,
}

/// The whole node.
pub struct Inspection {
    /// By the interface's name.
    pub nics: Vec<NicRow>,
    /// By the device's name.
    pub uplinks: Vec<UplinkRow>,
    /// What stands with our numbers or in our sets though nothing is recorded of it, by interface where that is known.
    pub orphans: Vec<(Option<IfName>, Thing)>,
    /// The interfaces in `orphans` that are up: their records are missing, and nothing of them is removed.
    pub unrecorded: Vec<IfName>,
    /// Rules by marks that, by the settings, their tables have no more.
    pub former: Vec<Thing>,
}

/// What is looked at.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// The TAPs; everything if there are none.
    only: &'a [IfName],
    with_uplinks: bool,
}

impl Inspection {
    /// Looks at these TAPs, or at everything if there are none. Whatever differs is looked at once more after the run that may
    /// be under way for it.
    ///
    /// # Errors
    /// What could not be read; a TAP of which nothing is recorded.
    pub fn of(kernel: &mut Kernel, settings: &Settings, only: &[IfName]) -> Result<Self> {
        Self::looked(kernel, settings, Scope { only, with_uplinks: only.is_empty() })
    }

    /// The same, and with these TAPs at the uplinks that their packets pass.
    ///
    /// # Errors
    /// As [`Inspection::of`].
    pub fn with_uplinks(kernel: &mut Kernel, settings: &Settings, only: &[IfName]) -> Result<Self> {
        Self::looked(kernel, settings, Scope { only, with_uplinks: true })
    }

    fn looked(kernel: &mut Kernel, settings: &Settings, scope: Scope<'_>) -> Result<Self> {
        let mut inspection = Self::once(kernel, settings, scope)?;
        for _ in 1..LOOKS {
            let differ: Vec<_> = inspection.nics.iter().filter(|it| !it.is_right()).map(|it| &it.interface).collect();
            let orphan = inspection.orphans.iter().filter_map(|it| it.0.as_ref());
            let differ: Vec<_> = differ.into_iter().chain(orphan).collect();
            if differ.is_empty() && inspection.orphans.is_empty() {
                break;
            }
            differ.into_iter().for_each(|interface| state::wait_for_run(&settings.state_dir, interface));
            inspection = Self::once(kernel, settings, scope)?;
        }
        Ok(inspection)
    }

    fn once(kernel: &mut Kernel, settings: &Settings, Scope { only, with_uplinks }: Scope<'_>) -> Result<Self> {
        let folder = &settings.state_dir;
        let interfaces = interfaces(settings, only)?;
        let guarded = guard::required(kernel, settings)?;
        let mut of_tables = Uplinks::default();
        kernel.forget_links();
        let mut read = |interface: &IfName| {
            let mut nic = RecordedNic::read(settings, interface, &guarded)?;
            nic.refresh(kernel, &mut of_tables).map(|()| nic)
        };
        let nics: Vec<_> = interfaces
            .into_iter()
            .map(|it| (read(&it), it))
            // An ifdown came in between.
            .filter(|(nic, _)| nic.as_ref().map_or(true, |nic| !nic.records.is_empty()))
            .collect();
        let passed = |device: &IfName, family: Family| {
            let records = nics.iter().filter_map(|it| it.0.as_ref().ok()?.records.last());
            only.is_empty() || records.into_iter().any(|it| it.record.facts.uplinks[family as usize].contains(device))
        };
        let uplinks = if with_uplinks { state::uplinks(folder)? } else { Vec::new() };
        let uplinks: Vec<_> = uplinks
            .into_iter()
            .filter(|(device, family)| passed(device, *family))
            .map(|(device, family)| (RecordedUplink::read(settings, &device, family), device, family))
            .filter_map(|(uplink, device, family)| Some((uplink.transpose()?, device, family)))
            .collect();
        let of_nics = nics.iter().filter_map(|it| it.0.as_ref().ok()).flat_map(|it| &it.records).map(|it| &it.plan);
        let of_uplinks = uplinks.iter().filter_map(|it| it.0.as_ref().ok()).flat_map(RecordedUplink::plans);
        let plans = of_nics.chain(of_uplinks);
        let tables = tables(kernel, settings)?;
        let observed = Observed::read(kernel, plans.clone(), tables, &settings.ovsdb_socket)?;
        let mut dropped = dropped(kernel)?;
        let known: HashSet<_> = nics.iter().map(|it| &it.1).chain(uplinks.iter().map(|it| &it.1)).collect();
        let suspects = verify::orphans(&observed, |name| known.contains(name), plans);
        let mut orphans = Vec::new();
        if only.is_empty() && !suspects.is_empty() {
            orphans = self::orphans(settings, &observed)?;
        }
        let is_up = |name: &&IfName| observed.links.get(*name).is_some_and(|it| it.up);
        let mut unrecorded: Vec<_> = orphans.iter().filter_map(|it| it.0.as_ref()).filter(is_up).cloned().collect();
        unrecorded.sort_unstable();
        unrecorded.dedup();
        let former = fwmark::former_rules(&observed.mark_rules, settings).filter(|_| only.is_empty());
        let former = former.cloned().map(|rule| Thing::Object(Object::Rule(rule))).collect();
        let nics = nics.into_iter().map(|(nic, interface)| NicRow {
            since: state::written(folder, &interface),
            drops: dropped.remove(&interface).unwrap_or_default(),
            cut_off: nic.as_ref().map_or(Vec::new(), |it| it.cut_off(&observed)),
            nic: nic.map(|nic| {
                let condition = match nic.drift(&observed) {
                    Some(drift) => Condition::There(drift),
                    None => Condition::Gone(nic.leftovers(&observed)),
                };
                (nic, condition)
            }),
            interface,
        });
        let nics = nics.collect();
        let uplinks = uplinks.into_iter().map(|(uplink, device, family)| UplinkRow {
            since: state::uplink_written(folder, &device, family),
            uplink: uplink.map(|uplink| {
                let drift = uplink.drift(&observed);
                (uplink, drift)
            }),
            device,
            family,
        });
        Ok(Self { nics, uplinks: uplinks.collect(), orphans, unrecorded, former })
    }

    /// Whether all is as it should be.
    pub fn is_right(&self) -> bool {
        let is_right = |(uplink, drift): &(RecordedUplink, Vec<_>)| drift.is_empty() && !uplink.uplink.down;
        let uplinks = self.uplinks.iter().all(|it| it.uplink.as_ref().is_ok_and(is_right));
        uplinks && self.nics.iter().all(NicRow::is_right) && self.of_nobody().next().is_none()
    }

    /// What belongs to nothing that is recorded, by interface where that is known.
    pub fn of_nobody(&self) -> impl Iterator<Item = (Option<&IfName>, &Thing)> {
        let orphans = self.orphans.iter().map(|(interface, thing)| (interface.as_ref(), thing));
        orphans.chain(self.former.iter().map(|thing| (None, thing)))
    }

    /// The first of what could not be read, with whose it is.
    pub fn failure(&self) -> Option<anyhow::Error> {
        let of_nics = self.nics.iter().filter_map(|it| Some((&it.interface, it.nic.as_ref().err()?)));
        let of_uplinks = self.uplinks.iter().filter_map(|it| Some((&it.device, it.uplink.as_ref().err()?)));
        of_nics.chain(of_uplinks).next().map(|(name, error)| anyhow!("{name}: {error:#}"))
    }
}

impl NicRow {
    /// Packets from it and to it that our rules dropped; none where nothing counts them.
    pub fn dropped(&self) -> Option<u64> {
        (!self.drops.is_empty()).then(|| self.drops.iter().map(|it| it.packets).sum())
    }

    fn is_right(&self) -> bool {
        matches!(&self.nic, Ok((_, Condition::There(drift))) if drift.is_empty()) && self.cut_off.is_empty()
    }
}

/// All tables with sets of NICs, those of the routing tables that mark included.
///
/// # Errors
/// What the kernel refused.
pub fn tables(kernel: &mut Kernel, settings: &Settings) -> Result<Vec<Arc<Group>>> {
    let steered = match kernel.nftables().and_then(|nftables| nftables.set_names(TableFamily::Inet)) {
        // A kernel without nf_tables has no sets.
        Err(error) if is_missing(&error) => Vec::new(),
        names => fwmark::steered_tables(&names?),
    };
    Ok(shared::tables(settings, &steered))
}

/// What was dropped, by interface.
fn dropped(kernel: &mut Kernel) -> Result<HashMap<IfName, Vec<Drops>>> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    if let Ok(nftables) = kernel.nftables() {
        for drops in nftables.drops(&dropped::sets())? {
            all.entry(drops.interface.clone()).or_default().push(drops);
        }
    }
    Ok(all)
}

/// The TAPs that are asked for, or all that are recorded.
///
/// # Errors
/// If STATE_DIR cannot be read, or nothing is recorded of one that is asked for.
pub fn interfaces(settings: &Settings, only: &[IfName]) -> Result<Vec<IfName>> {
    let mut interfaces = state::interfaces(&settings.state_dir)?;
    if let Some(unknown) = only.iter().find(|it| !interfaces.contains(it)) {
        return Err(anyhow!("{unknown}: nothing is recorded of it"));
    }
    interfaces.retain(|it| only.is_empty() || only.contains(it));
    Ok(interfaces)
}

/// What stands though nothing is recorded of it. The records are read after what stands: whoever makes anything records it
/// first.
///
/// # Errors
/// If STATE_DIR cannot be read.
pub fn orphans(settings: &Settings, observed: &Observed) -> Result<Vec<(Option<IfName>, Thing)>> {
    let (plans, all) = plans(settings)?;
    let mut known: HashSet<_> = state::interfaces(&settings.state_dir)?.into_iter().collect();
    known.extend(state::uplinks(&settings.state_dir)?.into_iter().map(|it| it.0));
    let mut orphans = verify::orphans(observed, |name| known.contains(name), plans.iter());
    // A proxy entry does not tell whose it is: it may be of the NIC whose record is not understood.
    orphans.retain(|it| all || it.0.is_some());
    Ok(orphans)
}

/// The Plans of all records of NICs that can be understood, and whether those are all.
///
/// # Errors
/// If STATE_DIR cannot be read, or a record that may be good.
pub fn plans(settings: &Settings) -> Result<(Vec<Plan>, bool)> {
    let folder = &settings.state_dir;
    let (mut plans, mut all) = (Vec::new(), true);
    for interface in state::interfaces(folder)? {
        let nic = match State::peek(folder, &interface) {
            // What it names would count as nobody's.
            Err(error) if state::is_unread(&error) => return Err(error),
            records => records.and_then(|records| RecordedNic::new(interface, &records, settings, &HashMap::new())),
        };
        all &= nic.is_ok();
        plans.extend(nic.into_iter().flat_map(|it| it.records).map(|it| it.plan));
    }
    Ok((plans, all))
}
