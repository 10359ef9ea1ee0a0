//! The floor under the latency of a NIC: sends what a recording holds, receives what is answered to questions, and exits. No thinking.
//!
//! `floor FILE`, or `floor FILE changes` to leave the questions out; the form of the file is that of benches/nic/recording.rs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::mem::MaybeUninit;
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
/// As large as the program's own buffer of answers.
const ANSWER: usize = 65536;
/// AF_NETLINK of linux/socket.h.
const NETLINK: i32 = 16;

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
    let mut netlink: [Option<Socket>; 2] = [None, None];
    let mut packets = None;
    let mut answer = [MaybeUninit::<u8>::uninit(); ANSWER];
    while let Some((kind, behind)) = rest.split_first() {
        rest = behind;
        match kind {
            b'R' | b'N' | b'r' | b'n' => {
                let message = part(&mut rest)?;
                let answers = if kind.is_ascii_lowercase() { number(&mut rest)? } else { 0 };
                if answers > 0 && !asks {
                    continue;
                }
                let (place, protocol) = if kind.eq_ignore_ascii_case(&b'R') { (0, 0) } else { (1, 12) };
                if netlink[place].is_none() {
                    netlink[place] =
                        Some(Socket::new(Domain::from(NETLINK), Type::DGRAM, Some(Protocol::from(protocol)))?);
                }
                let socket = netlink[place].as_ref().context("a socket")?;
                socket.send(message)?;
                for _ in 0..answers {
                    socket.recv(&mut answer)?;
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
