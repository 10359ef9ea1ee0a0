//! What is there of the base objects of our tables, and the messages that complete them.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::encode::{self, chain_udata, set_flags};
use super::message::{Attributes, Object, Request};
use super::socket::Socket;
use super::uapi::*;
use super::value::{key_layout, layout};
use crate::ruleset::{Chain, Group, Name, Set, TABLE, TableFamily};

/// Whether a chain is there as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeenChain {
    Missing,
    Different,
    Complete,
}

/// What is there of one table, in the order of its own lists.
#[derive(Debug)]
pub(super) struct SeenTable {
    /// Whether each set is there.
    sets: Vec<bool>,
    chains: Vec<SeenChain>,
}

/// What a table lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Sets and maps that are not there.
    pub sets: Vec<Name>,
    /// Chains that are not there.
    pub chains: Vec<Name>,
    /// Chains that do not hold the rules they should.
    pub different: Vec<Name>,
    /// Whether nothing of it is there.
    pub entirely: bool,
}

impl Lacking {
    /// Whether it lacks nothing.
    pub fn is_nothing(&self) -> bool {
        self.sets.is_empty() && self.chains.is_empty() && self.different.is_empty()
    }
}

impl SeenTable {
    /// What `table` lacks, of which this was seen.
    pub(super) fn lacking(&self, table: &Group) -> Lacking {
        let sets = table.sets.iter().zip(&self.sets).filter(|(_, present)| !**present);
        let sets: Vec<_> = sets.map(|(set, _)| set.name.clone()).collect();
        let seen_as = |state| {
            let chains = table.chains.iter().zip(&self.chains).filter(move |(_, seen)| **seen == state);
            chains.map(|(chain, _)| chain.name.clone()).collect::<Vec<_>>()
        };
        let (chains, different) = (seen_as(SeenChain::Missing), seen_as(SeenChain::Different));
        let entirely = sets.len() == table.sets.len() && chains.len() == table.chains.len();
        Lacking { sets, chains, different, entirely }
    }
}

#[cfg(test)]
impl SeenTable {
    /// As if nothing of `table` were there.
    pub(super) fn nothing(table: &Group) -> Self {
        Self { sets: vec![false; table.sets.len()], chains: vec![SeenChain::Missing; table.chains.len()] }
    }
}

impl Socket {
    /// Whether all chains of the tables are as they should be.
    pub(super) fn chains_stand(&mut self, tables: &[Arc<Group>]) -> Result<bool> {
        let chains = || tables.iter().flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
        let requests = chains().map(|(table, chain)| encode::get_chain(table.family, chain)).collect::<Result<_>>()?;
        let answers = self.ask(requests)?;
        let stands = |((table, chain), object): ((&Arc<Group>, &Chain), Option<Object>)| {
            object.is_some_and(|it| seen_chain(table, chain, it.attributes()) == SeenChain::Complete)
        };
        Ok(chains().zip(answers).all(stands))
    }

    /// The generation of the ruleset, and then what is there of the tables.
    ///
    /// # Errors
    /// If a set is there that is not of our type: it cannot be changed while rules use it.
    pub(super) fn look_at_tables(&mut self, tables: &[Arc<Group>]) -> Result<(u32, Vec<SeenTable>)> {
        let mut requests = vec![encode::get_generation()];
        for Group { family, sets, chains } in tables.iter().map(AsRef::as_ref) {
            for set in sets {
                requests.push(encode::get_set(*family, set)?);
            }
            for chain in chains {
                requests.push(encode::get_chain(*family, chain)?);
            }
        }
        let mut answers = self.ask(requests)?.into_iter();
        let generation = answers.next().flatten().filter(|object| object.kind == NFT_MSG_NEWGEN);
        let generation = generation.and_then(|object| object.attributes().number(NFTA_GEN_ID));
        let generation = generation.context("NFT_MSG_GETGEN: no generation in the answer")?;
        let mut seen = Vec::with_capacity(tables.len());
        for table in tables {
            let mut sets = Vec::with_capacity(table.sets.len());
            for set in &table.sets {
                let object = answers.next().flatten();
                if let Some(object) = &object {
                    check_set(table.family, set, object.attributes())?;
                }
                sets.push(object.is_some());
            }
            let chains = table.chains.iter().map(|chain| match answers.next().flatten() {
                Some(object) => seen_chain(table, chain, object.attributes()),
                None => SeenChain::Missing,
            });
            let chains = chains.collect();
            seen.push(SeenTable { sets, chains });
        }
        Ok((generation, seen))
    }
}

