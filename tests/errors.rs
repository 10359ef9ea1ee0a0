//! docs/errors.md has every message that the program can give: the sources are searched for their texts, and each must be a row
//! of a table there, with its cause and its cure; and no row is of a message that is gone.
//!
//! A message is a string literal in `bail!`, `anyhow!`, `ensure!` (behind its condition), `context`, `with_context`, `complain`,
//! `fault`, `log.say` and `warnings.push`, in `log.line` where it begins with `warning` or `error`, or a constant named there; any
//! other one that says what was expected; and all in files that mostly make up messages (`ELOQUENT`). In its row, what is filled in is `…`, runs of white space are one space, and `|` is
//! `\|`. Literals with less than two words outside of what is filled in only name an object (`STATE_DIR: …`): they have no row.
//! Nor has what only the demo says, and what stands in tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A token of Rust, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

impl Token {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Word(word) => word == text,
            Self::Sign(sign) => text.chars().eq([*sign]),
            Self::Text(_) => false,
        }
    }
}

/// The tokens of a source file, without comments, characters and numbers.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut place = 0;
    while place < chars.len() {
        let here = at(place);
        if here == '/' && at(place + 1) == '/' {
            while place < chars.len() && at(place) != '\n' {
                place += 1;
            }
        } else if here == '/' && at(place + 1) == '*' {
            let mut depth = 1;
            place += 2;
            while depth > 0 && place < chars.len() {
                match (at(place), at(place + 1)) {
                    ('/', '*') => (depth, place) = (depth + 1, place + 2),
                    ('*', '/') => (depth, place) = (depth - 1, place + 2),
                    _ => place += 1,
                }
            }
        } else if here == '\'' {
            // A character, or a lifetime.
            if at(place + 1) == '\\' {
                place += 3;
                while at(place) != '\'' {
                    place += 1;
                }
                place += 1;
            } else {
                place += if at(place + 2) == '\'' { 3 } else { 1 };
            }
        } else if here == '"' {
            let (text, end) = text(&chars, place + 1);
            tokens.push(Token::Text(text));
            place = end;
        } else if here.is_alphabetic() || here == '_' {
            let start = place;
            while at(place).is_alphanumeric() || at(place) == '_' {
                place += 1;
            }
            let word: String = chars[start..place].iter().collect();
            let hashes = chars[place..].iter().take_while(|it| **it == '#').count();
            if ["r", "br", "cr"].contains(&word.as_str()) && at(place + hashes) == '"' {
                let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                let start = place + hashes + 1;
                place = start;
                while place < chars.len() && !chars[place..].starts_with(&end) {
                    place += 1;
                }
                tokens.push(Token::Text(chars[start..place].iter().collect()));
                place += end.len();
            } else {
                tokens.push(Token::Word(word));
            }
        } else {
            if !here.is_whitespace() {
                tokens.push(Token::Sign(here));
            }
            place += 1;
        }
    }
    tokens
}

/// The text of a string literal whose first character is at `place`, and where what follows it begins.
fn text(chars: &[char], mut place: usize) -> (String, usize) {
    let mut text = String::new();
    while place < chars.len() && chars[place] != '"' {
        if chars[place] == '\\' {
            place += 1;
            match chars[place] {
                // The line goes on behind the white space of the next one.
                '\n' => {
                    while chars[place].is_whitespace() {
                        place += 1;
                    }
                    continue;
                }
                'n' | 't' | 'r' | '0' => text.push(' '),
                other => text.push(other),
            }
        } else {
            text.push(chars[place]);
        }
        place += 1;
    }
    (text, place + 1)
}

/// Where the bracket that opens at `open` closes.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return place;
        }
    }
    tokens.len()
}

fn begins(tokens: &[Token], place: usize, with: &[&str]) -> bool {
    with.iter().enumerate().all(|(offset, text)| tokens.get(place + offset).is_some_and(|token| token.is(text)))
}

