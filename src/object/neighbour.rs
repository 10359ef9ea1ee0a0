//! Neighbour entries.

use std::net::IpAddr;

use super::{Key, Kind, Lifetime, Phase, Verb, ip};
use crate::addr::{Family, IfName, Mac};

/// Where an address of a guest is, so that the node need not ask, and nobody else's answer counts. The kernel drops permanent entries
/// when the link goes down or its MAC changes, and otherwise keeps them however full its table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The guest's address.
    pub address: IpAddr,
    /// The guest's MAC.
    pub mac: Mac,
    /// Its TAP.
    pub device: IfName,
    /// Whose it is (NDA_PROTOCOL, Linux 4.20).
    pub protocol: u8,
}

impl Kind for Neighbour {
    const PHASE: Phase = Phase::Reach;

    fn key(&self) -> Key<'_> {
        Key::Neighbour(self.address, &self.device)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::WithLink(&self.device)
    }

    fn command(&self, verb: Verb) -> String {
        let Self { address, mac, device, protocol } = self;
        let option = Family::of(*address).ip_option();
        match verb {
            Verb::Add => {
                format!(
                    "ip {option} neigh replace {address} lladdr {mac} dev {device} nud permanent protocol {protocol}"
                )
            }
            Verb::Remove => format!("ip {option} neigh del {address} dev {device}"),
        }
    }

    fn describe(&self) -> String {
        let Self { address, mac, device, protocol } = self;
        format!(
            "{} neigh {address} lladdr {mac} dev {device} nud permanent protocol {protocol}",
            ip(Family::of(*address))
        )
    }
}
