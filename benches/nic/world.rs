//! A node in a namespace of its own, with an uplink or bridges, and a number of NICs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use snf_network::addr::{IfName, Mac};
use snf_network::kernel::address::usable_link_local;
use snf_network::kernel::guest_port::GuestPort;
use snf_network::kernel::namespace::Netns;

use super::binaries::Binaries;
use super::runs::Contestant;

/// How a NIC is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The tag ip-less-routed, IPv4 and IPv6.
    Routed,
    /// The same with ROUTING=rule, which is not the default.
    ByRule,
    /// The tag private-filtered.
    Filtered,
    /// The tags private-filtered and strict-filtered.
    Strict,
    /// No tag: a port of a bridge.
    Bridged,
}

impl Setup {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Routed, Self::ByRule, Self::Filtered, Self::Strict, Self::Bridged];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Routed => "ip-less-routed",
            Self::ByRule => "ip-less-routed, ROUTING=rule",
            Self::Filtered => "private-filtered",
            Self::Strict => "strict-filtered",
            Self::Bridged => "bridged",
        }
    }

    /// What to say behind the program's name where several are shown.
    pub fn variant(self) -> &'static str {
        if self == Self::ByRule { " by rule" } else { "" }
    }

    /// Whether it is a routed one.
    pub fn is_routed(self) -> bool {
        matches!(self, Self::Routed | Self::ByRule)
    }

    fn tags(self) -> &'static str {
        match self {
            Self::Routed | Self::ByRule => "ip-less-routed",
            Self::Filtered => "private-filtered",
            Self::Strict => "private-filtered strict-filtered",
            Self::Bridged => "",
        }
    }
}

/// NICs of one bridge: it has at most 1023 ports.
const PORTS: u16 = 1000;
/// More than duplicate address detection takes, which begins within a second and ends one later (RFC 4862, section 5.4).
const DETECTION: Duration = Duration::from_secs(5);
/// Between two looks.
const POLL: Duration = Duration::from_millis(10);
/// The guests' router.
pub const GATEWAY: &str = "10.0.255.1";
/// And of IPv6.
pub const GATEWAY6: &str = "2001:db8:1::1";
/// The network of the guests.
pub const SUBNET: &str = "10.0.0.0/16";
/// And of IPv6.
pub const SUBNET6: &str = "2001:db8:1::/64";
/// The uplink's MAC.
pub const UPLINK_MAC: &str = "02:00:00:00:01:01";
/// The router's.
pub const ROUTER_MAC: &str = "02:00:00:00:01:02";

/// A NIC by its number; number 0 is the one that comes and goes.
#[derive(Clone, Copy)]
pub struct Number(pub u16);

impl Number {
    /// The TAP.
    pub fn tap(self) -> String {
        format!("tap{}", self.0)
    }

    /// The guest's MAC.
    pub fn mac(self) -> Mac {
        let [high, low] = self.0.to_be_bytes();
        Mac([0xaa, 0x55, 0x60, 0, high, low])
    }

    /// The guest's address.
    pub fn address(self) -> String {
        format!("10.0.{}.{}", self.0 / 250, self.0 % 250 + 2)
    }

    /// The guest's IPv6 address.
    pub fn address6(self) -> String {
        let [high, low] = self.0.to_be_bytes();
        format!("2001:db8:1::a855:60ff:fe00:{high:x}{low:02x}")
    }

    /// The bridge that it is a port of.
    pub fn bridge(self) -> String {
        format!("prv{}", self.0 / PORTS)
    }
}

/// A node.
pub struct World {
    /// Its namespace.
    pub namespace: Netns,
    /// The router's, at the far end of the uplink.
    pub router: Netns,
    /// How its NICs are connected.
    pub setup: Setup,
    /// How many there are beside number 0.
    pub nics: u16,
    /// How long their ifups took, one after the other.
    pub built_in: Duration,
    /// The guest of number 0.
    pub guest: GuestPort,
    settings: PathBuf,
}

impl World {
    /// A node with this many NICs, set up by the program, and the TAP of one more.
    ///
    /// # Errors
    /// If anything fails.
    pub fn build(setup: Setup, nics: u16, folder: &Path, binaries: &Binaries) -> Result<Self> {
        let world = Self::without_nics(setup, nics, folder)?;
        if setup.is_routed() {
            for (gateway, subnet) in [(GATEWAY, SUBNET), (GATEWAY6, SUBNET6)] {
                let words = ["node", "up", "--dev", "eth1", "--table", "100", "--gateway", gateway, "--routes", subnet];
                let words = words.map(str::to_owned);
                let command = [binaries.program.clone()].into_iter().chain(words).collect();
                Contestant { namespace: &world.namespace, command, variables: world.variables(Number(0)) }.run()?;
            }
        }
        let taps: String = (1..=nics).map(|n| format!("tuntap add {} mode tap\n", Number(n).tap())).collect();
        ip(&world.namespace, &taps)?;
        let mut built_in = Duration::ZERO;
        for number in 1..=nics {
            built_in += world.program(binaries, "ifup", Number(number)).run()?.time;
        }
        Ok(Self { built_in, ..world })
    }

