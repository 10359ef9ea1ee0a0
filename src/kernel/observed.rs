//! What stands in the calling thread's network namespace, read by dumps: their cost grows with what stands, so nothing on the
//! way of a NIC uses them; but the first of a routing table asks for the rules.

pub(super) mod decode;
pub(super) mod dumps;
mod lines;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnet::IpNet;

pub use self::lines::{lines, neighbour};
use super::guard::GuardState;
use super::netlink::Netlink;
use super::nftables::{Lacking, Nftables, is_missing};
use super::rtnetlink::{self, LinkState};
use super::tc::{self, FoundQdisc};
use super::{Kernel, read_sysctl};
use crate::addr::{Family, IfName};
use crate::binding;
use crate::model::link_id::{LinkId, Namespace};
use crate::object::{Hop, Neighbour, Object, OvsPort, Plan, PortVlan, Route, Rule, RuleSelector, SysctlGroup};
use crate::ovsdb::port::{self, PortState};
use crate::ruleset::{Element, Group, Name, TableFamily, Value};

/// A proxy entry as the kernel knows it: it does not tell what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundProxy {
    /// The address that is answered for.
    pub address: IpAddr,
    /// Where it is answered.
    pub device: IfName,
    /// Whose it is; 0 is nobody's in particular.
    pub protocol: u8,
}

/// Everything of the kinds that Plans are made of, whoever made it, as far as it has the form in which a Plan could name it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// All links, by name.
    pub links: HashMap<IfName, LinkState>,
    /// Where they are.
    pub namespace: Option<Namespace>,
    /// Rules by input interface.
    pub rules: HashMap<IfName, Vec<Rule>>,
    /// Rules by mark.
    pub mark_rules: Vec<Rule>,
    /// Routes by table and destination.
    pub routes: HashMap<(u32, IpNet), Vec<Route>>,
    /// The tables with a default route, of whatever form.
    pub defaults: HashSet<(Family, u32)>,
    /// Where in them a device is led to, each place once.
    routes_by_device: HashMap<IfName, HashSet<(u32, IpNet)>>,
    /// Permanent neighbour entries with an Ethernet address, by device.
    pub neighbours: HashMap<IfName, Vec<Neighbour>>,
    /// Proxy entries.
    pub proxies: HashMap<IpAddr, Vec<FoundProxy>>,
    /// The VLANs of ports, by the port's number; empty unless a Plan asks for any.
    pub vlans: HashMap<u32, Vec<PortVlan>>,
    /// How long answers for proxied addresses are put off (USER_HZ), of IPv4 and IPv6, by the link's number.
    pub proxy_delays: [HashMap<u32, u32>; 2],
    /// Sysctls of all interfaces (`all`), which no dump tells; none where there is no such file.
    pub sysctls: HashMap<(Family, SysctlGroup, &'static str), Option<u32>>,
    /// Contents of files; none where there is no such file.
    pub files: HashMap<PathBuf, Option<Vec<u8>>>,
    /// Ports of Open vSwitch, by its socket and their name; none where there is no such port, and why it could not be told.
    pub ovs_ports: HashMap<(PathBuf, IfName), Result<Option<PortState>, String>>,
    /// What finishes the checksums of guarded TAPs, if a Plan names it.
    pub guard: Option<GuardState>,
    /// The qdiscs in the place of clsact, by their device's number, if a Plan names one.
    pub ingress: Option<HashMap<u32, FoundQdisc>>,
    /// Ports of Open vSwitch that we made, by name, without those above.
    pub own_ports: HashMap<IfName, OvsPort>,
    /// Tables that were looked for and lack something.
    pub lacking: Vec<(Arc<Group>, Lacking)>,
    /// Elements of our sets whose key begins with an interface, by that.
    pub elements: HashMap<IfName, Vec<Element>>,
}

