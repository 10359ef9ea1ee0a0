//! What rtnetlink answers, by whatever kernel.

use std::collections::HashMap;

use netlink_packet_core::Parseable;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;

use super::{LinkState, bridge, default_route, proxy_delay};
use crate::addr::{Family, IfName};
use crate::fuzzed::Choices;
use crate::kernel::attributes;
use crate::kernel::{address, netlink, observed};

/// struct nlmsghdr, to be put before what is made of choices.
fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).unwrap_or(u32::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0], payload].concat()
}

/// Attributes that fit into each other, whatever their types.
fn tree(choices: &mut Choices<'_>, depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=choices.below(6) {
        let kind = u16::from(choices.byte()) & 0x7f;
        let value = match choices.below(4) {
            0 if depth < 4 => tree(choices, depth + 1),
            1 => choices.u32().to_ne_bytes().to_vec(),
            2 => [choices.of(&["vlan", "bridge", "tun", "veth", "tap0", "eth1", "openvswitch"]).as_bytes(), b"\0"]
                .concat(),
            _ => choices.bytes().to_vec(),
        };
        bytes.extend(attributes::attribute(kind, &value));
        if choices.is_empty() {
            break;
        }
    }
    bytes
}

/// A datagram: as it is, or, where its first byte is not 0, a message with a tree of attributes made of the rest.
pub(crate) fn datagram(bytes: &[u8]) {
    match bytes.split_first() {
        None => {}
        Some((0, datagram)) => read(datagram),
        Some((kind, rest)) => {
            let mut choices = Choices::new(rest);
            let kinds = [16, 20, 24, 28, 32, 112, 2, 3];
            let kind = kinds[usize::from(*kind) % kinds.len()];
            // Of all headers the longest is struct ifinfomsg, of 16 bytes.
            let header: Vec<u8> =
                (0..[16, 8, 12, 12, 12, 8, 20, 4][choices.below(8)]).map(|_| choices.byte()).collect();
            let payload = [header, tree(&mut choices, 0)].concat();
            read(&message(kind, u16::from(choices.byte()) << 8 & 0x300, &payload));
        }
    }
}

fn read(datagram: &[u8]) {
    let mut length = 0;
    for answer in netlink::messages(datagram) {
        length += answer.payload().len();
        assert!(length <= datagram.len());
        let errors = [netlink::error_of("RTM_NEWLINK", &answer), netlink::done_of("RTM_GETLINK", &answer)];
        for error in errors.into_iter().flatten() {
            assert!(error.errno != 0 && error.to_string().starts_with("RTM_"), "{error:?}");
        }
        payload(answer.payload());
    }
}

/// A payload as each of our readers takes it.
fn payload(bytes: &[u8]) {
    let name: IfName = "eth1".parse().expect("a name");
    let names = HashMap::from([1, 2, 7].map(|index| (index, name.clone())));
    if let Some(state) = LinkState::decode(bytes) {
        assert!(state.name.as_str().len() < 16);
        assert!(state.devconf.iter().flatten().all(|it| i32::try_from(*it).is_ok()));
    }
    if let Ok(route) = RouteMessage::parse(bytes) {
        let table = u32::from(route.header.table);
        if let Some(found) = default_route::default_route_of(&route, table) {
            assert!(!found.devices.is_empty() && found.devices.is_sorted());
        }
        default_route::is_zero(&route);
        for family in Family::BOTH {
            if let Some(found) = observed::decode::route(family, &route, &names) {
                assert!(found.hop.device().is_none_or(|it| *it == name), "{found:?}");
            }
            if let Some(found) = observed::decode::route(family, &route, &HashMap::new()) {
                assert!(found.hop.device().is_none(), "{found:?}");
            }
        }
    }
    if let Ok(rule) = RuleMessage::parse(bytes) {
        assert!(observed::decode::rule(Family::V6, &rule).is_none_or(|it| !it.shared));
    }
    if let Ok(neighbour) = NeighbourMessage::parse(bytes) {
        assert!(observed::decode::proxy(&neighbour, &names).is_none_or(|it| it.device == name));
        assert!(observed::decode::proxy(&neighbour, &HashMap::new()).is_none());
    }
    if let Ok(message) = AddressMessage::parse(bytes) {
        let index = message.header.index;
        address::state_of(index, message);
    }
    if let Some(port) = bridge::port_of(bytes, 5) {
        assert!(port.name.as_str().len() < 16);
    }
    bridge::vlan_device_of(bytes);
    proxy_delay::delay_of(bytes);
    for (_, entry) in bytes.get(8..).into_iter().flat_map(attributes::attributes) {
        let vlans: Vec<_> = bridge::entry_of(entry).into_iter().flatten().collect();
        assert!(vlans.iter().map(|it| it.vid).is_sorted());
    }
}
