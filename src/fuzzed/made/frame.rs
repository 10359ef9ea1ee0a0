//! Frames of every kind, as they are sent and with a few bytes changed.

use std::net::IpAddr;

use crate::addr::{Family, Mac};
use crate::frame::{Arp, ArpOperation, Echo, Frame, Ip, Message, NeighbourAdvertisement, Packet};
use crate::fuzzed::{Choices, check_error, text};

pub(in crate::fuzzed) fn frame(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (destination, source) = (Mac(choices.array()), Mac(choices.array()));
    let packet = match choices.below(5) {
        0 => Packet::Arp(Arp {
            operation: [ArpOperation::Request, ArpOperation::Reply, ArpOperation::Other(3)][choices.below(3)],
            sender_mac: Mac(choices.array()),
            sender: choices.array().into(),
            target_mac: Mac(choices.array()),
            target: choices.array().into(),
        }),
        1 => Packet::Other { ether_type: u16::from_be_bytes(choices.array()), payload: choices.bytes().to_vec() },
        2 | 3 => Packet::Ip(ip(Family::V6, &mut choices)),
        _ => Packet::Ip(ip(Family::V4, &mut choices)),
    };
    let mut sent = match (Frame { destination, source, packet }).encode() {
        Err(error) => return check_error(&error),
        Ok(sent) => sent,
    };
    text::frame(&sent);
    while !choices.is_empty() {
        let place = choices.below(256).min(sent.len() - 1);
        sent[place] = choices.byte();
        text::frame(&sent);
        if choices.below(8) == 0 {
            text::frame(&sent[..place]);
        }
    }
}

fn ip(family: Family, choices: &mut Choices<'_>) -> Ip {
    let mut address = || -> IpAddr {
        match family {
            Family::V4 => choices.array::<4>().into(),
            Family::V6 => choices.array::<16>().into(),
        }
    };
    let (source, destination) = (address(), address());
    let hop_limit = if choices.below(4) == 0 { choices.byte() } else { 255 };
    Ip { source, destination, hop_limit, message: message(choices) }
}

fn message(choices: &mut Choices<'_>) -> Message {
    let mac = |choices: &mut Choices<'_>| (choices.below(2) == 1).then(|| Mac(choices.array()));
    match choices.below(6) {
        0 => Message::Echo(Echo {
            reply: choices.below(2) == 1,
            id: u16::from_be_bytes(choices.array()),
            sequence: u16::from_be_bytes(choices.array()),
            data: choices.bytes().to_vec(),
        }),
        1 => Message::NeighbourSolicitation { target: choices.array().into(), source_mac: mac(choices) },
        2 => Message::NeighbourAdvertisement(NeighbourAdvertisement {
            target: choices.array().into(),
            router: choices.below(2) == 1,
            solicited: choices.below(2) == 1,
            override_cache: choices.below(2) == 1,
            target_mac: mac(choices),
        }),
        3 => Message::Icmp { kind: choices.byte(), code: choices.byte(), body: choices.bytes().to_vec() },
        4 => Message::Udp {
            source_port: u16::from_be_bytes(choices.array()),
            destination_port: u16::from_be_bytes(choices.array()),
            data: choices.bytes().to_vec(),
        },
        _ => Message::Other { protocol: choices.byte(), payload: choices.bytes().to_vec() },
    }
}
