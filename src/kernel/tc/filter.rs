//! Filters of kind u32 (tc-u32(8)) of our block.
//!
//! ```text
//! TCA_OPTIONS
//!   TCA_U32_ACT      see action.rs
//!   TCA_U32_SEL      struct tc_u32_sel { u8 flags, u8 offshift, u8 nkeys, u8, be16 offmask, u16 off, i16 offoff, i16 hoff, be32 hmask }
//!                    and nkeys times struct tc_u32_key { be32 mask, be32 val, i32 off, i32 offmask }
//! ```

use netlink_packet_core::NLM_F_CREATE;
use nix::libc::{ETH_P_ALL, RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER};

use super::{Header, TCA_KIND, TCA_OPTIONS, TCMSG, action, is_absent};
use crate::kernel::attributes::{attribute, attributes, text};
use crate::kernel::error::Error;
use crate::kernel::netlink::{Netlink, Request};
use crate::object::{ChecksumGuard, Filter, Word};

/// TCM_IFINDEX_MAGIC_BLOCK of linux/rtnetlink.h: the parent is the number of a block.
const MAGIC_BLOCK: u32 = u32::MAX;
/// The first hash table of a block (`800:`), whose nodes are looked at in their order.
const TABLE: u32 = 0x8000_0000;
/// The part of a handle that is the node's in its table.
const NODE: u32 = 0xfff;
/// `prio 1`: the first to be looked at.
const PREFERENCE: u32 = 1;
/// TCA_U32_* of linux/pkt_cls.h.
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
/// TC_U32_TERMINAL of linux/pkt_cls.h: the filter decides, and leads to no other table.
const TC_U32_TERMINAL: u8 = 1;
/// Length of struct tc_u32_sel, and of a key behind it.
const SEL: usize = 16;
const KEY: usize = 16;

/// A filter of a block as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFilter {
    /// The number of its hash table and, in the last 12 bits, of its node in that.
    handle: u32,
    /// Whether it is among our filters, whatever it is like.
    ours: bool,
    /// None: nothing that a filter of ours can be.
    pub filter: Option<Filter>,
    /// The number of the device that it redirects to; 0 is one that is gone.
    pub target: Option<u32>,
    /// TCA_ACT_COOKIE.
    pub cookie: Vec<u8>,
}

fn header(node: u16) -> Header {
    let protocol = u32::from((ETH_P_ALL as u16).to_be());
    Header {
        ifindex: MAGIC_BLOCK,
        handle: TABLE | u32::from(node),
        parent: ChecksumGuard::BLOCK,
        info: PREFERENCE << 16 | protocol,
    }
}

/// The message that makes a filter, or gives another action to the one that has its node: what that matches stays as it
/// was. `target` is the number of the device to redirect to.
pub fn add_filter(filter: &Filter, target: u32, cookie: &[u8]) -> Request {
    let mut options = attribute(TCA_U32_ACT, &action::encode(filter.action, target, cookie));
    let mut selector = vec![0; SEL];
    selector[0] = TC_U32_TERMINAL;
    selector[2] = u8::try_from(filter.words.len()).unwrap_or(u8::MAX);
    for Word { value, mask, offset } in &filter.words {
        [mask.to_be_bytes(), value.to_be_bytes(), offset.to_ne_bytes(), [0; 4]]
            .iter()
            .for_each(|it| selector.extend(it));
    }
    options.extend(attribute(TCA_U32_SEL, &selector));
    let attributes = [attribute(TCA_KIND, b"u32\0"), attribute(TCA_OPTIONS, &options)].concat();
    Request::of_bytes(RTM_NEWTFILTER, [header(filter.node).bytes(), attributes].concat(), NLM_F_CREATE)
}

/// The message that removes the filter of a node.
pub fn delete_filter(node: u16) -> Request {
    let payload = [header(node).bytes(), attribute(TCA_KIND, b"u32\0")].concat();
    Request::of_bytes(RTM_DELTFILTER, payload, 0)
}

/// Asks for the filter of a node. Refused as [`is_absent`] says where there is none.
pub fn get_filter(node: u16) -> Request {
    let payload = [header(node).bytes(), attribute(TCA_KIND, b"u32\0")].concat();
    Request::of_bytes(RTM_GETTFILTER, payload, 0)
}

/// All filters of the block; none if there is no such block.
///
/// # Errors
/// What the kernel refused, other than that.
pub fn filters(netlink: &mut Netlink) -> Result<Vec<FoundFilter>, Error> {
    let mut all = Vec::new();
    let question = Header { ifindex: MAGIC_BLOCK, parent: ChecksumGuard::BLOCK, ..Header::default() };
    match netlink.dump(RTM_GETTFILTER, question.bytes(), |payload| all.extend(FoundFilter::decode(payload))) {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(()) => Ok(all),
    }
}

impl FoundFilter {
    /// Reads the payload of an RTM_NEWTFILTER; none of what the kernel tells of a preference as a whole, or of a hash table.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let Header { handle, info, .. } = Header::decode(payload)?;
        let (mut kind, mut options) = (String::new(), &[][..]);
        for (what, value) in attributes(&payload[TCMSG..]) {
            match what {
                TCA_KIND => kind = text(value),
                TCA_OPTIONS => options = value,
                _ => {}
            }
        }
        if handle == 0 || (kind == "u32" && handle & NODE == 0) {
            return None;
        }
        let ours = kind == "u32" && info == header(0).info && handle & !NODE == TABLE;
        let mut found = Self { handle, ours, filter: None, target: None, cookie: Vec::new() };
        if ours {
            found.read(options);
        }
        Some(found)
    }

    /// Its node among our filters; none of another program's.
    pub fn node(&self) -> Option<u16> {
        self.ours.then_some((self.handle & NODE) as u16)
    }

    fn read(&mut self, options: &[u8]) {
        let (mut words, mut actions) = (None, Vec::new());
        for (what, value) in attributes(options) {
            match what {
                TCA_U32_SEL => words = decode_words(value),
                TCA_U32_ACT => actions = action::decode(value),
                _ => {}
            }
        }
        let (Some(words), [one]) = (words, actions.as_slice()) else { return };
        self.target = one.target;
        self.cookie.clone_from(&one.cookie);
        let node = (self.handle & NODE) as u16;
        self.filter = one.action.map(|action| Filter { node, words, action });
    }
}

/// struct tc_u32_sel and its keys; none of one that does more than compare words.
fn decode_words(selector: &[u8]) -> Option<Vec<Word>> {
    let (head, keys) = selector.split_at_checked(SEL)?;
    let plain = head[0] == TC_U32_TERMINAL && usize::from(head[2]) * KEY == keys.len();
    if !plain || head[4..].iter().any(|it| *it != 0) {
        return None;
    }
    let key = |bytes: &[u8]| {
        let word = |place: usize| bytes.get(place..)?.first_chunk::<4>().copied();
        let offset = i32::from_ne_bytes(word(8)?);
        (word(12)? == [0; 4]).then_some(Word {
            mask: u32::from_be_bytes(word(0)?),
            value: u32::from_be_bytes(word(4)?),
            offset,
        })
    };
    keys.chunks(KEY).map(key).collect()
}
