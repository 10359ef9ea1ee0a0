//! The records of a NIC: its addresses under the instance's name, and that name under each address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use domain::base::Rtype;

use crate::addr::is_domain_name;
use crate::printable::quoted;

/// An absolute domain name; compared without regard to case, displayed without a final dot and with `\DDD` for what is
/// not printable.
pub type Name = domain::base::Name<Vec<u8>>;

/// What a record says of its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// An IPv4 address (RFC 1035, 3.4.1).
    A(Ipv4Addr),
    /// An IPv6 address (RFC 3596, 2.1).
    Aaaa(Ipv6Addr),
    /// The name of the address that the owner stands for (RFC 1035, 3.5).
    Ptr(Name),
}

impl Data {
    /// The record type.
    pub fn rtype(&self) -> Rtype {
        match self {
            Self::A(_) => Rtype::A,
            Self::Aaaa(_) => Rtype::AAAA,
            Self::Ptr(_) => Rtype::PTR,
        }
    }

    /// The address, of an A or AAAA record.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::A(address) => Some((*address).into()),
            Self::Aaaa(address) => Some((*address).into()),
            Self::Ptr(_) => None,
        }
    }
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }
}

impl fmt::Display for Data {
    /// `TYPE data`, as in a zone file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => write!(f, "A {address}"),
            Self::Aaaa(address) => write!(f, "AAAA {address}"),
            Self::Ptr(name) => write!(f, "PTR {}", name.fmt_with_dot()),
        }
    }
}

/// A resource record of class IN; its TTL is no part of what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// The name it belongs to.
    pub owner: Name,
    /// Its type and data.
    pub data: Data,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.owner.fmt_with_dot(), self.data)
    }
}

/// The name of an instance: as it is if it has a dot, else in the domain `fzone`.
///
/// # Errors
/// If it is no host name (letters, digits, `-` and `_` in labels of 1 to 63), or has no dot and there is no `fzone`.
pub fn host_name(instance: &str, fzone: Option<&str>) -> Result<Name> {
    let relative = instance.strip_suffix('.').unwrap_or(instance);
    let full = if instance.contains('.') {
        relative.to_owned()
    } else {
        let zone =
            fzone.with_context(|| format!("FZONE is not set, expected the domain of instance {}", quoted(instance)))?;
        format!("{relative}.{}", zone.strip_suffix('.').unwrap_or(zone))
    };
    ensure!(is_domain_name(&full), "instance name {}: expected a host name", quoted(instance));
    Name::vec_from_str(&full).with_context(|| format!("instance name {}: expected a host name", quoted(instance)))
}

/// The records of a name's addresses: for each, A or AAAA, and PTR.
pub fn records(name: &Name, addresses: &[IpAddr]) -> Vec<Record> {
    let both = |&address: &IpAddr| {
        let forward = Record { owner: name.clone(), data: address.into() };
        [forward, Record { owner: reverse_name(address), data: Data::Ptr(name.clone()) }]
    };
    addresses.iter().flat_map(both).collect()
}

/// The name below in-addr.arpa or ip6.arpa of an address (RFC 1035, 3.5; RFC 3596, 2.5).
pub(super) fn reverse_name(address: IpAddr) -> Name {
    let wire = match address {
        IpAddr::V4(address) => {
            let labels = address.octets().into_iter().rev().map(|octet| octet.to_string());
            wire_name(labels, &["in-addr", "arpa"])
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
            wire_name(nibbles.map(|nibble| format!("{nibble:x}")), &["ip6", "arpa"])
        }
    };
    Name::from_octets(wire).unwrap_or_else(|_| unreachable!("labels of one to seven bytes, 74 bytes at most"))
}

/// Labels in wire form: each after its length, and the root at the end (RFC 1035, 3.1).
fn wire_name(labels: impl Iterator<Item = String>, suffix: &[&str]) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in labels.chain(suffix.iter().map(|label| (*label).to_owned())) {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_dot_is_in_fzone() {
        let name = |instance, fzone| host_name(instance, fzone).map(|name| name.to_string());
        assert_eq!(name("vm1", Some("vm.example.org")).expect("a name"), "vm1.vm.example.org");
        assert_eq!(name("vm1", Some("vm.example.org.")).expect("a name"), "vm1.vm.example.org");
        assert_eq!(name("vm1.example.com", Some("vm.example.org")).expect("a name"), "vm1.example.com");
        assert_eq!(name("vm1.example.com.", None).expect("a name"), "vm1.example.com");
        let error = name("vm1", None).expect_err("no domain").to_string();
        assert_eq!(error, "FZONE is not set, expected the domain of instance \"vm1\"");
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let long = "a".repeat(64);
        for bad in ["", ".", "a..b", "-a", "a b", "a\nupdate delete b A\n", "a;b", "a\\.b", "a\\000b", "*", "é", &long]
        {
            let error = host_name(bad, Some("example.org")).expect_err(bad).to_string();
            assert!(error.contains("expected a host name"), "{bad:?}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn each_address_has_its_name_and_the_name_its_address() {
        let name = host_name("vm1.example.org", None).expect("a name");
        let addresses = ["192.0.2.5".parse().expect("v4"), "2001:db8::ab".parse().expect("v6")];
        let found: Vec<_> = records(&name, &addresses).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "vm1.example.org. A 192.0.2.5",
                "5.2.0.192.in-addr.arpa. PTR vm1.example.org.",
                "vm1.example.org. AAAA 2001:db8::ab",
                "b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR vm1.example.org.",
            ]
        );
    }
}
