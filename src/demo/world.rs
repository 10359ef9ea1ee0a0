//! The demo's world: an external router, two nodes on its link, and two guests, each machine a network namespace.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use ipnet::{IpNet, Ipv6Net};

use super::guest::{Address, Guest};
use super::node::Node;
use super::wire::Wire;
use crate::addr::{Family, IfName, Mac};
use crate::environment::{RawNic, Unset};
use crate::kernel::address::find;
use crate::kernel::guest_port::GuestPort;
use crate::kernel::namespace::{Netns, set_sysctl};
use crate::kernel::ping::PingSocket;
use crate::kernel::{observed, topology};
use crate::object::Plan;

/// What should come comes in milliseconds; only a failure takes this long.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks at what the kernel tells nobody unasked.
const POLL: Duration = Duration::from_millis(5);

/// The seed's names, per family: GW_IP, an address that is only reached through the router, and the network.
pub const GATEWAY: [&str; 2] = ["10.0.0.1", "2001:db8:1::1"];
const OUTSIDE: [&str; 2] = ["198.51.100.1", "2001:db8:ffff::1"];
pub(super) const NETWORK: [&str; 2] = ["10.0.0.0/24", "2001:db8:1::/64"];
/// NODE_IP of each node: an address of its own, outside of the guests' network.
pub(super) const NODE_IP: [[&str; 2]; 2] = [["192.0.2.11", "2001:db8:2::11"], ["192.0.2.12", "2001:db8:2::12"]];
/// ARP_IP.
pub const ARP_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
/// TABLE.
pub(super) const TABLE: u32 = 100;
/// GW_MAC, and DEV_MAC of each node.
const GW_MAC: Mac = Mac([0x02, 0, 0, 0, 0x01, 0]);
pub(super) const DEV_MAC: [Mac; 2] = [Mac([0x02, 0, 0, 0, 0x02, 0x01]), Mac([0x02, 0, 0, 0, 0x02, 0x02])];

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

/// Waits until the addresses are this host's: IPv6 makes their routes a moment after it has taken them.
pub(super) fn settle(addresses: &[IpAddr]) -> Result<()> {
    let there = becomes_true(|| {
        let lines = observed::lines()?;
        let local = |it: &IpAddr| lines.iter().any(|line| line.contains(&format!("route local {it}/")));
        Ok(addresses.iter().all(local))
    })?;
    ensure!(there, "no local routes to {addresses:?}");
    Ok(())
}

pub(super) fn name(text: &str) -> Result<IfName> {
    text.parse()
}

/// One of a pair of constants.
pub(super) fn of(pair: [&str; 2], family: Family) -> Result<IpAddr> {
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
            node.remember()?;
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
            // What comes from further away than this router's own lo would make it ask in its own name; so shall these.
            set_sysctl(&format!("net/ipv4/conf/{bridge}/arp_announce"), 2)?;
            for family in Family::BOTH {
                let network: IpNet = NETWORK[family as usize].parse()?;
                topology::add_address(&bridge, IpNet::new(gateway(family)?, network.prefix_len())?)?;
            }
            settle(&[gateway(Family::V6)?, outside(Family::V6)?])?;
            Ok(find(&bridge)?.index)
        })?;
        Ok(Self { namespace, bridge: index, mac: GW_MAC })
    }

    /// Runs a wire to a node and listens there; the node's own addresses are behind it.
    pub(super) fn connect(
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
                // The node answers neither ARP nor NDP here for addresses of its other interfaces, so the router is told who has them.
                let via = match address {
                    IpAddr::V4(_) => {
                        topology::add_neighbour(*address, mac, &bridge)?;
                        None
                    }
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
        self.namespace.run(|| observed::neighbour(self.bridge, address))
    }
}

/// A network namespace in which nothing of the host's own settings shows, and no time is spent on looking for duplicates
/// of addresses that are unique.
pub(super) fn machine() -> Result<Netns> {
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
            "INSTANCE" => format!("vm{number}"),
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
