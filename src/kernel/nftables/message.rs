//! Messages of nfnetlink: attributes and headers as bytes, both ways. What is sent has neli's headers.

use std::io::Cursor;

use anyhow::{Result, ensure};
use neli::consts::nl::NlmF;
use neli::nl::{NlPayload, NlmsghdrBuilder};
use neli::types::Buffer;
use neli::{Size, ToBytes};
use nix::libc::{EAFNOSUPPORT, EINVAL, ENOENT, EOPNOTSUPP, EPERM};

use super::uapi::*;
use crate::kernel::attributes::{self, are_whole};
use crate::kernel::error::{self, Error};
use crate::ruleset::TableFamily;

/// A netlink attribute as bytes, padded.
#[derive(Debug)]
pub(super) struct Attribute(Vec<u8>);

impl Attribute {
    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// An attribute holding `value` as it is, which must stay below 64 kB.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Result<Attribute> {
    ensure!(value.len() < usize::from(u16::MAX) - 4, "an attribute of {} bytes, expected 64 kB at most", value.len());
    Ok(Attribute(attributes::attribute(kind, value)))
}

/// An attribute holding text and its final NUL.
pub(super) fn text(kind: u16, value: &str) -> Result<Attribute> {
    attribute(kind, &[value.as_bytes(), b"\0"].concat())
}

/// An attribute holding a number: nf_tables wants them all big-endian.
pub(super) fn number(kind: u16, value: u32) -> Result<Attribute> {
    attribute(kind, &value.to_be_bytes())
}

/// An attribute holding attributes. All together must stay below 64 kB.
pub(super) fn nested(kind: u16, attributes: Vec<Attribute>) -> Result<Attribute> {
    attribute(NLA_F_NESTED | kind, &joined(&attributes))
}

fn joined(attributes: &[Attribute]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(attributes.iter().map(Attribute::len).sum());
    attributes.iter().for_each(|it| bytes.extend(&it.0));
    bytes
}

/// The number netfilter gives a family.
pub(super) fn family_number(family: TableFamily) -> u8 {
    match family {
        TableFamily::Inet => NFPROTO_INET,
        TableFamily::Arp => NFPROTO_ARP,
        TableFamily::Bridge => NFPROTO_BRIDGE,
    }
}

/// struct nfgenmsg (linux/netfilter/nfnetlink.h) and the attributes behind it.
#[derive(Debug, Size, ToBytes)]
struct Nfgenmsg {
    family: u8,
    version: u8,
    resource: [u8; 2],
    attributes: Buffer,
}

/// A message to the kernel, without its sequence number.
#[derive(Debug)]
pub(super) struct Request {
    /// Message type.
    pub(super) kind: u16,
    /// Flags besides NLM_F_REQUEST.
    pub(super) flags: NlmF,
    /// Netfilter's number of the family.
    pub(super) family: u8,
    /// What it says.
    pub(super) attributes: Vec<Attribute>,
}

impl Request {
    /// A message about an object of one of our tables.
    pub(super) fn new(kind: u16, flags: NlmF, family: TableFamily, attributes: Vec<Attribute>) -> Self {
        Self { kind, flags, family: family_number(family), attributes }
    }

    /// Appends the message to `batch`.
    pub(super) fn write(self, sequence: u32, batch: &mut Vec<u8>) -> Result<()> {
        let bound = matches!(self.kind, NFNL_MSG_BATCH_BEGIN | NFNL_MSG_BATCH_END);
        let resource = if bound { NFNL_SUBSYS_NFTABLES } else { 0 }.to_be_bytes();
        let attributes = joined(&self.attributes).into();
        let body = Nfgenmsg { family: self.family, version: NFNETLINK_V0, resource, attributes };
        let message = NlmsghdrBuilder::default()
            .nl_type(self.kind)
            .nl_flags(self.flags | NlmF::REQUEST)
            .nl_seq(sequence)
            .nl_payload(NlPayload::Payload(body))
            .build()?;
        let mut bytes = Cursor::new(Vec::with_capacity(message.padded_size()));
        message.to_bytes(&mut bytes)?;
        batch.extend(bytes.into_inner());
        Ok(())
    }
}

/// What the kernel sent back for one sequence number.
#[derive(Debug)]
pub(super) enum Answer {
    /// An object.
    Object(Object),
    /// The end of a dump.
    Done,
    /// All is well.
    Acknowledged,
    /// It refused.
    Refused(Refusal),
}

/// A message that the kernel refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What it said.
    pub(super) error: Error,
    /// Netfilter's number of the message's family.
    pub(super) family: u8,
}

