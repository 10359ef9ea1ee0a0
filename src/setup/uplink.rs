//! The node's uplink, which the routed setup stands on: routes to the guests' network and its gateway, proxying, and the
//! address from which the node asks for its neighbours.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::addr::{Family, IfName};
use crate::object::{
    Hop, PREFERENCE_NODE, PROTOCOL_NODE, Plan, Route, Rule, RuleSelector, Setting, Sysctl, SysctlGroup, TABLE_MAIN, Up,
};
use crate::ruleset::{Comment, Element, TableFamily, Value};
use crate::settings::Fwmark;
use crate::setup::{Original, fwmark, host, node_settings, routed, shared};

/// Metric of the backstop: as low a preference as there is without being the last that IPv6 knows (IP6_RT_PRIO_ADDRCONF and
/// kin lie far below).
const METRIC_BACKSTOP: u32 = 4_278_198_272;

/// One family of an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The device.
    pub device: IfName,
    /// The family.
    pub family: Family,
    /// The guests' routing table.
    pub table: u32,
    /// The table's mark; none of main, and of a table whose number does not fit into the mask.
    pub fwmark: Option<Fwmark>,
    /// Interfaces other than TAPs and uplinks whose packets are forwarded to the device.
    pub forward_from: Vec<IfName>,
    /// Whether the kernel has nf_tables; without it, packets are neither marked nor filtered.
    pub nftables: bool,
    /// The external router.
    pub gateway: Option<IpAddr>,
    /// Prefixes on the device's link.
    pub routes: Vec<IpNet>,
    /// The sender address of ARP requests that leave the device.
    pub arp_ip: Option<Ipv4Addr>,
    /// Whether packets are forwarded.
    pub forwarding: bool,
    /// Whether the device answers ARP or neighbour solicitations for the guests.
    pub proxy: bool,
    /// Those of `routes` that table main has by another uplink: it has no route by this one.
    pub apart: Vec<IpNet>,
    /// Other interfaces that go on to accept router advertisements while the node forwards.
    pub advertised: Vec<IfName>,
    /// Whether it was taken down while NICs use its table: then only what keeps their packets out of table main remains.
    pub down: bool,
}

impl Uplink {
    /// Its prefixes in table main.
    fn in_main(&self) -> impl Iterator<Item = IpNet> {
        self.routes.iter().filter(|it| !self.apart.contains(it)).copied()
    }

    /// The prefixes for which table main has routes by `other`, an uplink of another table: the very ones, or wider or narrower ones.
    pub fn taken_in_main(&self, other: &Self) -> Vec<IpNet> {
        let meets = |network: &IpNet| other.in_main().any(|it| it.contains(network) || network.contains(&it));
        let is_apart = ![TABLE_MAIN, other.table].contains(&self.table);
        self.in_main().filter(|it| is_apart && meets(it)).collect()
    }

    /// A destination to which its own table has a route by `other`, which is up.
    pub fn taken_in_own_table(&self, other: &Self) -> Option<IpNet> {
        if other.down {
            return None;
        }
        let default = |it: &Self| it.gateway.map(|_| it.family.any()).filter(|_| it.table == self.table);
        let has = |it: &Self, network: &IpNet| match self.table {
            TABLE_MAIN => it.in_main().any(|it| it == *network),
            table => table == it.table && it.routes.contains(network),
        };
        self.routes.iter().copied().find(|it| has(other, it)).or_else(|| default(self).and(default(other)))
    }

    /// How this one differs from an earlier one, `gateway 10.0.0.1 -> none` and so on, and whether guests lose anything by it.
    pub fn changes_from(&self, old: &Self) -> (Vec<String>, bool) {
        let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let on = |it: bool| if it { "on" } else { "off" }.to_owned();
        let list = |it: &Self| {
            let routes: Vec<_> = it.routes.iter().map(ToString::to_string).collect();
            text(Some(routes.join(",")).filter(|it| !it.is_empty()))
        };
        let gateway = |it: &Self| text(it.gateway.map(|it| it.to_string()));
        let arp_ip = |it: &Self| text(it.arp_ip.map(|it| it.to_string()));
        let loses_routes = old.routes.iter().any(|it| !self.routes.contains(it));
        let loses_gateway = old.gateway.is_some() && old.gateway != self.gateway;
        let all = [
            ("table", old.table.to_string(), self.table.to_string(), true),
            ("gateway", gateway(old), gateway(self), loses_gateway),
            ("routes", list(old), list(self), loses_routes),
            ("forwarding", on(old.forwarding), on(self.forwarding), !self.forwarding),
            ("proxy", on(old.proxy), on(self.proxy), !self.proxy),
            ("arp-ip", arp_ip(old), arp_ip(self), false),
        ];
        let changed: Vec<_> = all.into_iter().filter(|(_, old, new, _)| old != new).collect();
        let loses = changed.iter().any(|it| it.3);
        (changed.into_iter().map(|(what, old, new, _)| format!("{what} {old} -> {new}")).collect(), loses)
    }
}

