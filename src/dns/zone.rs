//! Where a name belongs: asked of the server, never derived from an address's bytes.

use anyhow::Result;
use domain::base::Rtype;
use domain::base::iana::Rcode;

use super::Dns;
use super::exchange::Denied;
use super::message::{Content, alias, answer_section, authority_section, query};
use super::records::Name;

/// Longest chain of aliases that is followed.
const MAX_ALIASES: usize = 8;

/// Where a name's records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a zone of the server.
    In {
        /// The name, or what it is an alias of (RFC 2317 delegates reverse names so).
        owner: Name,
        zone: Name,
    },
    /// In none of the server; why.
    Elsewhere(String),
    /// The server failed to say; why.
    Unknown(String),
}

impl Dns {
    /// The place of a name, asked once in a run.
    ///
    /// # Errors
    /// If no server answers.
    pub(super) fn place(&mut self, name: &Name) -> Result<Place> {
        if let Some(place) = self.places.get(name) {
            return Ok(place.clone());
        }
        let place = self.find(name)?;
        if let Place::In { owner, .. } = &place {
            self.places.insert(owner.clone(), place.clone());
        }
        self.places.insert(name.clone(), place.clone());
        Ok(place)
    }

    fn find(&mut self, name: &Name) -> Result<Place> {
        let mut owner = name.clone();
        for _ in 0..=MAX_ALIASES {
            match self.find_owner(&owner)? {
                Step::Alias(target) => owner = target,
                Step::Zone(zone) => return Ok(Place::In { owner, zone }),
                Step::Elsewhere(why) => return Ok(Place::Elsewhere(why)),
                Step::Unknown(why) => return Ok(Place::Unknown(why)),
            }
        }
        Ok(Place::Unknown(format!("{name}: more than {MAX_ALIASES} aliases (CNAME) in a row")))
    }

    /// Asks for the SOA of `owner`, then of each name above: NOERROR and NXDOMAIN both tell it (RFC 2308, 2).
    fn find_owner(&mut self, owner: &Name) -> Result<Step> {
        for above in owner.iter_suffixes() {
            let above = Name::from_octets(above.as_slice().to_vec())?;
            let answer = match self.client.ask(&query(&above, Rtype::SOA, false)?) {
                Err(error) if error.is::<Denied>() => return Ok(Step::Unknown(format!("{above}: {error}"))),
                answer => answer?,
            };
            let header = answer.header();
            let told = format!("{above}: the server answers {}", header.rcode());
            match header.rcode() {
                Rcode::NOERROR | Rcode::NXDOMAIN => {}
                Rcode::REFUSED | Rcode::NOTAUTH => return Ok(Step::Elsewhere(told)),
                _ => return Ok(Step::Unknown(told)),
            }
            let (answers, authority) = (answer_section(&answer)?, authority_section(&answer)?);
            if !header.aa() {
                let server = authority.iter().find_map(|found| match &found.content {
                    Content::Ns(server) => Some(format!("{} is delegated to {server}", found.owner)),
                    _ => None,
                });
                let why = server.unwrap_or_else(|| "it is not authoritative".to_owned());
                return Ok(Step::Elsewhere(format!("{above}: the server has no such zone: {why}")));
            }
            if let Some(target) = alias(&answers, &above).filter(|_| above == *owner) {
                return Ok(Step::Alias(target));
            }
            let mut tops = answers.iter().chain(&authority).filter(|found| found.content == Content::Soa);
            if let Some(top) = tops.find(|found| owner.ends_with(&found.owner)) {
                if top.owner.is_root() {
                    return Ok(Step::Unknown(format!("{owner}: the server has it in the root zone, expected another")));
                }
                return Ok(Step::Zone(top.owner.clone()));
            }
        }
        Ok(Step::Elsewhere(format!("{owner}: the server knows no zone above it")))
    }
}

enum Step {
    Zone(Name),
    Alias(Name),
    Elsewhere(String),
    Unknown(String),
}
