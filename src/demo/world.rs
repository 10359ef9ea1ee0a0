//! The demo's world: an external router, two nodes on its link, and two guests, each machine a network namespace.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use ipnet::{IpNet, Ipv6Net};

use super::guest::{Address, Guest};
use super::wire::Wire;
use crate::addr::{Family, IfName, Mac, parse_net};
use crate::commands::{nic, node};
use crate::environment::{RawNic, Unset};
use crate::kernel::address::{LinkLocal, find, link_local as link_local_of};
use crate::kernel::guest_port::GuestPort;
use crate::kernel::namespace::{Netns, set_sysctl};
use crate::kernel::nftables::Nftables;
use crate::kernel::ping::PingSocket;
use crate::kernel::rtnetlink::DEVCONF;
use crate::kernel::{inventory, read_sysctl, topology};
use crate::log::Log;
use crate::plan::Plan;
use crate::settings::Settings;
use crate::setup::base;
use crate::setup::routed::PROXY_DELAY;
use crate::setup::uplink::Uplink;

/// What should come comes in milliseconds; only a failure takes this long.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks at what the kernel tells nobody unasked.
const POLL: Duration = Duration::from_millis(5);

/// The seed's names, per family: GW_IP, an address that is only reached through the router, and the network.
pub const GATEWAY: [&str; 2] = ["10.0.0.1", "2001:db8:1::1"];
const OUTSIDE: [&str; 2] = ["198.51.100.1", "2001:db8:ffff::1"];
const NETWORK: [&str; 2] = ["10.0.0.0/24", "2001:db8:1::/64"];
/// NODE_IP of each node: an address of its own, outside of the guests' network.
const NODE_IP: [[&str; 2]; 2] = [["192.0.2.11", "2001:db8:2::11"], ["192.0.2.12", "2001:db8:2::12"]];
/// ARP_IP.
pub const ARP_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
/// TABLE.
const TABLE: u32 = 100;
/// GW_MAC, and DEV_MAC of each node.
const GW_MAC: Mac = Mac([0x02, 0, 0, 0, 0x01, 0]);
const DEV_MAC: [Mac; 2] = [Mac([0x02, 0, 0, 0, 0x02, 0x01]), Mac([0x02, 0, 0, 0, 0x02, 0x02])];

/// By when something should have come.
pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Whether something becomes true within [`PATIENCE`].
///
/// # Errors
/// Those of asking.
pub fn becomes_true(mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = soon();
    loop {
        if condition()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
}

fn await_link_local(device: &IfName) -> Result<()> {
    let index = find(device)?.index;
    let usable = becomes_true(|| Ok(matches!(link_local_of(index)?, LinkLocal::Usable(_))))?;
    ensure!(usable, "{device} has no link-local address");
    Ok(())
}

fn name(text: &str) -> Result<IfName> {
    text.parse()
}

/// One of a pair of constants.
fn of(pair: [&str; 2], family: Family) -> Result<IpAddr> {
    Ok(pair[family as usize].parse()?)
}

/// GW_IP.
///
/// # Errors
/// None: it is a constant.
pub fn gateway(family: Family) -> Result<IpAddr> {
    of(GATEWAY, family)
}

/// An external address.
///
/// # Errors
/// None: it is a constant.
pub fn outside(family: Family) -> Result<IpAddr> {
    of(OUTSIDE, family)
}

/// Everything.
pub struct World {
    /// The external router.
    pub router: Router,
    /// The nodes; both guests start on the first.
    pub nodes: [Node; 2],
    /// The guests.
    pub guests: [Hosted; 2],
    /// The second node's TAP for the first guest; later the first node's.
    pub spare: Option<GuestPort>,
}

/// The external router, played by the kernel.
pub struct Router {
    namespace: Netns,
    bridge: u32,
    /// GW_MAC.
    pub mac: Mac,
}

/// A node with an uplink that has no IPv4 address.
pub struct Node {
    /// `node1` or `node2`, and so is the router's port to it.
    pub name: &'static str,
    /// DEV.
    pub device: IfName,
    /// DEV_MAC.
    pub mac: Mac,
    /// NODE_IP of both families.
    addresses: [IpAddr; 2],
    namespace: Netns,
    settings: Settings,
    uplinks: [Uplink; 2],
    /// What is heard on its uplink.
    pub wire: Wire,
    /// What its uplink was made from.
    pub plans: [Plan; 2],
    before: BTreeMap<String, usize>,
}

/// A guest and its NIC.
pub struct Hosted {
    /// The guest itself.
    pub guest: Guest,
    /// TAP.
    pub tap: IfName,
    /// What Ganeti tells ifup of it.
    pub raw: RawNic,
    /// What its NIC was made from.
    pub plan: Plan,
}

impl Hosted {
    /// Its address of a family.
    ///
    /// # Errors
    /// None in practice: it has one of each.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        Ok(self.guest.address(family)?.address)
    }
}

