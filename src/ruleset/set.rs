//! Sets, maps and their elements.

use std::fmt;

use super::{Comment, Datatype, Field, Name, TABLE, TableFamily, Value, concatenation};

/// A set, or a map where it has `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: Name,
    /// The parts of its key.
    pub key: Vec<Datatype>,
    /// What a key maps to.
    pub data: Option<Datatype>,
    /// Whether each element counts the packets for which a rule finds it (Linux 5.7; before, none does).
    pub counter: bool,
    /// What it is for.
    pub comment: Option<Comment>,
}

impl Set {
    /// A set of keys of these parts.
    pub fn new<const PARTS: usize>(name: impl Into<Name>, key: [Datatype; PARTS]) -> Self {
        Self { name: name.into(), key: key.into(), data: None, counter: false, comment: None }
    }

    /// Whether the key holds raw bits, which have no name as a type: nft takes an example of each part then.
    pub fn is_by_example(&self) -> bool {
        self.key.iter().any(|part| matches!(part, Datatype::Raw(_)))
    }

    /// What its elements are: `type ifname : ipv4_addr`, or `typeof iifname . @th,64,128`.
    pub fn datatypes(&self) -> String {
        let by_example = self.is_by_example();
        let part = |part: &Datatype| match part {
            Datatype::IfName if by_example => Field::IifName.to_string(),
            part => part.to_string(),
        };
        let key: Vec<_> = self.key.iter().map(part).collect();
        let data = self.data.map(|data| format!(" : {data}")).unwrap_or_default();
        format!("{} {}{data}", if by_example { "typeof" } else { "type" }, key.join(" . "))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.data.is_some() { "map" } else { "set" };
        write!(f, "\t{kind} {} {{\n\t\t{}", self.name, self.datatypes())?;
        if self.counter {
            f.write_str("\n\t\tcounter")?;
        }
        if let Some(comment) = &self.comment {
            write!(f, "\n\t\t{comment}")?;
        }
        f.write_str("\n\t}\n")
    }
}

/// An element of a set or map of [`TABLE`]. Displayed, it is the line that adds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The family of the table.
    pub family: TableFamily,
    /// The name of the set.
    pub set: Name,
    /// Its key, part by part.
    pub key: Vec<Value>,
    /// What the key maps to.
    pub data: Option<Value>,
    /// Whose it is.
    pub comment: Option<Comment>,
}

impl Element {
    /// Writes what is displayed without the verb: `element ...`.
    ///
    /// # Errors
    /// Those of the formatter.
    pub fn write_object(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "element {} {TABLE} {} {{ ", self.family, self.set)?;
        concatenation(f, &self.key)?;
        if let Some(comment) = &self.comment {
            write!(f, " {comment}")?;
        }
        if let Some(data) = &self.data {
            write!(f, " : {data}")?;
        }
        f.write_str(" }")
    }

    /// The line that deletes it.
    pub fn deletion(&self) -> Deletion<'_> {
        Deletion(self)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("add ")?;
        self.write_object(f)
    }
}

/// Displays the line that deletes an element.
#[derive(Clone, Copy, Debug)]
pub struct Deletion<'a>(&'a Element);

impl fmt::Display for Deletion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delete element {} {TABLE} {} {{ ", self.0.family, self.0.set)?;
        concatenation(f, &self.0.key)?;
        f.write_str(" }")
    }
}
