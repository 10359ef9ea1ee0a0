//! Settings of the whole node. docs/setups.md#settings-of-the-node says what they do to interfaces that are not ours.
//!
//! | setting | `node up` | `node down`, of the last uplink that needs it |
//! |---|---|---|
//! | net.ipv6.conf.all.forwarding, .proxy_ndp | 1 | as it was |
//! | net.ipv4.fwmark_reflect, net.ipv6.fwmark_reflect | 1 | as it was |
//! | net.ipv6.conf.IF.accept_ra, where 1 and IF has routes by router advertisement | 2 | 1 |
//! | net.ipv4.neigh.default.gc_thresh1 to 3, and of IPv6 | checked | |
//! | net.ipv4.conf.all.route_localnet | checked | |
//! | net.bridge.bridge-nf-call-iptables, -ip6tables, -arptables | checked | |
//!
//! For forwarding and proxying IPv4 needs none: what is set for an interface (forwarding, proxy_arp) holds there.

use crate::addr::{Family, IfName};
use crate::object::{Setting, Sysctl, SysctlGroup};

/// Keys under which values of `all` from before us are recorded, each with the key of the setting.
pub const OF_ALL: [(&str, &str); 2] = [("all.forwarding", "forwarding"), ("all.proxy_ndp", "proxy_ndp")];

/// What forwarding and proxying need of the node. The kernel forwards IPv6 only if all.forwarding is set, and answers unicast probes
/// (NUD) for a proxied address only if all.proxy_ndp is (ip6_forward of net/ipv6/ip6_output.c). `change` knows what was there before.
pub fn of_all(family: Family, change: impl Fn(&'static str, u32) -> Setting<u32>) -> Vec<Sysctl> {
    match family {
        Family::V4 => Vec::new(),
        Family::V6 => OF_ALL.map(|(recorded, key)| setting(None, key, change(recorded, 1))).to_vec(),
    }
}

/// What the kernel itself answers to a packet, or reports about it, has the packet's mark (ip-sysctl.rst of the kernel).
pub const FWMARK_REFLECT: &str = "fwmark_reflect";

/// What the node reports about a guest's packet is routed by the mark of this packet.
pub fn reflect_mark(family: Family, before: Option<u32>) -> Sysctl {
    let value = Setting { want: 1, before };
    Sysctl { family, group: SysctlGroup::Node, interface: None, key: FWMARK_REFLECT, value }
}

/// An interface goes on to accept router advertisements while the node forwards. It comes before all.forwarding, by which the kernel
/// removes the routes of those with 1 (rt6_purge_dflt_routers of net/ipv6/route.c), and goes behind it.
pub fn accept_advertisements(interface: &IfName) -> Sysctl {
    setting(Some(interface.clone()), "accept_ra", Setting { want: 2, before: Some(1) })
}

fn setting(interface: Option<IfName>, key: &'static str, value: Setting<u32>) -> Sysctl {
    Sysctl { family: Family::V6, group: SysctlGroup::Conf, interface, key, value }
}

/// How many NICs a node has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nics {
    /// All.
    pub all: u32,
    /// Those on bridges.
    pub bridged: u32,
}

/// Whether a value is right on a node with so many NICs.
type IsRight = fn(u32, Nics) -> bool;

/// Settings that are checked: a name below /proc/sys/net, and which value is right.
const CHECKED: [(&str, IsRight, &str); 10] = [
    // A guest's own entry, those of its link-local address, and what it talks to on the uplink.
    ("ipv4/neigh/default/gc_thresh1", |value, nics| value >= nics.all, SMALL),
    ("ipv4/neigh/default/gc_thresh2", |value, nics| value >= nics.all.saturating_mul(2), SMALL),
    ("ipv4/neigh/default/gc_thresh3", |value, nics| value >= nics.all.saturating_mul(4), SMALL),
    ("ipv6/neigh/default/gc_thresh1", |value, nics| value >= nics.all, SMALL),
    ("ipv6/neigh/default/gc_thresh2", |value, nics| value >= nics.all.saturating_mul(2), SMALL),
    ("ipv6/neigh/default/gc_thresh3", |value, nics| value >= nics.all.saturating_mul(4), SMALL),
    ("ipv4/conf/all/route_localnet", |value, _| value == 0, "other machines may reach 127.0.0.0/8 of the node"),
    ("bridge/bridge-nf-call-iptables", |value, nics| value == 0 || nics.bridged == 0, BRIDGED),
    ("bridge/bridge-nf-call-ip6tables", |value, nics| value == 0 || nics.bridged == 0, BRIDGED),
    ("bridge/bridge-nf-call-arptables", |value, nics| value == 0 || nics.bridged == 0, BRIDGED),
];
const SMALL: &str = "too small for so many NICs, neighbours are forgotten";
const BRIDGED: &str = "the node's own filters also see what bridges forward";

/// Warnings about settings that are only checked; `read` knows the value below /proc/sys/net, none where there is no such file.
pub fn warnings(nics: Nics, read: impl Fn(&str) -> Option<u32>) -> Vec<String> {
    let wrong = CHECKED.iter().filter_map(|(name, is_right, why)| {
        let value = read(name).filter(|value| !is_right(*value, nics))?;
        Some(format!("warning: net.{} is {value} with {} NICs: {why}", name.replace('/', "."), nics.all))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbour_tables_grow_with_the_nics() {
        let defaults = |name: &str| match name.rsplit_once('/')?.1 {
            "gc_thresh1" => Some(128),
            "gc_thresh2" => Some(512),
            "gc_thresh3" => Some(1024),
            _ => None,
        };
        let with = |all| warnings(Nics { all, bridged: 0 }, defaults);
        assert!(with(128).is_empty());
        assert_eq!(with(129).len(), 2);
        assert_eq!(with(1000).len(), 6);
        let text = with(129).concat();
        assert!(text.contains("net.ipv4.neigh.default.gc_thresh1 is 128 with 129 NICs"), "{text}");
    }

    #[test]
    fn br_netfilter_matters_where_nics_are_bridged() {
        let on = |name: &str| name.starts_with("bridge/").then_some(1);
        assert!(warnings(Nics { all: 3, bridged: 0 }, on).is_empty());
        assert_eq!(warnings(Nics { all: 3, bridged: 1 }, on).len(), 3);
    }
}
