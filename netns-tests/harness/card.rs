//! Cards with no stack behind them: they send numbered probes, with or without a VLAN tag, and tell which ones arrive.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::frame::{Mac, arp_request};
use super::netns::Netns;
use super::port::{Capture, Port};
use super::until;

/// Ether type for experiments (IEEE Std 802, local experimental ethertype 1).
const PROBE: u16 = 0x88b5;
/// Ether type of a VLAN tag (IEEE 802.1Q).
const TAG: u16 = 0x8100;
/// What a probe carries before its number.
const WORDS: &[u8] = b"snf-network probe";
/// What a frame carries in its place that only marks the end of those before it.
const MARK: &[u8] = b"snf-network mark!";

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// The VLAN identifier of a frame's tag, if it has one.
pub type Vid = Option<u16>;

/// A TAP and what came out of it.
pub struct Card {
    /// The TAP's name.
    pub name: String,
    seen: Capture,
    port: Arc<Port>,
    /// Past any bridge, to the card.
    straight: OnceCell<Port>,
}

impl Card {
    /// Makes the TAP, down.
    pub fn plug(netns: &Netns, name: &str) -> Result<Self> {
        let port = Arc::new(Port::tap(netns, name)?);
        let seen = Capture::of(Arc::clone(&port), name, |_| None)?;
        Ok(Self { name: name.to_owned(), seen, port, straight: OnceCell::new() })
    }

    /// Sends a probe to everybody; its number.
    pub fn send(&self, vid: Vid) -> Result<u32> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.port.send(&frame(WORDS, vid, number))?;
        Ok(number)
    }

    /// Sends probes of all these kinds and other frames, thousands a second, until the value that is returned is dropped, whatever the link's state.
    pub fn pour(&self, kinds: &'static [Vid], others: &[&[u8]]) -> Pouring {
        let others: Vec<_> = others.iter().map(|frame| frame.to_vec()).collect();
        let (port, stop) = (Arc::clone(&self.port), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let probes = kinds.iter().map(|vid| frame(WORDS, *vid, NUMBER.fetch_add(1, Ordering::Relaxed)));
                for frame in probes.chain(others.iter().cloned()) {
                    // A link that is down takes none.
                    let _ = port.send(&frame);
                }
                thread::sleep(Duration::from_micros(50));
            }
        });
        Pouring { stop, thread: Some(thread) }
    }

    /// The probes that arrived so far, by number, with the tags they had: once per arrival. The link must be up. A last
    /// frame, straight out of the TAP and past any bridge, tells that all before it have been read.
    pub fn arrived(&self, netns: &Netns) -> Result<BTreeMap<u32, Vec<Vid>>> {
        let last = NUMBER.fetch_add(1, Ordering::Relaxed);
        let straight = match self.straight.get() {
            Some(open) => open,
            None => {
                // Kept: closing one waits for a grace period.
                let open = Port::packet(netns, &self.name, false)?;
                self.straight.get_or_init(|| open)
            }
        };
        straight.send(&frame(MARK, None, last))?;
        until("the last frame", || Ok(self.read(MARK).contains_key(&last)))?;
        Ok(self.so_far())
    }

    /// What has been read by now.
    pub fn so_far(&self) -> BTreeMap<u32, Vec<Vid>> {
        self.read(WORDS)
    }

    fn read(&self, words: &[u8]) -> BTreeMap<u32, Vec<Vid>> {
        let mut arrived = BTreeMap::<u32, Vec<Vid>>::new();
        for packet in self.seen.seen() {
            if let Some((number, vid)) = numbered(words, &packet.bytes) {
                arrived.entry(number).or_default().push(vid);
            }
        }
        arrived
    }

    /// All that arrived.
    pub fn capture(&self) -> &Capture {
        &self.seen
    }

    /// Puts any frame on the wire.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.port.send(frame)
    }

    /// Forgets what arrived so far.
    pub fn clear(&self) {
        self.seen.clear();
    }
}

/// Probes on their way, for as long as this lives.
pub struct Pouring {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Pouring {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it has already been printed.
            let _ = thread.join();
        }
    }
}

/// A broadcast frame of the shortest length; all cards send with one MAC, so that no bridge can have learned a way.
fn frame(words: &[u8], vid: Vid, number: u32) -> Vec<u8> {
    let tag = vid.map(|vid| [TAG.to_be_bytes(), vid.to_be_bytes()].concat()).unwrap_or_default();
    let source = Mac([0xaa, 0, 0, 0x77, 0, 1]);
    let mut frame = [&Mac::BROADCAST.0[..], &source.0, &tag, &PROBE.to_be_bytes(), words].concat();
    frame.extend(number.to_be_bytes());
    frame.resize(frame.len().max(60 + tag.len()), 0);
    frame
}

/// The number and the tag of a frame with these words.
fn numbered(words: &[u8], bytes: &[u8]) -> Option<(u32, Vid)> {
    let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (vid, body) = if word(12)? == TAG { (Some(word(14)? & 0xfff), 16) } else { (None, 12) };
    if word(body)? != PROBE {
        return None;
    }
    let number = bytes.get(body + 2..)?.strip_prefix(words)?.first_chunk()?;
    Some((u32::from_be_bytes(*number), vid))
}

/// An ARP question of somebody without address for `target` (RFC 5227, probe), which a node that has it answers.
pub fn who_has(target: std::net::Ipv4Addr) -> Vec<u8> {
    arp_request((Mac([0xaa, 0, 0, 0x77, 0, 2]), std::net::Ipv4Addr::new(203, 0, 113, 9)), target)
}
