//! The only folder that knows sockets and bytes.

pub mod address;
pub mod allocator;
mod attributes;
pub mod confine;
#[cfg(all(target_arch = "x86_64", any(test, target_env = "musl")))]
pub mod copy;
pub mod error;
pub mod gso_check;
pub mod guard;
pub mod guest_port;
pub mod namespace;
mod namespace_id;
pub mod netlink;
pub mod nftables;
pub mod observed;
pub mod offload;
pub mod packet;
pub mod ping;
pub mod process;
pub mod routes;
pub mod rtnetlink;
pub mod tc;
pub mod topology;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::error::Error;
use self::netlink::Netlink;
use self::nftables::{Nftables, Outcome, Transaction};
use self::rtnetlink::{By, LinkChange, LinkState, Packets};
use self::tc::FoundQdisc;
use crate::addr::{Family, IfName};
use crate::model::link_id::{LinkId, Namespace};
use crate::model::mark::Mark;
use crate::object::{ChecksumGuard, Rule};

/// The kernel as one run sees it: its sockets, and the links it has asked for (each once).
pub struct Kernel {
    /// For links, rules, routes and neighbours.
    pub netlink: Netlink,
    nftables: Option<Nftables>,
    destroyed: bool,
    /// What guards, once it was seen to be complete in this run.
    guard: Option<ChecksumGuard>,
    /// The qdiscs in the place of clsact that were asked for, by their device's number.
    ingress: HashMap<u32, Option<FoundQdisc>>,
    links: Vec<LinkState>,
    namespace: Option<Namespace>,
    /// Their places, by name.
    places: HashMap<IfName, usize>,
}

