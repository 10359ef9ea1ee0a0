//! KEYFILE: a TSIG key, in the two forms that `nsupdate -k` takes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use domain::tsig::{self, Algorithm, KeyName};
use domain::utils::base64;

use crate::printable::quoted;
use crate::sys::files;

/// Longest key file in bytes.
const MAX_FILE: u64 = 64 * 1024;
const FORMS: &str = "expected key \"NAME\" { algorithm hmac-sha256; secret \"BASE64\"; }; or a pair of files \
                     K*.key and K*.private";
const ALGORITHMS: &str = "expected hmac-sha1, hmac-sha256, hmac-sha384 or hmac-sha512; this makes a new key: \
                          tsig-keygen -a hmac-sha256 NAME";

/// A key that signs (RFC 8945). Its secret is never shown.
#[derive(Debug)]
pub struct Key(pub(super) tsig::Key);

impl Key {
    /// Reads a key file: one `key` clause of named.conf, or either file (or what their names begin with) of a pair
    /// `K*.key` and `K*.private`.
    ///
    /// # Errors
    /// If a file is missing, unreadable or malformed, or the algorithm is none that is signed with here: the file and
    /// what was expected.
    pub fn read(file: &Path) -> Result<Self> {
        let (record, private) = (sibling(file, b".key"), sibling(file, b".private"));
        let shown = |path: &Path| format!("key file {:?}", path.to_string_lossy());
        if file.exists() || !private.exists() {
            let text = read(file).with_context(|| shown(file))?;
            if text.contains('{') {
                return Self::parse_clause(&text).with_context(|| shown(file));
            }
        }
        let part = |path: &Path| read(path).with_context(|| FORMS).with_context(|| shown(path));
        Self::parse_pair(&part(&record)?, &part(&private)?).with_context(|| shown(file))
    }

    /// Who but root and us can read the secret, or replace it; none if nobody can.
    pub(super) fn exposed(file: &Path) -> Option<String> {
        let files = [file.to_owned(), sibling(file, b".key"), sibling(file, b".private")];
        let mut found = files.iter().filter_map(|file| {
            let why = files::exposed(file)?;
            Some(format!("key file {:?}: {why}", file.to_string_lossy()))
        });
        found.next()
    }

    /// One clause `key NAME { algorithm A; secret S; };` with named.conf's comments.
    pub(super) fn parse_clause(text: &str) -> Result<Self> {
        let tokens = tokens(text).context(FORMS)?;
        let [
            Token::Word(key),
            Token::Word(name),
            Token::Mark('{'),
            statements @ ..,
            Token::Mark('}'),
            Token::Mark(';'),
        ] = tokens.as_slice()
        else {
            return Err(anyhow::Error::msg(FORMS));
        };
        ensure!(key == "key", FORMS);
        let (mut algorithm, mut secret) = (None, None);
        let (statements, rest) = statements.as_chunks::<3>();
        ensure!(rest.is_empty(), FORMS);
        for statement in statements {
            let [Token::Word(word), Token::Word(value), Token::Mark(';')] = statement else {
                return Err(anyhow::Error::msg(FORMS));
            };
            let place = match word.as_str() {
                "algorithm" => &mut algorithm,
                "secret" => &mut secret,
                _ => return Err(anyhow::Error::msg(FORMS)),
            };
            ensure!(place.replace(value).is_none(), "{word} stands there twice: {FORMS}");
        }
        let (algorithm, bits) = parse_algorithm(algorithm.context(FORMS)?)?;
        Self::new(name, algorithm, bits, &decode(secret.context(FORMS)?)?)
    }

