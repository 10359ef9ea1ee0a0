//! What our rules dropped, counted by NIC and direction, beside the counter that each refusing rule has of its own.
//!
//! A group of chains has one in which all its drops end. The first rule there looks the interface up in a set whose elements
//! count, and decides nothing; the second one drops. So a NIC without an element is not counted, and filtered all the same.

use crate::nic::Nic;
use crate::object::Plan;
use crate::ruleset::{Datatype, Element, Field, Group, Name, Rule, Set, Statement, TableFamily};
use crate::setup::element;
use crate::setup::shared::{chain, refuse};

/// Set: the interfaces for which is counted what they sent and our rules dropped.
pub const DROPPED_FROM: &str = "dropped_from";
/// Set: the interfaces for which is counted what was for them and our rules dropped.
pub const DROPPED_TO: &str = "dropped_to";

/// Which way the packets go that a group of chains filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From guests.
    From,
    /// To guests.
    To,
}

impl Direction {
    /// The set that counts them.
    pub fn set(self) -> Set {
        let name = match self {
            Self::From => DROPPED_FROM,
            Self::To => DROPPED_TO,
        };
        Set { counter: true, ..Set::new(name, [Datatype::IfName]) }
    }

    fn interface(self) -> Field {
        match self {
            Self::From => Field::IifName,
            Self::To => Field::OifName,
        }
    }
}

/// All sets of NICs' drops, with the families of their tables.
pub fn sets() -> [(TableFamily, Set); 5] {
    use Direction::{From, To};
    use TableFamily::{Arp, Bridge, Inet};
    [(Bridge, From), (Bridge, To), (Inet, From), (Inet, To), (Arp, From)]
        .map(|(family, direction)| (family, direction.set()))
}

/// The group with every drop replaced by the way into `ending`, a chain of its own that counts and drops. (One chain for all
/// groups would not do: that a group is whole is seen by the number of references to its chains.)
pub(super) fn counted(mut group: Group, direction: Direction, ending: impl Into<Name>) -> Group {
    let ending = ending.into();
    let statements = group.chains.iter_mut().flat_map(|chain| &mut chain.rules).flat_map(|rule| &mut rule.0);
    for statement in statements.filter(|it| **it == Statement::Drop) {
        *statement = Statement::Goto(ending.clone());
    }
    let set = direction.set();
    let count = Rule::from([Statement::contained([direction.interface().into()], set.name.clone())]);
    group.chains.push(chain(ending, vec![count, refuse([])]));
    group.sets.push(set);
    group
}

/// Adds the NIC's elements in the sets that count, of all tables the Plan has by now.
pub(super) fn elements(nic: &Nic, plan: &mut Plan) {
    let mut elements: Vec<Element> = Vec::new();
    for table in &plan.tables {
        for set in table.sets.iter().filter(|set| set.counter) {
            let element = element(nic, table.family, set.name.clone(), []);
            if !elements.contains(&element) {
                elements.push(element);
            }
        }
    }
    plan.elements.extend(elements);
}
