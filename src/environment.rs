//! Variables as they come, Ganeti's and others': the only reader of the process environment.

mod hook;
mod xen;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, bail};

pub use self::hook::{RawInstance, nics_from_process, nics_from_variables};
pub use self::xen::{Backend, XenHotplug};
use crate::printable::quoted;

/// A variable of the process environment, as it is.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// TAPs of Ganeti's instance communication begin with this (INSTANCE_COMMUNICATION of its lib/constants.py).
const COMMUNICATION: &str = "gnt.com.";

/// Which values count as unset, besides a variable that is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// The empty one.
    Empty,
    /// The empty one and the text `None`, which hooks get.
    EmptyOrNone,
}

/// The variables of one NIC, unchecked but for being UTF-8. An unset one is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the variable of that name in upper case")]
pub struct RawNic {
    pub interface: Option<String>,
    pub interface_index: Option<String>,
    pub interface_name: Option<String>,
    pub interface_uuid: Option<String>,
    pub instance: Option<String>,
    pub mac: Option<String>,
    pub mode: Option<String>,
    pub link: Option<String>,
    pub vlan: Option<String>,
    pub bridge: Option<String>,
    pub ip: Option<String>,
    /// The instance's tags.
    pub tags: Option<String>,
    pub migration_phase: Option<String>,
    pub network_name: Option<String>,
    pub network_uuid: Option<String>,
    pub network_tags: Option<String>,
    pub network_subnet: Option<String>,
    pub network_gateway: Option<String>,
    pub network_subnet6: Option<String>,
    pub network_gateway6: Option<String>,
    pub network_mac_prefix: Option<String>,
}

impl RawNic {
    /// The NIC in the environment of this process. `argument` is the first of the command line, a TAP's name in Ganeti's
    /// eyes; it serves only where INTERFACE is unset.
    ///
    /// # Errors
    /// If a value is not UTF-8.
    pub fn from_process(argument: Option<&OsStr>) -> Result<Self> {
        let mut nic = Self::from_variables(Unset::Empty, variable)?;
        nic.complete_interface(argument)?;
        Ok(nic)
    }

