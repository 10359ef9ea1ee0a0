//! One rtnetlink request and its answers, for the few questions that are asked one at a time.

use std::io;

use anyhow::{Context, Result};
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// Length of `struct nlmsghdr` (linux/netlink.h).
const HEADER: usize = 16;

/// The largest answer the kernel makes of a dump (NLMSG_GOODSIZE and netlink_recvmsg's growth to 32 KiB).
const ANSWER: usize = 32 * 1024;

/// Sends one request in the calling thread's network namespace and returns the payloads of its answers. `flags` are
/// added to NLM_F_REQUEST and NLM_F_ACK; with NLM_F_DUMP all parts are gathered.
///
/// # Errors
/// The kernel's errno as an [`io::Error`] at the bottom of the chain.
pub(super) fn exchange(message_type: u16, flags: u16, body: &impl Emitable) -> Result<Vec<Vec<u8>>> {
    let socket = Socket::new(NETLINK_ROUTE).context("netlink socket")?;
    // With it a dump's filter is applied, or refused, but never ignored.
    socket.set_netlink_get_strict_chk(true).context("NETLINK_GET_STRICT_CHK")?;
    let mut request = vec![0; HEADER + body.buffer_len()];
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(request.len()).context("length of a netlink request")?;
    header.message_type = message_type;
    // A dump is ended by NLMSG_DONE; an acknowledgement would be a second end.
    header.flags = NLM_F_REQUEST | flags | if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
    header.sequence_number = 1;
    header.emit(&mut request);
    body.emit(&mut request[HEADER..]);
    socket.send(&request, 0).context("netlink send")?;
    let mut answers = Vec::new();
    loop {
        let mut datagram = Vec::with_capacity(ANSWER);
        socket.recv(&mut datagram, 0).context("netlink receive")?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).context("netlink answer")?;
            match message.message_type() {
                NLMSG_ERROR | NLMSG_DONE => return finish(message.payload()).map(|()| answers),
                _ => answers.push(message.payload().to_vec()),
            }
            let length = usize::try_from(message.length())?.next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// Both an error and the end of a dump begin with a negative errno, or 0.
fn finish(payload: &[u8]) -> Result<()> {
    let code = payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).context("netlink answer is cut short")?;
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code).into()) }
}
