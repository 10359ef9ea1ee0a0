//! What is opened of the node: services to its guests, and guests' networks to other interfaces.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::addr::IfName;
use crate::printable::quoted;

/// Protocols that have ports, by the names of /etc/protocols, with their numbers (linux/in.h). The destination port of each is in
/// octets 2 and 3 of its header.
const PROTOCOLS: [(&str, u8); 5] = [("tcp", 6), ("udp", 17), ("dccp", 33), ("sctp", 132), ("udplite", 136)];

/// A service: a protocol and its destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The protocol's number (linux/in.h).
    pub protocol: u8,
    /// The destination port.
    pub port: u16,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = PROTOCOLS.iter().find(|it| it.1 == self.protocol).map_or("?", |it| it.0);
        write!(f, "{name}/{}", self.port)
    }
}

impl FromStr for Service {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let service = || {
            let (name, port) = text.split_once('/')?;
            let protocol = PROTOCOLS.iter().find(|it| it.0 == name)?.1;
            let is_number = port.bytes().all(|it| it.is_ascii_digit());
            let port = port.parse().ok().filter(|port| is_number && *port != 0)?;
            Some(Self { protocol, port })
        };
        service().with_context(|| format!("{}: expected PROTOCOL/PORT such as tcp/9100", quoted(text)))
    }
}

/// HOST_ACCESS: services, between spaces or commas, each once.
///
/// # Errors
/// Names the word that is no service.
pub fn services(value: &str) -> Result<Vec<Service>> {
    words(value)
}

/// FORWARD_FROM: interfaces, between spaces or commas, each once.
///
/// # Errors
/// Names the word that is no interface's name.
pub fn interfaces(value: &str) -> Result<Vec<IfName>> {
    words(value)
}

fn words<T: FromStr<Err = anyhow::Error> + Ord>(value: &str) -> Result<Vec<T>> {
    let words = value.split([' ', ',', '\t', '\n']).filter(|it| !it.is_empty());
    let mut all = words.map(str::parse).collect::<Result<Vec<T>>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The words as a setting of these functions reads them.
pub fn joined<T: fmt::Display>(words: &[T]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_and_written() {
        let read = services("udp/53, tcp/9100 tcp/53\tudp/53").expect("services");
        assert_eq!(joined(&read), "tcp/53 tcp/9100 udp/53");
        assert_eq!(services("").expect("none"), []);
        for wrong in ["tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/+1", "icmp/8", "6/22", "tcp/22/1", "TCP/22"] {
            let error = services(wrong).expect_err(wrong).to_string();
            assert!(error.contains("expected PROTOCOL/PORT"), "{error}");
        }
    }

    #[test]
    fn interfaces_are_names() {
        assert_eq!(joined(&interfaces("docker0,virbr0 docker0").expect("names")), "docker0 virbr0");
        assert!(interfaces("much-too-long-a-name").is_err());
    }
}
