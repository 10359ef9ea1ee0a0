//! Interfaces whose routes come by router advertisement: the kernel removes these routes, and ignores further advertisements, once the
//! node forwards IPv6, unless accept_ra is 2.

use anyhow::Result;

use super::others::of_other_devices;
use crate::addr::{Family, IfName};
use crate::kernel::rtnetlink::{self, LinkState};
use crate::kernel::{Kernel, routes};
use crate::log::Log;
use crate::settings::Settings;
use crate::setup::Original;
use crate::setup::uplink::Uplink;
use crate::state;

/// Kinds of the interfaces of guests.
const GUESTS: [&str; 2] = ["tun", "vif"];

/// Finds those for which `node up` is to set accept_ra to 2: they accept advertisements now, and are neither an uplink, a guest's, nor a
/// bridge of guests. Those that a `node up` before has set stay so: `own` are the records of this uplink.
///
/// # Errors
/// What the kernel refused, or a record that cannot be read.
pub(super) fn find(
    kernel: &mut Kernel,
    uplink: &mut Uplink,
    own: &[(Uplink, Original)],
    settings: &Settings,
    log: &mut Log,
) -> Result<()> {
    uplink.advertised.clear();
    if uplink.family == Family::V4 || !uplink.forwarding {
        return Ok(());
    }
    let others = of_other_devices(&uplink.device, uplink.family, settings)?;
    for (record, _) in own.iter().chain(&others).filter(|it| !it.0.down) {
        for interface in &record.advertised {
            if !uplink.advertised.contains(interface) && kernel.link(interface)?.is_some() {
                uplink.advertised.push(interface.clone());
            }
        }
    }
    let nics = state::interfaces(&settings.state_dir)?;
    for index in routes::by_advertisement(&mut kernel.netlink)? {
        let Some(link) = kernel.link_by_index(index)?.cloned() else { continue };
        let name = &link.name;
        let is_uplink = *name == uplink.device || others.iter().any(|it| it.0.device == *name);
        let setting = |key| link.setting(Family::V6, key);
        let would_stop = (setting("accept_ra"), setting("forwarding")) == (Some(1), Some(0));
        if !would_stop || is_uplink || is_of_guest(&nics, name, link.kind.as_deref()) {
            continue;
        }
        if has_guests(kernel, &link, &nics)? {
            log.say(format!(
                "warning: {name} loses the routes that it has by router advertisement, as the node forwards IPv6: as a bridge of guests it keeps accept_ra 1, give it a static route"
            ));
            continue;
        }
        log.say(format!("net.ipv6.conf.{name}.accept_ra changes: 1 -> 2, or its routes would go as the node forwards"));
        uplink.advertised.push(name.clone());
    }
    Ok(())
}

fn is_of_guest(nics: &[IfName], name: &IfName, kind: Option<&str>) -> bool {
    nics.contains(name) || kind.is_some_and(|kind| GUESTS.contains(&kind))
}

/// Whether a link is a bridge with ports of guests.
fn has_guests(kernel: &mut Kernel, link: &LinkState, nics: &[IfName]) -> Result<bool> {
    if link.kind.as_deref() != Some("bridge") {
        return Ok(false);
    }
    let ports = rtnetlink::ports(&mut kernel.netlink, link.index)?;
    Ok(ports.iter().any(|port| is_of_guest(nics, &port.name, port.kind.as_deref())))
}
