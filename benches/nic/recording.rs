//! What a run of the program sends to the kernel, recorded under strace, for the floor to send again.

use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;

use super::runs::Contestant;

/// A run as strace saw it.
pub struct Recording {
    /// System calls of the process that the caller waits for.
    pub system_calls: usize,
    /// Sends on netlink sockets, each of which the kernel answers.
    pub round_trips: usize,
    /// Where the floor's file is.
    pub file: PathBuf,
}

/// strace, which writes `trace`, for the program to run under: every byte that is sent or written in hexadecimal, the detached
/// process left out.
pub fn strace(trace: &Path) -> Vec<String> {
    ["strace", "-qq", "-e", "write=all", "-o"]
        .map(str::to_owned)
        .into_iter()
        .chain([trace.display().to_string()])
        .collect()
}

/// Runs the contestant under strace, and writes what it sent and wrote into a file of this name.
///
/// # Errors
/// If strace is not there, the run fails, or its trace cannot be understood.
pub fn record(contestant: &Contestant<'_>, folder: &Path, name: &str) -> Result<Recording> {
    let trace = folder.join(format!("{name}.strace"));
    contestant.run_under(&strace(&trace))?;
    let text = fs::read_to_string(&trace)?;
    let mut recording = Recorder::default();
    contestant.within(|| {
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let mut bytes = Vec::new();
            while let Some(dump) = lines.next_if(|it| it.starts_with(" | ")) {
                bytes.extend(dumped(dump)?);
            }
            recording.call(line, &bytes).with_context(|| line.chars().take(200).collect::<String>())?;
        }
        Ok(())
    })?;
    let file = folder.join(format!("{name}.floor"));
    fs::write(&file, &recording.out)?;
    Ok(Recording { system_calls: recording.calls, round_trips: recording.round_trips, file })
}

/// The bytes of a line ` | 00010  34 00 00 00 ...  4... |`: sixteen at most, in columns of fixed width.
fn dumped(line: &str) -> Result<Vec<u8>> {
    let columns = line.get(10..58).context("a line of a dump")?;
    columns.split_ascii_whitespace().map(|it| Ok(u8::from_str_radix(it, 16)?)).collect()
}

/// Its number in linux/netlink.h.
const NETLINK_NETFILTER: u32 = 12;

/// What a descriptor is.
#[derive(Clone, Debug)]
enum Open {
    /// A netlink socket, and whether it is NETLINK_ROUTE.
    Netlink(bool),
    Packet,
    Icmp6 {
        index: u32,
        source: Ipv6Addr,
    },
    File(String),
    Folder(String),
}

#[derive(Default)]
struct Recorder {
    calls: usize,
    round_trips: usize,
    open: Vec<(u32, Open)>,
    /// Netlink sockets that were sent to, and where in `out` the answers to the last datagram are counted.
    sent: Vec<(u32, usize)>,
    out: Vec<u8>,
}

