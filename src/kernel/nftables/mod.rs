//! nf_tables over nfnetlink: looks what is there, then makes what is missing in one transaction.
//!
//! Three things cost milliseconds and are designed around: a batch that fails, so everything is asked first; anything
//! that is destroyed, for which the close of the socket waits, so nothing is unless it differs ([`Outcome::destroyed`],
//! [`Nftables::into_fd`]); and two first runs at once, so the batch that makes base objects only takes place in the
//! generation of the ruleset that was looked at.

mod base;
mod encode;
mod expression;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod message;
mod query;
mod socket;
mod uapi;
mod value;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use nix::libc::{EAFNOSUPPORT, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, ERESTART};

use crate::addr::IfName;
use crate::kernel::Error;
use crate::ruleset::{Element, Group, Name, Set, TableFamily, Value};
pub use base::Lacking;
use message::{Answer, Refusal, Request};
use socket::Socket;

/// Begins each error.
const WHERE: &str = "nf_tables";
/// How often the ruleset is looked at again because others changed it meanwhile.
const TRIES: usize = 100;
/// How often it is looked at again after a refusal which such a change may explain.
const SURPRISES: usize = 3;

/// What should be.
#[derive(Clone, Debug, Default)]
pub struct Transaction<'a> {
    /// Tables whose sets, chains and rules should stand.
    pub tables: &'a [Arc<Group>],
    /// Elements that should stand in the sets of these tables, with this data and comment.
    pub add: Vec<&'a Element>,
    /// Elements that should not, whatever their data. What is in `add` too stays.
    pub remove: Vec<&'a Element>,
    /// As far as is known none of `add` stands, so nobody asks; where that proves wrong, it is asked after all.
    pub assume_absent: bool,
    /// Nothing is done where base objects are missing or not ours.
    pub only_if_base_complete: bool,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// There was a transaction.
    pub changed: bool,
    /// It destroyed something: closing the socket waits for a grace period of the kernel.
    pub destroyed: bool,
    /// Nothing was done, as [`Transaction::only_if_base_complete`] asks.
    pub lacks_base: bool,
}

/// Whether an element is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No element has this key (or there is no such set).
    Absent,
    /// The element of this key holds other data, or another comment.
    Different,
    /// It is there.
    Present,
}

/// What was dropped of the packets from or to an interface since its element is there, as one set says (`dropped_from` or
/// `dropped_to` of crate::setup::dropped).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops {
    /// The family of the set's table.
    pub family: TableFamily,
    /// The name of the set.
    pub set: Name,
    /// The interface.
    pub interface: IfName,
    /// Packets or frames.
    pub packets: u64,
    /// Their bytes: those of IP or ARP, of a frame without its Ethernet header.
    pub bytes: u64,
}

/// A connection to nf_tables, in the network namespace it was opened in.
pub struct Nftables {
    socket: Socket,
}

