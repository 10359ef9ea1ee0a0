//! What is done about the virtio header of a TAP.

use std::str::FromStr;

use anyhow::{Result, bail};

/// The value of VNET_HDR_GUARD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VnetHdrGuard {
    /// A TAP with a virtio header is guarded; a filtered NIC that cannot be is refused.
    Required,
    /// It is guarded where that can be.
    Optional,
    /// It is not guarded.
    Off,
}

impl FromStr for VnetHdrGuard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            "off" => Ok(Self::Off),
            _ => bail!("expected required, optional or off"),
        }
    }
}
