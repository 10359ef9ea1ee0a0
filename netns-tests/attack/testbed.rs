//! A node every port of which is a file descriptor of the test: what a frame causes has happened when its write is done,
//! so nothing is waited for, and what did not arrive by then does not.

use std::fs;
use std::net::{Ipv6Addr, UdpSocket};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::context::{ATTACKER, BRIDGE, Context, LISTENING, ROUTER, STRANGER, VICTIM};
use crate::harness::Skip;
use crate::harness::frame::Mac;
use crate::harness::guest::Identity;
use crate::harness::netns::Netns;
use crate::harness::nic::Nic;
use crate::harness::port::Port;
use crate::harness::topology::{Files, MANAGEMENT, MANAGEMENT6, Node, OUTSIDE6};

/// How the NICs of a bridge are set up: the columns of the bridged verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridged {
    /// No tag: a mere port.
    Plain,
    /// `private-filtered`.
    Filtered,
    /// `strict-filtered`.
    Strict,
    /// Both.
    StrictFiltered,
}

impl Bridged {
    /// NETWORK_TAGS.
    pub fn tags(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Filtered => "private-filtered",
            Self::Strict => "strict-filtered",
            Self::StrictFiltered => "private-filtered strict-filtered",
        }
    }
}

/// Which families the attacker's NIC has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// No NETWORK_SUBNET6.
    OnlyV4,
    /// No IP.
    OnlyV6,
}

/// The node and everything around it.
pub struct Ground {
    /// The node.
    pub node: Node,
    /// The attacker's card; its TAP is `tap0`.
    pub attacker: Port,
    /// The victim's, `tap1`.
    pub victim: Port,
    /// The stranger's, `tap2`, on bridges.
    pub stranger: Option<Port>,
    /// The wire behind `eth1`.
    pub uplink: Port,
    /// What `br0` receives, on bridges.
    pub bridge: Option<Port>,
    /// The wire behind `eth0`, where the node routes.
    pub management: Option<Port>,
    /// The node's socket on port 9.
    pub listener: UdpSocket,
    /// What the builders of frames know.
    pub context: Context,
}

/// A card, or why there is none on this machine.
pub fn tap(netns: &Netns, name: &str) -> Result<Port> {
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        return Err(Skip(format!("/dev/net/tun: {error}")).into());
    }
    Port::tap(netns, name)
}

fn node() -> Result<Node> {
    let netns = Netns::new()?;
    netns.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
    for name in ["all", "default"] {
        netns.set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), "0")?;
    }
    Ok(Node { netns, number: 1, files: Files::new()? })
}

/// Lets iptables, ip6tables and arptables see what is bridged, or not. Says whether the kernel can.
pub fn br_netfilter(netns: &Netns, on: bool) -> Result<bool> {
    for name in ["iptables", "ip6tables", "arptables"] {
        let name = format!("bridge/bridge-nf-call-{name}");
        if netns.sysctl(&name).is_err() {
            return Ok(false);
        }
        netns.set_sysctl(&name, if on { "1" } else { "0" })?;
    }
    Ok(true)
}

fn listener(netns: &Netns) -> Result<UdpSocket> {
    let socket = netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, LISTENING))).context("listen on the node")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A NIC of one of the three, as Ganeti would hand it to the program.
pub fn nic<'a>(node: &'a Node, tap: &str, id: Identity) -> Nic<'a> {
    let [.., last] = id.mac.0;
    let [a, b, c, ..] = id.mac.0;
    Nic::routed(node, tap, id)
        .set("INTERFACE_UUID", format!("0c2a1a4e-0000-4000-8000-0000000000{last:02x}"))
        .set("NETWORK_MAC_PREFIX", format!("{a:02x}:{b:02x}:{:02x}", c & 0xf0))
}

/// A NIC on the bridge.
pub fn bridged_nic<'a>(node: &'a Node, tap: &str, id: Identity, tags: &str) -> Nic<'a> {
    nic(node, tap, id).bridged("br0").set("NETWORK_TAGS", tags)
}

impl Families {
    fn of(self, nic: Nic<'_>) -> Nic<'_> {
        match self {
            Self::Both => nic,
            Self::OnlyV4 => nic.only_v4(),
            Self::OnlyV6 => nic.only_v6(),
        }
    }
}

impl Ground {
    /// A bridge with three guests and an uplink, no NIC set up yet. It passes on all that a bridge can be told to.
    pub fn bridge() -> Result<Self> {
        let node = node()?;
        let netns = &node.netns;
        let ports = ["tap0", "tap1", "tap2", "eth1"].map(|name| tap(netns, name));
        let [attacker, victim, stranger, uplink] = ports;
        netns.ip_batch(&format!(
            "link add br0 address {} type bridge mcast_snooping 0 group_fwd_mask 0xfff8\n\
             link set br0 up\n\
             addr add {}/24 dev br0\n\
             addr add {}/64 dev br0 nodad\n\
             link set eth1 up master br0 addrgenmode none\n\
             route add default via {} dev br0\n\
             -6 route add {OUTSIDE6}/64 via {} dev br0\n\
             -6 route add default dev lo metric 9999\n",
            BRIDGE.mac,
            BRIDGE.ip,
            BRIDGE.ip6,
            ROUTER.ip,
            ROUTER.mac.link_local(),
        ))?;
        netns.set_sysctl("ipv4/neigh/br0/locktime", "0")?;
        // As careless as a node can be: it believes redirects to anywhere.
        for name in ["all", "br0"] {
            netns.set_sysctl(&format!("ipv4/conf/{name}/secure_redirects"), "0")?;
        }
        br_netfilter(netns, false)?;
        let ground = Self {
            bridge: Some(Port::packet(netns, "br0", false)?),
            listener: listener(netns)?,
            attacker: attacker?,
            victim: victim?,
            stranger: Some(stranger?),
            uplink: uplink?,
            management: None,
            context: Context {
                me: ATTACKER,
                victim: VICTIM,
                gateway: ROUTER,
                node: BRIDGE,
                stranger: STRANGER,
                private: PRIVATE,
                router: None,
            },
            node,
        };
        ground.restore_neighbours()?;
        Ok(ground)
    }

