//! SERVER: which name servers take our updates.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use crate::addr::is_domain_name;
use crate::printable::quoted;

/// The port of DNS (RFC 1035, 4.2).
const PORT: u16 = 53;
const EXPECTED: &str = "expected addresses or host names between spaces, each with a port where it is not 53, \
                        such as 192.0.2.53 ns2.example.org:5353 [2001:db8::53]:5353";

/// An address, or a name to be resolved when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// As it is.
    Address(IpAddr),
    /// A host name; with a final dot it is absolute, and no search list is tried.
    Name(String),
}

/// A name server as the administrator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub host: Host,
    /// Its TCP port.
    pub port: u16,
}

impl Server {
    /// Servers between blanks, in the order in which they are tried. `HOST PORT`, as nsupdate has it, is one server.
    ///
    /// # Errors
    /// If there is none, or one is neither an address nor a host name, or a port no port.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        let mut words = text.split_ascii_whitespace().peekable();
        let mut servers = Vec::new();
        while let Some(word) = words.next() {
            let (host, mut port) = Self::split(word).with_context(|| format!("{}: {EXPECTED}", quoted(word)))?;
            if let Some(number) = words.next_if(|next| port.is_none() && next.bytes().all(|b| b.is_ascii_digit())) {
                port = Some(number);
            }
            let port = match port {
                None => PORT,
                Some(port) => parse_port(port).with_context(|| format!("port {}: {EXPECTED}", quoted(port)))?,
            };
            servers.push(Self { host, port });
        }
        ensure!(!servers.is_empty(), EXPECTED);
        Ok(servers)
    }

    /// The host, and the port behind a colon.
    fn split(word: &str) -> Option<(Host, Option<&str>)> {
        if let Ok(address) = word.parse() {
            return Some((Host::Address(address), None));
        }
        if let Some((address, rest)) = word.strip_prefix('[').and_then(|word| word.split_once(']')) {
            let address = address.parse::<std::net::Ipv6Addr>().ok()?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            return Some((Host::Address(address.into()), port));
        }
        let (host, port) = match word.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (word, None),
        };
        let host = match host.parse() {
            Ok(address) => Host::Address(address),
            // Digits alone are a port without a server, and no name.
            Err(_) if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') => return None,
            Err(_) if is_domain_name(host.strip_suffix('.').unwrap_or(host)) => Host::Name(host.to_owned()),
            Err(_) => return None,
        };
        Some((host, port))
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && !text.starts_with('+'))
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_addresses_or_names_with_or_without_a_port() {
        for (text, expected) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53 ns2.example.org:5353", "192.0.2.53:53 ns2.example.org:5353"),
            ("  192.0.2.53\t5353 ns. 54  ", "192.0.2.53:5353 ns.:54"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53] [2001:db8::54]:5353 ::1 5", "[2001:db8::53]:53 [2001:db8::54]:5353 [::1]:5"),
        ] {
            let found = Server::parse_list(text).unwrap_or_else(|e| panic!("{text:?}: {e:#}"));
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), expected);
        }
    }

    #[test]
    fn anything_else_is_named() {
        for (text, named) in [
            ("", "expected addresses"),
            ("53", "\"53\""),
            ("ns 53 54", "\"54\""),
            ("ns:0", "port \"0\""),
            ("ns 65536", "port \"65536\""),
            ("ns:+1", "port \"+1\""),
            ("ns:", "port \"\""),
            ("[192.0.2.1]:53", "\"[192.0.2.1]:53\""),
            ("[::1]53", "\"[::1]53\""),
            ("::1:x", "\"::1:x\""),
            ("192.0.2.256", "\"192.0.2.256\""),
            ("ns;quit", "\"ns;quit\""),
            ("ns\u{b}", "\"ns\\u{b}\""),
        ] {
            let error = format!("{:#}", Server::parse_list(text).expect_err(text));
            assert!(error.contains(named) && error.contains("expected addresses"), "{text:?}: {error}");
        }
    }
}
