//! How the packets of routed NICs come to their routing table.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use crate::model::mark::{Mark, number};
use crate::object::RuleSelector;

/// The way of routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// A policy rule by the TAP, one for each NIC. The mark is for what the node itself sends about guests' packets.
    Rule,
    /// A mark that nf_tables gives to what comes from a TAP, and one policy rule by it for each table; behind it the same rule
    /// by the TAP, for what has no mark.
    Mark,
}

/// The mark of a routing table, and which of the packets with it are routed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fwmark {
    /// The mark.
    pub mark: Mark,
    /// All with ROUTING=mark, else what the node itself sends.
    pub routing: Routing,
}

impl Fwmark {
    /// What the policy rule by the mark selects.
    pub fn selector(self) -> RuleSelector {
        match self.routing {
            Routing::Rule => RuleSelector::LocalMark(self.mark),
            Routing::Mark => RuleSelector::Mark(self.mark),
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rule => "rule",
            Self::Mark => "mark",
        })
    }
}

impl FromStr for Routing {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "rule" => Ok(Self::Rule),
            "mark" => Ok(Self::Mark),
            _ => bail!("expected rule or mark"),
        }
    }
}

/// The bits of a packet's mark that are ours; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkMask(u32);

impl MarkMask {
    /// Unless the settings say another: room for tables up to 4095.
    pub const DEFAULT: Self = Self(0xfff0_0000);

    /// The mask of a mark.
    pub fn of(mark: Mark) -> Self {
        Self(mark.mask)
    }

    /// Whether a mark has bits of this mask, and is of another one: packets with the one may match the other.
    pub fn meets(self, mark: Mark) -> bool {
        mark.mask != self.0 && mark.mask & self.0 != 0
    }

    /// The mark of a routing table: its number, bit by bit from the lowest bit of the mask on; none where it has more bits
    /// than the mask.
    pub fn of_table(self, table: u32) -> Option<Mark> {
        let (mut value, mut left) = (0, table);
        for bit in (0..u32::BITS).map(|place| 1 << place).filter(|bit| self.0 & bit != 0) {
            value |= if left & 1 == 0 { 0 } else { bit };
            left >>= 1;
        }
        (left == 0 && value != 0).then_some(Mark { value, mask: self.0 })
    }
}

impl fmt::Display for MarkMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl FromStr for MarkMask {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mask = number(text).unwrap_or(0);
        ensure!(mask != 0, "expected a number of 32 bits such as {}, not 0", Self::DEFAULT);
        Ok(Self(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_mark_of_its_own_within_the_mask() {
        let mark =
            |mask: &str, table| mask.parse::<MarkMask>().expect("a mask").of_table(table).map(|it| it.to_string());
        for (mask, table, expected) in [
            ("0xfff00000", 100, Some("0x6400000/0xfff00000")),
            ("0xfff00000", 4095, Some("0xfff00000/0xfff00000")),
            ("0xfff00000", 4096, None),
            ("0xffffffff", u32::MAX, Some("0xffffffff/0xffffffff")),
            // Bits that do not lie side by side.
            ("0x8010100", 5, Some("0x8000100/0x8010100")),
            ("256", 1, Some("0x100/0x100")),
            ("256", 2, None),
        ] {
            assert_eq!(mark(mask, table).as_deref(), expected, "{mask} {table}");
        }
        for wrong in ["0", "0x", "-1", "0x1ffffffff", "mask"] {
            wrong.parse::<MarkMask>().expect_err(wrong);
        }
    }

    #[test]
    fn marks_meet_under_masks_with_bits_in_common() {
        let mask: MarkMask = "0xfff00000".parse().expect("a mask");
        for (mark, expected) in [
            ("0x6400000/0xfff00000", false),
            ("0x6000000/0xff000000", true),
            ("0x100000/0x100000", true),
            ("0x6400/0xff00", false),
            ("0x1/0xffffffff", true),
        ] {
            assert_eq!(mask.meets(mark.parse().expect("a mark")), expected, "{mark}");
        }
    }

    #[test]
    fn a_mark_is_read_as_it_is_written() {
        let mark = MarkMask::DEFAULT.of_table(100).expect("a mark");
        assert_eq!(mark.to_string().parse::<Mark>().expect("a mark"), mark);
        for wrong in ["0x1", "0x1/", "/0x1", "0x2/0x1", "1/2/3"] {
            wrong.parse::<Mark>().expect_err(wrong);
        }
    }
}
