//! The shell's syntax of assignments, as far as files in /etc/default need it: read, never executed.
//!
//! `KEY=value`, several on a line, `export KEY=value`, `: ${KEY:=value}`, comments, single and double quotes,
//! backslashes, continued lines, `$KEY`, `${KEY}`, `${KEY:-default}`. Anything else is an error.

use anyhow::{Result, anyhow};

use crate::printable::quoted;

/// Longest value in bytes: assignments that double each other must not fill the memory.
const MAX_VALUE: usize = 4096;
/// Deepest nesting of `${KEY:-${OTHER:-...}}`.
const MAX_DEPTH: u8 = 8;

/// What the grammar takes as a statement, for messages.
const STATEMENT: &str = "expected KEY=value, export KEY=value, : ${KEY:=value} or a # comment";

/// One variable, as it was last set.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Its name.
    pub key: String,
    /// Its value, as a shell would have it.
    pub value: String,
    /// Name of the file with the assignment.
    pub file: String,
    /// Line of the assignment, from 1.
    pub line: usize,
}

/// The variables of one file, or of several read one after the other, in the order in which they first appeared.
#[derive(Clone, Debug, Default)]
pub struct Assignments(pub Vec<Assignment>);

impl Assignments {
    /// Reads one file's text; `file` is its name for messages and must be printable.
    ///
    /// # Errors
    /// Whatever is no assignment, with its line: what was read until then is kept.
    pub fn read(&mut self, text: &[u8], file: &str) -> Result<()> {
        Parser { text, position: 0, line: 1, file, depth: 0, unused: 0, variables: self }.run()
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|a| a.key == key).map(|a| a.value.as_str())
    }

    fn set(&mut self, assignment: Assignment) {
        match self.0.iter_mut().find(|a| a.key == assignment.key) {
            Some(known) => *known = assignment,
            None => self.0.push(assignment),
        }
    }
}

/// Where text ends, and so which characters are special in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// A blank or the end of the line, which is left.
    Blank,
    /// The closing double quote.
    Quote,
    /// The closing brace of `${KEY:-`, outside double quotes.
    Brace,
    /// The closing brace of `"${KEY:-`: single quotes are plain there.
    QuotedBrace,
}

struct Parser<'a> {
    text: &'a [u8],
    position: usize,
    /// Line of `position`, from 1.
    line: usize,
    file: &'a str,
    /// How many `${` are open.
    depth: u8,
    /// How many of those have a value already: a shell does not expand what is in them.
    unused: u8,
    variables: &'a mut Assignments,
}

