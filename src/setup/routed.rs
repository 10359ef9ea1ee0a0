//! The routed setups: `ip-less-routed`, where the node has no address in the guests' network and answers for its guests on
//! the uplink, and the plain one that Ganeti's own script makes.

use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::{Family, IfName, Mac};
use crate::announce::Announcement;
use crate::nic::{Endpoint, Nic};
use crate::object::{
    Hop, Link, NeighProxy, Neighbour, PREFERENCE_NIC, PROTOCOL_NIC, Plan, Port, Route, Rule, RuleSelector, Setting,
    Sysctl, SysctlGroup, TABLE_MAIN, Up,
};
use crate::ruleset::{Element, TableFamily, Value};
use crate::settings::{Settings, Setup};
use crate::setup::{self, Facts, fwmark, host, node_settings, routed_sources, shared};

/// What the seed's "ip-less-routed" asks for.
pub fn ip_less(nic: &Nic, table: u32, settings: &Settings, facts: &Facts, plan: &mut Plan) {
    filters(nic, settings, plan);
    host::add(nic, settings, plan);
    guard_node(nic, facts, plan);
    for family in Family::BOTH {
        if nic.endpoint(family).is_some() {
            on_uplinks(family, facts, plan);
        }
    }
    forwarding(nic, facts, plan);
    link(nic, Some(settings.tap_constant_mac), facts, plan);
    rules(nic, table, settings, facts, plan);
    plan.push(up(nic));
    for family in Family::BOTH {
        let Some(endpoint) = nic.endpoint(family) else { continue };
        plan.extend(neighbour(nic, endpoint, settings));
        plan.push(host_route(nic, endpoint, table));
        for device in &facts.uplinks[family as usize] {
            // IPv4 is answered for by proxy_arp, which asks the routes; IPv6 needs an entry for each address.
            if family == Family::V6 {
                let (address, device) = (endpoint.address, device.clone());
                let behind = nic.interface.clone();
                plan.push(NeighProxy { address, device, behind, protocol: PROTOCOL_NIC });
            }
            plan.announcements.push(Announcement { address: endpoint.address, device: device.clone() });
        }
    }
}

/// What Ganeti's own script does for a routed NIC.
pub fn plain(nic: &Nic, table: u32, settings: &Settings, facts: &Facts, plan: &mut Plan) {
    if nic.has(Setup::StrictFiltered) {
        routed_sources::filters(nic, settings, plan);
    }
    if facts.nftables {
        host::add(nic, settings, plan);
    }
    guard_node(nic, facts, plan);
    forwarding(nic, facts, plan);
    link(nic, None, facts, plan);
    rules(nic, table, settings, facts, plan);
    plan.push(up(nic));
    for endpoint in Family::BOTH.into_iter().filter_map(|family| nic.endpoint(family)) {
        if nic.has(Setup::StrictFiltered) {
            plan.extend(neighbour(nic, endpoint, settings));
        }
        plan.push(host_route(nic, endpoint, table));
    }
}

/// ARP requests to the guest come from its gateway; packets from the guest come from its own addresses.
fn filters(nic: &Nic, settings: &Settings, plan: &mut Plan) {
    if let Some(IpAddr::V4(gateway)) = nic.endpoint(Family::V4).and_then(|it| it.gateway) {
        plan.tables.push(Arc::clone(&shared::ARP));
        let element = setup::element(nic, TableFamily::Arp, shared::ARP_SOURCE, []);
        plan.elements.push(Element { data: Some(Value::V4(gateway)), ..element });
    }
    routed_sources::filters(nic, settings, plan);
}

fn conf(nic: &Nic, family: Family, key: &'static str, want: u32, facts: &Facts) -> Sysctl {
    let interface = Some(nic.interface.clone());
    let value = Setting { want, before: facts.before.setting(family, key) };
    Sysctl { family, group: SysctlGroup::Conf, interface, key, value }
}

/// A guest must not reconfigure the node: no router advertisement, redirect or denied address of its making counts, and its
/// packets are checked by source, not by the reverse path, which leads to the uplink.
fn guard_node(nic: &Nic, facts: &Facts, plan: &mut Plan) {
    let settings = [
        (Family::V4, "accept_redirects", 0),
        (Family::V4, "rp_filter", 0),
        (Family::V6, "accept_ra", 0),
        (Family::V6, "accept_redirects", 0),
        (Family::V6, "accept_dad", 0),
        (Family::V6, "addr_gen_mode", 0),
    ];
    plan.extend(settings.map(|(family, key, want)| conf(nic, family, key, want, facts)));
}

