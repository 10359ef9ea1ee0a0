//! The detached process, which nobody waits for: it repeats announcements, and closes what makes wait to be closed.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::addr::{IfName, Mac};
use crate::announce::{Announcement, INTERVAL, ROUNDS, Round};
use crate::kernel::address::{LinkLocal, link_local};
use crate::kernel::confine::{Capability, Reach, confine};
use crate::kernel::packet::{AdvertisementSocket, PacketSocket};
use crate::kernel::{Kernel, process};
use crate::log::Log;
use crate::state::{State, Variables};

/// How long after a commit the nfnetlink socket closes without waiting for a grace period (seen: 0.05 ms instead of 7 to 15).
const GRACE: Duration = Duration::from_millis(100);
/// How long a link-local address may stay tentative (seen: 1.2 s).
const TENTATIVE: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(100);

/// One announcement under way.
#[derive(Clone)]
struct Announced {
    announcement: Announcement,
    /// The number of its device, and its MAC.
    device: (u32, Mac),
    /// Whether the first round went out; else its device has no address yet to send from.
    sent: bool,
}

/// Announcements under way.
pub struct Announcer {
    announced: Vec<Announced>,
    packets: Option<PacketSocket>,
    owner: Owner,
}

/// Whose announcements they are: as soon as the record says otherwise, or the TAP is gone, they stop.
pub struct Owner {
    /// STATE_DIR.
    pub folder: PathBuf,
    /// The TAP.
    pub interface: IfName,
    /// Its number.
    pub index: u32,
    /// What is recorded of it.
    pub record: Variables,
}

impl Announcer {
    /// Sends the first round. What cannot be sent is a warning in the log: the guest works without it, only later.
    pub fn first_round(kernel: &mut Kernel, announcements: &[Announcement], owner: Owner, log: &mut Log) -> Self {
        let mut announcer = Self { announced: Vec::new(), packets: None, owner };
        for announcement in announcements {
            log.line(match announcer.add(kernel, announcement) {
                Ok(true) => format!("announced: {announcement}"),
                Ok(false) => format!("announced as soon as the device has a link-local address: {announcement}"),
                Err(error) => format!("warning: {announcement}: {error:#}"),
            });
        }
        announcer
    }

    fn add(&mut self, kernel: &mut Kernel, announcement: &Announcement) -> Result<bool> {
        let device = kernel.link(&announcement.device)?.context("there is no such device")?;
        let (Some(mac), index) = (device.mac, device.index) else { bail!("the device has no Ethernet address") };
        if !device.up {
            bail!("the device is down");
        }
        let announced = Announced { announcement: announcement.clone(), device: (index, mac), sent: false };
        let sent = self.send(kernel, &announced)?;
        self.announced.push(Announced { sent, ..announced });
        Ok(sent)
    }

    /// Sends one round; false if the device has no address yet to send from.
    fn send(&mut self, kernel: &mut Kernel, announced: &Announced) -> Result<bool> {
        let (index, mac) = announced.device;
        match announced.announcement.round(mac)? {
            Round::Arp(frames) => {
                if self.packets.is_none() {
                    self.packets = Some(PacketSocket::sender()?);
                }
                for (socket, frame) in self.packets.iter().flat_map(|it| frames.iter().map(move |frame| (it, frame))) {
                    socket.send(index, frame)?;
                }
            }
            Round::NeighbourAdvertisement(message) => {
                let LinkLocal::Usable(address) = link_local(&mut kernel.netlink, index)? else { return Ok(false) };
                AdvertisementSocket::new(index, address)?.send(&message)?;
            }
        }
        Ok(true)
    }

    /// The other rounds.
    fn repeat(&mut self) {
        self.wait_for_addresses();
        for _ in 1..ROUNDS {
            sleep(INTERVAL);
            let Some(mut kernel) = self.owner.still_owns() else { return };
            for announced in self.announced.clone() {
                // Nobody is left to be told; the next round may fare better.
                let _best_effort = self.send(&mut kernel, &announced);
            }
        }
    }

    /// Sends the first round of what had no address to be sent from, as soon as it has.
    fn wait_for_addresses(&mut self) {
        let until = Instant::now() + TENTATIVE;
        let mut waiting: Vec<_> = self.announced.iter().filter(|it| !it.sent).cloned().collect();
        while !waiting.is_empty()
            && Instant::now() < until
            && let Some(mut kernel) = self.owner.still_owns()
        {
            sleep(LOOK);
            waiting.retain(|announced| !self.send(&mut kernel, announced).unwrap_or(true));
        }
    }
}

/// Leaves this process with what its repeats need: what is recorded, and sockets.
fn confined(announcer: Option<&Announcer>) {
    let state_dir = announcer.map(|it| it.owner.folder.as_path());
    // An advertisement has a socket of its own each time; the packet socket is open.
    let advertises = |it: &&Announcer| it.announced.iter().any(|it| it.announcement.address.is_ipv6());
    let kept: &[_] = if announcer.filter(advertises).is_some() { &[Capability::NetRaw] } else { &[] };
    // Nobody is left to be told, and nothing here depends on it.
    let _best_effort = confine(kept, &Reach { reads: Some(state_dir.as_slice()), writes: &[], connects: false });
}

impl Owner {
    /// The kernel to send by, if the TAP is still theirs.
    fn still_owns(&self) -> Option<Kernel> {
        State::peek(&self.folder, &self.interface).ok().filter(|it| it.last() == Some(&self.record))?;
        let mut kernel = Kernel::open().ok()?;
        let there = kernel.link(&self.interface).ok()??.index == self.index;
        there.then_some(kernel)
    }
}

/// Leaves to a process of its own to repeat the announcements, and to close `lingering` when that makes nobody wait.
pub fn leave(lingering: Option<OwnedFd>, announcer: Option<Announcer>) {
    let mut announcer = announcer.filter(|it| !it.announced.is_empty());
    if lingering.is_none() && announcer.is_none() {
        return;
    }
    let packets = announcer.as_mut().and_then(|it| it.packets.take()).map(PacketSocket::into_fd);
    let has_packets = packets.is_some();
    let kept = packets.into_iter().chain(lingering).collect();
    process::leave(kept, move |kept| {
        // If there can be no such process, the sockets are closed by now: late, but nothing is lost but the repeats.
        let Ok(kept) = kept else { return };
        let mut kept = kept.into_iter();
        confined(announcer.as_ref());
        if let Some(announcer) = &mut announcer {
            announcer.packets = if has_packets { kept.next().map(PacketSocket::from) } else { None };
        }
        sleep(GRACE);
        drop(kept);
        if let Some(mut announcer) = announcer {
            announcer.repeat();
        }
    });
}
