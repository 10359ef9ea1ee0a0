//! A link as the kernel reports it. Read attribute by attribute: netlink-packet-route's own reader understands every kind of
//! device, which costs a run a tenth of its time and the program a tenth of its size.

use nix::libc::{
    IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_PARENT_DEV_BUS_NAME,
};

use super::link_message::IFINFOMSG;
use super::uapi::{
    IFLA_BR_VLAN_DEFAULT_PVID, IFLA_BR_VLAN_FILTERING, IFLA_BR_VLAN_PROTOCOL, IFLA_BRPORT_GROUP_FWD_MASK,
    IFLA_BRPORT_MULTICAST_ROUTER, IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE, IFLA_INET6_CONF, IFLA_TUN_VNET_HDR, INET,
    INET6,
};
use super::{ADDR_GEN_MODE, DEVCONF};
use crate::addr::{Family, IfName, Mac};
use crate::kernel::attributes::{attributes, number, text};
use crate::object::PortState;

/// Where in struct ifinfomsg of linux/rtnetlink.h the number and the flags are.
const INDEX: usize = 4;
const FLAGS: usize = 8;

/// A link as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its name.
    pub name: IfName,
    /// Its number.
    pub index: u32,
    /// None where it has no Ethernet address.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// Administratively.
    pub up: bool,
    /// The number of its bridge; 0 is none.
    pub controller: u32,
    /// IFLA_GROUP.
    pub group: u32,
    /// IFLA_INFO_KIND, such as `bridge`; none of a physical device, of `lo` and of Xen's vif.
    pub kind: Option<String>,
    /// IFLA_PARENT_DEV_BUS_NAME (Linux 5.14), such as `pci`.
    pub parent_bus: Option<String>,
    /// Whether what is written to this TAP has a virtio header (IFLA_TUN_VNET_HDR), by which a guest leaves checksums to the kernel.
    pub vnet_hdr: bool,
    /// Of a bridge.
    pub bridge: Option<BridgeState>,
    /// Whether it is a port of Open vSwitch's datapath in the kernel (IFLA_INFO_SLAVE_KIND).
    pub in_openvswitch: bool,
    /// Of the port of a bridge.
    pub port: PortState,
    /// Values of [`DEVCONF`], in its order; none where the family is off on this link.
    pub devconf: [Option<u32>; DEVCONF.len()],
}

/// What VLANs are to a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeState {
    /// IFLA_BR_VLAN_FILTERING; none where the kernel is built without it (CONFIG_BRIDGE_VLAN_FILTERING).
    pub vlan_filtering: Option<bool>,
    /// IFLA_BR_VLAN_DEFAULT_PVID: the VLAN of the untagged frames of every new port; 0 is none.
    pub default_pvid: u16,
    /// IFLA_BR_VLAN_PROTOCOL: the ether type of its tags.
    pub vlan_protocol: u16,
}

