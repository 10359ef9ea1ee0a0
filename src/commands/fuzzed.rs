//! Command lines: up to where the kernel would be asked.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;

use super::arpsend::{self, Arguments};
use super::{Selection, dns, node, vif};
use crate::addr::Family;
use crate::environment::IfupdownUplink;
use crate::fuzzed::check_error;
use crate::nic::dns_addresses;
use crate::object::Plan;
use crate::settings::Settings;
use crate::setup::uplink;
use crate::state::Variables;

/// Words before NULs, as in /proc/PID/cmdline; the first one is the command.
pub(crate) fn command_line(bytes: &[u8]) {
    let words: Vec<OsString> = bytes.split(|it| *it == 0).map(|it| OsStr::from_bytes(it).to_owned()).collect();
    let Some((command, arguments)) = words.split_first() else { return };
    let read = match command.to_str() {
        Some("node") => node::fuzzed::words(arguments),
        Some("prv-net-helper") => node::fuzzed::helper(arguments),
        Some("dns") => dns::read(arguments).and_then(|it| it.map_or(Ok(()), |it| by_hand(&it.1))),
        Some("mac2eui64") => eui64(arguments),
        Some("arpsend") => Arguments::parse(arguments, "Uic", "arpsend").map(|it| assert!(it.count > 0)),
        Some("ndsend") => {
            Arguments::parse(arguments, "c", "ndsend").and_then(|it| it.operands::<2>("ndsend").map(|_| ()))
        }
        Some("status") => Selection::new("status", arguments, true, &["json", "watch", "verbose"]).map(|_| ()),
        Some("gc") => Selection::new("gc", arguments, false, &["dry-run"]).map(|_| ()),
        Some("vif-custom") => vif::fuzzed(arguments),
        _ => Ok(()),
    };
    if let Err(error) = read {
        check_error(&error);
    }
}

fn by_hand(asked: &dns::Asked) -> Result<()> {
    let settings = Settings::default();
    for raw in asked.nics(&settings)? {
        assert_eq!(dns_addresses(&raw, &settings)?.len(), 1);
    }
    Ok(())
}

fn eui64(arguments: &[OsString]) -> Result<()> {
    let [mac, prefix] = Arguments::parse(arguments, "c", "mac2eui64")?.operands("mac2eui64")?;
    let address = arpsend::eui64(mac, prefix)?;
    let IpAddr::V6(address) = address else { panic!("{address}: expected an IPv6 address") };
    assert_eq!(address.octets()[11..13], [0xff, 0xfe]);
    Ok(())
}

/// ifupdown's variables, up to the Plan of the uplink.
pub(crate) fn ifupdown(raw: &IfupdownUplink) -> Result<()> {
    node::fuzzed::ifupdown(raw)
}

/// The Plan of an uplink that is recorded so.
pub(crate) fn recorded_uplink(variables: &Variables, family: Family) -> Result<Plan> {
    node::recorded(variables, family).map(|(uplink, before)| uplink::plan(&uplink, &before))
}
