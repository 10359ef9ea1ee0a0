//! The table of commands: what each is called, keeps of the process's rights, and runs.

use anyhow::{Context, Result};

use super::{Call, SUCCESS, arpsend, demo, dns, gc, hook, ifdown, ifup, log, node, plan, reconcile, status, vif};
use crate::kernel::confine::{Calls, Capability};

/// A command, its names and what `--help` says of it.
pub struct Command {
    /// The first one is its name in messages; each may be argv[0] or the first word.
    pub names: &'static [&'static str],
    /// What it takes, as usage lines have it.
    pub arguments: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The capabilities that it keeps; all others are given up before anything is read.
    pub(super) needs: &'static [Capability],
    /// The system calls that it keeps.
    pub(super) calls: Calls,
    /// What it does; returns the exit status.
    pub(super) run: fn(&Call) -> Result<u8>,
}

impl Command {
    /// What `--help` behind its name prints, if it has options of its own.
    pub fn help(&self) -> Option<&'static str> {
        match self.names[0] {
            "node" => Some(node::HELP),
            "dns" => Some(dns::HELP),
            _ => None,
        }
    }
}

/// What a command that did what it was asked for exits with.
pub(super) fn done(result: Result<()>) -> Result<u8> {
    result.map(|()| SUCCESS)
}

/// Files of others are nfdhcpd's folder, the log, the name server's key.
const FILES: &[Capability] = &[Capability::DacOverride];
pub(super) const NODE: &[Capability] = &[Capability::NetAdmin, Capability::DacOverride];
pub(super) const NIC: &[Capability] = &[Capability::NetAdmin, Capability::NetRaw, Capability::DacOverride];
const FRAMES: &[Capability] = &[Capability::NetRaw];
const NONE: &[Capability] = &[];
const DEMO: &[Capability] =
    &[Capability::SysAdmin, Capability::Setfcap, Capability::NetAdmin, Capability::NetRaw, Capability::DacOverride];

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        names: &["ifup", "kvm-ifup-custom", "kvm-vif-bridge", "up"],
        arguments: "[TAP]",
        summary: "set up the NIC that the environment describes",
        needs: NIC,
        calls: Calls::All,
        run: |call| done(ifup(call)),
    },
    Command {
        names: &["ifdown", "kvm-ifdown-custom", "down"],
        arguments: "[TAP] [CLEANUP]",
        summary: "take it down again",
        needs: NIC,
        calls: Calls::All,
        run: |call| done(ifdown(call)),
    },
    Command {
        names: &["vif-custom"],
        arguments: "ACTION [type_if=KIND]",
        summary: "set up or take down a NIC for Xen's hotplug",
        needs: NIC,
        calls: Calls::NoProgram,
        run: |call| done(vif::run(call)),
    },
    Command {
        names: &["plan"],
        arguments: "[TAP]",
        summary: "print what ifup would do, as ip and nft lines, and touch nothing",
        needs: FILES,
        calls: Calls::NoProgram,
        run: |call| done(plan(call)),
    },
    Command {
        names: &["node"],
        arguments: "up|down [OPTIONS]",
        summary: "set up the node's uplink for routed guests or bridges, or undo it (node --help)",
        needs: NODE,
        calls: Calls::NoProgram,
        run: |call| done(node::run(&call.arguments)),
    },
    Command {
        names: &["status"],
        arguments: "[TAP...] [--verbose] [--json] [--watch]",
        summary: "show all NICs and uplinks, and what of them does not stand as it should (exit code 3)",
        needs: NODE,
        calls: Calls::NoProgram,
        run: |call| status::run(&call.arguments),
    },
    Command {
        names: &["reconcile"],
        arguments: "[TAP...] [--dry-run]",
        summary: "put right what status finds",
        needs: NODE,
        calls: Calls::NoProgram,
        run: |call| reconcile::run(&call.arguments),
    },
    Command {
        names: &["gc"],
        arguments: "[--dry-run]",
        summary: "remove what NICs that are gone left behind",
        needs: NODE,
        calls: Calls::NoProgram,
        run: |call| gc::run(&call.arguments),
    },
    Command {
        names: &["prv-net-helper"],
        arguments: "up|down DEV FIRST LAST OFFSET",
        summary: "make or remove bridges of private networks (node bridges --help)",
        needs: NODE,
        calls: Calls::NoProgram,
        run: |call| done(node::bridges::run_helper(&call.arguments)),
    },
    Command {
        names: &["dns"],
        arguments: "show|sync|remove [OPTIONS]",
        summary: "an instance's records at the name server (dns --help)",
        needs: FILES,
        calls: Calls::NoProgram,
        run: |call| done(dns::run(&call.arguments)),
    },
    Command {
        names: &["dnshook", "snf-network-dnshook"],
        arguments: "",
        summary: "bring the name server up to date after an operation of Ganeti",
        needs: FILES,
        calls: Calls::NoProgram,
        run: |call| done(dns::hook(call)),
    },
    Command {
        names: &["hook", "snf-network-hook"],
        arguments: "",
        summary: "clear away what an instance that left this node left behind, after an operation of Ganeti",
        needs: NODE,
        calls: Calls::NoProgram,
        run: |call| done(hook::clear_away(call)),
    },
    Command {
        names: &["arpsend"],
        arguments: "-U -i IP [-c COUNT] DEV",
        summary: "send gratuitous ARP for IP on DEV",
        needs: FRAMES,
        calls: Calls::NoProgram,
        run: |call| done(arpsend::arpsend(&call.arguments).context(call.name)),
    },
    Command {
        names: &["ndsend"],
        arguments: "[-c COUNT] ADDR DEV",
        summary: "send unsolicited neighbour advertisements for ADDR on DEV",
        needs: FRAMES,
        calls: Calls::NoProgram,
        run: |call| done(arpsend::ndsend(&call.arguments).context(call.name)),
    },
    Command {
        names: &["mac2eui64"],
        arguments: "[-c COUNT] MAC PREFIX",
        summary: "print the modified EUI-64 address of MAC in PREFIX",
        needs: NONE,
        calls: Calls::NoProgram,
        run: |call| done(arpsend::mac2eui64(&call.arguments).context(call.name)),
    },
    Command {
        names: &["log", "snf-network-log"],
        arguments: "MESSAGE...",
        summary: "write a line into the log (snf-network-log: CALLER MESSAGE...)",
        needs: FILES,
        calls: Calls::NoProgram,
        run: |call| done(log::run(call)),
    },
    Command {
        names: &["demo"],
        arguments: "",
        summary: "show routed guests at work, in namespaces of its own",
        needs: DEMO,
        calls: Calls::All,
        run: |call| done(demo(call)),
    },
];
