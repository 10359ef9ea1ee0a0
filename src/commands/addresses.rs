//! An address is of one NIC in each network: a routing table, or on a bridge a VLAN and a prefix of MACs.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::addr::IfName;
use crate::kernel::Kernel;
use crate::kernel::observed::Observed;
use crate::model::link_id::LinkId;
use crate::record::Record;
use crate::settings::Settings;
use crate::state::State;

/// Two NICs with one address.
#[derive(Debug)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    network: String,
    /// The interface that has it.
    pub other: IfName,
    instance: String,
}

impl std::error::Error for Conflict {}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, network, other, instance } = self;
        write!(f, "{address}: expected an address that no other NIC in {network} has, but {other} of {instance} has it")
    }
}

/// Makes the addresses of a NIC its own, which is recorded and has nothing else yet. The same NIC on another TAP loses them.
///
/// # Errors
/// [`Conflict`] if another NIC has one, whose TAP is there; what could not be read or written.
pub fn claim(kernel: &mut Kernel, state: &State, record: &Record) -> Result<()> {
    for place in &record.places {
        let mut live = |name: &IfName| kernel.link_id(name);
        claim_one(&record.settings, state, place, &mut live, |other| !other.is_same_nic(record))?;
    }
    Ok(())
}

/// The same of a NIC that runs, which takes nothing from any other one.
pub fn conflicts(settings: &Settings, state: &State, record: &Record, observed: &Observed) -> Vec<Result<Conflict>> {
    let mut live = |name: &IfName| Ok(observed.link_id(name));
    let claimed = record.places.iter().map(|place| claim_one(settings, state, place, &mut live, |_| true));
    let errors = claimed.filter_map(Result::err);
    errors.map(|error| error.downcast::<Conflict>()).collect()
}

fn claim_one(
    settings: &Settings,
    state: &State,
    place: &str,
    live: &mut impl FnMut(&IfName) -> Result<Option<LinkId>>,
    keeps: impl Fn(&Record) -> bool,
) -> Result<()> {
    let mut instance = None;
    let other = state.claim(place, |other| {
        let Some(link) = live(other)? else { return Ok(false) };
        for variables in State::peek(&settings.state_dir, other)? {
            let record = Record::from_variables(&variables);
            let record = record.context("its record cannot be understood").with_context(|| other.to_string())?;
            if record.facts.link.is(Some(link)) && record.places.iter().any(|it| it == place) && keeps(&record) {
                instance = record.raw.instance;
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    let Some(other) = other else { return Ok(()) };
    let (network, address) = place.rsplit_once(',').context("a place without an address")?;
    let (address, network) = (address.parse()?, network.replace(',', " "));
    Err(Conflict { address, network, other, instance: instance.unwrap_or_default() }.into())
}
