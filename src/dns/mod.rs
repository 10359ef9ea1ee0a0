//! Dynamic DNS: the records of a NIC, kept at a name server by RFC 2136 updates with TSIG.
//!
//! ```text
//! SERVER, KEYFILE -> Dns -> zones of the names -> what is there -> one Update per zone -> a ZoneSummary each
//! ```

mod exchange;
mod key;
mod message;
mod plan;
mod records;
mod resolve;
mod server;
mod summary;
mod update;
mod zone;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use domain::base::Rtype;

use self::exchange::{Client, Deadline};
pub use self::key::Key;
pub use self::records::{Data, Name, Record, host_name, records};
pub use self::server::Server;
pub use self::summary::ZoneSummary;
use self::zone::Place;

/// How the messages to the name server are authenticated.
pub enum Authentication {
    /// Not at all.
    Plain,
    /// By TSIG (RFC 8945): every message is signed, and every answer must be.
    Tsig(Key),
}

/// A name server that is kept equal to what NICs have. All its work shares one deadline, which begins with it.
pub struct Dns {
    client: Client,
    /// Of the records that are added, in seconds.
    ttl: u32,
    /// Where names belong; asked once in a run.
    places: HashMap<Name, Place>,
    /// What would have been sent, as nsupdate reads it: then nothing is.
    script: Option<String>,
}

impl Dns {
    /// Nothing is sent yet. The first server that answers is kept to; the others are asked when it does not.
    pub fn new(servers: Vec<Server>, authentication: Authentication, ttl: u32, timeout: Duration) -> Self {
        let key = match authentication {
            Authentication::Plain => None,
            Authentication::Tsig(key) => Some(key),
        };
        let client = Client::new(servers, key, Deadline::after(timeout));
        Self { client, ttl, places: HashMap::new(), script: None }
    }

    /// Sends questions only from now on; [`Dns::script`] has the updates.
    pub fn dry_run(mut self) -> Self {
        self.script = Some(String::new());
        self
    }

    /// The updates that a dry run did not send, as input of nsupdate.
    pub fn script(&self) -> &str {
        self.script.as_deref().unwrap_or_default()
    }

    /// The addresses of `name` at the server, and all names that their reverse names point to.
    ///
    /// # Errors
    /// If no server answers.
    pub fn show(&mut self, name: &Name) -> Result<Vec<Record>> {
        let mut found = Vec::new();
        for address in self.read_addresses(name, &mut HashMap::new())? {
            found.push(Record { owner: name.clone(), data: address.into() });
            if let Place::In { owner, .. } = self.place(&records::reverse_name(address))? {
                let pointers = self.client.read(&owner, Rtype::PTR)?;
                found.extend(pointers.into_iter().map(|data| Record { owner: owner.clone(), data }));
            }
        }
        Ok(found)
    }
}
