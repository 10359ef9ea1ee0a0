//! Addresses: MACs, MAC masks, interface names, modified EUI-64, and what differs between IPv4 and IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::printable::quoted;

/// An IP version. All that differs between the two stands in this one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are set up.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family an address is of.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bits of an address, hence the length of a host's prefix.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The folder below /proc/sys/net.
    pub fn sysctl(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// The prefix of all addresses: that of a default route.
    pub fn any(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Net::default()),
            Self::V6 => IpNet::V6(Ipv6Net::default()),
        }
    }

    /// The option that makes `ip` act on this family.
    pub fn ip_option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An Ethernet address (48 bits, in the order of transmission).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Neither a group address (lowest bit of the first octet) nor all zeros.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// Modified EUI-64 address of this MAC in `prefix` (RFC 4291, appendix A).
    ///
    /// # Errors
    /// If the prefix is not a /64.
    pub fn eui64(self, prefix: Ipv6Net) -> Result<Ipv6Addr> {
        ensure!(prefix.prefix_len() == 64, "{prefix} is a /{}, expected a /64", prefix.prefix_len());
        let [a, b, c, d, e, f] = self.0;
        let mut octets = prefix.network().octets();
        octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        Ok(octets.into())
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    /// Six octets of one or two hexadecimal digits between colons (`aa:55:60:0:0:0`).
    fn from_str(text: &str) -> Result<Self> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().unwrap_or_default();
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                bail!("expected six octets such as aa:00:00:12:34:56");
            }
            *octet = u8::from_str_radix(part, 16)?;
        }
        ensure!(parts.next().is_none(), "expected six octets such as aa:00:00:12:34:56");
        Ok(Self(octets))
    }
}

/// The leading bits of a MAC that all members of one private-filtered network share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacMask(Mac);

impl MacMask {
    /// A mask known to be ones, then zeros.
    pub(crate) const fn of_octets(octets: [u8; 6]) -> Self {
        Self(Mac(octets))
    }

    /// The mask, in the order of transmission.
    pub fn octets(self) -> [u8; 6] {
        self.0.0
    }

    /// The prefix of `mac`: its bits below the mask, the rest zero.
    pub fn apply(self, mac: Mac) -> Mac {
        Mac(std::array::from_fn(|i| mac.0[i] & self.0.0[i]))
    }

    /// Whether both MACs have the same prefix.
    pub fn matches(self, a: Mac, b: Mac) -> bool {
        self.apply(a) == self.apply(b)
    }
}

impl fmt::Display for MacMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MacMask {
    type Err = anyhow::Error;

    /// Written as a MAC: ones, then zeros. A mask without any one is refused: it would isolate nothing.
    fn from_str(text: &str) -> Result<Self> {
        const EXPECTED: &str = "expected a MAC's leading bits as a mask, such as ff:ff:f0:00:00:00";
        let mask: Mac = text.parse().ok().context(EXPECTED)?;
        let [a, b, c, d, e, f] = mask.0;
        let bits = u64::from_be_bytes([a, b, c, d, e, f, 0, 0]);
        ensure!(bits != 0 && bits.leading_ones() == bits.count_ones(), EXPECTED);
        Ok(Self(mask))
    }
}

/// The name of a network interface: 1 to 15 bytes, as `dev_valid_name` of the kernel's net/core/dev.c takes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Longest name in bytes (IFNAMSIZ - 1 of linux/if.h).
    pub const MAX: usize = 15;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IfName {
    type Err = anyhow::Error;

    /// Printable ASCII only, and none of the characters that a shell, `ip` or `nft` would read as more than a name:
    /// the name goes into files and lines that others read.
    fn from_str(text: &str) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-@+".contains(&b);
        let fits = (1..=Self::MAX).contains(&text.len());
        ensure!(
            fits && text != "." && text != ".." && !text.starts_with('-') && text.bytes().all(plain),
            "expected an interface name: 1 to 15 letters, digits, or any of _ . - @ +"
        );
        Ok(Self(text.to_owned()))
    }
}

/// An address and the length of its prefix, from `10.0.0.1/24`, or from an address alone (then its full length).
///
/// # Errors
/// If the text is neither.
pub fn parse_net(text: &str) -> Result<IpNet> {
    if text.contains('/') {
        text.parse().with_context(|| format!("{} is no prefix", quoted(text)))
    } else {
        Ok(IpNet::from(text.parse::<IpAddr>().with_context(|| format!("{} is no address", quoted(text)))?))
    }
}

/// Whether `text` is a domain name in ASCII: at most 253 bytes, in labels of 1 to 63 letters, digits, `-` or `_` with no
/// `-` at either end (RFC 1123, 2.1, and RFC 2181, 11, for the `_`). A final dot is not taken.
pub fn is_domain_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eui64_flips_the_universal_bit() {
        let mac: Mac = "aa:00:00:12:34:56".parse().expect("a MAC");
        let prefix = "2001:db8:1::/64".parse().expect("a prefix");
        assert_eq!(mac.eui64(prefix).expect("a /64").to_string(), "2001:db8:1:0:a800:ff:fe12:3456");
        assert!(mac.eui64("2001:db8:1::/80".parse().expect("a prefix")).is_err());
    }

    #[test]
    fn macs_are_read_with_short_octets_and_printed_in_full() {
        assert_eq!("AA:55:60:0:0:1".parse::<Mac>().expect("a MAC").to_string(), "aa:55:60:00:00:01");
        for bad in ["", "aa:55", "aa:55:60:0:0:1:2", "aa:55:60:0:0:+1", "aa:55:60:0:0:100", "aa-55-60-0-0-1"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert!(!Mac([1, 0, 0, 0, 0, 0]).is_unicast());
        assert!(!Mac([0; 6]).is_unicast());
    }

    #[test]
    fn interface_names_are_those_of_the_kernel_and_harmless() {
        for good in ["tap0", "vif12.3", "eth0.200", "br-lan", "a23456789012345"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a b", "tap0\n", "a234567890123456", "-tap", "tap\"", "täp", "tap:0", "tap*"]
        {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_masks_are_prefixes() {
        let mask: MacMask = "ff:ff:f0:0:0:0".parse().expect("a mask");
        assert_eq!(mask.to_string(), "ff:ff:f0:00:00:00");
        let mac = |text: &str| text.parse::<Mac>().expect("a MAC");
        assert_eq!(mask.apply(mac("aa:55:66:1a:ae:82")), mac("aa:55:60:0:0:0"));
        assert!(mask.matches(mac("aa:55:66:1a:ae:82"), mac("aa:55:6f:0:0:1")));
        assert!(!mask.matches(mac("aa:55:66:1a:ae:82"), mac("aa:55:76:1a:ae:82")));
        assert!("ff:ff:ff:ff:ff:ff".parse::<MacMask>().is_ok());
        for bad in ["", "ff", "0:0:0:0:0:0", "ff:0:ff:0:0:0", "ff:ff:f1:0:0:0", "7f:ff:ff:0:0:0", "/20", "ff:ff:f0"] {
            assert!(bad.parse::<MacMask>().is_err(), "{bad}");
        }
    }

    #[test]
    fn domain_names_are_plain_labels() {
        for good in ["vm1", "vm1.example.org", "_dns.example", "a-b.c"] {
            assert!(is_domain_name(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", ".", "vm1.", ".vm1", "a..b", "-a", "a-", "a b", "a\n", "vm1;x", "vmä", &long] {
            assert!(!is_domain_name(bad), "{bad}");
        }
    }
}
