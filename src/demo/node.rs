//! A node of the demo, its commands, and what stands on it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::wire::Wire;
use super::world::{
    ARP_IP, DEV_MAC, NETWORK, NODE_IP, Router, TABLE, becomes_true, gateway, link_local, machine, name, of, settle,
};
use crate::addr::{Family, IfName, Mac, parse_net};
use crate::commands::{nic, node};
use crate::environment::RawNic;
use crate::kernel::address::{LinkLocal, find, link_local as link_local_of};
use crate::kernel::guest_port::GuestPort;
use crate::kernel::namespace::Netns;
use crate::kernel::netlink::Netlink;
use crate::kernel::nftables::Nftables;
use crate::kernel::ping::PingSocket;
use crate::kernel::rtnetlink::DEVCONF;
use crate::kernel::{Kernel, observed, process, read_sysctl, topology};
use crate::log::Log;
use crate::object::{ChecksumGuard, Object, Plan};
use crate::reconcile;
use crate::settings::Settings;
use crate::setup::routed::PROXY_DELAY;
use crate::setup::shared;
use crate::setup::uplink::Uplink;

/// A node with an uplink that has no IPv4 address.
pub struct Node {
    /// `node1` or `node2`, and so is the router's port to it.
    pub name: &'static str,
    /// DEV.
    pub device: IfName,
    /// DEV_MAC.
    pub mac: Mac,
    /// NODE_IP of both families.
    addresses: [IpAddr; 2],
    namespace: Netns,
    settings: Settings,
    uplinks: [Uplink; 2],
    /// What is heard on its uplink.
    pub wire: Wire,
    /// What its uplink was made from.
    pub plans: [Plan; 2],
    before: BTreeMap<String, usize>,
}

impl Node {
    /// A node on the router's link; nothing is configured yet.
    ///
    /// # Errors
    /// Those of [`super::world::World::build`].
    pub(super) fn build(number: usize, router: &Router, folder: &Path) -> Result<Self> {
        let label = ["node1", "node2"][number];
        let (namespace, device, mac) = (machine()?, name("eth1")?, DEV_MAC[number]);
        let [v4, v6] = Family::BOTH.map(|family| of(NODE_IP[number], family));
        let addresses = [v4?, v6?];
        namespace.run(|| {
            addresses.iter().try_for_each(|it| topology::add_address(&name("lo")?, (*it).into()))?;
            settle(&addresses)
        })?;
        let place = u8::try_from(number + 1)?;
        let wire = router.connect(&name(label)?, place, &namespace, &device, mac, &addresses)?;
        let mut settings = Settings::default();
        settings.state_dir = folder.join(label);
        let uplink = |family: Family| -> Result<Uplink> {
            Ok(Uplink {
                device: device.clone(),
                family,
                table: TABLE,
                fwmark: settings.fwmark(TABLE),
                forward_from: Vec::new(),
                nftables: true,
                gateway: Some(gateway(family)?),
                routes: vec![parse_net(NETWORK[family as usize])?],
                arp_ip: (family == Family::V4).then_some(ARP_IP),
                forwarding: true,
                proxy: true,
                apart: Vec::new(),
                advertised: Vec::new(),
                down: false,
            })
        };
        let uplinks = [uplink(Family::V4)?, uplink(Family::V6)?];
        let (plans, before) = Default::default();
        Ok(Self { name: label, device, mac, addresses, namespace, settings, uplinks, wire, plans, before })
    }

    /// Makes a TAP, as KVM does before ifup.
    ///
    /// # Errors
    /// Those of [`GuestPort::open`].
    pub(super) fn port(&self, tap: &IfName) -> Result<GuestPort> {
        self.namespace.run(|| GuestPort::open(tap, Mac([0x02, 0, 0, 0, 0x03, 0])))
    }

    /// NODE_IP.
    pub fn address(&self, family: Family) -> IpAddr {
        self.addresses[family as usize]
    }

    /// TAP_MAC.
    pub fn tap_mac(&self) -> Mac {
        self.settings.tap_constant_mac
    }

    /// `node up`, by the code of that command.
    ///
    /// # Errors
    /// Those of the command.
    pub fn up(&mut self) -> Result<()> {
        for (place, uplink) in self.uplinks.iter().enumerate() {
            self.plans[place] = self.command(|| {
                let plan = node::plan(uplink, &self.settings)?;
                node::up(uplink, false, &self.settings, &mut Log::default())?;
                Ok(plan)
            })?;
        }
        // Announcements and solicitations leave from its link-local address.
        self.namespace.run(|| await_link_local(&self.device))
    }

    /// `node down`.
    ///
    /// # Errors
    /// Those of the command.
    pub fn down(&self) -> Result<()> {
        let down = |family| node::down(&self.device, family, false, &self.settings, &mut Log::default());
        self.command(|| Family::BOTH.into_iter().try_for_each(down))
    }

    /// `ifup`, by the code of that command; returns what `plan` said before it. There must be no other thread.
    ///
    /// # Errors
    /// Those of the command.
    pub fn ifup(&self, raw: &RawNic, tap: &IfName) -> Result<Plan> {
        self.command(|| {
            let plan = nic::plan(raw, &self.settings, &mut Log::default())?;
            nic::ifup(raw, &self.settings, &mut Log::default())?;
            // This is the guest's router, to which a veth pair comes a moment later than a TAP.
            await_link_local(tap)?;
            Ok(plan)
        })
    }

