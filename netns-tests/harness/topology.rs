//! The routed setup of the seed: an external router, one or two nodes on its wire, and a management network.

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use super::frame::{self, Mac};
use super::guest::{Guest, Identity};
use super::netns::Netns;
use super::nic::Nic;
use super::packet::{Content, Payload};
use super::port::{Capture, Port};
use super::{setting, until};

/// The router on the guests' network: GW_IP.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// And of IPv6.
pub const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
/// GW_MAC.
pub const GATEWAY_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// An address beyond the router.
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// And of IPv6.
pub const OUTSIDE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));
/// What the node's ARP requests on its uplink say for themselves: ARP_IP.
pub const ARP_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
/// TAP_MAC, the same on all nodes.
pub const TAP_MAC: Mac = Mac([0xcc, 0x47, 0x52, 0x4e, 0x45, 0x54]);
/// The router on the management network, which no guest must ever reach.
pub const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// And of IPv6.
pub const MANAGEMENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

/// How a site differs from the usual one.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// How many nodes.
    pub nodes: u8,
    /// Is the routed uplink of the nodes set up?
    pub uplink: bool,
    /// Is the uplink's link-local address checked for duplicates, and hence tentative at first?
    pub tentative: bool,
}

/// A router, its nodes and the management network.
pub struct Site {
    /// The external router.
    pub router: Netns,
    /// The node under test.
    pub node: Node,
    second: Option<Node>,
    /// The management network.
    pub management: Netns,
}

impl Site {
    /// With one node, its uplink set up.
    pub fn new() -> Result<Self> {
        Self::with(Wanted { nodes: 1, uplink: true, tentative: false })
    }

    /// Builds what is wanted.
    pub fn with(wanted: Wanted) -> Result<Self> {
        let router = Netns::new()?;
        router.set_sysctl("ipv4/ip_forward", "1")?;
        router.set_sysctl("ipv6/conf/all/forwarding", "1")?;
        router.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
        // It asks under its own address on the guests' network, whatever the packet's source.
        router.set_sysctl("ipv4/conf/all/arp_announce", "2")?;
        router.ip_batch(&format!(
            "link add lan address {GATEWAY_MAC} type bridge mcast_snooping 0\n\
             link set lan up\n\
             addr add {GATEWAY}/24 dev lan\n\
             addr add {GATEWAY6}/64 dev lan nodad\n\
             addr add {OUTSIDE}/32 dev lo\n\
             addr add {OUTSIDE6}/128 dev lo\n"
        ))?;
        let management = Netns::new()?;
        management.ip_batch(&format!(
            "link add lan type bridge mcast_snooping 0\n\
             link set lan up\n\
             addr add {MANAGEMENT}/24 dev lan\n\
             addr add {MANAGEMENT6}/64 dev lan nodad\n"
        ))?;
        let node = Node::new(1, &router, &management, wanted)?;
        let second = (wanted.nodes > 1).then(|| Node::new(2, &router, &management, wanted)).transpose()?;
        let site = Self { router, node, second, management };
        for node in [Some(&site.node), site.second.as_ref()].into_iter().flatten() {
            node.settled("eth0")?;
            if wanted.uplink && !wanted.tentative {
                node.settled("eth1")?;
            }
        }
        Ok(site)
    }

    /// The second node.
    ///
    /// # Errors
    /// If only one was wanted.
    pub fn second(&self) -> Result<&Node> {
        self.second.as_ref().context("a second node was not wanted")
    }

    /// What passes between the router and the nodes.
    pub fn wire(&self) -> Result<Capture> {
        Capture::on(&self.router, "lan")
    }
}

/// A Ganeti node: `eth0` to the management network, with the default route of table main; `eth1` to the router,
/// without any IPv4 address.
pub struct Node {
    /// Its namespace.
    pub netns: Netns,
    /// Its number, from 1.
    pub number: u8,
    /// Its files: settings, state, log, nfdhcpd's bindings.
    pub files: Files,
}