    /// The KEY record of `K*.key` and the fields of `K*.private`, as dnssec-keygen wrote them before BIND 9.13.
    pub(super) fn parse_pair(record: &str, private: &str) -> Result<Self> {
        let words = record.lines().flat_map(|line| {
            let line = line.split(';').next().unwrap_or_default();
            line.split_ascii_whitespace()
        });
        let words: Vec<_> = words.collect();
        let at = words.iter().position(|word| *word == "KEY").filter(|at| *at > 0);
        let at = at.with_context(|| format!(".key: no KEY record, {FORMS}"))?;
        let [name, .., number] = &words[..at.saturating_add(4).min(words.len())] else {
            return Err(anyhow::Error::msg(format!(".key: {FORMS}")));
        };
        let public = words.get(at + 4..).unwrap_or_default().concat();

        let field = |name| {
            let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned());
            private.lines().find_map(value)
        };
        let needed = |name| field(name).with_context(|| format!(".private: no field {name}, {FORMS}"));
        ensure!(needed("Private-key-format")?.starts_with("v1."), ".private: {FORMS}");
        let algorithm = needed("Algorithm")?;
        let algorithm = algorithm.split_ascii_whitespace().next().unwrap_or_default();
        // What is no number may be a piece of the secret.
        let shown = |it: &str| if it.parse::<u8>().is_ok() { it.to_owned() } else { "none".to_owned() };
        let (theirs, ours) = (shown(number), shown(algorithm));
        ensure!(algorithm == *number, ".key has algorithm {theirs} and .private {ours}, expected one pair");
        let algorithm = match algorithm {
            "161" => Algorithm::Sha1,
            "163" => Algorithm::Sha256,
            "164" => Algorithm::Sha384,
            "165" => Algorithm::Sha512,
            "157" => return Err(unsupported("157 (hmac-md5)")),
            "162" => return Err(unsupported("162 (hmac-sha224)")),
            other => return Err(unsupported(other)),
        };
        let secret = decode(&needed("Key")?)?;
        ensure!(decode(&public)? == secret, ".key and .private hold different secrets, expected one pair");
        let bits = match field("Bits") {
            None => 0,
            Some(bits) => match *decode(&bits).context(".private: Bits")? {
                [high, low] => u16::from_be_bytes([high, low]),
                _ => return Err(anyhow::Error::msg(format!(".private: Bits: {FORMS}"))),
            },
        };
        Self::new(name, algorithm, bits, &secret)
    }

    /// `bits` is how much of a signature is sent and expected (RFC 8945, 5.2.2.1); 0 means all.
    fn new(name: &str, algorithm: Algorithm, bits: u16, secret: &[u8]) -> Result<Self> {
        let name: KeyName =
            name.parse().ok().with_context(|| format!("key name {}: expected a domain name", quoted(name)))?;
        ensure!(bits.is_multiple_of(8), "signatures of {bits} bits: expected whole bytes");
        let length = (bits != 0).then_some(usize::from(bits / 8));
        let key = tsig::Key::new(algorithm, secret, name, length, length);
        key.map(Self)
            .ok()
            .with_context(|| format!("signatures of {bits} bits: expected 80 or more, at least half of all"))
    }
}

/// The file beside `file` that ends in `extension` instead of `.key`, `.private` or nothing. The rest of a name has
/// dots of its own.
fn sibling(file: &Path, extension: &[u8]) -> PathBuf {
    let name = file.as_os_str().as_bytes();
    let stem = [b".key".as_slice(), b".private"].iter().find_map(|end| name.strip_suffix(*end)).unwrap_or(name);
    OsStr::from_bytes(&[stem, extension].concat()).into()
}

fn read(file: &Path) -> Result<String> {
    let bytes = files::read_needed(file, MAX_FILE)?;
    String::from_utf8(bytes).context("expected UTF-8")
}

/// The algorithm, and the bits of a signature behind it (`hmac-sha256-128`), 0 if there are none.
fn parse_algorithm(text: &str) -> Result<(Algorithm, u16)> {
    let lower = text.to_ascii_lowercase();
    let (name, bits) = match lower.match_indices('-').nth(1) {
        Some((at, _)) if lower[at + 1..].bytes().all(|b| b.is_ascii_digit()) => {
            (&lower[..at], lower[at + 1..].parse().ok())
        }
        _ => (lower.as_str(), Some(0)),
    };
    match (name.parse(), bits) {
        (Ok(algorithm), Some(bits)) => Ok((algorithm, bits)),
        _ => Err(unsupported(text)),
    }
}

fn unsupported(algorithm: &str) -> anyhow::Error {
    // The secret in its place is not to be seen.
    let named = algorithm.to_ascii_lowercase().contains("hmac-") || algorithm.bytes().all(|it| it.is_ascii_digit());
    let shown = if named { format!(" {}", quoted(algorithm)) } else { String::new() };
    anyhow::Error::msg(format!("algorithm{shown}: {ALGORITHMS}"))
}

/// The secret; no error shows it.
fn decode(text: &str) -> Result<Vec<u8>> {
    let secret: Option<Vec<u8>> = base64::decode(text).ok();
    secret.filter(|secret| !secret.is_empty()).context("secret: expected base64")
}

/// A piece of named.conf.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// One of `{`, `}` and `;`.
    Mark(char),
}

