//! Whether a device takes checksums over from the stack on sending (ethtool(8), `tx`; linux/ethtool.h).
#![expect(unsafe_code, reason = "SIOCETHTOOL takes a pointer inside of struct ifreq")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

use crate::addr::IfName;

/// ETHTOOL_GTXCSUM and ETHTOOL_STXCSUM: all checksums of the sending side at once, and with them what depends on them, such as TSO.
const GET: u32 = 0x16;
const SET: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether it does. Any socket will do.
///
/// # Errors
/// ENODEV where there is no such device.
pub fn tx_checksum(socket: impl AsFd, device: &IfName) -> io::Result<bool> {
    ethtool(socket, device, Value { command: GET, data: 0 }).map(|it| it.data != 0)
}

/// Switches it on or off.
///
/// # Errors
/// ENODEV where there is no such device, EPERM, and EOPNOTSUPP where it cannot be changed.
pub fn set_tx_checksum(socket: impl AsFd, device: &IfName, on: bool) -> io::Result<()> {
    ethtool(socket, device, Value { command: SET, data: on.into() }).map(|_| ())
}

fn ethtool(socket: impl AsFd, device: &IfName, mut value: Value) -> io::Result<Value> {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name is at most IFNAMSIZ - 1 bytes by its type, so the last byte stays 0.
    for (to, from) in request.ifr_name.iter_mut().zip(device.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads one ifreq and, behind its pointer, reads and writes one ethtool_value of these commands; both outlive
    // the call.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
