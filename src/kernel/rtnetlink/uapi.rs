//! Numbers of linux/if_link.h that libc lacks.

/// Of an IFLA_INFO_DATA: of a bridge (IFLA_BR_*) and of a VLAN device.
pub(super) const IFLA_BR_FORWARD_DELAY: u16 = 1;
pub(super) const IFLA_BR_VLAN_FILTERING: u16 = 7;
pub(super) const IFLA_BR_VLAN_PROTOCOL: u16 = 8;
pub(super) const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;
pub(super) const IFLA_VLAN_ID: u16 = 1;
pub(super) const IFLA_VLAN_PROTOCOL: u16 = 5;
/// Of the IFLA_INFO_DATA of a TAP.
pub(super) const IFLA_TUN_VNET_HDR: u16 = 5;
/// Of the IFLA_INFO_SLAVE_DATA of a bridge's port.
pub(super) const IFLA_BRPORT_MULTICAST_ROUTER: u16 = 25;
pub(super) const IFLA_BRPORT_GROUP_FWD_MASK: u16 = 31;
/// Families in an IFLA_AF_SPEC.
pub(super) const INET: u16 = 2;
pub(super) const INET6: u16 = 10;
/// Of INET, whose nested attributes are numbered by IPV4_DEVCONF_* of linux/ip.h; of INET6.
pub(super) const IFLA_INET_CONF: u16 = 1;
pub(super) const IFLA_INET6_CONF: u16 = 2;
pub(super) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
