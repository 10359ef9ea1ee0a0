//! A NIC as the whole program knows it: Ganeti's variables, checked and typed.

mod endpoint;
mod mode;
mod tag_check;
mod tags;

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

pub use self::endpoint::Endpoint;
pub use self::mode::{Mode, Vlan};
pub use self::tag_check::{TagFault, tag_faults};
use self::tags::InstanceTags;
pub use self::tags::Profile;
use crate::addr::{Family, IfName, Mac, MacMask, is_domain_name};
use crate::environment::RawNic;
use crate::printable::{is_printable, quoted};
use crate::settings::{Settings, Setup, Setups};

/// What says whose NIC it is: all that tearing one down needs of the variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// INTERFACE.
    pub interface: IfName,
    /// INTERFACE_UUID.
    pub uuid: Option<String>,
    /// INSTANCE, a host name; whoever takes a NIC down by hand may leave it out.
    pub instance: Option<String>,
}

impl Identity {
    /// Checks INTERFACE, INTERFACE_UUID and INSTANCE.
    ///
    /// # Errors
    /// As [`Nic::new`].
    pub fn new(raw: &RawNic) -> Result<Self> {
        let interface = parse("INTERFACE", required("INTERFACE", &raw.interface, "expected the TAP's name")?)?;
        let uuid = raw.interface_uuid.as_deref();
        if let Some(uuid) = uuid {
            let of_uuids = |b: u8| b.is_ascii_hexdigit() || b == b'-';
            let fits = uuid.len() <= 64 && uuid.bytes().all(of_uuids);
            ensure!(fits, "INTERFACE_UUID {}: expected a UUID: hexadecimal digits and -", quoted(uuid));
        }
        let instance = raw.instance.as_deref();
        if let Some(instance) = instance {
            ensure!(is_domain_name(instance), "INSTANCE {}: expected a host name", quoted(instance));
        }
        Ok(Self { interface, uuid: uuid.map(str::to_owned), instance: instance.map(str::to_owned) })
    }
}

/// The half of a live migration that a NIC is configured for (MIGRATION_PHASE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPhase {
    /// Before the memory moves: the guest still runs elsewhere.
    Pre,
    /// After it.
    Post,
}

/// One NIC. Everything in it may be printed as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The TAP on the node (INTERFACE).
    pub interface: IfName,
    /// Place among the instance's NICs (INTERFACE_INDEX).
    pub index: Option<u32>,
    /// INTERFACE_UUID.
    pub uuid: Option<String>,
    /// INSTANCE, a host name.
    pub instance: String,
    /// The guest's MAC; unicast.
    pub mac: Mac,
    /// How it is connected (MODE, LINK, BRIDGE, VLAN).
    pub mode: Mode,
    /// What the network's tags select (NETWORK_TAGS).
    pub setups: Setups,
    /// What the instance's tags select to protect it (TAGS).
    pub firewall: Option<Profile>,
    /// The instance's tags that hold nothing but ASCII letters, digits and `_.+*/:@-`, between single spaces. Others
    /// can select nothing of ours, and no file of ours is to carry them.
    pub tags: String,
    /// MIGRATION_PHASE.
    pub migration_phase: Option<MigrationPhase>,
    /// The first octets of all MACs of the network (NETWORK_MAC_PREFIX).
    pub mac_prefix: Option<[u8; 3]>,
    /// IPv4's, IPv6's.
    endpoints: [Option<Endpoint>; 2],
}

