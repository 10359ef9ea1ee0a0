//! The floor under the latency of a NIC: sends what a recording holds, receives what is answered, and exits. No thinking.
//!
//! `floor FILE`, or `floor FILE changes` to leave out the questions and to receive nothing; the form of the file is that of benches/nic/recording.rs.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netlink_sys::Socket;
use nix::libc::{MSG_DONTWAIT, MSG_TRUNC};

use snf_network::kernel::packet::{AdvertisementSocket, PacketSocket};
use snf_network::kernel::process;

/// As long as the program's own detached process holds its sockets.
const GRACE: Duration = Duration::from_millis(100);
/// NETLINK_ROUTE of linux/netlink.h.
const NETLINK_ROUTE: u32 = 0;

fn main() -> Result<()> {
    replay()?;
    process::end(0)
}

fn replay() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let file = words.next().context("expected a recording")?;
    let asks = words.next().is_none();
    let recording = fs::read(file)?;
    let mut rest = recording.as_slice();
    let mut netlink: Vec<(u32, Socket)> = Vec::new();
    let mut packets = None;
    let mut answer = Vec::new();
    while let Some((kind, behind)) = rest.split_first() {
        rest = behind;
        match kind {
            b'S' => {
                let (name, protocol) = (number(&mut rest)?, number(&mut rest)?);
                let socket = Socket::new(protocol.try_into()?)?;
                socket.set_ext_ack(true)?;
                if protocol == NETLINK_ROUTE {
                    socket.set_netlink_get_strict_chk(true)?;
                }
                netlink.push((name, socket));
            }
            b'C' => {
                let name = number(&mut rest)?;
                netlink.retain(|it| it.0 != name);
            }
            b'N' | b'Q' => {
                let (name, message) = (number(&mut rest)?, part(&mut rest)?);
                let (answers, length) = (number(&mut rest)?, number(&mut rest)?);
                if *kind == b'Q' && !asks {
                    continue;
                }
                let socket = &netlink.iter().find(|it| it.0 == name).context("a socket")?.1;
                socket.send(message, 0)?;
                answer.reserve(length.try_into()?);
                for _ in 0..if asks { answers } else { 0 } {
                    answer.clear();
                    match socket.recv(&mut answer, MSG_DONTWAIT | MSG_TRUNC) {
                        // It has become shorter since.
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        received => received?,
                    };
                }
            }
            b'F' => {
                let (path, content) = (path(&mut rest)?, part(&mut rest)?);
                // As sysctls are written, and a record in the making.
                let append = path.ends_with("/log");
                OpenOptions::new().write(true).create(true).append(append).open(path)?.write_all(content)?;
            }
            b'M' => {
                let (from, to) = (path(&mut rest)?, path(&mut rest)?);
                fs::rename(from, to)?;
            }
            b'U' => {
                // What is not there need not go.
                let _ = fs::remove_file(path(&mut rest)?);
            }
            b'P' => {
                let index = number(&mut rest)?;
                let frame = part(&mut rest)?;
                if packets.is_none() {
                    packets = Some(PacketSocket::sender()?);
                }
                packets.as_ref().context("a socket")?.send(index, frame)?;
            }
            b'A' => {
                let index = number(&mut rest)?;
                let source: [u8; 16] = part(&mut rest)?.try_into()?;
                AdvertisementSocket::new(index, Ipv6Addr::from(source))?.send(part(&mut rest)?)?;
            }
            b'D' => {
                let mut kept: Vec<OwnedFd> = packets.take().map(PacketSocket::into_fd).into_iter().collect();
                for (_, socket) in &netlink {
                    kept.push(socket.as_fd().try_clone_to_owned()?);
                }
                process::leave(kept, |_kept| sleep(GRACE));
            }
            other => bail!("{other}: no such part of a recording"),
        }
    }
    Ok(())
}

fn number(rest: &mut &[u8]) -> Result<u32> {
    let (bytes, behind) = rest.split_first_chunk().context("a recording cut short")?;
    *rest = behind;
    Ok(u32::from_le_bytes(*bytes))
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = number(rest)? as usize;
    let (part, behind) = rest.split_at_checked(length).context("a recording cut short")?;
    *rest = behind;
    Ok(part)
}

fn path<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    Ok(std::str::from_utf8(part(rest)?)?)
}
