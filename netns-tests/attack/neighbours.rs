//! The node's neighbour table: what guests add to it.

use anyhow::{Result, ensure};

use super::context::ATTACKER;
use super::frames;
use super::testbed::{Families, Ground, nic};

/// How many neighbours the node's table has on the attacker's TAP.
fn entries(ground: &Ground) -> Result<usize> {
    let text = ground.node.netns.ip("neigh show dev tap0 nud all")?;
    Ok(text.lines().filter(|line| !line.contains("NOARP")).count())
}

/// A guest that may not choose its link-local address adds nothing to the node's neighbour table; its own addresses are there for
/// good.
pub fn growth_of_the_table() -> Result<()> {
    const SOLICITATIONS: u16 = 50;
    let ground = Ground::routed(Families::Both)?;
    let own = entries(&ground)?;
    ensure!(own == 2, "{own} entries on the TAP");
    for (setting, grown) in [("GUEST_LINK_LOCAL=eui64", 0), ("GUEST_LINK_LOCAL=any", usize::from(SOLICITATIONS))] {
        ground.node.files.set(setting)?;
        nic(&ground.node, "tap0", ATTACKER).ifup()?.succeeds()?;
        let c = &ground.context;
        for number in 0..SOLICITATIONS {
            let chosen = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5eed, 0xa5a5, 0x1234, number);
            let solicitation = frames::solicitation(chosen, c.node.mac.link_local(), Some(c.me.mac));
            ground.attacker.send(&c.to_group(&solicitation))?;
        }
        let now = entries(&ground)?;
        ensure!(now == own + grown, "{setting}: {now} entries on the TAP, expected {}", own + grown);
    }
    ground.node.netns.ip("neigh flush dev tap0")?;
    let permanent = ground.node.netns.ip("neigh show dev tap0 nud permanent")?;
    for address in ATTACKER.addresses() {
        ensure!(permanent.contains(&format!("{address} lladdr {} ", ATTACKER.mac)), "{address}: {permanent}");
    }
    Ok(())
}
