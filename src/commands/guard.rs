//! Whether the virtio header of a TAP is guarded: see `setup/guard.rs`.

use std::collections::HashMap;

use anyhow::{Result, anyhow, bail};

use crate::addr::IfName;
use crate::kernel::Kernel;
use crate::kernel::rtnetlink::LinkState;
use crate::log::Log;
use crate::nic::{Mode, Nic};
use crate::object::ChecksumGuard;
use crate::settings::{Settings, VnetHdrGuard};
use crate::setup::guard::is_filtered;

/// What an administrator can do where nothing guards.
const ADVICE: &str = "set Ganeti's hypervisor parameter vnet_hdr to false, or accept it by VNET_HDR_GUARD=optional";

/// What guards the TAP of a NIC; none where it has no virtio header, or goes without. `make`: what is missing of it is made.
///
/// # Errors
/// If the NIC's filters need a guard and it cannot be had.
pub fn of_nic(
    kernel: &mut Kernel,
    nic: &Nic,
    settings: &Settings,
    tap: &LinkState,
    make: bool,
    log: &mut Log,
) -> Result<Option<ChecksumGuard>> {
    let guardable = tap.vnet_hdr && matches!(nic.mode, Mode::Routed { .. } | Mode::Bridged { .. });
    if !guardable || settings.vnet_hdr_guard == VnetHdrGuard::Off {
        return Ok(None);
    }
    let why = match of_tap(kernel, tap, make) {
        Ok(guard) => return Ok(Some(guard)),
        Err(error) => error,
    };
    let name = &tap.name;
    if settings.vnet_hdr_guard == VnetHdrGuard::Required && is_filtered(nic) {
        bail!(
            "INTERFACE: \"{name}\" has a virtio header, by which a guest changes frames behind the filters, and cannot be guarded: {why:#}: {ADVICE}"
        );
    }
    log.line(format_args!("warning: {name} has a virtio header and is not guarded: {why:#}"));
    Ok(None)
}

fn of_tap(kernel: &mut Kernel, tap: &LinkState, make: bool) -> Result<ChecksumGuard> {
    let look = kernel.look_at_guard(tap.index)?;
    match look.qdisc {
        Some(qdisc) if qdisc.ingress_block != Some(ChecksumGuard::BLOCK) => {
            Err(anyhow!("another program gave it the qdisc {qdisc}"))
        }
        // What is printed can be run on every kernel.
        _ if !make => Ok(look.guard.unwrap_or(ChecksumGuard { act_csum: false })),
        _ => kernel.ensure_guard(),
    }
}

/// Makes what guards ahead of the first NIC that needs it.
///
/// # Errors
/// If it cannot be had, and what the administrator can do.
pub fn make(kernel: &mut Kernel, settings: &Settings) -> Result<()> {
    if settings.vnet_hdr_guard == VnetHdrGuard::Off {
        return Ok(());
    }
    match kernel.ensure_guard() {
        Ok(_) => Ok(()),
        Err(why) => bail!(
            "TAPs with a virtio header cannot be guarded: {why:#}: ifup will refuse filtered NICs that have one: {ADVICE}"
        ),
    }
}

/// The same, where it is only a warning.
pub fn prepare(kernel: &mut Kernel, settings: &Settings, log: &mut Log) {
    if let Err(error) = make(kernel, settings) {
        log.say(format!("warning: {error}"));
    }
}

/// The TAPs that are to be guarded even if their records are of a version that did not guard any.
///
/// # Errors
/// What the kernel refused.
pub fn required(kernel: &mut Kernel, settings: &Settings) -> Result<HashMap<IfName, u32>> {
    if settings.vnet_hdr_guard == VnetHdrGuard::Required { kernel.taps_with_header() } else { Ok(HashMap::new()) }
}
