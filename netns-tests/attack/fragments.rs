//! Fragments of two NICs: a node that tracks connections reassembles them by their addresses and ID, from whichever NIC each
//! came, before it looks at the packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::context::VICTIM;
use super::frames;
use super::testbed::{Bridged, Families, Ground, br_netfilter};
use crate::harness::Skip;
use crate::harness::frame::{self, Mac};

/// What the victim says, and what the attacker puts in its place.
const HONEST: &[u8] = b"as the victim said it";
const FORGED: &[u8] = b"as attackers would it";

/// One datagram of the victim in two fragments, of which the second holds all of the text; and the attacker's second one.
struct Datagram {
    first: Vec<u8>,
    second: Vec<u8>,
    forged: Vec<u8>,
}

impl Datagram {
    /// To one of many hosts outside: what the kernel keeps of one try has no part in the next.
    fn new(number: u16, v6: bool, destination: Mac, attacker: Mac) -> Self {
        let (source, to): (IpAddr, IpAddr) = if v6 {
            (VICTIM.ip6.into(), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 1, number).into())
        } else {
            let [high, low] = number.to_be_bytes();
            (VICTIM.ip.into(), Ipv4Addr::new(198, 18, high, low).into())
        };
        let split = |text: &[u8]| {
            let packet = frame::udp((source, 7), (to, 7), text);
            if v6 { frames::fragments6(&packet, 1) } else { frames::fragments4(&packet, 1) }
        };
        let [first, second] = split(HONEST).map(|it| frames::packet(destination, VICTIM.mac, &it));
        let [_, forged] = split(FORGED).map(|it| frames::packet(destination, attacker, &it));
        Self { first, second, forged }
    }
}

/// What became of the victim's datagram.
#[derive(Debug, PartialEq, Eq)]
enum Arrived {
    /// It left as it was.
    Honest,
    /// It left with the attacker's text.
    Forged,
    /// It did not leave.
    Lost,
}

impl Ground {
    /// Any rule that asks for the state of a connection has the kernel track all of them, and so reassemble fragments.
    pub fn track_connections(&self) -> Result<()> {
        let rules =
            "table inet tracker { chain forward { type filter hook forward priority 0; ct state new counter; }; }";
        self.nft(rules).map(drop)
    }

    /// The attacker's fragment before those of the victim, and between them.
    fn mix(&self, number: u16, v6: bool, before: bool) -> Result<Arrived> {
        let c = &self.context;
        let it = Datagram::new(number, v6, c.router.unwrap_or(c.gateway.mac), c.me.mac);
        self.empty();
        if before {
            self.attacker.send(&it.forged)?;
        }
        self.victim.send(&it.first)?;
        if !before {
            self.attacker.send(&it.forged)?;
        }
        self.victim.send(&it.second)?;
        let there = self.uplink.drain();
        let has = |text: &[u8]| there.iter().any(|frame| frame.windows(text.len()).any(|window| window == text));
        Ok(match (has(HONEST), has(FORGED)) {
            (_, true) => Arrived::Forged,
            (true, _) => Arrived::Honest,
            _ => Arrived::Lost,
        })
    }

    /// In both orders and families: `[[IPv4 before, between], [IPv6 ...]]`.
    fn mixes(&self, number: u16) -> Result<[[Arrived; 2]; 2]> {
        let tries = |v6| -> Result<_> { Ok([self.mix(number, v6, true)?, self.mix(number + 1, v6, false)?]) };
        Ok([tries(false)?, tries(true)?])
    }
}

/// A routed guest takes part in no datagram of its neighbour's, and can make none vanish.
pub fn of_two_routed_nics() -> Result<()> {
    use Arrived::{Forged, Honest, Lost};
    let ground = Ground::routed(Families::Both)?;
    ensure!(ground.mixes(1)? == [[Honest, Honest], [Honest, Honest]], "without reassembly");
    ground.track_connections()?;
    let seen = ground.mixes(3)?;
    ensure!(seen == [[Honest, Honest], [Honest, Honest]], "with reassembly: {seen:?}");
    ground.nft("flush chain inet snf-network fragments")?;
    let seen = ground.mixes(5)?;
    ensure!(seen == [[Forged, Lost], [Forged, Lost]], "without our chain: {seen:?}");
    Ok(())
}

/// Fragments of forged sources take up none of the node's memory for reassembly.
pub fn of_forged_sources_take_no_memory() -> Result<()> {
    let ground = Ground::routed(Families::Both)?;
    ground.track_connections()?;
    let queues = || -> Result<u32> {
        let text = ground.node.netns.output(Command::new("cat").arg("/proc/self/net/sockstat"))?;
        let words = text.split_whitespace().skip_while(|word| *word != "FRAG:").nth(2);
        words.and_then(|word| word.parse().ok()).with_context(|| format!("no FRAG: inuse in {text}"))
    };
    let send = |numbers: std::ops::Range<u16>| -> Result<()> {
        for number in numbers {
            let c = &ground.context;
            let it = Datagram::new(number, false, c.router.unwrap_or(Mac::ZERO), c.me.mac);
            ground.attacker.send(&it.forged)?;
        }
        Ok(())
    };
    send(0..300)?;
    let kept = queues()?;
    ensure!(kept == 0, "{kept} packets wait for fragments");
    ground.nft("flush chain inet snf-network fragments")?;
    send(0..300)?;
    let kept = queues()?;
    ensure!(kept == 300, "without our chain {kept} packets wait");
    Ok(())
}

/// On a bridge with br_netfilter, the sources of a strict NIC are checked before reassembly.
pub fn of_two_strict_ports_with_br_netfilter() -> Result<()> {
    let world = |setup| -> Result<Ground> {
        let ground = Ground::bridged(setup, Families::Both)?;
        if !br_netfilter(&ground.node.netns, true)? {
            return Err(Skip("this kernel has no br_netfilter".to_owned()).into());
        }
        ground.track_connections()?;
        Ok(ground)
    };
    for setup in [Bridged::Strict, Bridged::StrictFiltered] {
        let seen = world(setup)?.mixes(1)?;
        ensure!(seen.iter().flatten().all(|it| *it == Arrived::Honest), "{setup:?}: {seen:?}");
    }
    let seen = world(Bridged::Plain)?.mixes(1)?;
    ensure!(seen.iter().all(|[before, _]| *before == Arrived::Forged), "without filters: {seen:?}");
    Ok(())
}