impl Nftables {
    /// Opens the socket.
    ///
    /// # Errors
    /// On a kernel without nfnetlink.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open().context(WHERE)? })
    }

    /// Makes the tables' base objects where they are missing or not ours, adds the elements that are missing, replaces
    /// those that differ, deletes those of `remove` that are there, all in one transaction. Where nothing differs there
    /// is none.
    ///
    /// # Errors
    /// What the kernel refused; then nothing has changed.
    pub fn commit(&mut self, change: &Transaction<'_>) -> Result<Outcome> {
        self.carry_out(change).context(WHERE)
    }

    fn carry_out(&mut self, change: &Transaction<'_>) -> Result<Outcome> {
        let (add, remove) = consolidate(change)?;
        let wanted: Vec<_> = add.iter().chain(&remove).copied().collect();
        let mut surprises = 0;
        for _ in 0..TRIES {
            // What a chain that is whole looks up is there: a set in use cannot be deleted.
            let whole = self.socket.chains_stand(change.tables)?;
            if change.only_if_base_complete && !whole {
                return Ok(Outcome { lacks_base: true, ..Outcome::default() });
            }
            let (generation, base) = if whole { (0, base::Completion::default()) } else { self.complete(change)? };
            let unknown = !change.assume_absent || surprises > 0;
            let seen =
                if unknown { self.socket.look_at_elements(&wanted)? } else { vec![Presence::Absent; wanted.len()] };
            let (seen_add, seen_remove) = seen.split_at(add.len());
            let new = pick(&add, seen_add, &[Presence::Absent, Presence::Different]);
            let mut gone = pick(&add, seen_add, &[Presence::Different]);
            gone.extend(pick(&remove, seen_remove, &[Presence::Present, Presence::Different]));
            let makes_base = !base.requests.is_empty();
            let outcome = Outcome {
                changed: makes_base || !new.is_empty() || !gone.is_empty(),
                destroyed: base.destroys || !gone.is_empty(),
                lacks_base: false,
            };
            if !outcome.changed {
                return Ok(outcome);
            }
            // Only base objects need to be made once and by one: elements are their own NIC's.
            let mut batch = vec![encode::begin(makes_base.then_some(generation))?];
            batch.extend(base.requests);
            batch.extend(encode::delete_elements(&gone)?);
            batch.extend(encode::new_elements(&new)?);
            batch.push(encode::end());
            match self.transact(batch) {
                Ok(None) => return Ok(outcome),
                Ok(Some(Refusal { error: Error { errno: ERESTART, .. }, .. })) => {}
                Ok(Some(Refusal { error: Error { errno: EEXIST | ENOENT, .. }, .. }))
                    if !(makes_base && unknown) && surprises < SURPRISES =>
                {
                    surprises += 1;
                }
                Ok(Some(refusal)) => return Err(refusal.explain()),
                Err(error) if socket::is_lost(&error) && surprises < SURPRISES => surprises += 1,
                Err(error) => return Err(error),
            }
        }
        bail!("others changed the ruleset {TRIES} times while it was looked at")
    }

    /// The generation of the ruleset, and what completes the base objects in it.
    fn complete(&mut self, change: &Transaction<'_>) -> Result<(u32, base::Completion)> {
        let (generation, tables) = self.socket.look_at_tables(change.tables)?;
        Ok((generation, base::completion(change.tables, &tables)?))
    }

    /// Sends a transaction and returns the first refusal. An acknowledgement would prove nothing: one comes for batches
    /// that were rolled back, too.
    fn transact(&mut self, batch: Vec<Request>) -> Result<Option<Refusal>> {
        let answers = self.socket.exchange(batch)?;
        Ok(answers.into_iter().find_map(|(_, answer)| match answer {
            Answer::Refused(refusal) => Some(refusal),
            _ => None,
        }))
    }

    /// The elements of a set whose key begins with an interface, from a dump of the whole set: only for recovery, where
    /// nobody recorded them.
    ///
    /// # Errors
    /// What the kernel refused. A missing set is an empty one.
    pub fn elements_of(&mut self, family: TableFamily, set: &Set, interface: &IfName) -> Result<Vec<Element>> {
        let mut elements = self.elements(family, set)?;
        elements.retain(|element| matches!(element.key.first(), Some(Value::IfName(name)) if name == interface));
        Ok(elements)
    }

    /// The names of the sets and maps of our table of a family: only for recovery. A missing table has none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_names(&mut self, family: TableFamily) -> Result<Vec<String>> {
        self.socket.set_names(family)
    }

    /// What each of the tables lacks, in their order.
    ///
    /// # Errors
    /// What the kernel refused, and a set that is there with another type.
    pub fn lacking(&mut self, tables: &[Arc<Group>]) -> Result<Vec<Lacking>> {
        let (_, seen) = self.socket.look_at_tables(tables).context(WHERE)?;
        Ok(tables.iter().zip(seen).map(|(table, seen)| seen.lacking(table)).collect())
    }

    /// All elements of a set.
    ///
    /// # Errors
    /// What the kernel refused. A missing set is an empty one.
    pub fn elements(&mut self, family: TableFamily, set: &Set) -> Result<Vec<Element>> {
        self.socket.elements(family, set).context(WHERE)
    }

    /// Whether each of the elements is there, in their order.
    ///
    /// # Errors
    /// What the kernel refused. In a missing set all elements are absent.
    pub fn present(&mut self, elements: &[Element]) -> Result<Vec<Presence>> {
        self.socket.look_at_elements(&elements.iter().collect::<Vec<_>>()).context(WHERE)
    }

    /// What the elements of these sets counted, a dump a set. Elements without a counter (Linux before 5.7) are left out.
    ///
    /// # Errors
    /// What the kernel refused. A missing set is an empty one.
    pub fn drops(&mut self, sets: &[(TableFamily, Set)]) -> Result<Vec<Drops>> {
        let mut all = Vec::new();
        for (family, set) in sets {
            all.extend(self.socket.drops(*family, set).context(WHERE)?);
        }
        Ok(all)
    }

    /// The socket, for a process that can wait to close it: its close waits for a grace period (7 to 15 ms) when
    /// something was destroyed, and no longer a tenth of a second later.
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into_fd()
    }
}

/// Whether it was refused because this kernel has no nf_tables: there is no such socket, or nobody behind it who understands. Then
/// nothing of nf_tables stands.
pub fn is_missing(error: &anyhow::Error) -> bool {
    let no_socket = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    let refused = error.downcast_ref::<Error>().map(|it| it.errno);
    no_socket.is_some_and(|it| [EPROTONOSUPPORT, EAFNOSUPPORT].contains(&it))
        || refused.is_some_and(|it| [EINVAL, EOPNOTSUPP].contains(&it))
}

/// The elements that were seen in one of these states.
fn pick<'a>(elements: &[&'a Element], seen: &[Presence], states: &[Presence]) -> Vec<&'a Element> {
    elements.iter().zip(seen).filter(|(_, seen)| states.contains(seen)).map(|(element, _)| *element).collect()
}

/// The elements to add and to remove, each key once; those of a set lie together.
fn consolidate<'a>(change: &Transaction<'a>) -> Result<(Vec<&'a Element>, Vec<&'a Element>)> {
    let place = |it: &&'a Element| (it.family as u8, &it.set, &it.key);
    let sorted = |elements: &[&'a Element]| {
        let mut sorted = elements.to_vec();
        sorted.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
        sorted
    };
    let (mut add, mut remove) = (sorted(&change.add), sorted(&change.remove));
    for pair in add.windows(2) {
        let (one, other) = (pair[0], pair[1]);
        let differ = place(&one) == place(&other) && one != other;
        ensure!(!differ, "{one}: expected no other data for its key, found: {other}");
    }
    add.dedup_by_key(|it| place(it));
    remove.dedup_by_key(|it| place(it));
    remove.retain(|it| add.binary_search_by(|other| place(other).cmp(&place(it))).is_err());
    Ok((add, remove))
}

#[cfg(test)]
mod tests;
