//! libFuzzer's loop around one of the library's targets: READER names it. One program for all of them, as each would take as
//! long to build.
#![no_main]

use std::sync::OnceLock;

use snf_network::fuzzed::{Target, target};

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = TARGET.get_or_init(|| target(&std::env::var("READER").expect("READER is set")));
    target(bytes);
});
