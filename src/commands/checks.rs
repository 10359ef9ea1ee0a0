//! What ifup and plan check of a NIC before anything is touched: are its tags spelt right, is INTERFACE a guest's, and are
//! its addresses free on this node?

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::addr::{Family, IfName};
use crate::environment::RawNic;
use crate::kernel::Kernel;
use crate::kernel::rtnetlink::{self, LinkState};
use crate::log::Log;
use crate::nic::{Mode, Nic, tag_faults};
use crate::settings::Settings;
use crate::setup::Facts;
use crate::state;

/// Warns of tags that do nothing and were probably meant to.
///
/// # Errors
/// If the guest could do more than was meant without one of them.
pub fn tags(raw: &RawNic, settings: &Settings, log: &mut Log) -> Result<()> {
    let faults = tag_faults(raw, settings);
    if let Some(fault) = faults.iter().find(|it| it.refused) {
        bail!("{}", fault.text);
    }
    faults.iter().for_each(|fault| log.say(format!("warning: {}", fault.text)));
    Ok(())
}

/// The link of this name, if a guest can be behind it.
///
/// # Errors
/// If there is none, it is of another kind, or an uplink that `node up` recorded.
pub fn guests_link(kernel: &mut Kernel, name: &IfName, state_dir: &Path) -> Result<LinkState> {
    let link = kernel.link(name)?.cloned();
    let link = link.with_context(|| format!("INTERFACE: \"{name}\": there is no such interface"))?;
    ensure!(
        link.can_be_a_guests(),
        "INTERFACE: \"{name}\" (kind {}): expected a TAP, a macvtap, a veth or a Xen vif",
        link.kind.as_deref().unwrap_or("none")
    );
    not_an_uplink(name, Family::BOTH.into_iter().any(|it| state::uplink_written(state_dir, name, it).is_some()))?;
    Ok(link)
}

/// Whether the node itself has an address of the NIC, or reaches its network by the NIC's own interface. A routed guest
/// would get nothing: the node takes packets for its own addresses itself, whatever the routing tables say. On a bridge it
/// is the same network only if the bridge itself has the address.
///
/// # Errors
/// If so, and what the kernel refused.
pub fn free_addresses(kernel: &mut Kernel, nic: &Nic, facts: &Facts) -> Result<()> {
    not_an_uplink(&nic.interface, facts.uplinks.iter().flatten().any(|it| *it == nic.interface))?;
    let bridge = match &nic.mode {
        Mode::Routed { .. } => None,
        Mode::Bridged { bridge, vlan: None } | Mode::OpenVswitch { bridge, vlan: None } => Some(bridge),
        _ => return Ok(()),
    };
    let addresses: Vec<_> = Family::BOTH.into_iter().filter_map(|it| Some(nic.endpoint(it)?.address)).collect();
    for (address, device) in rtnetlink::own_addresses(&mut kernel.netlink, &addresses)? {
        let device = kernel.link_by_index(device)?.map(|it| it.name.to_string()).unwrap_or_default();
        if bridge.is_none_or(|it| it.as_str() == device) {
            bail!("the NIC's address {address}: expected none of this node's own, but {device} has it");
        }
    }
    Ok(())
}

fn not_an_uplink(name: &IfName, uplink: bool) -> Result<()> {
    ensure!(!uplink, "INTERFACE: \"{name}\": expected a guest's interface, it is an uplink of this node");
    Ok(())
}
