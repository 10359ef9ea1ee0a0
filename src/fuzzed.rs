//! What the fuzz targets do with bytes (docs/testing.md): each reader of what comes from outside, and what must hold of its
//! result. In the library only for cargo-fuzz and for unit tests, of which one replays the corpus.

mod choices;
mod made;
mod nic;
#[cfg(test)]
mod properties;
mod text;

use anyhow::Error;

pub(crate) use self::choices::Choices;
use crate::printable::is_printable;
use crate::{commands, dns, kernel, ovsdb, xenstore};

/// What is done with the bytes of one file of a corpus.
pub type Target = fn(&[u8]);

/// Every target by the name of its folder in fuzz/corpus. Those that are `made` write what the reader takes from the fuzzer's
/// choices; `nic`, `rtnetlink` and `nftables` do so by themselves.
pub const TARGETS: [(&str, Target); 28] = [
    ("environment", nic::environment),
    ("nic", nic::nic),
    ("state", nic::state),
    ("xen_file", nic::xen_file),
    ("hook", text::hook),
    ("settings", text::settings),
    ("rt_tables", text::rt_tables),
    ("command_line", commands::fuzzed::command_line),
    ("dns_answer", dns::fuzzed::answer),
    ("dns_text", dns::fuzzed::text),
    ("key_file", dns::fuzzed::key_file),
    ("frame", text::frame),
    ("rtnetlink", kernel::rtnetlink::fuzzed::datagram),
    ("nftables", kernel::nftables::fuzzed::datagram),
    ("ovsdb", ovsdb::fuzzed::conversation),
    ("xenstore", xenstore::fuzzed),
    ("state_made", made::states),
    ("xen_file_made", made::xen_file),
    ("hook_made", made::hook),
    ("settings_made", made::settings),
    ("rt_tables_made", made::rt_tables),
    ("command_line_made", made::command_line),
    ("dns_answer_made", made::dns_answer),
    ("dns_text_made", made::dns_text),
    ("key_file_made", made::key_file),
    ("frame_made", made::frame),
    ("ovsdb_made", made::ovsdb),
    ("xenstore_made", made::xenstore),
];

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> Target {
    let known = TARGETS.iter().find(|it| it.0 == name);
    known.unwrap_or_else(|| panic!("{name}: expected a target among TARGETS")).1
}

/// An error is one line that can be printed, and short enough for a log.
pub(crate) fn check_error(error: &Error) {
    let line = format!("{error:#}");
    assert!(is_printable(&line) && !line.is_empty(), "{line:?}");
    assert!(line.len() < 4000, "{} bytes: {line}", line.len());
}

/// Variables as `/proc/PID/environ` has them: `KEY=value`, each before a NUL.
pub(crate) fn variables(bytes: &[u8]) -> Vec<(String, std::ffi::OsString)> {
    use std::os::unix::ffi::OsStringExt;
    let assignment = |part: &[u8]| {
        let at = part.iter().position(|byte| *byte == b'=')?;
        let key = std::str::from_utf8(&part[..at]).ok()?.to_owned();
        Some((key, OsStringExt::from_vec(part[at + 1..].to_vec())))
    };
    bytes.split(|byte| *byte == 0).filter_map(assignment).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn the_corpus_holds() {
        for (name, target) in TARGETS {
            let folder = folder("corpus").join(name);
            let files = names(&folder);
            assert!(files.len() >= 3, "{name}: {files:?}");
            for file in files {
                let bytes = fs::read(folder.join(&file)).expect("a file");
                // The name of the file is the first thing to know of a panic.
                let held = std::panic::catch_unwind(|| target(&bytes));
                assert!(held.is_ok(), "fuzz/corpus/{name}/{file}");
            }
        }
    }

    #[test]
    fn every_target_has_a_corpus_and_none_has_more() {
        let mut targets: Vec<_> = TARGETS.iter().map(|it| it.0.to_owned()).collect();
        targets.sort();
        assert_eq!(names(&folder("corpus")), targets);
    }
}
