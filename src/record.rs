//! All that a NIC's Plan was made from, as variables in a state file: the environment of its ifup, the settings that mattered,
//! and the facts read from the kernel.

use std::cell::Cell;

use anyhow::{Context, Result};

use crate::addr::{Family, IfName};
use crate::environment::{RawNic, Unset};
use crate::kernel::rtnetlink::DEVCONF;
use crate::model::link_id::{LinkId, Namespace};
use crate::nic::{Mode, Nic};
use crate::object::{ChecksumGuard, Plan};
use crate::routing_tables;
use crate::settings::{MarkMask, Settings};
use crate::setup::node_settings::{FWMARK_REFLECT, OF_ALL};
use crate::setup::routed::PROXY_DELAY;
use crate::setup::{self, Facts, Original, VlanFiltering};
use crate::state::{ADDRESSES, Variables, one_line};

/// Variables of the facts; all others are Ganeti's or of the settings. The administrator's own scripts know UPLINK and
/// UPLINK6 by these names.
const IFINDEX: &str = "IFINDEX";
const BOOT_ID: &str = "BOOT_ID";
const NETNS: &str = "NETNS";
const UPLINKS: [&str; 2] = ["UPLINK", "UPLINK6"];
const BRIDGE_MTU: &str = "BRIDGE_MTU";
const BRIDGE_DEFAULT_PVID: &str = "BRIDGE_DEFAULT_PVID";
const BRIDGE_UPLINKS: &str = "BRIDGE_UPLINKS";
const CHECKSUM_GUARD: &str = "CHECKSUM_GUARD";
/// The program that wrote the record, for administrators.
const PROGRAM_VERSION: &str = "PROGRAM_VERSION";
/// `missing` where the kernel had no nf_tables, and the NIC could do without.
const NF_TABLES: &str = "NF_TABLES";
const BEFORE_MAC: &str = "BEFORE_MAC";
const BEFORE_MTU: &str = "BEFORE_MTU";
const BEFORE_UP: &str = "BEFORE_UP";
const BEFORE_SETTINGS: &str = "BEFORE_SETTINGS";

/// What is recorded of a NIC.
#[derive(Clone, Debug)]
pub struct Record {
    /// The environment of its ifup, the routing table resolved.
    pub raw: RawNic,
    /// The settings of its ifup.
    pub settings: Settings,
    /// What was read from the kernel.
    pub facts: Facts,
    /// [`Nic::places`].
    pub places: Vec<String>,
}

impl Record {
    /// Of an ifup that is under way.
    pub fn new(raw: &RawNic, nic: &Nic, settings: &Settings, facts: Facts) -> Self {
        let mut raw = raw.clone();
        raw.interface = Some(nic.interface.to_string());
        if let Mode::Routed { table } = nic.mode {
            // The name may mean another table tomorrow.
            raw.link = Some(table.to_string());
        }
        Self { raw, settings: settings.clone(), facts, places: nic.places() }
    }

    /// The Plan that was made of it.
    ///
    /// # Errors
    /// If it is not valid: the file was not written by this program.
    pub fn plan(&self) -> Result<Plan> {
        setup::plan(&self.nic()?, &self.settings, &self.facts)
    }

    /// The NIC.
    ///
    /// # Errors
    /// As [`Record::plan`].
    pub fn nic(&self) -> Result<Nic> {
        Nic::new(&self.raw, &self.settings, routing_tables::resolve)
    }

    /// The same with the node's way of routing as it is now; none if that is the way of its ifup.
    pub fn switched(&self, settings: &Settings) -> Option<Self> {
        let way = |it: &Settings| (it.routing, it.routing_mark_mask);
        (way(&self.settings) != way(settings)).then(|| {
            let mut switched = self.clone();
            (switched.settings.routing, switched.settings.routing_mark_mask) = way(settings);
            switched
        })
    }

    /// The same with its TAP guarded.
    pub fn guarded(&self) -> Self {
        let mut other = self.clone();
        other.facts.guard = Some(ChecksumGuard { act_csum: false });
        other
    }

    /// The same with another mask.
    pub fn under(&self, mask: MarkMask) -> Self {
        let mut other = self.clone();
        other.settings.routing_mark_mask = mask;
        other
    }

