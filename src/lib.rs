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
pub mod files;
pub mod frame;
pub mod json;
pub mod kernel;
pub mod log;
pub mod nic;
pub mod ovsdb;
pub mod plan;
pub mod printable;
pub mod reconcile;
pub mod record;
pub mod routing_tables;
pub mod ruleset;
pub mod settings;
pub mod setup;
pub mod state;
pub mod timed;
pub mod verify;
pub mod xenstore;