/// The words and marks of a text, without the comments (`#`, `//`, `/* */`). `None` if a quote or comment has no end.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '#' || rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (word, after) = quoted.split_once('"')?;
            tokens.push(Token::Word(word.to_owned()));
            rest = after;
        } else if matches!(first, '{' | '}' | ';') {
            tokens.push(Token::Mark(first));
            rest = &rest[1..];
        } else {
            let ends = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"' | '#');
            let end = rest.find(ends).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQ=";

    fn clause(text: &str) -> Result<String> {
        let Key(key) = Key::parse_clause(text)?;
        Ok(format!("{} {} {}", key.name(), key.algorithm(), key.signing_len()))
    }

    #[test]
    fn a_clause_of_named_conf_is_a_key() {
        for (text, expected) in [
            (
                format!("key \"ddns\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{SECRET}\";\n}};\n"),
                "ddns hmac-sha256 32",
            ),
            (
                format!("key ddns.example. {{secret {SECRET};algorithm \"HMAC-SHA512\";}};"),
                "ddns.example hmac-sha512 64",
            ),
            (
                format!("# a\n// b {{\n/* c\n}} */ key k {{ algorithm hmac-sha1-80; # d\n secret \"{SECRET}\"; }};"),
                "k hmac-sha1 10",
            ),
            (format!("key k {{ algorithm hmac-sha384; secret \"{SECRET}\"; }} ;"), "k hmac-sha384 48"),
        ] {
            assert_eq!(clause(&text).unwrap_or_else(|e| panic!("{text}: {e:#}")), expected);
        }
    }

    #[test]
    fn anything_else_is_an_error_that_keeps_the_secret() {
        let good = format!("key k {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};");
        for (text, named) in [
            (String::new(), FORMS),
            (good.replace("};", "}"), FORMS),
            (good.replace("key k", "key"), FORMS),
            (good.replace("key k", "zone k"), FORMS),
            (format!("{good}{good}"), FORMS),
            (good.replace("algorithm hmac-sha256;", ""), FORMS),
            (
                good.replace("algorithm hmac-sha256;", "algorithm hmac-sha256; algorithm hmac-sha1;"),
                "algorithm stands there twice",
            ),
            (good.replace("secret", "sekret"), FORMS),
            (good.replace("; }", "  }"), FORMS),
            (good.replace("\"; }", "; }"), FORMS),
            (good.replace("hmac-sha256", "hmac-md5"), "algorithm \"hmac-md5\": expected hmac-sha1, "),
            (good.replace("hmac-sha256", "hmac-md5.sig-alg.reg.int"), "tsig-keygen -a hmac-sha256 NAME"),
            (good.replace("hmac-sha256", "hmac-sha224"), "algorithm \"hmac-sha224\": expected hmac-sha1, "),
            (good.replace("hmac-sha256", SECRET), "algorithm: expected hmac-sha1, "),
            (good.replace("hmac-sha256", "hmac-sha256-129"), "signatures of 129 bits: expected whole bytes"),
            (good.replace("hmac-sha256", "hmac-sha256-120"), "signatures of 120 bits: expected 80 or more"),
            (good.replace("hmac-sha256", "hmac-sha256-99999"), "algorithm \"hmac-sha256-99999\""),
            (good.replace("key k", "key a..b"), "key name \"a..b\": expected a domain name"),
            (good.replace("c2V", "c 2V"), "secret: expected base64"),
            (good.replace(SECRET, ""), "secret: expected base64"),
        ] {
            let error = format!("{:#}", Key::parse_clause(&text).expect_err(&text));
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains("c2V") && !error.contains("ecret secret"), "{error}");
        }
    }

    #[test]
    fn a_pair_of_files_is_a_key() {
        let record = format!("; a comment\nddns.example. IN KEY 512 3 163 {}\n", &SECRET);
        let private = format!("Private-key-format: v1.3\nAlgorithm: 163 (HMAC_SHA256)\nKey: {SECRET}\nBits: AAA=\n");
        let pair = |record: &str, private: &str| {
            let Key(key) = Key::parse_pair(record, private)?;
            Ok(format!("{} {} {}", key.name(), key.algorithm(), key.signing_len()))
        };
        assert_eq!(pair(&record, &private).expect("a pair"), "ddns.example hmac-sha256 32");
        let split = record.replace("c2VjcmV0", "c2Vj cmV0").replace("IN", "3600 IN");
        let truncated = private.replace("AAA=", "AIA=");
        assert_eq!(pair(&split, &truncated).expect("a pair"), "ddns.example hmac-sha256 16");
        for number in ["161", "164", "165"] {
            assert!(pair(&record.replace("163", number), &private.replace("163", number)).is_ok(), "{number}");
        }
        let error = |result: Result<String>| format!("{:#}", result.expect_err("no pair"));
        for number in ["157", "162", "8"] {
            let text = error(pair(&record.replace("163", number), &private.replace("163", number)));
            assert!(text.starts_with(&format!("algorithm \"{number}")) && text.contains("tsig-keygen"), "{text}");
        }
        assert!(error(pair(&record.replace("163", "165"), &private)).contains("expected one pair"));
        assert!(error(pair(&record.replace("c2V", "c3V"), &private)).contains("different secrets"));
        assert!(error(pair("", &private)).contains(".key: no KEY record"));
        assert!(error(pair("x KEY", &private)).contains("expected one pair"));
        assert!(error(pair(&record, "")).contains(".private: no field Private-key-format"));
        assert!(error(pair(&record, &private.replace("Key:", "Kye:"))).contains(".private: no field Key"));
    }

    #[test]
    fn the_files_of_a_pair_are_found_from_either_and_from_their_common_start() {
        for file in
            ["/k/Kddns.example.+163+00001", "/k/Kddns.example.+163+00001.key", "/k/Kddns.example.+163+00001.private"]
        {
            assert_eq!(sibling(Path::new(file), b".key"), Path::new("/k/Kddns.example.+163+00001.key"));
        }
    }
}
