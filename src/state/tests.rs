//! Files and locks.

use super::*;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("snf-network-state-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn tap0() -> IfName {
    "tap0".parse().expect("a name")
}

#[test]
fn records_come_back_as_they_were_written() {
    let folder = folder("roundtrip");
    let record = |ip: &str| vec![("IP".to_owned(), ip.to_owned()), ("TAGS".to_owned(), "it's $(x) `y`".to_owned())];
    let mut state = State::open(&folder, &tap0()).expect("the lock");
    assert!(state.records.is_empty());
    state.write(vec![record("10.0.0.1"), record("10.0.0.2")]).expect("written");
    drop(state);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.join("tap0")).expect("a file").permissions());
    assert_eq!(mode & 0o7777, 0o600);
    let mut state = State::open(&folder, &tap0()).expect("the lock");
    assert_eq!(state.records, [record("10.0.0.1"), record("10.0.0.2")]);
    state.write(Vec::new()).expect("removed");
    assert!(!folder.join("tap0").exists());
    fs::remove_dir_all(&folder).expect("cleared");
}

#[test]
fn no_value_forges_a_line() {
    let folder = folder("forge");
    let mut state = State::open(&folder, &tap0()).expect("the lock");
    let tags = format!("a\n{HEAD}\nSNF_NETWORK_STATE='1'\nIP='10.0.0.9'");
    state.write(vec![vec![("TAGS".to_owned(), tags)]]).expect("written");
    drop(state);
    let records = State::peek(&folder, &tap0()).expect("a record");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].len(), 1);
    fs::remove_dir_all(&folder).expect("cleared");
}

#[test]
fn no_word_becomes_two() {
    assert_eq!(one_line("a\tb\nc"), "a b c");
    assert_eq!(one_line("no\u{1b}private-filtered \u{85}dns"), "no?private-filtered ?dns");
}

#[test]
fn what_is_not_ours_counts_as_none_with_a_complaint() {
    let folder = folder("foreign");
    for text in ["IP=10.0.0.1\n", "# snf-network record\n", "# snf-network record\nSNF_NETWORK_STATE='9'\n", "\0"] {
        fs::write(folder.join("tap0"), text).expect("written");
        let state = State::open(&folder, &tap0()).expect("the lock");
        assert!(state.records.is_empty() && state.complaint.is_some(), "{text:?}");
    }
    fs::remove_file(folder.join("tap0")).expect("removed");
    std::os::unix::fs::symlink("/etc/passwd", folder.join("tap0")).expect("a link");
    assert!(State::open(&folder, &tap0()).expect("the lock").complaint.is_some());
    fs::remove_dir_all(&folder).expect("cleared");
}

#[test]
fn every_prefix_of_a_file_is_survived() {
    let text = format!("{HEAD}\nSNF_NETWORK_STATE='1'\nIP='10.0.0.1'\nTAGS='it'\\''s'\n");
    for length in 0..text.len() {
        let _either_way = parse(&text[..length]);
    }
    assert_eq!(parse(&text).expect("whole")[0][1].1, "it's");
}
