//! Golden frames, their round trips, and noise.

use super::*;
use crate::announce;

/// What two kernels said to each other over a veth pair (ping, and a datagram to a closed port), captured with a
/// packet socket, with the line `tcpdump -n -t` prints for each; its trailing `, length N` is left off but for UDP,
/// and so are the details of error messages.
const GOLDEN: [(&str, &str); 13] = [
    (
        "ARP, Request who-has 10.0.0.2 tell 10.0.0.1",
        "ffffffffffff02000000000a0806000108000604000102000000000a0a0000010000000000000a000002",
    ),
    (
        "ARP, Reply 10.0.0.2 is-at 02:00:00:00:00:0b",
        "02000000000a02000000000b0806000108000604000202000000000b0a00000202000000000a0a000001",
    ),
    (
        "IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 26577, seq 1",
        "02000000000b02000000000a08004500002c418140004001e54d0a0000010a000002080001ce67d10001546f \
         056b000000003085040000000000",
    ),
    (
        "IP 10.0.0.2 > 10.0.0.1: ICMP echo reply, id 26577, seq 1",
        "02000000000a02000000000b08004500002c4da100004001192e0a0000020a000001000009ce67d10001546f \
         056b000000003085040000000000",
    ),
    (
        "IP6 2001:db8::1 > ff02::1:ff00:2: ICMP6, neighbor solicitation, who has 2001:db8::2",
        "3333ff00000202000000000a86dd6000000000203aff20010db8000000000000000000000001ff0200000000 \
         000000000001ff00000287001c1e0000000020010db8000000000000000000000002010102000000000a",
    ),
    (
        "IP6 2001:db8::2 > 2001:db8::1: ICMP6, neighbor advertisement, tgt is 2001:db8::2",
        "02000000000a02000000000b86dd6000000000203aff20010db800000000000000000000000220010db80000 \
         0000000000000000000188008a686000000020010db8000000000000000000000002020102000000000b",
    ),
    (
        "IP6 2001:db8::1 > 2001:db8::2: ICMP6, echo request, id 26578, seq 1",
        "02000000000b02000000000a86dd60010d2800183a4020010db800000000000000000000000120010db80000 \
         00000000000000000002800079fb67d20001546f056b00000000e48e040000000000",
    ),
    (
        "IP6 2001:db8::2 > 2001:db8::1: ICMP6, echo reply, id 26578, seq 1",
        "02000000000a02000000000b86dd6005a1d200183a4020010db800000000000000000000000220010db80000 \
         00000000000000000001810078fb67d20001546f056b00000000e48e040000000000",
    ),
    (
        "IP 10.0.0.1.39761 > 10.0.0.2.7: UDP, length 5",
        "02000000000b02000000000a080045000021614f40004011c57a0a0000010a0000029b510007000d14216865 \
         6c6c6f",
    ),
    (
        "IP 10.0.0.2 > 10.0.0.1: ICMP destination unreachable, code 3",
        "02000000000a02000000000b080045c0003d4da200004001185c0a0000020a000001030309a4000000004500 \
         0021614f40004011c57a0a0000010a0000029b510007000d142168656c6c6f",
    ),
    (
        "IP6 2001:db8::1.49054 > 2001:db8::2.7: UDP, length 5",
        "02000000000b02000000000a86dd6009d695000d114020010db800000000000000000000000120010db80000 \
         00000000000000000002bf9e0007000d5b9368656c6c6f",
    ),
    (
        "IP6 2001:db8::2 > 2001:db8::1: ICMP6, destination unreachable, code 4",
        "02000000000a02000000000b86dd6003635a003d3a4020010db800000000000000000000000220010db80000 \
         000000000000000000010104a095000000006009d695000d114020010db80000000000000000000000012001 \
         0db8000000000000000000000002bf9e0007000d5b9368656c6c6f",
    ),
    (
        "IP6 fe80::ff:fe00:a > ff02::2: ICMP6, router solicitation, code 0",
        "33330000000202000000000a86dd6000000000103afffe80000000000000000000fffe00000aff0200000000 \
         0000000000000000000285007b1a00000000010102000000000a",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).expect("a digit")).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_kernels_frames_read_as_tcpdump_prints_them() {
    for (line, hex) in GOLDEN {
        assert_eq!(Frame::parse(&bytes(hex)).expect(line).to_string(), line);
    }
}

/// All that we keep comes out as the kernel wrote it; what we do not keep (the IPv4 identification and "don't
/// fragment", the IPv6 flow label, padding) is cleared in both first.
#[test]
fn the_kernels_frames_are_encoded_as_the_kernel_did() {
    for (line, hex) in GOLDEN {
        let golden = bytes(hex);
        let frame = Frame::parse(&golden).expect(line);
        let mut ours = frame.encode().expect(line);
        assert!(ours.len() >= MIN_LEN && ours.len() >= golden.len(), "{line}");
        assert_eq!(Frame::parse(&ours).expect(line), frame);
        ours.truncate(golden.len());
        let kept = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            match u16::from_be_bytes([bytes[12], bytes[13]]) {
                // Type of service; identification and flags; header checksum.
                ether_type::IPV4 => [15, 18, 19, 20, 24, 25].into_iter().for_each(|at| bytes[at] = 0),
                ether_type::IPV6 => bytes[15..18].fill(0),
                _ => {}
            }
            // The UDP checksum on a veth is unfinished.
            if line.contains("UDP") {
                let at = bytes.len() - 7;
                bytes[at..at + 2].fill(0);
            }
            bytes
        };
        assert_eq!(kept(&ours), kept(&golden), "{line}");
    }
}

