//! A NIC comes or goes: ifup, ifdown, and plan, which only shows what ifup would do.

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::addr::Family;
use crate::announce::repeat::{self, Announcer, Owner};
use crate::commands::replace::{Known, OneKnown, Replace};
use crate::commands::{bridge, checks, dns_update, extra, guard, joined};
use crate::dns;
use crate::environment::RawNic;
use crate::kernel::rtnetlink::{DEVCONF, LinkState};
use crate::kernel::{Kernel, read_sysctl};
use crate::log::Log;
use crate::model::link_id::LinkId;
use crate::nic::{Identity, MigrationPhase, Mode, Nic};
use crate::object::{Object, Plan, Verb};
use crate::ovsdb;
use crate::printable::quoted;
use crate::reconcile;
use crate::record::Record;
use crate::routing_tables;
use crate::settings::{Routing, Settings, Setup};
use crate::setup::{self, Facts, Original, routed};
use crate::state::{self, State};
use crate::sys::files;

/// Sets a NIC up. Returns what IFUP_EXTRA_SCRIPT shall be told, if there is one.
///
/// # Errors
/// What failed, on which object; then nothing of this run is left.
pub fn ifup(raw: &RawNic, settings: &Settings, log: &mut Log) -> Result<Option<extra::Variables>> {
    let nic = Nic::new(raw, settings, routing_tables::resolve)?;
    checks::tags(raw, settings, log)?;
    let mut state = State::open(&settings.state_dir, &nic.interface)?;
    if let Some(script) = &settings.ifup_extra_script {
        files::check_trusted(script).with_context(|| format!("IFUP_EXTRA_SCRIPT: {}", script.display()))?;
    }
    if let Some(complaint) = &state.complaint {
        log.line(format_args!("warning: {complaint}: ignored"));
    }
    let mut kernel = Kernel::open()?;
    let tap = checks::guests_link(&mut kernel, &nic.interface, &settings.state_dir)?;
    let old = Known::read(&state, log);
    let facts = facts(&mut kernel, &nic, settings, &tap, &old)?;
    let guard = guard::of_nic(&mut kernel, &nic, settings, &tap, true, log)?;
    let facts = Facts { guard, ..facts };
    let link = facts.link;
    let plan = setup::plan(&nic, settings, &facts)?;
    if plan == Plan::default() {
        log.line("nothing to set up: it is connected by others, and no tag asks for anything on this node");
        let removed = remove_records(&mut kernel, &mut state, &old, &vec![true; old.records.len()], Some(link), log);
        let told = extra::variables(&mut kernel, &nic, raw, &facts.uplinks, settings, log);
        repeat::leave(kernel.into_lingering(), None);
        return removed.map(|()| told);
    }
    let record = Record::new(raw, &nic, settings, facts);
    let made =
        Replace { nic: &nic, tap: &tap, old: &old, plan: &plan, record: &record }.run(&mut kernel, &mut state, log);
    if let Err(error) = made {
        repeat::leave(kernel.into_lingering(), None);
        return Err(error);
    }
    warn_of_native_vlans(&plan, log);
    let owner = Owner {
        folder: settings.state_dir.clone(),
        interface: nic.interface.clone(),
        index: tap.index,
        record: state.records.pop().unwrap_or_default(),
    };
    let told = extra::variables(&mut kernel, &nic, raw, &record.facts.uplinks, settings, log);
    let announcer = Announcer::first_round(&mut kernel, &plan.announcements, owner, log);
    repeat::leave(kernel.into_lingering(), Some(announcer));
    // Before a migration the name server knows the guest as where it still is.
    if nic.migration_phase != Some(MigrationPhase::Pre) {
        dns_update::leave(dns::Verb::Add, &nic.interface, &[(raw, settings)], settings, log);
    }
    Ok(told)
}

/// Open vSwitch strips the native VLAN's tag of a frame that has another one behind it, and the guest's own becomes the frame's.
fn warn_of_native_vlans(plan: &Plan, log: &mut Log) {
    for object in &plan.objects {
        let Object::OvsPort(port) = object else { continue };
        match ovsdb::port::native_and_access(port) {
            Ok(others) if others.is_empty() => {}
            Ok(others) => log.line(format_args!(
                "warning: VLAN {} is the native one of some ports of {} and the access VLAN of others ({} and {}): frames with two tags \
                 pass from these into other VLANs of the former",
                port.vlans.tag.unwrap_or_default(),
                port.bridge,
                port.name,
                others.join(", ")
            )),
            Err(error) => log.line(format_args!("warning: native VLANs: {error:#}")),
        }
    }
}

