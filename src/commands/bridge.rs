//! What is read of a bridge before a NIC that shall be its port is planned.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::addr::IfName;
use crate::kernel::Kernel;
use crate::kernel::rtnetlink::{self, BridgePort, BridgeState, LinkState};
use crate::nic::Vlan;
use crate::setup::VlanFiltering;

/// The bridge, if it is one.
///
/// # Errors
/// If it is not, or not there.
pub fn link(kernel: &mut Kernel, name: &IfName) -> Result<LinkState> {
    match kernel.link(name)? {
        Some(link) if link.kind.as_deref() == Some("bridge") => Ok(link.clone()),
        Some(_) => bail!("LINK or BRIDGE: \"{name}\" is no bridge"),
        None => bail!("LINK or BRIDGE: \"{name}\": there is no such bridge"),
    }
}

/// What is to know of a bridge for a NIC with VLANs. `recorded` is what an earlier ifup of the NIC read: what its ports to the
/// outside lacked then counts, as it is there now because of this NIC.
///
/// # Errors
/// If the bridge does not filter VLANs, or a VLAN device would take the guest's frames.
pub fn vlans(
    kernel: &mut Kernel,
    bridge: &LinkState,
    vlan: &Vlan,
    state_dir: &Path,
    recorded: Option<&VlanFiltering>,
) -> Result<VlanFiltering> {
    let name = &bridge.name;
    let state = bridge.bridge.with_context(|| format!("LINK or BRIDGE: \"{name}\": nothing is known of its VLANs"))?;
    match state.vlan_filtering {
        Some(true) => {}
        Some(false) => bail!(
            "VLAN {vlan}: bridge \"{name}\" does not filter VLANs, expected vlan_filtering 1 (ip link set dev {name} type bridge vlan_filtering 1)"
        ),
        None => bail!(
            "VLAN {vlan}: this kernel cannot filter VLANs on bridge \"{name}\", expected one with CONFIG_BRIDGE_VLAN_FILTERING"
        ),
    }
    let mut outside = rtnetlink::ports(&mut kernel.netlink, bridge.index)?;
    outside.retain(|port| leads_outside(port, state_dir));
    no_clash(kernel, bridge, state, vlan, &outside)?;
    let mut lacking = Vec::new();
    for port in outside {
        let present = rtnetlink::vlans(&mut kernel.netlink, port.index)?;
        let before = recorded.and_then(|it| it.lacking.iter().find(|it| it.0 == port.name));
        let lacked = |vid: &u16| {
            before.is_some_and(|it| it.1.contains(vid)) || !present.iter().any(|present| present.vid == *vid)
        };
        lacking.push((port.name, vids(vlan).filter(lacked).collect()));
    }
    lacking.retain(|it: &(IfName, Vec<u16>)| !it.1.is_empty());
    lacking.sort_unstable();
    Ok(VlanFiltering { default_pvid: state.default_pvid, lacking })
}

/// The VLANs, each once.
fn vids(vlan: &Vlan) -> impl Iterator<Item = u16> {
    vlan.untagged.into_iter().chain(vlan.tagged.iter().copied().filter(|vid| vlan.untagged != Some(*vid)))
}

/// Whether a port is none of a guest: no TAP, no veth, none of Xen's (`vif7.0`, which has no kind), and none that we set up.
fn leads_outside(port: &BridgePort, state_dir: &Path) -> bool {
    let name = port.name.as_str();
    let of_xen = name.strip_prefix("vif").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let of_guests = ["tun", "veth", "macvtap", "ipvtap"].iter().any(|kind| port.kind.as_deref() == Some(kind));
    !of_xen && !of_guests && !state_dir.join(name).is_file()
}

/// A VLAN device on a port, or on a member of a bond that is one, gets the frames of its VLAN before the bridge does.
fn no_clash(
    kernel: &mut Kernel,
    bridge: &LinkState,
    state: BridgeState,
    vlan: &Vlan,
    outside: &[BridgePort],
) -> Result<()> {
    for device in rtnetlink::vlan_devices(&mut kernel.netlink)? {
        if device.protocol != state.vlan_protocol || !vids(vlan).any(|vid| vid == device.vid) {
            continue;
        }
        let Some(lower) = kernel.link_by_index(device.lower)? else { continue };
        let is_port = |index: u32| outside.iter().any(|port| port.index == index);
        ensure!(
            !is_port(lower.index) && !is_port(lower.controller),
            "VLAN {vlan}: VID {} is taken by the VLAN device \"{}\" on \"{}\", through which bridge \"{}\" would get its frames",
            device.vid,
            device.name,
            lower.name,
            bridge.name
        );
    }
    Ok(())
}
