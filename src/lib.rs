//! Sets up and tears down the network of virtual machines on Ganeti nodes.
//!
//! ```text
//! environment + settings -> Nic -> (facts read from the kernel) -> setups -> Plan -> reconcile -> kernel
//! ```

pub mod addr;
pub mod dns;
pub mod kernel;
pub mod ruleset;
