//! A real guest, Debian's kernel in QEMU behind a TAP, which sends the frames of the attack tests.

use crate::Test;
use crate::attack::real;

pub const TESTS: &[Test] = &[
    ("real_guest::attacks_from_an_ip_less_routed_tap", real::from_a_routed_tap),
    ("real_guest::attacks_from_a_private_filtered_port", real::from_a_private_filtered_port),
    ("real_guest::attacks_from_a_strict_filtered_port", real::from_a_strict_filtered_port),
];