/// The Plan of an uplink. `before` also holds what stood in `all`, as keys `all.forwarding` and `all.proxy_ndp`.
pub fn plan(uplink: &Uplink, before: &Original) -> Plan {
    let mut plan = Plan::default();
    let Uplink { device, family, table, .. } = uplink;
    let change = |key: &'static str, want| Setting { want, before: before.setting(*family, key) };
    let wanted = |it: &Sysctl| if it.key == "forwarding" { uplink.forwarding } else { uplink.proxy };
    plan.extend(uplink.advertised.iter().map(node_settings::accept_advertisements));
    if uplink.down {
        plan.extend(node_settings::of_all(*family, change).into_iter().filter(wanted));
        // With their record, the NICs' own Plans make sure of the chains that mark.
        if let Some(fwmark) = uplink.fwmark {
            let (reflect, rule) = fwmark::for_errors(*family, *table, fwmark, before);
            plan.push(reflect);
            plan.push(rule);
        }
        backstops(uplink, &mut plan);
        return plan;
    }
    if let Some(address) = uplink.arp_ip {
        plan.tables.push(Arc::clone(&shared::ARP));
        plan.elements.push(Element {
            family: TableFamily::Arp,
            set: shared::ARP_SOURCE.into(),
            key: vec![Value::IfName(device.clone())],
            data: Some(Value::V4(address)),
            comment: Some(Comment::new("uplink")),
        });
    }
    plan.extend(routed::uplink_settings(*family, device, change).into_iter().filter(wanted));
    if *family == Family::V4 {
        // What comes in is routed by the table, but the reverse path would be looked up in main. And behind DEV only its own
        // addresses are the node's.
        for (key, want) in [("rp_filter", Some(0)), ("arp_ignore", (*table != TABLE_MAIN).then_some(1))] {
            let Some(want) = want else { continue };
            plan.push(Sysctl {
                family: *family,
                group: SysctlGroup::Conf,
                interface: Some(device.clone()),
                key,
                value: change(key, want),
            });
        }
    }
    if *table != TABLE_MAIN {
        let (preference, protocol) = (PREFERENCE_NODE, PROTOCOL_NODE);
        let selector = RuleSelector::Iif(device.clone());
        let rule = Rule { family: *family, selector, table: *table, preference, protocol, shared: false };
        plan.push(rule);
        if uplink.nftables {
            let error_source = uplink.arp_ip.map(IpAddr::V4);
            host::add_uplink(device, *family, &uplink.forward_from, error_source, &mut plan);
            if let Some(fwmark) = uplink.fwmark {
                fwmark::add_uplink(device, *family, *table, fwmark, before, &mut plan);
            }
        }
    }
    plan.push(Up { name: device.clone(), down_after: !before.up });
    routes(uplink, &mut plan);
    plan
}

fn route(destination: IpNet, hop: Hop, table: u32, metric: Option<u32>) -> Route {
    Route { destination, hop, table, metric, protocol: PROTOCOL_NODE }
}

/// Where a packet ends that no other route takes. Without a default in the guests' table their packets would go on to table main, and
/// reach what the node reaches. Likewise what the node itself says to a guest, such as that its packet leads nowhere: it must not leave
/// by another way when the device is down.
fn backstops(uplink: &Uplink, plan: &mut Plan) {
    if uplink.table == TABLE_MAIN {
        return;
    }
    let unreachable = |destination, table| route(destination, Hop::Unreachable, table, Some(METRIC_BACKSTOP));
    plan.push(unreachable(uplink.family.any(), uplink.table));
    plan.extend(uplink.in_main().map(|network| unreachable(network, TABLE_MAIN)));
}

fn routes(uplink: &Uplink, plan: &mut Plan) {
    // First of all.
    backstops(uplink, plan);
    let on_link = |network: IpNet, table| route(network, Hop::Device(uplink.device.clone()), table, None);
    plan.extend(uplink.in_main().map(|network| on_link(network, TABLE_MAIN)));
    if uplink.table != TABLE_MAIN {
        plan.extend(uplink.routes.iter().map(|network| on_link(*network, uplink.table)));
    }
    if let Some(gateway) = uplink.gateway {
        let onlink = !uplink.routes.iter().any(|it| it.contains(&gateway));
        let hop = Hop::Gateway { gateway, device: uplink.device.clone(), onlink };
        plan.push(route(uplink.family.any(), hop, uplink.table, None));
    }
}
