//! Policy rules: which routing table a packet is looked up in.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

use super::Verb;
use crate::addr::{Family, IfName};

/// `ip rule add iif IIF lookup TABLE`, or `... fwmark VALUE/MASK lookup TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rules are kept per family.
    pub family: Family,
    /// Which packets.
    pub selector: RuleSelector,
    /// The table it selects.
    pub table: u32,
    /// Lower is looked at earlier.
    pub preference: u32,
    /// Whose it is.
    pub protocol: u8,
    /// Others rely on it too: it is made where it is missing, and stays.
    pub shared: bool,
}

/// Which packets a rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleSelector {
    /// By their input interface, by name: the rule survives the interface.
    Iif(IfName),
    /// By their mark.
    Mark(Mark),
}

/// Some bits of a packet's mark (skb->mark).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// What the bits are; none that the mask lacks.
    pub value: u32,
    /// Which bits.
    pub mask: u32,
}

impl Rule {
    /// The command of iproute2 that makes or removes it.
    pub(super) fn command(&self, verb: Verb) -> String {
        let action = match verb {
            Verb::Remove => "del",
            Verb::Add => "add",
        };
        let Self { family, selector, table, preference, protocol, .. } = self;
        let option = family.ip_option();
        format!("ip {option} rule {action} {selector} lookup {table} pref {preference} protocol {protocol}")
    }
}

impl fmt::Display for RuleSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iif(name) => write!(f, "iif {name}"),
            Self::Mark(mark) => write!(f, "fwmark {mark}"),
        }
    }
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
