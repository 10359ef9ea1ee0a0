//! Manual pages in the language of man(7), as far as our documentation needs it.

use std::fmt::Write as _;

/// A page in the making.
pub struct Page {
    text: String,
    /// Whether the next paragraph follows a heading, which needs no space between.
    fresh: bool,
}

impl Page {
    /// Begins a page: its name, its section of the manual, the heading of that section, its name's one-line description.
    pub fn new(name: &str, section: u8, manual: &str, summary: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let mut page = Self { text: String::new(), fresh: true };
        // t: there are tables, for tbl.
        let _ =
            writeln!(page.text, "'\\\" t\n.TH {} {section} \"\" \"snf-network {version}\" \"{manual}\"", escaped(name));
        // Names of variables and paths are not to be taken apart.
        page.text += ".nh\n.ad l\n";
        page.heading("NAME");
        let _ = writeln!(page.text, "{} \\- {}", escaped(name), escaped(summary));
        page
    }

    /// The text of the page.
    pub fn finish(self) -> String {
        self.text
    }

    /// A section.
    pub fn heading(&mut self, text: &str) {
        let _ = writeln!(self.text, ".SH \"{}\"", quoted(&inline(text)));
        self.fresh = true;
    }

    /// A section of a section.
    pub fn subheading(&mut self, text: &str) {
        let _ = writeln!(self.text, ".SS \"{}\"", quoted(&inline(text)));
        self.fresh = true;
    }

    /// A paragraph; Markdown's code and links may be in it.
    pub fn paragraph(&mut self, text: &str) {
        if !self.fresh {
            self.text += ".PP\n";
        }
        self.line(&inline(text));
    }

    /// A term and what is said of it.
    pub fn item(&mut self, term: &str, text: &str) {
        self.text += ".TP\n";
        self.line(&format!("\\fB{}\\fR", escaped(term)));
        self.line(&inline(text));
    }

    /// An item of a list.
    pub fn bullet(&mut self, text: &str) {
        self.text += ".IP \\(bu 2\n";
        self.line(&inline(text));
    }

    /// Lines as they are.
    pub fn verbatim(&mut self, lines: &str) {
        self.text += ".PP\n.nf\n.RS 2\n";
        for line in lines.lines() {
            self.line(&escaped(line));
        }
        self.text += ".RE\n.fi\n";
        self.fresh = false;
    }

    /// A table. The last column takes what the others leave of the line.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        self.text += ".PP\n.TS\nallbox tab(\u{1f});\n";
        let _ = writeln!(self.text, "{}.", vec!["lx"; columns].join(" "));
        for row in rows {
            let cells = row.iter().map(|cell| format!("T{{\n{}\nT}}", protected(&inline(cell))));
            let _ = writeln!(self.text, "{}", cells.collect::<Vec<_>>().join("\u{1f}"));
        }
        self.text += ".TE\n";
        self.fresh = false;
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{}", protected(text));
        self.fresh = false;
    }
}

/// A dot or an apostrophe at a line's start would make it a request.
fn protected(text: &str) -> String {
    let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{text}")
}

/// Between the double quotes of a request's argument.
fn quoted(text: &str) -> String {
    text.replace('"', "\\(dq")
}

/// Text as it is: what roff would read as an escape or as typography is not.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out += "\\e",
            '-' => out += "\\-",
            '^' => out += "\\(ha",
            '~' => out += "\\(ti",
            '`' => out += "\\(ga",
            '\'' => out += "\\(aq",
            _ if c.is_ascii() => out.push(c),
            _ => {
                let _ = write!(out, "\\[u{:04X}]", u32::from(c));
            }
        }
    }
    out
}

/// A line of Markdown: code and strong words are bold, of links the text stays.
pub fn inline(text: &str) -> String {
    let mut out = String::new();
    let parts: Vec<&str> = text.split('`').collect();
    for (place, part) in parts.iter().enumerate() {
        match place % 2 {
            0 => out += &escaped(&without_links(part).replace("**", "")),
            _ => {
                let _ = write!(out, "\\fB{}\\fR", escaped(part));
            }
        }
    }
    out
}

/// `[text](target)` becomes text.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let parts = link.split_once("](").and_then(|(text, behind)| Some((text, behind.split_once(')')?.1)));
        let Some((text, after)) = parts.filter(|(text, _)| !text.contains(']')) else {
            out += before;
            out.push('[');
            rest = link;
            continue;
        };
        out += before;
        out += text;
        rest = after;
    }
    out + rest
}
