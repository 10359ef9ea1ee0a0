//! How text that others chose (tags, names, settings) is shown: on one line, escaped, and shortened.

use std::fmt;

/// Characters of a quoted value that are shown before it is cut off.
const SHOWN: usize = 64;

/// Shows `text` between double quotes, with what is not printable escaped, shortened to its first 64 characters.
pub fn quoted(text: &str) -> Quoted<'_> {
    Quoted(text)
}

/// Displays as [`quoted`] describes.
pub struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(out, "{:?}... ({} bytes)", &self.0[..end], self.0.len()),
            None => write!(out, "{:?}", self.0),
        }
    }
}

/// Whether `text` is printable ASCII throughout: what nearly all text is, seen at a byte's cost.
pub fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether `text` can be shown as it is: no control characters, no line or paragraph separators, and none of the
/// invisible characters that change how the rest of a line looks (Unicode's Cc, Cf, Zl, Zp, Co, Cn).
pub fn is_printable(text: &str) -> bool {
    // escape_debug leaves exactly these alone, but for the quotes and the backslash, to which it adds one character.
    let quotes = text.bytes().filter(|b| matches!(b, b'"' | b'\'' | b'\\')).count();
    text.escape_debug().count() == text.chars().count() + quotes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_one_printable_line() {
        assert_eq!(quoted("a\n\"\u{202e}\u{1b}[31m").to_string(), r#""a\n\"\u{202e}\u{1b}[31m""#);
        assert_eq!(quoted(&"ä".repeat(65)).to_string(), format!("\"{}\"... (130 bytes)", "ä".repeat(64)));
        assert_eq!(quoted(&"ä".repeat(64)).to_string(), format!("\"{}\"", "ä".repeat(64)));
    }

    #[test]
    fn plain_text_is_printable() {
        assert!((' '..='~').all(|c| is_plain(&c.to_string()) && is_printable(&c.to_string())) && is_plain(""));
        assert!(!["a\n", "\0", "\u{7f}", "ä"].into_iter().any(is_plain));
    }

    #[test]
    fn printable_text_has_nothing_invisible() {
        for good in ["", "a b", "näme", "it's \"so\" \\", "日本", "*/$(x)"] {
            assert!(is_printable(good), "{good}");
        }
        for bad in ["a\n", "\t", "\0", "a\u{7f}", "\u{85}", "\u{2028}", "\u{202e}x", "\u{feff}", "\u{e000}"] {
            assert!(!is_printable(bad), "{bad:?}");
        }
    }
}
