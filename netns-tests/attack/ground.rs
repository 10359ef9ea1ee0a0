//! A node every port of which is a file descriptor of the test: what a frame causes has happened when its write is done,
//! so nothing is waited for, and what did not arrive by then does not.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::context::{ATTACKER, BRIDGE, Context, LISTENING, ROUTER, STRANGER, VICTIM};
use crate::harness::Skip;
use crate::harness::frame::{self, ARP, IPV4, IPV6, Mac};
use crate::harness::guest::Identity;
use crate::harness::netns::Netns;
use crate::harness::nic::Nic;
use crate::harness::port::Port;
use crate::harness::topology::{Files, MANAGEMENT, MANAGEMENT6, Node, OUTSIDE, OUTSIDE6};

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

/// What became of a row's frames, a letter each, in this order:
///
/// - `V` the victim, `U` what is behind the uplink, `B` the bridge's own device, `S` the stranger, `M` the management
///   network: it received all of them;
/// - `H` the node's listening socket received one;
/// - `A` the node answered the attacker by ARP or neighbour discovery;
/// - `T` theft: a neighbour's next frame to another one arrives at the attacker;
/// - `N` the node believes another MAC for a neighbour than before, or an address of another's on the attacker's TAP;
/// - `R` the node would send another way than before.
pub type Seen = String;

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
    management: Option<Port>,
    listener: UdpSocket,
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

    /// Sends a row's frames from the attacker, and looks everywhere.
    pub fn attack(&self, frames: &[Vec<u8>]) -> Result<Seen> {
        if self.bridge.is_some() {
            self.teach()?;
        } else {
            self.restore_neighbours()?;
        }
        let routes = self.routes()?;
        self.empty();
        // The TAP refuses some; they arrive nowhere.
        for frame in frames {
            let _refused = self.attacker.send(frame);
        }
        let mut seen = self.arrived(frames);
        if self.attacker.drain().iter().any(|frame| is_answer(frame)) {
            seen.push('A');
        }
        if self.bridge.is_some() && self.theft()? {
            seen.push('T');
        }
        if self.neighbours_changed()? {
            seen.push('N');
            self.restore_neighbours()?;
        }
        if self.routes()? != routes {
            seen.push('R');
            self.node.netns.ip_batch("route flush cache\n-6 route flush cache\n-6 route flush proto ra\n")?;
        }
        Ok(seen)
    }

    /// By which way the node would send: to the outside of both families, and to where only a default route leads.
    fn routes(&self) -> Result<Vec<String>> {
        let batch = format!("route get {OUTSIDE}\nroute get {OUTSIDE6}\nroute get 2001:db8:dead::1\n");
        let text = self.node.netns.fed(Command::new("ip").args(["-batch", "-"]), &batch)?;
        Ok(text.lines().filter_map(|line| line.split_once(" src ")).map(|(way, _)| way.to_owned()).collect())
    }

    /// Forgets what has arrived anywhere.
    pub fn empty(&self) {
        for (_, port) in self.ports() {
            port.drain();
        }
        self.attacker.drain();
        while self.heard() {}
    }

    fn heard(&self) -> bool {
        let mut buffer = [0; 64];
        match self.listener.recv_from(&mut buffer) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }

    fn ports(&self) -> impl Iterator<Item = (char, &Port)> {
        let ports = [
            ('V', Some(&self.victim)),
            ('U', Some(&self.uplink)),
            ('B', self.bridge.as_ref()),
            ('S', self.stranger.as_ref()),
            ('M', self.management.as_ref()),
        ];
        ports.into_iter().filter_map(|(letter, port)| Some((letter, port?)))
    }

    /// Where all of the frames arrived since the last look.
    pub fn arrived(&self, frames: &[Vec<u8>]) -> Seen {
        let mut seen = Seen::new();
        for (letter, port) in self.ports() {
            let there = port.drain();
            if frames.iter().all(|frame| there.iter().any(|it| holds(it, frame))) {
                seen.push(letter);
            }
        }
        if self.heard() {
            seen.push('H');
        }
        seen
    }

    /// Lets everybody send a frame, so that the bridge knows again where they are.
    pub fn teach(&self) -> Result<()> {
        for (port, id) in [(&self.attacker, ATTACKER), (&self.victim, VICTIM), (&self.uplink, ROUTER)]
            .into_iter()
            .chain(self.stranger.as_ref().map(|port| (port, STRANGER)))
        {
            let announcement = frame::arp(1, (id.mac, id.ip), (Mac::ZERO, id.ip));
            port.send(&frame::ethernet(Mac::BROADCAST, id.mac, ARP, &announcement))?;
        }
        Ok(())
    }

    /// Does what another station behind the uplink sends to the victim and to the gateway arrive at the attacker?
    pub fn theft(&self) -> Result<bool> {
        let sent = [VICTIM, ROUTER].map(|to| {
            let echo = frame::echo_request(BYSTANDER.1.into(), to.ip.into(), 0x7e47, 1);
            frame::ethernet(to.mac, BYSTANDER.0, IPV4, &echo)
        });
        for frame in &sent {
            self.uplink.send(frame)?;
        }
        let stolen = self.attacker.drain();
        Ok(sent.iter().any(|frame| stolen.iter().any(|it| holds(it, frame))))
    }

    fn known(&self) -> [(std::net::IpAddr, Mac); 4] {
        let [a, b] = ROUTER.addresses();
        let [c, d] = VICTIM.addresses();
        [(a, ROUTER.mac), (b, ROUTER.mac), (c, VICTIM.mac), (d, VICTIM.mac)]
    }

    fn neighbours_changed(&self) -> Result<bool> {
        let text = self.node.netns.ip("neigh show")?;
        let entries = || text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        if self.bridge.is_some() {
            let wrong = |words: &[&str]| {
                let mac = words.iter().skip_while(|word| **word != "lladdr").nth(1);
                self.known()
                    .iter()
                    .any(|(ip, own)| words[0] == ip.to_string() && mac != Some(&own.to_string().as_str()))
            };
            return Ok(entries().any(|words| wrong(&words)));
        }
        let me = self.context.me;
        let own = [me.ip.to_string(), me.ip6.to_string(), me.mac.link_local().to_string(), PRIVATE.to_string()];
        Ok(entries().any(|words| {
            words.get(1..3) == Some(&["dev", "tap0"])
                && words.contains(&"lladdr")
                && !own.iter().any(|address| address == words[0])
        }))
    }

    fn restore_neighbours(&self) -> Result<()> {
        if self.bridge.is_none() {
            return self.node.netns.ip("neigh flush dev tap0").map(drop);
        }
        let own = (ATTACKER.ip.into(), ATTACKER.mac);
        let lines = self
            .known()
            .into_iter()
            .chain([own])
            .map(|(ip, mac)| format!("neigh replace {ip} lladdr {mac} dev br0 nud stale\n"));
        self.node.netns.ip_batch(&lines.collect::<String>())?;
        // The kernel does not overwrite an entry in the jiffy in which it was written.
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }

    /// Feeds `nft -f -`.
    pub fn nft(&self, ruleset: &str) -> Result<String> {
        self.node.netns.fed(Command::new("nft").args(["-f", "-"]), ruleset)
    }
}