impl LinkState {
    /// Reads the payload of an RTM_NEWLINK; none without a name that a link can have.
    ///
    /// ```text
    /// ifinfomsg { IFLA_IFNAME IFLA_ADDRESS IFLA_MTU IFLA_MASTER IFLA_GROUP IFLA_PARENT_DEV_BUS_NAME
    ///   IFLA_LINKINFO { IFLA_INFO_KIND, IFLA_INFO_DATA { IFLA_BR_* | IFLA_TUN_* }, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA { IFLA_BRPORT_* } }
    ///   IFLA_AF_SPEC { AF_INET { IFLA_INET_CONF }, AF_INET6 { IFLA_INET6_CONF, IFLA_INET6_ADDR_GEN_MODE } } }
    /// ```
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut name = None;
        let mut state = Self {
            name: "unnamed".parse().ok()?,
            index: number(payload.get(INDEX..)?)?,
            mac: None,
            mtu: 0,
            up: number(payload.get(FLAGS..)?)? & IFF_UP.cast_unsigned() != 0,
            controller: 0,
            group: 0,
            kind: None,
            parent_bus: None,
            vnet_hdr: false,
            bridge: None,
            in_openvswitch: false,
            port: PortState::default(),
            devconf: [None; DEVCONF.len()],
        };
        for (kind, value) in attributes(payload.get(IFINFOMSG..)?) {
            match kind {
                IFLA_IFNAME => name = text(value).parse().ok(),
                IFLA_ADDRESS => state.mac = value.try_into().ok().map(Mac),
                IFLA_MTU => state.mtu = number(value)?,
                IFLA_MASTER => state.controller = number(value)?,
                IFLA_GROUP => state.group = number(value)?,
                IFLA_PARENT_DEV_BUS_NAME => state.parent_bus = Some(text(value)),
                IFLA_LINKINFO => state.read_info(value),
                IFLA_AF_SPEC => state.read_devconf(value),
                _ => {}
            }
        }
        state.name = name?;
        Some(state)
    }

    fn read_info(&mut self, info: &[u8]) {
        let mut port = None;
        for (kind, value) in attributes(info) {
            match kind {
                IFLA_INFO_KIND => self.kind = Some(text(value)),
                IFLA_INFO_DATA if self.kind.as_deref() == Some("bridge") => {
                    self.bridge = Some(BridgeState::decode(value))
                }
                IFLA_INFO_DATA if self.kind.as_deref() == Some("tun") => {
                    let header = attributes(value).find(|it| it.0 == IFLA_TUN_VNET_HDR);
                    self.vnet_hdr = header.is_some_and(|it| it.1.first().is_some_and(|on| *on != 0));
                }
                IFLA_INFO_SLAVE_KIND => port = Some(text(value)),
                IFLA_INFO_SLAVE_DATA if port.as_deref() == Some("bridge") => {
                    self.port = port_state(value);
                }
                _ => {}
            }
        }
        self.in_openvswitch = port.as_deref() == Some("openvswitch");
    }

    fn read_devconf(&mut self, families: &[u8]) {
        for (family, value) in attributes(families) {
            for (kind, value) in attributes(value) {
                let (family, first) = match (family, kind) {
                    // Their numbers begin with 1, and with 0.
                    (INET, IFLA_INET_CONF) => (Family::V4, 1),
                    (INET6, IFLA_INET6_CONF) => (Family::V6, 0),
                    (INET6, IFLA_INET6_ADDR_GEN_MODE) => {
                        self.set(Family::V6, ADDR_GEN_MODE, value.first().map(|it| u32::from(*it)));
                        continue;
                    }
                    _ => continue,
                };
                for (of, key, place) in DEVCONF.into_iter().filter(|it| it.0 == family && it.1 != ADDR_GEN_MODE) {
                    self.set(of, key, value.get(4 * usize::from(place - first)..).and_then(number));
                }
            }
        }
    }

    fn set(&mut self, family: Family, key: &str, value: Option<u32>) {
        if let Some(place) = DEVCONF.iter().position(|it| it.0 == family && it.1 == key) {
            self.devconf[place] = value.filter(|it| i32::try_from(*it).is_ok());
        }
    }

    /// Whether it is of a kind that a guest can be behind: a TAP, a macvtap, a veth or the backend of a Xen guest's card.
    pub fn can_be_a_guests(&self) -> bool {
        // A layer 3 tun device has no Ethernet address.
        self.mac.is_some()
            && match (self.kind.as_deref(), self.parent_bus.as_deref()) {
                (Some(kind), _) => ["tun", "macvtap", "veth"].contains(&kind),
                // xen-netback's device has no kind; its parent is on this bus (xenbus_backend of
                // drivers/xen/xenbus/xenbus_probe_backend.c).
                (None, Some(bus)) => bus == "xen-backend",
                // A kernel that does not tell the bus: by the name that Xen gives it, vifDOMAIN.DEVICE.
                (None, None) => self.name.as_str().starts_with("vif"),
            }
    }

    /// The value of a setting of [`DEVCONF`].
    pub fn setting(&self, family: Family, key: &str) -> Option<u32> {
        let place = DEVCONF.iter().position(|it| it.0 == family && it.1 == key)?;
        self.devconf[place]
    }
}

fn port_state(data: &[u8]) -> PortState {
    let mut state = PortState::default();
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_BRPORT_GROUP_FWD_MASK => state.group_fwd_mask = value.try_into().ok().map(u16::from_ne_bytes),
            IFLA_BRPORT_MULTICAST_ROUTER => state.mcast_router = value.first().copied(),
            _ => {}
        }
    }
    state
}

