//! Whether this kernel checks where a guest wants the checksum of a GSO frame (commit 89add40066f9 of Linux 6.11, which many older
//! kernels have, too: hence a question and no look at the version).
#![expect(unsafe_code, reason = "the ioctl that makes a TAP")]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;

use crate::sys::files;

/// The kernel puts a number in place of `%d`.
const NAME: &[u8] = b"snf-probe%d";
/// Of struct virtio_net_hdr (linux/virtio_net.h), in the byte order of the machine: VIRTIO_NET_HDR_F_NEEDS_CSUM and
/// VIRTIO_NET_HDR_GSO_TCPV4.
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
/// Lengths of the headers, and where TCP has its checksum.
const ETHERNET: u16 = 14;
const IPV4: u16 = 20;
const TCP: u16 = 20;
const TCP_CHECKSUM: u16 = 16;

/// Sends two GSO frames to a TAP of our own that is down, so that they go nowhere: the kernel refuses that whose checksum is elsewhere
/// than in the header of TCP as invalid (EINVAL), and the good one only because the TAP is down (EIO).
///
/// # Errors
/// If no TAP can be made.
pub fn checks_gso() -> io::Result<bool> {
    let mut tap = tap()?;
    let mut refusal = |csum_offset| tap.write(&frame(csum_offset)).err().and_then(|it| it.raw_os_error());
    Ok(refusal(TCP_CHECKSUM) == Some(libc::EIO) && refusal(TCP_CHECKSUM - 10) == Some(libc::EINVAL))
}

/// Gone when it is closed.
fn tap() -> io::Result<File> {
    let file = files::open("/dev/net/tun".as_ref(), OFlag::O_RDWR, Mode::empty())?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // Shorter than IFNAMSIZ, so the last byte stays 0.
    for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

/// A virtio header and a frame of two segments, empty but for what the kernel looks at.
fn frame(csum_offset: u16) -> Vec<u8> {
    let headers = ETHERNET + IPV4 + TCP;
    let (segment, csum_start) = (100_u16, ETHERNET + IPV4);
    let mut bytes = vec![NEEDS_CSUM, GSO_TCPV4];
    [headers, segment, csum_start, csum_offset].iter().for_each(|it| bytes.extend(it.to_ne_bytes()));
    let begin = bytes.len();
    bytes.resize(begin + usize::from(headers + 2 * segment), 0);
    let frame = &mut bytes[begin..];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(IPV4 + TCP + 2 * segment).to_be_bytes());
    frame[23] = 6;
    frame[46] = 0x50;
    bytes
}
