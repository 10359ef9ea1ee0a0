//! Attributes of netlink (struct nlattr of linux/netlink.h) as bytes: all of nf_tables and of links, and what else
//! netlink-packet-route does not know.

/// struct nlattr with its value, padded to four bytes.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Type (without its flags) and value of each attribute, up to the first that is cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // Not NLA_F_NESTED, not NLA_F_NET_BYTEORDER.
        Some((kind & 0x3fff, value))
    })
}

/// Whether none of them is cut short.
pub fn are_whole(bytes: &[u8]) -> bool {
    attributes(bytes).map(|(_, value)| (4 + value.len()).next_multiple_of(4)).sum::<usize>() >= bytes.len()
}

/// A number in the byte order of the machine, from the first four bytes.
pub fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Text up to its final NUL.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}
