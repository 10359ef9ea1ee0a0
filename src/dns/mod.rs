//! Dynamic DNS: the records of a NIC, kept at a name server by RFC 2136 updates with TSIG.
//!
//! ```text
//! SERVER, KEYFILE -> Dns -> zones of the names -> what is there -> one Update per zone -> a ZoneSummary each
//! ```

mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod key;
mod message;
mod plan;
mod queue;
mod records;
mod resolve;
mod server;
mod summary;
mod update;
mod zone;

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use domain::base::Rtype;

use self::exchange::{Client, Deadline};
use self::key::Key;
pub use self::queue::{Change, Queue, Verb};
pub use self::records::{Data, Name, Record, host_name, records};
pub use self::server::Server;
pub use self::summary::ZoneSummary;
use self::zone::Place;
use crate::deadline;
use crate::settings::{Authentication, DnsSettings};

/// A name server that is kept equal to what NICs have. All its work shares one deadline, which begins with it.
pub struct Dns {
    client: Client,
    /// Of the records that are added, in seconds.
    ttl: u32,
    /// Where names belong; asked once in a run.
    places: HashMap<Name, Place>,
    /// What is wrong with KEYFILE, and does not keep it from being used.
    warnings: Vec<String>,
    /// What would have been sent, as nsupdate reads it: then nothing is.
    script: Option<String>,
}

impl Dns {
    /// The servers and the key of the settings; `None` if dynamic DNS is off, which it is without SERVER, and without
    /// AUTHENTICATION_METHOD and KEYFILE. Nothing is sent yet, but the time that the run has begins.
    ///
    /// # Errors
    /// If messages cannot be signed as the settings want it: never is one sent unsigned instead.
    pub fn new(settings: &DnsSettings) -> Result<Option<Self>> {
        let method = settings.authentication.or(settings.keyfile.as_ref().map(|_| Authentication::Bind9));
        let Some(method) = method.filter(|_| !settings.servers.is_empty()) else { return Ok(None) };
        let mut warnings = Vec::new();
        let key = match method {
            Authentication::Plain => None,
            Authentication::Bind9 => {
                let file = settings.keyfile.as_deref();
                let file = file.context("KEYFILE is not set, expected a TSIG key with AUTHENTICATION_METHOD bind9")?;
                let key = Key::read(file).context("KEYFILE")?;
                warnings.extend(Key::exposed(file).map(|why| format!("KEYFILE: {why}")));
                Some(key)
            }
            Authentication::Kerberos => {
                bail!("AUTHENTICATION_METHOD \"kerberos\": not built in, expected plain or bind9")
            }
        };
        let client = Client::new(settings.servers.clone(), key, Deadline::after(deadline::at_most(settings.timeout)));
        Ok(Some(Self { client, ttl: settings.ttl, places: HashMap::new(), warnings, script: None }))
    }

    /// What is to be warned of, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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
    /// If no server answers, or the name is an alias or in no zone of the server.
    pub fn show(&mut self, name: &Name) -> Result<Vec<Record>> {
        match self.place(name)? {
            Place::In { owner, .. } => ensure!(owner == *name, "{name} is an alias (CNAME) of {owner}"),
            Place::Elsewhere(why) | Place::Unknown(why) => bail!(why),
        }
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