    /// `ifdown`. There must be no other thread.
    ///
    /// # Errors
    /// Those of the command.
    pub fn ifdown(&self, raw: &RawNic) -> Result<()> {
        self.command(|| nic::ifdown(raw, "", &self.settings, &mut Log::default()))
    }

    /// Forgets where its guest is: that it asks is shown.
    pub(super) fn forget(&mut self, plan: &Plan, address: IpAddr) -> Result<()> {
        let is_it = |it: &&Object| matches!(it, Object::Neighbour(it) if it.address == address);
        let entry = Plan { objects: plan.objects.iter().filter(is_it).cloned().collect(), ..Plan::default() };
        self.namespace.run(|| {
            let failures = reconcile::remove(&mut Kernel::open()?, &entry, true);
            failures.into_iter().next().map_or(Ok(()), Err)
        })
    }

    /// Runs a command in the node's namespace, and begins there what it leaves to a process of its own.
    fn command<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.run(|| {
            let done = act();
            process::begin();
            done
        })
    }

    /// Whether an address answers the node itself, until the deadline.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn ping(&self, destination: IpAddr, deadline: Instant) -> Result<bool> {
        let source = self.addresses[Family::of(destination) as usize];
        self.namespace.run(|| PingSocket::new(source)?.ping(destination, deadline))
    }

    /// The uplink's link-local address.
    ///
    /// # Errors
    /// None in practice.
    pub fn link_local(&self) -> Result<IpAddr> {
        Ok(link_local(self.mac)?.into())
    }

    /// Keeps what stands now, for [`Self::difference`].
    ///
    /// # Errors
    /// If the kernel does not say.
    pub(super) fn remember(&mut self) -> Result<()> {
        self.before = self.observed()?;
        Ok(())
    }

    /// What stands that did not before (with `+`), and what is missing (with `-`).
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn difference(&self) -> Result<Vec<String>> {
        Ok(difference(&self.before, &self.observed()?))
    }

    /// Rules, routes, proxy entries, elements of our sets, links and their settings, and how often each is there.
    fn observed(&self) -> Result<BTreeMap<String, usize>> {
        let lines = self.namespace.run(|| {
            let mut lines = observed::lines()?;
            // The guard of TAPs with a virtio header is the node's, and stays.
            lines.retain(|it| !it.contains(&format!(" dev {}", ChecksumGuard::DEVICE)));
            let mut nftables = Nftables::open()?;
            for interface in [&self.device, &name("tap0")?, &name("tap1")?] {
                for table in shared::tables(&self.settings, &[TABLE]) {
                    for set in &table.sets {
                        let elements = nftables.elements_of(table.family, set, interface)?;
                        lines.extend(elements.iter().map(|it| format!("nft {it}")));
                    }
                }
                // A TAP that is not on this node.
                let Ok(link) = find(interface) else { continue };
                lines.push(format!("{interface}: mac {:?} mtu {} up {}", link.mac, link.mtu, link.up));
                for ((family, key, _), value) in DEVCONF.into_iter().zip(link.devconf) {
                    lines.push(format!("{}.conf.{interface}.{key} = {value:?}", family.sysctl()));
                }
            }
            for family in Family::BOTH {
                let family = family.sysctl();
                for setting in ["conf/all/forwarding", "conf/all/proxy_ndp", "conf/default/forwarding"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain(["eth1", "tap0", "tap1"].map(|it| format!("neigh/{it}/{PROXY_DELAY}")))
                {
                    let value = read_sysctl(&format!("/proc/sys/net/{family}/{setting}"));
                    lines.push(format!("{family}/{setting} = {value:?}"));
                }
            }
            Ok(lines)
        })?;
        let mut counted = BTreeMap::new();
        for line in lines {
            *counted.entry(line).or_default() += 1;
        }
        Ok(counted)
    }
}

/// What is more (`+`) or less (`-`) often there than before.
fn difference(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> Vec<String> {
    let count = |of: &BTreeMap<String, usize>, line: &String| of.get(line).copied().unwrap_or_default();
    let gone = before.keys().filter(|it| count(after, it) < count(before, it)).map(|it| format!("- {it}"));
    let new = after.keys().filter(|it| count(after, it) > count(before, it)).map(|it| format!("+ {it}"));
    gone.chain(new).collect()
}

fn await_link_local(device: &IfName) -> Result<()> {
    let index = find(device)?.index;
    let usable = becomes_true(|| Ok(matches!(link_local_of(&mut Netlink::open()?, index)?, LinkLocal::Usable(_))))?;
    ensure!(usable, "{device} has no link-local address");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_tells_what_came_and_what_went() {
        let counted = |lines: &[(&str, usize)]| -> BTreeMap<String, usize> {
            lines.iter().map(|(line, count)| ((*line).to_owned(), *count)).collect()
        };
        let before = counted(&[("a", 1), ("b", 2), ("c", 1)]);
        assert!(difference(&before, &before).is_empty());
        assert_eq!(difference(&before, &counted(&[("a", 1), ("b", 1), ("d", 1)])), ["- b", "- c", "+ d"]);
        assert_eq!(difference(&before, &counted(&[("a", 2), ("b", 2), ("c", 1)])), ["+ a"]);
    }
}
