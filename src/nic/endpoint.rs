//! The addresses of a NIC, once for both families.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use super::ip;
use crate::addr::{Family, Mac};
use crate::environment::RawNic;
use crate::printable::quoted;

/// The guest's address of one family, the network it lies in, and the router there. All are of that family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A unicast address that only this guest has.
    pub address: IpAddr,
    /// The network's prefix, without host bits; the address lies in it.
    pub subnet: Option<IpNet>,
    /// The router: in the subnet, or a link-local IPv6 address; never the guest's own.
    pub gateway: Option<IpAddr>,
}

/// The variables of a family's network, and their values.
struct Variables<'a> {
    family: Family,
    subnet: (&'static str, Option<&'a str>),
    gateway: (&'static str, Option<&'a str>),
    /// A prefix, for messages.
    example: &'static str,
}

impl<'a> Variables<'a> {
    fn new(raw: &'a RawNic, family: Family) -> Self {
        match family {
            Family::V4 => Self {
                family,
                subnet: ("NETWORK_SUBNET", raw.network_subnet.as_deref()),
                gateway: ("NETWORK_GATEWAY", raw.network_gateway.as_deref()),
                example: "192.0.2.0/24",
            },
            Family::V6 => Self {
                family,
                subnet: ("NETWORK_SUBNET6", raw.network_subnet6.as_deref()),
                gateway: ("NETWORK_GATEWAY6", raw.network_gateway6.as_deref()),
                example: "2001:db8::/64",
            },
        }
    }

    fn subnet(&self) -> Result<Option<IpNet>> {
        let (variable, Some(value)) = self.subnet else { return Ok(None) };
        let net = value.parse::<IpNet>().ok().map(|net| net.trunc());
        let net = net.filter(|net| Family::of(net.addr()) == self.family && is_unicast(net.addr()));
        net.map(Some).with_context(|| {
            format!("{variable} {}: expected a unicast {} prefix such as {}", quoted(value), self.family, self.example)
        })
    }

    fn gateway(&self, subnet: Option<IpNet>) -> Result<Option<IpAddr>> {
        let (variable, Some(value)) = self.gateway else { return Ok(None) };
        let place = || format!("{variable} {}", quoted(value));
        let gateway = value.parse().ok().filter(|gateway| Family::of(*gateway) == self.family);
        let gateway: IpAddr = gateway.with_context(|| format!("{}: expected an {} address", place(), self.family))?;
        let link_local = matches!(gateway, IpAddr::V6(gateway) if gateway.is_unicast_link_local());
        if !link_local {
            // IPv6's subnet-router anycast address is a router's, so only IPv4's first address is out of question.
            let anycast = gateway.is_ipv6() && subnet.is_some_and(|net| net.network() == gateway);
            let subnet = subnet.filter(|_| !anycast);
            check_host(gateway, subnet.map(|net| (self.subnet.0, net))).with_context(place)?;
        }
        Ok(Some(gateway))
    }
}

/// The endpoints of both families, in the order of [`Family::BOTH`], but for the `disabled`.
///
/// IP is of either family. IPv6 takes the modified EUI-64 address of `eui64`, if it is given and IP is not of that family.
pub(super) fn endpoints(raw: &RawNic, eui64: Option<Mac>, disabled: &[bool; 2]) -> Result<[Option<Endpoint>; 2]> {
    let ip = ip(raw)?;
    let mut endpoints = [None, None];
    for family in Family::BOTH {
        let variables = Variables::new(raw, family);
        let subnet = variables.subnet()?;
        let gateway = variables.gateway(subnet)?;
        let ip = ip.filter(|ip| Family::of(*ip) == family);
        if let (Some(address), Some(value)) = (ip, raw.ip.as_deref()) {
            check_host(address, subnet.map(|net| (variables.subnet.0, net)))
                .with_context(|| format!("IP {}", quoted(value)))?;
        }
        if disabled[family as usize] {
            continue;
        }
        let Some(address) = ip.map_or_else(|| automatic(eui64, subnet, &variables), |ip| Ok(Some(ip)))? else {
            continue;
        };
        if let (Some(_), (variable, Some(value))) = (gateway.filter(|gateway| *gateway == address), variables.gateway) {
            anyhow::bail!("{variable} {}: expected another address than the NIC's own", quoted(value));
        }
        endpoints[family as usize] = Some(Endpoint { address, subnet, gateway });
    }
    Ok(endpoints)
}

/// The address that a guest gives itself (RFC 4862, 5.5.3): IPv6's, where a prefix is known.
fn automatic(eui64: Option<Mac>, subnet: Option<IpNet>, variables: &Variables) -> Result<Option<IpAddr>> {
    let (Some(mac), Some(IpNet::V6(prefix))) = (eui64, subnet) else { return Ok(None) };
    let (variable, value) = variables.subnet;
    let place = || format!("{variable} {}", quoted(value.unwrap_or_default()));
    ensure!(prefix.prefix_len() == 64, "{}: expected a /64, for a modified EUI-64 address", place());
    Ok(Some(mac.eui64(prefix).with_context(place)?.into()))
}

/// Whether one host can have this address, in the prefix of the named variable if there is one.
fn check_host(address: IpAddr, subnet: Option<(&str, IpNet)>) -> Result<()> {
    ensure!(is_unicast(address), "expected a unicast address that is neither loopback nor link-local");
    if let Some((variable, net)) = subnet {
        ensure!(net.contains(&address), "expected an address inside {variable} {net}");
        let has_reserved = Family::of(address).bits() - net.prefix_len() > 1;
        let broadcast = address.is_ipv4() && address == net.broadcast();
        ensure!(
            !has_reserved || (address != net.network() && !broadcast),
            "expected a host's address inside {variable} {net}, neither its first nor its broadcast address"
        );
    }
    Ok(())
}

/// Neither multicast, broadcast, loopback, link-local nor unspecified (0.0.0.0/8 and ::), nor IPv4 in the guise of IPv6.
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let special = v4.is_multicast() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast();
            !special && v4.octets()[0] != 0
        }
        IpAddr::V6(v6) => {
            let special = v6.is_multicast() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified();
            !special && v6.to_ipv4_mapped().is_none()
        }
    }
}