impl World {
    /// Builds the wires and machines; nothing is configured yet. `folder` takes what the nodes record.
    ///
    /// # Errors
    /// If the kernel lets us have no namespaces, bridges or veth pairs.
    pub fn build(folder: &Path) -> Result<Self> {
        let router = Router::build().context("router")?;
        let nodes =
            [Node::build(0, &router, folder).context("node1")?, Node::build(1, &router, folder).context("node2")?];
        let guests = [hosted(0, &nodes[0])?, hosted(1, &nodes[0])?];
        let spare = Some(nodes[1].port(&guests[0].tap)?);
        let mut world = Self { router, nodes, guests, spare };
        for node in &mut world.nodes {
            node.before = node.inventory()?;
        }
        Ok(world)
    }
}

impl Router {
    fn build() -> Result<Self> {
        let (namespace, bridge, lo) = (machine()?, name("br0")?, name("lo")?);
        let index = namespace.run(|| {
            for family in Family::BOTH {
                set_sysctl(&format!("net/{}/conf/all/forwarding", family.sysctl()), 1)?;
                topology::add_address(&lo, outside(family)?.into())?;
            }
            topology::add_bridge(&bridge, GW_MAC)?;
            topology::set_up(&bridge)?;
            for family in Family::BOTH {
                let network: IpNet = NETWORK[family as usize].parse()?;
                topology::add_address(&bridge, IpNet::new(gateway(family)?, network.prefix_len())?)?;
            }
            Ok(find(&bridge)?.index)
        })?;
        Ok(Self { namespace, bridge: index, mac: GW_MAC })
    }

    /// Runs a wire to a node and listens there; the node's own addresses are behind it.
    fn connect(
        &self,
        port: &IfName,
        place: u8,
        node: &Netns,
        device: &IfName,
        mac: Mac,
        addresses: &[IpAddr],
    ) -> Result<Wire> {
        self.namespace.run(|| {
            let bridge = name("br0")?;
            topology::add_veth((port, Mac([0x02, 0, 0, 0, 0x01, place])), (device, mac), node)?;
            topology::join_bridge(port, &bridge)?;
            topology::set_up(port)?;
            for address in addresses {
                // NDP asks for addresses of the link's own devices only, so IPv6 needs to be told who is behind.
                let via = match address {
                    IpAddr::V4(_) => None,
                    IpAddr::V6(_) => Some(link_local(mac)?.into()),
                };
                topology::add_route((*address).into(), via, Some(&bridge))?;
            }
            Wire::listen(port)
        })
    }

    /// Whether an address answers the outside, until the deadline.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn ping(&self, destination: IpAddr, deadline: Instant) -> Result<bool> {
        let source = outside(Family::of(destination))?;
        self.namespace.run(|| PingSocket::new(source)?.ping(destination, deadline))
    }

    /// Where the router believes an address to be.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn neighbour(&self, address: IpAddr) -> Result<Option<Mac>> {
        self.namespace.run(|| inventory::neighbour(self.bridge, address))
    }
}

impl Node {
    fn build(number: usize, router: &Router, folder: &Path) -> Result<Self> {
        let label = ["node1", "node2"][number];
        let (namespace, device, mac) = (machine()?, name("eth1")?, DEV_MAC[number]);
        let [v4, v6] = Family::BOTH.map(|family| of(NODE_IP[number], family));
        let addresses = [v4?, v6?];
        namespace.run(|| addresses.iter().try_for_each(|it| topology::add_address(&name("lo")?, (*it).into())))?;
        let place = u8::try_from(number + 1)?;
        let wire = router.connect(&name(label)?, place, &namespace, &device, mac, &addresses)?;
        let mut settings = Settings::default();
        settings.state_dir = folder.join(label);
        let uplink = |family: Family| -> Result<Uplink> {
            Ok(Uplink {
                device: device.clone(),
                family,
                table: TABLE,
                gateway: Some(gateway(family)?),
                routes: vec![parse_net(NETWORK[family as usize])?],
                arp_ip: (family == Family::V4).then_some(ARP_IP),
                forwarding: true,
                proxy: true,
            })
        };
        let uplinks = [uplink(Family::V4)?, uplink(Family::V6)?];
        let (plans, before) = Default::default();
        Ok(Self { name: label, device, mac, addresses, namespace, settings, uplinks, wire, plans, before })
    }