    /// A node with an uplink or bridges, and one TAP.
    ///
    /// # Errors
    /// If anything fails.
    pub fn without_nics(setup: Setup, nics: u16, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let settings = folder.join("settings");
        let routing = if setup == Setup::ByRule { "ROUTING=rule\n" } else { "" };
        fs::write(&settings, format!("STATE_DIR='{0}/state'\nLOGFILE='{0}/log'\n{routing}", folder.display()))?;
        let (namespace, router) = (Netns::new()?, Netns::new()?);
        let text = if setup.is_routed() {
            String::new()
        } else {
            (0..=nics / PORTS)
                .map(|n| format!("link add prv{n} type bridge mcast_snooping 0\nlink set prv{n} up\n"))
                .collect()
        };
        // The node's own network, as every node has one: the kernel looks through all interfaces for an address.
        wire(&namespace, ("eth0", "02:00:00:00:02:01"), &router, ("management", "02:00:00:00:02:02"))?;
        ip(&namespace, "address add 192.0.2.10/24 dev eth0\n")?;
        if setup.is_routed() {
            wire(&namespace, ("eth1", UPLINK_MAC), &router, ("lan", ROUTER_MAC))?;
            namespace.run(|| await_link_local("eth1"))?;
        }
        ip(&namespace, &text)?;
        let guest = namespace.run(|| GuestPort::open(&Number(0).tap().parse()?, Number(0).mac()))?;
        Ok(Self { namespace, router, setup, nics, built_in: Duration::ZERO, guest, settings })
    }

    /// The program with one of the NICs.
    pub fn program(&self, binaries: &Binaries, verb: &str, number: Number) -> Contestant<'_> {
        let command = vec![binaries.program.clone(), verb.to_owned()];
        Contestant { namespace: &self.namespace, command, variables: self.variables(number) }
    }

    /// Another command.
    pub fn command(&self, words: &[&str]) -> Contestant<'_> {
        let command = words.iter().map(|it| (*it).to_owned()).collect();
        let variables = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
        let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        Contestant { namespace: &self.namespace, command, variables }
    }

    /// Ganeti's variables of a NIC.
    fn variables(&self, number: Number) -> Vec<(String, String)> {
        let mut variables = vec![
            ("SNF_NETWORK_DEFAULTS", self.settings.display().to_string()),
            ("INTERFACE", number.tap()),
            ("INTERFACE_INDEX", "0".to_owned()),
            ("INTERFACE_UUID", format!("c0ffee-{}", number.0)),
            ("INSTANCE", format!("web{}.example.org", number.0)),
            ("MAC", number.mac().to_string()),
            ("NETWORK_TAGS", self.setup.tags().to_owned()),
        ];
        let (mode, link) = match self.setup {
            Setup::Routed | Setup::ByRule => ("routed", "100".to_owned()),
            _ => ("bridged", number.bridge()),
        };
        variables.extend([("MODE", mode.to_owned()), ("LINK", link)]);
        let fixed = |key, value: &str| (key, value.to_owned());
        if self.setup.is_routed() || self.setup == Setup::Strict {
            variables.extend([
                ("IP", number.address()),
                fixed("NETWORK_SUBNET", SUBNET),
                fixed("NETWORK_GATEWAY", GATEWAY),
                fixed("NETWORK_SUBNET6", SUBNET6),
                fixed("NETWORK_GATEWAY6", GATEWAY6),
            ]);
        }
        if matches!(self.setup, Setup::Filtered | Setup::Strict) {
            variables.push(fixed("NETWORK_MAC_PREFIX", "aa:55:60"));
        }
        variables.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// Waits until a device has a link-local address that is not tentative: before, advertisements are left to the detached process.
fn await_link_local(device: &str) -> Result<()> {
    let (index, deadline) = (if_nametoindex(device)?, Instant::now() + DETECTION);
    loop {
        match usable_link_local(index, deadline) {
            // It has none until the kernel has seen the carrier.
            Err(_) if Instant::now() < deadline => sleep(POLL),
            done => return done.map(drop),
        }
    }
}

/// A veth pair from the node to the router, who answers for the gateway's addresses: the name and MAC of each end.
fn wire(node: &Netns, near: (&str, &str), router: &Netns, far: (&str, &str)) -> Result<()> {
    let (near_name, far_name): (IfName, IfName) = (near.0.parse()?, far.0.parse()?);
    node.run(|| {
        snf_network::kernel::topology::add_veth((&near_name, near.1.parse()?), (&far_name, far.1.parse()?), router)
    })?;
    ip(node, &format!("link set {near_name} up\n"))?;
    ip(router, &format!("link set {far_name} up\n"))
}

/// Runs `ip -batch` in a namespace.
///
/// # Errors
/// If it fails.
pub fn ip(namespace: &Netns, lines: &str) -> Result<()> {
    feed(namespace, &["ip", "-batch", "-"], lines)
}

/// Runs a command in a namespace with this standard input.
///
/// # Errors
/// If it fails.
pub fn feed(namespace: &Netns, words: &[&str], text: &str) -> Result<()> {
    use std::io::Write;
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = namespace.run(|| command.spawn().with_context(|| words[0].to_owned()))?;
    child.stdin.take().context("standard input")?.write_all(text.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "{words:?}: {status}");
    Ok(())
}
