//! The binding file by which nfdhcpd knows what to answer to whom.

use std::fmt::Write;

use crate::addr::Family;
use crate::nic::{Mode, Nic};
use crate::object::{File, Plan};
use crate::settings::Settings;

/// Adds the binding. nfdhcpd reads lines `KEY=value` with no quoting, the last one counting, and an empty value as none.
pub fn binding(nic: &Nic, settings: &Settings, plan: &mut Plan) {
    let device = match &nic.mode {
        Mode::Bridged { bridge, .. } => bridge,
        _ => &nic.interface,
    };
    let [v4, v6] = Family::BOTH.map(|family| nic.endpoint(family));
    let subnet = |endpoint: Option<&crate::nic::Endpoint>| endpoint.and_then(|it| it.subnet).map(|it| it.to_string());
    let gateway = |endpoint: Option<&crate::nic::Endpoint>| endpoint.and_then(|it| it.gateway).map(|it| it.to_string());
    let address = |endpoint: Option<&crate::nic::Endpoint>| endpoint.map(|it| it.address.to_string());
    // nfdhcpd cannot serve an address whose subnet it does not know.
    let served = v4.filter(|it| it.subnet.is_some());
    let lines = [
        ("INDEV", Some(device.to_string())),
        ("IP", address(served)),
        ("MAC", Some(nic.mac.to_string())),
        ("HOSTNAME", Some(nic.instance.clone())),
        ("TAGS", Some(nic.tags.clone())),
        ("GATEWAY", gateway(served)),
        ("SUBNET", subnet(served)),
        ("GATEWAY6", gateway(v6)),
        ("SUBNET6", subnet(v6)),
        ("EUI64", address(v6)),
    ];
    let mut text = String::new();
    for (key, value) in lines {
        let _infallible = writeln!(text, "{key}={}", value.unwrap_or_default());
    }
    if let Some(extra) = &settings.nfdhcpd_state_extra {
        text.push_str(extra);
        text.push('\n');
    }
    let path = settings.nfdhcpd_state_dir.join(nic.interface.as_str());
    plan.push(File { path, text });
}
