//! Sets up and tears down the network of virtual machines on Ganeti nodes.
//!
//! ```text
//! environment + settings -> Nic -> (facts read from the kernel) -> setups -> Plan -> reconcile -> kernel
//! ```

pub mod addr;
pub mod announce;
pub mod binding;
pub mod commands;
pub mod deadline;
pub mod demo;
pub mod dns;
pub mod environment;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
pub mod json;
pub mod kernel;
pub mod log;
pub mod model;
pub mod nic;
pub mod object;
pub mod ovsdb;
pub mod printable;
pub mod reconcile;
pub mod record;
pub mod routing_tables;
pub mod ruleset;
pub mod settings;
pub mod setup;
pub mod state;
pub mod sys;
pub mod verify;
pub mod xenstore;
