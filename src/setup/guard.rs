//! The guard of TAPs with a virtio header. By that header a guest leaves a checksum to the kernel, and says where in the frame it is
//! to be written; the kernel writes it when the frame leaves, behind all rules. The guard has every checksum written before the
//! frame reaches a bridge or nf_tables.

use crate::nic::{Mode, Nic, Profile};
use crate::object::{ChecksumGuard, Clsact, Plan};
use crate::settings::Setup;
use crate::setup::Facts;

/// Whether what comes from the guest is filtered, or kept in its VLANs.
pub fn is_filtered(nic: &Nic) -> bool {
    let by_tag = [Setup::IpLessRouted, Setup::PrivateFiltered, Setup::StrictFiltered].into_iter().any(|it| nic.has(it));
    let by_profile = !matches!(nic.firewall, None | Some(Profile::Unprotected));
    by_tag || by_profile || matches!(nic.mode, Mode::Bridged { vlan: Some(_), .. })
}

/// Adds the guard, where there is one for this NIC.
pub fn add(nic: &Nic, facts: &Facts, plan: &mut Plan) {
    let Some(guard) = facts.guard else { return };
    plan.push(guard);
    plan.push(Clsact { device: nic.interface.clone(), block: ChecksumGuard::BLOCK });
}