    /// The bridge with all NICs set up.
    pub fn bridged(setup: Bridged, families: Families) -> Result<Self> {
        let ground = Self::bridge()?;
        families.of(ground.nic("tap0", ATTACKER, setup)).ifup()?.succeeds()?;
        for (tap, id) in [("tap1", VICTIM), ("tap2", STRANGER)] {
            ground.nic(tap, id, setup).ifup()?.succeeds()?;
        }
        Ok(ground)
    }

    /// A NIC on this bridge.
    pub fn nic(&self, tap: &str, id: Identity, setup: Bridged) -> Nic<'_> {
        bridged_nic(&self.node, tap, id, setup.tags())
    }

    /// A routing node, its uplink set up, and two ip-less-routed guests.
    pub fn routed(families: Families) -> Result<Self> {
        let node = node()?;
        let netns = &node.netns;
        let [attacker, victim, uplink, management] = ["tap0", "tap1", "eth1", "eth0"].map(|name| tap(netns, name));
        netns.ip_batch(&format!(
            "link set eth0 address 02:00:00:00:00:01 up\n\
             link set eth1 address {uplink} addrgenmode none\n\
             addr add 192.0.2.11/24 dev eth0\n\
             addr add 2001:db8:2::11/64 dev eth0 nodad\n\
             route add default via {MANAGEMENT} dev eth0\n\
             route add default via {MANAGEMENT6} dev eth0\n",
            uplink = node.uplink_mac(),
        ))?;
        node.uplink_up()?;
        families.of(nic(&node, "tap0", ATTACKER)).ifup()?.succeeds()?;
        nic(&node, "tap1", VICTIM).ifup()?.succeeds()?;
        // As some administrators need it for what they redirect.
        netns.set_sysctl("ipv4/conf/tap0/route_localnet", "1")?;
        let lines = [
            ("eth0", MANAGEMENT.into(), Mac([2, 0, 0, 0, 0, 1])),
            ("eth0", MANAGEMENT6.into(), Mac([2, 0, 0, 0, 0, 1])),
            ("eth1", ROUTER.addresses()[0], ROUTER.mac),
            ("eth1", ROUTER.addresses()[1], ROUTER.mac),
            ("tap1", VICTIM.addresses()[0], VICTIM.mac),
            ("tap1", VICTIM.addresses()[1], VICTIM.mac),
        ]
        .map(|(device, address, mac): (_, std::net::IpAddr, _)| {
            format!("neigh replace {address} lladdr {mac} dev {device} nud permanent\n")
        });
        netns.ip_batch(&lines.concat())?;
        let octets = netns.mac_of("tap0")?;
        let mut router = Mac::ZERO;
        for (byte, text) in router.0.iter_mut().zip(octets.split(':')) {
            *byte = u8::from_str_radix(text, 16)?;
        }
        let context = Context {
            me: ATTACKER,
            victim: VICTIM,
            gateway: ROUTER,
            node: Identity {
                name: BRIDGE.name,
                mac: router,
                ip: [192, 0, 2, 11].into(),
                ip6: Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11),
            },
            stranger: STRANGER,
            private: PRIVATE,
            router: Some(router),
        };
        Ok(Self {
            listener: listener(netns)?,
            attacker: attacker?,
            victim: victim?,
            stranger: None,
            uplink: uplink?,
            bridge: None,
            management: Some(management?),
            context,
            node,
        })
    }

    /// The same without any filter.
    pub fn routed_unfiltered() -> Result<Self> {
        let ground = Self::routed(Families::Both)?;
        let tables = ground.node.netns.output(Command::new("nft").args(["list", "tables"]))?;
        for table in tables.lines().filter(|table| table.ends_with("snf-network")) {
            ground.nft(&format!("delete {table}"))?;
        }
        Ok(ground)
    }

    /// Feeds `nft -f -`.
    pub fn nft(&self, ruleset: &str) -> Result<String> {
        self.node.netns.fed(Command::new("nft").args(["-f", "-"]), ruleset)
    }
}

/// See [`Context::private`].
const PRIVATE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5eed, 0xa5a5, 0x1234, 0x77);