impl Refusal {
    /// The error, with what can be done about it where that is known.
    pub(super) fn explain(self) -> anyhow::Error {
        let creates = matches!(self.error.operation, "NFT_MSG_NEWTABLE" | "NFT_MSG_NEWCHAIN");
        let advice = match (self.error.errno, self.family) {
            (EPERM, _) => "expected the capability CAP_NET_ADMIN",
            (EINVAL, _) if self.error.operation == "NFT_MSG_GETGEN" => WITHOUT_NF_TABLES,
            (EOPNOTSUPP, _) if self.error.operation == "NFNL_MSG_BATCH_BEGIN" => WITHOUT_NF_TABLES,
            (ENOENT | EAFNOSUPPORT | EOPNOTSUPP, NFPROTO_INET) if creates => {
                "expected a kernel with CONFIG_NF_TABLES_INET"
            }
            (ENOENT | EAFNOSUPPORT | EOPNOTSUPP, NFPROTO_ARP) if creates => {
                "expected a kernel with CONFIG_NF_TABLES_ARP"
            }
            (ENOENT | EAFNOSUPPORT | EOPNOTSUPP, NFPROTO_BRIDGE) if creates => {
                "expected a kernel with CONFIG_NF_TABLES_BRIDGE"
            }
            _ => return self.error.into(),
        };
        anyhow::Error::new(self.error).context(advice)
    }
}

const WITHOUT_NF_TABLES: &str = "expected a kernel with CONFIG_NF_TABLES";

/// An object of nf_tables as the kernel describes it.
#[derive(Debug)]
pub(super) struct Object {
    /// Message type.
    pub(super) kind: u16,
    /// Whether other changes came between the parts of this dump (NLM_F_DUMP_INTR): it is then not to be trusted.
    pub(super) interrupted: bool,
    /// Its attributes, none of which is cut short.
    pub(super) bytes: Vec<u8>,
}

impl Object {
    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.bytes)
    }
}

/// Length of struct nlmsghdr and of struct nfgenmsg.
const HEADER: usize = 16;
const NFGENMSG: usize = 4;
// linux/netlink.h
const NLA_F_NESTED: u16 = 0x8000;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The answers in what one recv returned, with their sequence numbers; nothing where a message is cut short. (neli's own
/// header parser is not used here: it subtracts lengths it has not checked.)
pub(super) fn answers(mut bytes: &[u8]) -> Option<Vec<(u32, Answer)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let (kind, flags, sequence) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?, u32_at(bytes, 8)?);
        let payload = bytes.get(HEADER..length)?;
        match kind {
            NLMSG_NOOP | NLMSG_OVERRUN => {}
            NLMSG_ERROR => all.push((sequence, refusal(payload, flags)?)),
            NLMSG_DONE => all.push((sequence, Answer::Done)),
            _ => {
                let bytes = payload.get(NFGENMSG..).filter(|bytes| are_whole(bytes))?.to_vec();
                let interrupted = flags & NLM_F_DUMP_INTR != 0;
                all.push((sequence, Answer::Object(Object { kind, interrupted, bytes })));
            }
        }
        bytes = bytes.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
    }
    Some(all)
}

/// struct nlmsgerr: the errno, then the message that it is about.
fn refusal(payload: &[u8], flags: u16) -> Option<Answer> {
    let errno = i32::from_ne_bytes(*payload.first_chunk()?);
    if errno == 0 {
        return Some(Answer::Acknowledged);
    }
    let operation = operation(u16_at(payload, 4 + 4)?);
    let family = payload.get(4 + HEADER).copied().unwrap_or(NFPROTO_UNSPEC);
    let text = error::extended_text(payload, flags & NLM_F_CAPPED != 0);
    let error = Error { operation, errno: errno.saturating_neg(), text };
    Some(Answer::Refused(Refusal { error, family }))
}

/// Attributes of a message or of another attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// What the attribute of this type holds.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        attributes::attributes(self.0).find(|it| it.0 == kind).map(|it| it.1)
    }

    /// The number the attribute of this type holds.
    pub(super) fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// The number of 64 bits the attribute of this type holds.
    pub(super) fn number64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// The attributes that the attribute of this type holds.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.each(kind).next()
    }

    /// The attributes that each attribute of this type holds.
    pub(super) fn each(self, kind: u16) -> impl Iterator<Item = Self> {
        attributes::attributes(self.0).filter(move |it| it.0 == kind && are_whole(it.1)).map(|it| Self(it.1))
    }
}
