//! What the administrator's own script, IFUP_EXTRA_SCRIPT, is told beside Ganeti's variables: what the common.sh of the shell
//! scripts computed for theirs.

use ipnet::Ipv6Net;

use crate::addr::{Family, IfName};
use crate::environment::RawNic;
use crate::kernel::Kernel;
use crate::log::Log;
use crate::nic::{Mode, Nic};
use crate::settings::Settings;
use crate::state;

/// Variables of the environment, by name; an empty value says that there is no such thing.
pub type Variables = [(&'static str, String); 6];

/// EUI64, TABLE, INDEV, BRIDGE, UPLINK and UPLINK6 of a NIC; `uplinks` are those that its Plan was made with. All are made of
/// checked values: a shell may expand them as they are. Without a script there is nobody to tell.
pub fn variables(
    kernel: &mut Kernel,
    nic: &Nic,
    raw: &RawNic,
    uplinks: &[Vec<IfName>; 2],
    settings: &Settings,
    log: &mut Log,
) -> Option<Variables> {
    settings.ifup_extra_script.as_ref()?;
    let by_mac = || {
        let prefix: Ipv6Net = raw.network_subnet6.as_ref()?.parse().ok()?;
        Some(nic.mac.eui64(prefix.trunc()).ok()?.into())
    };
    let eui64 = nic.endpoint(Family::V6).map(|it| it.address).or_else(by_mac);
    let tap = nic.interface.to_string();
    let [table, indev, bridge] = match &nic.mode {
        // By the name that Ganeti gave it, which is one of iproute2's or a number.
        Mode::Routed { .. } => [raw.link.clone().unwrap_or_else(|| "main".to_owned()), tap, String::new()],
        Mode::Bridged { bridge, .. } => [String::new(), bridge.to_string(), bridge.to_string()],
        Mode::OpenVswitch { bridge, .. } => [String::new(), tap, bridge.to_string()],
        Mode::Ext => <[String; 3]>::default(),
    };
    let mut through = |family: Family| {
        let known = &uplinks[family as usize];
        let names = match nic.mode {
            Mode::Routed { table } if known.is_empty() && nic.endpoint(family).is_some() => {
                let hint = || state::uplink_of_table(&settings.state_dir, table);
                kernel.uplinks(family, table, settings.mark(table), hint).unwrap_or_else(|error| {
                    log.line(format_args!("warning: IFUP_EXTRA_SCRIPT is told no {family} uplink: {error}"));
                    Vec::new()
                })
            }
            _ => known.clone(),
        };
        names.iter().map(IfName::as_str).collect::<Vec<_>>().join(" ")
    };
    Some([
        ("EUI64", eui64.map(|it| it.to_string()).unwrap_or_default()),
        ("TABLE", table),
        ("INDEV", indev),
        ("BRIDGE", bridge),
        ("UPLINK", through(Family::V4)),
        ("UPLINK6", through(Family::V6)),
    ])
}