impl Nic {
    /// Checks every variable. `table` resolves LINK in routed mode: [`crate::routing_tables::resolve`].
    ///
    /// # Errors
    /// At the first that is wrong: one line (`{:#}`) that names the variable, its value and what was expected.
    pub fn new(raw: &RawNic, settings: &Settings, table: impl FnOnce(&str) -> Result<u32>) -> Result<Self> {
        let Identity { interface, uuid, .. } = Identity::new(raw)?;
        let instance = required("INSTANCE", &raw.instance, "expected the instance's host name")?.to_owned();
        let index = raw.interface_index.as_deref().map(index).transpose()?;
        if let Some(name) = raw.interface_name.as_deref() {
            ensure!(is_printable(name), "INTERFACE_NAME {}: expected printable text", quoted(name));
        }
        let mac = mac(raw)?;
        let setups = tags::setups(raw.network_tags.as_deref().unwrap_or_default(), settings);
        let tags = InstanceTags::new(raw);
        let mode = Mode::new(raw, &interface, setups.contains(Setup::IpLessRouted), table)?;
        check_setups(setups, &mode, raw, settings)?;
        check_profile(tags.firewall, &mode, raw)?;

        let mac_prefix = raw.network_mac_prefix.as_deref().map(mac_prefix).transpose()?;
        if let (true, Some(prefix)) = (setups.contains(Setup::PrivateFiltered), mac_prefix) {
            check_mac_prefix(mac, prefix, raw, settings)?;
        }

        let by_eui64 = [Setup::IpLessRouted, Setup::Nfdhcpd, Setup::Dns, Setup::StrictFiltered];
        let by_eui64 = by_eui64.into_iter().any(|setup| setups.contains(setup));
        let endpoints = endpoint::endpoints(raw, by_eui64.then_some(mac), &tags.disabled)?;
        if setups.contains(Setup::IpLessRouted) && endpoints.iter().all(Option::is_none) {
            return Err(nothing_to_route(raw, settings, &tags));
        }
        Ok(Self {
            interface,
            index,
            uuid,
            instance,
            mac,
            mode,
            setups,
            firewall: tags.firewall,
            tags: tags.plain,
            migration_phase: raw.migration_phase.as_deref().map(migration_phase).transpose()?,
            mac_prefix,
            endpoints,
        })
    }

    /// The guest's address of a family and what belongs to it.
    pub fn endpoint(&self, family: Family) -> Option<&Endpoint> {
        self.endpoints[family as usize].as_ref()
    }

    /// Its addresses, each with the network in which no other NIC may have it: `table,100,10.0.0.2`, or
    /// `bridge,br0,vlan,10,aa:00:01,10.0.0.2`.
    pub fn places(&self) -> Vec<String> {
        let port = |kind: &str, bridge: &IfName, vlan: Option<&Vlan>| {
            let vlan = vlan.and_then(|it| it.untagged).map(|vid| format!(",vlan,{vid}"));
            let prefix = self.mac_prefix.map(|[a, b, c]| format!(",{a:02x}:{b:02x}:{c:02x}"));
            format!("{kind},{bridge}{}{}", vlan.unwrap_or_default(), prefix.unwrap_or_default())
        };
        let network = match &self.mode {
            Mode::Routed { table } => format!("table,{table}"),
            Mode::Bridged { bridge, vlan } => port("bridge", bridge, vlan.as_ref()),
            Mode::OpenVswitch { bridge, vlan } => port("openvswitch", bridge, vlan.as_ref()),
            Mode::Ext => return Vec::new(),
        };
        self.endpoints.iter().flatten().map(|it| format!("{network},{}", it.address)).collect()
    }

    /// Whether a tag selects `setup`.
    pub fn has(&self, setup: Setup) -> bool {
        self.setups.contains(setup)
    }
}

/// The addresses of a NIC that belong in the DNS, which is none without the network's tag for it. A hook's NIC has no TAP,
/// so it makes no [`Nic`].
///
/// # Errors
/// As [`Nic::new`], for the variables that addresses are made of.
pub fn dns_addresses(raw: &RawNic, settings: &Settings) -> Result<Vec<IpAddr>> {
    if !tags::setups(raw.network_tags.as_deref().unwrap_or_default(), settings).contains(Setup::Dns) {
        return Ok(Vec::new());
    }
    let needs_mac = raw.mac.is_some() || raw.network_subnet6.is_some();
    let mac = if needs_mac { Some(mac(raw)?) } else { None };
    let endpoints = endpoint::endpoints(raw, mac, &InstanceTags::new(raw).disabled)?;
    Ok(endpoints.into_iter().flatten().map(|endpoint| endpoint.address).collect())
}

/// Whether the mode can do what the network's tags promise.
fn check_setups(setups: Setups, mode: &Mode, raw: &RawNic, settings: &Settings) -> Result<()> {
    let routed = matches!(mode, Mode::Routed { .. });
    // The rules of nf_tables see no frame that goes through Open vSwitch.
    let filtering = !matches!(mode, Mode::OpenVswitch { .. });
    for (setup, fits, expected) in [
        (Setup::IpLessRouted, routed, "routed"),
        (Setup::PrivateFiltered, filtering && !routed, "bridged"),
        (Setup::StrictFiltered, filtering, "bridged or routed"),
    ] {
        ensure!(
            fits || !setups.contains(setup),
            "MODE {}: expected {expected} with the network's tag {}",
            quoted(raw.mode.as_deref().unwrap_or_default()),
            quoted(settings.tag(setup))
        );
    }
    if let Mode::Bridged { vlan: Some(vlan), .. } = mode {
        ensure!(
            vlan.tagged.is_empty() || !setups.contains(Setup::StrictFiltered),
            "VLAN {}: expected no tagged VLANs with the network's tag {}, which lets no tagged frame pass",
            quoted(raw.vlan.as_deref().unwrap_or_default()),
            quoted(settings.tag(Setup::StrictFiltered))
        );
    }
    let addressed = raw.ip.is_some() || !setups.is_empty();
    ensure!(
        addressed || !routed,
        "IP is not set, expected an address in mode routed without a tag that selects a setup"
    );
    Ok(())
}

