//! Tags. They are written by users: they are compared, and kept only where every character is harmless.

use std::fmt;

use crate::addr::Family;
use crate::environment::RawNic;
use crate::settings::{Settings, Setup, Setups};

/// What begins an instance's tag that is about one NIC: `synnefo:network:<index|name|uuid>:<profile>`.
const ABOUT_NIC: &str = "synnefo:network:";

/// How far a guest is protected from the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// No connection requests.
    Protected,
    /// Those of SSH and RDP only.
    Limited,
    /// All.
    Unprotected,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protected => "protected",
            Self::Limited => "limited",
            Self::Unprotected => "unprotected",
        })
    }
}

impl Profile {
    fn of(name: &str) -> Option<Self> {
        match name {
            "protected" => Some(Self::Protected),
            "limited" => Some(Self::Limited),
            "unprotected" => Some(Self::Unprotected),
            _ => None,
        }
    }
}

/// What the instance's tags (TAGS) say of one NIC.
pub(super) struct InstanceTags {
    /// The last profile that is about this NIC or about all.
    pub(super) firewall: Option<Profile>,
    /// Families switched off, in the order of [`Family::BOTH`].
    pub(super) disabled: [bool; 2],
    /// The harmless tags, between single spaces.
    pub(super) plain: String,
}

impl InstanceTags {
    pub(super) fn new(raw: &RawNic) -> Self {
        let mut found = Self { firewall: None, disabled: [false; 2], plain: String::new() };
        let names = [&raw.interface_index, &raw.interface_name, &raw.interface_uuid];
        for tag in raw.tags.as_deref().unwrap_or_default().split_ascii_whitespace() {
            let profile = match tag.strip_prefix(ABOUT_NIC).and_then(|rest| rest.rsplit_once(':')) {
                Some((nic, profile)) if names.iter().any(|name| name.as_deref() == Some(nic)) => profile,
                Some(_) => "",
                None => tag,
            };
            match tag {
                "disable_ipv4" => found.disabled[Family::V4 as usize] = true,
                "disable_ipv6" => found.disabled[Family::V6 as usize] = true,
                _ => found.firewall = Profile::of(profile).or(found.firewall),
            }
            if tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+*/:@-".contains(&b)) {
                if !found.plain.is_empty() {
                    found.plain.push(' ');
                }
                found.plain.push_str(tag);
            }
        }
        found
    }
}

/// The setups that the network's tags (NETWORK_TAGS) select.
pub(super) fn setups(tags: &str, settings: &Settings) -> Setups {
    let mut setups = Setups::default();
    for tag in tags.split_ascii_whitespace() {
        for setup in Setup::ALL {
            if tag == settings.tag(setup) {
                setups.insert(setup);
            }
        }
    }
    setups
}