/// Without what is for tests only.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        if begins(&tokens, place, &ATTRIBUTE) {
            place += ATTRIBUTE.len();
            while !matches!(tokens.get(place), None | Some(Token::Sign('{' | ';'))) {
                place = if tokens[place] == Token::Sign('(') { closing(&tokens, place) } else { place } + 1;
            }
            place = if tokens.get(place) == Some(&Token::Sign('{')) { closing(&tokens, place) } else { place } + 1;
        } else {
            kept.push(tokens[place].clone());
            place += 1;
        }
    }
    kept
}

/// How a message stands in its row, if it is one.
fn row(literal: &str) -> Option<String> {
    let mut row = String::new();
    let mut chars = literal.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.next_if_eq(&'{').is_none() => {
                chars.by_ref().find(|it| *it == '}');
                row.push('…');
            }
            '}' => row.extend(chars.next_if_eq(&'}')),
            '|' => row.push_str("\\|"),
            c => row.push(c),
        }
    }
    let row = row.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = row.split(' ').filter(|word| word.chars().filter(|c| c.is_alphabetic()).count() > 1).count();
    (words >= 2).then_some(row)
}

/// The ways into a message, each up to its opening bracket.
const CALLS: [&[&str]; 11] = [
    &["bail", "!", "("],
    &["anyhow", "!", "("],
    &["ensure", "!", "("],
    &[".", "context", "("],
    &[".", "with_context", "("],
    &[".", "fault", "("],
    &["complain", "("],
    &["log", ".", "say", "("],
    &["log", ".", "line", "("],
    &["warnings", ".", "push", "("],
    &["report", "("],
];

/// Files in which every literal of two words counts: they make up errors piece by piece.
const ELOQUENT: [&str; 10] = [
    "commands/vif.rs",
    "dns/exchange.rs",
    "dns/key.rs",
    "dns/message.rs",
    "dns/zone.rs",
    "frame/encode.rs",
    "record.rs",
    "settings/shell.rs",
    "sys/unix_stream.rs",
    "xenstore.rs",
];

/// The messages in a source file, `eloquent` or not; constants named in them are looked up in `constants`.
fn messages(tokens: &[Token], constants: &BTreeMap<String, String>, eloquent: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for place in 0..tokens.len() {
        if let Token::Text(text) = &tokens[place]
            && (eloquent || text.contains("expected"))
        {
            found.extend(row(text));
        }
        for call in CALLS.iter().filter(|call| begins(tokens, place, call)) {
            let mut start = place + call.len() - 1;
            let end = closing(tokens, start);
            if call[0] == "ensure" {
                // The condition: up to the first comma that is in no bracket of it.
                start += 1;
                while start < end && tokens[start] != Token::Sign(',') {
                    let opens = matches!(tokens[start], Token::Sign('(' | '[' | '{'));
                    start = if opens { closing(tokens, start) } else { start } + 1;
                }
            }
            let prefixed = ["line", "report"].iter().any(|it| call[call.len() - 2] == *it);
            for token in &tokens[start..end] {
                let text = match token {
                    Token::Text(text) => text,
                    Token::Word(word) => match constants.get(word) {
                        Some(text) => text,
                        None => continue,
                    },
                    Token::Sign(_) => continue,
                };
                if !prefixed || text.starts_with("warning") || text.starts_with("error") {
                    found.extend(row(text));
                }
            }
        }
    }
    found
}

/// Constants of text, by name.
fn constants(tokens: &[Token]) -> BTreeMap<String, String> {
    let value = |place: usize| match (&tokens[place..], tokens.get(place + 1)) {
        ([constant, ..], Some(Token::Word(name))) if constant.is("const") => {
            match tokens[place + 2..].iter().take(8).find(|it| matches!(it, Token::Text(_) | Token::Sign(';'))) {
                Some(Token::Text(text)) => Some((name.clone(), text.clone())),
                _ => None,
            }
        }
        _ => None,
    };
    (0..tokens.len()).filter_map(value).collect()
}

