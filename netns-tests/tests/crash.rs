//! Crashes at every step: what is killed before any of its system calls leaves a state from which the next run, whichever it
//! is, reaches the right one. No call is left out, but on emulated processors.
//!
//! After each kill one of the possible next runs is tried, in turn, and after the kills behind a call that can change
//! anything, each of them.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::libc;

use crate::Test;
use crate::harness::build::executable;
use crate::harness::guest::{Guest, WEB1, WEB2};
use crate::harness::nic::{Nic, Outcome};
use crate::harness::ptrace::{self, Act};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, Site};
use crate::harness::{every_nth, until};

pub const TESTS: &[Test] = &[
    ("crash::first_ifup_routed", first_ifup_routed),
    ("crash::first_ifup_bridged", first_ifup_bridged),
    ("crash::changing_ifup_routed", changing_ifup_routed),
    ("crash::changing_ifup_bridged", changing_ifup_bridged),
    ("crash::takeover", takeover),
    ("crash::ifdown_routed", ifdown_routed),
    ("crash::ifdown_bridged", ifdown_bridged),
];

/// The calls of ours that can change anything outside of the process.
const CHANGING: [i64; 14] = [
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_write,
    libc::SYS_openat2,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_fork,
    libc::SYS_clone,
];

/// What may come next, and the state in which it must end.
pub struct Next<'a> {
    name: &'static str,
    run: &'a dyn Fn() -> Result<()>,
    end: Snapshot,
}

impl<'a> Next<'a> {
    /// The state in which it ends when nothing was killed before it.
    pub fn clean(node: &Node, name: &'static str, run: &'a dyn Fn() -> Result<()>) -> Result<Self> {
        run()?;
        Ok(Self { name, run, end: settled(node)? })
    }
}

/// The state once what comes by itself has come.
pub fn settled(node: &Node) -> Result<Snapshot> {
    for link in ["tap0", "eth1"] {
        let shown = node.netns.ip(&format!("link show dev {link}")).unwrap_or_default();
        if shown.contains(",UP") && !shown.contains(" master ") {
            node.settled(link)?;
        }
    }
    // That of a port, too.
    until("no address to be tentative", || Ok(node.netns.ip("-6 addr show tentative")?.is_empty()))?;
    Snapshot::of(&node.netns)
}

/// Kills `command` before each of its system calls, from the state that `begin` makes.
pub fn everywhere(
    node: &Node,
    begin: &dyn Fn() -> Result<()>,
    command: &dyn Fn() -> Command,
    nexts: &[Next],
) -> Result<()> {
    let mut behind = 0;
    for n in (1..).step_by(every_nth()) {
        let all = CHANGING.contains(&behind);
        let mut reached = 0;
        for (place, next) in nexts.iter().enumerate() {
            if !all && place != n / every_nth() % nexts.len() {
                continue;
            }
            begin()?;
            let outcome = ptrace::run(&node.netns, &mut command(), |call| {
                if call.n == n {
                    reached = call.number;
                    return Ok(Act::Kill);
                }
                Ok(Act::Make)
            })?;
            if outcome.code.is_some() {
                ensure!(n > 50, "it made only {n} system calls: {outcome:?}");
                outcome.succeeds()?;
                return nexts[0].check(node, "not killed");
            }
            next.check(node, &format!("killed before call {n} ({reached}), behind {behind}; then {}", next.name))?;
        }
        // Where calls are left out, the one before the next is not known.
        behind = if every_nth() == 1 { reached } else { 0 };
    }
    Ok(())
}

impl Next<'_> {
    fn check(&self, node: &Node, case: &str) -> Result<()> {
        (self.run)().with_context(|| case.to_owned())?;
        self.end.returns_in(&node.netns, |state| state).with_context(|| case.to_owned())?;
        for (folder, file) in [(node.files.bindings(), "a binding"), (node.files.state(), "a record")] {
            ensure!(self.name != "ifdown" || !folder.join("tap0").exists(), "{case}: {file} is left");
        }
        Ok(())
    }
}

pub fn fine(outcome: Outcome) -> Result<()> {
    outcome.succeeds().map(|_| ())
}

/// A routed node that has seen one NIC up and down, so that base tables and folders are there.
pub fn routed() -> Result<(Site, Guest)> {
    let site = Site::new()?;
    let guest = site.node.plug("tap0", WEB1)?;
    for nic in [old_routed(&site.node), other_routed(&site.node)] {
        nic.ifup()?.succeeds()?;
        nic.ifdown()?.succeeds()?;
    }
    site.node.netns.settle()?;
    Ok((site, guest))
}

pub fn old_routed(node: &Node) -> Nic<'_> {
    node.nic("tap0", WEB1).set("NETWORK_TAGS", "ip-less-routed nfdhcpd")
}

pub fn other_routed(node: &Node) -> Nic<'_> {
    node.nic("tap0", WEB2).set("NETWORK_TAGS", "ip-less-routed nfdhcpd")
}

/// A node with a bridge, warm as above.
pub fn bridged() -> Result<(Node, Guest)> {
    let node = Node::alone()?;
    node.netns.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
    for (n, bridge) in ["br0", "br1"].into_iter().enumerate() {
        // One more port, so that its carrier does not come and go.
        node.netns.ip_batch(&format!(
            "link add {bridge} address 02:00:00:00:00:1{n} type bridge mcast_snooping 0\n\
             link add port{n} type veth peer name peer{n}\n\
             link set {bridge} up addrgenmode none\n\
             link set peer{n} up addrgenmode none\n\
             link set port{n} addrgenmode none\n\
             link set port{n} up master {bridge}\n"
        ))?;
        until("the carrier of the bridge", || {
            Ok(node.netns.ip(&format!("link show dev {bridge}"))?.contains("state UP"))
        })?;
    }
    let guest = node.plug("tap0", WEB1)?;
    for nic in [old_bridged(&node), other_bridged(&node)] {
        nic.ifup()?.succeeds()?;
        nic.ifdown()?.succeeds()?;
    }
    node.netns.settle()?;
    Ok((node, guest))
}