    /// Makes a TAP, as KVM does before ifup.
    fn port(&self, tap: &IfName) -> Result<GuestPort> {
        self.namespace.run(|| GuestPort::open(tap, Mac([0x02, 0, 0, 0, 0x03, 0])))
    }

    /// NODE_IP.
    pub fn address(&self, family: Family) -> IpAddr {
        self.addresses[family as usize]
    }

    /// TAP_MAC.
    pub fn tap_mac(&self) -> Mac {
        self.settings.tap_constant_mac
    }

    /// `node up`, by the code of that command.
    ///
    /// # Errors
    /// Those of the command.
    pub fn up(&mut self) -> Result<()> {
        for (place, uplink) in self.uplinks.iter().enumerate() {
            self.plans[place] = self.namespace.run(|| {
                let plan = node::plan(uplink, &self.settings)?;
                node::up(uplink, &self.settings, &mut Log::default())?;
                Ok(plan)
            })?;
        }
        // Announcements and solicitations leave from its link-local address.
        self.namespace.run(|| await_link_local(&self.device))
    }

    /// `node down`.
    ///
    /// # Errors
    /// Those of the command.
    pub fn down(&self) -> Result<()> {
        let down = |family| node::down(&self.device, family, &self.settings, &mut Log::default());
        self.namespace.run(|| Family::BOTH.into_iter().try_for_each(down))
    }

    /// `ifup`, by the code of that command; returns what `plan` said before it. There must be no other thread.
    ///
    /// # Errors
    /// Those of the command.
    pub fn ifup(&self, raw: &RawNic, tap: &IfName) -> Result<Plan> {
        self.namespace.run(|| {
            let plan = nic::plan(raw, &self.settings)?;
            nic::ifup(raw, &self.settings, &mut Log::default())?;
            // This is the guest's router, to which a veth pair comes a moment later than a TAP.
            await_link_local(tap)?;
            Ok(plan)
        })
    }

    /// `ifdown`. There must be no other thread.
    ///
    /// # Errors
    /// Those of the command.
    pub fn ifdown(&self, raw: &RawNic) -> Result<()> {
        self.namespace.run(|| nic::ifdown(raw, &self.settings, &mut Log::default()))
    }

    /// Whether an address answers the node itself, until the deadline.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn ping(&self, destination: IpAddr, deadline: Instant) -> Result<bool> {
        let source = self.addresses[Family::of(destination) as usize];
        self.namespace.run(|| PingSocket::new(source)?.ping(destination, deadline))
    }

    /// The uplink's link-local address.
    ///
    /// # Errors
    /// None in practice.
    pub fn link_local(&self) -> Result<IpAddr> {
        Ok(link_local(self.mac)?.into())
    }

    /// What stands that did not before (with `+`), and what is missing (with `-`).
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn difference(&self) -> Result<Vec<String>> {
        Ok(difference(&self.before, &self.inventory()?))
    }

    /// Rules, routes, proxy entries, elements of our sets, links and their settings, and how often each is there.
    fn inventory(&self) -> Result<BTreeMap<String, usize>> {
        let lines = self.namespace.run(|| {
            let mut lines = inventory::lines()?;
            let mut nftables = Nftables::open()?;
            for interface in [&self.device, &name("tap0")?, &name("tap1")?] {
                for table in base::tables() {
                    for set in &table.sets {
                        let elements = nftables.elements_of(table.family, set, interface)?;
                        lines.extend(elements.iter().map(|it| format!("nft {it}")));
                    }
                }
                // A TAP that is not on this node.
                let Ok(link) = find(interface) else { continue };
                lines.push(format!("{interface}: mac {:?} mtu {} up {}", link.mac, link.mtu, link.up));
                for ((family, key, _), value) in DEVCONF.into_iter().zip(link.devconf) {
                    lines.push(format!("{}.conf.{interface}.{key} = {value:?}", family.sysctl()));
                }
            }
            for family in Family::BOTH {
                let family = family.sysctl();
                for setting in ["conf/all/forwarding", "conf/all/proxy_ndp", "conf/default/forwarding"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain(["eth1", "tap0", "tap1"].map(|it| format!("neigh/{it}/{PROXY_DELAY}")))
                {
                    let value = read_sysctl(&format!("/proc/sys/net/{family}/{setting}"));
                    lines.push(format!("{family}/{setting} = {value:?}"));
                }
            }
            Ok(lines)
        })?;
        let mut counted = BTreeMap::new();
        for line in lines {
            *counted.entry(line).or_default() += 1;
        }
        Ok(counted)
    }
}

