#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| snf_network::fuzzed::run("xen_file", bytes));
