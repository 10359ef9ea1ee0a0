//! Packet marks.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

/// Some bits of a packet's mark (skb->mark).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// What the bits are; none that the mask lacks.
    pub value: u32,
    /// Which bits.
    pub mask: u32,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

impl FromStr for Mark {
    type Err = anyhow::Error;

    /// Undoes Display.
    fn from_str(text: &str) -> Result<Self> {
        let expected = "expected a mark VALUE/MASK";
        let (value, mask) = text.split_once('/').context(expected)?;
        let [value, mask] = [value, mask].map(number);
        let mark = Self { value: value.context(expected)?, mask: mask.context(expected)? };
        ensure!(mark.value & !mark.mask == 0, expected);
        Ok(mark)
    }
}

/// A number as iproute2 takes it: decimal, or hexadecimal behind `0x`.
///
/// # Errors
/// If it is none, or has more than 32 bits.
pub fn number(text: &str) -> Result<u32, ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
}
