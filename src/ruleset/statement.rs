//! What the steps of a rule do.

use std::fmt;

use super::{Field, Name, Selector, Value, concatenation};

/// Whether a match wants what it compares equal (or in the set), or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Equality {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// A step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Compares a field with a constant of its data type: `ip6 saddr fe80::/64`.
    Match {
        /// Looked at.
        selector: Selector,
        /// Wanted.
        equality: Equality,
        /// Compared with.
        value: Value,
    },
    /// Looks fields up in a set: `iifname . ip saddr @sources4`.
    Lookup {
        /// Looked up together, in the order of the set's key.
        selectors: Vec<Selector>,
        /// Wanted: in the set, or not.
        equality: Equality,
        /// Name of the set, of the same table.
        set: Name,
    },
    /// Writes into the packet what a map holds for fields, and corrects the checksums; a packet without an entry goes on to the next
    /// rule: `arp saddr ip set oifname map @arp_source`.
    Write {
        /// Written.
        field: Field,
        /// Looked up together, in the order of the map's key.
        selectors: Vec<Selector>,
        /// Name of the map, of the same table.
        map: Name,
    },
    /// Writes the bits of a field that the mask has, and leaves its others as they are:
    /// `meta mark set meta mark & 0x000fffff ^ 0x06400000`.
    WriteBits {
        /// Written.
        field: Field,
        /// Which bits.
        mask: Value,
        /// What they become; no bits that the mask lacks.
        value: Value,
    },
    /// Counts packets and bytes.
    Counter,
    /// Lets the packet go on, to the next base chain.
    Accept,
    /// Drops the packet.
    Drop,
    /// Goes back to the chain that jumped here.
    Return,
    /// Goes on in another chain, and here again after it.
    Jump(Name),
    /// Goes on in another chain for good.
    Goto(Name),
}

impl Statement {
    /// Matches where `selector` is `value`.
    pub fn equal(selector: impl Into<Selector>, value: Value) -> Self {
        Self::Match { selector: selector.into(), equality: Equality::Equal, value }
    }

    /// Matches where `selector` is not `value`.
    pub fn not_equal(selector: impl Into<Selector>, value: Value) -> Self {
        Self::Match { selector: selector.into(), equality: Equality::NotEqual, value }
    }

    /// Matches where `selectors` together stand in `set`.
    pub fn contained<const PARTS: usize>(selectors: [Selector; PARTS], set: impl Into<Name>) -> Self {
        Self::Lookup { selectors: selectors.into(), equality: Equality::Equal, set: set.into() }
    }

    /// Matches where `selectors` together do not stand in `set`.
    pub fn not_contained<const PARTS: usize>(selectors: [Selector; PARTS], set: impl Into<Name>) -> Self {
        Self::Lookup { selectors: selectors.into(), equality: Equality::NotEqual, set: set.into() }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match { selector: Selector { field, mask: None }, equality, value } => {
                field.fmt(f)?;
                f.write_str(" ")?;
                f.write_str(not(*equality))?;
                value.fmt(f)
            }
            Self::Match { selector: Selector { field, mask: Some(mask) }, equality, value } => {
                let value = value.masked(mask);
                match (mask.prefix_length(), equality) {
                    (Some(length), _) => write!(f, "{field} {}{value}/{length}", not(*equality)),
                    (None, Equality::Equal) => write!(f, "{field} & {mask} == {value}"),
                    (None, Equality::NotEqual) => write!(f, "{field} & {mask} != {value}"),
                }
            }
            Self::Lookup { selectors, equality, set } => {
                concatenation(f, selectors)?;
                f.write_str(" ")?;
                f.write_str(not(*equality))?;
                f.write_str("@")?;
                f.write_str(set)
            }
            Self::Write { field, selectors, map } => {
                write!(f, "{field} set ")?;
                concatenation(f, selectors)?;
                write!(f, " map @{map}")
            }
            Self::WriteBits { field, mask, value } => {
                write!(f, "{field} set {field} & {} ^ {}", mask.inverted(), value.masked(mask))
            }
            Self::Counter => f.write_str("counter"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

fn not(equality: Equality) -> &'static str {
    match equality {
        Equality::Equal => "",
        Equality::NotEqual => "!= ",
    }
}
