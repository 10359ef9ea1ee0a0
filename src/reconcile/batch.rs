//! Objects as requests: gathered, sent in one piece, and their refusals explained.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::errno::Errno;

use crate::addr::{Family, IfName};
use crate::kernel::netlink::Request;
use crate::kernel::rtnetlink::{self, ADDR_GEN_MODE, LinkChange};
use crate::kernel::{self, Kernel, is_absent, read_sysctl, routes, tc, write_sysctl};
use crate::object::{
    Bridge, BridgeVlans, Clsact, Hop, Object, PortFlags, Route, Sysctl, SysctlGroup, Towards, Verb, VlanDevice,
};
use crate::{binding, ovsdb};

/// How many requests go into one send, which must fit into the socket's buffer (208 KiB): one of ours has some 100 bytes.
const BATCH: usize = 512;

/// What EXFULL means when a port joins (BR_MAX_PORTS of net/bridge/br_private.h).
const FULL_BRIDGE: &str = "the bridge is full: it has as many ports as a bridge can have (1023)";

/// Requests on their way into one send, each with the objects it is for, which only an error puts into words.
pub(super) struct Batch<'k, 'p> {
    pub(super) kernel: &'k mut Kernel,
    verb: Verb,
    /// Whose the object is that is being added, among those that are mended at once.
    pub(super) owner: usize,
    queued: Vec<(usize, For<'p>)>,
    /// Whether a device is among them that is not there before they are sent.
    makes: bool,
    link: Option<(&'p IfName, LinkChange, Vec<&'p Object>)>,
    /// Routes that are replaced only if it is another one that stands, by their places among the requests.
    contested: Vec<(usize, &'p Object, &'p Route, Option<u32>)>,
}

/// What a request is for.
enum For<'p> {
    Object(&'p Object),
    /// Changes of one link.
    Link(Vec<&'p Object>),
}

impl For<'_> {
    fn line(&self, verb: Verb) -> String {
        match self {
            Self::Object(object) => object.line(verb),
            Self::Link(objects) => {
                let commands = objects.iter().map(|it| it.command(verb)).filter(|it| !it.is_empty());
                commands.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

impl<'k, 'p> Batch<'k, 'p> {
    pub(super) fn new(kernel: &'k mut Kernel, verb: Verb) -> Self {
        // What a batch before this one did not come to send must not go out with it.
        kernel.netlink.forget_queued();
        Self { kernel, verb, owner: 0, queued: Vec::new(), makes: false, link: None, contested: Vec::new() }
    }

    pub(super) fn add(&mut self, object: &'p Object) -> Result<()> {
        if self.verb == Verb::Remove && object.stays() {
            return Ok(());
        }
        let makes = matches!(object, Object::VlanDevice(_) | Object::Bridge(_));
        if self.queued.len() >= BATCH || (self.makes && !makes) {
            self.flush()?;
            self.makes = false;
        }
        self.makes |= makes;
        if matches!(object, Object::BridgeVlans(_)) {
            // The port must be in its bridge, which gives it the default VLAN then.
            self.flush()?;
            self.kernel.forget_links();
        }
        self.add_unexplained(object).with_context(|| object.line(self.verb))
    }

    fn add_unexplained(&mut self, object: &'p Object) -> Result<()> {
        let add = self.verb == Verb::Add;
        if !matches!(object, Object::Sysctl(_) | Object::Link(_) | Object::Port(_)) {
            self.queue_link()?;
        }
        match object {
            Object::VlanDevice(it) if add => {
                let Some(lower) = self.index(&it.lower)? else { return absent(add) };
                self.queue(rtnetlink::new_vlan_device(it, lower), object);
            }
            Object::Bridge(it) if add => self.queue(rtnetlink::new_bridge(it), object),
            Object::VlanDevice(VlanDevice { name, .. }) | Object::Bridge(Bridge { name }) => {
                if let Some(index) = self.index(name)? {
                    self.queue(rtnetlink::delete_link(index), object);
                }
            }
            Object::ChecksumGuard(_) => {
                self.flush()?;
                self.kernel.ensure_guard()?;
            }
            Object::Clsact(it) => self.clsact(it, object)?,
            Object::Sysctl(it) => return self.sysctl(it, object),
            Object::Link(it) => {
                let Some(current) = self.kernel.link(&it.name)?.cloned() else { return absent(add) };
                let mac = it.mac.and_then(|c| if add { Some(c.want) } else { c.before });
                let mtu = it.mtu.and_then(|c| if add { Some(c.want) } else { c.before });
                let change = self.link_change(&it.name, object)?;
                change.mac = mac.filter(|it| Some(*it) != current.mac);
                change.mtu = mtu.filter(|it| *it != current.mtu);
            }
            Object::Port(it) => {
                let Some(current) = self.kernel.link(&it.name)?.cloned() else { return absent(add) };
                let bridge = match &it.bridge {
                    Some(bridge) if add => {
                        let bridge = self.kernel.link(bridge)?.ok_or_else(|| anyhow!("there is no bridge {bridge}"))?;
                        bridge.index
                    }
                    Some(bridge) => match self.kernel.link(bridge)? {
                        // In another bridge by now: not ours to take out.
                        Some(bridge) if bridge.index == current.controller => 0,
                        _ => return Ok(()),
                    },
                    None if add => 0,
                    None => return Ok(()),
                };
                if bridge != current.controller {
                    self.link_change(&it.name, object)?.controller = Some(bridge);
                }
                if !add {
                    // A message of its own: the kernel would change MAC and MTU first, and a bridge follows its ports'.
                    self.queue_link()?;
                }
            }
            Object::PortFlags(it) => {
                let Some(current) = self.kernel.link(&it.name)?.cloned() else { return absent(add) };
                // On its way out of the bridge it loses them anyway. One that is about to join it has those of a new port.
                let joins = current.controller == 0;
                let flags = if add { it.clone() } else { PortFlags::default_of(it.name.clone()) };
                if (add && joins) || !flags.differences(&current.port).is_empty() {
                    self.queue(rtnetlink::set_port(current.index, &flags), object);
                }
            }
            Object::BridgeVlans(it) => self.port_vlans(it, object)?,
            Object::Up(it) => {
                let Some(current) = self.kernel.link(&it.name)?.cloned() else { return absent(add) };
                if current.up != add {
                    self.link_change(&it.name, object)?.up = Some(add);
                    self.queue_link()?;
                }
            }
            Object::OvsPort(it) => {
                if add {
                    ovsdb::port::ensure(it)?;
                } else {
                    ovsdb::port::remove(it)?;
                }
                self.kernel.forget_links();
            }
            Object::Rule(it) => self.queue(rtnetlink::rule(it, add), object),
            Object::Route(it) => {
                let device = match &it.hop {
                    Hop::Device(device) | Hop::Gateway { device, .. } => match self.index(device)? {
                        None => return absent(add),
                        device => device,
                    },
                    Hop::Unreachable => None,
                };
                let request = rtnetlink::route(it, device, add);
                if add && it.destination.addr().is_ipv6() {
                    self.queue(request.exclusive(), object);
                    self.contested.push((self.queued.len() - 1, object, it, device));
                } else {
                    self.queue(request, object);
                }
            }
            Object::Neighbour(it) => {
                let Some(device) = self.index(&it.device)? else { return absent(add) };
                self.queue(rtnetlink::neighbour(it, device, add), object);
            }
            Object::NeighProxy(it) => {
                let Some(device) = self.index(&it.device)? else { return absent(add) };
                if !add {
                    let behind = self.index(&it.behind)?;
                    if routes::leads_elsewhere(&mut self.kernel.netlink, it, device, behind) {
                        return Ok(());
                    }
                }
                self.queue(rtnetlink::proxy(it, device, add), object);
            }
            Object::File(it) if add => return binding::write(it),
            Object::File(it) => return binding::remove(it),
        }
        Ok(())
    }

    fn index(&mut self, name: &IfName) -> Result<Option<u32>> {
        Ok(self.kernel.link(name)?.map(|it| it.index))
    }

    fn queue(&mut self, request: Request, object: &'p Object) {
        self.kernel.netlink.queue(request);
        self.queued.push((self.owner, For::Object(object)));
    }

    fn clsact(&mut self, clsact: &Clsact, object: &'p Object) -> Result<()> {
        let add = self.verb == Verb::Add;
        let Some(device) = self.index(&clsact.device)? else { return absent(add) };
        let found = self.kernel.ingress_qdisc(device)?;
        match found.as_ref().map(|it| it.ingress_block == Some(clsact.block)) {
            None if add => self.queue(tc::add_clsact(device, clsact.block), object),
            Some(true) if !add => self.queue(tc::delete_clsact(device), object),
            Some(false) if add => {
                let found = found.map(|it| it.to_string()).unwrap_or_default();
                bail!("expected no qdisc of another program, found {found}");
            }
            _ => {}
        }
        Ok(())
    }

    fn port_vlans(&mut self, vlans: &BridgeVlans, object: &'p Object) -> Result<()> {
        let add = self.verb == Verb::Add;
        let outside = vlans.towards == Towards::Outside;
        let index = match self.kernel.link(&vlans.port)? {
            Some(port) if port.controller != 0 => port.index,
            // An uplink that left the bridge meanwhile needs nothing.
            _ if outside || !add => return Ok(()),
            _ => return Err(anyhow!("{} is no port of a bridge", vlans.port)),
        };
        let present = rtnetlink::vlans(&mut self.kernel.netlink, index)?;
        let [gone, new] = vlans.changes(&present, self.verb);
        for (changed, add) in [(gone, false), (new, true)] {
            if !changed.is_empty() {
                self.queue(rtnetlink::change_vlans(index, &changed, add), object);
            }
        }
        Ok(())
    }

    /// The change of a link that is being gathered; changes of one link go into one message.
    fn link_change(&mut self, name: &'p IfName, object: &'p Object) -> Result<&mut LinkChange> {
        if self.link.as_ref().is_some_and(|it| it.0 != name) {
            self.queue_link()?;
        }
        let link = self.link.get_or_insert_with(|| (name, LinkChange::default(), Vec::new()));
        link.2.push(object);
        Ok(&mut link.1)
    }

    pub(super) fn queue_link(&mut self) -> Result<()> {
        let Some((name, change, objects)) = self.link.take() else { return Ok(()) };
        if change == LinkChange::default() {
            return Ok(());
        }
        let Some(index) = self.index(name)? else { return absent(self.verb == Verb::Add) };
        self.kernel.netlink.queue(rtnetlink::set_link(index, &change));
        self.queued.push((self.owner, For::Link(objects)));
        Ok(())
    }

    fn sysctl(&mut self, sysctl: &'p Sysctl, object: &'p Object) -> Result<()> {
        let add = self.verb == Verb::Add;
        let Some(value) = (if add { Some(sysctl.value.want) } else { sysctl.value.before }) else { return Ok(()) };
        let Some(name) = &sysctl.interface else { return Ok(by_proc(sysctl, value)?) };
        let Some(link) = self.kernel.link(name)?.cloned() else { return absent(add) };
        let current = link.setting(sysctl.family, sysctl.key);
        match (sysctl.group, sysctl.family) {
            // RTM_SETNEIGHTBL would search the interfaces of all namespaces one by one.
            (SysctlGroup::Node | SysctlGroup::Neigh, _) => {
                // What stood there before us is known to be another value.
                let differs = sysctl.value.before.is_some_and(|it| it != sysctl.value.want);
                let set = if differs { write_sysctl(&sysctl.path(), value) } else { by_proc(sysctl, value) };
                match set {
                    // IPv6 is off there by now.
                    Err(error) if !add && error.kind() == ErrorKind::NotFound => {}
                    set => set?,
                }
            }
            _ if current == Some(value) => {}
            // IPv6 is off here: there is nothing to restrain, and what needs it fails by name (rule, route).
            (SysctlGroup::Conf, Family::V6) if current.is_none() => {}
            (SysctlGroup::Conf, family) if family == Family::V4 || sysctl.key == ADDR_GEN_MODE => {
                self.link_change(name, object)?.settings.push((family, sysctl.key, value));
            }
            (SysctlGroup::Conf, _) => write_sysctl(&sysctl.path(), value)?,
        }
        Ok(())
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.flush_all().into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Sends what is queued; what was refused, each with its owner.
    pub(super) fn flush_all(&mut self) -> Vec<(usize, Error)> {
        let mut failures: Vec<_> = self.queue_link().err().map(|error| (self.owner, error)).into_iter().collect();
        let queued = std::mem::take(&mut self.queued);
        let refusals = match self.kernel.netlink.flush() {
            Ok(refusals) => refusals,
            Err(error) => {
                // Nobody knows what became of any of them.
                let owners: BTreeSet<_> = queued.iter().map(|it| it.0).collect();
                failures.extend(owners.into_iter().map(|owner| (owner, error.clone().into())));
                return failures;
            }
        };
        let contested = std::mem::take(&mut self.contested);
        let mut replaced = false;
        for (place, error) in refusals {
            self.owner = queued.get(place).map_or(self.owner, |it| it.0);
            let exists = error.errno == Errno::EEXIST as i32;
            let done = match self.verb {
                Verb::Add if exists && error.operation == "RTM_NEWROUTE" => {
                    match contested.iter().find(|it| it.0 == place) {
                        Some(&(_, object, route, device)) => {
                            self.replace(object, route, device).map(|it| replaced |= it)
                        }
                        None => Err(error),
                    }
                }
                // The very rule is there already (an explicit preference makes it comparable).
                Verb::Add if exists && error.operation == "RTM_NEWRULE" => Ok(()),
                Verb::Remove if is_absent(error.errno) => Ok(()),
                // It was removed meanwhile.
                Verb::Remove if error.operation == "RTM_DELQDISC" && tc::is_absent(&error) => Ok(()),
                _ => Err(error),
            };
            if let Err(error) = done {
                let (owner, command) = queued.get(place).map(|it| (it.0, it.1.line(self.verb))).unwrap_or_default();
                let full = error.errno == Errno::EXFULL as i32;
                let error = Error::new(error);
                failures.push((owner, if full { error.context(FULL_BRIDGE) } else { error }.context(command)));
            }
        }
        if replaced {
            failures.extend(self.flush_all());
        }
        failures
    }

    /// Queues the replacement of whatever stands in a route's place, unless it is this very route.
    fn replace(
        &mut self,
        object: &'p Object,
        route: &Route,
        device: Option<u32>,
    ) -> Result<bool, kernel::error::Error> {
        if routes::stands(&mut self.kernel.netlink, route, device)? {
            return Ok(false);
        }
        self.queue(rtnetlink::route(route, device, true), object);
        Ok(true)
    }
}

/// Sets what differs by way of /proc/sys.
fn by_proc(sysctl: &Sysctl, value: u32) -> io::Result<()> {
    let path = sysctl.path();
    if read_sysctl(&path)? != Some(value) {
        write_sysctl(&path, value)?;
    }
    Ok(())
}

/// What stands on a link that is not there: an error when it shall be made, nothing to do when it shall go.
fn absent(add: bool) -> Result<()> {
    if add { Err(Errno::ENODEV.into()) } else { Ok(()) }
}
