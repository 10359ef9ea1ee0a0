//! The floor under the latency of a NIC: sends what a recording holds, and exits. No question, no thinking.
//!
//! `floor FILE`; the form of the file is that of benches/nic/recording.rs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use snf_network::kernel::packet::{AdvertisementSocket, PacketSocket};
use snf_network::kernel::process;

/// As long as the program's own detached process holds its sockets.
const GRACE: Duration = Duration::from_millis(100);
/// AF_NETLINK of linux/socket.h.
const NETLINK: i32 = 16;

fn main() -> Result<()> {
    replay()?;
    process::end(0)
}

fn replay() -> Result<()> {
    let file = std::env::args().nth(1).context("expected a recording")?;
    let recording = fs::read(file)?;
    let mut rest = recording.as_slice();
    let mut netlink: [Option<Socket>; 2] = [None, None];
    let mut packets = None;
    while let Some((kind, behind)) = rest.split_first() {
        rest = behind;
        match kind {
            b'R' | b'N' => {
                let (place, protocol) = if *kind == b'R' { (0, 0) } else { (1, 12) };
                if netlink[place].is_none() {
                    netlink[place] =
                        Some(Socket::new(Domain::from(NETLINK), Type::DGRAM, Some(Protocol::from(protocol)))?);
                }
                let message = part(&mut rest)?;
                netlink[place].as_ref().context("a socket")?.send(message)?;
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
                let [_, netfilter] = std::mem::take(&mut netlink);
                let kept: Vec<OwnedFd> =
                    packets.take().map(PacketSocket::into_fd).into_iter().chain(netfilter.map(Into::into)).collect();
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
