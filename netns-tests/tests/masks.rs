//! From one ROUTING_MARK_MASK to another with bits in common: no packet may be led by the rule of another table.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount, umount};

use super::drift::reconcile;
use super::reconcile::traced;
use super::status::in_sync;
use super::steering::marks;
use super::switching::{MARK, OTHER_MASK, under};
use crate::Test;
use crate::harness::guest::{WEB1, WEB2};
use crate::harness::topology::{OUTSIDE, Site};

pub const TESTS: &[Test] = &[
    ("masks::no_mark_is_of_two_tables", no_mark_is_of_two_tables),
    ("masks::node_down_knows_both_masks", node_down_knows_both_masks),
];

/// Under one mask a table may have the mark that another one has under the other. Neither's packets may ever be led by the other's
/// table, whoever comes first to the new mask: while the other table's NIC is still of the old one, and whether its number fits into
/// the new one or not.
fn no_mark_is_of_two_tables() -> Result<()> {
    let site = Site::new()?;
    let node = &site.node;
    let netns = &node.netns;
    let wire = node.wire()?;
    let (one, two) = (node.plug("tap0", WEB1)?, node.plug("tap1", WEB2)?);
    for (table, other) in [(6, 96), (97, 1552)] {
        for to in [table, other] {
            netns.ip_batch(&format!(
                "route replace 10.0.0.0/24 dev eth1 table {to}\nroute replace default via 10.0.0.1 dev eth1 table {to}"
            ))?;
        }
        netns.ip(&format!("route replace unreachable {OUTSIDE} table {other}"))?;
        let up = |tap, id, table: u32| node.nic(tap, id).set("LINK", table).only_v4().ifup()?.succeeds().map(drop);
        let first_up = || up("tap0", WEB1, table);
        let by_name = || reconcile(node, "tap0")?.succeeds().map(drop);
        let node_up = |options: &str| {
            let options = format!("--dev eth1 --table {table} {options}");
            node.files.run(netns, &["node", "up"], &options)?.succeeds().map(drop)
        };
        let inet = || node_up("--routes 10.0.0.0/24 --gateway 10.0.0.1");
        let inet6 = || node_up("--family inet6");
        let whole = || reconcile(node, "")?.succeeds().map(drop);
        // It leads nobody back who is led over already.
        let failing = || -> Result<()> {
            reconcile(node, "tap1")?.succeeds()?;
            let (binding, tags) = (node.files.bindings().join("tap0"), "ip-less-routed nfdhcpd");
            fs::create_dir(&binding)?;
            // What is mounted cannot be moved aside.
            let none = None::<&str>;
            mount(Some("tmpfs"), &binding, Some("tmpfs"), MsFlags::empty(), none).context("tmpfs")?;
            let nic = node.nic("tap0", WEB1).set("LINK", table).only_v4().set("NETWORK_TAGS", tags);
            nic.ifup()?.fails(&["nfdhcpd/tap0"])?;
            umount(&binding)?;
            Ok(fs::remove_dir(&binding)?)
        };
        let first: [(&str, &dyn Fn() -> Result<()>); 6] = [
            ("ifup", &first_up),
            ("reconcile tap0", &by_name),
            ("node up", &inet),
            ("node up of IPv6", &inet6),
            ("an ifup that fails", &failing),
            ("reconcile", &whole),
        ];
        for (name, first) in first {
            let leads_nobody_astray = || -> Result<()> {
                let away = two.send_echo(WEB2.ip.into(), OUTSIDE)?;
                let mark = one.send_echo(WEB1.ip.into(), OUTSIDE)?;
                wire.expect(&format!("> {OUTSIDE}: echo request {mark}"))?;
                wire.never(&format!("echo request {away}"))
            };
            let case = || -> Result<()> {
                node.files.set(MARK)?;
                up("tap0", WEB1, table)?;
                up("tap1", WEB2, other)?;
                reconcile(node, "")?.succeeds()?;
                leads_nobody_astray()?;
                node.files.set("ROUTING_MARK_MASK=0xff000000")?;
                first()?;
                leads_nobody_astray()?;
                let of_former = marks(netns)?.iter().filter(|it| it.contains("/0xfff00000")).count();
                ensure!(of_former == 0, "{:?}", marks(netns)?);
                reconcile(node, "")?.succeeds()?;
                in_sync(node)?;
                leads_nobody_astray()
            };
            case().with_context(|| format!("tables {table} and {other}, {name} first"))?;
        }
        // What was not to leave does where its table leads there.
        netns.ip(&format!("route del unreachable {OUTSIDE} table {other}"))?;
        let mark = two.send_echo(WEB2.ip.into(), OUTSIDE)?;
        wire.expect(&format!("> {OUTSIDE}: echo request {mark}"))?;
        for family in ["inet6", "inet"] {
            node.files.run(netns, &["node", "down"], &format!("--dev eth1 --family {family} --force"))?.succeeds()?;
        }
        node.uplink_up()?;
    }
    // In this order: rules that may meet the new marks, the marks, rules by them.
    node.files.set(MARK)?;
    reconcile(node, "")?.succeeds()?;
    node.files.set("ROUTING_MARK_MASK=0xff000000")?;
    let text = traced(node)?;
    let place = |what: &str| text.find(what).with_context(|| format!("no {what} in\n{text}"));
    let last = text.rfind("RTM_DELRULE").context("no RTM_DELRULE")?;
    ensure!(last < place("NFT_MSG_NEWRULE")? && place("NFT_MSG_NEWRULE")? < place("RTM_NEWRULE")?, "{text}");
    Ok(())
}

/// `node down` knows the rule by the mask of its `node up`, and that of the settings, which a NIC's ifup made since.
fn node_down_knows_both_masks() -> Result<()> {
    let site = under(MARK)?;
    let node = &site.node;
    node.files.set(OTHER_MASK)?;
    let _guest = node.guest("tap0", WEB1)?;
    ensure!(marks(&node.netns)?.len() == 4, "{:?}", marks(&node.netns)?);
    node.nic("tap0", WEB1).ifdown()?.succeeds()?;
    for family in ["inet", "inet6"] {
        node.files.run(&node.netns, &["node", "down"], &format!("--dev eth1 --family {family}"))?.succeeds()?;
    }
    ensure!(marks(&node.netns)?.is_empty(), "{:?}", marks(&node.netns)?);
    Ok(())
}