impl BridgeState {
    fn decode(data: &[u8]) -> Self {
        let mut state = Self { vlan_filtering: None, default_pvid: 0, vlan_protocol: 0 };
        for (kind, value) in attributes(data) {
            let pair = value.try_into().ok();
            match kind {
                IFLA_BR_VLAN_FILTERING => state.vlan_filtering = value.first().map(|it| *it != 0),
                IFLA_BR_VLAN_DEFAULT_PVID => state.default_pvid = pair.map_or(0, u16::from_ne_bytes),
                IFLA_BR_VLAN_PROTOCOL => state.vlan_protocol = pair.map_or(0, u16::from_be_bytes),
                _ => {}
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_DUMP, Parseable};
    use netlink_packet_route::link::{AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkMessage};

    use nix::libc::RTM_GETLINK;

    use super::*;
    use crate::kernel::netlink::{Netlink, Request};

    /// All links of this machine.
    fn payloads() -> Vec<Vec<u8>> {
        let message = LinkMessage::default();
        let request = Request::new(RTM_GETLINK, &message, NLM_F_DUMP);
        let answers = Netlink::open().expect("a socket").ask(request).expect("a dump");
        answers.into_iter().map(|it| it.1).collect()
    }

    #[test]
    fn reads_what_the_crate_reads() {
        let mut checked = 0;
        for payload in payloads() {
            let state = LinkState::decode(&payload).expect("a link");
            let message = LinkMessage::parse(&payload).expect("a link");
            assert_eq!(state.index, message.header.index);
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(it) => assert_eq!(state.name.as_str(), it),
                    LinkAttribute::Mtu(it) => assert_eq!(state.mtu, it),
                    LinkAttribute::Group(it) => assert_eq!(state.group, it),
                    LinkAttribute::AfSpecUnspec(specs) => {
                        for spec in specs {
                            checked += compare(&state, &spec);
                        }
                    }
                    _ => {}
                }
            }
        }
        assert!(checked > 0, "no link with settings");
    }

    fn compare(state: &LinkState, spec: &AfSpecUnspec) -> usize {
        let same = |family, key, value: i32| {
            assert_eq!(state.setting(family, key), u32::try_from(value).ok(), "{} {key}", state.name);
        };
        let mut compared = 0;
        if let AfSpecUnspec::Inet(all) = spec {
            for conf in all {
                let AfSpecInet::DevConf(conf) = conf else { continue };
                same(Family::V4, "forwarding", conf.forwarding);
                same(Family::V4, "proxy_arp", conf.proxy_arp);
                same(Family::V4, "accept_redirects", conf.accept_redirects);
                same(Family::V4, "rp_filter", conf.rp_filter);
                compared += 1;
            }
        }
        if let AfSpecUnspec::Inet6(all) = spec {
            for attribute in all {
                match attribute {
                    AfSpecInet6::DevConf(conf) => {
                        same(Family::V6, "forwarding", conf.forwarding);
                        same(Family::V6, "accept_ra", conf.accept_ra);
                        same(Family::V6, "accept_redirects", conf.accept_redirects);
                        same(Family::V6, "accept_dad", conf.accept_dad);
                        same(Family::V6, "proxy_ndp", conf.proxy_ndp);
                        same(Family::V6, "disable_ipv6", conf.disable_ipv6);
                        compared += 1;
                    }
                    AfSpecInet6::AddrGenMode(mode) => {
                        same(Family::V6, ADDR_GEN_MODE, i32::from(u8::from(mode)));
                        compared += 1;
                    }
                    _ => {}
                }
            }
        }
        compared
    }

    #[test]
    fn guests_are_behind_taps_and_vifs_only() {
        let lo = || payloads().iter().find_map(|it| LinkState::decode(it)).expect("a link");
        for (name, kind, parent_bus, expected) in [
            ("tap0", Some("tun"), None, true),
            ("mv0", Some("macvtap"), None, true),
            ("veth0", Some("veth"), None, true),
            ("vif7.0", None, Some("xen-backend"), true),
            ("web1", None, Some("xen-backend"), true),
            ("vif7.0", None, None, true),
            ("vif7.0", None, Some("pci"), false),
            ("vif7.0", Some("bridge"), None, false),
            ("eth0", None, Some("virtio"), false),
            ("eth0", None, Some("xen"), false),
            ("lo", None, None, false),
            ("eth1.20", Some("vlan"), None, false),
            ("br0", Some("bridge"), None, false),
            ("bond0", Some("bond"), None, false),
            ("br1", Some("openvswitch"), None, false),
            ("eth9", Some("dummy"), None, false),
        ] {
            let (kind, parent_bus) = (kind.map(str::to_owned), parent_bus.map(str::to_owned));
            let name = name.parse().expect("a name");
            let mut link = LinkState { name, kind, parent_bus, mac: Some(Mac([2, 0, 0, 0, 0, 1])), ..lo() };
            assert_eq!(link.can_be_a_guests(), expected, "{link:?}");
            link.mac = None;
            assert!(!link.can_be_a_guests(), "{link:?}");
        }
    }

    #[test]
    fn what_is_cut_short_or_garbled_is_survived() {
        for payload in payloads() {
            for length in 0..payload.len() {
                let _either_way = LinkState::decode(&payload[..length]);
            }
            for place in 0..payload.len() {
                for value in [0, 1, 4, 127, 255] {
                    let mut payload = payload.clone();
                    payload[place] = value;
                    let _either_way = LinkState::decode(&payload);
                }
            }
        }
    }
}
