//! The demonstration: guests, nodes and an external router in namespaces of their own, set up by the code of `node up` and
//! `ifup`, and the frames that prove each line of the seed's "PING from an instance".

mod excerpt;
pub mod guest;
mod migration;
mod node;
mod report;
mod resolution;
mod routing;
mod wire;
mod world;

use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::{Context, Result};

use self::report::Report;
use self::world::World;
use crate::addr::Family;
use crate::environment::no_color;
use crate::kernel::namespace::{enter_private, mount_tmpfs};

/// Where the nodes' records are: a folder that every machine has, hidden behind a file system of the demo's own.
const FOLDER: &str = "/tmp";

/// Runs the demo. The process must have one thread.
///
/// # Errors
/// If there can be no such namespaces; which steps failed.
pub fn run() -> Result<()> {
    let build = || {
        enter_private()?;
        mount_tmpfs(Path::new(FOLDER))?;
        World::build(Path::new(FOLDER))
    };
    let mut world = build().context("demo")?;
    let colour = io::stdout().is_terminal() && !no_color();
    let mut out = io::stdout();
    let mut report = Report::new(&mut out, colour);
    introduce(&mut report, &world).context("demo")?;
    if set_up(&mut report, &mut world) {
        for family in Family::BOTH {
            resolution::steps(&mut report, &mut world, family);
            routing::steps(&mut report, &mut world, family);
        }
        migration::steps(&mut report, &mut world);
    }
    migration::tear_down(&mut report, &mut world);
    report.conclude()
}

fn introduce(report: &mut Report<'_>, world: &World) -> Result<()> {
    let [node1, node2] = &world.nodes;
    let [first, second] = &world.guests;
    let [v4, v6] = Family::BOTH;
    report.say("An external router and two nodes, each a network namespace of its own, and two guests.");
    if !first.guest.has_tap() {
        report.say("The guests' TAPs are veth pairs here, as /dev/net/tun is closed to us.");
    }
    report.say(
        "Frames are shown as tcpdump has them, from the node's point of view, but caught at the far end: those of a TAP by \
         the guest, those of an uplink by the router.
",
    );
    for (role, value) in [
        ("GW_IP", format!("{} {}", world::gateway(v4)?, world::gateway(v6)?)),
        ("GW_MAC", world.router.mac.to_string()),
        ("ARP_IP", world::ARP_IP.to_string()),
        ("DEV, DEV_MAC", format!("{} {} (node1), {} (node2)", node1.device, node1.mac, node2.mac)),
        ("TAP_MAC", node1.tap_mac().to_string()),
        ("TAP, IP, MAC", excerpt::guest(first)?),
        ("", excerpt::guest(second)?),
        ("outside", format!("{} {}", world::outside(v4)?, world::outside(v6)?)),
    ] {
        report.say(&format!("  {role:<13} {value}"));
    }
    Ok(())
}

/// `node up` on both nodes, `ifup` of both NICs on the first.
fn set_up(report: &mut Report<'_>, world: &mut World) -> bool {
    report.step("node up on both nodes, ifup of both guests on node1", |_| {
        let World { nodes, guests, .. } = world;
        for node in nodes.iter_mut() {
            node.up().context(node.name)?;
        }
        for hosted in guests {
            hosted.plan = nodes[0].ifup(&hosted.raw, &hosted.tap).with_context(|| format!("ifup {}", hosted.tap))?;
        }
        Ok("each of their commands is shown below where it matters".to_owned())
    })
}