    /// Whether it is of this very NIC on this very TAP.
    pub fn is_of(&self, nic: &Nic, link: LinkId) -> bool {
        self.facts.link.is(Some(link))
            && self.raw.interface_uuid == nic.uuid
            && self.raw.instance.as_ref() == Some(&nic.instance)
    }

    /// Whether another record is of this NIC, on whatever TAP.
    pub fn is_same_nic(&self, other: &Self) -> bool {
        let identity = |it: &Self| match &it.raw.interface_uuid {
            Some(uuid) => (it.raw.instance.clone(), Some(uuid.clone()), None),
            None => (it.raw.instance.clone(), None, it.raw.interface_index.clone()),
        };
        identity(self) == identity(other)
    }

    /// Who has the TAP, if the caller speaks of another NIC.
    pub fn foreign_owner(owner: &Variables, raw: &RawNic) -> Option<String> {
        let of = |key: &str| owner.iter().find(|it| it.0 == key).map(|it| it.1.as_str()).filter(|it| !it.is_empty());
        // The UUID decides; without one, the instance.
        for (key, caller) in [("INTERFACE_UUID", &raw.interface_uuid), ("INSTANCE", &raw.instance)] {
            if let (Some(owner), Some(caller)) = (of(key), caller) {
                return (owner != caller).then(|| {
                    let instance = of("INSTANCE").unwrap_or("?");
                    format!("belongs to {key} {owner} of {instance} now, not to {caller:?}")
                });
            }
        }
        None
    }

    /// As variables for the state file.
    pub fn variables(&self) -> Variables {
        let mut variables: Variables = Vec::new();
        let mut put = |key: &str, value: String| variables.push((key.to_owned(), one_line(&value).into_owned()));
        for (key, value) in self.raw.variables() {
            put(key, value.unwrap_or_default().to_owned());
        }
        for (key, value) in self.settings.for_record() {
            put(key, value);
        }
        let (facts, text) = (&self.facts, |value: Option<String>| value.unwrap_or_default());
        put(PROGRAM_VERSION, env!("CARGO_PKG_VERSION").to_owned());
        put(IFINDEX, facts.link.index.to_string());
        put(BOOT_ID, text(facts.link.namespace.map(|it| it.boot.to_string())));
        put(NETNS, text(facts.link.namespace.map(|it| it.number.to_string())));
        for (key, names) in UPLINKS.into_iter().zip(&facts.uplinks) {
            put(key, names.iter().map(IfName::as_str).collect::<Vec<_>>().join(" "));
        }
        put(BRIDGE_MTU, text(facts.bridge_mtu.map(|it| it.to_string())));
        let vlans = facts.bridge_vlans.as_ref();
        put(BRIDGE_DEFAULT_PVID, text(vlans.map(|it| it.default_pvid.to_string())));
        put(BRIDGE_UPLINKS, text(vlans.map(|it| lacking_text(&it.lacking))));
        put(CHECKSUM_GUARD, facts.guard.map_or("", guard_text).to_owned());
        put(NF_TABLES, if facts.nftables { "" } else { "missing" }.to_owned());
        put(BEFORE_MAC, text(facts.before.mac.map(|it| it.to_string())));
        put(BEFORE_MTU, text(facts.before.mtu.map(|it| it.to_string())));
        put(BEFORE_UP, u8::from(facts.before.up).to_string());
        put(BEFORE_SETTINGS, settings_text(&facts.before.settings));
        put(ADDRESSES, self.places.join(" "));
        variables
    }

