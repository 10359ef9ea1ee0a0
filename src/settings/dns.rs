//! The settings of dynamic DNS.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::shell::Assignment;
use super::{path, text, timeout};
use crate::addr::is_domain_name;
use crate::dns::Server;

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
    /// AUTHENTICATION_METHOD; unset, it is bind9 with a KEYFILE, and without one dynamic DNS is off.
    pub authentication: Option<Authentication>,
    /// SERVER, in the order in which they are tried; without any, dynamic DNS is off.
    pub servers: Vec<Server>,
    /// FZONE: the domain that host names without a dot are completed with; without a final dot.
    pub fzone: Option<String>,
    /// TTL of the records, in seconds.
    pub ttl: u32,
    /// KEYFILE: the TSIG key.
    pub keyfile: Option<PathBuf>,
    /// DNS_TIMEOUT: what all exchanges of one run together may take, name resolution included.
    pub timeout: Duration,
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
            authentication: None,
            servers: Vec::new(),
            fzone: None,
            ttl: 300,
            keyfile: None,
            timeout: Duration::from_secs(10),
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
            "AUTHENTICATION_METHOD" if given => self.authentication = Some(authentication(value)?),
            "SERVER" if given => self.servers = Server::parse_list(value)?,
            "FZONE" if given => self.fzone = Some(zone(value)?),
            "TTL" if given => self.ttl = ttl(value)?,
            "KEYFILE" if given => self.keyfile = Some(path(value)?),
            "DNS_TIMEOUT" if given => self.timeout = timeout(value)?,
            "KERBEROS_PRINCIPAL" if given => self.kerberos_principal = Some(text(value)?),
            "KERBEROS_KEYTAB" if given => self.kerberos_keytab = path(value)?,
            "KERBEROS_TICKET" if given => self.kerberos_ticket = Some(path(value)?),
            "KERBEROS_KSTART_ARGS" if given => self.kerberos_kstart_args = Some(text(value)?),
            "AUTHENTICATION_METHOD"
            | "SERVER"
            | "FZONE"
            | "TTL"
            | "KEYFILE"
            | "DNS_TIMEOUT"
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
