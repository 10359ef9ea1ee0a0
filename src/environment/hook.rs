//! The environment of Ganeti's hooks: an instance and its NICs.

use std::ffi::OsString;

use anyhow::{Context, Result};

use super::{RawNic, Unset, utf8, variable};
use crate::printable::quoted;

/// More NICs than any instance has (Ganeti's MAX_NICS is 8), so that no number makes us read the environment for hours.
const MAX_NICS: u32 = 256;

/// The variables of a hook about an instance, unchecked but for being UTF-8. An unset one is `None`, and so is one whose
/// value is the text `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawInstance {
    /// GANETI_OP_CODE.
    pub op_code: Option<String>,
    /// GANETI_INSTANCE_NAME.
    pub name: Option<String>,
    /// GANETI_INSTANCE_NEW_NAME.
    pub new_name: Option<String>,
    /// GANETI_INSTANCE_PRIMARY: the node it runs on.
    pub primary: Option<String>,
    /// GANETI_OLD_PRIMARY: the node it ran on before a migration or a failover.
    pub old_primary: Option<String>,
}

impl RawInstance {
    /// The instance in the environment of this process.
    ///
    /// # Errors
    /// If a value is not UTF-8.
    pub fn from_process() -> Result<Self> {
        Self::from_variables(variable)
    }

    /// The instance in the variables that `value` knows.
    ///
    /// # Errors
    /// As above.
    pub fn from_variables(mut value: impl FnMut(&str) -> Option<OsString>) -> Result<Self> {
        let mut get = |name| value(name).filter(is_set).map(|value| utf8(name, value)).transpose();
        Ok(Self {
            op_code: get("GANETI_OP_CODE")?,
            name: get("GANETI_INSTANCE_NAME")?,
            new_name: get("GANETI_INSTANCE_NEW_NAME")?,
            primary: get("GANETI_INSTANCE_PRIMARY")?,
            old_primary: get("GANETI_OLD_PRIMARY")?,
        })
    }
}

/// The NICs in the environment of this process, in the order of their indices.
///
/// # Errors
/// If their number is missing or is none, or a value is not UTF-8.
pub fn nics_from_process() -> Result<Vec<RawNic>> {
    nics_from_variables(variable)
}

/// The NICs in the variables that `value` knows.
///
/// # Errors
/// As above.
pub fn nics_from_variables(mut value: impl FnMut(&str) -> Option<OsString>) -> Result<Vec<RawNic>> {
    const COUNT: &str = "GANETI_INSTANCE_NIC_COUNT";
    let count = value(COUNT).filter(is_set).with_context(|| format!("{COUNT} is not set, expected a number"))?;
    let count = utf8(COUNT, count)?;
    let number = count.parse().ok().filter(|number| *number <= MAX_NICS && !count.starts_with('+'));
    let number: u32 = number.with_context(|| format!("{COUNT} {}: expected 0 to {MAX_NICS}", quoted(&count)))?;
    let mut nic = |n: u32| {
        RawNic::from_variables(Unset::EmptyOrNone, |name| match name {
            "INSTANCE" => value("GANETI_INSTANCE_NAME"),
            "TAGS" => value("GANETI_INSTANCE_TAGS"),
            "INTERFACE_INDEX" => Some(n.to_string().into()),
            // A hook knows neither TAP nor migration.
            "INTERFACE" | "MIGRATION_PHASE" => None,
            _ => value(&format!("GANETI_INSTANCE_NIC{n}_{}", name.strip_prefix("INTERFACE_").unwrap_or(name))),
        })
        .with_context(|| format!("NIC {n}"))
    };
    (0..number).map(&mut nic).collect()
}

fn is_set(value: &OsString) -> bool {
    !value.is_empty() && value != "None"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nic_has_the_variables_of_its_index() {
        let variables = [
            ("GANETI_INSTANCE_NAME", "vm1.example.org"),
            ("GANETI_INSTANCE_TAGS", "a b"),
            ("GANETI_INSTANCE_NIC_COUNT", "2"),
            ("GANETI_INSTANCE_NIC0_IP", "192.0.2.5"),
            ("GANETI_INSTANCE_NIC0_NAME", "front"),
            ("GANETI_INSTANCE_NIC1_IP", "None"),
            ("GANETI_INSTANCE_NIC1_NETWORK_TAGS", "dns"),
            ("GANETI_INSTANCE_NIC2_IP", "192.0.2.7"),
            ("INTERFACE", "tap0"),
        ];
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let nics = nics_from_variables(value).expect("two NICs");
        assert_eq!(nics.len(), 2);
        assert_eq!((nics[0].ip.as_deref(), nics[0].interface_name.as_deref()), (Some("192.0.2.5"), Some("front")));
        assert_eq!((nics[1].ip.as_deref(), nics[1].network_tags.as_deref()), (None, Some("dns")));
        assert_eq!((nics[1].interface_index.as_deref(), nics[1].interface.as_deref()), (Some("1"), None));
        assert_eq!((nics[1].instance.as_deref(), nics[1].tags.as_deref()), (Some("vm1.example.org"), Some("a b")));
        let instance = RawInstance::from_variables(value).expect("UTF-8");
        assert_eq!((instance.name.as_deref(), instance.primary), (Some("vm1.example.org"), None));
    }

    #[test]
    fn the_number_of_nics_is_a_small_number() {
        for (count, expected) in [
            (None, "GANETI_INSTANCE_NIC_COUNT is not set, expected a number"),
            (Some("None"), "GANETI_INSTANCE_NIC_COUNT is not set, expected a number"),
            (Some("x"), "GANETI_INSTANCE_NIC_COUNT \"x\": expected 0 to 256"),
            (Some("4294967295"), "GANETI_INSTANCE_NIC_COUNT \"4294967295\": expected 0 to 256"),
        ] {
            let found = nics_from_variables(|_| count.map(Into::into)).expect_err("no number");
            assert_eq!(found.to_string(), expected);
        }
        assert_eq!(nics_from_variables(|name| name.ends_with("COUNT").then(|| "0".into())).expect("none"), []);
    }
}
