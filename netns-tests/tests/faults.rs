//! Errors at every step: whichever system call fails, in each of the ways in which it can, the run either reaches the right state
//! or says in one line what failed and leaves what was before.
//!
//! Calls about the process's own memory are not made to fail: without memory a Rust program aborts, which is to be killed
//! (crash.rs). Nor are those that cannot fail, such as getpid.

mod many;
mod node;
mod takeover;

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno::{
    self, EACCES, EAGAIN, EBUSY, ECONNREFUSED, EINTR, EIO, EMFILE, ENOBUFS, ENODEV, ENOLCK, ENOMEM, ENOSPC, ENOSYS,
    EPERM, EROFS,
};
use nix::libc;

use crate::Test;
use crate::harness::every_nth;
use crate::harness::guest::WEB1;
use crate::harness::nic::{Nic, Outcome};
use crate::harness::ptrace::{self, Act};
use crate::harness::snapshot::Snapshot;
use crate::harness::topology::{Node, Site};
use crate::tests::crash::{bridged, old_bridged, old_routed, routed, settled};

pub const TESTS: &[Test] = &[
    ("faults::tap_vanishes_at_any_request", tap_vanishes_at_any_request),
    ("faults::first_ifup_routed", first_ifup_routed),
    ("faults::first_ifup_bridged", first_ifup_bridged),
    ("faults::changing_ifup_routed", changing_ifup_routed),
    ("faults::ifdown_routed", ifdown_routed),
    ("faults::ifdown_bridged", ifdown_bridged),
    ("faults::takeover_routed", takeover::of_a_routed_tap),
    ("faults::takeover_bridged", takeover::of_a_bridged_tap),
    ("faults::node_up", node::up),
    ("faults::node_down", node::down),
    ("faults::reconcile_routed_1_of_2", || many::reconcile_routed(Part { nth: 0, of: 2, ..Part::BY_TURNS })),
    ("faults::reconcile_routed_2_of_2", || many::reconcile_routed(Part { nth: 1, of: 2, ..Part::BY_TURNS })),
    ("faults::reconcile_bridged", || many::reconcile_bridged(Part::BY_TURNS)),
    ("faults::gc_1_of_2", || many::gc(Part { nth: 0, of: 2, ..Part::BY_TURNS })),
    ("faults::gc_2_of_2", || many::gc(Part { nth: 1, of: 2, ..Part::BY_TURNS })),
];

/// Those that also run with guarded TAPs.
pub const OF_NICS: &[Test] = &[
    ("faults::tap_vanishes_at_any_request", tap_vanishes_at_any_request),
    ("faults::first_ifup_routed", first_ifup_routed),
    ("faults::first_ifup_bridged", first_ifup_bridged),
    ("faults::ifdown_routed", ifdown_routed),
    ("faults::reconcile_bridged", || many::reconcile_bridged(Part::BY_TURNS)),
];

