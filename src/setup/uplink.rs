//! The node's uplink, which the routed setup stands on: routes to the guests' network and its gateway, proxying, and the
//! address from which the node asks for its neighbours.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::{Family, IfName};
use crate::plan::{
    Change, Folder, Hop, Mark, Object, PREFERENCE_NODE, PROTOCOL_NODE, Plan, Route, Rule, RuleSelector, Sysctl,
    TABLE_MAIN, Up,
};
use crate::ruleset::{Comment, Element, TableFamily, Value};
use crate::setup::{Before, base, routed, steering};

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
    /// The mark of the packets that the table routes, if any.
    pub mark: Option<Mark>,
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
}

/// The Plan of an uplink. `before` also holds what stood in `all`, as keys `all.forwarding` and `all.proxy_ndp`.
pub fn plan(uplink: &Uplink, before: &Before) -> Plan {
    let mut plan = Plan::default();
    let Uplink { device, family, table, .. } = uplink;
    if let Some(address) = uplink.arp_ip {
        plan.tables.push(Arc::clone(&base::ARP));
        plan.elements.push(Element {
            family: TableFamily::Arp,
            set: base::ARP_SOURCE.into(),
            key: vec![Value::IfName(device.clone())],
            data: Some(Value::V4(address)),
            comment: Some(Comment::new("uplink")),
        });
    }
    let change = |key: &'static str, want| Change { want, before: before.setting(*family, key) };
    plan.objects.extend(routed::uplink_settings(*family, device, change).into_iter().filter(|object| {
        let Object::Sysctl(Sysctl { key, .. }) = object else { return true };
        if *key == "forwarding" { uplink.forwarding } else { uplink.proxy }
    }));
    if *family == Family::V4 {
        // What comes in is routed by the table, but the reverse path would be looked up in main.
        plan.objects.push(Object::Sysctl(Sysctl {
            family: *family,
            folder: Folder::Conf,
            interface: Some(device.clone()),
            key: "rp_filter",
            value: change("rp_filter", 0),
        }));
    }
    if *table != TABLE_MAIN {
        let (preference, protocol) = (PREFERENCE_NODE, PROTOCOL_NODE);
        let selector = RuleSelector::Iif(device.clone());
        let rule = Rule { family: *family, selector, table: *table, preference, protocol, shared: false };
        plan.objects.push(Object::Rule(rule));
        if let Some(mark) = uplink.mark {
            steering::add_uplink(device, *family, *table, mark, before, &mut plan);
        }
    }
    plan.objects.push(Object::Up(Up { name: device.clone(), down_after: !before.up }));
    routes(uplink, &mut plan);
    plan
}

fn routes(uplink: &Uplink, plan: &mut Plan) {
    let mut add = |destination: IpNet, hop: Hop, table, metric| {
        plan.objects.push(Object::Route(Route { destination, hop, table, metric, protocol: PROTOCOL_NODE }));
    };
    let any = match uplink.family {
        Family::V4 => IpNet::V4(Ipv4Net::default()),
        Family::V6 => IpNet::V6(Ipv6Net::default()),
    };
    let own_table = uplink.table != TABLE_MAIN;
    // First of all: without a default the guests' packets would go on to table main, and reach what the node reaches.
    if own_table {
        add(any, Hop::Unreachable, uplink.table, Some(METRIC_BACKSTOP));
    }
    for &network in &uplink.routes {
        // Likewise what the node itself says to a guest, such as that its packet leads nowhere: it must not leave by another
        // way when the device is down.
        if own_table {
            add(network, Hop::Unreachable, TABLE_MAIN, Some(METRIC_BACKSTOP));
        }
        add(network, Hop::Device(uplink.device.clone()), TABLE_MAIN, None);
        if own_table {
            add(network, Hop::Device(uplink.device.clone()), uplink.table, None);
        }
    }
    if let Some(gateway) = uplink.gateway {
        let onlink = !uplink.routes.iter().any(|it| it.contains(&gateway));
        add(any, Hop::Gateway { gateway, device: uplink.device.clone(), onlink }, uplink.table, None);
    }
}
