//! What a guest will try, as tables of named frames, and what becomes of each in every setup.

mod arp;
mod context;
mod frames;
mod ground;
mod ipv4;
mod ipv6;
mod link;

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::Test;
use context::{Row, Verdicts};
use ground::{Bridged, Families, Ground};

/// The tests.
pub const TESTS: &[Test] = &[
    ("attack::from_a_plain_port", || bridged(Bridged::Plain)),
    ("attack::from_a_private_filtered_port", || bridged(Bridged::Filtered)),
    ("attack::from_a_strict_filtered_port", || bridged(Bridged::Strict)),
    ("attack::from_a_port_with_both_filters", || bridged(Bridged::StrictFiltered)),
    ("attack::from_a_routed_tap_without_filters", || {
        judge(|_| Ground::routed_unfiltered(), |row| expected(&row.routed, 0))
    }),
    ("attack::from_an_ip_less_routed_tap", || judge(Ground::routed, |row| expected(&row.routed, 1))),
];

/// The tables, and the families of the NIC from which they are sent.
const TABLES: [(Families, &[&[Row]]); 3] = [
    (Families::Both, &[link::ROWS, arp::ROWS, ipv4::ROWS, ipv6::ROWS]),
    (Families::OnlyV4, &[ipv4::ONLY_V4]),
    (Families::OnlyV6, &[ipv4::ONLY_V6]),
];

fn bridged(setup: Bridged) -> Result<()> {
    judge(|families| Ground::bridged(setup, families), |row| expected(&row.bridged, setup as usize))
}

/// Sends all rows, and compares what is seen of each with its verdict.
fn judge(ground: impl Fn(Families) -> Result<Ground>, expected: impl Fn(&Row) -> &'static str) -> Result<()> {
    let mut wrong = String::new();
    for (families, tables) in TABLES {
        let ground = ground(families)?;
        for row in tables.iter().copied().flatten() {
            let (seen, expected) = (ground.attack(&(row.frames)(&ground.context))?, expected(row));
            if seen != expected {
                let _infallible = write!(wrong, "\n  {}: seen {seen:?}, expected {expected:?}", row.name);
            }
        }
    }
    ensure!(wrong.is_empty(), "rows that went another way:{wrong}");
    Ok(())
}

fn expected<const N: usize>(verdicts: &Verdicts<N>, column: usize) -> &'static str {
    match verdicts {
        Verdicts::Seen(columns) => columns[column],
        Verdicts::Kernel(_) => "",
    }
}