/// How a call can fail (the ERRORS of its manual page, and what a filter of seccomp or a hook of the kernel's security
/// modules may say).
fn errors(call: ptrace::Call) -> &'static [Errno] {
    match call.number {
        libc::SYS_socket => &[EMFILE, ENOBUFS, EPERM],
        libc::SYS_bind | libc::SYS_setsockopt | libc::SYS_getsockopt | libc::SYS_getsockname => &[ENOBUFS, EPERM],
        // To the kernel itself, which does not wait.
        libc::SYS_connect if is_netlink(call) => &[ECONNREFUSED, EPERM],
        libc::SYS_connect => &[ECONNREFUSED, EPERM, EINTR],
        libc::SYS_sendto | libc::SYS_sendmsg => &[ENOBUFS, EPERM, EINTR],
        libc::SYS_recvfrom | libc::SYS_recvmsg => &[ENOBUFS, ENOMEM, EINTR],
        libc::SYS_open | libc::SYS_openat => &[EMFILE, EACCES, ENOSPC, EINTR],
        // It is tried without openat2(2) then.
        libc::SYS_openat2 => &[EMFILE, EACCES, ENOSPC, EINTR, EAGAIN, ENOSYS],
        libc::SYS_read | libc::SYS_pread64 => &[EIO, EINTR],
        libc::SYS_write => &[ENOSPC, EIO, EPERM, EINTR],
        libc::SYS_fstat | libc::SYS_newfstatat | libc::SYS_statx => &[ENOMEM, EACCES],
        libc::SYS_readlinkat | libc::SYS_getdents64 => &[EIO],
        libc::SYS_fchmod | libc::SYS_chmod => &[EPERM, EROFS],
        libc::SYS_mkdir | libc::SYS_mkdirat => &[ENOSPC, EACCES],
        libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => &[ENOSPC, EBUSY],
        libc::SYS_unlink | libc::SYS_unlinkat => &[EPERM, EBUSY],
        libc::SYS_flock => &[EINTR, ENOLCK],
        libc::SYS_fork | libc::SYS_clone | libc::SYS_clone3 => &[EAGAIN, ENOMEM],
        libc::SYS_fcntl => &[EMFILE, EAGAIN],
        libc::SYS_ioctl => &[EPERM, ENODEV],
        libc::SYS_poll | libc::SYS_ppoll => &[EINTR, ENOMEM],
        libc::SYS_close => &[EIO, EINTR],
        libc::SYS_capget | libc::SYS_capset | libc::SYS_prctl | libc::SYS_seccomp => &[EPERM],
        libc::SYS_getrandom | libc::SYS_nanosleep | libc::SYS_clock_nanosleep => &[EINTR],
        _ => &[],
    }
}

fn is_netlink(call: ptrace::Call) -> bool {
    call.family == Some(libc::AF_NETLINK.cast_unsigned().into())
}

/// All acts that a call has to be tried with.
fn acts(call: ptrace::Call, part: Part) -> Vec<Act> {
    let mut errors = errors(call).to_vec();
    if part.by_turns {
        errors.retain(|errno| *errno != EINTR);
        let turn = call.n / part.of % errors.len().max(1);
        errors = errors.into_iter().skip(turn).take(1).collect();
    }
    let mut acts: Vec<_> = errors.into_iter().map(Act::Fail).collect();
    if is_netlink(call) && [libc::SYS_recvfrom, libc::SYS_recvmsg].contains(&call.number) {
        acts.push(Act::Halve);
    }
    acts
}

/// How a run ended, and at what.
struct Case {
    outcome: Outcome,
    text: String,
    retried: bool,
}

/// Lets each call of a command fail, from the state that `begin` makes, and has each end judged.
fn everywhere(
    node: &Node,
    command: &dyn Fn() -> Command,
    begin: &dyn Fn() -> Result<()>,
    judge: &dyn Fn(&Case) -> Result<()>,
) -> Result<()> {
    in_part(node, Part::WHOLE, command, begin, judge)
}

/// Which of the calls a test lets fail.
#[derive(Clone, Copy)]
struct Part {
    /// Every `of`-th, so that several tests share a long run.
    nth: usize,
    of: usize,
    /// Whether those that start any program are left out, as other tests have them: the loader's.
    own: bool,
    /// Whether each has one of its errors, in turn, where many calls are alike and a run takes long; and a signal comes in all of
    /// them in one run.
    by_turns: bool,
}

impl Part {
    const WHOLE: Self = Self { nth: 0, of: 1, own: false, by_turns: false };
    const BY_TURNS: Self = Self { own: true, by_turns: true, ..Self::WHOLE };
}

