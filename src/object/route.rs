//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Key, Kind, Lifetime, Phase, Verb, ip};
use crate::addr::{Family, IfName};

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Straight to the neighbours on a device.
    Device(IfName),
    /// Through a gateway on a device; `onlink` where no other route tells that the gateway is there.
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// Its device.
        device: IfName,
        /// RTNH_F_ONLINK.
        onlink: bool,
    },
    /// Nowhere: the sender gets an ICMP unreachable.
    Unreachable,
}

impl Hop {
    /// The device it leads to.
    pub fn device(&self) -> Option<&IfName> {
        match self {
            Self::Device(device) | Self::Gateway { device, .. } => Some(device),
            Self::Unreachable => None,
        }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix.
    pub destination: IpNet,
    /// Where to.
    pub hop: Hop,
    /// In which table.
    pub table: u32,
    /// None is the family's default.
    pub metric: Option<u32>,
    /// Whose it is.
    pub protocol: u8,
}

impl Route {
    /// The metric that the kernel gives to a route without one.
    pub fn default_metric(family: Family) -> u32 {
        match family {
            Family::V4 => 0,
            // IP6_RT_PRIO_USER of linux/ipv6_route.h.
            Family::V6 => 1024,
        }
    }

    fn family(&self) -> Family {
        Family::of(self.destination.addr())
    }

    /// As `ip route` takes it, from the type of the route on.
    fn words(&self) -> String {
        let kind = if self.hop == Hop::Unreachable { "unreachable " } else { "" };
        let destination =
            if self.destination.prefix_len() == 0 { "default".to_owned() } else { self.destination.to_string() };
        let hop = match &self.hop {
            Hop::Device(device) => format!(" dev {device}"),
            Hop::Gateway { gateway, device, onlink } => {
                format!(" via {gateway} dev {device}{}", if *onlink { " onlink" } else { "" })
            }
            Hop::Unreachable => String::new(),
        };
        let metric = self.metric.map_or_else(String::new, |it| format!(" metric {it}"));
        format!("{kind}{destination}{hop} table {} proto {}{metric}", self.table, self.protocol)
    }
}

impl Kind for Route {
    const PHASE: Phase = Phase::Reach;

    fn key(&self) -> Key<'_> {
        let metric = self.metric.unwrap_or_else(|| Self::default_metric(self.family()));
        Key::Route(self.table, self.destination, metric)
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::Own
    }

    fn command(&self, verb: Verb) -> String {
        format!("ip {} route {} {}", self.family().ip_option(), verb.pick("replace", "del"), self.words())
    }

    fn describe(&self) -> String {
        format!("{} route {}", ip(self.family()), self.words())
    }

    /// Removal names the hop, so it never removes another route.
    fn is_covered_by(&self, other: &Self) -> bool {
        self == other
    }
}
