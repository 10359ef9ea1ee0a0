//! The header before each frame of a virtio card (struct virtio_net_hdr of linux/virtio_net.h), and what a guest can do by it.

use super::frame::checksum;

/// Its length.
pub const LENGTH: usize = 10;
/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CSUM: u8 = 1;

/// What a guest leaves to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Where the checksum begins that is to be written, and how far behind that it is to be written.
    pub csum: Option<(u16, u16)>,
    /// VIRTIO_NET_HDR_GSO_*: 0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP.
    pub gso_type: u8,
    /// Length of all headers of the frame.
    pub hdr_len: u16,
    /// Length of a segment's data.
    pub gso_size: u16,
}

impl Header {
    /// Leaves one checksum to the kernel.
    pub fn csum(start: u16, offset: u16) -> Self {
        Self { csum: Some((start, offset)), ..Self::default() }
    }

    /// As bytes, in the byte order of the machine.
    pub fn bytes(self) -> [u8; LENGTH] {
        let (start, offset) = self.csum.unwrap_or_default();
        let mut bytes = [0; LENGTH];
        bytes[..2].copy_from_slice(&[if self.csum.is_some() { NEEDS_CSUM } else { 0 }, self.gso_type]);
        let fields = [self.hdr_len, self.gso_size, start, offset];
        for (to, field) in bytes[2..].chunks_mut(2).zip(fields) {
            to.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    /// Undoes `bytes`; a header without NEEDS_CSUM leaves nothing to anybody.
    pub fn of_bytes(bytes: [u8; LENGTH]) -> Self {
        let field = |place: usize| u16::from_ne_bytes([bytes[place], bytes[place + 1]]);
        let csum = (bytes[0] & NEEDS_CSUM != 0).then(|| (field(6), field(8)));
        Self { csum, gso_type: bytes[1], hdr_len: field(2), gso_size: field(4) }
    }

    /// Where the kernel is to write.
    pub fn target(self) -> Option<usize> {
        self.csum.map(|(start, offset)| usize::from(start) + usize::from(offset))
    }
}

/// A frame and what is to be written into it behind all rules: `wanted` at `target`, by a checksum from `start` on. The two bytes
/// at `spare` make the sum the wanted one. All places and the frame's length are even.
pub fn forged(mut frame: Vec<u8>, start: usize, target: usize, spare: usize, wanted: u16) -> (Header, Vec<u8>) {
    frame[spare..spare + 2].fill(0);
    let rest = u32::from(!checksum(&frame[start..]));
    let mut word = u32::from(!wanted) + 0xffff - rest;
    word = (word & 0xffff) + (word >> 16);
    frame[spare..spare + 2].copy_from_slice(&u16::try_from(word & 0xffff).unwrap_or_default().to_be_bytes());
    let place = |place: usize| u16::try_from(place).expect("a place in a frame");
    (Header::csum(place(start), place(target - start)), frame)
}