/// The place of the first call of the program's own: it begins with giving up what it does not need.
fn first_own(node: &Node, command: &dyn Fn() -> Command) -> Result<usize> {
    let mut first = None;
    ptrace::run(&node.netns, &mut command(), |call| {
        if [libc::SYS_capget, libc::SYS_capset, libc::SYS_prctl].contains(&call.number) {
            first.get_or_insert(call.n);
        }
        Ok(if first.is_some() { Act::Kill } else { Act::Make })
    })?;
    first.context("it gives up nothing")
}

/// Interrupts every call from the first on that a signal can interrupt, and lets it be made when it is tried again.
fn interrupted_once(first: usize) -> impl FnMut(ptrace::Call) -> Result<Act> + Send {
    let mut last = None;
    move |call| {
        let again = last.take() == Some((call.number, call.family));
        if call.n < first || again || !errors(call).contains(&EINTR) {
            return Ok(Act::Make);
        }
        last = Some((call.number, call.family));
        Ok(Act::Fail(EINTR))
    }
}

fn in_part(
    node: &Node,
    part: Part,
    command: &dyn Fn() -> Command,
    begin: &dyn Fn() -> Result<()>,
    judge: &dyn Fn(&Case) -> Result<()>,
) -> Result<()> {
    let (mut failed, mut complaints) = (0, Vec::new());
    let first = if part.own { first_own(node, command)? } else { 1 };
    if part.by_turns {
        begin()?;
        let outcome = ptrace::run(&node.netns, &mut command(), interrupted_once(first))?;
        let text = format!("a signal in every call: {outcome:?}");
        judge(&Case { outcome, text: text.clone(), retried: true }).context(text)?;
    }
    for n in (first..).filter(|n| n % part.of == part.nth).step_by(every_nth()) {
        let mut place = 0;
        loop {
            begin()?;
            let mut seen = None;
            let outcome = ptrace::run(&node.netns, &mut command(), |call| {
                if call.n != n {
                    return Ok(Act::Make);
                }
                let acts = acts(call, part);
                let act = acts.get(place).copied();
                seen = Some((call, act, acts.len()));
                Ok(act.unwrap_or(Act::Make))
            })?;
            let Some((call, act, count)) = seen else {
                let enough = 20 / part.of / every_nth();
                ensure!(n > 50 && failed > enough, "only {failed} of {n} system calls were essential");
                ensure!(complaints.is_empty(), "{} cases: {}", complaints.len(), complaints.join("\n"));
                return Ok(());
            };
            let Some(act) = act else { break };
            failed += usize::from(outcome.code != Some(0));
            let text = format!("call {n} ({}) {act:?}: {outcome:?}", call.number);
            let case = Case { outcome, text, retried: matches!(act, Act::Fail(EINTR)) };
            if let Err(error) = judge(&case) {
                complaints.push(format!("{}: {error:#}", case.text));
                if complaints.len() > 5 {
                    bail!("{}", complaints.join("\n"));
                }
            }
            place += 1;
            if place == count {
                break;
            }
        }
    }
    Ok(())
}

impl Case {
    /// That it succeeded, or failed in one line.
    fn succeeded(&self) -> Result<bool> {
        let Outcome { code, stderr, .. } = &self.outcome;
        if *code == Some(0) {
            ensure!(stderr.lines().count() <= 1, "more than one line");
            return Ok(true);
        }
        // 127: the dynamic loader could not start it.
        ensure!(matches!(code, Some(1 | 127)) && stderr.lines().count() == 1, "expected one line");
        ensure!(!self.retried || *code == Some(127), "expected to be tried again");
        Ok(false)
    }
}

fn fine(outcome: Outcome) -> Result<()> {
    outcome.succeeds().map(|_| ())
}

fn is_left(node: &Node) -> bool {
    [node.files.state(), node.files.bindings()].iter().any(|folder| folder.join("tap0").exists())
}

