//! How a NIC is connected: MODE, and LINK, BRIDGE and VLAN as the mode reads them.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

use super::{parse, required};
use crate::addr::IfName;
use crate::environment::RawNic;
use crate::object::TABLE_MAIN;
use crate::printable::quoted;

/// How a NIC is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The node routes for the guest.
    Routed {
        /// The routing table of what the guest sends.
        table: u32,
    },
    /// A port of a Linux bridge.
    Bridged {
        /// The bridge.
        bridge: IfName,
        /// The port's VLANs.
        vlan: Option<Vlan>,
    },
    /// A port of an Open vSwitch bridge.
    OpenVswitch {
        /// The bridge.
        bridge: IfName,
        /// The port's VLANs.
        vlan: Option<Vlan>,
    },
    /// Connected by others (`ext`, unless a tag of the network says how).
    Ext,
}

/// A port's VLANs. At least one is named, each is of 1 to 4094.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The VLAN of untagged frames.
    pub untagged: Option<u16>,
    /// The VLANs that pass with their tags.
    pub tagged: Vec<u16>,
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(vid) = self.untagged {
            write!(f, ".{vid}")?;
        }
        self.tagged.iter().try_for_each(|vid| write!(f, ":{vid}"))
    }
}

impl Mode {
    /// `routed_by_tag`: whether a tag of the network asks for routing, which is how `ext` is connected then.
    pub(super) fn new(
        raw: &RawNic,
        interface: &IfName,
        routed_by_tag: bool,
        table: impl FnOnce(&str) -> Result<u32>,
    ) -> Result<Self> {
        const MODES: &str = "expected routed, bridged, openvswitch or ext";
        let mode = required("MODE", &raw.mode, MODES)?;
        Ok(match if mode == "ext" && routed_by_tag { "routed" } else { mode } {
            "routed" => Self::Routed {
                table: match raw.link.as_deref() {
                    Some(link) => table(link).with_context(|| format!("LINK {}", quoted(link)))?,
                    None => TABLE_MAIN,
                },
            },
            "bridged" => Self::Bridged { bridge: bridge(raw, interface)?, vlan: vlan(raw)? },
            "openvswitch" => Self::OpenVswitch { bridge: bridge(raw, interface)?, vlan: vlan(raw)? },
            "ext" => Self::Ext,
            other => bail!("MODE {}: {MODES}", quoted(other)),
        })
    }
}

fn bridge(raw: &RawNic, interface: &IfName) -> Result<IfName> {
    let (variable, value) = match (&raw.link, &raw.bridge) {
        (None, Some(bridge)) => ("BRIDGE", bridge.as_str()),
        (link, _) => ("LINK", required("LINK", link, "expected the bridge's name")?),
    };
    let bridge = parse(variable, value)?;
    ensure!(bridge != *interface, "{variable} {}: expected a bridge other than INTERFACE itself", quoted(value));
    Ok(bridge)
}

fn vlan(raw: &RawNic) -> Result<Option<Vlan>> {
    let Some(value) = raw.vlan.as_deref() else { return Ok(None) };
    let expected = || format!("VLAN {}: expected N, .N, :N:M or .N:M with numbers of 1 to 4094", quoted(value));
    vlan_of(value).with_context(expected).map(Some)
}

/// `N` and `.N` are an access port, `:N:M` is a trunk, `.N:M` both.
fn vlan_of(value: &str) -> Option<Vlan> {
    let number = |text: &str| {
        let number = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        number.filter(|number| (1..=4094).contains(number))
    };
    let (untagged, tagged) = match value.split_once(':') {
        Some((untagged, tagged)) => (untagged, Some(tagged)),
        None => (value, None),
    };
    let untagged = match (untagged.strip_prefix('.'), tagged) {
        (Some(text), _) => Some(number(text)?),
        (None, None) => Some(number(untagged)?),
        (None, Some(_)) if untagged.is_empty() => None,
        (None, Some(_)) => return None,
    };
    let mut tagged = tagged.map_or(Some(Vec::new()), |tagged| tagged.split(':').map(number).collect())?;
    tagged.sort_unstable();
    tagged.dedup();
    Some(Vlan { untagged, tagged })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_access_trunk_or_both() {
        for (value, untagged, tagged) in [
            ("5", Some(5), vec![]),
            (".5", Some(5), vec![]),
            (":5", None, vec![5]),
            (":7:5:7", None, vec![5, 7]),
            (".1:4094", Some(1), vec![4094]),
        ] {
            let vlan = Vlan { untagged, tagged };
            assert_eq!(vlan_of(&vlan.to_string()), Some(vlan.clone()));
            assert_eq!(vlan_of(value), Some(vlan), "{value}");
        }
        for bad in ["", ".", ":", "0", ".0", "4095", "5:6", ".5:", ".5:x", "+5", ".+5", "5.6", ":5::6", "99999", " 5"] {
            assert_eq!(vlan_of(bad), None, "{bad}");
        }
    }
}
