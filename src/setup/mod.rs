//! Tags choose setups; each setup adds its part to the Plan of a NIC. Pure: what must be known of the kernel is in Facts.

mod arp_senders;
pub mod bridged;
pub mod bridges;
pub mod dropped;
pub mod filtered;
pub mod firewall;
pub mod fwmark;
pub mod guard;
pub mod host;
pub mod neighbours;
pub mod nfdhcpd;
pub mod node_settings;
pub mod openvswitch;
pub mod routed;
pub mod routed_sources;
pub mod shared;
pub mod strict;
pub mod uplink;

use anyhow::{Result, bail};

use crate::addr::{Family, IfName, Mac};
use crate::model::link_id::LinkId;
use crate::nic::{MigrationPhase, Mode, Nic};
use crate::object::{ChecksumGuard, Phase, Plan};
use crate::ruleset::{Comment, Element, Name, TableFamily, Value};
use crate::settings::{Settings, Setup};

/// About how many a NIC has at most: who plans for thousands does not let them grow.
const OBJECTS: usize = 36;
const ELEMENTS: usize = 12;

/// What was read from the kernel before planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The TAP.
    pub link: LinkId,
    /// The TAP before this NIC's first ifup, to be put back by ifdown.
    pub before: Original,
    /// The devices of the table's default route, IPv4 and IPv6.
    pub uplinks: [Vec<IfName>; 2],
    /// The MTU of the bridge, in bytes.
    pub bridge_mtu: Option<u32>,
    /// What is known of the bridge's VLANs, where any are asked for.
    pub bridge_vlans: Option<VlanFiltering>,
    /// What guards a TAP with a virtio header.
    pub guard: Option<ChecksumGuard>,
    /// Whether the kernel has nf_tables. Asked only where a NIC can do without.
    pub nftables: bool,
}

/// A bridge that filters VLANs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanFiltering {
    /// The VLAN of the untagged frames of every new port; 0 is none.
    pub default_pvid: u16,
    /// The ports that lead outside and the VLANs that the NIC needs and they lacked before it.
    pub lacking: Vec<(IfName, Vec<u16>)>,
}

/// What a link was like before us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Its address.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// Whether it was up.
    pub up: bool,
    /// Settings by family, key and value, such as (IPv4, `proxy_arp`, 0).
    pub settings: Vec<(Family, &'static str, u32)>,
}

impl Original {
    /// The value a setting had.
    pub fn setting(&self, family: Family, key: &str) -> Option<u32> {
        self.settings.iter().find(|it| it.0 == family && it.1 == key).map(|it| it.2)
    }
}

/// The Plan of a NIC.
///
/// # Errors
/// If what is asked for cannot be done: nothing weaker is set up instead.
pub fn plan(nic: &Nic, settings: &Settings, facts: &Facts) -> Result<Plan> {
    let mut plan =
        Plan { objects: Vec::with_capacity(OBJECTS), elements: Vec::with_capacity(ELEMENTS), ..Plan::default() };
    firewall::filters(nic, &mut plan);
    if matches!(nic.mode, Mode::Routed { .. } | Mode::Bridged { .. }) {
        guard::add(nic, facts, &mut plan);
    }
    match &nic.mode {
        Mode::Routed { table } if nic.has(Setup::IpLessRouted) => {
            routed::ip_less(nic, *table, settings, facts, &mut plan);
        }
        Mode::Routed { table } => routed::plain(nic, *table, settings, facts, &mut plan),
        Mode::Bridged { bridge, vlan } => {
            if nic.has(Setup::PrivateFiltered) {
                filtered::filters(nic, settings, &mut plan);
            }
            if nic.has(Setup::StrictFiltered) {
                strict::filters(nic, settings, &mut plan);
            }
            bridged::plain(nic, bridge, vlan.as_ref(), facts, &mut plan)?;
        }
        Mode::OpenVswitch { bridge, vlan } => {
            openvswitch::plain(nic, bridge, vlan.as_ref(), settings, facts, &mut plan);
        }
        // Others connect it. Of what a tag promises nothing is left out silently.
        Mode::Ext => {
            for setup in [Setup::PrivateFiltered, Setup::StrictFiltered, Setup::Nfdhcpd] {
                if nic.has(setup) {
                    let (tag, routed) = (settings.tag(setup), settings.tag(Setup::IpLessRouted));
                    bail!(
                        "MODE: \"ext\": expected the network's tag {routed:?}, without which {tag:?} is not built in yet"
                    );
                }
            }
            dropped::elements(nic, &mut plan);
            return Ok(plan);
        }
    }
    dropped::elements(nic, &mut plan);
    if nic.has(Setup::Nfdhcpd) {
        nfdhcpd::binding(nic, settings, &mut plan);
    }
    if nic.migration_phase == Some(MigrationPhase::Pre) {
        prepare_only(&mut plan);
    }
    Ok(plan)
}

/// Before a migration the guest still runs elsewhere: everything that restrains it stands, but its link is down, no address
/// leads here and nobody is told. The next ifup, after the migration, makes the rest.
fn prepare_only(plan: &mut Plan) {
    plan.objects.retain(|it| it.phase() < Phase::Up);
    plan.announcements.clear();
}

/// An element of this NIC in a set whose key begins with the TAP and ends with `rest`.
fn element(nic: &Nic, family: TableFamily, set: impl Into<Name>, rest: impl IntoIterator<Item = Value>) -> Element {
    let key = [Value::IfName(nic.interface.clone())].into_iter().chain(rest).collect();
    Element { family, set: set.into(), key, data: None, comment: Some(comment(nic)) }
}

/// The family of an uplink to which an element in its name belongs.
pub fn family_of(element: &Element) -> Family {
    // ARP is of IPv4.
    fwmark::family_of(element).or_else(|| host::family_of(element)).unwrap_or(Family::V4)
}

/// Tells an administrator who reads `nft list ruleset` whose an element is.
fn comment(nic: &Nic) -> Comment {
    match nic.index {
        Some(index) => Comment::new(&format!("{} nic{index}", nic.instance)),
        None => Comment::new(&nic.instance),
    }
}

#[cfg(test)]
mod tests;
