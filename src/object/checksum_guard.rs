//! What finishes every checksum that a guest left to the kernel, before bridge and nf_tables see the frame: see docs/setups.md.

use std::fmt;

use super::{GROUP_NODE, Key, Kind, Lifetime, Phase, Verb};
use crate::ruleset::digest;

/// The filters that all guarded TAPs share, and the device that finishes what no filter does: the frame leaves by it and comes back
/// where it came in. Made once on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumGuard {
    /// Whether the action csum finishes those of TCP, and leaves GSO frames whole. It writes a checksum where the headers say that it
    /// belongs, not where the guest says. It is not asked for UDP, of which it loses GSO frames, and nothing is gained for the rest.
    pub act_csum: bool,
}

/// One filter of kind u32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its place among them, 1 to 0xfff, by which it is known.
    pub node: u16,
    /// It matches the frames that have all of these.
    pub words: Vec<Word>,
    /// What becomes of that.
    pub action: FilterAction,
}

/// A word of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// What its octets are, the first one in the highest bits.
    pub value: u32,
    /// Which of its bits count.
    pub mask: u32,
    /// Where it begins: octets behind the Ethernet header.
    pub offset: i32,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterAction {
    /// The checksum of TCP is written, if it was left to the kernel, and no further filter looks at the frame.
    Tcp,
    /// It leaves by the device.
    Redirect,
}

impl ChecksumGuard {
    /// The block of the filters: `tc filter show block 218`.
    pub const BLOCK: u32 = 218;
    /// The device, an ifb without checksum offload: `ip link show dev snf-checksum`.
    pub const DEVICE: &str = "snf-checksum";
    /// The node of the filter that matches everything.
    pub const REST: u16 = 0x10;

    /// In the order of their nodes. Without any but the last no frame passes unfinished.
    pub fn filters(&self) -> Vec<Filter> {
        let word = |value, mask, offset| Word { value, mask, offset };
        // The ether type, the protocol; of IPv4 also that there are neither options nor fragments.
        let ipv4 = vec![
            word(0x0800, 0xffff, -4),
            word(0x4500_0000, 0xff00_0000, 0),
            word(0, 0x3fff, 4),
            word(6 << 16, 0xff << 16, 8),
        ];
        let ipv6 = vec![word(0x86dd, 0xffff, -4), word(6 << 8, 0xff << 8, 4)];
        let everything = Filter { node: Self::REST, words: vec![word(0, 0, 0)], action: FilterAction::Redirect };
        let tcp = |node, words| Filter { node, words, action: FilterAction::Tcp };
        if self.act_csum { vec![tcp(1, ipv4), tcp(2, ipv6), everything] } else { vec![everything] }
    }

    /// What the last filter carries when all others are there: a digest of them. By it one answer tells that they are complete, and
    /// which they are.
    pub fn cookie(&self) -> [u8; 4] {
        let lines: Vec<_> = self.filters().iter().map(|filter| Line { filter, cookie: None }.to_string()).collect();
        digest(&lines.concat()).to_be_bytes()
    }
}

impl Kind for ChecksumGuard {
    const PHASE: Phase = Phase::Guard;

    fn key(&self) -> Key<'_> {
        Key::ChecksumGuard
    }

    fn lifetime(&self) -> Lifetime<'_> {
        Lifetime::Shared
    }

    fn command(&self, verb: Verb) -> String {
        let (device, block) = (Self::DEVICE, Self::BLOCK);
        if verb == Verb::Remove {
            return format!("ip link del dev {device}");
        }
        // Where they exist, iproute2 says so and fails.
        let mut lines = vec![
            format!("ip link add name {device} group {GROUP_NODE} type ifb || :"),
            format!("ip link set dev {device} addrgenmode none"),
            format!("ethtool -K {device} tx off"),
            format!("tc qdisc add dev {device} ingress_block {block} clsact || :"),
        ];
        lines.extend(self.filters().iter().map(|filter| {
            let cookie = (filter.node == Self::REST).then(|| self.cookie());
            Line { filter, cookie }.to_string()
        }));
        lines.push(format!("ip link set dev {device} up"));
        lines.join("\n")
    }

    fn describe(&self) -> String {
        format!("device {} and tc filter block {}", Self::DEVICE, Self::BLOCK)
    }

    fn line(&self, _: Verb) -> String {
        self.describe()
    }
}

/// A filter as the command that makes it.
struct Line<'a> {
    filter: &'a Filter,
    cookie: Option<[u8; 4]>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Filter { node, words, action } = self.filter;
        write!(f, "tc filter replace block {} protocol all prio 1 handle 800::{node:x} u32", ChecksumGuard::BLOCK)?;
        for Word { value, mask, offset } in words {
            write!(f, " match u32 {value:#010x} {mask:#010x} at {offset}")?;
        }
        match action {
            FilterAction::Tcp => f.write_str(" action csum tcp")?,
            FilterAction::Redirect => write!(f, " action mirred egress redirect dev {}", ChecksumGuard::DEVICE)?,
        }
        match self.cookie {
            Some(cookie) => write!(f, " cookie {:08x}", u32::from_be_bytes(cookie)),
            None => Ok(()),
        }
    }
}