/// A station behind the uplink, whose MAC nobody forges: by sending, it does not put right where others are.
const BYSTANDER: (Mac, std::net::Ipv4Addr) = (Mac([0xaa, 0x55, 0x6d, 0, 0, 5]), std::net::Ipv4Addr::new(10, 0, 0, 5));

/// See [`Context::private`].
const PRIVATE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5eed, 0xa5a5, 0x1234, 0x77);

/// Is what was sent in what was seen? Tags may be gone, and a router writes new Ethernet addresses and another hop limit.
pub fn holds(seen: &[u8], sent: &[u8]) -> bool {
    let essence = essence(sent);
    seen.windows(essence.len()).any(|window| window == essence)
}

/// Of a packet, what is from its source address on; of other frames, what is from their type on; of very short ones all.
fn essence(frame: &[u8]) -> &[u8] {
    let kind = |at: usize| frame.get(at..at + 2).map(|it| u16::from_be_bytes([it[0], it[1]]));
    let mut at = 12;
    while matches!(kind(at), Some(0x8100 | 0x88a8)) {
        at += 4;
    }
    let from = match kind(at) {
        Some(IPV4) => at + 14,
        Some(IPV6) => at + 10,
        _ => at,
    };
    frame.get(from..).filter(|it| it.len() >= 8).unwrap_or(frame)
}

/// An ARP reply or a neighbour advertisement.
fn is_answer(frame: &[u8]) -> bool {
    let kind = frame.get(12..14);
    kind == Some(&ARP.to_be_bytes()) && frame.get(20..22) == Some(&[0, 2])
        || kind == Some(&IPV6.to_be_bytes()) && frame.get(54) == Some(&136)
}