    /// From the variables of a state file.
    ///
    /// # Errors
    /// If one is missing or is not what this program writes.
    pub fn from_variables(variables: &Variables) -> Result<Self> {
        // They are asked for nearly in their order.
        let next = Cell::new(0);
        let get = |key: &str| {
            let (behind, before) = (next.get()..variables.len(), 0..next.get());
            let place = behind.chain(before).find(|place| variables[*place].0 == key)?;
            next.set(place + 1);
            Some(variables[place].1.as_str()).filter(|it| !it.is_empty())
        };
        let raw = RawNic::from_variables(Unset::Empty, |key| get(key).map(Into::into))?;
        let settings = Settings::of_record(get)?;
        let names = |key: &str| -> Result<Vec<IfName>> {
            get(key).unwrap_or_default().split(' ').filter(|it| !it.is_empty()).map(str::parse).collect()
        };
        let number = |key: &'static str| get(key).map(|it| it.parse().context(key)).transpose();
        let bridge_vlans = match get(BRIDGE_DEFAULT_PVID) {
            Some(pvid) => Some(VlanFiltering {
                default_pvid: pvid.parse().context(BRIDGE_DEFAULT_PVID)?,
                lacking: lacking_of(get(BRIDGE_UPLINKS).unwrap_or_default()).context(BRIDGE_UPLINKS)?,
            }),
            None => None,
        };
        let before = Original {
            mac: get(BEFORE_MAC).map(|it| it.parse().context(BEFORE_MAC)).transpose()?,
            mtu: number(BEFORE_MTU)?,
            up: get(BEFORE_UP) == Some("1"),
            settings: settings_of(get(BEFORE_SETTINGS).unwrap_or_default()),
        };
        let guard = get(CHECKSUM_GUARD).map(|it| guard_of(it).context(CHECKSUM_GUARD)).transpose()?;
        let boot = get(BOOT_ID).map(|it| it.parse().context(BOOT_ID)).transpose()?;
        let netns = get(NETNS).map(|it| it.parse().context(NETNS)).transpose()?;
        let namespace = Option::zip(boot, netns).map(|(boot, number)| Namespace { boot, number });
        let facts = Facts {
            link: LinkId { index: number(IFINDEX)?.context(IFINDEX)?, namespace },
            before,
            uplinks: [names(UPLINKS[0])?, names(UPLINKS[1])?],
            bridge_mtu: number(BRIDGE_MTU)?,
            bridge_vlans,
            guard,
            nftables: get(NF_TABLES).is_none(),
        };
        let mut record = Self { raw, settings, facts, places: Vec::new() };
        record.places = match get(ADDRESSES) {
            Some(places) => places.split(' ').map(str::to_owned).collect(),
            // Of version 1.0.0, or it has none.
            None => record.nic()?.places(),
        };
        Ok(record)
    }
}

/// Who finishes the checksums of TCP: `act_csum` or `device`.
fn guard_text(guard: ChecksumGuard) -> &'static str {
    if guard.act_csum { "act_csum" } else { "device" }
}

fn guard_of(text: &str) -> Result<ChecksumGuard> {
    let known = [true, false].map(|act_csum| ChecksumGuard { act_csum });
    known
        .into_iter()
        .find(|it| guard_text(*it) == text)
        .with_context(|| format!("{text:?}: expected act_csum or device"))
}

/// `bond0:10:20 eth1`.
fn lacking_text(lacking: &[(IfName, Vec<u16>)]) -> String {
    let vids = |vids: &[u16]| vids.iter().map(|vid| format!(":{vid}")).collect::<String>();
    lacking.iter().map(|(port, lacks)| format!("{port}{}", vids(lacks))).collect::<Vec<_>>().join(" ")
}

fn lacking_of(text: &str) -> Result<Vec<(IfName, Vec<u16>)>> {
    let mut lacking = Vec::new();
    for word in text.split_ascii_whitespace() {
        let mut parts = word.split(':');
        let port = parts.next().unwrap_or_default().parse()?;
        lacking.push((port, parts.map(str::parse).collect::<Result<_, _>>()?));
    }
    Ok(lacking)
}

/// `ipv4.proxy_arp=0 ipv6.accept_ra=1`.
pub fn settings_text(settings: &[(Family, &'static str, u32)]) -> String {
    let all: Vec<_> =
        settings.iter().map(|(family, key, value)| format!("{}.{key}={value}", family.sysctl())).collect();
    all.join(" ")
}

/// Undoes [`settings_text`]; what is not known is left out.
pub fn settings_of(text: &str) -> Vec<(Family, &'static str, u32)> {
    let of_node = OF_ALL.iter().map(|it| it.0);
    let others = |family| of_node.clone().chain([FWMARK_REFLECT, PROXY_DELAY]).map(move |key| (family, key));
    let known = || DEVCONF.iter().map(|it| (it.0, it.1)).chain(Family::BOTH.into_iter().flat_map(others));
    let read = |word: &str| {
        let (name, value) = word.split_once('=')?;
        let (folder, name) = name.split_once('.')?;
        let (family, key) = known().find(|(family, key)| folder == family.sysctl() && name == *key)?;
        Some((family, key, value.parse().ok()?))
    };
    text.split(' ').filter_map(read).collect()
}
