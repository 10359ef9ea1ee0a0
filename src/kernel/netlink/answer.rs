//! Answers of the kernel: the messages of a datagram, and the refusals among them.

use netlink_packet_core::NetlinkBuffer;

use crate::kernel::error::{Error, extended_text};

/// NLM_F_CAPPED: the request's payload is not repeated in the answer.
const NLM_F_CAPPED: u16 = 0x100;
/// NLM_F_ACK_TLVS: extended acknowledgement attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;

/// The messages of a datagram, up to the first that is cut short.
pub(in crate::kernel) fn messages(datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = message.length() as usize;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The refusal that an NLMSG_ERROR carries; none for an acknowledgement.
pub(in crate::kernel) fn error_of(operation: &'static str, answer: &NetlinkBuffer<&[u8]>) -> Option<Error> {
    let payload = answer.payload();
    let errno = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    if errno == 0 {
        return None;
    }
    let explained = answer.flags() & NLM_F_ACK_TLVS != 0;
    let text = explained.then(|| extended_text(payload, answer.flags() & NLM_F_CAPPED != 0)).flatten();
    Some(Error { operation, errno: errno.saturating_neg(), text })
}

/// The refusal that ends a dump; none for its regular end.
pub(in crate::kernel) fn done_of(operation: &'static str, answer: &NetlinkBuffer<&[u8]>) -> Option<Error> {
    let payload = answer.payload();
    let errno = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    (errno < 0).then(|| Error { operation, errno: errno.saturating_neg(), text: None })
}

#[cfg(test)]
mod tests {
    use super::super::NLMSG_ERROR;
    use super::*;

    /// An NLMSG_ERROR as kernel 6.18 sent it for `ip route add 10.9.9.0/24 via 10.1.1.1`, capped for brevity.
    fn refusal() -> Vec<u8> {
        let text = b"Nexthop has invalid gateway\0";
        let mut bytes = vec![0; 4];
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend((NLM_F_ACK_TLVS | NLM_F_CAPPED).to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend((-101_i32).to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend((4 + text.len() as u16).to_ne_bytes());
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(text);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_refusal_keeps_the_kernels_words() {
        let bytes = refusal();
        let answer = messages(&bytes).next().expect("a message");
        let error = error_of("RTM_NEWROUTE", &answer).expect("a refusal");
        assert_eq!(
            error.to_string(),
            "RTM_NEWROUTE: Nexthop has invalid gateway: Network is unreachable (os error 101)"
        );
    }

    #[test]
    fn answers_that_are_cut_short_or_garbled_are_survived() {
        let bytes = refusal();
        for length in 0..bytes.len() {
            for answer in messages(&bytes[..length]) {
                error_of("RTM_NEWROUTE", &answer);
            }
        }
        for place in 0..bytes.len() {
            for value in [0, 1, 4, 16, 127, 255] {
                let mut bytes = bytes.clone();
                bytes[place] = value;
                for answer in messages(&bytes) {
                    error_of("RTM_NEWROUTE", &answer);
                    done_of("RTM_GETROUTE", &answer);
                }
            }
        }
    }
}