#[test]
fn announcements_read_back() {
    let mac = Mac([2, 0, 0, 0, 0, 0x0a]);
    let address = Ipv4Addr::new(192, 0, 2, 7);
    let request = Frame::parse(&announce::arp_request(address, mac).expect("a request")).expect("a frame");
    assert_eq!(request.to_string(), "ARP, Request who-has 192.0.2.7 tell 192.0.2.7");
    assert_eq!(request.announces(address.into()), None);
    let reply = Frame::parse(&announce::arp_reply(address, mac).expect("a reply")).expect("a frame");
    assert_eq!(reply.to_string(), "ARP, Reply 192.0.2.7 is-at 02:00:00:00:00:0a");
    assert_eq!(reply.announces(address.into()), Some(mac));
    assert!(format!("{reply:#}").starts_with("02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff, ARP, Reply"));
}

#[test]
fn what_contradicts_itself_is_an_error_that_names_the_layer() {
    let broken = |golden: usize, at: usize, to: u8| {
        let mut frame = bytes(GOLDEN[golden].1);
        frame[at] = to;
        format!("{:#}", Frame::parse(&frame).expect_err("an error"))
    };
    assert_eq!(broken(0, 18, 8), "ARP: hardware and protocol [00, 01, 08, 00, 08, 04], expected Ethernet and IPv4");
    assert_eq!(broken(2, 14, 0x65), "IPv4: version 6, expected 4");
    assert_eq!(broken(2, 14, 0x44), "IPv4: header of 16 bytes in a packet of 44");
    assert_eq!(broken(2, 22, 1), "IPv4: header checksum is wrong");
    assert_eq!(broken(2, 50, 1), "IPv4: ICMP checksum is wrong");
    assert_eq!(broken(5, 60, 1), "IPv6: ICMPv6 checksum is wrong");
    assert_eq!(broken(5, 19, 33), "IPv6: payload: 32 bytes, expected 33 or more");
    assert_eq!(
        format!("{:#}", Frame::parse(&[0; 13]).expect_err("an error")),
        "Ethernet header: 1 bytes, expected 2 or more"
    );
}

#[test]
fn addresses_of_two_families_do_not_make_a_packet() {
    let message = Message::Other { protocol: 1, payload: Vec::new() };
    let ip = Ip { source: Ipv4Addr::LOCALHOST.into(), destination: ALL_NODES.into(), hop_limit: 1, message };
    assert!(Frame { destination: BROADCAST, source: BROADCAST, packet: Packet::Ip(ip) }.encode().is_err());
}

#[test]
fn groups_of_ipv6() {
    let address = "2001:db8::12:3456".parse().expect("an address");
    assert_eq!(solicited_node(address).to_string(), "ff02::1:ff12:3456");
    assert_eq!(multicast_mac(solicited_node(address)).to_string(), "33:33:ff:12:34:56");
}

/// Whatever is read can be printed, and, if it fits and no part of it is opaque (a fragment is), written and read again.
fn survive(noise: &[u8]) {
    let Ok(frame) = Frame::parse(noise) else { return };
    let _line = format!("{frame:#}");
    let opaque = matches!(frame.packet, Packet::Other { .. } | Packet::Ip(Ip { message: Message::Other { .. }, .. }));
    if let (Ok(again), false) = (frame.encode(), opaque) {
        assert_eq!(Frame::parse(&again).ok(), Some(frame));
    }
}

#[test]
fn truncated_frames_never_panic() {
    for (_, hex) in GOLDEN {
        let golden = bytes(hex);
        (0..golden.len()).for_each(|length| survive(&golden[..length]));
    }
}

#[test]
fn random_and_mutated_frames_never_panic() {
    // xorshift64 (Marsaglia): the same noise each time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    for round in 0..50_000 {
        let mut noise = bytes(GOLDEN[round % GOLDEN.len()].1);
        if round % 5 == 0 {
            // Behind an ether type that is parsed, nothing but noise.
            noise[14..].iter_mut().for_each(|byte| *byte = random(256).to_le_bytes()[0]);
        }
        for _ in 0..1 + random(4) {
            let at = random(noise.len());
            noise[at] = random(256).to_le_bytes()[0];
        }
        if round % 3 == 0 {
            noise.truncate(random(noise.len() + 1));
        }
        refresh_checksums(&mut noise);
        survive(&noise);
    }
}

/// Makes the checksums right again where there are any, so that the noise gets behind them.
fn refresh_checksums(frame: &mut [u8]) {
    use pnet::util;
    let Some((header, payload)) = frame.split_at_mut_checked(14) else { return };
    match u16::from_be_bytes([header[12], header[13]]) {
        ether_type::IPV4 => {
            let length = payload.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
            let total = payload.get(2..4).map_or(0, |at| usize::from(u16::from_be_bytes([at[0], at[1]])));
            if let Some(ip) = payload.get_mut(..length).filter(|ip| ip.len() >= 20) {
                let sum = util::checksum(ip, 5);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            if let Some(icmp) = payload.get_mut(length..total).filter(|icmp| icmp.len() >= 4) {
                let sum = util::checksum(icmp, 1);
                icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            }
        }
        ether_type::IPV6 => {
            let Some((ip, rest)) = payload.split_at_mut_checked(40) else { return };
            let address = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).expect("16 bytes").into();
            let (source, destination) = (address(8), address(24));
            let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            if let Some(icmp) = rest.get_mut(..length).filter(|icmp| icmp.len() >= 4) {
                let protocol = pnet::packet::ip::IpNextHeaderProtocols::Icmpv6;
                let sum = util::ipv6_checksum(icmp, 1, &[], &source, &destination, protocol);
                icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            }
        }
        _ => {}
    }
}
