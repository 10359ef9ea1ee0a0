//! The only folder that knows sockets and bytes.

pub mod error;
pub mod nftables;

pub use error::Error;
