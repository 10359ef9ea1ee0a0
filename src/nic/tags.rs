//! Tags. They are written by users: they are compared, and kept only where every character is harmless.

use std::fmt;

use crate::addr::Family;
use crate::environment::RawNic;
use crate::settings::{Settings, Setup, Setups};

/// What begins an instance's tag that is about one NIC: `synnefo:network:<index|name|uuid>:<profile>`.
pub(super) const ABOUT_NIC: &str = "synnefo:network:";

/// How far a guest is protected from the outside, the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "protected" => Some(Self::Protected),
            "limited" => Some(Self::Limited),
            "unprotected" => Some(Self::Unprotected),
            _ => None,
        }
    }
}

/// What the instance's tags (TAGS) say of one NIC, in whatever order they come: Ganeti keeps them in a set, whose order is another
/// one in each of its processes.
pub(super) struct InstanceTags {
    /// The strictest profile that is about this NIC, else of those about all.
    pub(super) firewall: Option<Profile>,
    /// Families switched off, in the order of [`Family::BOTH`].
    pub(super) disabled: [bool; 2],
    /// The harmless tags, sorted, between single spaces.
    pub(super) plain: String,
}

impl InstanceTags {
    pub(super) fn new(raw: &RawNic) -> Self {
        let mut disabled = [false; 2];
        let (mut of_nic, mut of_all, mut plain) = (None, None, Vec::new());
        let names = [&raw.interface_index, &raw.interface_name, &raw.interface_uuid];
        for tag in raw.tags.as_deref().unwrap_or_default().split_ascii_whitespace() {
            let (found, profile) = match tag.strip_prefix(ABOUT_NIC).and_then(|rest| rest.rsplit_once(':')) {
                Some((nic, profile)) if names.iter().any(|name| name.as_deref() == Some(nic)) => (&mut of_nic, profile),
                Some(_) => (&mut of_nic, ""),
                None => (&mut of_all, tag),
            };
            *found = [*found, Profile::of(profile)].into_iter().flatten().min();
            match tag {
                "disable_ipv4" => disabled[Family::V4 as usize] = true,
                "disable_ipv6" => disabled[Family::V6 as usize] = true,
                _ => {}
            }
            if tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+*/:@-".contains(&b)) {
                plain.push(tag);
            }
        }
        plain.sort_unstable();
        Self { firewall: of_nic.or(of_all), disabled, plain: plain.join(" ") }
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
