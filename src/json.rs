//! JSON (RFC 8259), written only: what other programs read of us.

use std::fmt::{self, Write};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// A number that has no sign.
    Number(u64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object; its names are ours and need no escape.
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// A string, or null.
    pub fn text(text: Option<impl ToString>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.to_string()))
    }

    /// A number, or null.
    pub fn number(number: Option<impl Into<u64>>) -> Self {
        number.map_or(Self::Null, |number| Self::Number(number.into()))
    }

    /// An array of strings.
    pub fn texts(texts: impl IntoIterator<Item = impl ToString>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::Text(text.to_string())).collect())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => string(f, text),
            Self::List(values) => {
                f.write_char('[')?;
                for (place, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if place == 0 { "" } else { "," })?;
                }
                f.write_char(']')
            }
            Self::Object(members) => {
                f.write_char('{')?;
                for (place, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}\"{name}\":{value}", if place == 0 { "" } else { "," })?;
                }
                f.write_char('}')
            }
        }
    }
}

/// Quotation marks, backslashes and control characters must be escaped (section 7).
fn string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_reads_the_same() {
        let hostile: String = (0_u8..=0x7f).map(char::from).chain("ä\u{2028}😀\"\\".chars()).collect();
        let json = Json::Object(vec![
            ("text", Json::Text(hostile.clone())),
            ("list", Json::List(vec![Json::Null, Json::Number(u64::MAX), Json::List(Vec::new())])),
            ("empty", Json::Object(Vec::new())),
        ]);
        let read: serde_json::Value = serde_json::from_str(&json.to_string()).expect("JSON");
        assert_eq!(read, serde_json::json!({"text": hostile, "list": [null, u64::MAX, []], "empty": {}}));
    }
}
