//! What is asked of an uplink, by options or by variables.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnet::IpNet;

use super::values::{family, parsed, prefixes, table};
use crate::addr::{Family, IfName};
use crate::object::{TABLE_MAIN, Verb};
use crate::printable::quoted;
use crate::settings::Settings;
use crate::setup::uplink::Uplink;

/// The request as it was given, for one or both families.
#[derive(Debug, Default)]
pub(super) struct UplinkArgs {
    pub(super) device: Option<IfName>,
    pub(super) families: Vec<Family>,
    pub(super) table: Option<u32>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) routes: Vec<IpNet>,
    pub(super) arp_ip: Option<Ipv4Addr>,
    pub(super) no_forwarding: bool,
    pub(super) no_proxy: bool,
    /// The gateway is on the link though no prefix has it.
    pub(super) onlink: bool,
    /// Guests may lose their way.
    pub(super) force: bool,
    pub(super) dry_run: bool,
}

impl UplinkArgs {
    /// Takes an option over, and its value from `words`.
    ///
    /// # Errors
    /// If there is no such option, or its value is missing or wrong.
    pub(super) fn option(&mut self, option: &str, words: &mut lexopt::Parser) -> Result<()> {
        let mut value = || -> Result<String> {
            let value = words.value().with_context(|| format!("node: {option}"))?;
            value.into_string().map_err(|it| anyhow!("node: {option}: {} is not UTF-8", quoted(&it.to_string_lossy())))
        };
        match option {
            "--dev" => self.device = Some(parsed(option, &value()?)?),
            "--table" => self.table = Some(table(option, &value()?)?),
            "--gateway" => self.gateways.push(parsed(option, &value()?)?),
            "--routes" => self.routes.extend(prefixes(option, &value()?)?),
            "--arp-ip" => self.arp_ip = Some(parsed(option, &value()?)?),
            "--family" => self.families = vec![family(option, &value()?)?],
            "--no-forwarding" => self.no_forwarding = true,
            "--no-proxy" => self.no_proxy = true,
            "--onlink" => self.onlink = true,
            "--force" => self.force = true,
            "--dry-run" => self.dry_run = true,
            other => bail!("node: {}: expected an option, see snf-network node --help", quoted(other)),
        }
        Ok(())
    }

    /// The families that are meant.
    pub(super) fn families(&self, verb: Verb) -> Vec<Family> {
        if !self.families.is_empty() {
            return self.families.clone();
        }
        let given = |family| {
            self.gateways.iter().any(|it| Family::of(*it) == family)
                || self.routes.iter().any(|it| Family::of(it.addr()) == family)
                || (family == Family::V4 && self.arp_ip.is_some())
        };
        let families: Vec<_> = Family::BOTH.into_iter().filter(|it| given(*it)).collect();
        if families.is_empty() && verb == Verb::Remove { Family::BOTH.to_vec() } else { families }
    }

    /// Whether what is asked for makes sense together: nothing of it may be passed over in silence.
    ///
    /// # Errors
    /// What does not.
    pub(super) fn check(&self, verb: Verb) -> Result<()> {
        let families = self.families(verb);
        ensure!(verb == Verb::Add || !self.dry_run, "--dry-run: expected with up only");
        ensure!(!families.is_empty(), "nothing is asked for, expected --gateway, --routes, --arp-ip or --family");
        let addresses = self.gateways.iter().copied().chain(self.routes.iter().map(IpNet::addr));
        for address in addresses {
            let expected = families.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            ensure!(families.contains(&Family::of(address)), "{address}: expected an address of {expected}");
        }
        for gateway in &self.gateways {
            let mut routes = self.routes.iter().filter(|it| Family::of(it.addr()) == Family::of(*gateway)).peekable();
            let on_link = self.onlink || routes.peek().is_none() || is_link_local(*gateway);
            ensure!(
                on_link || routes.any(|it| it.contains(gateway)),
                "--gateway {gateway}: expected an address of --routes, or --onlink"
            );
        }
        Ok(())
    }

    /// One family of it.
    ///
    /// # Errors
    /// If two gateways are of this family.
    pub(super) fn uplink(&self, device: &IfName, family: Family, settings: &Settings) -> Result<Uplink> {
        let mut gateways = self.gateways.iter().copied().filter(|it| Family::of(*it) == family);
        let gateway = gateways.next();
        ensure!(gateways.next().is_none(), "node up {device}: two gateways of {family}, expected one");
        let table = self.table.unwrap_or(TABLE_MAIN);
        Ok(Uplink {
            device: device.clone(),
            family,
            table,
            gateway,
            routes: self.routes.iter().copied().filter(|it| Family::of(it.addr()) == family).collect(),
            arp_ip: self.arp_ip.filter(|_| family == Family::V4),
            forwarding: !self.no_forwarding,
            proxy: !self.no_proxy,
            apart: Vec::new(),
            advertised: Vec::new(),
            down: false,
            fwmark: settings.fwmark(table),
            forward_from: settings.forward_from.clone(),
            nftables: true,
        })
    }
}

/// Whether every link has the prefix of an address.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(it) if it.is_unicast_link_local())
}