/// Whether the mode can do what the firewall profile promises.
fn check_profile(profile: Option<Profile>, mode: &Mode, raw: &RawNic) -> Result<()> {
    let filters = !matches!(profile, None | Some(Profile::Unprotected));
    ensure!(
        !filters || !matches!(mode, Mode::OpenVswitch { .. }),
        "MODE \"openvswitch\": expected bridged or routed with the firewall profile that TAGS {} select",
        quoted(raw.tags.as_deref().unwrap_or_default())
    );
    Ok(())
}

/// Whether a private-filtered NIC is of its network, as far as NETWORK_MAC_PREFIX (24 bits) and MAC_MASK tell.
fn check_mac_prefix(mac: Mac, prefix: [u8; 3], raw: &RawNic, settings: &Settings) -> Result<()> {
    let [a, b, c] = prefix;
    let [x, y, z, ..] = settings.mac_mask.octets();
    ensure!(
        MacMask::of_octets([x, y, z, 0, 0, 0]).matches(mac, Mac([a, b, c, 0, 0, 0])),
        "MAC {}: expected one inside NETWORK_MAC_PREFIX {} (MAC_MASK {})",
        quoted(raw.mac.as_deref().unwrap_or_default()),
        quoted(raw.network_mac_prefix.as_deref().unwrap_or_default()),
        settings.mac_mask
    );
    Ok(())
}

/// Why an ip-less-routed NIC has no endpoint.
fn nothing_to_route(raw: &RawNic, settings: &Settings, tags: &InstanceTags) -> Error {
    let tag = quoted(settings.tag(Setup::IpLessRouted));
    if tags.disabled == [false; 2] {
        return Error::msg(format!("IP is not set, expected it or NETWORK_SUBNET6 with the network's tag {tag}"));
    }
    let value = quoted(raw.tags.as_deref().unwrap_or_default()).to_string();
    Error::msg(format!("TAGS {value}: expected an address to be left with the network's tag {tag}"))
}

/// The value, or an error that says what was expected of it.
fn required<'a>(variable: &str, value: &'a Option<String>, expected: &str) -> Result<&'a str> {
    value.as_deref().with_context(|| format!("{variable} is not set, {expected}"))
}

/// The value as a type whose own error says what was expected.
fn parse<T: FromStr<Err = Error>>(variable: &str, value: &str) -> Result<T> {
    value.parse().with_context(|| format!("{variable} {}", quoted(value)))
}

fn index(value: &str) -> Result<u32> {
    let number = value.parse().ok().filter(|_| !value.starts_with('+'));
    number.with_context(|| format!("INTERFACE_INDEX {}: expected a number from 0", quoted(value)))
}

fn mac(raw: &RawNic) -> Result<Mac> {
    let value = required("MAC", &raw.mac, "expected the guest's MAC")?;
    let mac: Mac = parse("MAC", value)?;
    ensure!(mac.is_unicast(), "MAC {}: expected a unicast MAC", quoted(value));
    Ok(mac)
}

fn migration_phase(value: &str) -> Result<MigrationPhase> {
    Ok(match value {
        "pre" => MigrationPhase::Pre,
        "post" => MigrationPhase::Post,
        _ => bail!("MIGRATION_PHASE {}: expected pre or post", quoted(value)),
    })
}

fn mac_prefix(value: &str) -> Result<[u8; 3]> {
    let mac = format!("{value}:0:0:0").parse::<Mac>().ok().filter(|mac| mac.0[0] & 1 == 0);
    let Some(Mac([a, b, c, ..])) = mac else {
        bail!("NETWORK_MAC_PREFIX {}: expected three octets such as aa:00:01", quoted(value));
    };
    Ok([a, b, c])
}

/// IP, of either family.
fn ip(raw: &RawNic) -> Result<Option<IpAddr>> {
    let address =
        |value: &str| value.parse().ok().with_context(|| format!("IP {}: expected an address", quoted(value)));
    raw.ip.as_deref().map(address).transpose()
}

#[cfg(test)]
mod tests;
