//! Messages: questions, whether an answer belongs to one, and the records in it.

use std::hash::{BuildHasher, Hasher, RandomState};

use anyhow::{Context, Result, anyhow, ensure};
use domain::base::iana::{Class, Opcode, Rcode};
use domain::base::message::RecordSection;
use domain::base::message_builder::AdditionalBuilder;
use domain::base::name::ToName;
use domain::base::{Message, MessageBuilder, ParsedName, Rtype};
use domain::rdata::{A, Aaaa, Cname, Ns, Ptr};

use super::records::{Data, Name};

/// A whole message without a TSIG record.
pub(super) type Request = AdditionalBuilder<Vec<u8>>;
/// A received one.
pub(super) type Answer = Message<Vec<u8>>;

/// A question for the records of a type; `recursion` asks the server to look for them elsewhere.
pub(super) fn query(name: &Name, rtype: Rtype, recursion: bool) -> Result<Request> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_rd(recursion);
    let mut question = builder.question();
    question.push((name, rtype)).map_err(|error| anyhow!("question: {error}"))?;
    Ok(question.additional())
}

/// A number that nobody can foresee: the standard library seeds its hashers from the kernel's random numbers.
pub(super) fn random_id() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

/// That `answer` answers `request`, and nothing else: the number, the kind, and the question. An UPDATE's answer may leave the zone out
/// (RFC 2136, 3.8), and so may one to a message that was not understood.
pub(super) fn check_answers(answer: &Answer, request: &Request) -> Result<()> {
    const EXPECTED: &str = "the answer belongs to another question";
    let (header, asked) = (answer.header(), request.header());
    let same = header.id() == asked.id() && header.opcode() == asked.opcode();
    ensure!(header.qr() && same, EXPECTED);
    let theirs = questions(answer.for_slice_ref()).context("malformed answer")?;
    let may_lack = header.opcode() == Opcode::UPDATE || header.rcode() == Rcode::FORMERR;
    ensure!((theirs.is_empty() && may_lack) || theirs == questions(request.as_message())?, EXPECTED);
    let mut records = answer.additional().context("malformed answer")?;
    records.by_ref().try_for_each(|record| record.map(drop)).context("malformed answer")?;
    // No signature covers it.
    ensure!(records.pos() == answer.as_slice().len(), "bytes follow the last record of the answer");
    Ok(())
}

fn questions(message: Message<&[u8]>) -> Result<Vec<(Name, Rtype, Class)>> {
    let parts = message.question().map(|question| {
        let question = question?;
        Ok((question.qname().to_vec(), question.qtype(), question.qclass()))
    });
    parts.collect()
}

/// A record of an answer, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub owner: Name,
    pub content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Data(Data),
    /// The owner is an alias of this name.
    Cname(Name),
    Ns(Name),
    /// The owner is the top of a zone.
    Soa,
    Other,
}

/// The records of the answer section.
pub(super) fn answer_section(message: &Answer) -> Result<Vec<Found>> {
    found(message.answer().context("malformed answer")?)
}

/// The records of the authority section.
pub(super) fn authority_section(message: &Answer) -> Result<Vec<Found>> {
    found(message.authority().context("malformed answer")?)
}

fn found(section: RecordSection<'_, Vec<u8>>) -> Result<Vec<Found>> {
    type Parsed<'a> = ParsedName<&'a [u8]>;
    section
        .map(|record| {
            let record = record?;
            let content = match record.rtype() {
                _ if record.class() != Class::IN => None,
                Rtype::A => record.to_record::<A>()?.map(|r| Content::Data(Data::A(r.data().addr()))),
                Rtype::AAAA => record.to_record::<Aaaa>()?.map(|r| Content::Data(Data::Aaaa(r.data().addr()))),
                Rtype::PTR => {
                    record.to_record::<Ptr<Parsed>>()?.map(|r| Content::Data(Data::Ptr(r.data().ptrdname().to_vec())))
                }
                Rtype::CNAME => record.to_record::<Cname<Parsed>>()?.map(|r| Content::Cname(r.data().cname().to_vec())),
                Rtype::NS => record.to_record::<Ns<Parsed>>()?.map(|r| Content::Ns(r.data().nsdname().to_vec())),
                Rtype::SOA => Some(Content::Soa),
                _ => None,
            };
            Ok(Found { owner: record.owner().to_vec(), content: content.unwrap_or(Content::Other) })
        })
        .collect::<Result<_>>()
        .context("malformed answer")
}

/// The name that `name` is an alias of in the answer section, if it is one.
pub(super) fn alias(section: &[Found], name: &Name) -> Option<Name> {
    section.iter().find_map(|found| match &found.content {
        Content::Cname(target) if found.owner == *name => Some(target.clone()),
        _ => None,
    })
}