/// What only the demo uses.
const OF_THE_DEMO: [&str; 6] = [
    "src/demo",
    "src/frame/parse.rs",
    "src/kernel/guest_port.rs",
    "src/kernel/namespace.rs",
    "src/kernel/ping.rs",
    "src/kernel/topology.rs",
];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().and_then(|name| name.to_str()).expect("a name");
        let tests = name == "tests" || name.ends_with("tests.rs") || name.starts_with("fuzzed");
        if tests || OF_THE_DEMO.iter().any(|it| entry.ends_with(it)) {
            continue;
        } else if entry.is_dir() {
            sources(&entry, files);
        } else if name.ends_with(".rs") {
            files.push(entry);
        }
    }
}

/// All messages of the program, each with the first file that has it.
fn program() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let files: Vec<_> = files
        .into_iter()
        .map(|path| {
            let source = fs::read_to_string(&path).expect("a source file");
            let name = path.strip_prefix(&root).expect("below src").display().to_string();
            (name, without_tests(tokens(&source)))
        })
        .collect();
    let constants = files.iter().flat_map(|(_, tokens)| constants(tokens)).collect();
    let mut all = BTreeMap::new();
    for (name, tokens) in &files {
        for message in messages(tokens, &constants, ELOQUENT.contains(&name.as_str())) {
            all.entry(message).or_insert_with(|| name.clone());
        }
    }
    all
}

/// The rows of docs/errors.md: message, cause, cure.
fn documented() -> Vec<[String; 3]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let document = fs::read_to_string(path).expect("docs/errors.md");
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        let cells: [String; 3] = cells.try_into().unwrap_or_else(|_| panic!("not three cells: {line}"));
        let [message, cause, cure] = cells;
        [message.trim_matches('`').to_owned(), cause, cure]
    })
    .collect()
}

#[test]
fn every_message_is_documented() {
    let documented: BTreeSet<_> = documented().into_iter().map(|[message, ..]| message).collect();
    let missing = program().into_iter().filter(|(message, _)| !documented.contains(message));
    let lines: Vec<_> = missing.map(|(message, file)| format!("src/{file}:\n| `{message}` | CAUSE | CURE |")).collect();
    assert!(
        lines.is_empty(),
        "{} messages are not in docs/errors.md; add, in the table where each belongs, with its cause and cure:\n\n{}\n",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn every_documented_message_is_the_programs() {
    let program = program();
    let gone: Vec<_> = documented().into_iter().filter(|[message, ..]| !program.contains_key(message)).collect();
    let lines: Vec<_> = gone.iter().map(|[message, ..]| format!("| `{message}` |")).collect();
    assert!(
        lines.is_empty(),
        "no source has these messages any more; remove from docs/errors.md:\n{}",
        lines.join("\n")
    );
}

#[test]
fn every_row_has_a_cause_and_a_cure_and_stands_once() {
    let mut seen = BTreeSet::new();
    for [message, cause, cure] in documented() {
        assert!(cause.len() > 3 && cure.len() > 3 && cause != "CAUSE" && cure != "CURE", "{message}: {cause} | {cure}");
        assert!(seen.insert(message.clone()), "twice: {message}");
    }
}

#[test]
fn messages_are_found_wherever_they_stand() {
    let source = r##"
        // bail!("a comment, not a message");
        /* anyhow!("nor /* nested */ this one") */
        const ADVICE: &str = "what a constant advises";
        fn f<'a>(x: &'a str) -> Result<char> {
            ensure!(x == "the condition is none", "first {} of \
                two {x:?} lines | {{braces}}", y);
            let brace = '{'; let quote = '\''; let raw = r#"not "a" message"#;
            log.line("plain news of a run"); log.line(format!("warning: {x}: left alone"));
            other(x, "expected a number");
            read().context(ADVICE)?.with_context(|| format!("STATE_DIR: {x}"))?;
            bail!(r"a raw message")
        }
        #[cfg(test)]
        mod tests { fn g() { bail!("only in a test") } }
    "##;
    let tokens = without_tests(tokens(source));
    let found: Vec<_> = messages(&tokens, &constants(&tokens), false).into_iter().collect();
    assert_eq!(
        found,
        [
            "a raw message",
            "expected a number",
            r"first … of two … lines \| {braces}",
            "warning: …: left alone",
            "what a constant advises",
        ]
    );
}