/// Packets pass between the TAP and the uplink; the TAP answers ARP for everything that is elsewhere, at once.
fn forwarding(nic: &Nic, facts: &Facts, plan: &mut Plan) {
    if nic.endpoint(Family::V4).is_some() {
        plan.push(conf(nic, Family::V4, "forwarding", 1, facts));
        // As long as the route to the guest is missing, its own address is elsewhere, too.
        plan.push(conf(nic, Family::V4, "drop_gratuitous_arp", 1, facts));
        plan.push(conf(nic, Family::V4, "proxy_arp", 1, facts));
        let delay = Setting { want: 0, before: facts.before.setting(Family::V4, PROXY_DELAY) };
        plan.push(neigh(Family::V4, nic.interface.clone(), delay));
    }
    if nic.endpoint(Family::V6).is_some() {
        plan.push(conf(nic, Family::V6, "forwarding", 1, facts));
        // nfdhcpd answers neighbour solicitations of an ip-less-routed guest; otherwise the node does.
        let proxies = u32::from(!nic.has(Setup::IpLessRouted));
        plan.push(conf(nic, Family::V6, "proxy_ndp", proxies, facts));
    }
}

/// How long an answer for a proxied address is put off (USER_HZ, 0.8 s by default).
pub const PROXY_DELAY: &str = "proxy_delay";

fn neigh(family: Family, interface: IfName, value: Setting<u32>) -> Sysctl {
    Sysctl { family, group: SysctlGroup::Neigh, interface: Some(interface), key: PROXY_DELAY, value }
}

/// What proxying needs on the uplinks of a table and on the node. It belongs to the node: it is set where it is missing, and
/// stays.
fn on_uplinks(family: Family, facts: &Facts, plan: &mut Plan) {
    for device in &facts.uplinks[family as usize] {
        plan.extend(uplink_settings(family, device, |_, want| Setting { want, before: None }));
    }
}

/// The settings of an uplink: proxying and forwarding, answers not put off. `change` knows what stood there before.
pub fn uplink_settings(
    family: Family,
    device: &IfName,
    change: impl Fn(&'static str, u32) -> Setting<u32>,
) -> Vec<Sysctl> {
    let conf = |key, value| Sysctl { family, group: SysctlGroup::Conf, interface: Some(device.clone()), key, value };
    let mut objects = node_settings::of_all(family, &change);
    objects.extend(match family {
        Family::V4 => vec![conf("forwarding", change("forwarding", 1)), conf("proxy_arp", change("proxy_arp", 1))],
        Family::V6 => vec![conf("forwarding", change("forwarding", 1)), conf("proxy_ndp", change("proxy_ndp", 1))],
    });
    objects.push(neigh(family, device.clone(), change(PROXY_DELAY, 0)));
    objects
}

fn link(nic: &Nic, mac: Option<Mac>, facts: &Facts, plan: &mut Plan) {
    // A NIC whose setup changed to one that leaves the MAC alone gets its own back.
    let mac = mac.or(facts.before.mac).map(|want| Setting { want, before: facts.before.mac });
    plan.push(Link { name: nic.interface.clone(), mac, mtu: None });
    plan.push(Port { name: nic.interface.clone(), bridge: None });
}

/// Packets from the TAP are routed by the table; where that is main, they are anyway. The rule by interface stands in either
/// way of routing: where a mark routes them it is behind that one's, and takes what has lost its mark.
fn rules(nic: &Nic, table: u32, settings: &Settings, facts: &Facts, plan: &mut Plan) {
    if facts.nftables {
        fwmark::add(nic, table, settings, plan);
    }
    for family in Family::BOTH {
        if nic.endpoint(family).is_some() && table != TABLE_MAIN {
            let selector = RuleSelector::Iif(nic.interface.clone());
            let (preference, protocol) = (PREFERENCE_NIC, PROTOCOL_NIC);
            plan.push(Rule { family, selector, table, preference, protocol, shared: false });
        }
    }
}

fn up(nic: &Nic) -> Up {
    Up { name: nic.interface.clone(), down_after: true }
}

/// Where the guest is, if its sources are checked: it cannot use another MAC then.
fn neighbour(nic: &Nic, endpoint: &Endpoint, settings: &Settings) -> Option<Neighbour> {
    let (address, mac, device) = (endpoint.address, nic.mac, nic.interface.clone());
    (!settings.ipspoof).then_some(Neighbour { address, mac, device, protocol: PROTOCOL_NIC })
}

fn host_route(nic: &Nic, endpoint: &Endpoint, table: u32) -> Route {
    let destination = endpoint.address.into();
    let hop = Hop::Device(nic.interface.clone());
    // No route to the guest that a routing daemon makes is better: of IPv4 none is 0, of IPv6 the kernel takes 0 for 1024.
    let metric = (Family::of(endpoint.address) == Family::V6).then_some(1);
    Route { destination, hop, table, metric, protocol: PROTOCOL_NIC }
}
