//! ifupdown: the program as a link in its if-up.d and if-down.d, and its variables (interfaces(5)).

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::uplink_args::UplinkArgs;
use super::values::{parsed, prefixes, table};
use crate::addr::Family;
use crate::environment::IfupdownUplink;
use crate::object::Verb;
use crate::printable::quoted;

/// What ifupdown wants of a program that is called by this path: it runs all that its folders hold, whatever the name, with
/// their paths and without arguments.
pub(in crate::commands) fn verb_of(program: &OsStr) -> Option<Verb> {
    let folder = Path::new(program).parent()?.file_name()?;
    [("if-up.d", Verb::Add), ("if-down.d", Verb::Remove)].into_iter().find(|it| folder == it.0).map(|it| it.1)
}

/// What ifupdown's variables ask for; none where the call is none of our business.
///
/// # Errors
/// If a variable is missing or wrong.
pub(super) fn asked() -> Result<Option<UplinkArgs>> {
    let raw = IfupdownUplink::from_process()?;
    ensure!(raw.iface.is_some(), "node: IFACE is not set, expected the uplink's name (or --dev)");
    of(&raw)
}

/// The same in one of ifupdown's folders, where we are called for every interface there is.
///
/// # Errors
/// As above.
pub(super) fn asked_by_hook(verb: Verb) -> Result<Option<UplinkArgs>> {
    let raw = IfupdownUplink::from_process()?;
    let Some(asked) = of(&raw)? else { return Ok(None) };
    let (mode, expected) = (raw.mode.as_deref(), if verb == Verb::Add { "start" } else { "stop" });
    ensure!(mode.is_some(), "node: MODE is not set, expected {expected}");
    ensure!(mode == Some(expected), "node: MODE {}: expected {expected}", quoted(mode.unwrap_or_default()));
    Ok(Some(asked))
}

pub(super) fn of(raw: &IfupdownUplink) -> Result<Option<UplinkArgs>> {
    if raw.asks_nothing() || raw.iface.as_deref() == Some("lo") {
        return Ok(None);
    }
    let device = raw.iface.as_deref().context("node: IFACE is not set, expected the uplink's name")?;
    let one = match raw.addrfam.as_deref().context("node: ADDRFAM is not set, expected inet or inet6")? {
        "inet" => Family::V4,
        "inet6" => Family::V6,
        // NetworkManager's dispatcher, and stanzas of what is no IP.
        _ => return Ok(None),
    };
    // ifupdown takes the interface down whatever we say, and has no --force to pass on.
    let device = Some(parsed("IFACE", device)?);
    let mut asked = UplinkArgs { device, families: vec![one], force: true, ..UplinkArgs::default() };
    if let Some(value) = &raw.if_ip_routing_table {
        asked.table = Some(table("IF_IP_ROUTING_TABLE", value)?);
    }
    if let Some(gateway) = &raw.if_ip_gateway {
        asked.gateways.push(parsed("IF_IP_GATEWAY", gateway)?);
    }
    asked.onlink = is_on("IF_IP_ONLINK", raw.if_ip_onlink.as_deref(), false)?;
    if let Some(routes) = &raw.if_ip_routes {
        asked.routes = prefixes("IF_IP_ROUTES", routes)?;
    }
    if let (Some(address), Family::V4) = (&raw.if_arp_ip, one) {
        asked.arp_ip = Some(parsed("IF_ARP_IP", address)?);
    }
    let proxy = match one {
        Family::V4 => is_on("IF_IP_PROXY_ARP", raw.if_ip_proxy_arp.as_deref(), true),
        Family::V6 => is_on("IF_IP_PROXY_NDP", raw.if_ip_proxy_ndp.as_deref(), true),
    };
    asked.no_proxy = !proxy?;
    asked.no_forwarding = !is_on("IF_IP_FORWARDING", raw.if_ip_forwarding.as_deref(), true)?;
    Ok(Some(asked))
}

/// Whether a variable switches something on; without it, the default holds.
fn is_on(variable: &str, value: Option<&str>, default: bool) -> Result<bool> {
    Ok(match value {
        None => default,
        Some("1" | "yes" | "on" | "true") => true,
        Some("0" | "no" | "off" | "false") => false,
        Some(other) => bail!("node: {variable} {}: expected 1 or 0", quoted(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(variables: &[(&str, &str)]) -> IfupdownUplink {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        IfupdownUplink::from_variables(value).expect("UTF-8")
    }

    #[test]
    fn the_folder_says_what_is_wanted() {
        for (program, expected) in [
            ("/etc/network/if-up.d/snf-network", Some(Verb::Add)),
            ("/etc/network/if-down.d/vmrouter", Some(Verb::Remove)),
            ("if-up.d/snf-network", Some(Verb::Add)),
            ("/etc/network/if-pre-up.d/snf-network", None),
            ("/etc/network/snf-network", None),
            ("if-up.d", None),
            ("snf-network", None),
            ("", None),
        ] {
            assert!(verb_of(OsStr::new(program)) == expected, "{program}");
        }
    }

    #[test]
    fn what_others_use_too_asks_nothing_of_us() {
        for variables in [
            &[("IFACE", "lo"), ("ADDRFAM", "inet")][..],
            // Debian's package vlan knows ip-proxy-arp.
            &[("IFACE", "eth1"), ("ADDRFAM", "inet"), ("IF_IP_PROXY_ARP", "yes, please")],
            &[("IFACE", "eth1"), ("ADDRFAM", "NetworkManager"), ("IF_IP_ROUTING_TABLE", "100")],
            &[("IFACE", "--all"), ("ADDRFAM", "meta")],
            &[],
        ] {
            assert!(of(&raw(variables)).expect("no error").is_none(), "{variables:?}");
        }
    }

    #[test]
    fn odd_variables_are_named() {
        let good = [("IFACE", "eth1"), ("ADDRFAM", "inet"), ("IF_IP_ROUTING_TABLE", "100")];
        for (name, value, part) in [
            ("IFACE", "", "IFACE is not set"),
            ("IFACE", "../x", "IFACE: \"../x\""),
            ("ADDRFAM", "", "ADDRFAM is not set, expected inet or inet6"),
            ("IF_IP_ROUTING_TABLE", "no such", "IF_IP_ROUTING_TABLE: \"no such\""),
            ("IF_IP_GATEWAY", "10.0.0", "IF_IP_GATEWAY: \"10.0.0\""),
            ("IF_IP_ROUTES", "10.0.0.0/33", "IF_IP_ROUTES: expected prefixes"),
            ("IF_ARP_IP", "x", "IF_ARP_IP: \"x\""),
            ("IF_IP_FORWARDING", "perhaps", "IF_IP_FORWARDING \"perhaps\": expected 1 or 0"),
            ("IF_IP_PROXY_ARP", "2", "IF_IP_PROXY_ARP \"2\": expected 1 or 0"),
        ] {
            let mut variables = good.to_vec();
            variables.retain(|it| it.0 != name);
            variables.push((name, value));
            let error = of(&raw(&variables)).expect_err(name);
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
        let off = [good[0], good[1], good[2], ("IF_IP_PROXY_ARP", "0"), ("IF_IP_FORWARDING", "no")];
        let asked = of(&raw(&off)).expect("no error").expect("ours");
        assert!(asked.no_proxy && asked.no_forwarding);
    }
}
