//! What the kernel answers when it refuses: the error both netlink families share.

use std::fmt;
use std::io;

/// NLMSGERR_ATTR_MSG of linux/netlink.h: the extended acknowledgement's text.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Length of struct nlmsghdr.
const HEADER: usize = 16;

/// What the kernel refused: operation, errno, and the kernel's own text (extended acknowledgement) where it gave one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The message, by its name in the kernel's headers, such as `RTM_NEWRULE`.
    pub operation: &'static str,
    /// Positive, as in errno.h.
    pub errno: i32,
    /// The kernel's own words.
    pub text: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        if let Some(text) = &self.text {
            write!(f, "{text}: ")?;
        }
        io::Error::from_raw_os_error(self.errno).fmt(f)
    }
}

impl std::error::Error for Error {}

/// The kernel's text in the payload of an NLMSG_ERROR (struct nlmsgerr and what follows). It stands behind the message
/// that failed, of which `capped` (NLM_F_CAPPED) says that only the header was sent back.
pub fn extended_text(payload: &[u8], capped: bool) -> Option<String> {
    let original = match capped {
        true => HEADER,
        false => usize::try_from(u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?)).ok()?,
    };
    let mut attributes = payload.get(4_usize.checked_add(original)?.checked_next_multiple_of(4)?..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..length)?;
        if kind == NLMSGERR_ATTR_MSG {
            let text = String::from_utf8_lossy(value);
            return Some(text.trim_end_matches('\0').to_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_text_and_errno() {
        let mut error = Error { operation: "RTM_NEWRULE", errno: 17, text: None };
        assert_eq!(error.to_string(), "RTM_NEWRULE: File exists (os error 17)");
        error.text = Some("FIB rule exists".to_owned());
        assert_eq!(error.to_string(), "RTM_NEWRULE: FIB rule exists: File exists (os error 17)");
    }

    #[test]
    fn the_text_stands_behind_the_message_that_failed() {
        let mut payload = (-22_i32).to_ne_bytes().to_vec();
        payload.extend(20_u32.to_ne_bytes());
        payload.extend([0; 16]);
        payload.extend([8_u16.to_ne_bytes(), 2_u16.to_ne_bytes()].concat());
        payload.extend([0; 4]);
        payload.extend([7_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat());
        payload.extend(*b"no\0\0");
        assert_eq!(extended_text(&payload, false).as_deref(), Some("no"));
        for length in 0..payload.len() - 1 {
            assert_eq!(extended_text(&payload[..length], false), None, "{length} bytes");
        }
        payload.drain(20..24);
        assert_eq!(extended_text(&payload, true).as_deref(), Some("no"));
    }
}
