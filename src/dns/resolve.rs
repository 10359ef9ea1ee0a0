//! The addresses of a name server's name: /etc/hosts, then the name servers of /etc/resolv.conf, within a deadline.
//! The C library's resolver has none.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use domain::base::iana::Rcode;
use domain::base::{Message, Rtype};

use super::exchange::{Deadline, connect, receive, send};
use super::message::{Answer, Content, alias, answer_section, check_answers, query, random_id};
use super::records::Name;
use crate::printable::quoted;
use crate::sys::files;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Longest of these that is read, in bytes; a longer one counts as none.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// How long one name server may take: then the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest chain of aliases that is followed.
const MAX_ALIASES: usize = 16;
/// Name servers and search domains beyond these are ignored, as resolv.conf(5) has it.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;

/// The addresses of a host, at least one.
///
/// # Errors
/// If there is none, or no name server answers in time.
pub(super) fn addresses(host: &str, deadline: Deadline) -> Result<Vec<IpAddr>> {
    let hosts = files::read(HOSTS.as_ref(), MAX_FILE).ok().flatten().unwrap_or_default();
    let known = in_hosts(&String::from_utf8_lossy(&hosts), host);
    if !known.is_empty() {
        return Ok(known);
    }
    let file = files::read(RESOLV_CONF.as_ref(), MAX_FILE).ok().flatten().unwrap_or_default();
    let resolver = Resolver::parse(&String::from_utf8_lossy(&file));
    let mut last = None;
    for name in resolver.candidates(host)? {
        match resolver.lookup(&name, deadline) {
            Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) => {}
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow!("no such host")).context(format!("address of {host}")))
}

/// The addresses that /etc/hosts has for a host.
pub(super) fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(address).collect()
}

/// What /etc/resolv.conf says (resolv.conf(5)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    pub(super) servers: Vec<IpAddr>,
    search: Vec<String>,
    /// A name with at least this many dots is tried as it is before the search list.
    ndots: usize,
}

impl Resolver {
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => found.search = words.take(MAX_SEARCH).map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                    found.ndots = ndots.unwrap_or(found.ndots);
                }
                _ => {}
            }
        }
        found.servers.truncate(MAX_SERVERS);
        if found.servers.is_empty() {
            found.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        found
    }

    /// The absolute names to look for, in order.
    pub(super) fn candidates(&self, host: &str) -> Result<Vec<Name>> {
        let absolute = Name::vec_from_str(host).map_err(|error| anyhow!("host {}: {error}", quoted(host)))?;
        if host.ends_with('.') {
            return Ok(vec![absolute]);
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{}", domain.trim_end_matches('.')));
        let mut names: Vec<_> = searched.filter_map(|name| Name::vec_from_str(&name).ok()).collect();
        let place = if host.matches('.').count() >= self.ndots { 0 } else { names.len() };
        names.insert(place, absolute);
        Ok(names)
    }

    /// The addresses of an absolute name, IPv4's first; none if it has none.
    fn lookup(&self, name: &Name, deadline: Deadline) -> Result<Vec<IpAddr>> {
        let mut last = None;
        for (n, server) in self.servers.iter().enumerate() {
            let server = SocketAddr::new(*server, 53);
            let both = || {
                let deadline = deadline.part(self.servers.len() - n)?;
                let mut found = ask(server, name, Rtype::A, deadline)?;
                // A server that knows A but not AAAA is no obstacle.
                match ask(server, name, Rtype::AAAA, deadline) {
                    Err(error) if found.is_empty() => return Err(error),
                    more => found.extend(more.into_iter().flatten()),
                }
                Ok(found)
            };
            match both() {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(anyhow::Error::context(error, format!("name server {server}"))),
            }
        }
        Err(last.unwrap_or_else(|| anyhow!("no name server")))
    }
}

/// Asks one name server, by UDP, and by TCP if the answer does not fit.
fn ask(server: SocketAddr, name: &Name, rtype: Rtype, deadline: Deadline) -> Result<Vec<IpAddr>> {
    let deadline = deadline.at_most(PATIENCE)?;
    let mut request = query(name, rtype, true)?;
    request.header_mut().set_id(random_id());
    let mut answer = by_udp(server, &request, deadline)?;
    if answer.header().tc() {
        let mut stream = connect(server, deadline)?;
        send(&mut stream, request.as_slice(), deadline)?;
        answer = Message::from_octets(receive(&mut stream, deadline)?).map_err(|_| anyhow!("malformed answer"))?;
        check_answers(&answer, &request)?;
    }
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Ok(Vec::new()),
        rcode => bail!("{name}: the server answers {rcode}"),
    }
    let section = answer_section(&answer)?;
    let mut owner = name.clone();
    for _ in 0..MAX_ALIASES {
        match alias(&section, &owner) {
            Some(target) => owner = target,
            None => break,
        }
    }
    let address = |content: &Content| match content {
        Content::Data(data) => data.address(),
        _ => None,
    };
    Ok(section.iter().filter(|found| found.owner == owner).filter_map(|found| address(&found.content)).collect())
}

/// Waits for the datagram that answers; others are ignored, for anybody can send them.
fn by_udp(server: SocketAddr, request: &super::message::Request, deadline: Deadline) -> Result<Answer> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).context("UDP socket")?;
    socket.connect(server).context("UDP socket")?;
    while let Err(error) = socket.send(request.as_slice()) {
        if error.kind() != ErrorKind::Interrupted {
            return Err(error).context("send");
        }
        deadline.remaining()?;
    }
    let mut buffer = vec![0; 65535];
    loop {
        socket.set_read_timeout(Some(deadline.remaining()?))?;
        let received = match socket.recv(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            received => received.context("receive")?,
        };
        if let Ok(answer) = Message::from_octets(buffer[..received].to_vec())
            && check_answers(&answer, request).is_ok()
        {
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_any_of_their_names() {
        let text =
            "127.0.0.1 localhost\n# 192.0.2.9 ns1\n192.0.2.1\tns1.example.org NS1 # ns9\n2001:db8::1 ns1\nbad ns1\n";
        let found = |host| in_hosts(text, host).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(found("ns1"), "192.0.2.1 2001:db8::1");
        assert_eq!(found("Ns1.Example.org."), "192.0.2.1");
        assert_eq!(found("ns9"), "");
    }

    #[test]
    fn the_search_list_comes_first_for_names_with_too_few_dots() {
        let text = "nameserver 192.0.2.1\nnameserver x\nnameserver 2001:db8::1\nsearch a. b\noptions rotate ndots:2\n";
        let resolver = Resolver::parse(text);
        assert_eq!(resolver.servers.len(), 2);
        let names =
            |host| resolver.candidates(host).expect("names").iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("ns"), ["ns.a", "ns.b", "ns"]);
        assert_eq!(names("ns.x.y"), ["ns.x.y", "ns.x.y.a", "ns.x.y.b"]);
        assert_eq!(names("ns."), ["ns"]);
        assert_eq!(Resolver::parse("").servers, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }
}