impl Kernel {
    /// Opens rtnetlink; nf_tables is opened when it is first needed.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            netlink: Netlink::open()?,
            nftables: None,
            destroyed: false,
            guard: None,
            ingress: HashMap::new(),
            links: Vec::new(),
            namespace: None,
            places: HashMap::new(),
        })
    }

    /// A link by name; none if there is no such.
    ///
    /// # Errors
    /// What the kernel refused, other than that.
    pub fn link(&mut self, name: &IfName) -> Result<Option<&LinkState>, Error> {
        let known = self.places.get(name).copied();
        self.remembered(known, By::Name(name))
    }

    /// Which link has a name; none if there is no such.
    ///
    /// # Errors
    /// As [`Kernel::link`], and those of reading /proc.
    pub fn link_id(&mut self, name: &IfName) -> anyhow::Result<Option<LinkId>> {
        let Some(index) = self.link(name)?.map(|it| it.index) else { return Ok(None) };
        Ok(Some(LinkId { index, namespace: Some(self.namespace()?) }))
    }

    /// The network namespace.
    ///
    /// # Errors
    /// Those of reading /proc.
    pub fn namespace(&mut self) -> anyhow::Result<Namespace> {
        let namespace = match self.namespace {
            Some(known) => known,
            None => namespace_id::of(self.netlink.as_fd())?,
        };
        Ok(*self.namespace.insert(namespace))
    }

    /// A link by number; none if there is no such.
    ///
    /// # Errors
    /// What the kernel refused, other than that.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<&LinkState>, Error> {
        let known = self.links.iter().position(|it| it.index == index);
        self.remembered(known, By::Index(index))
    }

    fn remembered(&mut self, known: Option<usize>, by: By<'_>) -> Result<Option<&LinkState>, Error> {
        if let Some(place) = known {
            return Ok(self.links.get(place));
        }
        let Some(link) = rtnetlink::link(&mut self.netlink, by)? else {
            return Ok(None);
        };
        self.know_link(link);
        Ok(self.links.last())
    }

    /// Takes over what a dump tells of a link, so that nobody needs to ask for it.
    pub fn know_link(&mut self, link: LinkState) {
        self.places.insert(link.name.clone(), self.links.len());
        self.links.push(link);
    }

    /// Forgets what is known of the links: they were changed.
    pub fn forget_links(&mut self) {
        self.links.clear();
        self.places.clear();
        self.ingress.clear();
    }

    /// Forgets what is known of all links but these.
    pub fn forget_links_but(&mut self, kept: impl Fn(&IfName) -> bool) {
        self.ingress.clear();
        self.links.retain(|it| kept(&it.name));
        self.places = self.links.iter().enumerate().map(|(place, it)| (it.name.clone(), place)).collect();
    }

    /// The devices of the default route of a table, by name. By the mark of the packets that the table routes, or else by an
    /// uplink of which the same is recorded (`hint`), the question costs the same whatever the number of routes.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn uplinks(
        &mut self,
        family: Family,
        table: u32,
        mark: Option<Mark>,
        hint: impl FnOnce() -> Option<IfName>,
    ) -> Result<Vec<IfName>, Error> {
        let by = |netlink: &mut Netlink, packets| rtnetlink::default_route_of_packets(netlink, family, packets, table);
        let mut route = mark.and_then(|it| by(&mut self.netlink, Packets::Marked(it.value)));
        if route.is_none()
            && family == Family::V6
            && let Some(hint) = hint()
            && let Some(index) = self.link(&hint)?.map(|it| it.index)
        {
            route = by(&mut self.netlink, Packets::From(index));
        }
        if route.is_none() {
            route = rtnetlink::default_route_by_dump(family, table)?;
        }
        let mut names = Vec::new();
        for index in route.unwrap_or_default().devices {
            names.extend(self.link_by_index(index)?.map(|it| it.name.clone()));
        }
        Ok(names)
    }

    /// The nf_tables socket.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn nftables(&mut self) -> anyhow::Result<&mut Nftables> {
        let open = match self.nftables.take() {
            Some(open) => open,
            None => Nftables::open()?,
        };
        Ok(self.nftables.insert(open))
    }

    /// Whether there is nf_tables. Any other refusal comes again where it is needed.
    pub fn has_nftables(&mut self) -> bool {
        let asked = self.nftables().and_then(|nftables| nftables.lacking(&[]));
        !asked.is_err_and(|error| nftables::is_missing(&error))
    }

    /// Sets a link down and takes it out of its bridge, at once. Nothing may be queued. A port of Open vSwitch only goes down: the
    /// kernel takes it out of there for nobody but ovs-vswitchd.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn detach_port(&mut self, index: u32) -> Result<(), Error> {
        let in_openvswitch = self.link_by_index(index)?.is_some_and(|it| it.in_openvswitch);
        // Two messages, for the order: out of its bridge and still up, it would lead into the node itself.
        self.netlink.queue(rtnetlink::set_link(index, &LinkChange { up: Some(false), ..LinkChange::default() }));
        if !in_openvswitch {
            let out = LinkChange { controller: Some(0), ..LinkChange::default() };
            self.netlink.queue(rtnetlink::set_link(index, &out));
        }
        let refusals = self.netlink.flush()?;
        self.forget_links();
        refusals.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Removes the rules of an interface that nobody recorded, whatever table they select.
    ///
    /// # Errors
    /// What the kernel refused, other than that there is none.
    pub fn remove_rules_of(
        &mut self,
        family: Family,
        iif: &IfName,
        preference: u32,
        protocol: u8,
    ) -> Result<(), Error> {
        loop {
            self.netlink.queue(rtnetlink::any_rule(family, iif, preference, protocol));
            match self.netlink.flush()?.into_iter().next() {
                None => {}
                Some((_, error)) if is_absent(error.errno) => return Ok(()),
                Some((_, error)) => return Err(error),
            }
        }
    }

    /// The rules by mark that stand, from a dump of all.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn mark_rules(&mut self) -> anyhow::Result<Vec<Rule>> {
        observed::mark_rules(&mut self.netlink)
    }

    /// Commits a change of nf_tables in one transaction, if there is anything to change.
    ///
    /// # Errors
    /// What the kernel refused; then nothing was changed.
    pub fn commit(&mut self, change: &Transaction<'_>) -> anyhow::Result<Outcome> {
        if change.tables.is_empty() && change.add.is_empty() && change.remove.is_empty() {
            return Ok(Outcome::default());
        }
        let outcome = self.nftables()?.commit(change)?;
        self.destroyed |= outcome.destroyed;
        Ok(outcome)
    }

    /// The socket whose closing makes wait, if this run destroyed anything in nf_tables: for the detached process to close.
    pub fn into_lingering(self) -> Option<OwnedFd> {
        self.nftables.filter(|_| self.destroyed).map(Nftables::into_fd)
    }
}

/// Reads a number from /proc/sys; none where the file is not there.
///
/// # Errors
/// Those of open(2) and read(2), and what is no number.
pub fn read_sysctl(path: &str) -> io::Result<Option<u32>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    // The kernel gives the whole of it at once.
    let mut text = [0; 16];
    let length = loop {
        match file.read(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => break length?,
        }
    };
    let text = str::from_utf8(&text[..length]).map_err(io::Error::other)?;
    text.trim().parse().map(Some).map_err(io::Error::other)
}

/// Writes a number into /proc/sys.
///
/// # Errors
/// Those of open(2) and write(2).
pub fn write_sysctl(path: &str, value: u32) -> io::Result<()> {
    fs::write(path, value.to_string())
}

/// Whether a removal was refused because there is nothing to remove.
pub fn is_absent(errno: i32) -> bool {
    [Errno::ENOENT, Errno::ESRCH, Errno::ENODEV, Errno::ENXIO, Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT]
        .into_iter()
        .any(|it| it as i32 == errno)
}

/// Waits until `fd` can be read, or says false at the deadline, if there is one.
fn readable(fd: impl AsFd, deadline: impl Into<Option<Instant>>) -> io::Result<bool> {
    let deadline = deadline.into();
    loop {
        let left = deadline.map(|it| it.saturating_duration_since(Instant::now()));
        // Milliseconds, rounded up: to wake up before the deadline would only mean to ask again.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if deadline.is_some_and(|it| Instant::now() >= it) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}