impl<'a> Parser<'a> {
    fn run(mut self) -> Result<()> {
        loop {
            match self.peek() {
                None => return Ok(()),
                Some(b'\n') => self.advance(),
                Some(b' ' | b'\t' | b'\\' | b'#') if self.skip_blanks() => {}
                Some(_) => self.statement()?,
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn advance(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
        }
        self.position += 1;
    }

    /// Skips blanks, continued line ends and a comment; says whether there were any.
    fn skip_blanks(&mut self) -> bool {
        let start = self.position;
        let before = self.text[..start].last();
        let mut between_words = before.is_none_or(|b| matches!(b, b' ' | b'\t' | b'\n'));
        loop {
            match self.text[self.position..] {
                [b' ' | b'\t', ..] => {
                    between_words = true;
                    self.position += 1;
                }
                [b'\\', b'\n', ..] => {
                    self.position += 2;
                    self.line += 1;
                }
                [b'#', ..] if between_words => {
                    let rest = &self.text[self.position..];
                    self.position += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                }
                _ => return self.position > start,
            }
        }
    }

    /// The words up to the end of the line.
    fn statement(&mut self) -> Result<()> {
        let start = self.position;
        let line = self.line;
        let (mut arguments_of_colon, mut export) = (false, false);
        for first in std::iter::once(true).chain(std::iter::repeat(false)) {
            self.skip_blanks();
            if matches!(self.peek(), None | Some(b'\n')) {
                break;
            }
            let (word, word_line) = (self.position, self.line);
            let name = self.joined_name();
            let next = self.peek();
            let ends = self.word_ends();
            if arguments_of_colon {
                (self.position, self.line) = (word, word_line);
                self.until(Until::Blank)?;
            } else if !name.is_empty() && next == Some(b'=') {
                let line = self.line;
                self.position += 1;
                let value = self.until(Until::Blank)?;
                self.set(&name, value, line);
            } else if first && name == "export" && ends {
                export = true;
            } else if first && name.is_empty() && next == Some(b':') && self.colon_ends() {
                arguments_of_colon = true;
            } else if !(export && !name.is_empty() && ends) {
                return Err(self.fault(start, line, &format!("commands are never run, {STATEMENT}")));
            }
        }
        Ok(())
    }

    /// Steps over the `:` here; says whether the word ends behind it.
    fn colon_ends(&mut self) -> bool {
        self.position += 1;
        self.join();
        self.word_ends()
    }

    fn word_ends(&self) -> bool {
        matches!(self.peek(), None | Some(b' ' | b'\t' | b'\n'))
    }

    /// Steps over continued line ends: what follows goes on with what came before.
    fn join(&mut self) {
        while self.text[self.position..].starts_with(b"\\\n") {
            self.position += 2;
            self.line += 1;
        }
    }

    /// A variable's name here, over continued lines; empty if there is none.
    fn joined_name(&mut self) -> String {
        let mut name = String::new();
        loop {
            self.join();
            let part = if name.is_empty() { self.name() } else { self.name_characters() };
            if part.is_empty() {
                return name;
            }
            name.push_str(part);
        }
    }

    /// A variable's name here; empty if there is none.
    fn name(&mut self) -> &'a str {
        if self.peek().is_none_or(|b| b.is_ascii_digit()) { "" } else { self.name_characters() }
    }

    /// What may stand in a name here; empty if there is nothing of it.
    fn name_characters(&mut self) -> &'a str {
        let rest = &self.text[self.position..];
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let length = rest.iter().position(|b| !is_name(b)).unwrap_or(rest.len());
        self.position += length;
        str::from_utf8(&rest[..length]).unwrap_or_default()
    }

    fn set(&mut self, key: &str, value: String, line: usize) {
        if self.unused > 0 {
            return;
        }
        self.variables.set(Assignment { key: key.to_owned(), value, file: self.file.to_owned(), line });
    }

    /// One value, as text. Of control characters only the tab and the line end may stand in it.
    fn until(&mut self, end: Until) -> Result<String> {
        let (start, line) = (self.position, self.line);
        let mut out = Vec::new();
        self.expand(end, &mut out)?;
        match String::from_utf8(out) {
            Ok(value) if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => {
                Err(self.fault(start, line, "expected no control characters"))
            }
            Ok(value) => Ok(value),
            Err(_) => Err(self.fault(start, line, "expected UTF-8")),
        }
    }

    /// Appends what the text up to `end` stands for.
    fn expand(&mut self, end: Until, out: &mut Vec<u8>) -> Result<()> {
        let (start, line) = (self.position, self.line);
        let in_quotes = matches!(end, Until::Quote | Until::QuotedBrace);
        // Where a shell takes ~ for somebody's home: at the start, and behind a colon.
        let mut home = !in_quotes;
        loop {
            if out.len() > MAX_VALUE {
                return Err(self.fault(start, line, &format!("expected a value of at most {MAX_VALUE} bytes")));
            }
            let Some(byte) = self.peek() else {
                match end {
                    Until::Blank => return Ok(()),
                    Until::Quote => return Err(self.fault(start, line, "expected a closing double quote")),
                    Until::Brace | Until::QuotedBrace => {
                        return Err(self.fault(start, line, "expected a closing brace"));
                    }
                }
            };
            let may_be_home = std::mem::replace(&mut home, !in_quotes && byte == b':');
            match (byte, end) {
                (b' ' | b'\t' | b'\n', Until::Blank) => return Ok(()),
                (b'~', _) if may_be_home => {
                    let message = "expected no ~, which stands for a home, or quotes around it";
                    return Err(self.fault(self.position, self.line, message));
                }
                (b'\\', _) if self.text[self.position..].starts_with(b"\\\n") => {
                    self.join();
                    home = may_be_home;
                }
                (b'"', Until::Quote) | (b'}', Until::Brace | Until::QuotedBrace) => {
                    self.position += 1;
                    return Ok(());
                }
                (b'"', _) => {
                    self.position += 1;
                    self.expand(Until::Quote, out)?;
                }
                (b'\'', _) if !in_quotes => self.single_quoted(out)?,
                (b'\\', _) => self.backslash(in_quotes, end, out)?,
                (b'$', _) => self.parameter(in_quotes, out)?,
                (b'`', _) => return Err(self.fault(self.position, self.line, "commands are never run, expected text")),
                (b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')', Until::Blank) => {
                    let message = format!("commands are never run, {STATEMENT}, or quotes around the value");
                    return Err(self.fault(self.position, self.line, &message));
                }
                _ => {
                    out.push(byte);
                    self.advance();
                }
            }
        }
    }

