//! The manual pages: the table of commands and docs/commands.md make snf-network(8), the keys of the settings snf-network(5).

use snf_network::commands::COMMANDS;
use snf_network::settings::{KEYS, Preset};

use super::roff::Page;

/// What the page of the commands says beyond the table.
const COMMANDS_PAGE: &str = include_str!("../../../docs/commands.md");
/// Its section that has a page of its own.
const SETTINGS: &str = "Settings";

/// snf-network(8).
pub fn of_commands() -> String {
    let mut page = Page::new(
        "snf-network",
        8,
        "System Administration",
        "sets up and takes down the network of virtual machines on Ganeti nodes",
    );
    page.heading("SYNOPSIS");
    for command in COMMANDS {
        let line = format!("`snf-network {}` {}", command.names[0], command.arguments);
        page.paragraph(line.trim_end());
    }
    let (opening, sections) = COMMANDS_PAGE.split_once("\n## ").unwrap_or((COMMANDS_PAGE, ""));
    page.heading("DESCRIPTION");
    blocks(&mut page, opening.split_once('\n').unwrap_or_default().1);
    page.heading("COMMANDS");
    for command in COMMANDS {
        let names = command.names[1..].join(", ");
        let also = if names.is_empty() { String::new() } else { format!(" (also by the names {names})") };
        page.item(command.names[0], &format!("{}{also}.", command.summary));
    }
    for command in COMMANDS {
        if let Some(help) = command.help() {
            page.subheading(&format!("{} --help", command.names[0]));
            page.verbatim(help);
        }
    }
    for section in sections.split("\n## ") {
        let (title, body) = section.split_once('\n').unwrap_or((section, ""));
        if title != SETTINGS {
            page.heading(title);
            blocks(&mut page, body);
        }
    }
    page.heading("SEE ALSO");
    page.paragraph("`snf-network`(5), `interfaces`(5), `ip`(8), `nft`(8), `systemd.timer`(5)");
    page.paragraph("/usr/share/doc/snf-network/: what each setup does, what a guest can and cannot do, dynamic DNS.");
    page.finish()
}

/// snf-network(5).
pub fn of_settings() -> String {
    let mut page = Page::new("snf-network", 5, "File Formats", "settings of snf-network, /etc/default/snf-network");
    page.heading("DESCRIPTION");
    for paragraph in section(COMMANDS_PAGE, SETTINGS).split("\n\n").filter(|it| !it.starts_with('|')) {
        page.paragraph(&paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    page.paragraph("An empty value leaves the default.");
    page.heading("KEYS");
    for key in KEYS {
        let default = match key.preset {
            Preset::Value(value) => format!("default: `{value}`"),
            Preset::Unset(example) => format!("default: none; for example `{example}`"),
        };
        page.item(key.name, &format!("{} ({default}).", key.meaning));
    }
    page.paragraph(
        "Keys of former versions that named programs to run (RUNLOCKED_OPTS, IPTABLES and the like) are ignored.",
    );
    page.heading("SEE ALSO");
    page.paragraph("`snf-network`(8)");
    page.finish()
}

/// The text of one section.
fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let behind = text.split_once(&format!("\n## {title}\n")).unwrap_or_default().1;
    behind.split("\n## ").next().unwrap_or_default().trim()
}

/// Paragraphs, lists, tables and code.
fn blocks(page: &mut Page, text: &str) {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let code = line.starts_with("```");
        if line.trim().is_empty() {
            continue;
        }
        if code {
            let body: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            page.verbatim(&body.join("\n"));
        } else if line.starts_with('|') {
            let mut rows = vec![line];
            while let Some(row) = lines.next_if(|it| it.starts_with('|')) {
                rows.push(row);
            }
            let rows = rows.into_iter().filter(|row| row.contains(|c: char| !"|-: ".contains(c))).map(cells);
            page.table(&rows.collect::<Vec<_>>());
        } else if let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')) {
            page.subheading(title);
        } else {
            let item = ["- ", "* "].iter().find_map(|mark| line.strip_prefix(mark));
            let numbered = line.split_once(". ").filter(|(number, _)| number.parse::<u8>().is_ok());
            let mut words = vec![item.or(numbered.map(|it| it.1)).unwrap_or(line).trim()];
            while let Some(more) = lines.next_if(|it| continues(it)) {
                words.push(more.trim());
            }
            let text = words.join(" ");
            if item.is_some() || numbered.is_some() { page.bullet(&text) } else { page.paragraph(&text) }
        }
    }
}

/// Whether a line belongs to the paragraph or the item before it.
fn continues(line: &str) -> bool {
    let begins = ["- ", "* ", "|", "```", "#"].iter().any(|mark| line.starts_with(mark));
    let numbered = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
    !line.trim().is_empty() && !begins && !numbered
}

/// The cells of a row; a bar behind a backslash or inside code does not end one.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|');
    let (mut cells, mut code, mut escaped) = (vec![String::new()], false, false);
    for c in row.chars() {
        let cell = match (c, cells.last_mut()) {
            ('|', _) if !code && !escaped => {
                cells.push(String::new());
                continue;
            }
            (_, Some(cell)) => cell,
            (_, None) => continue,
        };
        code ^= c == '`';
        escaped = c == '\\';
        if !escaped {
            cell.push(c);
        }
    }
    cells.into_iter().map(|cell| cell.trim().to_owned()).collect()
}
