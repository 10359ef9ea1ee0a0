//! The same frames, sent by a real guest in QEMU.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use super::context::{ATTACKER, ROUTER, Row, STRANGER, VICTIM, Verdict};
use super::frames;
use super::testbed::{Bridged, Families, Ground};
use super::{TABLES, TRIES};
use crate::harness::frame::{self, ARP, Mac};
use crate::harness::guest::Identity;
use crate::harness::port::{Capture, Port};
use crate::harness::topology::OUTSIDE;
use crate::vm::tenancy::{Image, Tenant};

/// The letters of what arrives somewhere, see [`super::capture::Seen`]; what else a row brings about is judged without QEMU.
const ARRIVALS: &str = "VUBSMH";

pub fn from_a_routed_tap() -> Result<()> {
    judge(&Ground::routed(Families::Both)?, |row| row.routed.column(1))
}

pub fn from_a_private_filtered_port() -> Result<()> {
    from_a_port(Bridged::Filtered)
}

pub fn from_a_strict_filtered_port() -> Result<()> {
    from_a_port(Bridged::Strict)
}

fn from_a_port(setup: Bridged) -> Result<()> {
    judge(&Ground::bridged(setup, Families::Both)?, |row| row.bridged.column(setup as usize))
}

fn judge(ground: &Ground, verdict: impl Fn(&Row) -> Verdict) -> Result<()> {
    let router = ground.context.router.unwrap_or(ROUTER.mac).link_local();
    let image = Image::of(ATTACKER.mac, &addresses(ATTACKER, ROUTER.ip, router))?;
    let mut guest = image.boot(&ground.node.netns, &ground.attacker)?;
    pings(ground, &mut guest)?;
    // From here on it says nothing but what it is told to.
    guest.run("ip addr flush dev eth0")?;
    let (_, tables) = TABLES[0];
    let (mut wrong, mut mark) = (String::new(), 0);
    for row in tables.iter().copied().flatten() {
        let expected: String = verdict(row).seen.chars().filter(|it| ARRIVALS.contains(*it)).collect();
        let (mut seen, mut refused) = (String::new(), String::new());
        for _ in 0..TRIES {
            mark += 1;
            (seen, refused) = attack(ground, &mut guest, &(row.frames)(&ground.context), mark).context(row.name)?;
            if seen == expected || !seen.chars().all(|it| expected.contains(it)) || !refused.is_empty() {
                break;
            }
        }
        if seen != expected && (refused.is_empty() || !seen.is_empty()) {
            let _infallible = write!(wrong, "\n  {}: seen {seen:?}, expected {expected:?}", row.name);
        }
    }
    ensure!(wrong.is_empty(), "rows that went another way:{wrong}");
    Ok(())
}

/// The lines of `ip -batch` that give a guest's card its addresses and routers.
pub fn addresses(id: Identity, router: Ipv4Addr, router6: Ipv6Addr) -> String {
    format!(
        "link set eth0 up addrgenmode none\n\
         addr add {}/24 dev eth0\n\
         addr add {}/64 dev eth0 nodad\n\
         route add default via {router}\n\
         route add default via {router6} dev eth0\n",
        id.ip, id.ip6,
    )
}

/// That the guest reaches its gateway and its neighbour.
fn pings(ground: &Ground, guest: &mut Tenant) -> Result<()> {
    let answering = |port: &Port, id: Identity| -> Result<Capture> {
        Capture::of(Arc::new(port.again()?), id.name, move |packet| id.answer(packet))
    };
    let _stacks = [answering(&ground.uplink, ROUTER)?, answering(&ground.victim, VICTIM)?];
    let _nfdhcpd = match ground.bridge {
        Some(_) => None,
        None => Some(ground.node.answers_solicitations("tap0", ATTACKER)?),
    };
    for address in [ROUTER, VICTIM].iter().flat_map(Identity::addresses) {
        guest.ping(address)?;
    }
    Ok(())
}

/// Lets the guest send the frames and then one that must pass: what has not arrived when that does will not. Says where they
/// arrived, and which its kernel did not send.
fn attack(ground: &Ground, guest: &mut Tenant, frames: &[Vec<u8>], mark: u32) -> Result<(String, String)> {
    let me = ATTACKER;
    let control = |text: String| {
        if ground.bridge.is_some() {
            let packet = frame::udp((me.ip.into(), 7), (Ipv4Addr::BROADCAST.into(), 7), text.as_bytes());
            return frames::packet(Mac::BROADCAST, me.mac, &packet);
        }
        ground.context.to_gateway(&frame::udp((me.ip.into(), 7), (OUTSIDE, 7), text.as_bytes()))
    };
    if ground.bridge.is_some() {
        // So that the bridge knows again where everybody is.
        let announcement = |id: Identity| {
            frame::ethernet(Mac::BROADCAST, id.mac, ARP, &frame::arp(1, (id.mac, id.ip), (Mac::ZERO, id.ip)))
        };
        guest.send(&announcement(me))?;
        let stranger = ground.stranger.as_ref().map(|port| (port, STRANGER));
        for (port, id) in [(&ground.victim, VICTIM), (&ground.uplink, ROUTER)].into_iter().chain(stranger) {
            port.send(&announcement(id))?;
        }
    }
    let before = control(format!("before {mark} of the real guest"));
    guest.send(&before)?;
    ground.arrived_before(&before, &[])?;
    let mut refused = String::new();
    for frame in frames {
        refused += &guest.send(frame)?;
    }
    let after = control(format!("after {mark} of the real guest"));
    guest.send(&after)?;
    Ok((ground.arrived_before(&after, frames)?, refused))
}
