//! `node up` and `node down`: the node's uplink, by ifupdown's variables or by options.

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnet::IpNet;
use lexopt::prelude::*;

use crate::addr::{Family, IfName, parse_net};
use crate::environment::IfupdownUplink;
use crate::kernel::{Kernel, read_sysctl};
use crate::log::Log;
use crate::plan::{Plan, TABLE_MAIN, Verb};
use crate::printable::quoted;
use crate::reconcile;
use crate::record::{settings_of, settings_text};
use crate::routing_tables;
use crate::settings::Settings;
use crate::setup::Before;
use crate::setup::routed::PROXY_DELAY;
use crate::setup::uplink::{self, Uplink};
use crate::state::{self, State, Variables};

const HELP: &str = "\
Usage: snf-network node up|down [OPTIONS]

Sets up the uplink of routed guests, or undoes it. Without --dev the variables of ifupdown tell what to do (IFACE, ADDRFAM,
IF_IP_ROUTING_TABLE, IF_IP_GATEWAY, IF_IP_ROUTES, IF_IP_FORWARDING, IF_IP_PROXY_ARP, IF_IP_PROXY_NDP, IF_ARP_IP).

  --dev DEV            the uplink
  --table TABLE        the guests' routing table, by name or number (default: main)
  --gateway ADDRESS    the external router; may be given once per family
  --routes PREFIX...   prefixes on the uplink's link, separated by spaces or commas; may be given again
  --arp-ip ADDRESS     sender address of ARP requests that leave DEV
  --family inet|inet6  only this family (default: those of the addresses given; down: both)
  --no-forwarding      leave forwarding alone
  --no-proxy           do not answer for the guests on DEV
  --dry-run            up only: print the commands that would do the same
";

/// The larger of this and the interface's own holds (ip-sysctl.rst of the kernel).
const STRICT_REVERSE_PATH: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

/// The request as it was given, for one or both families.
#[derive(Debug, Default)]
struct Asked {
    device: Option<IfName>,
    families: Vec<Family>,
    table: Option<u32>,
    gateways: Vec<IpAddr>,
    routes: Vec<IpNet>,
    arp_ip: Option<Ipv4Addr>,
    no_forwarding: bool,
    no_proxy: bool,
    dry_run: bool,
}

impl Asked {
    fn option(&mut self, option: &str, words: &mut lexopt::Parser) -> Result<()> {
        let mut value = || -> Result<String> {
            let value = words.value().with_context(|| format!("node: {option}"))?;
            value.into_string().map_err(|it| anyhow!("node: {option}: {it:?} is not UTF-8"))
        };
        match option {
            "--dev" => self.device = Some(parsed(option, &value()?)?),
            "--table" => self.table = Some(table(option, &value()?)?),
            "--gateway" => self.gateways.push(parsed(option, &value()?)?),
            "--routes" => self.routes.extend(prefixes(option, &value()?)?),
            "--arp-ip" => self.arp_ip = Some(parsed(option, &value()?)?),
            "--family" => self.families = vec![family(option, &value()?)?],
            "--no-forwarding" => self.no_forwarding = true,
            "--no-proxy" => self.no_proxy = true,
            "--dry-run" => self.dry_run = true,
            other => bail!("node: {}: expected an option, see snf-network node --help", quoted(other)),
        }
        Ok(())
    }
}

