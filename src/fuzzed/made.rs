//! What readers of text are given where a fuzzer does not write it byte by byte: pieces that they know, in any order, some
//! with bytes of the fuzzer's own between them. So it gets past the words to what is done with them.

mod frame;
mod messages;
mod variables;
mod words;

use super::nic::{VARIABLES, state};
use super::{Choices, text};
use crate::settings::KEYS;
use crate::state;
use crate::{commands, dns, ovsdb};

pub(super) use self::frame::frame;
pub(super) use self::messages::{dns_answer, xenstore};

/// Pieces that a reader knows, and bytes as they are.
fn pieces(bytes: &[u8], known: &[&str]) -> Vec<u8> {
    let mut choices = Choices::new(bytes);
    let mut text = Vec::new();
    while !choices.is_empty() {
        match choices.byte() {
            255 => text.extend(choices.bytes()),
            choice => text.extend(known[usize::from(choice) % known.len()].as_bytes()),
        }
    }
    text
}

/// A settings file: each line a key with a value of its own or of another, quoted in one of the shell's ways.
pub(super) fn settings(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut file = Vec::new();
    while !choices.is_empty() {
        let key = KEYS[choices.below(KEYS.len())];
        let value = match choices.byte() {
            255 => choices.bytes(),
            254 => choices.of(variables::SETTINGS).as_bytes(),
            choice if choice % 4 == 0 => KEYS[choices.below(KEYS.len())].preset.value().as_bytes(),
            _ => key.preset.value().as_bytes(),
        };
        let (before, between, behind) = variables::ASSIGNMENTS[choices.below(variables::ASSIGNMENTS.len())];
        file.extend([before.as_bytes(), key.name.as_bytes(), between.as_bytes(), value, behind.as_bytes()].concat());
    }
    text::settings(&file);
}

/// A state file: records of NICs and of uplinks, one now and then with a variable too few or a value that is none.
pub(super) fn states(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut records = Vec::new();
    while !choices.is_empty() && records.len() < 4 {
        let of_nic = VARIABLES.iter().chain(variables::RECORDED);
        let known: Vec<_> = if choices.below(4) == 0 { variables::UPLINK.iter().collect() } else { of_nic.collect() };
        let values = known.into_iter().filter_map(|(name, good)| {
            let value = match choices.byte() {
                255 => return None,
                254 => String::from_utf8_lossy(choices.bytes()).into_owned(),
                choice => good[usize::from(choice) % good.len()].to_owned(),
            };
            Some(((*name).to_owned(), value))
        });
        records.push(values.collect());
    }
    state(state::text(&records).as_bytes());
}

pub(super) fn rt_tables(bytes: &[u8]) {
    text::rt_tables(&pieces(bytes, words::RT_TABLES));
}

pub(super) fn xen_file(bytes: &[u8]) {
    super::nic::xen_file(&pieces(bytes, words::XEN_FILE));
}

/// Variables of the hooks, of ifupdown and of Xen's hotplug together.
pub(super) fn hook(bytes: &[u8]) {
    text::hook(&pieces(bytes, words::HOOK));
}

pub(super) fn command_line(bytes: &[u8]) {
    commands::fuzzed::command_line(&pieces(bytes, words::COMMAND_LINE));
}

pub(super) fn dns_text(bytes: &[u8]) {
    dns::fuzzed::text(&pieces(bytes, words::DNS_TEXT));
}

pub(super) fn key_file(bytes: &[u8]) {
    dns::fuzzed::key_file(&pieces(bytes, words::KEY_FILE));
}

pub(super) fn ovsdb(bytes: &[u8]) {
    ovsdb::fuzzed::conversation(&pieces(bytes, words::OVSDB));
}
