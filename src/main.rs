//! The entry point: hands the arguments to the table of commands.

fn main() {}
