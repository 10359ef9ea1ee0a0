//! What is wanted for one NIC or one uplink, as data. Making one is pure.

use std::fmt;
use std::sync::Arc;

use super::{Object, Rule, Verb};
use crate::announce::Announcement;
use crate::ruleset::{Element, Group};

/// What is wanted, filters first. Displayed, it is the `ip`, `nft` and `echo` commands that would do the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Base objects of nf_tables, shared by all NICs and never removed.
    pub tables: Vec<Arc<Group>>,
    /// Elements of their sets and maps.
    pub elements: Vec<Element>,
    /// Everything else, in the order of its phases.
    pub objects: Vec<Object>,
    /// What the neighbours are told at the end.
    pub announcements: Vec<Announcement>,
}

impl Plan {
    /// Adds an object behind those of its phase, so that the order in which a setup adds objects of different phases does not matter.
    pub fn push(&mut self, object: impl Into<Object>) {
        let object = object.into();
        let place = self.objects.partition_point(|it| it.phase() <= object.phase());
        self.objects.insert(place, object);
    }

    /// Adds objects as [`Plan::push`] does.
    pub fn extend(&mut self, objects: impl IntoIterator<Item = impl Into<Object>>) {
        objects.into_iter().for_each(|object| self.push(object));
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tables.is_empty() || !self.elements.is_empty() {
            writeln!(f, "nft -f - <<'EOF'")?;
            for table in &self.tables {
                write!(f, "{}{table}", table.emptying())?;
            }
            for element in &self.elements {
                writeln!(f, "{element}")?;
            }
            writeln!(f, "EOF")?;
        }
        for object in &self.objects {
            let command = object.command(Verb::Add);
            match object {
                _ if command.is_empty() => {}
                // Where it exists, iproute2 says so and fails.
                Object::Rule(Rule { shared: true, .. }) => writeln!(f, "{command} || :")?,
                _ => writeln!(f, "{command}")?,
            }
        }
        for announcement in &self.announcements {
            writeln!(f, "# announce {announcement}")?;
        }
        Ok(())
    }
}
