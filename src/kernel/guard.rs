//! What finishes the checksums of guarded TAPs, as it is and as it is made: see [`ChecksumGuard`].

use std::collections::HashMap;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use nix::errno::Errno;

use super::error::Error as Refusal;
use super::netlink::Answer;
use super::observed::dumps;
use super::rtnetlink::{self, ADDR_GEN_MODE, LinkChange, LinkState};
use super::tc::{self, FoundFilter, FoundQdisc};
use super::{Kernel, gso_check, offload};
use crate::addr::{Family, IfName};
use crate::object::{ChecksumGuard, Filter, FilterAction};

/// How often it is looked at while others may be making it, too.
const LOOKS: usize = 4;
/// IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: a device that no guest is behind needs no address.
const NO_ADDRESS: u32 = 1;

/// With the help of the action csum, and without it.
const KINDS: [ChecksumGuard; 2] = [ChecksumGuard { act_csum: true }, ChecksumGuard { act_csum: false }];

/// What one look at a TAP and at what may guard it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What guards, if it is complete and works.
    pub guard: Option<ChecksumGuard>,
    /// The qdisc in the place of clsact on the TAP.
    pub qdisc: Option<FoundQdisc>,
}

/// All that there is of what guards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardState {
    /// The device.
    pub device: Option<LinkState>,
    /// Whether it takes checksums over, so that it finishes none.
    pub tx_checksum: bool,
    /// Its own qdisc, which keeps the block when no TAP is left.
    pub qdisc: Option<FoundQdisc>,
    /// The filters of the block.
    pub filters: Vec<FoundFilter>,
}

/// The device's name.
pub fn device_name() -> Result<IfName> {
    ChecksumGuard::DEVICE.parse()
}

impl GuardState {
    /// The guard, if it is complete and works; else what is wrong with it.
    ///
    /// # Errors
    /// In words, such as `the device is down`.
    pub fn guard(&self) -> Result<ChecksumGuard, String> {
        let Some(device) = &self.device else { return Err("no device".to_owned()) };
        let guard = KINDS.into_iter().find(|it| self.has_filters(*it, device.index));
        let of_block = self.qdisc.as_ref().is_some_and(|it| it.ingress_block == Some(ChecksumGuard::BLOCK));
        let checks = [
            (device.kind.as_deref() == Some("ifb"), "the device is no ifb"),
            (!self.tx_checksum, "tx checksumming of the device is on"),
            (of_block, "the device is not in the block"),
            (guard.is_some(), "other filters"),
            (device.up, "the device is down"),
        ];
        let wrong: Vec<_> = checks.into_iter().filter(|it| !it.0).map(|it| it.1).collect();
        guard.filter(|_| wrong.is_empty()).ok_or_else(|| wrong.join(", "))
    }

    fn has_filters(&self, guard: ChecksumGuard, index: u32) -> bool {
        let wanted = guard.filters();
        self.filters.len() == wanted.len()
            && wanted.iter().all(|it| {
                let found = self.filters.iter().find(|found| found.filter.as_ref() == Some(it));
                found.is_some_and(|found| found.target.is_none_or(|target| target == index))
            })
            && self.rest().is_some_and(|it| it.cookie == guard.cookie())
    }

    fn rest(&self) -> Option<&FoundFilter> {
        self.filters.iter().find(|it| it.filter.as_ref().is_some_and(|it| it.node == ChecksumGuard::REST))
    }
}

