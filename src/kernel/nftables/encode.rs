//! Tables, sets, chains, rules and elements as messages to the kernel.

use anyhow::Result;
use neli::consts::nl::NlmF;

use super::expression::{expression, expressions};
use super::message::{Attribute, Request, attribute, nested, number, text};
use super::uapi::*;
use super::value::{bytes, key_bytes, key_layout, layout};
use crate::ruleset::{
    Chain, Comment, Datatype, Element, Hook, HookPoint, Raw, RawHeader, Rule, Set, TABLE, TableFamily,
};

/// Most bytes of elements in one message: their list is an attribute, and its length a u16.
const ELEMENTS_MAX: usize = 48 * 1024;

/// One entry of the user data in which nft keeps what the kernel does not need: type, length, value.
fn udata(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut entry = vec![kind, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    entry.extend(value.iter().take(u8::MAX.into()));
    entry
}

/// A comment as user data.
pub(super) fn comment(kind: u8, comment: &Comment) -> Vec<u8> {
    udata(kind, &[comment.as_str().as_bytes(), b"\0"].concat())
}

/// The first message of a transaction. With `generation`, it only takes place if nothing has changed since.
pub(super) fn begin(generation: Option<u32>) -> Result<Request> {
    let attributes = generation.map(|generation| number(NFNL_BATCH_GENID, generation)).transpose()?;
    Ok(Request {
        kind: NFNL_MSG_BATCH_BEGIN,
        flags: NlmF::empty(),
        family: NFPROTO_UNSPEC,
        attributes: attributes.into_iter().collect(),
    })
}

/// The last message of a transaction.
pub(super) fn end() -> Request {
    Request { kind: NFNL_MSG_BATCH_END, flags: NlmF::empty(), family: NFPROTO_UNSPEC, attributes: Vec::new() }
}

/// Makes the table, if it is missing.
pub(super) fn new_table(family: TableFamily) -> Result<Request> {
    let attributes = vec![text(NFTA_TABLE_NAME, TABLE)?, number(NFTA_TABLE_FLAGS, 0)?];
    Ok(Request::new(NFT_MSG_NEWTABLE, NlmF::CREATE, family, attributes))
}

/// Makes a set; `id` is its own within the transaction.
///
/// ```text
/// NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN,
/// NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN (maps), NFTA_SET_ID, NFTA_SET_USERDATA,
/// NFTA_SET_EXPR { NFTA_EXPR_NAME, NFTA_EXPR_DATA } (sets that count: the kernel gives each element a copy)
/// ```
pub(super) fn new_set(family: TableFamily, set: &Set, id: u32) -> Result<Request> {
    let (key_type, key_length) = key_layout(&set.key);
    let mut attributes = vec![
        text(NFTA_SET_TABLE, TABLE)?,
        text(NFTA_SET_NAME, &set.name)?,
        number(NFTA_SET_FLAGS, set_flags(set))?,
        number(NFTA_SET_KEY_TYPE, key_type)?,
        number(NFTA_SET_KEY_LEN, u32::try_from(key_length)?)?,
    ];
    if let Some(data) = set.data {
        let (data_type, data_length, _) = layout(data);
        attributes.push(number(NFTA_SET_DATA_TYPE, data_type)?);
        attributes.push(number(NFTA_SET_DATA_LEN, u32::try_from(data_length)?)?);
    }
    attributes.push(number(NFTA_SET_ID, id)?);
    attributes.push(attribute(NFTA_SET_USERDATA, &set_udata(set))?);
    if set.counter {
        attributes.push(expression(NFTA_SET_EXPR, "counter", Vec::new())?);
    }
    Ok(Request::new(NFT_MSG_NEWSET, NlmF::CREATE, family, attributes))
}

/// The flags of a set.
pub(super) fn set_flags(set: &Set) -> u32 {
    if set.data.is_some() { NFT_SET_MAP } else { 0 }
}

/// What nft needs in order to print a set, as nft 1.0.6 itself sends it.
fn set_udata(set: &Set) -> Vec<u8> {
    let word = |kind, word: u32| udata(kind, &word.to_ne_bytes());
    let mut all = match set.key.as_slice() {
        [key] => word(NFTNL_UDATA_SET_KEYBYTEORDER, layout(*key).2 as u32),
        key => {
            let no_byteorder = word(NFTNL_UDATA_SET_KEYBYTEORDER, 0);
            let examples = if set.is_by_example() { examples_udata(key) } else { Vec::new() };
            let typeof_concat =
                [word(NFTNL_UDATA_SET_TYPEOF_EXPR, EXPR_CONCAT), udata(NFTNL_UDATA_SET_TYPEOF_DATA, &examples)]
                    .concat();
            [no_byteorder, udata(NFTNL_UDATA_SET_KEY_TYPEOF, &typeof_concat)].concat()
        }
    };
    if let Some(data) = set.data {
        all.extend(word(NFTNL_UDATA_SET_DATABYTEORDER, layout(data).2 as u32));
        all.extend(word(NFTNL_UDATA_SET_DATA_INTERVAL, 0));
    }
    if let Some(said) = &set.comment {
        all.extend(comment(NFTNL_UDATA_SET_COMMENT, said));
    }
    all
}

/// The examples by which nft prints a key with raw bits, each under its place: `iifname . @th,64,128`
/// (nft's src/meta.c and src/payload.c).
fn examples_udata(key: &[Datatype]) -> Vec<u8> {
    let word = |kind, word: u32| udata(kind, &word.to_ne_bytes());
    let expression = |number, data: Vec<u8>| {
        [word(NFTNL_UDATA_SET_TYPEOF_EXPR, number), udata(NFTNL_UDATA_SET_TYPEOF_DATA, &data)].concat()
    };
    let example = |part: &Datatype| match part {
        Datatype::Raw(Raw { header, offset, length }) => {
            let base = match header {
                RawHeader::Network => PROTO_BASE_NETWORK_HDR,
                RawHeader::Transport => PROTO_BASE_TRANSPORT_HDR,
            };
            let fields = [
                word(NFTNL_UDATA_SET_KEY_PAYLOAD_DESC, 0),
                word(NFTNL_UDATA_SET_KEY_PAYLOAD_TYPE, 0),
                word(NFTNL_UDATA_SET_KEY_PAYLOAD_BASE, base),
                word(NFTNL_UDATA_SET_KEY_PAYLOAD_OFFSET, u32::from(*offset) * 8),
                word(NFTNL_UDATA_SET_KEY_PAYLOAD_LEN, u32::from(*length) * 8),
            ];
            expression(EXPR_PAYLOAD, fields.concat())
        }
        // Beside raw bits, keys hold the input interface only.
        _ => expression(EXPR_META, word(NFTNL_UDATA_META_KEY, NFT_META_IIFNAME)),
    };
    (0..).zip(key).flat_map(|(place, part)| udata(place, &example(part))).collect()
}

/// The number of a hook in a family (linux/netfilter.h, linux/netfilter_arp.h; the bridge's are those of inet).
fn hook_number(family: TableFamily, point: HookPoint) -> u32 {
    match (family, point) {
        (TableFamily::Arp, HookPoint::Input | HookPoint::Prerouting) => NF_ARP_IN,
        (TableFamily::Arp, _) => NF_ARP_OUT,
        (_, HookPoint::Prerouting) => NF_INET_PRE_ROUTING,
        (_, HookPoint::Input) => NF_INET_LOCAL_IN,
        (_, HookPoint::Forward) => NF_INET_FORWARD,
        (_, HookPoint::Output) => NF_INET_LOCAL_OUT,
        (_, HookPoint::Postrouting) => NF_INET_POST_ROUTING,
    }
}

/// Makes a chain, without rules.
///
/// ```text
/// NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_TYPE, NFTA_CHAIN_POLICY,
/// NFTA_CHAIN_HOOK { NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY } (base chains), NFTA_CHAIN_USERDATA
/// ```
pub(super) fn new_chain(family: TableFamily, chain: &Chain) -> Result<Request> {
    let mut attributes = name_chain(chain)?;
    if let Some(Hook { point, priority }) = chain.hook {
        attributes.push(text(NFTA_CHAIN_TYPE, "filter")?);
        attributes.push(number(NFTA_CHAIN_POLICY, NF_ACCEPT.cast_unsigned())?);
        let hook = vec![
            number(NFTA_HOOK_HOOKNUM, hook_number(family, point))?,
            number(NFTA_HOOK_PRIORITY, priority.cast_unsigned())?,
        ];
        attributes.push(nested(NFTA_CHAIN_HOOK, hook)?);
    }
    attributes.push(attribute(NFTA_CHAIN_USERDATA, &chain_udata(chain))?);
    Ok(Request::new(NFT_MSG_NEWCHAIN, NlmF::CREATE, family, attributes))
}

/// The user data of a chain: its fingerprint, as a comment.
pub(super) fn chain_udata(chain: &Chain) -> Vec<u8> {
    comment(NFTNL_UDATA_CHAIN_COMMENT, &chain.fingerprint())
}

fn name_chain(chain: &Chain) -> Result<Vec<Attribute>> {
    Ok(vec![text(NFTA_CHAIN_TABLE, TABLE)?, text(NFTA_CHAIN_NAME, &chain.name)?])
}

/// Asks for a chain.
pub(super) fn get_chain(family: TableFamily, chain: &Chain) -> Result<Request> {
    Ok(Request::new(NFT_MSG_GETCHAIN, NlmF::empty(), family, name_chain(chain)?))
}

/// Deletes a chain, which must be empty.
pub(super) fn delete_chain(family: TableFamily, chain: &Chain) -> Result<Request> {
    Ok(Request::new(NFT_MSG_DELCHAIN, NlmF::empty(), family, name_chain(chain)?))
}

/// Appends a rule to a chain.
pub(super) fn new_rule(family: TableFamily, chain: &Chain, rule: &Rule) -> Result<Request> {
    let attributes = vec![
        text(NFTA_RULE_TABLE, TABLE)?,
        text(NFTA_RULE_CHAIN, &chain.name)?,
        nested(NFTA_RULE_EXPRESSIONS, expressions(family, rule)?)?,
    ];
    Ok(Request::new(NFT_MSG_NEWRULE, NlmF::CREATE | NlmF::APPEND, family, attributes))
}

/// Deletes all rules of a chain, which must be there.
pub(super) fn delete_rules(family: TableFamily, chain: &Chain) -> Result<Request> {
    let attributes = vec![text(NFTA_RULE_TABLE, TABLE)?, text(NFTA_RULE_CHAIN, &chain.name)?];
    Ok(Request::new(NFT_MSG_DELRULE, NlmF::empty(), family, attributes))
}

/// Asks for a set.
pub(super) fn get_set(family: TableFamily, set: &Set) -> Result<Request> {
    let attributes = vec![text(NFTA_SET_TABLE, TABLE)?, text(NFTA_SET_NAME, &set.name)?];
    Ok(Request::new(NFT_MSG_GETSET, NlmF::empty(), family, attributes))
}

/// Asks for the number of the current generation of the ruleset.
pub(super) fn get_generation() -> Request {
    Request { kind: NFT_MSG_GETGEN, flags: NlmF::empty(), family: NFPROTO_UNSPEC, attributes: Vec::new() }
}

/// Asks for all elements of a set.
pub(super) fn dump_elements(family: TableFamily, set: &str) -> Result<Request> {
    Ok(Request::new(NFT_MSG_GETSETELEM, NlmF::DUMP, family, name_set(set)?))
}

/// Asks for all sets of a table.
pub(super) fn dump_sets(family: TableFamily) -> Result<Request> {
    Ok(Request::new(NFT_MSG_GETSET, NlmF::DUMP, family, vec![text(NFTA_SET_TABLE, TABLE)?]))
}

/// Asks for one element, by its key.
pub(super) fn get_element(element: &Element) -> Result<Request> {
    let mut attributes = name_set(&element.set)?;
    attributes.push(nested(NFTA_SET_ELEM_LIST_ELEMENTS, vec![key_only(element)?])?);
    Ok(Request::new(NFT_MSG_GETSETELEM, NlmF::empty(), element.family, attributes))
}

/// Adds elements, in as many messages as it takes.
pub(super) fn new_elements(elements: &[&Element]) -> Result<Vec<Request>> {
    grouped(NFT_MSG_NEWSETELEM, NlmF::CREATE, elements, whole)
}

/// Deletes elements, in as many messages as it takes.
pub(super) fn delete_elements(elements: &[&Element]) -> Result<Vec<Request>> {
    grouped(NFT_MSG_DELSETELEM, NlmF::empty(), elements, key_only)
}

fn name_set(set: &str) -> Result<Vec<Attribute>> {
    Ok(vec![text(NFTA_SET_ELEM_LIST_TABLE, TABLE)?, text(NFTA_SET_ELEM_LIST_SET, set)?])
}

/// Neighbours of the same set share a message as long as they fit:
/// `NFTA_SET_ELEM_LIST_ELEMENTS { NFTA_LIST_ELEM .. }`.
fn grouped(
    kind: u16,
    flags: NlmF,
    elements: &[&Element],
    encode: fn(&Element) -> Result<Attribute>,
) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for same_set in elements.chunk_by(|a, b| (a.family, &a.set) == (b.family, &b.set)) {
        let mut list = Vec::new();
        let mut size = 0;
        let mut rest = same_set.iter().peekable();
        while let Some(element) = rest.next() {
            let encoded = encode(element)?;
            size += encoded.len();
            list.push(encoded);
            if size >= ELEMENTS_MAX || rest.peek().is_none() {
                let mut attributes = name_set(&element.set)?;
                attributes.push(nested(NFTA_SET_ELEM_LIST_ELEMENTS, std::mem::take(&mut list))?);
                requests.push(Request::new(kind, flags, element.family, attributes));
                size = 0;
            }
        }
    }
    Ok(requests)
}

