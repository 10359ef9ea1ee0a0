//! Asking the kernel, before anything is changed: questions with one answer, and what stands in sets.

use std::collections::HashMap;

use anyhow::{Result, bail};
use nix::libc::{EINVAL, ENOENT};

use super::encode::{self, element_udata};
use super::message::{Answer, Attributes, Object, Refusal, Request};
use super::socket::Socket;
use super::uapi::*;
use super::value::{bytes, key_bytes, parse, parse_key};
use super::{Drops, Presence};
use crate::kernel::Error;
use crate::ruleset::{Comment, Element, Set, TABLE, TableFamily, Value};

/// Questions in one send: their answers fit into a receive buffer of the default size (212992 bytes) even where each
/// takes a page.
const QUESTIONS: usize = 48;
/// From so many elements on, a set is read as a whole.
const DUMP_FROM: usize = 24;
/// How often a dump is begun again because something changed in the middle of it.
const DUMPS: usize = 32;

impl Socket {
    /// What is there of the elements, in their order.
    pub(super) fn look_at_elements(&mut self, elements: &[&Element]) -> Result<Vec<Presence>> {
        let mut sets: HashMap<(TableFamily, &str), usize> = HashMap::new();
        for element in elements.iter().filter(|_| elements.len() >= DUMP_FROM) {
            *sets.entry((element.family, element.set.as_ref())).or_default() += 1;
        }
        let mut dumps = HashMap::new();
        for ((family, set), _) in sets.into_iter().filter(|(_, count)| *count >= DUMP_FROM) {
            let stored = self.dump(family, set)?.into_iter().map(|stored| (stored.key.clone(), stored));
            dumps.insert((family, set), stored.collect::<HashMap<_, _>>());
        }
        let single = elements.iter().filter(|element| !dumps.contains_key(&(element.family, element.set.as_ref())));
        let requests: Vec<_> = single.map(|element| encode::get_element(element)).collect::<Result<_>>()?;
        // EINVAL: somebody else's set of this name has keys of another length, so ours is not in it. That the set is not ours is said
        // where it is needed, by what looks at tables.
        let mut answers = self.ask_but(requests, &[ENOENT, EINVAL])?.into_iter();
        let seen = elements.iter().map(|element| match dumps.get(&(element.family, element.set.as_ref())) {
            Some(dump) => presence(element, dump.get(&key_bytes(&element.key))),
            None => {
                let stored = answers.next().flatten().and_then(|object| stored_elements(object.attributes()).pop());
                presence(element, stored.as_ref())
            }
        });
        Ok(seen.collect())
    }

    /// All elements of a set whose key and data are of its types.
    pub(super) fn elements(&mut self, family: TableFamily, set: &Set) -> Result<Vec<Element>> {
        let stored = self.dump(family, &set.name)?.into_iter();
        Ok(stored.filter_map(|stored| decode(family, set, stored)).collect())
    }

    /// What the elements of a set counted.
    pub(super) fn drops(&mut self, family: TableFamily, set: &Set) -> Result<Vec<Drops>> {
        let stored = self.dump(family, &set.name)?.into_iter();
        Ok(stored.filter_map(|stored| drops(family, set, stored)).collect())
    }

    /// Sends questions that have one answer each; what is missing answers nothing.
    pub(super) fn ask(&mut self, requests: Vec<Request>) -> Result<Vec<Option<Object>>> {
        self.ask_but(requests, &[ENOENT])
    }

    /// The same, where these refusals mean that it is missing.
    fn ask_but(&mut self, requests: Vec<Request>, missing: &[i32]) -> Result<Vec<Option<Object>>> {
        let mut all = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let chunk: Vec<_> = requests.by_ref().take(QUESTIONS).collect();
            let start = all.len();
            all.resize_with(start + chunk.len(), || None);
            for (index, answer) in self.exchange(chunk)? {
                match answer {
                    Answer::Object(object) => all[start + index] = Some(object),
                    Answer::Refused(refusal) if missing.contains(&refusal.error.errno) => {}
                    Answer::Refused(refusal) => return Err(refusal.explain()),
                    Answer::Done | Answer::Acknowledged => {}
                }
            }
        }
        Ok(all)
    }

    /// The names of the sets and maps of our table of a family, none where there is no such table.
    pub(super) fn set_names(&mut self, family: TableFamily) -> Result<Vec<String>> {
        let objects = self.dump_objects(&|| encode::dump_sets(family), &format!("table {family} {TABLE}"))?;
        let name = |object: &Object| {
            let bytes = object.attributes().get(NFTA_SET_NAME)?;
            Some(std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').to_owned())
        };
        Ok(objects.iter().filter_map(name).collect())
    }

    /// The elements of a set, none where there is no such set.
    fn dump(&mut self, family: TableFamily, set: &str) -> Result<Vec<Stored>> {
        let what = format!("set {family} {TABLE} {set}");
        let objects = self.dump_objects(&|| encode::dump_elements(family, set), &what)?;
        Ok(objects.iter().flat_map(|it| stored_elements(it.attributes())).collect())
    }

    /// What a dump answers, none where what is dumped is not there.
    fn dump_objects(&mut self, request: &dyn Fn() -> Result<Request>, what: &str) -> Result<Vec<Object>> {
        for _ in 0..DUMPS {
            let mut objects = Vec::new();
            let mut complete = true;
            let mut done = false;
            for (_, answer) in self.exchange(vec![request()?])? {
                match answer {
                    Answer::Object(object) => {
                        complete &= !object.interrupted;
                        objects.push(object);
                    }
                    Answer::Done => done = true,
                    Answer::Acknowledged => {}
                    Answer::Refused(Refusal { error: Error { errno: ENOENT, .. }, .. }) => return Ok(Vec::new()),
                    Answer::Refused(refusal) => return Err(refusal.explain()),
                }
            }
            if complete && done {
                return Ok(objects);
            }
        }
        bail!("{what}: it changed while it was read, {DUMPS} times")
    }
}