fn first_ifup(node: &Node, nic: &Nic) -> Result<()> {
    let before = Snapshot::of(&node.netns)?;
    fine(nic.ifup()?)?;
    let up = settled(node)?;
    fine(nic.ifdown()?)?;
    let begin = || {
        fine(nic.ifdown()?)?;
        ensure!(!is_left(node), "something is left");
        Ok(())
    };
    everywhere(node, &|| nic.command("ifup"), &begin, &|case| {
        if case.succeeded()? {
            // Not essential: the log, an announcement, a hint.
            return up.returns_in(&node.netns, |state| state);
        }
        ensure!(!is_left(node), "a record or a binding is left");
        before.returns_in(&node.netns, |state| state)
    })
}

fn first_ifup_routed() -> Result<()> {
    let (site, _guest) = routed()?;
    first_ifup(&site.node, &old_routed(&site.node))
}

fn first_ifup_bridged() -> Result<()> {
    let (node, _guest) = bridged()?;
    first_ifup(&node, &old_bridged(&node))
}

fn changing_ifup_routed() -> Result<()> {
    let (site, _guest) = routed()?;
    let node = &site.node;
    let (old, new) = (old_routed(node), old_routed(node).set("IP", "10.0.0.9"));
    fine(new.ifup()?)?;
    let after = settled(node)?;
    fine(old.ifup()?)?;
    let before = settled(node)?;
    everywhere(node, &|| new.command("ifup"), &|| fine(old.ifup()?), &|case| {
        if !case.succeeded()? {
            return before.returns_in(&node.netns, |state| state);
        }
        // What could not be removed is recorded, and gone with the next run.
        fine(new.ifup()?)?;
        after.returns_in(&node.netns, |state| state)
    })
}

/// What could not be removed is gone with the next run.
fn ifdown(node: &Node, nic: &Nic) -> Result<()> {
    let before = Snapshot::of(&node.netns)?;
    everywhere(node, &|| nic.command("ifdown"), &|| fine(nic.ifup()?), &|case| {
        if !case.succeeded()? {
            fine(nic.ifdown()?).context("then ifdown")?;
        }
        ensure!(!is_left(node), "a record or a binding is left");
        before.returns_in(&node.netns, |state| state)
    })
}

fn ifdown_routed() -> Result<()> {
    let (site, _guest) = routed()?;
    ifdown(&site.node, &old_routed(&site.node))
}

fn ifdown_bridged() -> Result<()> {
    let (node, _guest) = bridged()?;
    ifdown(&node, &old_bridged(&node))
}

/// Takes the TAP away before each of ifup's netlink requests.
fn tap_vanishes_at_any_request() -> Result<()> {
    let site = Site::new()?;
    let (node, netns, nic) = (&site.node, &site.node.netns, old_routed(&site.node));
    let before = Snapshot::of(netns)?;
    let mut failed = 0;
    for n in 1.. {
        let mut guest = Some(node.plug("tap0", WEB1)?);
        let mut requests = 0;
        let outcome = ptrace::run(netns, &mut nic.command("ifup"), |call| {
            requests += usize::from(call.number == libc::SYS_sendto);
            if requests == n
                && let Some(guest) = guest.take()
            {
                node.unplug(guest, "tap0")?;
            }
            Ok(Act::Make)
        })?;
        if guest.is_some() {
            break;
        }
        let case = || format!("gone at request {n}: {outcome:?}");
        ensure!(matches!(outcome.code, Some(0 | 1)) && outcome.stderr.lines().count() <= 1, "{}", case());
        if outcome.code == Some(1) {
            failed += 1;
            ensure!(outcome.stderr.contains("ifup tap0: "), "{}", case());
        } else {
            fine(nic.ifdown()?).with_context(case)?;
        }
        before.returns_in(netns, Snapshot::without_base_tables).with_context(case)?;
        ensure!(!node.files.bindings().join("tap0").exists(), "a binding is left: {}", case());
    }
    ensure!(failed > 0, "it never failed");
    fine(nic.ifdown()?)?;
    before.returns_in(netns, Snapshot::without_base_tables)
}