/// Runs `node`.
///
/// # Errors
/// What was asked for wrongly, or what failed on which object.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let mut words = lexopt::Parser::from_args(arguments);
    let mut verb = None;
    let mut asked = Asked::default();
    let mut by_options = false;
    while let Some(word) = words.next().context("node")? {
        let word = match word {
            Long(name) => format!("--{name}"),
            Short(name) => format!("-{name}"),
            Value(word) => word.to_string_lossy().into_owned(),
        };
        if word == "--help" || word == "-h" {
            let _nobody_listens = std::io::stdout().write_all(HELP.as_bytes());
            return Ok(());
        }
        if verb.is_none() && (word == "up" || word == "down") {
            verb = Some(if word == "up" { Verb::Add } else { Verb::Remove });
        } else {
            by_options = true;
            asked.option(&word, &mut words)?;
        }
    }
    let verb = verb.context("node: expected up or down, see snf-network node --help")?;
    if !by_options && !from_ifupdown(&mut asked)? {
        return Ok(());
    }
    let device = asked.device.clone().context("node: --dev (or IFACE) is missing, expected the uplink's name")?;
    let name = if verb == Verb::Add { "node up" } else { "node down" };
    let (settings, warnings) = Settings::load().context(name)?;
    let mut log = Log::new(["", name, device.as_str(), "-"]);
    for warning in warnings {
        log.line(format!("warning: {warning}"));
    }
    let mut done = check(&asked, verb);
    for family in families(&asked, verb) {
        if done.is_ok() {
            done = match verb {
                Verb::Add if asked.dry_run => {
                    print_plan(&plan(&uplink_of(&asked, &device, family)?, &settings)?);
                    Ok(())
                }
                Verb::Add => up(&uplink_of(&asked, &device, family)?, &settings, &mut log),
                Verb::Remove => down(&device, family, &settings, &mut log),
            };
        }
    }
    super::conclude(done, &mut log, &settings, &format!("{name} {device}"))
}

fn print_plan(plan: &Plan) {
    let _nobody_listens = write!(std::io::stdout(), "{plan}");
}

fn parsed<T: std::str::FromStr<Err: Into<anyhow::Error>>>(what: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| error.into().context(format!("node: {what}: {text:?}")))
}

fn table(what: &str, text: &str) -> Result<u32> {
    routing_tables::resolve(text).with_context(|| format!("node: {what}: {}", quoted(text)))
}

fn family(what: &str, text: &str) -> Result<Family> {
    match text {
        "inet" => Ok(Family::V4),
        "inet6" => Ok(Family::V6),
        _ => bail!("node: {what}: {text:?}: expected inet or inet6"),
    }
}

fn prefixes(what: &str, text: &str) -> Result<Vec<IpNet>> {
    text.split([' ', ',', '\t', '\n'])
        .filter(|it| !it.is_empty())
        .map(|it| Ok(parse_net(it).with_context(|| format!("node: {what}: expected prefixes"))?.trunc()))
        .collect()
}

/// Takes ifupdown's variables; false where the call is none of our business (`lo`, another ADDRFAM, nothing asked for).
fn from_ifupdown(asked: &mut Asked) -> Result<bool> {
    let raw = IfupdownUplink::from_process()?;
    let Some(device) = &raw.iface else {
        bail!("node: IFACE is missing, expected the uplink's name (or --dev)");
    };
    if raw.asks_nothing() || device == "lo" {
        return Ok(false);
    }
    let one = match raw.addrfam.as_deref() {
        Some("inet") => Family::V4,
        Some("inet6") => Family::V6,
        _ => return Ok(false),
    };
    asked.families = vec![one];
    asked.device = Some(parsed("IFACE", device)?);
    if let Some(table) = &raw.if_ip_routing_table {
        asked.table = Some(self::table("IF_IP_ROUTING_TABLE", table)?);
    }
    if let Some(gateway) = &raw.if_ip_gateway {
        asked.gateways.push(parsed("IF_IP_GATEWAY", gateway)?);
    }
    if let Some(routes) = &raw.if_ip_routes {
        asked.routes = prefixes("IF_IP_ROUTES", routes)?;
    }
    if let (Some(address), Family::V4) = (&raw.if_arp_ip, one) {
        asked.arp_ip = Some(parsed("IF_ARP_IP", address)?);
    }
    let proxy = if one == Family::V4 { &raw.if_ip_proxy_arp } else { &raw.if_ip_proxy_ndp };
    asked.no_proxy = proxy.as_deref() == Some("0");
    asked.no_forwarding = raw.if_ip_forwarding.as_deref() == Some("0");
    Ok(true)
}

fn families(asked: &Asked, verb: Verb) -> Vec<Family> {
    if !asked.families.is_empty() {
        return asked.families.clone();
    }
    let given = |family| {
        asked.gateways.iter().any(|it| Family::of(*it) == family)
            || asked.routes.iter().any(|it| Family::of(it.addr()) == family)
            || (family == Family::V4 && asked.arp_ip.is_some())
    };
    let families: Vec<_> = Family::BOTH.into_iter().filter(|it| given(*it)).collect();
    if families.is_empty() && verb == Verb::Remove { Family::BOTH.to_vec() } else { families }
}