impl Recorder {
    fn call(&mut self, line: &str, bytes: &[u8]) -> Result<()> {
        let Some((name, rest)) = line.split_once('(') else { return Ok(()) };
        self.calls += 1;
        let result = rest.rsplit_once(" = ").map_or("", |it| it.1).split(' ').next().unwrap_or_default();
        let number: u32 = rest.split([',', ')']).next().unwrap_or_default().parse().unwrap_or(u32::MAX);
        match name {
            "socket" => {
                let Ok(number) = result.parse() else { return Ok(()) };
                let kind = match rest {
                    _ if rest.contains("NETLINK_ROUTE") => Open::Netlink(true),
                    _ if rest.contains("NETLINK_NETFILTER") => Open::Netlink(false),
                    _ if rest.starts_with("AF_PACKET") => Open::Packet,
                    _ if rest.contains("IPPROTO_ICMPV6") => Open::Icmp6 { index: 0, source: Ipv6Addr::UNSPECIFIED },
                    other => bail!("{other}: an unknown socket"),
                };
                if let Open::Netlink(route) = kind {
                    self.out.push(b'S');
                    self.number(number);
                    self.number(if route { 0 } else { NETLINK_NETFILTER });
                }
                self.open.push((number, kind));
            }
            "open" | "openat" if rest.contains("O_WRONLY") => {
                if let (Ok(number), Some(path)) = (result.parse(), quoted(rest, 0)) {
                    self.open.push((number, Open::File(path.to_owned())));
                }
            }
            "open" | "openat" if rest.contains("O_DIRECTORY") => {
                if let (Ok(number), Some(path)) = (result.parse(), quoted(rest, 0)) {
                    self.open.push((number, Open::Folder(path.to_owned())));
                }
            }
            "openat2" if rest.contains("O_WRONLY") => {
                if let (Ok(opened), Some(path)) = (result.parse(), self.within(number, rest, 0)) {
                    self.open.push((opened, Open::File(path)));
                }
            }
            "bind" => {
                if let Some((_, Open::Icmp6 { index, source })) = self.open.iter_mut().find(|it| it.0 == number) {
                    *source = quoted(rest, 0).context("an address")?.parse()?;
                    *index = index_in(rest).context("a scope")?;
                }
            }
            "close" => {
                if self.open.iter().any(|it| it.0 == number && matches!(it.1, Open::Netlink(_))) {
                    self.out.push(b'C');
                    self.number(number);
                }
                self.open.retain(|it| it.0 != number);
                self.sent.retain(|it| it.0 != number);
            }
            "write" | "sendto" => {
                let Some(open) = self.open.iter().find(|it| it.0 == number).map(|it| it.1.clone()) else {
                    return Ok(());
                };
                match open {
                    Open::Netlink(route) => self.netlink(number, route, bytes),
                    Open::Packet => {
                        self.out.push(b'P');
                        self.number(index_in(rest).context("a device")?);
                        self.part(bytes);
                    }
                    Open::Icmp6 { index, source } => {
                        self.out.push(b'A');
                        self.number(index);
                        self.part(&source.octets());
                        self.part(bytes);
                    }
                    Open::File(path) => self.named(b'F', &[path.as_bytes(), bytes]),
                    Open::Folder(_) => {}
                }
            }
            "recvfrom" if !result.starts_with('-') => {
                if let Some((_, place)) = self.sent.iter().find(|it| it.0 == number) {
                    // The buffer's length stands before the flags and the sender's address, which nobody asks for.
                    let length = rest.rsplit(", ").nth(3).context("a length")?.parse()?;
                    let [answers, longest] = [0, 4].map(|offset| *place + offset..*place + offset + 4);
                    let answers = self.out.get_mut(answers).context("a count")?;
                    let count = u32::from_le_bytes((&*answers).try_into()?) + 1;
                    answers.copy_from_slice(&count.to_le_bytes());
                    let longest = self.out.get_mut(longest).context("a length")?;
                    longest.copy_from_slice(&u32::to_le_bytes(length));
                }
            }
            "renameat" => {
                let path = |n| self.within(number, rest, n).context("a path in a folder");
                let (from, to) = (path(0)?, path(1)?);
                self.named(b'M', &[from.as_bytes(), to.as_bytes()]);
            }
            "unlinkat" if result == "0" => {
                let path = self.within(number, rest, 0).context("a path in a folder")?;
                self.named(b'U', &[path.as_bytes()]);
            }
            "fork" | "clone" | "clone3" | "vfork" => self.out.push(b'D'),
            _ => {}
        }
        Ok(())
    }

    /// The path that a call has as its n-th text, in the folder that is its first argument.
    fn within(&self, folder: u32, rest: &str, n: usize) -> Option<String> {
        let name = quoted(rest, n)?;
        let found = self.open.iter().find(|it| it.0 == folder)?;
        if let Open::Folder(path) = &found.1 { Some(format!("{path}/{name}")) } else { None }
    }

    /// A datagram: a question, or one that changes something. Behind it how many were received then, and how long the buffer was.
    fn netlink(&mut self, socket: u32, route: bool, bytes: &[u8]) {
        self.round_trips += 1;
        self.out.push(if is_question(route, bytes) { b'Q' } else { b'N' });
        self.number(socket);
        self.part(bytes);
        self.sent.retain(|it| it.0 != socket);
        self.sent.push((socket, self.out.len()));
        self.number(0);
        self.number(0);
    }

    fn number(&mut self, number: u32) {
        self.out.extend(number.to_le_bytes());
    }

    fn named(&mut self, kind: u8, parts: &[&[u8]]) {
        self.out.push(kind);
        parts.iter().for_each(|part| self.part(part));
    }

    fn part(&mut self, bytes: &[u8]) {
        self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.out.extend(bytes);
    }
}

/// The text between the quotation marks number 2n and 2n+1.
fn quoted(text: &str, n: usize) -> Option<&str> {
    text.split('"').nth(2 * n + 1)
}

/// The number in `sll_ifindex=if_nametoindex("eth1")` and in `sin6_scope_id=if_nametoindex("eth1")`.
fn index_in(text: &str) -> Option<u32> {
    let name = text.split_once("if_nametoindex(\"")?.1.split('"').next()?;
    if_nametoindex(name).ok()
}

/// Whether a datagram only asks: its first message is an RTM_GET* (linux/rtnetlink.h) or NFT_MSG_GET* (linux/netfilter/nf_tables.h).
fn is_question(route: bool, bytes: &[u8]) -> bool {
    let Some(kind) = bytes.get(4..6) else { return false };
    let kind = u16::from_le_bytes([kind[0], kind[1]]);
    if route { kind % 4 == 2 } else { kind >> 8 == 10 && (kind & 0xff) % 3 == 1 }
}
