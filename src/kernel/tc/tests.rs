//! Messages against those of the real tc, and answers against what was asked for.

use super::*;
use crate::kernel::netlink::Request;
use crate::object::{ChecksumGuard, Filter, FilterAction, Kind, Verb};

/// Numbers of the devices in golden.txt.
const TAP: u32 = 3;
const DEVICE: u32 = 2;

const BOTH: [ChecksumGuard; 2] = [ChecksumGuard { act_csum: true }, ChecksumGuard { act_csum: false }];

/// The message of a command.
fn golden(command: &str) -> String {
    let mut lines = include_str!("tests/golden.txt").lines();
    let found = lines.find(|line| line.strip_prefix("# ") == Some(command));
    found.and_then(|_| lines.next()).unwrap_or_else(|| panic!("no {command:?} in golden.txt")).to_owned()
}

/// A request as golden.txt has it.
fn shown(request: &Request) -> String {
    let mut bytes = Vec::new();
    request.append(&mut bytes, 1);
    let number = |place: usize| u16::from_ne_bytes([bytes[place], bytes[place + 1]]);
    let payload: String = bytes[16..].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {:#x} {payload}", number(4), number(6))
}

/// What is behind struct nlmsghdr.
fn payload(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.append(&mut bytes, 1);
    bytes.split_off(16)
}

#[test]
fn qdiscs_are_asked_for_as_by_tc() {
    let block = ChecksumGuard::BLOCK;
    assert_eq!(shown(&add_clsact(TAP, block)), golden("tc qdisc add dev tap0 ingress_block 218 clsact"));
    assert_eq!(shown(&delete_clsact(TAP)), golden("tc qdisc del dev tap0 clsact"));
}

#[test]
fn filters_are_made_as_by_tc() {
    for guard in BOTH {
        let commands = guard.command(Verb::Add);
        let commands: Vec<_> = commands.lines().filter(|it| it.starts_with("tc filter ")).collect();
        let filters = guard.filters();
        assert_eq!(commands.len(), filters.len());
        for (command, filter) in commands.into_iter().zip(&filters) {
            let cookie = if filter.node == ChecksumGuard::REST { guard.cookie().to_vec() } else { Vec::new() };
            assert_eq!(shown(&add_filter(filter, DEVICE, &cookie)), golden(command));
        }
    }
    let command = "tc filter del block 218 protocol all prio 1 handle 800::1 u32";
    assert_eq!(shown(&delete_filter(1)), golden(command));
}

/// What the kernel tells of a filter or a qdisc has the attributes by which it was made.
#[test]
fn what_was_encoded_is_decoded() {
    for filter in BOTH.iter().flat_map(ChecksumGuard::filters) {
        let bytes = payload(&add_filter(&filter, DEVICE, &[1, 2, 3, 4]));
        let found = FoundFilter::decode(&bytes).expect("a filter");
        let Filter { node, action, .. } = filter;
        assert_eq!((found.node(), found.cookie.as_slice()), (Some(node), &[1, 2, 3, 4][..]));
        assert_eq!(found.target, (action == FilterAction::Redirect).then_some(DEVICE));
        assert_eq!(found.filter, Some(filter));
        for length in 0..bytes.len() {
            let _either_way = FoundFilter::decode(&bytes[..length]);
        }
    }
    let found = FoundQdisc::decode(&payload(&add_clsact(TAP, ChecksumGuard::BLOCK)));
    let expected = FoundQdisc { device: TAP, kind: "clsact".to_owned(), ingress_block: Some(ChecksumGuard::BLOCK) };
    assert_eq!(found, Some(expected));
}

#[test]
fn each_kind_of_guard_has_a_digest_of_its_own() {
    let [one, other] = BOTH.map(|it| it.cookie());
    assert_ne!(one, other);
}
