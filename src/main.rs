//! The entry point: hands the arguments to the table of commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    snf_network::commands::run(std::env::args_os().collect())
}
