//! The same tables on a node in use: it tracks connections, bridged packets pass the hooks of IP (br_netfilter), its bridge snoops
//! multicast, and it filters by the reverse path. Nothing of this may open a way, nor close one that must pass.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::context::{Row, Verdict};
use super::testbed::{Bridged, Families, Ground, br_netfilter};
use super::{TABLES, TRIES};
use crate::harness::Skip;

impl Ground {
    /// A node that others use, too.
    fn in_use(self, rp_filter: &str) -> Result<Self> {
        self.track_connections()?;
        let netns = &self.node.netns;
        for name in ["all", "default"] {
            netns.set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), rp_filter)?;
        }
        if self.bridge.is_some() {
            netns.ip("link set br0 type bridge mcast_snooping 1")?;
            if !br_netfilter(netns, true)? {
                return Err(Skip("this kernel has no br_netfilter".to_owned()).into());
            }
        }
        Ok(self)
    }
}

/// What the kernel does there of its own with what the setup lets pass: it drops malformed packets, puts fragments together, which then
/// leave as others, and by the reverse path (rp_filter 1) drops IPv4 of a routed guest to the node itself.
fn of_the_kernel(row: &Row, seen: &str, expected: &str) -> bool {
    let is = |words: &[&str]| words.iter().any(|word| row.name.contains(word));
    !expected.is_empty()
        && (is(&["fragment", "split"]) || seen.is_empty() && is(&["header of", "cut", "IPv4 to the node"]))
}

fn judge(world: &str, ground: impl Fn(Families) -> Result<Ground>, verdict: impl Fn(&Row) -> Verdict) -> Result<()> {
    let mut wrong = String::new();
    for (families, tables) in TABLES {
        let ground = ground(families)?;
        for row in tables.iter().copied().flatten() {
            let (frames, expected) = ((row.frames)(&ground.context), verdict(row).seen);
            let mut seen = String::new();
            let right = (0..TRIES).try_fold(false, |right, _| -> Result<bool> {
                if !right {
                    seen = ground.attack(&frames)?;
                }
                Ok(right || seen == expected)
            })?;
            if !right && !of_the_kernel(row, &seen, expected) {
                let _infallible = write!(wrong, "\n  {}: seen {seen:?}, expected {expected:?}", row.name);
            }
        }
    }
    ensure!(wrong.is_empty(), "rows that went another way {world}:{wrong}");
    Ok(())
}

/// Filtered ports.
pub fn bridged() -> Result<()> {
    for setup in [Bridged::Filtered, Bridged::Strict, Bridged::StrictFiltered] {
        let ground = |families| Ground::bridged(setup, families)?.in_use("1");
        judge(&format!("from {setup:?}"), ground, |row| row.bridged.column(setup as usize))?;
    }
    Ok(())
}

/// An ip-less-routed TAP.
pub fn routed() -> Result<()> {
    for rp_filter in ["0", "1", "2"] {
        let ground = |families| Ground::routed(families)?.in_use(rp_filter);
        judge(&format!("with rp_filter {rp_filter}"), ground, |row| row.routed.column(1))?;
    }
    Ok(())
}
