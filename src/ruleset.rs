//! The vocabulary of nf_tables as data: tables, sets, chains, rules, elements. Displayed, it is nft's own syntax.

mod field;
mod set;
mod statement;
mod value;

use std::borrow::Cow;
use std::fmt::{self, Write as _};

pub use field::{Field, Raw, RawHeader, Selector};
pub use set::{Deletion, Element, Set};
pub use statement::{Equality, Statement};
pub use value::{Comment, Datatype, Value};

/// The name of a set or a chain: fixed, or made of what it depends on.
pub type Name = Cow<'static, str>;

/// The name of all our tables, one in each family that is needed.
pub const TABLE: &str = "snf-network";

/// The family of a table: which packets its chains see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// ARP of the node itself.
    Arp,
    /// Frames that cross a bridge.
    Bridge,
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
        })
    }
}

/// The table [`TABLE`] of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its family.
    pub family: TableFamily,
    /// Its sets and maps.
    pub sets: Vec<Set>,
    /// Its chains.
    pub chains: Vec<Chain>,
}

impl Group {
    /// How many references a complete table holds to `chain`: its rules and the jumps to it (NFTA_CHAIN_USE).
    pub fn references(&self, chain: &Chain) -> usize {
        let leads_here = |statement: &&Statement| matches!(statement, Statement::Jump(target) | Statement::Goto(target) if *target == chain.name);
        let statements = self.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.0);
        chain.rules.len() + statements.filter(leads_here).count()
    }

    /// The sets and maps that a packet may be looked up in when it enters `chain`, with those of the chains that this leads to.
    pub fn looked_up(&self, chain: &Chain) -> Vec<&Name> {
        let mut names: Vec<&Name> = vec![];
        let mut chains: Vec<&Chain> = self.chains.iter().filter(|it| it.name == chain.name).collect();
        let mut place = 0;
        while let Some(chain) = chains.get(place) {
            for statement in chain.rules.iter().flat_map(|rule| &rule.0) {
                match statement {
                    Statement::Lookup { set: name, .. } | Statement::Write { map: name, .. } => names.push(name),
                    Statement::Jump(target) | Statement::Goto(target) => {
                        let new = |it: &&Chain| it.name == *target && !chains.iter().any(|known| known.name == it.name);
                        let found = self.chains.iter().find(new);
                        chains.extend(found);
                    }
                    _ => {}
                }
            }
            place += 1;
        }
        names
    }

    /// The lines that empty the table's chains where they stand already: without them, what adds the table would add its
    /// rules once more.
    pub fn emptying(&self) -> String {
        let mut lines = format!("add table {} {TABLE}\n", self.family);
        for chain in &self.chains {
            let hook = chain.hook.map(|it| format!(" {it}")).unwrap_or_default();
            lines +=
                &format!("add chain {} {TABLE} {} {{ {};{hook} }}\n", self.family, chain.name, chain.fingerprint());
            lines += &format!("flush chain {} {TABLE} {}\n", self.family, chain.name);
        }
        lines
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {TABLE} {{", self.family)?;
        for set in &self.sets {
            write!(f, "{set}")?;
        }
        for chain in &self.chains {
            writeln!(f, "\tchain {} {{\n\t\t{}\n{chain}\t}}", chain.name, chain.fingerprint())?;
        }
        f.write_str("}\n")
    }
}

/// Where a base chain sits on the way of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookPoint {
    /// All that came in, before routing or the bridge's own decision.
    Prerouting,
    /// To the node itself.
    Input,
    /// Through the node.
    Forward,
    /// From the node itself.
    Output,
    /// All that leaves.
    Postrouting,
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

/// What makes a chain a base chain: of type filter, with policy accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hook {
    /// Where.
    pub point: HookPoint,
    /// Before (lower) or after (higher) the other chains there.
    pub priority: i32,
}

/// A chain of rules; without a hook, only a jump leads to it. Displayed, it is what stands in its braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: Name,
    /// Where packets enter it.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// The comment the chain carries: a digest of its hook and rules (FNV-1a, 32 bits). By it a later run sees, without
    /// reading the rules, that another version of this program or another setting made them.
    pub fn fingerprint(&self) -> Comment {
        Comment::new(&format!("rules {:08x}", digest(self)))
    }
}

/// The digest of what something is displayed as (FNV-1a, 32 bits).
pub fn digest(displayed: &impl fmt::Display) -> u32 {
    let mut digest = Fnv1a(0x811c_9dc5);
    let _infallible = write!(digest, "{displayed}");
    digest.0
}

/// The digest of what is written into it.
struct Fnv1a(u32);

impl fmt::Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text.bytes().fold(self.0, |digest, byte| (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Ok(())
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type filter hook {} priority {}; policy accept;", self.point, self.priority)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hook) = self.hook {
            writeln!(f, "\t\t{hook}")?;
        }
        self.rules.iter().try_for_each(|rule| {
            f.write_str("\t\t")?;
            rule.fmt(f)?;
            f.write_str("\n")
        })
    }
}

/// A rule: statements carried out in order as long as each matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(pub Vec<Statement>);

impl<const LENGTH: usize> From<[Statement; LENGTH]> for Rule {
    fn from(statements: [Statement; LENGTH]) -> Self {
        Self(statements.into())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        separated(f, &self.0, " ")
    }
}

fn concatenation(f: &mut fmt::Formatter<'_>, parts: &[impl fmt::Display]) -> fmt::Result {
    separated(f, parts, " . ")
}

fn separated(f: &mut fmt::Formatter<'_>, parts: &[impl fmt::Display], separator: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        // Not write!, which would cost as much again: these are the most of what a run puts into words.
        f.write_str(if index == 0 { "" } else { separator })?;
        part.fmt(f)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