impl Observed {
    /// Reads all that stands, and what these Plans name beyond it. `tables` are those whose sets are read, besides the Plans', and
    /// `ovsdb` is where ovsdb-server listens.
    ///
    /// # Errors
    /// What the kernel refused, which file could not be read.
    pub fn read<'a>(
        kernel: &mut Kernel,
        plans: impl Iterator<Item = &'a Plan> + Clone,
        tables: Vec<Arc<Group>>,
        ovsdb: &Path,
    ) -> Result<Self> {
        let mut observed = Self::default();
        // Filters first: in what comes up meanwhile they stand already.
        observed.read_nftables(kernel, plans.clone(), tables)?;
        let netlink = &mut kernel.netlink;
        let links = dumps::whole(netlink, rtnetlink::links)?;
        let names: HashMap<u32, IfName> = links.iter().map(|link| (link.index, link.name.clone())).collect();
        for family in Family::BOTH {
            for rule in dumps::rules(netlink, family)?.iter().filter_map(|it| decode::rule(family, it)) {
                observed.add_rule(rule);
            }
            for route in &dumps::routes(netlink, family)? {
                observed.defaults.extend(decode::table_of_default(route).map(|table| (family, table)));
                decode::route(family, route, &names).into_iter().for_each(|it| observed.add_route(it));
            }
            for neighbour in dumps::neighbours(netlink, family)?.iter().filter_map(|it| decode::neighbour(it, &names)) {
                observed.neighbours.entry(neighbour.device.clone()).or_default().push(neighbour);
            }
            for proxy in dumps::proxies(netlink, family)?.iter().filter_map(|it| decode::proxy(it, &names)) {
                observed.proxies.entry(proxy.address).or_default().push(proxy);
            }
            observed.proxy_delays[family as usize] =
                dumps::whole(netlink, |netlink| rtnetlink::proxy_delays(netlink, family))?;
        }
        observed.namespace = Some(kernel.namespace()?);
        observed.links = links.into_iter().map(|link| (link.name.clone(), link)).collect();
        for object in plans.flat_map(|plan| &plan.objects) {
            observed.read_object(kernel, object)?;
        }
        let read: HashSet<_> = observed.ovs_ports.keys().map(|it| it.1.clone()).collect();
        let own = port::own_ports(ovsdb, |name| read.contains(name))?;
        observed.own_ports = own.into_iter().map(|it| (it.name.clone(), it)).collect();
        Ok(observed)
    }

    /// Which link has a name.
    pub fn link_id(&self, name: &IfName) -> Option<LinkId> {
        self.links.get(name).map(|it| LinkId { index: it.index, namespace: self.namespace })
    }

    /// Adds a rule that stands.
    pub fn add_rule(&mut self, rule: Rule) {
        match &rule.selector {
            RuleSelector::Iif(name) => self.rules.entry(name.clone()).or_default().push(rule),
            RuleSelector::Mark(_) | RuleSelector::LocalMark(_) => self.mark_rules.push(rule),
        }
    }

    /// Whether a rule stands; whose it is to remove, the kernel does not know.
    pub fn has_rule(&self, rule: &Rule) -> bool {
        let found = match &rule.selector {
            RuleSelector::Iif(name) => self.rules.get(name).map_or(&[][..], Vec::as_slice),
            RuleSelector::Mark(_) | RuleSelector::LocalMark(_) => &self.mark_rules,
        };
        found.contains(&Rule { shared: false, ..rule.clone() })
    }

    /// Adds a route that stands.
    pub fn add_route(&mut self, route: Route) {
        let place = (route.table, route.destination);
        if let Some(device) = route.hop.device() {
            self.routes_by_device.entry(device.clone()).or_default().insert(place);
        }
        self.routes.entry(place).or_default().push(route);
    }

    /// Whether packets end in a table that no other route takes there.
    pub fn rejects_the_rest(&self, family: Family, table: u32) -> bool {
        let routes = self.routes.get(&(table, family.any()));
        routes.into_iter().flatten().any(|it| it.hop == Hop::Unreachable)
    }

    fn read_object(&mut self, kernel: &mut Kernel, object: &Object) -> Result<()> {
        match object {
            Object::Sysctl(it) if it.interface.is_none() && !self.sysctls.contains_key(&it.place()) => {
                let path = it.path();
                let value = read_sysctl(&path).with_context(|| path)?;
                self.sysctls.insert(it.place(), value);
            }
            Object::BridgeVlans(_) if self.vlans.is_empty() => {
                self.vlans = dumps::whole(&mut kernel.netlink, rtnetlink::all_vlans)?;
            }
            Object::File(it) => {
                self.files.insert(it.path.clone(), binding::read(it)?);
            }
            Object::OvsPort(it) => {
                let place = (it.socket.clone(), it.name.clone());
                let state = port::port_state(&it.socket, &it.name).map_err(|error| format!("{error:#}"));
                self.ovs_ports.insert(place, state);
            }
            Object::ChecksumGuard(_) if self.guard.is_none() => self.guard = Some(kernel.guard_state()?),
            Object::Clsact(_) if self.ingress.is_none() => {
                let found = dumps::whole(&mut kernel.netlink, tc::ingress_qdiscs)?;
                self.ingress = Some(found.into_iter().map(|it| (it.device, it)).collect());
            }
            Object::ChecksumGuard(_)
            | Object::Clsact(_)
            | Object::Sysctl(_)
            | Object::BridgeVlans(_)
            | Object::Link(_)
            | Object::VlanDevice(_)
            | Object::Bridge(_)
            | Object::Rule(_)
            | Object::Port(_)
            | Object::PortFlags(_)
            | Object::Up(_)
            | Object::Neighbour(_)
            | Object::Route(_)
            | Object::NeighProxy(_) => {}
        }
        Ok(())
    }

    fn read_nftables<'a>(
        &mut self,
        kernel: &mut Kernel,
        plans: impl Iterator<Item = &'a Plan>,
        mut tables: Vec<Arc<Group>>,
    ) -> Result<()> {
        let mut needed = false;
        for table in plans.flat_map(|plan| &plan.tables) {
            needed = true;
            if !tables.contains(table) {
                tables.push(Arc::clone(table));
            }
        }
        match kernel.nftables().and_then(|nftables| self.read_tables(nftables, tables)) {
            // A kernel without nf_tables holds no elements.
            Err(error) if !needed && is_missing(&error) => Ok(()),
            read => read,
        }
    }

    fn read_tables(&mut self, nftables: &mut Nftables, tables: Vec<Arc<Group>>) -> Result<()> {
        let lacking = nftables.lacking(&tables)?;
        let mut known: Vec<(TableFamily, Name)> = Vec::new();
        for (table, lacking) in tables.into_iter().zip(lacking) {
            for set in table.sets.iter().filter(|set| !lacking.sets.contains(&set.name)) {
                if known.iter().any(|it| (it.0, &it.1) == (table.family, &set.name)) {
                    continue;
                }
                known.push((table.family, set.name.clone()));
                for element in nftables.elements(table.family, set)? {
                    if let Some(Value::IfName(name)) = element.key.first() {
                        self.elements.entry(name.clone()).or_default().push(element);
                    }
                }
            }
            if !lacking.is_nothing() {
                self.lacking.push((table, lacking));
            }
        }
        Ok(())
    }

    /// The name of the device with this number; none of 0.
    pub fn name_of(&self, index: u32) -> Option<&IfName> {
        self.links.values().find(|link| link.index == index).map(|link| &link.name)
    }

    /// The routes of this protocol that lead to a device.
    pub fn routes_of(&self, device: &IfName, protocol: u8) -> impl Iterator<Item = &Route> {
        let places = self.routes_by_device.get(device).into_iter().flatten();
        places
            .filter_map(|place| self.routes.get(place))
            .flatten()
            .filter(move |route| route.protocol == protocol && route.hop.device() == Some(device))
    }
}

/// The rules by mark that stand, from a dump of all.
///
/// # Errors
/// What the kernel refused.
pub(super) fn mark_rules(netlink: &mut Netlink) -> Result<Vec<Rule>> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        let rules = dumps::rules(netlink, family)?;
        let rules = rules.iter().filter_map(|it| decode::rule(family, it));
        all.extend(rules.filter(|it| !matches!(it.selector, RuleSelector::Iif(_))));
    }
    Ok(all)
}