/// What is more (`+`) or less (`-`) often there than before.
fn difference(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> Vec<String> {
    let count = |of: &BTreeMap<String, usize>, line: &String| of.get(line).copied().unwrap_or_default();
    let gone = before.keys().filter(|it| count(after, it) < count(before, it)).map(|it| format!("- {it}"));
    let new = after.keys().filter(|it| count(after, it) > count(before, it)).map(|it| format!("+ {it}"));
    gone.chain(new).collect()
}

/// A network namespace in which nothing of the host's own settings shows, and no time is spent on looking for duplicates
/// of addresses that are unique.
fn machine() -> Result<Netns> {
    let namespace = Netns::new()?;
    namespace.run(|| {
        for interface in ["all", "default"] {
            // New namespaces take the host's (net.core.devconf_inherit_init_net). The router leads to an address for which
            // a node without a default route of its own has none, so even the loose check would drop its packets.
            set_sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), 0)?;
            set_sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), 0)?;
        }
        set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
        PingSocket::allow()
    })?;
    Ok(namespace)
}

/// The link-local address of a MAC.
///
/// # Errors
/// None in practice: fe80::/64 is a /64.
pub fn link_local(mac: Mac) -> Result<Ipv6Addr> {
    mac.eui64(Ipv6Net::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64)?)
}

/// A guest on a node, whose NIC is not set up yet.
fn hosted(number: u8, node: &Node) -> Result<Hosted> {
    let tap = name(&format!("tap{number}"))?;
    let mac = Mac([0xaa, 0, 0, 0, 0, 2 + number]);
    let v4 = Ipv4Addr::new(10, 0, 0, 2 + number);
    let v6 = mac.eui64(NETWORK[1].parse()?)?;
    let variable = |name: &str| -> Option<String> {
        Some(match name {
            "INTERFACE" => tap.to_string(),
            "INTERFACE_INDEX" => "0".to_owned(),
            "INTERFACE_UUID" => format!("6dfa7b4c-1df5-4cbd-9e4e-00000000000{number}"),
            "INSTANCE" => format!("guest{number}"),
            "MAC" => mac.to_string(),
            "MODE" => "routed".to_owned(),
            "LINK" => TABLE.to_string(),
            "IP" => v4.to_string(),
            "NETWORK_NAME" => "demo".to_owned(),
            "NETWORK_TAGS" => "ip-less-routed".to_owned(),
            "NETWORK_SUBNET" => NETWORK[0].to_owned(),
            "NETWORK_GATEWAY" => GATEWAY[0].to_owned(),
            "NETWORK_SUBNET6" => NETWORK[1].to_owned(),
            "NETWORK_GATEWAY6" => GATEWAY[1].to_owned(),
            _ => return None,
        })
    };
    let raw = RawNic::from_variables(Unset::Empty, |name| variable(name).map(OsString::from))?;
    // On its link an IPv6 guest knows its router by the link-local address, which router advertisements come from.
    let router = link_local(node.tap_mac())?;
    let addresses = vec![
        Address { address: v4.into(), gateway: gateway(Family::V4)? },
        Address { address: v6.into(), gateway: router.into() },
    ];
    Ok(Hosted { guest: Guest::new(node.port(&tap)?, mac, addresses), tap, raw, plan: Plan::default() })
}

/// Tells threads to stop, whatever ends the work they were started for.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` while a guest answers what others ask of it. Its thread is gone afterwards: what forks must be alone.
///
/// # Errors
/// Those of `work`, and those of the guest's port.
pub fn while_serving<T>(guest: &mut Guest, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| guest.serve(&stop));
        let done = {
            let _stop = Stop(&stop);
            work()
        };
        server.join().map_err(|_| anyhow!("the guest panicked"))??;
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_tells_what_came_and_what_went() {
        let counted = |lines: &[(&str, usize)]| -> BTreeMap<String, usize> {
            lines.iter().map(|(line, count)| ((*line).to_owned(), *count)).collect()
        };
        let before = counted(&[("a", 1), ("b", 2), ("c", 1)]);
        assert!(difference(&before, &before).is_empty());
        assert_eq!(difference(&before, &counted(&[("a", 1), ("b", 1), ("d", 1)])), ["- b", "- c", "+ d"]);
        assert_eq!(difference(&before, &counted(&[("a", 2), ("b", 2), ("c", 1)])), ["+ a"]);
    }
}
