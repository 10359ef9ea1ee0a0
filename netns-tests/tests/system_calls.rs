//! How many system calls and netlink round trips ifup and ifdown make, exactly. Milliseconds vary from run to run; these do
//! not, so a change that asks the kernel one question more shows here.
//!
//! A round trip is a send on a netlink socket and the reading of its answers, however many messages either has. System
//! calls are those of the process that the caller waits for, from behind its execve to its end. Not counted are those by
//! which the C library gets memory and the time: they depend on the allocator, on sizes of buffers and on the machine's
//! clock. The program is the static one, which is what is shipped.

use anyhow::{Result, ensure};
use nix::libc;

use self::With::{Bridge, OnlyV4, Protected, RoutingRule};
use crate::Test;
use crate::harness::build::STATIC;
use crate::harness::guest::WEB1;
use crate::harness::nic::Nic;
use crate::harness::ptrace::{self, Act};
use crate::harness::topology::{Node, Site};

pub const TESTS: &[Test] = &[("system_calls::are_as_many_as_recorded", are_as_many_as_recorded)];

/// System calls, and netlink round trips.
type Count = (usize, usize);

/// The network's tags, what else the NIC has, and the counts of its first ifup (on a node that had such a NIC before), of
/// the same ifup again, and of ifdown. A change of the program changes the lines here of the setups that it touches.
const COUNTS: &[(&str, &[With], [Count; 3])] = &[
    ("ip-less-routed", &[], [(208, 12), (195, 11), (130, 8)]),
    ("ip-less-routed", &[OnlyV4], [(175, 11), (151, 8), (118, 6)]),
    ("ip-less-routed", &[RoutingRule], [(211, 14), (193, 11), (129, 8)]),
    ("ip-less-routed", &[Protected], [(212, 12), (201, 11), (132, 8)]),
    ("ip-less-routed nfdhcpd", &[], [(222, 12), (204, 11), (134, 8)]),
    ("", &[], [(145, 9), (111, 6), (107, 6)]),
    ("strict-filtered", &[], [(169, 8), (150, 7), (129, 6)]),
    ("", &[Bridge], [(106, 7), (69, 3), (79, 5)]),
    ("", &[Bridge, Protected], [(117, 9), (85, 5), (92, 7)]),
    ("private-filtered", &[Bridge], [(122, 9), (94, 5), (96, 7)]),
    ("strict-filtered", &[Bridge], [(132, 9), (111, 5), (104, 7)]),
];

/// What a NIC has besides its network's tags; without [`Bridge`](With::Bridge) it is routed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum With {
    Bridge,
    OnlyV4,
    Protected,
    RoutingRule,
}

/// Calls of the C library for memory and the time.
const NOT_COUNTED: [i64; 7] = [
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_clock_gettime,
];

fn are_as_many_as_recorded() -> Result<()> {
    let mut differences = String::new();
    for (tags, with, expected) in COUNTS {
        let counted = counted(tags, with)?;
        if counted != *expected {
            differences += &format!("{tags:?} {with:?}: {counted:?}, expected {expected:?}\n");
        }
    }
    ensure!(differences.is_empty(), "system calls and round trips of [ifup, ifup again, ifdown]:\n{differences}");
    Ok(())
}

fn counted(tags: &str, with: &[With]) -> Result<[Count; 3]> {
    let site = Site::new()?;
    let node = &site.node;
    let _guest = node.plug("tap0", WEB1)?;
    let mut nic = node.nic("tap0", WEB1).set("NETWORK_TAGS", tags);
    for with in with {
        match with {
            Bridge => {
                node.netns.ip_batch("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
                nic = nic.bridged("br0");
            }
            OnlyV4 => nic = nic.only_v4(),
            Protected => nic = nic.set("TAGS", "synnefo:network:0:protected"),
            RoutingRule => node.files.set("ROUTING=rule")?,
        }
    }
    count(node, &nic, "ifup")?;
    count(node, &nic, "ifdown")?;
    Ok([count(node, &nic, "ifup")?, count(node, &nic, "ifup")?, count(node, &nic, "ifdown")?])
}

fn count(node: &Node, nic: &Nic<'_>, verb: &str) -> Result<Count> {
    // One that a former run left behind may still have the TAP's lock.
    node.netns.settle()?;
    let (mut calls, mut round_trips, mut sent) = (0, 0, false);
    let outcome = ptrace::run(&node.netns, &mut nic.command_of(STATIC, verb), |call| {
        calls += usize::from(!NOT_COUNTED.contains(&call.number));
        if call.family == Some(libc::AF_NETLINK.unsigned_abs().into()) {
            match call.number {
                libc::SYS_sendto | libc::SYS_sendmsg => sent = true,
                libc::SYS_recvfrom | libc::SYS_recvmsg => round_trips += usize::from(std::mem::take(&mut sent)),
                _ => {}
            }
        }
        Ok(Act::Make)
    })?;
    outcome.succeeds()?;
    Ok((calls, round_trips))
}
