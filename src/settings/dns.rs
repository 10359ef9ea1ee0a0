//! The settings of dynamic DNS.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::shell::Assignment;
use super::{path, text};
use crate::addr::is_domain_name;

/// How updates are authenticated (AUTHENTICATION_METHOD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all.
    Plain,
    /// By a TSIG key, KEYFILE (RFC 8945).
    Bind9,
    /// By Kerberos, GSS-TSIG (RFC 3645).
    Kerberos,
}

/// Where records go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// AUTHENTICATION_METHOD.
    pub authentication: Authentication,
    /// SERVER: an address or a host name, and a port after a blank if it is not 53.
    pub server: Option<String>,
    /// FZONE: the domain that host names without a dot are completed with; without a final dot.
    pub fzone: Option<String>,
    /// TTL of the records, in seconds.
    pub ttl: u32,
    /// KEYFILE: the TSIG key.
    pub keyfile: Option<PathBuf>,
    /// KERBEROS_PRINCIPAL: whom the keytab speaks for.
    pub kerberos_principal: Option<String>,
    /// KERBEROS_KEYTAB: the file with the principal's keys.
    pub kerberos_keytab: PathBuf,
    /// KERBEROS_TICKET: the ticket cache.
    pub kerberos_ticket: Option<PathBuf>,
    /// KERBEROS_KSTART_ARGS: options that k5start had.
    pub kerberos_kstart_args: Option<String>,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            authentication: Authentication::Bind9,
            server: None,
            fzone: None,
            ttl: 300,
            keyfile: None,
            kerberos_principal: None,
            kerberos_keytab: "/etc/krb5.keytab".into(),
            kerberos_ticket: None,
            kerberos_kstart_args: None,
        }
    }
}

impl DnsSettings {
    /// Takes one setting over; false if it is none of DNS's. An empty value leaves the default.
    pub(super) fn set(&mut self, Assignment { key, value, .. }: &Assignment) -> Result<bool> {
        let given = !value.is_empty();
        match key.as_str() {
            "AUTHENTICATION_METHOD" if given => self.authentication = authentication(value)?,
            "SERVER" if given => self.server = Some(server(value)?),
            "FZONE" if given => self.fzone = Some(zone(value)?),
            "TTL" if given => self.ttl = ttl(value)?,
            "KEYFILE" if given => self.keyfile = Some(path(value)?),
            "KERBEROS_PRINCIPAL" if given => self.kerberos_principal = Some(text(value)?),
            "KERBEROS_KEYTAB" if given => self.kerberos_keytab = path(value)?,
            "KERBEROS_TICKET" if given => self.kerberos_ticket = Some(path(value)?),
            "KERBEROS_KSTART_ARGS" if given => self.kerberos_kstart_args = Some(text(value)?),
            "AUTHENTICATION_METHOD"
            | "SERVER"
            | "FZONE"
            | "TTL"
            | "KEYFILE"
            | "KERBEROS_PRINCIPAL"
            | "KERBEROS_KEYTAB"
            | "KERBEROS_TICKET"
            | "KERBEROS_KSTART_ARGS" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn authentication(value: &str) -> Result<Authentication> {
    Ok(match value {
        "plain" => Authentication::Plain,
        "bind9" => Authentication::Bind9,
        "kerberos" => Authentication::Kerberos,
        _ => bail!("expected plain, bind9 or kerberos"),
    })
}

fn server(value: &str) -> Result<String> {
    let mut words = value.split(' ').filter(|word| !word.is_empty());
    let (host, port, rest) = (words.next().unwrap_or_default(), words.next(), words.next());
    let host_fits = host.parse::<IpAddr>().is_ok() || is_domain_name(host.strip_suffix('.').unwrap_or(host));
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    ensure!(
        host_fits && port_fits && rest.is_none(),
        "expected an address or a host name, and perhaps a port after it"
    );
    Ok(value.to_owned())
}

fn zone(value: &str) -> Result<String> {
    let zone = value.strip_suffix('.').unwrap_or(value);
    ensure!(is_domain_name(zone), "expected a domain such as vm.example.org");
    Ok(zone.to_owned())
}

/// At most 2^31 - 1 (RFC 2181, 8).
fn ttl(value: &str) -> Result<u32> {
    let seconds = value.parse::<i32>().ok().and_then(|seconds| u32::try_from(seconds).ok());
    seconds.context("expected seconds, 0 to 2147483647")
}