/// Whether what is asked for makes sense together: nothing of it may be passed over in silence.
fn check(asked: &Asked, verb: Verb) -> Result<()> {
    let families = families(asked, verb);
    ensure!(verb == Verb::Add || !asked.dry_run, "--dry-run: expected with up only");
    ensure!(!families.is_empty(), "nothing is asked for, expected --gateway, --routes, --arp-ip or --family");
    let addresses = asked.gateways.iter().copied().chain(asked.routes.iter().map(IpNet::addr));
    for address in addresses {
        let expected = families.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        ensure!(families.contains(&Family::of(address)), "{address}: expected an address of {expected}");
    }
    Ok(())
}

fn uplink_of(asked: &Asked, device: &IfName, family: Family) -> Result<Uplink> {
    let mut gateways = asked.gateways.iter().copied().filter(|it| Family::of(*it) == family);
    let gateway = gateways.next();
    ensure!(gateways.next().is_none(), "node up {device}: two gateways of {family}, expected one");
    Ok(Uplink {
        device: device.clone(),
        family,
        table: asked.table.unwrap_or(TABLE_MAIN),
        gateway,
        routes: asked.routes.iter().copied().filter(|it| Family::of(it.addr()) == family).collect(),
        arp_ip: asked.arp_ip.filter(|_| family == Family::V4),
        forwarding: !asked.no_forwarding,
        proxy: !asked.no_proxy,
    })
}

