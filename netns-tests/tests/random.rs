//! Random NICs and random orders of ifup and ifdown. Each run draws its own; a failure names the seed, with which
//! `NETNS_SEED=... cargo test --test netns -- random::` draws the same again.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::plan::{differential, site};
use crate::Test;
use crate::harness::guest::{Guest, Identity, WEB1, WEB2};
use crate::harness::nic::Nic;
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Node;

pub const TESTS: &[Test] = &[
    ("random::plans_by_the_real_tools", plans_by_the_real_tools),
    ("random::up_and_down_is_nothing", up_and_down_is_nothing),
    ("random::only_the_last_of_each_nic_counts", only_the_last_of_each_nic_counts),
];

/// Marsaglia's xorshift64.
pub struct Random(pub u64);

impl Random {
    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(usize::MAX) % limit
    }

    /// One of some.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Runs a property and says with which seed it failed.
fn with_seed(property: impl FnOnce(&mut Random) -> Result<()>) -> Result<()> {
    let seed = match env::var("NETNS_SEED") {
        Ok(seed) => seed.parse().context("NETNS_SEED")?,
        Err(_) => u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() >> 10)?,
    };
    property(&mut Random(seed.max(1))).with_context(|| format!("NETNS_SEED={seed}"))
}

/// Variables that make another NIC of a routed one.
type Shape = Vec<(&'static str, String)>;

/// A NIC of any setup, but for what needs another daemon.
fn shape(random: &mut Random) -> Shape {
    let mut shape: Shape = Vec::new();
    let mut set = |name, value: &str| shape.push((name, value.to_owned()));
    set("TAGS", random.of(&["", "", "protected", "limited", "synnefo:network:0:limited other"]));
    if random.below(2) == 0 {
        for (name, value) in [("MODE", "bridged"), ("LINK", "br0"), ("BRIDGE", "br0")] {
            set(name, value);
        }
        set(
            "NETWORK_TAGS",
            random.of(&["", "private-filtered", "strict-filtered", "private-filtered strict-filtered"]),
        );
        set("NETWORK_MAC_PREFIX", random.of(&["", "aa:00:00"]));
        set("NETWORK_GATEWAY6", random.of(&["2001:db8:1::1", "fe80::1", ""]));
    } else {
        let tags = random.of(&["ip-less-routed", "ip-less-routed nfdhcpd", "ip-less-routed", "", "strict-filtered"]);
        set("NETWORK_TAGS", tags);
        if tags.starts_with("ip-less-routed") {
            match random.below(3) {
                0 => set("NETWORK_SUBNET6", ""),
                1 => set("IP", ""),
                _ => {}
            }
        }
    }
    shape
}

fn shaped<'a>(nic: Nic<'a>, shape: &Shape) -> Nic<'a> {
    shape.iter().fold(nic, |nic, (name, value)| nic.set(name, value))
}

fn setting(random: &mut Random) -> &'static str {
    random.of(&["", "ROUTING=rule", "IPSPOOF=yes", "MAC_MASK=ff:ff:ff:0:0:0"])
}

fn plans_by_the_real_tools() -> Result<()> {
    with_seed(|random| {
        for _ in 0..3 {
            let (setting, shape) = (setting(random), shape(random));
            differential(setting, |nic| shaped(nic, &shape)).with_context(|| format!("{setting:?}, {shape:?}"))?;
        }
        Ok(())
    })
}

fn up_and_down_is_nothing() -> Result<()> {
    with_seed(|random| {
        let site = site()?;
        let netns = &site.node.netns;
        let _guests = (standing_port(&site.node)?, site.node.plug("tap0", WEB1)?);
        let before = Snapshot::of(netns)?;
        for _ in 0..6 {
            let shape = shape(random);
            let nic = shaped(site.node.nic("tap0", WEB1), &shape);
            let up_and_down = || -> Result<()> {
                nic.ifup()?.succeeds()?;
                nic.ifdown()?.succeeds()?;
                before.returns_in(netns, Snapshot::without_base_tables)
            };
            up_and_down().with_context(|| format!("{shape:?}"))?;
        }
        Ok(())
    })
}

/// A port that stays, so that the bridge has its carrier and its addresses whoever else comes and goes.
fn standing_port(node: &Node) -> Result<Guest> {
    let guest = node.plug("tap9", WEB2)?;
    node.netns.ip("link set tap9 address 02:00:00:00:03:09 master br0 up")?;
    node.settled("br0")?;
    node.settled("tap9")?;
    Ok(guest)
}

const NICS: [(&str, Identity); 2] = [("tap0", WEB1), ("tap1", WEB2)];

fn only_the_last_of_each_nic_counts() -> Result<()> {
    with_seed(|random| {
        let steps: Vec<_> =
            (0..8).map(|_| (random.below(NICS.len()), (random.below(3) > 0).then(|| shape(random)))).collect();
        let last = |nic| steps.iter().rev().find(|it| it.0 == nic);
        let shortened: Vec<_> = (0..NICS.len()).filter_map(last).cloned().collect();
        let (long, short) = (site()?, site()?);
        let ready = |node: &Node| -> Result<_> {
            let guests: Vec<_> = NICS.into_iter().map(|(tap, id)| node.plug(tap, id)).collect::<Result<_>>()?;
            for (number, (tap, _)) in NICS.into_iter().enumerate() {
                // The kernel draws a TAP's MAC by lot.
                node.netns.ip(&format!("link set {tap} address 02:00:00:00:03:0{number}"))?;
            }
            Ok(guests)
        };
        let _guests = (ready(&long.node)?, ready(&short.node)?);
        let _ports = (standing_port(&long.node)?, standing_port(&short.node)?);
        for (node, steps) in [(&long.node, &steps), (&short.node, &shortened)] {
            for (nic, shape) in steps {
                let (tap, id) = NICS[*nic];
                let done = match shape {
                    Some(shape) => shaped(node.nic(tap, id), shape).ifup()?.succeeds(),
                    None => node.nic(tap, id).ifdown()?.succeeds(),
                };
                done.with_context(|| format!("{steps:?}"))?;
            }
        }
        for (nic, _) in shortened.iter().filter(|it| it.1.is_some()) {
            short.node.settled(NICS[*nic].0)?;
        }
        Snapshot::of(&short.node.netns)?
            .returns_in(&long.node.netns, |state| state.without_base_tables().without_port_numbers())
            .with_context(|| format!("after {shortened:?} (-) and after {steps:?} (+)"))
    })
}