    /// The NIC in the variables that `value` knows, by the names that Ganeti's scripts get (INTERFACE, MAC, ...).
    ///
    /// # Errors
    /// If a value is not UTF-8: the variable and the value.
    pub fn from_variables(unset: Unset, mut value: impl FnMut(&'static str) -> Option<OsString>) -> Result<Self> {
        let mut get = |name| {
            let Some(value) = value(name) else { return Ok(None) };
            let is_unset = value.is_empty() || (unset == Unset::EmptyOrNone && value == "None");
            if is_unset { Ok(None) } else { utf8(name, value).map(Some) }
        };
        Ok(Self {
            interface: get("INTERFACE")?,
            interface_index: get("INTERFACE_INDEX")?,
            interface_name: get("INTERFACE_NAME")?,
            interface_uuid: get("INTERFACE_UUID")?,
            instance: get("INSTANCE")?,
            mac: get("MAC")?,
            mode: get("MODE")?,
            link: get("LINK")?,
            vlan: get("VLAN")?,
            bridge: get("BRIDGE")?,
            ip: get("IP")?,
            tags: get("TAGS")?,
            migration_phase: get("MIGRATION_PHASE")?,
            network_name: get("NETWORK_NAME")?,
            network_uuid: get("NETWORK_UUID")?,
            network_tags: get("NETWORK_TAGS")?,
            network_subnet: get("NETWORK_SUBNET")?,
            network_gateway: get("NETWORK_GATEWAY")?,
            network_subnet6: get("NETWORK_SUBNET6")?,
            network_gateway6: get("NETWORK_GATEWAY6")?,
            network_mac_prefix: get("NETWORK_MAC_PREFIX")?,
        })
    }

    /// All variables by name, for the record.
    pub fn variables(&self) -> [(&'static str, Option<&str>); 21] {
        [
            ("INTERFACE", &self.interface),
            ("INTERFACE_INDEX", &self.interface_index),
            ("INTERFACE_NAME", &self.interface_name),
            ("INTERFACE_UUID", &self.interface_uuid),
            ("INSTANCE", &self.instance),
            ("MAC", &self.mac),
            ("MODE", &self.mode),
            ("LINK", &self.link),
            ("VLAN", &self.vlan),
            ("BRIDGE", &self.bridge),
            ("IP", &self.ip),
            ("TAGS", &self.tags),
            ("MIGRATION_PHASE", &self.migration_phase),
            ("NETWORK_NAME", &self.network_name),
            ("NETWORK_UUID", &self.network_uuid),
            ("NETWORK_TAGS", &self.network_tags),
            ("NETWORK_SUBNET", &self.network_subnet),
            ("NETWORK_GATEWAY", &self.network_gateway),
            ("NETWORK_SUBNET6", &self.network_subnet6),
            ("NETWORK_GATEWAY6", &self.network_gateway6),
            ("NETWORK_MAC_PREFIX", &self.network_mac_prefix),
        ]
        .map(|(name, value)| (name, value.as_deref()))
    }

    /// Takes the interface from the command line's first argument if no variable named it. Ganeti 3.0 to 3.2 can write
    /// it as Python shows bytes, `b'tap0'`.
    ///
    /// # Errors
    /// If it is needed and not UTF-8.
    pub fn complete_interface(&mut self, argument: Option<&OsStr>) -> Result<()> {
        if let (None, Some(argument)) = (&self.interface, argument.filter(|argument| !argument.is_empty())) {
            let text = utf8("the first argument", argument.to_owned())?;
            let unwrapped = ["'", "\""]
                .iter()
                .find_map(|quote| text.strip_prefix('b')?.strip_prefix(quote)?.strip_suffix(quote).map(str::to_owned));
            self.interface = Some(unwrapped.unwrap_or(text));
        }
        Ok(())
    }

    /// Whether the TAP belongs to Ganeti's own channel to the instance: then there is nothing for us to do.
    pub fn is_communication(&self) -> bool {
        self.interface.as_ref().is_some_and(|interface| interface.starts_with(COMMUNICATION))
    }
}

/// ifupdown's variables of an uplink, unchecked but for being UTF-8 (interfaces(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the variable of that name in upper case")]
pub struct IfupdownUplink {
    pub iface: Option<String>,
    /// `inet` or `inet6`.
    pub addrfam: Option<String>,
    /// `start` or `stop`.
    pub mode: Option<String>,
    pub if_ip_routing_table: Option<String>,
    pub if_ip_routes: Option<String>,
    pub if_ip_gateway: Option<String>,
    pub if_ip_onlink: Option<String>,
    pub if_ip_forwarding: Option<String>,
    pub if_ip_proxy_arp: Option<String>,
    pub if_ip_proxy_ndp: Option<String>,
    pub if_arp_ip: Option<String>,
}

impl IfupdownUplink {
    /// The uplink in the environment of this process.
    ///
    /// # Errors
    /// If a value is not UTF-8.
    pub fn from_process() -> Result<Self> {
        Self::from_variables(variable)
    }

    /// The uplink in the variables that `value` knows.
    ///
    /// # Errors
    /// If a value is not UTF-8.
    pub fn from_variables(mut value: impl FnMut(&'static str) -> Option<OsString>) -> Result<Self> {
        let mut get = |name| value(name).filter(|value| !value.is_empty()).map(|value| utf8(name, value)).transpose();
        Ok(Self {
            iface: get("IFACE")?,
            addrfam: get("ADDRFAM")?,
            mode: get("MODE")?,
            if_ip_routing_table: get("IF_IP_ROUTING_TABLE")?,
            if_ip_routes: get("IF_IP_ROUTES")?,
            if_ip_gateway: get("IF_IP_GATEWAY")?,
            if_ip_onlink: get("IF_IP_ONLINK")?,
            if_ip_forwarding: get("IF_IP_FORWARDING")?,
            if_ip_proxy_arp: get("IF_IP_PROXY_ARP")?,
            if_ip_proxy_ndp: get("IF_IP_PROXY_NDP")?,
            if_arp_ip: get("IF_ARP_IP")?,
        })
    }

    /// Whether the stanza asks for nothing of ours. Forwarding and proxying alone do not: others know these options, too
    /// (Debian's package vlan).
    pub fn asks_nothing(&self) -> bool {
        [&self.if_ip_routing_table, &self.if_ip_routes, &self.if_ip_gateway, &self.if_arp_ip]
            .into_iter()
            .all(Option::is_none)
    }
}

/// Whether the user wants no colour (NO_COLOR, as no-color.org has it: any value but the empty one).
pub fn no_color() -> bool {
    variable("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Who called, for the log: what is not printable is escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// ACTION of Ganeti 3.2, `up` or `down`.
    pub action: Option<String>,
    /// GANETI_HOOKS_PATH.
    pub hooks_path: Option<String>,
    /// GANETI_HOOKS_PHASE.
    pub hooks_phase: Option<String>,
    /// INTERFACE.
    pub interface: Option<String>,
    /// INSTANCE, or GANETI_INSTANCE_NAME of a hook.
    pub instance: Option<String>,
}

impl Caller {
    /// The caller as the environment of this process has it.
    pub fn from_process() -> Self {
        Self::from_variables(variable)
    }

    /// The caller in the variables that `value` knows.
    pub fn from_variables(mut value: impl FnMut(&'static str) -> Option<OsString>) -> Self {
        let mut get = |name| {
            let value = value(name).filter(|value| !value.is_empty())?;
            // Longer than any host's name.
            Some(value.to_string_lossy().chars().take(256).flat_map(char::escape_debug).collect())
        };
        Self {
            action: get("ACTION"),
            hooks_path: get("GANETI_HOOKS_PATH"),
            hooks_phase: get("GANETI_HOOKS_PHASE"),
            interface: get("INTERFACE"),
            instance: get("INSTANCE").or_else(|| get("GANETI_INSTANCE_NAME")),
        }
    }

    /// The hook, as the log names it; empty where there is none.
    pub fn hook(&self) -> String {
        [&self.hooks_path, &self.hooks_phase].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

fn utf8(name: &str, value: OsString) -> Result<String> {
    match value.into_string() {
        Ok(text) => Ok(text),
        Err(value) => bail!("{name} {}: expected UTF-8", quoted(&value.as_bytes().escape_ascii().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn raw(unset: Unset, variables: &[(&str, &str)]) -> RawNic {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        RawNic::from_variables(unset, value).expect("UTF-8")
    }

    #[test]
    fn every_variable_has_its_field() {
        let mut asked = Vec::new();
        let nic = RawNic::from_variables(Unset::Empty, |name| {
            asked.push(name);
            Some(name.to_lowercase().into())
        });
        let shown = format!("{:?}", nic.expect("UTF-8"));
        assert_eq!(asked.len(), 21);
        for name in asked {
            let name = name.to_lowercase();
            assert!(shown.contains(&format!("{name}: Some(\"{name}\")")), "{name} in {shown}");
        }
    }

    #[test]
    fn empty_values_are_unset_and_so_is_none_where_asked() {
        let variables = [("IP", ""), ("MAC", "None"), ("LINK", "none"), ("TAGS", " ")];
        let nic = raw(Unset::Empty, &variables);
        assert_eq!((nic.ip.as_deref(), nic.mac.as_deref()), (None, Some("None")));
        let nic = raw(Unset::EmptyOrNone, &variables);
        assert_eq!((nic.ip, nic.mac), (None, None));
        assert_eq!((nic.link.as_deref(), nic.tags.as_deref(), nic.mode), (Some("none"), Some(" "), None));
    }

    #[test]
    fn what_is_not_utf8_is_an_error() {
        let value = |name| (name == "TAGS").then(|| OsString::from_vec(b"a\xff\n".to_vec()));
        let error = RawNic::from_variables(Unset::Empty, value).expect_err("not UTF-8");
        assert_eq!(error.to_string(), r#"TAGS "a\\xff\\n": expected UTF-8"#);
        let mut nic = RawNic::default();
        let error = nic.complete_interface(Some(OsStr::from_bytes(b"\xff"))).expect_err("not UTF-8");
        assert_eq!(error.to_string(), r#"the first argument "\\xff": expected UTF-8"#);
    }

    #[test]
    fn the_variable_wins_over_the_argument() {
        for (variable, argument, expected) in [
            ("tap1", Some("tap0"), Some("tap1")),
            ("", Some("tap0"), Some("tap0")),
            ("", Some("b'tap0'"), Some("tap0")),
            ("", Some("b\"tap0\""), Some("tap0")),
            ("", Some("b'tap0"), Some("b'tap0")),
            ("", Some("b'"), Some("b'")),
            ("b'tap0'", None, Some("b'tap0'")),
            ("", Some(""), None),
            ("", None, None),
        ] {
            let mut nic = raw(Unset::Empty, &[("INTERFACE", variable)]);
            nic.complete_interface(argument.map(OsStr::new)).expect("UTF-8");
            assert_eq!(nic.interface.as_deref(), expected, "{variable} {argument:?}");
        }
        let mut nic = raw(Unset::Empty, &[("INTERFACE", "tap1")]);
        nic.complete_interface(Some(OsStr::from_bytes(b"\xff"))).expect("not needed");
    }

    #[test]
    fn communication_taps_are_known_by_their_name() {
        for (name, expected) in [("gnt.com.0", true), ("gnt.com", false), ("tap0", false), ("xgnt.com.0", false)] {
            assert_eq!(raw(Unset::Empty, &[("INTERFACE", name)]).is_communication(), expected, "{name}");
        }
        assert!(!RawNic::default().is_communication());
    }

    #[test]
    fn the_caller_is_kept_in_printable_form() {
        let caller = Caller::from_variables(|name| match name {
            "ACTION" => Some("up".into()),
            "GANETI_HOOKS_PATH" => Some("a\n\u{1b}".repeat(100).into()),
            _ => Some("".into()),
        });
        assert_eq!(caller.action.as_deref(), Some("up"));
        assert!(caller.hooks_path.is_some_and(|path| path.starts_with(r"a\n\u{1b}") && path.len() < 3000));
        assert_eq!(caller.hooks_phase, None);
    }
}
