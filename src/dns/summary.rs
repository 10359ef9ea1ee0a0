//! What became of a zone: a line for the log.

use std::fmt;

use super::records::{Name, Record};

/// What was done in one zone, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneSummary {
    /// The zone; none for names that are in no zone of the server.
    pub zone: Option<Name>,
    /// Records that were not there before.
    pub added: Vec<Record>,
    /// Records that are not there any more.
    pub removed: Vec<Record>,
    /// Records that were there, or were absent, as wanted.
    pub unchanged: Vec<Record>,
    /// What was refused, and why.
    pub refused: Vec<String>,
    /// Names that are in no zone of the server, and why.
    pub elsewhere: Vec<String>,
}

impl ZoneSummary {
    /// Whether a zone of the server was not changed as it should be. A name in none of its zones is no failure: not every
    /// address has a reverse zone.
    pub fn failed(&self) -> bool {
        !self.refused.is_empty()
    }

    /// What was planned was not done.
    pub(super) fn fail(&mut self, why: String) {
        self.added.clear();
        self.removed.clear();
        self.refused.push(why);
    }

    /// Takes over what an earlier attempt of the same run did in this zone.
    pub(super) fn include(&mut self, earlier: &Self) {
        for (mine, theirs) in [(&mut self.added, &earlier.added), (&mut self.removed, &earlier.removed)] {
            self.unchanged.retain(|record| !theirs.contains(record));
            mine.extend(theirs.iter().cloned());
        }
    }
}

impl fmt::Display for ZoneSummary {
    /// `zone Z: added R, R; removed R; already so R; refused: why`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "zone {zone}: ")?,
            None => write!(f, "no zone: ")?,
        }
        let list = |verb: &str, records: &[Record]| {
            let records: Vec<_> = records.iter().map(ToString::to_string).collect();
            (!records.is_empty()).then(|| format!("{verb} {}", records.join(", ")))
        };
        let mut parts: Vec<_> =
            [list("added", &self.added), list("removed", &self.removed), list("already so", &self.unchanged)]
                .into_iter()
                .flatten()
                .collect();
        let refused = [self.refused.as_slice(), &self.elsewhere].concat();
        if !refused.is_empty() {
            parts.push(format!("refused: {}", refused.join(", ")));
        }
        if parts.is_empty() {
            parts.push("nothing to do".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}