/// `NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE } }`
fn key_only(element: &Element) -> Result<Attribute> {
    nested(NFTA_LIST_ELEM, vec![data(NFTA_SET_ELEM_KEY, &key_bytes(&element.key))?])
}

/// `NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY {..}, NFTA_SET_ELEM_DATA {..}, NFTA_SET_ELEM_USERDATA }`
fn whole(element: &Element) -> Result<Attribute> {
    let mut attributes = vec![data(NFTA_SET_ELEM_KEY, &key_bytes(&element.key))?];
    if let Some(value) = &element.data {
        attributes.push(data(NFTA_SET_ELEM_DATA, &bytes(value))?);
    }
    if let Some(udata) = element_udata(element) {
        attributes.push(attribute(NFTA_SET_ELEM_USERDATA, &udata)?);
    }
    nested(NFTA_LIST_ELEM, attributes)
}

/// The user data of an element: its comment.
pub(super) fn element_udata(element: &Element) -> Option<Vec<u8>> {
    element.comment.as_ref().map(|it| comment(NFTNL_UDATA_SET_ELEM_COMMENT, it))
}

/// `kind { NFTA_DATA_VALUE }`
pub(super) fn data(kind: u16, value: &[u8]) -> Result<Attribute> {
    nested(kind, vec![attribute(NFTA_DATA_VALUE, value)?])
}