/// What is recorded of an uplink.
fn variables(uplink: &Uplink, before: &Before) -> Variables {
    let text = |value: Option<String>| value.unwrap_or_default();
    [
        ("IFACE", uplink.device.to_string()),
        ("TABLE", uplink.table.to_string()),
        ("GATEWAY", text(uplink.gateway.map(|it| it.to_string()))),
        ("ROUTES", uplink.routes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        ("ARP_IP", text(uplink.arp_ip.map(|it| it.to_string()))),
        ("FORWARDING", u8::from(uplink.forwarding).to_string()),
        ("PROXY", u8::from(uplink.proxy).to_string()),
        ("BEFORE_UP", u8::from(before.up).to_string()),
        ("BEFORE_SETTINGS", settings_text(&before.settings)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

fn recorded(variables: &Variables, family: Family) -> Result<(Uplink, Before)> {
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
    };
    let settings = settings_of(get("BEFORE_SETTINGS").unwrap_or_default());
    Ok((uplink, Before { up: get("BEFORE_UP") == Some("1"), settings, ..Before::default() }))
}

/// The uplink that is recorded, and its Plan.
///
/// # Errors
/// If the record is not what this program writes.
pub(super) fn recorded_plan(variables: &Variables, family: Family) -> Result<(Uplink, Plan)> {
    let (uplink, before) = recorded(variables, family)?;
    let plan = uplink::plan(&uplink, &before);
    Ok((uplink, plan))
}

/// What the uplink and the node are like before us.
fn before(kernel: &mut Kernel, device: &IfName, family: Family) -> Result<Before> {
    let link = kernel.link(device)?.cloned();
    let link = link.with_context(|| format!("\"{device}\": there is no such interface"))?;
    let mut settings = Vec::new();
    for key in ["forwarding", "proxy_arp", "proxy_ndp", "rp_filter"] {
        settings.extend(link.setting(family, key).map(|value| (family, key, value)));
    }
    let folder = format!("/proc/sys/net/{}", family.sysctl());
    for (key, file) in [
        (PROXY_DELAY, format!("{folder}/neigh/{device}/{PROXY_DELAY}")),
        ("all.forwarding", format!("{folder}/conf/all/forwarding")),
        ("all.proxy_ndp", format!("{folder}/conf/all/proxy_ndp")),
    ] {
        let value = read_sysctl(&file).context(file)?;
        settings.extend(value.map(|value| (family, key, value)));
    }
    Ok(Before { up: link.up, settings, ..Before::default() })
}

/// What is recorded of one family of an uplink, and what stood there before the first of it.
fn known(kernel: &mut Kernel, state: &State, uplink: &Uplink) -> Result<(Vec<(Uplink, Before)>, Before)> {
    let old = state.records.iter().map(|it| recorded(it, uplink.family)).collect::<Result<Vec<_>>>()?;
    let before = match old.last() {
        Some((_, before)) => before.clone(),
        None => before(kernel, &uplink.device, uplink.family)?,
    };
    Ok((old, before))
}

/// What [`up`] would do, as commands.
///
/// # Errors
/// As [`up`], before it touches the kernel.
pub(crate) fn plan(uplink: &Uplink, settings: &Settings) -> Result<Plan> {
    let state = State::of_uplink(&settings.state_dir, &uplink.device, uplink.family)?;
    let (_, before) = known(&mut Kernel::open()?, &state, uplink)?;
    Ok(uplink::plan(uplink, &before))
}

/// Sets up one family of an uplink.
///
/// # Errors
/// What failed, on which object.
pub(crate) fn up(uplink: &Uplink, settings: &Settings, log: &mut Log) -> Result<()> {
    let mut kernel = Kernel::open()?;
    let mut state = State::of_uplink(&settings.state_dir, &uplink.device, uplink.family)?;
    let (old, before) = known(&mut kernel, &state, uplink)?;
    let plan = uplink::plan(uplink, &before);
    let variables = variables(uplink, &before);
    let records = state.records.clone();
    state.write(records.into_iter().filter(|it| *it != variables).chain([variables.clone()]).collect())?;
    let mut leftover = Plan::default();
    for (old, _) in &old {
        let gone = reconcile::difference(&uplink::plan(old, &before), &plan);
        leftover.elements.extend(gone.elements);
        leftover.objects.extend(gone.objects);
    }
    let elements = std::mem::take(&mut leftover.elements);
    if let Err(error) = reconcile::apply(&mut kernel, &plan, &elements) {
        if old.is_empty() && reconcile::remove(&mut kernel, &plan, true).is_empty() {
            state.write(Vec::new())?;
        }
        return Err(error);
    }
    for object in &plan.objects {
        log.line(object.line(Verb::Add));
    }
    if let Some(failure) = reconcile::remove(&mut kernel, &leftover, true).into_iter().next() {
        return Err(failure);
    }
    if uplink.family == Family::V4 && read_sysctl(STRICT_REVERSE_PATH)? == Some(1) {
        log.say(format!(
            "warning: {STRICT_REVERSE_PATH} is 1 and overrules each TAP's own 0: guests are cut off, set it to 0 or 2"
        ));
    }
    state.write(vec![variables])?;
    state::record_table(&settings.state_dir, uplink.table, &uplink.device)?;
    super::announcer::detach(kernel.into_lingering(), None);
    Ok(())
}

/// Undoes [`up`].
///
/// # Errors
/// What could not be removed.
pub(crate) fn down(device: &IfName, family: Family, settings: &Settings, log: &mut Log) -> Result<()> {
    let mut state = State::of_uplink(&settings.state_dir, device, family)?;
    let mut kernel = Kernel::open()?;
    let live = kernel.link(device)?.is_some();
    for variables in state.records.clone().iter().rev() {
        let (uplink, before) = recorded(variables, family)?;
        let mut plan = uplink::plan(&uplink, &before);
        if state::other_uplinks(&settings.state_dir, device, family)? {
            // Another uplink needs what is set for all.
            plan.objects.retain(|it| !matches!(it, crate::plan::Object::Sysctl(it) if it.interface.is_none()));
        }
        let failures = reconcile::remove(&mut kernel, &plan, live);
        if let Some(failure) = failures.into_iter().next() {
            return Err(failure);
        }
        for object in reconcile::removal_order(&plan).concat() {
            log.line(object.line(Verb::Remove));
        }
        state::forget_table(&settings.state_dir, uplink.table, device);
    }
    super::announcer::detach(kernel.into_lingering(), None);
    state.write(Vec::new())
}
