//! The setups that a network's tags select.

/// A setup, in the order in which its parts are described in the settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Proxy ARP and proxy NDP on a node without an address of the network.
    IpLessRouted,
    /// Isolation by source MAC and MAC prefix on a shared bridge.
    PrivateFiltered,
    /// A binding file for nfdhcpd.
    Nfdhcpd,
    /// Reserved.
    Masq,
    /// Records in the domain name system.
    Dns,
    /// A bridge port and nothing else.
    Bridged,
    /// A public network; selects nothing more.
    Public,
    /// Own addresses only, and nothing that routers and servers say.
    StrictFiltered,
}

impl Setup {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::IpLessRouted,
        Self::PrivateFiltered,
        Self::Nfdhcpd,
        Self::Masq,
        Self::Dns,
        Self::Bridged,
        Self::Public,
        Self::StrictFiltered,
    ];

    /// The key of the settings file that names this setup's tag.
    pub fn key(self) -> &'static str {
        match self {
            Self::IpLessRouted => "IP_LESS_ROUTED_TAG",
            Self::PrivateFiltered => "MAC_FILTERED_TAG",
            Self::Nfdhcpd => "NFDHCPD_TAG",
            Self::Masq => "MASQ_TAG",
            Self::Dns => "DNS_TAG",
            Self::Bridged => "BRIDGED_TAG",
            Self::Public => "PUBLIC_TAG",
            Self::StrictFiltered => "STRICT_FILTERED_TAG",
        }
    }

    /// Whether its tag restricts what the guest sends or hears: without it, a guest could do more than was meant.
    pub fn restricts(self) -> bool {
        match self {
            Self::IpLessRouted | Self::PrivateFiltered | Self::StrictFiltered => true,
            Self::Nfdhcpd | Self::Masq | Self::Dns | Self::Bridged | Self::Public => false,
        }
    }

    /// The tag, unless the settings name another.
    pub fn default_tag(self) -> &'static str {
        match self {
            Self::IpLessRouted => "ip-less-routed",
            Self::PrivateFiltered => "private-filtered",
            Self::Nfdhcpd => "nfdhcpd",
            Self::Masq => "masq",
            Self::Dns => "dns",
            Self::Bridged => "bridged",
            Self::Public => "public",
            Self::StrictFiltered => "strict-filtered",
        }
    }
}

/// A set of setups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setups(u16);

// Each setup has a bit of its own in `Setups`, and `Setup::ALL` is in the order of the declaration.
const _: () = {
    let mut place = 0;
    while place < Setup::ALL.len() {
        assert!(Setup::ALL[place] as usize == place);
        place += 1;
    }
    assert!(Setup::ALL.len() <= u16::BITS as usize);
};

impl Setups {
    /// Whether none is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `setup` is in it.
    pub fn contains(self, setup: Setup) -> bool {
        self.0 & (1 << setup as u8) != 0
    }

    /// Puts `setup` in.
    pub fn insert(&mut self, setup: Setup) {
        self.0 |= 1 << setup as u8;
    }

    /// Those in it, in the order of [`Setup::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Setup> {
        Setup::ALL.into_iter().filter(move |setup| self.contains(*setup))
    }
}