/// Takes a NIC down: what its record says, and nothing if the TAP has another owner by now. Its records at the name server
/// go only if `cleanup`, the second argument, is a word for false, and it does not live on elsewhere.
///
/// # Errors
/// What could not be removed; everything else was.
pub fn ifdown(raw: &RawNic, cleanup: &str, settings: &Settings, log: &mut Log) -> Result<()> {
    let interface = Identity::new(raw)?.interface;
    let only_here = only_here(cleanup, log);
    let mut state = State::open(&settings.state_dir, &interface)?;
    if let Some(complaint) = &state.complaint {
        bail!("{complaint}");
    }
    let Some(owner) = state.records.last() else {
        log.line("nothing is recorded of it, nothing to do");
        return Ok(());
    };
    if let Some(other) = Record::foreign_owner(owner, raw) {
        log.say(format!("{other}: nothing done"));
        return Ok(());
    }
    let old = Known::read(&state, log);
    let mut kernel = Kernel::open()?;
    let of_guest = kernel.link(&interface)?.is_none_or(LinkState::can_be_a_guests);
    if !of_guest {
        // 1.0.0 took any device.
        log.say(format!("{interface} is not a guest's interface: only what is recorded besides the link was removed"));
    }
    let live = kernel.link_id(&interface)?.filter(|_| of_guest);
    let removed = remove_records(&mut kernel, &mut state, &old, &vec![true; old.records.len()], live, log);
    repeat::leave(kernel.into_lingering(), None);
    if !only_here && raw.migration_phase.is_none() {
        let nics: Vec<_> = old.records.iter().map(|it| (&it.record.raw, &it.record.settings)).collect();
        dns_update::leave(dns::Verb::Remove, &interface, &nics, settings, log);
    }
    removed
}

/// Whether only this node is to be cleaned up: the second argument of ifdown, a boolean that its callers write in any case and
/// spelling.
fn only_here(cleanup: &str, log: &mut Log) -> bool {
    match cleanup.to_ascii_lowercase().as_str() {
        "false" | "no" | "0" => false,
        "" | "true" | "yes" | "1" => true,
        _ => {
            log.say(format!("warning: CLEANUP {}: expected true or false, its DNS records stay", quoted(cleanup)));
            true
        }
    }
}

/// Removes what the records of an interface say, the newest first: those that go. What a record that stays names too is left
/// alone. `live` is the TAP that has the name now: only of a record of this one the link is touched.
///
/// # Errors
/// What could not be removed; everything else was, and the records stay for another try.
pub(super) fn remove_records(
    kernel: &mut Kernel,
    state: &mut State,
    old: &Known,
    goes: &[bool],
    live: Option<LinkId>,
    log: &mut Log,
) -> Result<()> {
    let kept: Vec<_> = old.records.iter().zip(goes).filter(|it| !it.1).map(|it| &it.0.plan).collect();
    let mut failures = Vec::new();
    for (OneKnown { record, plan }, _) in old.records.iter().zip(goes).rev().filter(|it| *it.1) {
        let plan = kept.iter().fold(plan.clone(), |plan, kept| reconcile::leftover(&plan, kept));
        log_plan(&plan, Verb::Remove, log);
        failures.extend(reconcile::remove(kernel, &plan, record.facts.link.is(live)));
    }
    if !old.understood {
        failures.push(anyhow!("a record of it cannot be understood, see the log"));
    }
    if failures.is_empty() {
        let stays = state.records.iter().zip(goes).filter(|it| !it.1).map(|it| it.0.clone()).collect();
        return state.write(stays);
    }
    joined(&failures)
}