impl Node {
    fn new(number: u8, router: &Netns, management: &Netns, wanted: Wanted) -> Result<Self> {
        let netns = Netns::new()?;
        if !wanted.tentative {
            netns.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
        }
        // New namespaces may take these from the machine's own.
        for name in ["all", "default"] {
            netns.set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), "0")?;
        }
        netns.ip_batch(&format!(
            "link add eth0 address {eth0} type veth peer name node{number} netns {management}\n\
             link add eth1 address {eth1} type veth peer name node{number} netns {router}\n\
             link set eth0 up\n\
             addr add 192.0.2.1{number}/24 dev eth0\n\
             addr add 2001:db8:2::1{number}/64 dev eth0 nodad\n\
             route add default via {MANAGEMENT} dev eth0\n\
             route add default via {MANAGEMENT6} dev eth0\n",
            eth0 = Mac([2, 0, 0, 0, 0, number]),
            eth1 = uplink_mac(number),
            management = management.path(),
            router = router.path(),
        ))?;
        for outside in [router, management] {
            outside.ip(&format!("link set node{number} up master lan addrgenmode none"))?;
        }
        let node = Self { netns, number, files: Files::new()? };
        if wanted.uplink {
            node.uplink_up()?;
        }
        Ok(node)
    }

    /// One with nothing around it and no uplink, for bridges.
    pub fn alone() -> Result<Self> {
        let netns = Netns::new()?;
        for name in ["all", "default"] {
            netns.set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), "0")?;
        }
        Ok(Self { netns, number: 1, files: Files::new()? })
    }

    /// Sets the routed uplink up by the program, for both families.
    pub fn uplink_up(&self) -> Result<()> {
        for command in [Self::UPLINK, Self::UPLINK6] {
            self.files.run(&self.netns, &["node", "up"], command)?.succeeds()?;
        }
        Ok(())
    }

    /// The options of `node up` and `node down` for IPv4.
    pub const UPLINK: &str = "--dev eth1 --table 100 --gateway 10.0.0.1 --routes 10.0.0.0/24 --arp-ip 10.0.0.254";
    /// And for IPv6.
    pub const UPLINK6: &str = "--dev eth1 --table 100 --gateway 2001:db8:1::1 --routes 2001:db8:1::/64";

    /// Waits for what comes by itself after a link went up: its carrier, then its link-local address.
    pub fn settled(&self, interface: &str) -> Result<()> {
        until(&format!("the link-local address of {interface}"), || {
            Ok(self.netns.ip(&format!("-6 addr show dev {interface} scope link -tentative"))?.contains("inet6 fe80::"))
        })
    }

    /// DEV_MAC.
    pub fn uplink_mac(&self) -> Mac {
        uplink_mac(self.number)
    }

    /// What passes this node's uplink, both ways.
    pub fn wire(&self) -> Result<Capture> {
        Capture::on(&self.netns, "eth1")
    }

    /// A new guest's card.
    pub fn plug(&self, tap: &str, id: Identity) -> Result<Guest> {
        Guest::plug(&self.netns, tap, id)
    }

    /// Takes a guest's card away, as the end of its KVM does, and waits until the interface is gone.
    pub fn unplug(&self, guest: Guest, tap: &str) -> Result<()> {
        drop(guest);
        until(&format!("{tap} to be gone"), || Ok(self.netns.ip(&format!("link show dev {tap}")).is_err()))
    }

    /// A NIC in the ip-less-routed network, as Ganeti would hand it to the program.
    pub fn nic(&self, tap: &str, id: Identity) -> Nic<'_> {
        Nic::routed(self, tap, id)
    }

    /// In nfdhcpd's place: answers the solicitations of a routed guest, for all addresses but its own, for as long as this lives.
    pub fn answers_solicitations(&self, tap: &str, id: Identity) -> Result<Capture> {
        let port = Arc::new(Port::packet(&self.netns, tap, false)?);
        Capture::of(port, tap, move |packet| match packet.content {
            Content::Ipv6(from, _, _, Payload::NeighbourSolicitation(target, _)) if target != id.ip6 => {
                Some(frame::neighbour_advertisement((TAP_MAC, target), (packet.source, from), 0xe0))
            }
            _ => None,
        })
    }

    /// A guest's card whose NIC has been set up.
    pub fn guest(&self, tap: &str, id: Identity) -> Result<Guest> {
        let guest = self.plug(tap, id)?;
        self.nic(tap, id).ifup()?.succeeds()?;
        Ok(guest)
    }
}

fn uplink_mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, number])
}

/// A folder of its own for a node's files.
pub struct Files {
    /// The folder.
    pub folder: PathBuf,
}

impl Files {
    /// A fresh one, with settings that lead into it.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("netns-{}-{number}", process::id()));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let files = Self { folder };
        for path in [files.state(), files.bindings()] {
            fs::create_dir(&path).with_context(|| path.display().to_string())?;
        }
        fs::write(
            files.settings(),
            format!(
                "STATE_DIR={}\nLOGFILE={}\nNFDHCPD_STATE_DIR={}\n{}",
                files.state().display(),
                files.log().display(),
                files.bindings().display(),
                setting::line()
            ),
        )?;
        Ok(files)
    }

    /// STATE_DIR.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// How many records a file of STATE_DIR holds.
    pub fn records(&self, file: &str) -> Result<usize> {
        let text = fs::read_to_string(self.state().join(file)).with_context(|| file.to_owned())?;
        Ok(text.matches("# snf-network record").count())
    }

    /// LOGFILE.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// NFDHCPD_STATE_DIR.
    pub fn bindings(&self) -> PathBuf {
        self.folder.join("nfdhcpd")
    }

    /// The settings file.
    pub fn settings(&self) -> PathBuf {
        self.folder.join("settings")
    }

    /// Adds a line to the settings.
    pub fn set(&self, line: &str) -> Result<()> {
        let text = fs::read_to_string(self.settings())?;
        fs::write(self.settings(), format!("{text}{line}\n")).context("settings")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // An announcer may still be writing its last log line; a folder left behind in target/ harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
