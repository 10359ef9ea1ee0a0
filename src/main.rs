//! The entry point: hands the arguments to the table of commands.

use std::process::ExitCode;

use snf_network::kernel::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

fn main() -> ExitCode {
    snf_network::commands::run(std::env::args_os().collect())
}