/// What ifup would do, as commands.
///
/// # Errors
/// As ifup, before it touches anything.
pub fn plan(raw: &RawNic, settings: &Settings, log: &mut Log) -> Result<Plan> {
    let nic = Nic::new(raw, settings, routing_tables::resolve)?;
    checks::tags(raw, settings, log)?;
    let mut kernel = Kernel::open()?;
    let tap = checks::guests_link(&mut kernel, &nic.interface, &settings.state_dir)?;
    let mut log = Log::default();
    let old = Known::of(&State::peek(&settings.state_dir, &nic.interface).unwrap_or_default(), &mut log);
    let facts = facts(&mut kernel, &nic, settings, &tap, &old)?;
    let guard = guard::of_nic(&mut kernel, &nic, settings, &tap, false, &mut log)?;
    let facts = Facts { guard, ..facts };
    setup::plan(&nic, settings, &facts)
}

/// What a link is like before we touch it.
fn before(tap: &LinkState) -> Result<Original> {
    let mut settings: Vec<_> =
        DEVCONF.iter().zip(tap.devconf).filter_map(|(&(family, key, _), value)| Some((family, key, value?))).collect();
    let delay = format!("/proc/sys/net/ipv4/neigh/{}/{}", tap.name, routed::PROXY_DELAY);
    let delay = read_sysctl(&delay).context(delay)?;
    settings.extend(delay.map(|value| (Family::V4, routed::PROXY_DELAY, value)));
    Ok(Original { mac: tap.mac, mtu: Some(tap.mtu), up: tap.up, settings })
}

/// Reads the kernel. What the TAP was like before us is in the records, whoever of us had it.
fn facts(kernel: &mut Kernel, nic: &Nic, settings: &Settings, tap: &LinkState, old: &Known) -> Result<Facts> {
    let tap_id = LinkId { index: tap.index, namespace: Some(kernel.namespace()?) };
    let known = old.records.iter().rev().find(|it| it.record.facts.link.is(Some(tap_id)));
    let before = known.map_or_else(|| before(tap), |it| Ok(it.record.facts.before.clone()))?;
    let uplinks = [Vec::new(), Vec::new()];
    let mut facts =
        Facts { link: tap_id, before, uplinks, bridge_mtu: None, bridge_vlans: None, guard: None, nftables: true };
    match &nic.mode {
        Mode::Routed { table } if nic.has(Setup::IpLessRouted) => {
            let (mark, hint) = (settings.mark(*table), || state::uplink_of_table(&settings.state_dir, *table));
            for family in Family::BOTH.into_iter().filter(|family| nic.endpoint(*family).is_some()) {
                let uplinks = kernel.uplinks(family, *table, mark, hint)?;
                if uplinks.is_empty() {
                    bail!(
                        "LINK: table {table} has no {family} default route, expected one through the uplink (see snf-network node up)"
                    );
                }
                facts.uplinks[family as usize] = uplinks;
            }
        }
        // All others need nf_tables for filters or marks, and fail by name without.
        Mode::Routed { .. } if settings.routing == Routing::Rule => facts.nftables = kernel.has_nftables(),
        Mode::Bridged { bridge, vlan } => {
            let link = bridge::link(kernel, bridge)?;
            facts.bridge_mtu = Some(link.mtu);
            if let Some(vlan) = vlan {
                let recorded = old.current(nic, tap_id).and_then(|it| it.record.facts.bridge_vlans.as_ref());
                facts.bridge_vlans = Some(bridge::vlans(kernel, &link, vlan, &settings.state_dir, recorded)?);
            }
        }
        Mode::OpenVswitch { bridge, .. } => {
            let exists = ovsdb::port::bridge_exists(&settings.ovsdb_socket, bridge)?;
            ensure!(exists, "LINK: \"{bridge}\": there is no such bridge of Open vSwitch");
            // Its device of the same name has the smallest MTU of all ports.
            facts.bridge_mtu = kernel.link(bridge)?.map(|it| it.mtu);
        }
        _ => {}
    }
    checks::free_addresses(kernel, nic, &facts)?;
    Ok(facts)
}

/// Logs what a Plan makes, or removes, in the order in which it is done.
pub(super) fn log_plan(plan: &Plan, verb: Verb, log: &mut Log) {
    if verb == Verb::Add {
        plan.elements.iter().for_each(|it| log.line(format_args!("nft {it}")));
        plan.objects.iter().for_each(|it| log.line(it.line(verb)));
    } else {
        reconcile::removal_order(plan).concat().iter().for_each(|it| log.line(it.line(verb)));
        plan.elements.iter().for_each(|it| log.line(format_args!("nft {}", it.deletion())));
    }
}
