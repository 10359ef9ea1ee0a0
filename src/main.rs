//! The entry point: hands the arguments to the table of commands.

use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;

/// musl's own maps and unmaps memory a page at a time: a third of all system calls of an ifup.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    snf_network::commands::run(std::env::args_os().collect())
}