/// An element as the kernel keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    key: Vec<u8>,
    data: Option<Vec<u8>>,
    udata: Option<Vec<u8>>,
    /// Packets and bytes, if it counts.
    count: Option<(u64, u64)>,
}

/// `NFTA_SET_ELEM_LIST_ELEMENTS { NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE }, .. } .. }`
pub(super) fn stored_elements(attributes: Attributes<'_>) -> Vec<Stored> {
    let Some(list) = attributes.nested(NFTA_SET_ELEM_LIST_ELEMENTS) else { return Vec::new() };
    let value = |element: Attributes<'_>, kind| Some(element.nested(kind)?.get(NFTA_DATA_VALUE)?.to_vec());
    let decode = |element: Attributes<'_>| {
        Some(Stored {
            key: value(element, NFTA_SET_ELEM_KEY)?,
            data: value(element, NFTA_SET_ELEM_DATA),
            udata: element.get(NFTA_SET_ELEM_USERDATA).map(<[u8]>::to_vec),
            count: count(element),
        })
    };
    list.each(NFTA_LIST_ELEM).filter_map(decode).collect()
}

/// The counter among an element's expressions: `NFTA_SET_ELEM_EXPR { NFTA_EXPR_NAME, NFTA_EXPR_DATA {..} }` where it is the only
/// one, as in our sets, else in a list of them, `NFTA_SET_ELEM_EXPRESSIONS { NFTA_LIST_ELEM {..} .. }`.
fn count(element: Attributes<'_>) -> Option<(u64, u64)> {
    let list = element.nested(NFTA_SET_ELEM_EXPRESSIONS);
    let mut all = element.each(NFTA_SET_ELEM_EXPR).chain(list.iter().flat_map(|list| list.each(NFTA_LIST_ELEM)));
    let counter = all.find(|it| it.get(NFTA_EXPR_NAME).is_some_and(|name| name.starts_with(b"counter\0")))?;
    let data = counter.nested(NFTA_EXPR_DATA)?;
    Some((data.number64(NFTA_COUNTER_PACKETS)?, data.number64(NFTA_COUNTER_BYTES)?))
}

/// What an element counted, or nothing where it does not count or its key does not begin with an interface.
pub(super) fn drops(family: TableFamily, set: &Set, stored: Stored) -> Option<Drops> {
    let (packets, bytes) = stored.count?;
    let Value::IfName(interface) = parse_key(&set.key, &stored.key)?.into_iter().next()? else { return None };
    Some(Drops { family, set: set.name.clone(), interface, packets, bytes })
}

/// The element, or nothing where its key or data is not of the set's types.
pub(super) fn decode(family: TableFamily, set: &Set, stored: Stored) -> Option<Element> {
    let data = match (set.data, stored.data) {
        (Some(datatype), Some(data)) => Some(parse(datatype, &data)?),
        (None, None) => None,
        _ => return None,
    };
    let comment = stored.udata.as_deref().and_then(parse_comment);
    Some(Element { family, set: set.name.clone(), key: parse_key(&set.key, &stored.key)?, data, comment })
}

/// What is there of an element. What it counted says nothing of that.
pub(super) fn presence(element: &Element, stored: Option<&Stored>) -> Presence {
    match stored {
        None => Presence::Absent,
        Some(stored) if stored.data == element.data.as_ref().map(bytes) && stored.udata == element_udata(element) => {
            Presence::Present
        }
        Some(_) => Presence::Different,
    }
}

/// The comment in an element's user data (type, length, text with a final NUL).
fn parse_comment(udata: &[u8]) -> Option<Comment> {
    let (&[NFTNL_UDATA_SET_ELEM_COMMENT, length], rest) = udata.split_first_chunk()? else { return None };
    let text = std::str::from_utf8(rest.get(..usize::from(length))?).ok()?;
    Some(Comment::new(text.trim_end_matches('\0')))
}