    fn single_quoted(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let (start, line) = (self.position, self.line);
        self.position += 1;
        loop {
            match self.peek() {
                None => return Err(self.fault(start, line, "expected a closing single quote")),
                Some(b'\'') => {
                    self.position += 1;
                    return Ok(());
                }
                Some(byte) => {
                    out.push(byte);
                    self.advance();
                }
            }
        }
    }

    /// A backslash and what follows: between double quotes it takes the meaning of a few characters only.
    fn backslash(&mut self, in_quotes: bool, end: Until, out: &mut Vec<u8>) -> Result<()> {
        let Some(&next) = self.text.get(self.position + 1) else {
            return Err(self.fault(self.position, self.line, "expected a character after the backslash"));
        };
        self.position += 1;
        let taken = !in_quotes || b"$`\"\\\n".contains(&next) || (end == Until::QuotedBrace && next == b'}');
        if !taken {
            out.push(b'\\');
        }
        if next != b'\n' {
            out.push(next);
        }
        self.advance();
        Ok(())
    }

    /// `$KEY`, `${KEY}`, and `${KEY:-text}`, `${KEY-text}`, `${KEY:=text}`, `${KEY=text}`.
    fn parameter(&mut self, in_quotes: bool, out: &mut Vec<u8>) -> Result<()> {
        let (start, line) = (self.position, self.line);
        self.position += 1;
        let braced = self.peek() == Some(b'{');
        self.position += usize::from(braced);
        let name = self.name();
        if name.is_empty() {
            let message = match self.peek() {
                Some(b'(') => "commands are never run, expected $KEY or ${KEY}",
                _ => "expected $KEY or ${KEY} of a key set above, or \\$ for the character itself",
            };
            return Err(self.fault(start, line, message));
        }
        if !braced && self.text[self.position..].starts_with(b"\\\n") {
            return Err(self.fault(start, line, "the name goes on in the next line, expected ${KEY}"));
        }
        let known = self.variables.get(name);
        if !braced || self.peek() == Some(b'}') {
            let Some(value) = known.or((self.unused > 0).then_some("")) else {
                return Err(self.fault(start, line, &format!("{name} is not set, expected a key set above")));
            };
            out.extend_from_slice(value.as_bytes());
            self.position += usize::from(braced);
            return Ok(());
        }
        let colon = self.peek() == Some(b':');
        self.position += usize::from(colon);
        let Some(operator @ (b'-' | b'=')) = self.peek() else {
            return Err(self.fault(start, line, "expected ${KEY}, ${KEY:-default} or ${KEY:=value}"));
        };
        self.position += 1;
        let known = known.filter(|value| !(colon && value.is_empty())).map(str::to_owned);
        if self.depth == MAX_DEPTH {
            return Err(self.fault(start, line, &format!("expected at most {MAX_DEPTH} braces in one another")));
        }
        let unused = u8::from(known.is_some());
        self.depth += 1;
        self.unused += unused;
        let other = self.until(if in_quotes { Until::QuotedBrace } else { Until::Brace })?;
        self.depth -= 1;
        self.unused -= unused;
        let value = known.unwrap_or_else(|| {
            if operator == b'=' {
                self.set(name, other.clone(), line);
            }
            other
        });
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    /// An error at `position`, on `line`: shows the text from there to the end of the line.
    fn fault(&self, position: usize, line: usize, message: &str) -> anyhow::Error {
        let rest = self.text.get(position..).unwrap_or_default();
        let shown = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        anyhow!("{}:{line}: {}: {message}", self.file, quoted(&String::from_utf8_lossy(shown)))
    }
}

#[cfg(test)]
mod tests;