/// The set that is there must be of our type. Whether its elements count is not asked: no filter depends on it, and kernels before
/// Linux 5.7 make them without.
pub(super) fn check_set(family: TableFamily, set: &Set, attributes: Attributes<'_>) -> Result<()> {
    let (key_type, key_length) = key_layout(&set.key);
    let data_type = set.data.map_or(0, |data| layout(data).0);
    let wanted = [key_type, u32::try_from(key_length)?, data_type, set_flags(set)];
    let found = [NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN, NFTA_SET_DATA_TYPE, NFTA_SET_FLAGS]
        .map(|kind| attributes.number(kind).unwrap_or_default());
    ensure!(
        found == wanted,
        "set {family} {TABLE} {} has another type (key type {}, key length {}, data type {}, flags {}), \
         expected: {}; remove it with: nft delete table {family} {TABLE}",
        set.name,
        found[0],
        found[1],
        found[2],
        found[3],
        set.datatypes()
    );
    Ok(())
}

/// A chain is complete when it carries the digest of our rules, and holds as many rules, with the jumps to it, as ours.
pub(super) fn seen_chain(table: &Group, chain: &Chain, attributes: Attributes<'_>) -> SeenChain {
    let ours = attributes.get(NFTA_CHAIN_USERDATA) == Some(&chain_udata(chain));
    let references = attributes.number(NFTA_CHAIN_USE).and_then(|count| usize::try_from(count).ok());
    if ours && references == Some(table.references(chain)) { SeenChain::Complete } else { SeenChain::Different }
}

/// What completes the base objects.
#[derive(Debug, Default)]
pub(super) struct Completion {
    /// The messages, none where all is there.
    pub(super) requests: Vec<Request>,
    /// Whether they destroy something.
    pub(super) destroys: bool,
}

/// Makes missing tables and sets. Where a chain is missing or different, all chains of its `Group` are made anew: they jump
/// to each other, and to packets the transaction is one step. Other chains of the same table in the kernel are not touched.
pub(super) fn completion(tables: &[Arc<Group>], seen: &[SeenTable]) -> Result<Completion> {
    let mut all = Completion::default();
    let mut set_id = 0;
    let mut made = Vec::new();
    for (table, seen) in tables.iter().zip(seen) {
        let Group { family, sets, chains } = table.as_ref();
        let present = |chain: &SeenChain| *chain != SeenChain::Missing;
        if !seen.sets.contains(&true) && !seen.chains.iter().any(present) {
            all.requests.push(encode::new_table(*family)?);
        }
        for (set, _) in sets.iter().zip(&seen.sets).filter(|(_, present)| !**present) {
            // Several groups may have it.
            if made.contains(&(*family, &set.name)) {
                continue;
            }
            made.push((*family, &set.name));
            set_id += 1;
            all.requests.push(encode::new_set(*family, set, set_id)?);
        }
        if seen.chains.iter().all(|chain| *chain == SeenChain::Complete) {
            continue;
        }
        let old: Vec<_> = chains.iter().zip(&seen.chains).filter(|(_, seen)| present(seen)).collect();
        all.destroys |= !old.is_empty();
        for (chain, _) in &old {
            all.requests.push(encode::delete_rules(*family, chain)?);
        }
        for (chain, _) in &old {
            all.requests.push(encode::delete_chain(*family, chain)?);
        }
        for chain in chains {
            all.requests.push(encode::new_chain(*family, chain)?);
        }
        for chain in chains {
            for rule in &chain.rules {
                all.requests.push(encode::new_rule(*family, chain, rule)?);
            }
        }
    }
    Ok(all)
}
