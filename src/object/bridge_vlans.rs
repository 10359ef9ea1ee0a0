//! The VLANs of a bridge's port.

use super::{Key, Kind, Lifetime, Phase, Verb};
use crate::addr::IfName;

/// One VLAN of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortVlan {
    /// 1 to 4094.
    pub vid: u16,
    /// Untagged frames that come in belong to it.
    pub pvid: bool,
    /// Its frames go out untagged.
    pub untagged: bool,
}

impl PortVlan {
    /// Its frames carry their tag.
    pub fn tagged(vid: u16) -> Self {
        Self { vid, pvid: false, untagged: false }
    }

    /// Its frames carry no tag.
    pub fn untagged(vid: u16) -> Self {
        Self { vid, pvid: true, untagged: true }
    }
}

/// Whom a port leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// A guest: it has these VLANs and no others.
    Guest {
        /// The VLAN that the bridge gives each new port, PVID and untagged; 0 is none. It comes back at the end.
        default_pvid: u16,
    },
    /// The outside: it has these VLANs besides those that are there, which stay as they are. Nothing is taken away at the
    /// end: others may have come to use them.
    Outside,
}

/// The VLANs of a port. They are gone with its membership in the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeVlans {
    /// The port.
    pub port: IfName,
    /// Whom it leads to.
    pub towards: Towards,
    /// Its VLANs.
    pub vlans: Vec<PortVlan>,
}

impl BridgeVlans {
    /// What to remove from a port that has the VLANs `present`, and what to add then (which replaces the flags of what is there).
    pub fn changes(&self, present: &[PortVlan], verb: Verb) -> [Vec<PortVlan>; 2] {
        let want = match (self.towards, verb) {
            (Towards::Outside, Verb::Remove) => return [Vec::new(), Vec::new()],
            (Towards::Outside, Verb::Add) => {
                let missing = self.vlans.iter().filter(|it| !has(present, it.vid));
                return [Vec::new(), missing.copied().collect()];
            }
            (Towards::Guest { .. }, Verb::Add) => &self.vlans,
            (Towards::Guest { default_pvid }, Verb::Remove) => &default_vlans(default_pvid),
        };
        let gone = present.iter().filter(|it| !has(want, it.vid));
        let new = want.iter().filter(|it| !present.contains(it));
        [gone.copied().collect(), new.copied().collect()]
    }
}

impl Kind for BridgeVlans {
    const PHASE: Phase = Phase::PortSettings;

    fn key(&self) -> Key<'_> {
        Key::BridgeVlans(&self.port)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        match self.towards {
            Towards::Guest { .. } => Lifetime::WithPort(&self.port),
            Towards::Outside => Lifetime::Shared,
        }
    }

    fn command(&self, verb: Verb) -> String {
        let present = match (self.towards, verb) {
            (Towards::Guest { default_pvid }, Verb::Add) => default_vlans(default_pvid),
            (_, Verb::Add) => Vec::new(),
            (_, Verb::Remove) => self.vlans.clone(),
        };
        let [gone, new] = self.changes(&present, verb);
        let mut lines = Vec::new();
        for vlan in gone {
            lines.push(format!("bridge vlan del dev {} vid {}", self.port, vlan.vid));
        }
        for PortVlan { vid, pvid, untagged } in new {
            let flags = [(pvid, " pvid"), (untagged, " untagged")].map(|(set, word)| if set { word } else { "" });
            lines.push(format!("bridge vlan add dev {} vid {vid}{}", self.port, flags.concat()));
        }
        lines.join("\n")
    }

    fn describe(&self) -> String {
        format!("bridge vlan dev {}: {}", self.port, vlan_list(&self.vlans))
    }
}

/// `10 pvid untagged, 20`.
pub fn vlan_list(vlans: &[PortVlan]) -> String {
    let words = |flag: bool, word: &'static str| if flag { word } else { "" };
    let one = |it: &PortVlan| format!("{}{}{}", it.vid, words(it.pvid, " pvid"), words(it.untagged, " untagged"));
    vlans.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn has(vlans: &[PortVlan], vid: u16) -> bool {
    vlans.iter().any(|it| it.vid == vid)
}

fn default_vlans(default_pvid: u16) -> Vec<PortVlan> {
    if default_pvid == 0 { Vec::new() } else { vec![PortVlan::untagged(default_pvid)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(default_pvid: u16, vlans: &[PortVlan]) -> BridgeVlans {
        let port = "tap0".parse().expect("a name");
        BridgeVlans { port, towards: Towards::Guest { default_pvid }, vlans: vlans.to_vec() }
    }

    #[test]
    fn a_guest_has_its_vlans_and_no_others() {
        let vlans = guest(1, &[PortVlan::untagged(10), PortVlan::tagged(20)]);
        let present = [PortVlan::untagged(1), PortVlan::tagged(10), PortVlan::tagged(20), PortVlan::tagged(30)];
        let gone = vec![PortVlan::untagged(1), PortVlan::tagged(30)];
        assert_eq!(vlans.changes(&present, Verb::Add), [gone, vec![PortVlan::untagged(10)]]);
        assert_eq!(vlans.changes(&vlans.vlans, Verb::Add), [vec![], vec![]]);
        assert_eq!(vlans.changes(&vlans.vlans, Verb::Remove), [vlans.vlans.clone(), vec![PortVlan::untagged(1)]]);
        assert_eq!(
            vlans.command(Verb::Add),
            "bridge vlan del dev tap0 vid 1\nbridge vlan add dev tap0 vid 10 pvid untagged\nbridge vlan add dev tap0 vid 20"
        );
        assert_eq!(
            vlans.command(Verb::Remove),
            "bridge vlan del dev tap0 vid 10\nbridge vlan del dev tap0 vid 20\nbridge vlan add dev tap0 vid 1 pvid untagged"
        );
    }

    #[test]
    fn the_default_vlan_may_be_the_one_that_is_wanted_or_none() {
        assert_eq!(guest(1, &[PortVlan::untagged(1)]).command(Verb::Add), "");
        assert_eq!(guest(1, &[PortVlan::tagged(1)]).command(Verb::Add), "bridge vlan add dev tap0 vid 1");
        assert_eq!(guest(0, &[PortVlan::tagged(5)]).command(Verb::Add), "bridge vlan add dev tap0 vid 5");
        assert_eq!(guest(0, &[PortVlan::tagged(5)]).command(Verb::Remove), "bridge vlan del dev tap0 vid 5");
    }

    #[test]
    fn what_an_uplink_has_stays_as_it_is() {
        let port = "eth1".parse().expect("a name");
        let vlans =
            BridgeVlans { port, towards: Towards::Outside, vlans: vec![PortVlan::tagged(1), PortVlan::tagged(2)] };
        let present = [PortVlan::untagged(1), PortVlan::untagged(7)];
        assert_eq!(vlans.changes(&present, Verb::Add), [vec![], vec![PortVlan::tagged(2)]]);
        assert_eq!(vlans.changes(&present, Verb::Remove), [vec![], vec![]]);
        assert_eq!(vlans.command(Verb::Remove), "");
    }
}
