//! Proxy neighbour entries.

use std::net::IpAddr;

use super::{Key, Kind, Lifetime, Phase, Verb, ip};
use crate::addr::{Family, IfName};

/// `ip neigh add proxy ADDRESS dev DEVICE`, permanent, or it would vanish when the device loses its carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighProxy {
    /// The address that is answered for.
    pub address: IpAddr,
    /// Where it is answered.
    pub device: IfName,
    /// The TAP that it is behind: the kernel does not know it, but the entry stays while another one has the address.
    pub behind: IfName,
    /// Whose it is.
    pub protocol: u8,
}

impl Kind for NeighProxy {
    const PHASE: Phase = Phase::Reach;

    fn key(&self) -> Key<'_> {
        Key::NeighProxy(self.address, &self.device)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::Own
    }

    fn command(&self, verb: Verb) -> String {
        let Self { address, device, protocol, .. } = self;
        let option = Family::of(*address).ip_option();
        match verb {
            Verb::Add => format!("ip {option} neigh replace proxy {address} dev {device} protocol {protocol}"),
            Verb::Remove => format!("ip {option} neigh del proxy {address} dev {device}"),
        }
    }

    fn describe(&self) -> String {
        let Self { address, device, protocol, .. } = self;
        format!("{} neigh proxy {address} dev {device} protocol {protocol}", ip(Family::of(*address)))
    }

    /// Another TAP behind the address does not make it another entry.
    fn is_covered_by(&self, other: &Self) -> bool {
        self == other
    }
}
