//! Which link is meant: after a reboot, or in another network namespace, another link may have its name and number.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, ensure};

/// The kernel's name of this boot (/proc/sys/kernel/random/boot_id, Documentation/admin-guide/sysctl/kernel.rst): a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(u128);

impl FromStr for BootId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits: String = text.chars().filter(|it| *it != '-').collect();
        let fits = digits.len() == 32 && digits.bytes().all(|it| it.is_ascii_hexdigit());
        ensure!(fits, "expected a UUID: 32 hexadecimal digits and -");
        Ok(Self(u128::from_str_radix(&digits, 16)?))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        f.write_str(&parts.join("-"))
    }
}

/// A network namespace of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The boot.
    pub boot: BootId,
    /// A number that no other namespace of this boot has.
    pub number: u64,
}

/// A link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId {
    /// Its number.
    pub index: u32,
    /// Where it is. None in records of version 1.0.0, which did not say it: they are taken as of this boot and namespace, as all
    /// NICs that run through an upgrade have such records.
    pub namespace: Option<Namespace>,
}

impl LinkId {
    /// Whether this is the link that is there.
    pub fn is(self, live: Option<Self>) -> bool {
        live.is_some_and(|live| {
            let namespaces = self.namespace.zip(live.namespace);
            self.index == live.index && namespaces.is_none_or(|(one, other)| one == other)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_the_one_of_its_boot_and_namespace() {
        let boot: BootId = "6f1d2a3e-0000-4000-8000-00000000beef".parse().expect("a UUID");
        assert_eq!(boot.to_string(), "6f1d2a3e-0000-4000-8000-00000000beef");
        assert!("6f1d2a3e".parse::<BootId>().is_err());
        let link = |index, boot, number| LinkId { index, namespace: Some(Namespace { boot: BootId(boot), number }) };
        let (own, former) = (link(5, 1, 1), LinkId { index: 5, namespace: None });
        assert!(own.is(Some(own)) && former.is(Some(own)));
        for other in [link(6, 1, 1), link(5, 2, 1), link(5, 1, 2)] {
            assert!(!own.is(Some(other)), "{other:?}");
        }
        assert!(!own.is(None) && !former.is(Some(link(6, 1, 1))));
    }
}
