//! One atomic change of a zone (RFC 2136), as a message and as input of nsupdate.

use std::fmt;

use anyhow::{Result, anyhow};
use domain::base::iana::{Class, Opcode, Rcode};
use domain::base::message_builder::RecordSectionBuilder;
use domain::base::rdata::UnknownRecordData;
use domain::base::{MessageBuilder, Rtype, Ttl};

use super::message::Request;
use super::records::{Data, Name, Record};

/// What a zone must hold for an update to be done at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prerequisite {
    pub owner: Name,
    pub rtype: Rtype,
    /// All records of that name and type (RFC 2136, 2.4.2); without any, that there is none (2.4.3).
    pub data: Vec<Data>,
}

/// A change of a zone: all or nothing of it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Update {
    pub zone: Name,
    pub prerequisites: Vec<Prerequisite>,
    /// Exactly these; deleting what is not there is no error.
    pub deletes: Vec<Record>,
    pub adds: Vec<Record>,
    /// Of what is added, in seconds.
    pub ttl: u32,
}

/// How a server took an update.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// A prerequisite does not hold: somebody changed the zone since it was read.
    Outdated,
    Refused(Rcode),
}

impl Outcome {
    pub(super) fn of(rcode: Rcode) -> Self {
        match rcode {
            Rcode::NOERROR => Self::Done,
            Rcode::NXDOMAIN | Rcode::YXDOMAIN | Rcode::YXRRSET | Rcode::NXRRSET => Self::Outdated,
            other => Self::Refused(other),
        }
    }
}

impl Update {
    /// Whether it would change anything.
    pub(super) fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.adds.is_empty()
    }

    /// The message (RFC 2136, 2).
    pub(super) fn message(&self) -> Result<Request> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_opcode(Opcode::UPDATE);
        let mut zone = builder.question();
        zone.push((&self.zone, Rtype::SOA)).map_err(|error| anyhow!("zone: {error}"))?;
        let mut prerequisites = zone.answer();
        for Prerequisite { owner, rtype, data } in &self.prerequisites {
            if data.is_empty() {
                push(&mut prerequisites, owner, Class::NONE, 0, *rtype, Vec::new())?;
            }
            for data in data {
                push(&mut prerequisites, owner, Class::IN, 0, *rtype, wire(data))?;
            }
        }
        let mut updates = prerequisites.authority();
        for Record { owner, data } in &self.deletes {
            push(&mut updates, owner, Class::NONE, 0, data.rtype(), wire(data))?;
        }
        for Record { owner, data } in &self.adds {
            push(&mut updates, owner, Class::IN, self.ttl, data.rtype(), wire(data))?;
        }
        Ok(updates.additional())
    }
}

impl fmt::Display for Update {
    /// As nsupdate(1) reads it, up to `send`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "zone {}", self.zone.fmt_with_dot())?;
        for Prerequisite { owner, rtype, data } in &self.prerequisites {
            if data.is_empty() {
                writeln!(f, "prereq nxrrset {} {rtype}", owner.fmt_with_dot())?;
            }
            for data in data {
                writeln!(f, "prereq yxrrset {} {data}", owner.fmt_with_dot())?;
            }
        }
        for record in &self.deletes {
            writeln!(f, "update delete {record}")?;
        }
        for Record { owner, data } in &self.adds {
            writeln!(f, "update add {} {} {data}", owner.fmt_with_dot(), self.ttl)?;
        }
        writeln!(f, "send")
    }
}

fn push(
    section: &mut impl RecordSectionBuilder<Vec<u8>>,
    owner: &Name,
    class: Class,
    ttl: u32,
    rtype: Rtype,
    data: Vec<u8>,
) -> Result<()> {
    let data = UnknownRecordData::from_octets(rtype, data).map_err(|error| anyhow!("{owner} {rtype}: {error}"))?;
    section.push((owner, class, Ttl::from_secs(ttl), data)).map_err(|error| anyhow!("{owner} {rtype}: {error}"))
}

/// The data in wire form, without compression.
fn wire(data: &Data) -> Vec<u8> {
    match data {
        Data::A(address) => address.octets().to_vec(),
        Data::Aaaa(address) => address.octets().to_vec(),
        Data::Ptr(name) => name.as_slice().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::vec_from_str(text).expect("a name")
    }

    fn update() -> Update {
        let a = |text: &str| Data::A(text.parse().expect("an address"));
        let vm = name("vm.e");
        Update {
            zone: name("e"),
            prerequisites: vec![
                Prerequisite { owner: vm.clone(), rtype: Rtype::CNAME, data: Vec::new() },
                Prerequisite { owner: vm.clone(), rtype: Rtype::A, data: vec![a("192.0.2.1")] },
            ],
            deletes: vec![Record { owner: vm.clone(), data: a("192.0.2.1") }],
            adds: vec![Record { owner: vm, data: a("192.0.2.2") }],
            ttl: 300,
        }
    }

    #[test]
    fn the_script_is_nsupdates() {
        let expected = "zone e.\nprereq nxrrset vm.e. CNAME\nprereq yxrrset vm.e. A 192.0.2.1\n\
                        update delete vm.e. A 192.0.2.1\nupdate add vm.e. 300 A 192.0.2.2\nsend\n";
        assert_eq!(update().to_string(), expected);
    }

    #[test]
    fn the_message_has_the_sections_of_rfc_2136() {
        let message = update().message().expect("a message");
        let vm = [2, b'v', b'm', 1, b'e', 0];
        let expected = [
            &[0, 0, 0x28, 0, 0, 1, 0, 2, 0, 2, 0, 0][..],
            &[1, b'e', 0, 0, 6, 0, 1],
            &vm,
            &[0, 5, 0, 254, 0, 0, 0, 0, 0, 0],
            &vm,
            &[0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1],
            &vm,
            &[0, 1, 0, 254, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1],
            &vm,
            &[0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 2],
        ];
        assert_eq!(message.as_slice(), expected.concat());
    }
}