impl Kernel {
    /// Looks at TAP number `tap` and at what may guard it, in one round trip.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn look_at_guard(&mut self, tap: u32) -> Result<Look> {
        let name = device_name()?;
        let questions = [rtnetlink::get_link(&name), tc::get_filter(ChecksumGuard::REST), tc::get_ingress(tap)];
        let mut answers = self.netlink.ask_together(&questions)?.into_iter();
        let [device, rest, qdisc] = [(); 3].map(|()| answers.next());
        let device = present(device, |it| it.errno == Errno::ENODEV as i32)?.and_then(|it| LinkState::decode(&it));
        let rest = present(rest, tc::is_absent)?.and_then(|it| FoundFilter::decode(&it));
        let qdisc = present(qdisc, tc::is_absent)?.and_then(|it| FoundQdisc::decode(&it));
        let mut guard = None;
        if let (Some(device), Some(rest)) = (device, rest) {
            let works = device.up && device.kind.as_deref() == Some("ifb") && rest.target == Some(device.index);
            if works && !offload::tx_checksum(self.netlink.socket(), &name).unwrap_or(true) {
                guard = KINDS.into_iter().find(|it| rest.cookie == it.cookie());
            }
        }
        self.guard = guard;
        self.ingress.insert(tap, qdisc.clone());
        Ok(Look { guard, qdisc })
    }

    /// The qdisc in the place of clsact of a device, which is asked for once.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn ingress_qdisc(&mut self, device: u32) -> Result<Option<FoundQdisc>> {
        if let Some(known) = self.ingress.get(&device) {
            return Ok(known.clone());
        }
        let answer = self.netlink.ask_together(&[tc::get_ingress(device)])?.pop();
        let found = present(answer, tc::is_absent)?.and_then(|it| FoundQdisc::decode(&it));
        self.ingress.insert(device, found.clone());
        Ok(found)
    }

    /// The TAPs with a virtio header, and their numbers.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn taps_with_header(&mut self) -> Result<HashMap<IfName, u32>> {
        let links = dumps::whole(&mut self.netlink, rtnetlink::links)?;
        Ok(links.into_iter().filter(|it| it.vnet_hdr).map(|it| (it.name, it.index)).collect())
    }

    /// Reads all that there is of what guards.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn guard_state(&mut self) -> Result<GuardState> {
        let name = device_name()?;
        let filters = dumps::whole(&mut self.netlink, tc::filters)?;
        let device = self.netlink.ask_together(&[rtnetlink::get_link(&name)])?.pop();
        let device = present(device, |it| it.errno == Errno::ENODEV as i32)?.and_then(|it| LinkState::decode(&it));
        let mut state = GuardState { filters, ..GuardState::default() };
        if let Some(device) = device {
            let qdisc = self.netlink.ask_together(&[tc::get_ingress(device.index)])?.pop();
            state.qdisc = present(qdisc, tc::is_absent)?.and_then(|it| FoundQdisc::decode(&it));
            // On its way out it takes nothing over.
            state.tx_checksum = offload::tx_checksum(self.netlink.socket(), &name).unwrap_or(false);
            state.device = Some(device);
        }
        Ok(state)
    }

    /// Makes what is missing of what guards, as good as this kernel has it, and tells what there is then. Nothing may be queued.
    ///
    /// # Errors
    /// What was refused, by which command.
    pub fn ensure_guard(&mut self) -> Result<ChecksumGuard> {
        if let Some(guard) = self.guard {
            return Ok(guard);
        }
        let mut best = None;
        let mut failure = None;
        for _ in 0..LOOKS {
            let state = self.guard_state()?;
            if let Ok(guard) = state.guard() {
                self.guard = Some(guard);
                return Ok(guard);
            }
            let wanted = match best {
                Some(best) => best,
                None => *best.insert(self.best_guard()?),
            };
            // What another run made meanwhile is refused here, and seen at the next look.
            failure = self.complete_guard(wanted, &state).err();
            self.forget_links();
        }
        let left = self.guard_state()?.guard();
        left.map_err(|left| failure.unwrap_or_else(|| anyhow!("still {left}")))
    }

    /// What this kernel can. Nothing is left of the questions.
    fn best_guard(&mut self) -> Result<ChecksumGuard> {
        let csum = self.netlink.ask_together(&[tc::asks_for_csum()])?.pop();
        let there = csum.is_some_and(|it| it.is_err_and(|error| error.errno == Errno::EINVAL as i32));
        Ok(ChecksumGuard { act_csum: there && gso_check::checks_gso().unwrap_or(false) })
    }

    fn complete_guard(&mut self, guard: ChecksumGuard, state: &GuardState) -> Result<()> {
        let name = device_name()?;
        if state.device.is_none() {
            self.netlink.queue(rtnetlink::new_ifb(&name));
            self.send(format!("ip link add name {name} type ifb"))?;
            self.forget_links();
        }
        let device = self.link(&name)?.cloned().with_context(|| format!("{name}: there is no such interface"))?;
        ensure!(
            device.kind.as_deref() == Some("ifb"),
            "{name}: expected a device of kind ifb, found {}",
            device.kind.as_deref().unwrap_or("none")
        );
        let settings = [(Family::V6, ADDR_GEN_MODE, NO_ADDRESS)];
        if settings.iter().any(|it| device.setting(it.0, it.1).is_some_and(|value| value != it.2)) {
            let change = LinkChange { settings: settings.to_vec(), ..LinkChange::default() };
            self.netlink.queue(rtnetlink::set_link(device.index, &change));
            self.send(format!("ip link set dev {name} addrgenmode none"))?;
        }
        let off = || format!("ethtool -K {name} tx off");
        if offload::tx_checksum(self.netlink.socket(), &name).with_context(off)? {
            offload::set_tx_checksum(self.netlink.socket(), &name, false).with_context(off)?;
        }
        let block = ChecksumGuard::BLOCK;
        match &state.qdisc {
            Some(it) if it.ingress_block != Some(block) => {
                bail!("{name}: expected the qdisc clsact with ingress block {block}, found {it}");
            }
            Some(_) => {}
            None => {
                self.netlink.queue(tc::add_clsact(device.index, block));
                self.send(format!("tc qdisc add dev {name} ingress_block {block} clsact"))?;
            }
        }
        self.complete_filters(guard, state, device.index)?;
        if !device.up {
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            self.netlink.queue(rtnetlink::set_link(device.index, &up));
            self.send(format!("ip link set dev {name} up"))?;
        }
        Ok(())
    }

    /// What is in the way goes before what is missing comes: meanwhile the last filter takes all.
    fn complete_filters(&mut self, guard: ChecksumGuard, state: &GuardState, device: u32) -> Result<()> {
        let wanted = guard.filters();
        for found in &state.filters {
            let Some(node) = found.node() else {
                bail!("expected no filters but ours in block {}, see tc filter show block {0}", ChecksumGuard::BLOCK);
            };
            // Words cannot be changed.
            let same = |it: &&Filter| it.node == node;
            let words = found.filter.as_ref().map(|it| &it.words);
            if wanted.iter().find(same).map(|it| &it.words) != words {
                self.netlink.queue(tc::delete_filter(node));
            }
        }
        for filter in &wanted {
            let cookie = if filter.node == ChecksumGuard::REST { guard.cookie().to_vec() } else { Vec::new() };
            let complete = |found: &FoundFilter| {
                let target = filter.action == FilterAction::Redirect;
                found.filter.as_ref() == Some(filter)
                    && found.target == target.then_some(device)
                    && found.cookie == cookie
            };
            if !state.filters.iter().any(complete) {
                self.netlink.queue(tc::add_filter(filter, device, &cookie));
            }
        }
        self.send(format!("tc filter replace block {}", ChecksumGuard::BLOCK))
    }

    /// Sends what is queued; `what` is the command that would do the same.
    fn send(&mut self, what: String) -> Result<()> {
        let refused = self.netlink.flush()?.into_iter().next();
        refused.map_or(Ok(()), |(_, error)| Err(Error::new(error).context(what)))
    }
}

/// The payload of an answer; none where it was refused because there is no such thing.
fn present(answer: Option<Answer>, absent: impl Fn(&Refusal) -> bool) -> Result<Option<Vec<u8>>, Refusal> {
    match answer.transpose() {
        Err(error) if absent(&error) => Ok(None),
        answer => answer,
    }
}
