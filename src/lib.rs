//! Sets up and tears down the network of virtual machines on Ganeti nodes.
//!
//! ```text
//! environment + settings -> Nic -> (facts read from the kernel) -> setups -> Plan -> reconcile -> kernel
//! ```

pub mod addr;
pub mod environment;
pub mod kernel;
pub mod nic;
pub mod printable;
pub mod routing_tables;
pub mod ruleset;
pub mod settings;
pub mod setup;
