//! One family of the node's uplink comes or goes: what is recorded of it, what stood before, and the walks over its Plan.

use anyhow::{Context, Result, bail, ensure};

use super::advertised;
use super::others::{self, alone, of_other_family};
use super::remains;
use super::values::{parsed, prefixes};
use crate::addr::{Family, IfName};
use crate::announce::repeat;
use crate::commands::guard;
use crate::deadline;
use crate::kernel::{Kernel, read_sysctl};
use crate::log::Log;
use crate::object::{Object, Plan, Verb};
use crate::reconcile;
use crate::record::{settings_of, settings_text};
use crate::settings::{Fwmark, Routing, Settings, interfaces, joined};
use crate::setup::Original;
use crate::setup::fwmark::{self, SRC_VALID_MARK};
use crate::setup::node_settings::{FWMARK_REFLECT, OF_ALL};
use crate::setup::routed::PROXY_DELAY;
use crate::setup::uplink::{self, Uplink};
use crate::state::{self, State, Variables};

/// What is recorded of an uplink.
pub(in crate::commands) fn variables(uplink: &Uplink, before: &Original) -> Variables {
    let text = |value: Option<String>| value.unwrap_or_default();
    [
        ("IFACE", uplink.device.to_string()),
        ("TABLE", uplink.table.to_string()),
        ("GATEWAY", text(uplink.gateway.map(|it| it.to_string()))),
        ("ROUTES", uplink.routes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        ("ARP_IP", text(uplink.arp_ip.map(|it| it.to_string()))),
        ("FORWARDING", u8::from(uplink.forwarding).to_string()),
        ("PROXY", u8::from(uplink.proxy).to_string()),
        ("ADVERTISED", uplink.advertised.iter().map(IfName::as_str).collect::<Vec<_>>().join(" ")),
        ("ROUTES_NOT_IN_MAIN", uplink.apart.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        ("DOWN", u8::from(uplink.down).to_string()),
        ("MARK", text(uplink.fwmark.map(|it| it.mark.to_string()))),
        ("ROUTING", text(uplink.fwmark.map(|it| it.routing.to_string()))),
        ("FORWARD_FROM", joined(&uplink.forward_from)),
        ("NF_TABLES", if uplink.nftables { "" } else { "missing" }.to_owned()),
        ("BEFORE_UP", u8::from(before.up).to_string()),
        ("BEFORE_SETTINGS", settings_text(&before.settings)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

/// Undoes [`variables`].
///
/// # Errors
/// If the record is not what this program writes.
pub(in crate::commands) fn recorded(variables: &Variables, family: Family) -> Result<(Uplink, Original)> {
    let get = |key: &str| variables.iter().find(|it| it.0 == key).map(|it| it.1.as_str()).filter(|it| !it.is_empty());
    let uplink = Uplink {
        device: parsed("IFACE", get("IFACE").unwrap_or_default())?,
        family,
        table: parsed("TABLE", get("TABLE").unwrap_or_default())?,
        gateway: get("GATEWAY").map(|it| parsed("GATEWAY", it)).transpose()?,
        routes: prefixes("ROUTES", get("ROUTES").unwrap_or_default())?,
        arp_ip: get("ARP_IP").map(|it| parsed("ARP_IP", it)).transpose()?,
        forwarding: get("FORWARDING") == Some("1"),
        proxy: get("PROXY") == Some("1"),
        advertised: {
            let names = get("ADVERTISED").unwrap_or_default().split_ascii_whitespace();
            names.map(|it| parsed("ADVERTISED", it)).collect::<Result<_>>()?
        },
        apart: prefixes("ROUTES_NOT_IN_MAIN", get("ROUTES_NOT_IN_MAIN").unwrap_or_default())?,
        down: get("DOWN") == Some("1"),
        fwmark: match get("MARK") {
            Some(mark) => Some(Fwmark {
                mark: parsed("MARK", mark)?,
                // Version 1.0 marked with this one only.
                routing: get("ROUTING").map_or(Ok(Routing::Mark), |it| parsed("ROUTING", it))?,
            }),
            None => None,
        },
        forward_from: interfaces(get("FORWARD_FROM").unwrap_or_default())?,
        nftables: get("NF_TABLES").is_none(),
    };
    let settings = settings_of(get("BEFORE_SETTINGS").unwrap_or_default());
    Ok((uplink, Original { up: get("BEFORE_UP") == Some("1"), settings, ..Original::default() }))
}

/// What the uplink and the node are like before us.
fn before(kernel: &mut Kernel, device: &IfName, family: Family) -> Result<Original> {
    let link = kernel.link(device)?.cloned();
    let link = link.with_context(|| format!("\"{device}\": there is no such interface"))?;
    let mut settings = Vec::new();
    for key in ["forwarding", "proxy_arp", "proxy_ndp", "rp_filter", "arp_ignore", SRC_VALID_MARK] {
        settings.extend(link.setting(family, key).map(|value| (family, key, value)));
    }
    let folder = format!("/proc/sys/net/{}", family.sysctl());
    let of_all = OF_ALL.map(|(recorded, key)| (recorded, format!("{folder}/conf/all/{key}")));
    let others = [
        (PROXY_DELAY, format!("{folder}/neigh/{device}/{PROXY_DELAY}")),
        (FWMARK_REFLECT, format!("{folder}/{FWMARK_REFLECT}")),
    ];
    for (key, file) in of_all.into_iter().chain(others) {
        let value = read_sysctl(&file).context(file)?;
        settings.extend(value.map(|value| (family, key, value)));
    }
    Ok(Original { up: link.up, settings, ..Original::default() })
}

/// Whether the kernel has nf_tables, asked where an uplink can do without: with ROUTING=rule.
fn has_nftables(kernel: &mut Kernel, uplink: &Uplink) -> bool {
    uplink.fwmark.is_some_and(|it| it.routing == Routing::Mark) || kernel.has_nftables()
}

/// What is recorded of one family of an uplink, and what stood there before the first of it.
fn known(
    kernel: &mut Kernel,
    state: &State,
    uplink: &Uplink,
    settings: &Settings,
) -> Result<(Vec<(Uplink, Original)>, Original)> {
    let old = state.records.iter().map(|it| recorded(it, uplink.family)).collect::<Result<Vec<_>>>()?;
    let mut now = before(kernel, &uplink.device, uplink.family)?;
    // Also of one that is down: its NICs' own runs may have set it up in part.
    if let Some((_, before)) = old.last() {
        let mut before = before.clone();
        // A setting of which an earlier version of this program did not know.
        now.settings.retain(|it| before.setting(it.0, it.1).is_none());
        before.settings.append(&mut now.settings);
        return Ok((old, before));
    }
    let mut before = now;
    let others = others::of_other_devices(&uplink.device, uplink.family, settings)?;
    if let Some((_, first)) = others.first() {
        // What is of the node was changed by another uplink.
        let of_node = |it: &(Family, &str, u32)| OF_ALL.iter().any(|(key, _)| *key == it.1);
        before.settings.retain(|it| !of_node(it));
        before.settings.extend(first.settings.iter().filter(|it| of_node(it)));
    }
    if let Some((_, first)) = of_other_family(&uplink.device, uplink.family, settings)? {
        // The link is of both, and goes back to what it was with the last of them.
        before.up = first.up;
    }
    Ok((old, before))
}

/// The link stays up: the routes of the other family would go with it.
fn leave_link(plan: &mut Plan) {
    plan.objects.retain(|it| !matches!(it, Object::Up(_)));
}

/// What may stand of an uplink: also the rule by a mark that a NIC's ifup made since, by the mask of now and either ROUTING.
pub(super) fn standing(uplink: &Uplink, before: &Original, settings: &Settings) -> Plan {
    let mut plan = uplink::plan(uplink, before);
    for routing in [Routing::Mark, Routing::Rule] {
        let mark = settings.mark(uplink.table);
        if let Some(other) = mark.map(|mark| Fwmark { mark, routing }).filter(|it| uplink.fwmark != Some(*it)) {
            plan.push(fwmark::rule(uplink.family, uplink.table, other.selector(), false));
        }
    }
    plan
}

/// What [`up`] would do, as commands.
///
/// # Errors
/// As [`up`], before it touches the kernel.
pub(crate) fn plan(uplink: &Uplink, settings: &Settings) -> Result<Plan> {
    let state = State::of_uplink(&settings.state_dir, &uplink.device, uplink.family)?;
    let mut uplink = uplink.clone();
    others::share_routes(&mut uplink, true, settings, &mut Log::default())?;
    let mut kernel = Kernel::open()?;
    uplink.nftables = has_nftables(&mut kernel, &uplink);
    let (old, before) = known(&mut kernel, &state, &uplink, settings)?;
    advertised::find(&mut kernel, &mut uplink, &old, settings, &mut Log::default())?;
    Ok(uplink::plan(&uplink, &before))
}

/// Sets up one family of an uplink. Without `force` nothing goes that NICs use.
///
/// # Errors
/// What failed, on which object.
pub(crate) fn up(uplink: &Uplink, force: bool, settings: &Settings, log: &mut Log) -> Result<()> {
    let mut kernel = Kernel::open()?;
    let mut state = State::of_uplink(&settings.state_dir, &uplink.device, uplink.family)?;
    if let Some(complaint) = &state.complaint {
        log.line(format_args!("warning: {complaint}: ignored"));
    }
    let uplink = &mut uplink.clone();
    uplink.nftables = has_nftables(&mut kernel, uplink);
    others::share_routes(uplink, force, settings, log)?;
    let (old, before) = known(&mut kernel, &state, uplink, settings)?;
    advertised::find(&mut kernel, uplink, &old, settings, log)?;
    let uplink = &*uplink;
    if let Some((old, _)) = old.last() {
        tell_changes(&mut kernel, old, uplink, force, settings, log)?;
    }
    let shares_link = of_other_family(&uplink.device, uplink.family, settings)?.is_some();
    let plan = uplink::plan(uplink, &before);
    let variables = variables(uplink, &before);
    let mut lasting = Vec::new();
    state.add(variables.clone())?;
    let mut leftover = Plan::default();
    for former in &old {
        let gone = reconcile::difference(&standing(&former.0, &before, settings), &plan);
        let mut gone = alone(gone, &uplink.device, uplink.family, settings)?;
        if let Some(down) = remains::of(&mut kernel, former, &plan, settings)? {
            gone = reconcile::leftover(&gone, &uplink::plan(&down, &former.1));
            lasting.push(self::variables(&down, &former.1));
        }
        leftover.elements.extend(gone.elements);
        leftover.objects.extend(gone.objects);
    }
    let elements = std::mem::take(&mut leftover.elements);
    if let Err(error) = reconcile::apply(&mut kernel, &plan, &elements) {
        deadline::grace();
        if old.is_empty() {
            let mut made = plan;
            if shares_link {
                leave_link(&mut made);
            }
            if reconcile::remove(&mut kernel, &made, true).is_empty() {
                state.write(Vec::new())?;
            }
        }
        return Err(error);
    }
    for object in &plan.objects {
        log.line(object.line(Verb::Add));
    }
    if let Some(failure) = reconcile::remove(&mut kernel, &leftover, true).into_iter().next() {
        return Err(failure);
    }
    guard::prepare(&mut kernel, settings, log);
    lasting.push(variables);
    state.write(lasting)?;
    state::record_table(&settings.state_dir, uplink.table, &uplink.device)?;
    repeat::leave(kernel.into_lingering(), None);
    Ok(())
}

/// Says how an uplink changes.
///
/// # Errors
/// If NICs lose anything by it, unless they shall.
fn tell_changes(
    kernel: &mut Kernel,
    old: &Uplink,
    new: &Uplink,
    force: bool,
    settings: &Settings,
    log: &mut Log,
) -> Result<()> {
    let (changes, loses) = new.changes_from(old);
    if changes.is_empty() {
        return Ok(());
    }
    let (family, changes) = (new.family, changes.join(", "));
    let users = if loses { remains::users(kernel, settings, family, old.table)? } else { Vec::new() };
    if users.is_empty() {
        log.say(format!("{family} changes: {changes}"));
        return Ok(());
    }
    let (table, named) = (old.table, remains::named(&users));
    ensure!(force || old.down, "{family} would change: {changes}; NICs use table {table} ({named}), expected --force");
    log.say(format!("warning: {family} changes: {changes}; NICs use table {table} ({named})"));
    Ok(())
}

/// Undoes [`up`]. While NICs use the table their packets end there: what sees to that remains. Without `force` an uplink that they use
/// and whose device is there stays.
///
/// # Errors
/// What could not be removed.
pub(crate) fn down(device: &IfName, family: Family, force: bool, settings: &Settings, log: &mut Log) -> Result<()> {
    let mut state = State::of_uplink(&settings.state_dir, device, family)?;
    if let Some(complaint) = &state.complaint {
        bail!("{complaint}");
    }
    let mut kernel = Kernel::open()?;
    let live = kernel.link(device)?.is_some();
    if let Some(last) = state.records.last() {
        let (uplink, _) = recorded(last, family)?;
        let users = remains::users(&mut kernel, settings, family, uplink.table)?;
        let (table, named) = (uplink.table, remains::named(&users));
        ensure!(
            force || !live || uplink.down || users.is_empty(),
            "NICs use {family} table {table} ({named}) and would be cut off, expected --force"
        );
        if !users.is_empty() {
            log.say(format!("warning: NICs use {family} table {table} ({named}): they are cut off until node up"));
        }
    }
    take_down(&mut kernel, &mut state, (device, family), settings, log, |_| true)?;
    repeat::leave(kernel.into_lingering(), None);
    Ok(())
}

/// Removes what remained of uplinks that are down and whose table no NIC uses any more.
///
/// # Errors
/// What could not be removed.
pub(in crate::commands) fn clear_unused(kernel: &mut Kernel, settings: &Settings, log: &mut Log) -> Result<()> {
    for (device, family) in state::uplinks(&settings.state_dir)? {
        let mut is_down = false;
        for variables in State::peek_uplink(&settings.state_dir, &device, family)? {
            is_down |= recorded(&variables, family)?.0.down;
        }
        if is_down {
            let mut state = State::of_uplink(&settings.state_dir, &device, family)?;
            take_down(kernel, &mut state, (&device, family), settings, log, |it| it.down)?;
        }
    }
    Ok(())
}

/// Removes what records of an uplink name: those that go. What remains of these is recorded in their place.
fn take_down(
    kernel: &mut Kernel,
    state: &mut State,
    (device, family): (&IfName, Family),
    settings: &Settings,
    log: &mut Log,
    goes: impl Fn(&Uplink) -> bool,
) -> Result<()> {
    let shares_link = of_other_family(device, family, settings)?.is_some();
    let stay = remains::all(kernel, &state.records, family, settings, &goes)?;
    for variables in state.records.iter().rev() {
        let (uplink, before) = recorded(variables, family)?;
        if !goes(&uplink) {
            continue;
        }
        let mut plan = alone(standing(&uplink, &before, settings), device, family, settings)?;
        for stays in &stay {
            let (uplink, before) = recorded(stays, family)?;
            plan = reconcile::leftover(&plan, &standing(&uplink, &before, settings));
        }
        if shares_link {
            leave_link(&mut plan);
        }
        // Of a device that is gone nothing is touched, but what is set on others goes back.
        let failures = reconcile::remove(kernel, &plan, true);
        if let Some(failure) = failures.into_iter().next() {
            return Err(failure);
        }
        for object in reconcile::removal_order(&plan).concat() {
            log.line(object.line(Verb::Remove));
        }
        state::forget_table(&settings.state_dir, uplink.table, device);
    }
    state.write(stay)
}
