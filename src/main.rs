//! The entry point: hands the arguments to the table of commands.

use snf_network::commands;
use snf_network::kernel::allocator::Allocator;
use snf_network::kernel::process;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() {
    process::end(commands::run(std::env::args_os().collect()))
}
