//! Messages of protocols with lengths in them, which a fuzzer that changes bytes seldom gets right.

use crate::fuzzed::Choices;
use crate::{dns, xenstore as store};

/// A name: labels, or a pointer to an earlier place (RFC 1035, section 4.1.4).
fn name(choices: &mut Choices<'_>, message: &mut Vec<u8>) {
    for _ in 0..choices.below(5) {
        let label = match choices.below(4) {
            0 => b"vm1",
            1 => &b"example"[..],
            2 => b"ORG",
            _ => choices.bytes(),
        };
        if !label.is_empty() {
            message.push(label.len() as u8);
            message.extend(label);
        }
    }
    match choices.below(3) {
        0 => message.push(0),
        1 => message.extend([0xc0, 12]),
        _ => message.extend([0xc0 | choices.below(4) as u8, choices.byte()]),
    }
}

/// Type, class and, of a record, TTL and data with its length.
fn record(choices: &mut Choices<'_>, message: &mut Vec<u8>) {
    name(choices, message);
    // A, NS, CNAME, SOA, PTR, AAAA, OPT, TSIG.
    let kind = [1, 2, 5, 6, 12, 28, 41, 250][choices.below(8)];
    let class = [1, 255, choices.byte()][choices.below(3)];
    message.extend([0, kind, 0, class]);
    message.extend(choices.array::<4>());
    let place = message.len();
    message.extend([0, 0]);
    match kind {
        1 => message.extend(choices.array::<4>()),
        28 => message.extend(choices.array::<16>()),
        2 | 5 | 12 => name(choices, message),
        6 => {
            name(choices, message);
            name(choices, message);
            message.extend(choices.array::<20>());
        }
        _ => message.extend(choices.bytes()),
    }
    let wrong = if choices.byte() == 255 { choices.below(4) } else { 0 };
    let length = (message.len() - place - 2 + wrong) as u16;
    message[place..place + 2].copy_from_slice(&length.to_be_bytes());
}

/// An answer of a name server: header, our question or another, records.
pub(in crate::fuzzed) fn dns_answer(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let [id, other] = choices.array();
    let codes = [0x80, 0, 3, 5, 9, choices.byte()];
    let counts = [1, 1, 0].map(|least| least * choices.below(2) as u8 + choices.below(4) as u8);
    let [answers, authorities, additionals] = counts;
    let mut message = vec![id, other, 0x85, codes[choices.below(6)]];
    message.extend([0, 1, 0, answers, 0, authorities, 0, additionals]);
    if choices.below(4) == 0 {
        name(&mut choices, &mut message);
    } else {
        message.extend(b"\x03vm1\x07example\x03org\0");
    }
    message.extend([0, 28, 0, 1]);
    for _ in 0..answers + authorities + additionals {
        record(&mut choices, &mut message);
    }
    dns::fuzzed::answer(&message);
}

/// What xenstored says: messages of types and numbers that we know, mostly with the right length.
pub(in crate::fuzzed) fn xenstore(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut said = Vec::new();
    while !choices.is_empty() {
        // XS_READ, XS_WRITE, XS_WATCH_EVENT, XS_ERROR.
        let kind = [2, 11, 15, 16, u32::from(choices.byte())][choices.below(5)];
        let request = [1, 0, u32::from(choices.byte())][choices.below(3)];
        let payload = match choices.below(4) {
            0 => b"ENOENT\0",
            1 => &b"OK\0"[..],
            _ => choices.bytes(),
        };
        let length = if choices.byte() == 255 { choices.u32() >> choices.below(32) } else { payload.len() as u32 };
        for word in [kind, request, 0, length] {
            said.extend(word.to_ne_bytes());
        }
        said.extend(payload);
    }
    store::fuzzed(&said);
}