pub fn old_bridged(node: &Node) -> Nic<'_> {
    let nic = node.nic("tap0", WEB1).without_network().bridged("br0").set("NETWORK_TAGS", "private-filtered nfdhcpd");
    nic.set("NETWORK_MAC_PREFIX", "aa:00:00").set("TAGS", "protected")
}

pub fn other_bridged(node: &Node) -> Nic<'_> {
    node.nic("tap0", WEB2).without_network().bridged("br1").set("NETWORK_TAGS", "private-filtered")
}

pub fn tool(node: &Node, verb: &str) -> Result<()> {
    fine(node.files.run(&node.netns, &[verb], "")?)
}

/// Kills `new`'s verb where `old` stands, or nothing; then comes any of: ifup of the same, of another one, ifdown, reconcile,
/// which has to end in what is recorded then, and ifdown.
fn nics(node: &Node, stands: Option<&Nic>, verb: &str, new: &Nic, other: &Nic) -> Result<()> {
    let down = || {
        // Whosever it is by now.
        fine(new.ifdown()?)?;
        for nic in [other].into_iter().chain(stands) {
            if node.files.state().join("tap0").exists() {
                fine(nic.ifdown()?)?;
            }
        }
        Ok(())
    };
    let up = || fine(new.ifup()?);
    let other_up = || fine(other.ifup()?);
    let reconciled = || {
        tool(node, "reconcile")?;
        tool(node, "reconcile")?;
        let status = node.files.run(&node.netns, &["status"], "")?;
        ensure!(status.code == Some(0), "{status:?}");
        down()
    };
    let collected = || {
        tool(node, "gc")?;
        up()
    };
    let begin = || {
        down()?;
        stands.map_or(Ok(()), |nic| fine(nic.ifup()?))
    };
    let nexts = [
        Next::clean(node, "ifup", &up)?,
        Next::clean(node, "ifup of another one", &other_up)?,
        Next::clean(node, "ifdown", &down)?,
        Next::clean(node, "reconcile, status and ifdown", &reconciled)?,
        Next::clean(node, "gc and ifup", &collected)?,
    ];
    let end = if verb == "ifdown" { [2, 3, 0, 1, 4] } else { [0, 1, 2, 3, 4] };
    let mut nexts: Vec<_> = nexts.into_iter().map(Some).collect();
    let nexts: Vec<_> = end.into_iter().filter_map(|place| nexts[place].take()).collect();
    everywhere(node, &begin, &|| new.command(verb), &nexts)
}

fn first_ifup_routed() -> Result<()> {
    let (site, _guest) = routed()?;
    nics(&site.node, None, "ifup", &old_routed(&site.node), &other_routed(&site.node))
}

fn first_ifup_bridged() -> Result<()> {
    let (node, _guest) = bridged()?;
    nics(&node, None, "ifup", &old_bridged(&node), &other_bridged(&node))
}

fn changing_ifup_routed() -> Result<()> {
    let (site, _guest) = routed()?;
    let (old, other) = (old_routed(&site.node), other_routed(&site.node));
    nics(&site.node, Some(&old), "ifup", &old_routed(&site.node).set("IP", "10.0.0.9"), &other)
}

fn changing_ifup_bridged() -> Result<()> {
    let (node, _guest) = bridged()?;
    let (old, new) = (old_bridged(&node), old_bridged(&node).bridged("br1").set("TAGS", ""));
    nics(&node, Some(&old), "ifup", &new, &other_bridged(&node))
}

fn takeover() -> Result<()> {
    let (site, _guest) = routed()?;
    let (old, new) = (old_routed(&site.node), other_routed(&site.node));
    nics(&site.node, Some(&old), "ifup", &new, &old)
}

fn ifdown_routed() -> Result<()> {
    let (site, _guest) = routed()?;
    let nic = old_routed(&site.node);
    nics(&site.node, Some(&nic), "ifdown", &nic, &other_routed(&site.node))
}

fn ifdown_bridged() -> Result<()> {
    let (node, _guest) = bridged()?;
    let nic = old_bridged(&node);
    nics(&node, Some(&nic), "ifdown", &nic, &other_bridged(&node))
}

pub fn program(node: &Node, words: &[&str], options: &str) -> Command {
    let mut command = Command::new(executable());
    node.files.environment(command.args(words).args(options.split_whitespace()));
    command
}

pub fn uplink(node: &Node, verb: &str) -> Result<()> {
    for options in [Node::UPLINK, Node::UPLINK6] {
        fine(node.files.run(&node.netns, &["node", verb], options)?)?;
    }
    Ok(())
}

/// Takes a part of what a NIC and the uplink have away, as `nft flush` and `ip` do.
pub fn damage(site: &Site) -> Result<()> {
    let netns = &site.node.netns;
    netns.output(Command::new("nft").args(["flush", "ruleset"]))?;
    netns.delete_rules(&["tap0", "eth1"])?;
    netns.ip("route flush table 100")?;
    netns.set_sysctl("ipv4/conf/tap0/proxy_arp", "0")
}
