//! Others change the kernel in the middle of a run, at every point where that can meet it: what a dump tells is read again, and a
//! transaction of nf_tables is made anew for the ruleset that there is by then. Here for certain, where storms.rs leaves it to
//! chance.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::libc;

use crate::Test;
use crate::harness::guest::{Guest, WEB1};
use crate::harness::netns::Netns;
use crate::harness::nic::Outcome;
use crate::harness::ovs::Datapath;
use crate::harness::ptrace::{self, Act, Call};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::Site;
use crate::tests::crash::{damage, old_routed, program, routed, settled, tool};
use crate::tests::ovs;

pub const TESTS: &[Test] = &[
    ("interrupted::every_dump_is_read_again", every_dump_is_read_again),
    ("interrupted::a_dump_without_end_is_given_up", a_dump_without_end_is_given_up),
    ("interrupted::a_ruleset_that_changes_before_every_request", a_ruleset_that_changes_before_every_request),
    ("interrupted::exchanges_with_open_vswitch", exchanges_with_open_vswitch),
];

fn is_netlink(call: Call) -> bool {
    call.family == Some(libc::AF_NETLINK.cast_unsigned().into())
}

fn receives(call: Call) -> bool {
    is_netlink(call) && [libc::SYS_recvfrom, libc::SYS_recvmsg].contains(&call.number)
}

fn sends(call: Call) -> bool {
    is_netlink(call) && [libc::SYS_sendto, libc::SYS_sendmsg].contains(&call.number)
}

/// Runs a command; interrupts those of its answers for which `at` says so. Also returns how many requests it sent, and how many
/// answers it read.
fn interrupted(
    netns: &Netns,
    mut command: Command,
    mut at: impl FnMut(usize) -> bool + Send,
) -> Result<(Outcome, [usize; 2])> {
    let [mut sent, mut received] = [0; 2];
    let outcome = ptrace::run(netns, &mut command, |call| {
        sent += usize::from(sends(call));
        received += usize::from(receives(call));
        Ok(if receives(call) && at(received) { Act::Interrupt } else { Act::Make })
    })?;
    Ok((outcome, [sent, received]))
}

/// A routed NIC that is as it should be, with the kernel's state.
fn standing() -> Result<(Site, Guest, Snapshot)> {
    let (site, guest) = routed()?;
    old_routed(&site.node).ifup()?.succeeds()?;
    let right = settled(&site.node)?;
    Ok((site, guest, right))
}

/// `reconcile` has everything to dump: links, rules, routes, proxies, delays, sets and their elements.
fn every_dump_is_read_again() -> Result<()> {
    let (site, _guest, right) = standing()?;
    let (node, netns) = (&site.node, &site.node.netns);
    damage(&site)?;
    let (outcome, [sent, received]) = interrupted(netns, program(node, &["reconcile"], ""), |_| false)?;
    outcome.succeeds()?;
    right.returns_in(netns, |state| state)?;
    let mut again = 0;
    for n in 1..=received {
        damage(&site)?;
        let (outcome, [now, _]) = interrupted(netns, program(node, &["reconcile"], ""), |it| it == n)?;
        let case = format!("interrupted at answer {n} of {received}: {outcome:?}");
        outcome.succeeds().with_context(|| case.clone())?;
        right.returns_in(netns, |state| state).with_context(|| case.clone())?;
        ensure!(now == sent || now == sent + 1, "{now} requests, expected {sent} or one more: {case}");
        again += usize::from(now > sent);
    }
    // Of each family rules, routes, proxies and delays, and links, before and after; sets of three families.
    ensure!(again >= 20, "only {again} of {received} answers were asked for again");
    Ok(())
}

fn a_dump_without_end_is_given_up() -> Result<()> {
    let (site, _guest, right) = standing()?;
    let (node, netns) = (&site.node, &site.node.netns);
    damage(&site)?;
    let damaged = Snapshot::of(netns)?;
    let (outcome, [sent, _]) = interrupted(netns, program(node, &["reconcile"], ""), |_| true)?;
    outcome.fails(&["reconcile: ", "changed meanwhile, 32 times"])?;
    ensure!(sent >= 32, "it asked only {sent} times");
    damaged.returns_in(netns, |state| state)?;
    tool(node, "reconcile")?;
    right.returns_in(netns, |state| state)
}

/// Whoever makes base objects does it for the generation of the ruleset that was looked at: the kernel refuses that with ERESTART
/// when another one's transaction came in between.
fn a_ruleset_that_changes_before_every_request() -> Result<()> {
    let site = Site::new()?;
    let (node, netns) = (&site.node, &site.node.netns);
    let _guest = node.plug("tap0", WEB1)?;
    let nic = old_routed(node);
    let others = || netns.fed(Command::new("nft").args(["-f", "-"]), "add table inet other\ndelete table inet other\n");
    let begin = || {
        nic.ifdown()?.succeeds()?;
        netns.output(Command::new("nft").args(["flush", "ruleset"])).map(drop)
    };
    let run = |at: usize| -> Result<(Outcome, usize)> {
        let mut sent = 0;
        let outcome = ptrace::run(netns, &mut nic.command("ifup"), |call| {
            if sends(call) {
                sent += 1;
                if sent == at {
                    others()?;
                }
            }
            Ok(Act::Make)
        })?;
        Ok((outcome, sent))
    };
    begin()?;
    let (outcome, whole) = run(0)?;
    outcome.succeeds()?;
    let right = settled(node)?;
    let mut again = 0;
    for at in 1..=whole {
        begin()?;
        let (outcome, sent) = run(at)?;
        let case = format!("before request {at} of {whole}: {outcome:?}");
        outcome.succeeds().with_context(|| case.clone())?;
        right.returns_in(netns, |state| state).with_context(|| case)?;
        again += usize::from(sent > whole);
    }
    ensure!(again > 0, "no transaction was made anew");
    Ok(())
}

/// Lets a signal come in each call of a run that is about a socket of such a family, one after the other: it is made again, and the
/// run does what it does. Returns the numbers of these calls.
pub fn by_signals(netns: &Netns, families: &[i32], command: &dyn Fn() -> Result<Command>) -> Result<Vec<i64>> {
    let is_one = |call: Call| {
        let waits = [
            libc::SYS_connect,
            libc::SYS_sendto,
            libc::SYS_recvfrom,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_read,
            libc::SYS_write,
        ];
        let family = call.family.and_then(|it| i32::try_from(it).ok());
        waits.contains(&call.number) && family.is_some_and(|it| families.contains(&it))
    };
    let mut numbers = Vec::new();
    for at in 1.. {
        let (mut place, mut number) = (0, None);
        let outcome = ptrace::run(netns, &mut command()?, |call| {
            place += usize::from(is_one(call));
            if number.is_none() && place == at {
                number = Some(call.number);
                return Ok(Act::Fail(Errno::EINTR));
            }
            Ok(Act::Make)
        })?;
        let case = format!("a signal in call {at} ({number:?}): {outcome:?}");
        outcome.succeeds().context(case)?;
        let Some(number) = number else { break };
        numbers.push(number);
    }
    Ok(numbers)
}

fn exchanges_with_open_vswitch() -> Result<()> {
    let site = ovs::Site::new(Datapath::Userspace)?;
    let _guest = site.node.plug("tap0", WEB1)?;
    let nic = site.nic(WEB1).set("VLAN", ".10");
    let command = || {
        nic.ifdown()?.succeeds()?;
        Ok(nic.command("ifup"))
    };
    let numbers = by_signals(&site.node.netns, &[libc::AF_UNIX], &command)?;
    ensure!(numbers.contains(&libc::SYS_connect) && numbers.len() > 5, "{numbers:?}");
    ensure!(site.switch.vsctl("port-to-br tap0")?.trim() == "br0", "it is no port of br0");
    Ok(())
}
